"""Models spread over the CPU and the disk generate what they generate undivided."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_folder import write_json, write_tiny_folder
from transformers import AutoModelForCausalLM
from transformers.interpretation import capture, interpret
from transformers.interpretation.engine.batch_size import largest_offloaded
from transformers.interpretation.models.device_map import Placement
from transformers.interpretation.models.loading import load_weights, read_outline


def split_map(model):
    """Every third layer on the disk, the rest on the CPU."""
    layers = model.config.num_hidden_layers
    places = {f"model.layers.{layer}": "cpu" if layer % 3 else "disk" for layer in range(layers)}
    return {"": "cpu", **places}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def outline(folder):
    return read_outline(str(folder))


def load_split(outline, path, dtype=torch.float32):
    placement = Placement.read(str(write_json(path / "map.json", split_map(outline.skeleton))))
    placement = placement.fitted(outline.skeleton)
    return load_weights(outline, dtype=dtype, device="cpu", placement=placement)


def places_of(model):
    return [next(layer.parameters()).device.type for layer in model.model.layers]


def test_the_embedded_model_says_the_same(embedded_folder, embedded_model, embedded_tokenizer, tmp_path):
    split = load_split(read_outline(str(embedded_folder)), tmp_path)
    assert {place: places_of(split).count(place) for place in ("meta", "cpu")} == {"meta": 10, "cpu": 20}
    options = {"raw": True, "layers": "0,24,30", "tokens": "last", "insert_layer": 3, "max_new_tokens": 4}
    prompt = "The capital of Japan is"
    whole = interpret(embedded_model, embedded_tokenizer, prompt, **options, batch_size=8)
    found = interpret(split, embedded_tokenizer, prompt, **options)  # and it chooses a batch size
    assert [record.interpretation for record in found] == [record.interpretation for record in whole]
    assert "Tokyo" in found[1].interpretation_text
    for one, other in zip(found, whole):
        assert one.interpretation_prob == pytest.approx(other.interpretation_prob, abs=1e-4)
        assert one.interpretation_weights == pytest.approx(other.interpretation_weights, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_come_to_the_cpu_in_the_dtype_asked_for(folder, outline, tmp_path, dtype):
    split = load_split(outline, tmp_path, dtype)
    whole = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=dtype).eval()
    ids = torch.tensor([[5, 9, 17, 33]])
    states = capture(split, ids, range(5), range(4))
    assert (states.dtype, states.device.type) == (dtype, "cpu")
    torch.testing.assert_close(states, capture(whole, ids, range(5), range(4)))
    assert largest_offloaded(split) == sum(
        weight.numel() * dtype.itemsize for weight in whole.model.layers[0].parameters()
    )
    assert largest_offloaded(whole) == 0


@torch.no_grad()
def test_surgery_at_layers_here_and_there(folder, outline, tmp_path):
    split, whole = load_split(outline, tmp_path), AutoModelForCausalLM.from_pretrained(folder).eval()
    assert places_of(split) == ["meta", "cpu", "cpu", "meta"]
    ids = torch.tensor([[5, 9, 17, 33], [6, 10, 18, 34]])
    vectors = 2 * torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0))
    info = {"overlay_strength": 0.5, "replacing_mode": "addition"}
    for layers in ([0], [1], [3], [0, 1, 2, 3]):
        insert_info = [{layer: ([1, 2], vectors) for layer in layers} | info, {}]
        expected = whole.forward_interpret(ids, insert_info=insert_info).logits
        torch.testing.assert_close(split.forward_interpret(ids, insert_info=insert_info).logits, expected)
        options = {"insert_info": insert_info, "attention_mask": torch.ones_like(ids), "max_new_tokens": 4}
        expected = whole.generate_interpret(ids, do_sample=False, **options)
        assert torch.equal(split.generate_interpret(ids, do_sample=False, **options), expected)
    assert not torch.equal(expected, whole.generate(ids, do_sample=False, max_new_tokens=4))


def test_a_strategy_keeps_to_the_most_memory(folder, outline, tmp_path):
    most = sum(weight.numel() for weight in outline.skeleton.parameters()) * 4 * 3 // 4
    placement = Placement.read("auto", max_memory=f"cpu={most / 1e3}KB", offload_folder=tmp_path / "offload")
    model = load_weights(outline, dtype=torch.float32, device="cpu", placement=placement)
    here = [weight for weight in model.parameters() if weight.device.type == "cpu"]
    assert 0 < sum(weight.numel() * 4 for weight in here) <= most
    assert any(weight.device.type == "meta" for weight in model.parameters())
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 9, 17]])
    torch.testing.assert_close(capture(model, ids, [4], [2]), capture(whole, ids, [4], [2]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "give each module a device"),
        ("{}", "give each module a device"),
        ('{"lm_head": "nowhere"}', "'nowhere' is no device"),
        ('{"lm_head": -1}', "-1 is no device"),
        ('{"lm_head": true}', "True is no device"),
        ('{"lm_head": "cpu"}', "no device for model$"),
        ('{"": "cpu", "model.layer.0": "cpu"}', r"the model has no module model\.layer\.0"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(outline, tmp_path, content, message):
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(ValueError, match=f"device map .*map.json: .*{message}"):
        Placement.read(str(tmp_path / "map.json")).fitted(outline.skeleton)


def test_other_requests_that_are_refused(tmp_path):
    for text, options, message in [
        ("everywhere", {}, "neither a .json file nor one of auto, balanced"),
        (str(tmp_path / "none.json"), {}, "No such file"),
        (str(tmp_path / "none.json"), {"max_memory": "0=20GB"}, "goes with a strategy"),
        ("auto", {"max_memory": "20GB"}, "DEVICE=SIZE is needed"),
        ("auto", {"max_memory": "0=20"}, "DEVICE=SIZE is needed"),
        ("auto", {"max_memory": "gpu=20GB"}, "'gpu' is no device"),
    ]:
        with pytest.raises(ValueError, match=message):
            Placement.read(text, **options)
    assert Placement.read("auto", max_memory="0=20GB, cpu=1.5TiB").max_memory == {0: "20GB", "cpu": "1.5TiB"}


def test_the_longest_name_counts_and_none_lies_inside_another(outline):
    placement = Placement("map.json", {"": 0, "model.layers.1": "cpu", "model.layers.1.mlp": "disk"})
    places = placement.fitted(outline.skeleton).device_map
    assert places["lm_head"] == places["model.embed_tokens"] == places["model.layers.0"] == 0
    assert places["model.layers.1.self_attn"] == "cpu"
    assert places["model.layers.1.mlp"] == "disk"
    for name in places:
        assert not any(other.startswith(name + ".") for other in places)
    for parameter, _ in outline.skeleton.named_parameters():
        assert sum((parameter + ".").startswith(name + ".") for name in places) == 1


def test_an_output_matrix_is_not_lost_on_the_disk(outline):
    placement = Placement("map.json", {"": "cpu", "model.embed_tokens": "disk"})
    placement.fitted(outline.skeleton)
    tied = read_outline_tied(outline)
    with pytest.raises(ValueError, match="it is the output matrix too"):
        placement.fitted(tied)


def read_outline_tied(outline):
    config = type(outline.skeleton.config)(**{**outline.skeleton.config.to_dict(), "tie_word_embeddings": True})
    with torch.device("meta"):
        return type(outline.skeleton)(config)


def test_options_are_what_from_pretrained_takes():
    assert Placement.read("balanced").options() == {"device_map": "balanced"}
    placed = dataclasses.replace(Placement.read("auto", max_memory="0=1GB"), offload_folder=None)
    assert placed.options() == {"device_map": "auto", "max_memory": {0: "1GB"}}
