"""The self-test passes on the installed patch, and fails for every fault that it is meant to detect."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import pytest
import transformers
from transformers.interpretation import self_test
from transformers.interpretation.engine import decode as engine
from transformers.interpretation.surgery import methods


def test_the_installed_patch_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert self_test.main() == 0
    assert capsys.readouterr().out.startswith("self-test: ok on transformers ")


def without_insert_info(method: Callable) -> Callable:
    """The method, ignoring what should be inserted."""
    return lambda self, *args, insert_info=None, **kwargs: method(self, *args, **kwargs)


def with_changed_plan(monkeypatch: pytest.MonkeyPatch, change: Callable) -> None:
    """Replace how every insertion is carried out."""
    plan_surgery = methods.plan_surgery

    def changed(*args, **kwargs):
        plan = plan_surgery(*args, **kwargs)
        layers = {layer: dataclasses.replace(at, **change(at)) for layer, at in plan.layers.items()}
        return dataclasses.replace(plan, layers=layers)

    monkeypatch.setattr(methods, "plan_surgery", changed)


@pytest.mark.parametrize("name", ["forward_interpret", "generate_interpret", "greedy_search_interpret"])
def test_a_method_without_surgery_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    model = transformers.LlamaForCausalLM
    monkeypatch.setattr(model, name, without_insert_info(getattr(model, name)))
    assert self_test.main() == 1
    error = capsys.readouterr().err
    assert error.startswith(f"self-test: SelfTestError: {name}, normalized: wrong ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda at: {"strength": at.strength * 0.9},
        lambda at: {"keep": at.keep + 0.1},
        lambda at: {"positions": (at.positions + 1) % len(self_test.PROMPT)},
        lambda at: {"rows": at.rows + 1},
        lambda at: {"vectors": -at.vectors},
    ],
)
def test_other_surgery_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: Callable
) -> None:
    with_changed_plan(monkeypatch, change)
    assert self_test.main() == 1
    assert "wrong logits" in capsys.readouterr().err


def test_a_missing_method_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delattr(transformers.LlamaForCausalLM, "forward_interpret")
    monkeypatch.delattr(transformers.generation.GenerationMixin, "forward_interpret")
    monkeypatch.delattr(transformers.PreTrainedModel, "forward_interpret")
    assert self_test.main() == 1
    assert "has no forward_interpret: not patched" in capsys.readouterr().err


def test_a_module_that_cannot_be_imported_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"cannot import {name}")

    monkeypatch.setattr(self_test.importlib, "import_module", refuse)
    assert self_test.main() == 1
    assert capsys.readouterr().err == "self-test: ImportError: cannot import transformers.interpretation\n"


def broken(**changes: Callable) -> Callable:
    """`plan_surgery` whose plan differs for some calls: by name of a field, from the arguments of the call."""
    plan_surgery = methods.plan_surgery

    def changed(*args, **kwargs):
        plan = plan_surgery(*args, **kwargs)
        layers = {
            layer: dataclasses.replace(at, **{name: change(at, kwargs) for name, change in changes.items()})
            for layer, at in plan.layers.items()
        }
        return dataclasses.replace(plan, layers=layers)

    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": lambda at, call: at.positions - (call["attention_mask"] == 0).any().long()}, "left padding"),
        ({"onward": lambda at, _: at.onward & False}, "generated tokens steered"),
    ],
)
def test_padding_and_steering_are_looked_at(monkeypatch, capsys, changes, message) -> None:
    monkeypatch.setattr(methods, "plan_surgery", broken(**changes))
    assert self_test.main() == 1
    assert message in capsys.readouterr().err


def test_beams_that_forget_the_cache_fail(monkeypatch, capsys) -> None:
    generate = transformers.LlamaForCausalLM.generate_interpret

    def other(self, *args, insert_info=None, **kwargs):
        beams = kwargs.get("num_beams", 1) > 1
        return generate(self, *args, insert_info=[{}] if beams else insert_info, **kwargs)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate_interpret", other)
    assert self_test.main() == 1
    assert "beams" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("best_tokens", lambda tokens, probabilities: (tokens, probabilities / 2), "wrong probabilities"),
        ("best_tokens", lambda tokens, probabilities: (tokens.flip(0), probabilities), "wrong tokens"),
    ],
)
def test_the_engine_is_looked_at(monkeypatch, capsys, name, change, message) -> None:
    original = getattr(engine, name)
    monkeypatch.setattr(engine, name, lambda *args: change(*original(*args)))
    assert self_test.main() == 1
    assert message in capsys.readouterr().err


def test_a_wrong_relevancy_fails(monkeypatch, capsys) -> None:
    original = engine.probabilities_of
    monkeypatch.setattr(engine, "probabilities_of", lambda *args: original(*args) / 2)
    assert self_test.main() == 1
    assert "interpretations: relevancy" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "pydantic"])
def test_the_explorers_own_packages_may_be_missing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in [name for name in sys.modules if name.startswith("transformers.interpretation.explorer")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # its import then fails as that of a missing one
    self_test.check_imports()
    monkeypatch.setattr(self_test, "EXPLORERS_OWN", ())
    if package != "uvicorn":  # which is imported late
        with pytest.raises(ModuleNotFoundError):
            self_test.check_imports()
