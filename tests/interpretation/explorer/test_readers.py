"""The live page with a published reader: cells of `interpret`, and of the script, with the same reader."""

from __future__ import annotations

import pytest
import torch
from explorer_client import Client
from reader_files import SELFIE_MARK, write_lora, write_selfie_adapter
from tiny_folder import write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import tiny_tokenizer
from transformers.interpretation import AffineMap, InterpretationPromptSpec, interpret, interpret_vectors
from transformers.interpretation.explorer import Explorer
from transformers.interpretation.report.page import cell_data
from transformers.interpretation.results.calibration import BUILT_IN_CALIBRATION
from transformers.interpretation.translator import load_maps, save_maps

ASKED = {"prompt": "ab cd ef", "raw": True, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def reading():
    """A model and a tokenizer that the reader's prompt is known for."""
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.add_special_tokens({"additional_special_tokens": [SELFIE_MARK]})
    return tiny_model(vocab_size=len(tokenizer), eos_token_id=None), tokenizer


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_selfie_adapter(tmp_path_factory.mktemp("reader"))


def as_cells(records):
    return sorted(cell_data(record, BUILT_IN_CALIBRATION) for record in records)


def asked_of(model, tokenizer, **options):
    options = {**ASKED, **options}
    return interpret(model, tokenizer, options.pop("prompt"), **options)


@pytest.fixture
def client(reading, path):
    """Of a server with the adapter; no file of it says which layer it is for."""
    with Explorer(*reading, name="tiny", reader=path, layers="2") as explorer:
        yield Client(explorer.url)


def test_its_settings_are_those_of_fields_that_are_left_out(client):
    _, about = client.get("models")
    assert about["reader"].startswith("SelfIE adapter sae.safetensors: scalar affine, hidden size 32")
    chosen = ("interpretation_prompt", "insert_layer", "guidance", "deep_gain", "layers")
    assert [about["defaults"][name] for name in chosen] == ["selfie_adapter", 0, 0.0, 1.0, "2"]
    assert about["interpretation_prompts"][0] == "selfie_adapter"


def test_cells_are_those_of_interpret_with_the_reader(client, reading, path):
    assert as_cells(asked_of(*reading, reader=path, layers=2)) == sorted(client.cells(ASKED, "interpret"))
    other = {"layers": "1,3", "tokens": "last"}
    assert as_cells(asked_of(*reading, reader=path, **other)) == sorted(client.cells({**ASKED, **other}, "interpret"))


def test_a_client_may_say_otherwise(client, reading):
    """Its mapping stays; settings and the prompt are the client's."""
    options = {"guidance": 0.5, "interpretation_prompt": {"text": "x: _ is"}, "tokens": "last"}
    with_guidance = sorted(client.cells({**ASKED, **options}, "interpret"))
    assert with_guidance != sorted(client.cells({**ASKED, **options, "guidance": 0.0}, "interpret"))


def test_the_program_that_it_writes_gives_the_same(client, reading, path, tmp_path):
    model, tokenizer = reading
    write_tiny_folder(tmp_path, model=model)
    tokenizer.save_pretrained(tmp_path)
    query = {**ASKED, "guidance": 0.25, "tokens": "last", "format": "python"}
    status, content = client.post("table", query)
    assert status == 200
    program = content.decode().replace("name = 'tiny'", f"name = {str(tmp_path)!r}")
    assert f"find_reader({str(path)!r}).fit(model, tokenizer, '2').options" in program
    found: dict = {}
    exec(program, found)
    expected = client.cells({name: value for name, value in query.items() if name != "format"}, "interpret")
    assert as_cells(found["results"]) == sorted(expected)


def test_vectors_go_through_it(client, reading, path):
    vectors = [[float(number % 7) for number in range(32)]]
    status, found = client.post("vectors", {"vectors": vectors, "max_new_tokens": 4})
    expected = interpret_vectors(*reading, vectors, max_new_tokens=4, reader=path, layer=2)
    assert status == 200 and found["cells"] == [cell_data(record, BUILT_IN_CALIBRATION) for record in expected]


def test_scores_are_the_readers(reading, tmp_path):
    """With an adapter that interprets, and a plain model that reads."""
    model, tokenizer = reading
    adapter = write_lora(tmp_path, model, "mine", rank=4)
    asked = {**ASKED, "layers": "2", "tokens": "last", "interpretation_prompt": {"text": "x: _ is"}}
    with Explorer(model, tokenizer, reader_adapter=adapter) as explorer:
        client = Client(explorer.url)
        assert client.get("models")[1]["reader"] == f"the adapter {adapter}"
        (cell,) = client.cells(asked, "interpret")
        _, score = client.post("score", {**asked, "layers": 2, "tokens": -1, "text": cell[3][0]})
        program = client.post("table", {**asked, "format": "python"})[1].decode()
    spec = InterpretationPromptSpec("custom", text="x: _ is")
    options = {**asked, "layers": 2, "interpretation_prompt": spec, "reader_adapter": adapter}
    assert as_cells(asked_of(*reading, **options)) == [cell]
    assert f"reader_adapter={str(adapter)!r}" in program
    assert score["tokens"][0]["probability"] == pytest.approx(cell[5][0] / 1000, abs=1e-3)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """By source layer, for two of them."""
    path = tmp_path_factory.mktemp("maps") / "maps.safetensors"
    generator = torch.Generator().manual_seed(2)
    save_maps({layer: AffineMap(torch.randn(32, 32, generator=generator), torch.ones(32)) for layer in (1, 3)}, path)
    return path


def test_embeddings_go_through_maps(reading, maps):
    """Its layers are those that have a map; others are refused by name, also where all are asked for."""
    asked = {**ASKED, "interpretation_prompt": {"text": "x: _ is"}}
    prompt = InterpretationPromptSpec("custom", text="x: _ is")
    options = {**asked, "interpretation_prompt": prompt, "layers": "1,3", "mapping": load_maps(maps)}
    expected = as_cells(asked_of(*reading, **options))
    with Explorer(*reading, mapping=maps) as explorer:
        client = Client(explorer.url)
        about = client.get("models")[1]
        assert (
            about["defaults"]["layers"] == "1,3" and about["reader"] == f"the model itself, through the maps of {maps}"
        )
        assert sorted(client.cells(asked, "interpret")) == expected
        status, refused = client.post("interpret", {**asked, "layers": "all"})
    assert expected != as_cells(asked_of(*reading, **{**options, "mapping": None}))
    assert status == 422 and "has no maps for layers [0, 2, 4], only for [1, 3]" in refused["detail"]


@pytest.mark.parametrize("kind", ["by layer", "one", "none"])
def test_the_lines_of_python_say_the_mapping_and_the_layers(reading, maps, tmp_path, kind):
    model, tokenizer = reading
    write_tiny_folder(tmp_path, model=model)
    tokenizer.save_pretrained(tmp_path)
    one = tmp_path / "one.safetensors"
    load_maps(maps)[1].save(one)
    path = {"by layer": maps, "one": one, "none": None}[kind]
    asked = {**ASKED, "interpretation_prompt": {"text": "x: _ is"}, "tokens": "last"}
    with Explorer(model, tokenizer, name=str(tmp_path), mapping=path, layers="3") as explorer:
        client = Client(explorer.url)
        expected = sorted(client.cells(asked, "interpret"))
        program = client.post("table", {**asked, "format": "python"})[1].decode()
    found: dict = {}
    exec(program, found)
    assert as_cells(found["results"]) == expected


def test_a_mapping_that_does_not_fit_is_refused(reading, maps, tmp_path):
    with pytest.raises(ValueError, match=r"has no maps for layers \[2\], only for \[1, 3\]"):
        Explorer(*reading, mapping=maps, layers="2")
    save_maps({1: AffineMap(torch.eye(8), torch.zeros(8))}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="it is for another model"):
        Explorer(*reading, mapping=tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="the reader sets reader_adapter and mapping: leave them out"):
        Explorer(*reading, reader="a", reader_adapter="b", mapping=maps)


def test_a_reader_that_does_not_fit_is_refused_before_anything_is_served(reading, tmp_path):
    with pytest.raises(ValueError, match="found hidden size 48, expected the model's 32"):
        Explorer(*reading, reader=write_selfie_adapter(tmp_path, hidden=48))
    with pytest.raises(ValueError, match="no file says of which layer its vectors are; give layers"):
        Explorer(*reading, reader=write_selfie_adapter(tmp_path))
    with pytest.raises(ValueError, match="9 is out of range"):
        Explorer(*reading, layers="9")
    with pytest.raises(ValueError, match="the reader sets reader_adapter: leave it out"):
        Explorer(*reading, reader="a", reader_adapter="b")
    with pytest.raises(ValueError, match=r"reader \./nowhere: there is no such file or folder"):
        Explorer(*reading, reader="./nowhere")
