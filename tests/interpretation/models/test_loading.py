"""What can be known of a model without its weights, and what is refused before anything of it runs."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_folder import write_tiny_folder
from tiny_models import available_families, tiny_model
from transformers.interpretation.models import loading
from transformers.interpretation.models.fingerprint import folder_fingerprint
from transformers.interpretation.models.loading import (
    ModelError,
    load_weights,
    read_outline,
    resolve_device,
    resolve_dtype,
)
from transformers.interpretation.runs.limits import Limits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def without_weights(tmp_path):
    return write_tiny_folder(tmp_path / "model", weights=False)


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(folder, **options):
    with pytest.raises(ModelError) as caught:
        read_outline(str(folder), **options)
    message = str(caught.value)
    assert message.startswith(f"model {folder}: ")
    assert "\n" not in message
    return message.removeprefix(f"model {folder}: ")


def test_an_outline_has_no_weights(without_weights):
    outline = read_outline(str(without_weights))
    assert Limits.of(outline.skeleton) == Limits(4, 512, 259)
    assert {parameter.device.type for parameter in outline.skeleton.parameters()} == {"meta"}
    assert outline.tokenizer.encode("a", add_special_tokens=False)
    with pytest.raises(ModelError, match="cannot load its weights"):
        load_weights(outline, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("family", [family.model_type for family in available_families()])
def test_every_family_has_an_outline(family, without_weights):
    tiny_model(family, vocab_size=259).config.save_pretrained(without_weights)
    assert Limits.of(read_outline(str(without_weights)).skeleton).n_layers == 4


def test_weights_are_loaded_as_asked(folder):
    outline = read_outline(str(folder))
    model = load_weights(outline, dtype=torch.bfloat16, device="cpu")
    assert model.dtype == torch.bfloat16
    assert not model.training
    expected = tiny_model(vocab_size=259).lm_head.weight.to(torch.bfloat16)
    assert torch.equal(model.lm_head.weight, expected)


def test_models_that_are_not_there(tmp_path):
    assert refusal(tmp_path / "none") == "there is no such folder"
    assert refusal("./none") == "there is no such folder"
    assert refusal(tmp_path)  # an empty folder


def test_an_adapter_alone_is_no_model(without_weights):
    (without_weights / "adapter_config.json").write_text("{}")
    assert read_outline(str(without_weights))
    (without_weights / "config.json").unlink()
    assert refusal(without_weights).startswith("is an adapter without its model; give a folder with both in one: Peft")


def test_models_of_another_kind(without_weights):
    (without_weights / "config.json").write_text(json.dumps({"model_type": "t5"}))
    assert refusal(without_weights) == "t5 is no causal language model"
    (without_weights / "config.json").write_text(json.dumps({"model_type": "no_such_thing"}))
    assert "no_such_thing" in refusal(without_weights)
    (without_weights / "config.json").write_text("{")
    assert refusal(without_weights)


@pytest.mark.parametrize("key", ["_attn_implementation_internal", "_attn_implementation", "attn_implementation"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_config_that_names_code_of_a_repository_is_refused(without_weights, key, nested):
    value = {key: "somebody/kernels"}
    change_config(without_weights, **({"text_config": [value]} if nested else value))
    message = refusal(without_weights)
    assert f"wants code from somebody/kernels run ({key})" in message
    assert message.endswith("allow it with --trust-remote-code")


def test_a_config_that_names_an_ordinary_implementation_is_not(without_weights):
    change_config(without_weights, _attn_implementation="eager")
    assert read_outline(str(without_weights))


def test_a_models_own_code_does_not_run(without_weights, tmp_path):
    proof = tmp_path / "proof"
    code = f"open({str(proof)!r}, 'w').close()\nfrom transformers import LlamaConfig as Own\n"
    (without_weights / "own.py").write_text(code)
    change_config(without_weights, model_type="own", auto_map={"AutoConfig": "own.Own"})
    assert "allow it with --trust-remote-code" in refusal(without_weights)
    assert not proof.exists()


def test_pickled_weights_run_no_code(without_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    proof = tmp_path / "proof"

    class Hostile:
        def __reduce__(self):
            return open, (str(proof), "w")

    torch.save({"lm_head.weight": Hostile()}, without_weights / "pytorch_model.bin")
    outline = read_outline(str(without_weights))
    with pytest.raises(ModelError, match="cannot load its weights"):
        load_weights(outline, dtype=torch.float32, device="cpu")
    assert not proof.exists()


def test_safetensors_are_preferred_to_pickles(folder, tmp_path):
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert load_weights(read_outline(str(folder)), dtype=torch.float32, device="cpu")


def test_the_fingerprint_tells_models_apart(without_weights, tmp_path):
    first = read_outline(str(without_weights)).fingerprint
    copy = write_tiny_folder(tmp_path / "copy", weights=False)
    assert read_outline(str(copy)).fingerprint == first
    (copy / "interpretations.csv").write_text("x")
    (copy / "interpretations.csv.manifest.json").write_text("x")
    (copy / "evaluation.json").write_text("x")
    assert read_outline(str(copy)).fingerprint == first
    change_config(copy, rope_theta=5000.0)
    assert read_outline(str(copy)).fingerprint != first


def test_one_matrix_among_large_weights_is_another_model(tmp_path):
    """Of an adapter that was merged into it, for instance; and the last bias of a small file."""
    for size, place, width in ((200 * 2**20, 77 * 2**20, 2**17), (10**6, 10**6 - 5, 4)):
        weights = tmp_path / f"{size}.safetensors"
        weights.write_bytes(bytes(size))
        before = folder_fingerprint(tmp_path)
        with open(weights, "r+b") as file:
            file.seek(place)
            file.write(b"\1" * width)
        assert folder_fingerprint(tmp_path) != before


def test_devices_and_dtypes(monkeypatch):
    assert resolve_device("cpu") == "cpu"
    for wrong in ("cuda:99", "nonsense"):
        with pytest.raises(ModelError, match=f"device {wrong}: "):
            resolve_device(wrong)
    assert resolve_dtype("float16", "cpu") == torch.float16
    for native, expected in [(True, torch.bfloat16), (False, torch.float32)]:
        monkeypatch.setattr(loading, "multiplies_bfloat16", lambda device, native=native: native)
        assert resolve_dtype("auto", "cpu") == expected
