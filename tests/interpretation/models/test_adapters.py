"""An adapter that is on for the reader and off for the source, against two separate models."""

from __future__ import annotations

import copy
import json
import shutil
import threading

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_folder import short_run, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPromptSpec, interpret, interpret_vectors, read_csv
from transformers.interpretation.models.adapters import CONFIG, WEIGHTS, Adapter, AdapterError
from transformers.interpretation.runs.manifest import read_manifest
from transformers.interpretation.runs.preparation import RequestError, prepare
from transformers.interpretation.runs.runner import run

TOKENIZER = tiny_tokenizer()
IDS = torch.tensor([[5, 17, 99, 23, 64]])
OPTIONS = {
    "interpretation_prompt": InterpretationPromptSpec("short", text="ab: _ _ is"),
    "max_new_tokens": 4,
    "batch_size": 5,
}


def write_adapter(folder, base, **changes):
    """Random weights, as peft saves them."""
    options = {"r": 2, "target_modules": "all-linear", "init_lora_weights": False, "task_type": "CAUSAL_LM", **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        wrapped = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**options))
        for name, parameter in wrapped.named_parameters():
            if "modules_to_save" in name:
                parameter.data += 0.3 * torch.randn_like(parameter)
        wrapped.save_pretrained(folder)
    return folder


@pytest.fixture
def base():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.fixture
def folder(base, tmp_path):
    return write_adapter(tmp_path / "adapter", base)


def two_models(base, folder):
    """The reader as a model of its own, and a source that nothing was done to."""
    return peft.PeftModel.from_pretrained(copy.deepcopy(base), str(folder)).eval(), copy.deepcopy(base)


def assert_same(found, expected):
    assert [record.interpretation for record in found] == [record.interpretation for record in expected]
    for ours, theirs in zip(found, expected):
        assert ours.interpretation_prob == pytest.approx(theirs.interpretation_prob, abs=1e-4)
        assert ours.interpretation_weights == pytest.approx(theirs.interpretation_weights, abs=1e-4)


@pytest.mark.parametrize("changes", [{}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}])
def test_it_equals_two_separate_models(base, tmp_path, changes):
    folder = write_adapter(tmp_path / "adapter", base, **changes)
    reader, source = two_models(base, folder)
    expected = interpret(reader, TOKENIZER, "Hi!", raw=True, source_model=source, **OPTIONS)
    found = interpret(base, TOKENIZER, "Hi!", raw=True, reader_adapter=folder, **OPTIONS)
    assert_same(found, expected)
    plain = interpret(base, TOKENIZER, "Hi!", raw=True, **OPTIONS)
    always = interpret(reader, TOKENIZER, "Hi!", raw=True, **OPTIONS)
    for other in (plain, always):  # neither off nor on throughout
        assert [one.interpretation for one in found] != [one.interpretation for one in other]
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    assert_same(
        interpret_vectors(base, TOKENIZER, vectors, reader_adapter=folder, **OPTIONS),
        interpret_vectors(reader, TOKENIZER, vectors, **OPTIONS),
    )


def state_of(model):
    flags = {name: (parameter.requires_grad, id(parameter)) for name, parameter in model.named_parameters()}
    return flags, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_model_stays_as_it_is_and_the_weights_are_there_once(base, folder):
    flags, tensors = state_of(base)
    modules = [name for name, _ in base.named_modules()]
    reader = Adapter.find(folder).on(base)
    assert state_of(base)[0] == flags
    assert all(torch.equal(tensors[name], tensor) for name, tensor in base.state_dict().items())
    assert [name for name, _ in base.named_modules()] == modules
    assert not hasattr(base, "peft_config")
    own = {parameter.data_ptr() for parameter in base.parameters()}
    more = [parameter for name, parameter in reader.named_parameters() if parameter.data_ptr() not in own]
    assert {"lora" in name for name, p in reader.named_parameters() if p.data_ptr() not in own} == {True}
    assert sum(p.numel() for p in more) < sum(p.numel() for p in base.parameters())
    with torch.no_grad():
        base.lm_head.weight.mul_(2)
        assert torch.equal(reader.get_base_model().lm_head.weight, base.lm_head.weight)


def test_nothing_is_switched_by_errors_or_seen_by_other_threads(base, folder):
    with torch.no_grad():
        before = base(IDS).logits
        reader = Adapter.find(folder).on(base)
        adapted = reader(IDS).logits
    assert not torch.allclose(before, adapted)

    def stop(*_):
        raise KeyboardInterrupt

    handle = reader.get_base_model().model.layers[2].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        interpret(reader, TOKENIZER, "Hi!", raw=True, source_model=base, **OPTIONS)
    handle.remove()
    seen, going = [], threading.Event()

    def watch():
        with torch.no_grad():
            while not going.is_set() or len(seen) < 3:
                seen.append(base(IDS).logits)

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(3):
        interpret(base, TOKENIZER, "Hi!", raw=True, reader_adapter=folder, **OPTIONS)
    going.set()
    thread.join()
    with torch.no_grad():
        seen.append(base(IDS).logits)
        assert torch.equal(reader(IDS).logits, adapted)
    assert all(torch.equal(logits, before) for logits in seen)


def edited(folder, **changes):
    file = folder / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def renamed(folder, name, tensor):
    save_file(load_file(folder / WEIGHTS) | {name: tensor}, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: edited(f, peft_type="IA3"), "peft_type 'IA3', expected 'LORA'"),
        (lambda f: edited(f, bias="all"), "bias 'all', expected 'none'"),
        (lambda f: (f / CONFIG).write_text("{"), "cannot read adapter_config.json"),
        (lambda f: (f / CONFIG).write_text("[]"), "no JSON object"),
        (lambda f: (f / CONFIG).unlink(), "no file adapter_config.json"),
        (lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin"), "no file adapter_model.safetensors.*is pickled"),
        (lambda f: (f / WEIGHTS).write_bytes(b"x" * 99), "cannot read adapter_model.safetensors"),
        (
            lambda f: renamed(f, "base_model.model.model.embed_tokens.weight", torch.ones(VOCABULARY, 32)),
            "embed_tokens.weight, which would write over the model's own weights",
        ),
        (
            lambda f: renamed(f, "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", torch.ones(2, 32)),
            "is for model.layers.9.mlp.up_proj, which the model does not have",
        ),
        (
            lambda f: renamed(f, "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight", torch.ones(2, 48)),
            "layers.1.mlp.up_proj.lora_A.weight: found size 48, the model's is 32",
        ),
    ],
)
def test_what_does_not_fit_is_told_by_name(base, folder, spoil, message):
    spoil(folder)
    with pytest.raises(AdapterError, match=rf"adapter .*{folder.name}.*{message}") as caught:
        interpret(base, TOKENIZER, "Hi!", raw=True, reader_adapter=folder, **OPTIONS)
    assert "\n" not in str(caught.value)


def test_models_that_cannot_share(base, folder, tmp_path):
    adapter = Adapter.find(folder)
    with pytest.raises(AdapterError, match="has an adapter already"):
        adapter.on(adapter.on(base))
    with torch.device("meta"):
        skeleton = type(base)(base.config)
    adapter.check(skeleton)
    with pytest.raises(AdapterError, match="is offloaded, which cannot be shared"):
        adapter.on(skeleton)
    for name in (tmp_path / "nowhere", "./nowhere", "a/b/c"):
        with pytest.raises(AdapterError, match="there is no such folder"):
            Adapter.find(name)


def test_a_run_with_an_adapter(base, folder, tmp_path):
    model = write_tiny_folder(tmp_path / "model", model=base)
    examples = {"examples": [{"prompt": "Hi!", "raw": True}]}
    options = {"output": tmp_path / "out.csv", "reader_adapter": str(folder), "prompt_output_tokens": 1}
    request = short_run(model, tmp_path, examples, **options)
    prepared = prepare(request)
    assert any(line == f"interpreting with the adapter {folder}" for line in prepared.notes())
    list(run(prepared))
    reader, source = two_models(base, folder)
    expected = interpret(reader, TOKENIZER, "Hi!", raw=True, source_model=source, **OPTIONS | {"max_new_tokens": 3})
    assert [record.interpretation for record in read_csv(request.output)] == [r.interpretation for r in expected]
    assert read_manifest(request.output).identity["reader adapter"] == Adapter.find(folder).fingerprint
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert prepare(short_run(model, tmp_path, examples, **options | {"reader_adapter": str(moved)})).is_complete
    with pytest.raises(RequestError, match=r"reader adapter: was \S+, now none"):
        prepare(short_run(model, tmp_path, examples, **options | {"reader_adapter": None}))
    edited(moved, peft_type="IA3")
    with pytest.raises(RequestError, match="expected 'LORA'"):
        prepare(short_run(model, tmp_path, examples, **options | {"reader_adapter": str(moved)}))
