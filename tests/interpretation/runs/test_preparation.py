"""A request, checked before weights are loaded, and run with interruptions."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
from tiny_folder import SHORT_PROMPT, short_run, write_json, write_tiny_folder
from transformers import AutoTokenizer
from transformers.interpretation import InterpretationPrompt, interpret, read_csv
from transformers.interpretation.models import hook_points, loading
from transformers.interpretation.runs.manifest import manifest_path, read_manifest, tokenizer_beside
from transformers.interpretation.runs.preparation import RequestError, check, prepare
from transformers.interpretation.runs.runner import run

EXAMPLES = {"examples": [{"prompt": "Hi", "raw": True, "answer": "x"}, {"prompt": "Yes", "category": "b"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def request_of(folder, tmp_path):
    def request_of(**changes):
        given = {"output": tmp_path / "out.csv", "layers": "0,2,-1", "chunk_cells": 8, **changes}
        return short_run(folder, tmp_path, EXAMPLES, **given)

    return request_of


def test_the_table_is_what_interpret_gives(request_of, folder):
    request = request_of()
    prepared = prepare(request)
    steps = list(run(prepared))
    assert [step.cells for step in steps] == [prepared.plan.cells_in(chunks) for chunks in range(len(steps))]
    found = read_csv(request.output)
    assert steps[-1].rows == len(found)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = loading.load_weights(prepare(request).outline, dtype=torch.float32, device="cpu")
    prompt = InterpretationPrompt.from_text(tokenizer, SHORT_PROMPT["text"], name="short")
    expected = [
        replace(record, name=name, category=name[:-2], answer=answer, interpretation_tokens=())
        for name, answer, text, raw in [("example_1", "x", "Hi", True), ("b_2", None, "Yes", False)]
        for record in interpret(
            model,
            tokenizer,
            text,
            raw=raw,
            layers="0,2,-1",
            interpretation_prompt=prompt,
            max_new_tokens=3,
            batch_size=5,
        )
    ]
    assert [replace(r, interpretation_prob=(), interpretation_weights=()) for r in found] == [
        replace(r, interpretation_prob=(), interpretation_weights=()) for r in expected
    ]
    for one, other in zip(found, expected):
        assert one.interpretation_prob == pytest.approx(other.interpretation_prob, abs=1e-4)
        assert one.interpretation_weights == pytest.approx(other.interpretation_weights, abs=1e-4)


@pytest.mark.parametrize("stopped_after", [1, 2, 4])
def test_a_stopped_run_goes_on_to_the_same_bytes(request_of, tmp_path, stopped_after):
    whole = request_of(output=tmp_path / "whole.csv")
    steps = list(run(prepare(whole)))
    assert len(steps) > 5
    request = request_of()
    generator = run(prepare(request))
    reached = list(islice(generator, stopped_after))[-1]
    generator.close()
    prepared = prepare(request)
    assert (prepared.found.position.chunks, prepared.found.rows) == (stopped_after - 1, reached.rows)
    assert any("resuming after" in line for line in prepared.notes()) == (stopped_after > 1)
    assert list(run(prepared)) == steps[stopped_after - 1 :]
    assert request.output.read_bytes() == whole.output.read_bytes()
    assert prepare(request).is_complete


def test_what_was_resolved_is_kept_for_the_rest_of_the_run(request_of):
    request = request_of()
    positions = run(prepare(request))
    list(islice(positions, 3))
    positions.close()
    list(run(prepare(replace(request, chunk_cells=5))))
    assert read_manifest(request.output).plan == {"batch_size": 5, "chunk_cells": 8}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layers": "0"}, "layers: was 0,2,-1, now 0"),
        ({"tokens": "last"}, "tokens: was all, now last"),
        ({"place": "mlp_output", "layers": "0,2,-1"}, "place: was residual, now mlp_output"),
        ({"max_new_tokens": 4}, "max_new_tokens: was 3, now 4"),
        ({"overlay_strength": 0.5}, "overlay_strength: was 1.0, now 0.5"),
        ({"replacing_mode": "addition"}, "replacing_mode: was normalized, now addition"),
        ({"insert_layer": 0}, "insert_layer: was 2, now 0"),
        ({"insert_layer": (1, 3)}, "insert_layer: was 2, now [1, 3]"),
        ({"overlay_strength": (1, 0.5)}, "overlay_strength: was 1.0, now [1, 0.5]"),
        ({"prompt_output_tokens": 2}, "prompt_output_tokens: was 1, now 2"),
        ({"batch_size": None}, "batch_size: was 5, now auto"),
        ({"dtype": "bfloat16"}, "dtype: was float32, now bfloat16"),
        ({"csv_safe": True}, "csv_safe: was false, now true"),
        ({"names_by_category": True}, "examples: was "),
        ({"interpretation_prompts": ("describe",)}, "interpretation prompt describe: was none, now "),
    ],
)
def test_a_run_with_other_settings_is_refused(request_of, change, named):
    request = request_of()
    positions = run(prepare(request))
    next(positions)
    positions.close()
    with pytest.raises(RequestError) as caught:
        prepare(replace(request, **change))
    assert len(caught.value.problems) == 1
    assert "started with other settings" in str(caught.value)
    assert named in str(caught.value)
    assert not prepare(replace(request, overwrite=True, **change)).is_complete


def test_other_examples_or_another_model_are_refused(request_of, tmp_path):
    request = request_of()
    list(run(prepare(request)))
    other = write_json(tmp_path / "other.json", {"examples": [{"prompt": "Bye"}]})
    with pytest.raises(RequestError, match="examples: "):
        prepare(replace(request, examples=other))
    moved = write_json(tmp_path / "moved.json", EXAMPLES)
    assert prepare(replace(request, examples=moved)).is_complete
    model = write_tiny_folder(tmp_path / "model")
    assert prepare(replace(request, model=str(model))).is_complete
    (model / "special_tokens_map.json").write_text("{}")
    with pytest.raises(RequestError, match="model: "):
        prepare(replace(request, model=str(model)))


def test_a_changed_machine_is_told(request_of, monkeypatch):
    request = request_of()
    positions = run(prepare(request))
    list(islice(positions, 2))
    positions.close()
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    notes = prepare(request).notes()
    assert any(f"last digits may differ: threads: was {threads}, now {threads + 1}" in line for line in notes)


def test_all_problems_are_found_before_the_model_is_touched(request_of, tmp_path):
    request = request_of(
        model="./nowhere",
        examples=write_json(tmp_path / "bad.json", {"examples": [{"prompt": ""}, {}]}),
        output=tmp_path / "new.txt",
        layers="x",
        tokens="0,",
        place="mlp",
        interpretation_prompts=("descrbie", "nope.json"),
        insert_layer=-1,
        batch_size=0,
        device_map="auto",
    )
    with pytest.raises(RequestError) as caught:
        check(request)
    wanted = [
        "must be named .csv",
        'example 1: "prompt" is empty',
        'example 2: no "prompt"',
        "did you mean 'describe'",
        "nope.json",
        'layers: "x" is not an index',
        'tokens: "" is not an index',
        "place is 'mlp': use one of residual",
        "insert_layer is -1",
        "batch_size is 0",
        "not both",
    ]
    assert len(caught.value.problems) == len(wanted)
    for problem, part in zip(caught.value.problems, wanted):
        assert part in problem
        assert "\n" not in problem


def test_a_problem_with_the_model_is_found_before_its_weights(request_of, tmp_path):
    bare = str(write_tiny_folder(tmp_path / "bare", weights=False))
    partial = write_json(tmp_path / "partial.json", {"lm_head": "cpu"})
    for changes, part in [
        ({"model": "./nowhere"}, "there is no such folder"),
        ({"model": bare, "layers": "0,5"}, "layers: 5 is out of range: there are 5"),
        ({"model": bare, "place": "mlp_input", "layers": "4"}, "layers: 4 is out of range: there are 4"),
        ({"model": bare, "tokens": "2"}, "example_1: tokens: 2 is out of range: there are 2"),
        ({"model": bare, "insert_layer": 4}, "insert layer 4 is out of range"),
        ({"model": bare, "prompt_output_tokens": 999}, "example_1: has 2 tokens and 999 new ones; the model takes 512"),
        ({"model": bare, "device": "cuda:77"}, "device cuda:77"),
        ({"model": bare, "device_map": "everywhere", "device": "auto"}, "neither a .json file nor one of auto"),
        ({"model": bare, "device_map": str(partial), "device": "auto"}, "it has no device for model"),
        ({"model": bare, "offload_folder": tmp_path}, "need a device map"),
    ]:
        request = request_of(**changes)
        with pytest.raises(RequestError) as caught:
            prepare(request)
        assert part in caught.value.problems[0]
        assert not request.output.exists()
        assert not manifest_path(request.output).exists()


def test_a_layer_that_is_not_understood_is_found_before_weights(request_of, tmp_path, monkeypatch):
    monkeypatch.setitem(hook_points._PLACES, "mlp_output", hook_points.HookPoint(paths=("elsewhere",)))
    bare = str(write_tiny_folder(tmp_path / "bare", weights=False))
    with pytest.raises(RequestError, match="mlp_output of layer 0 was not found in a LlamaDecoderLayer") as caught:
        prepare(request_of(model=bare, place="mlp_output"))
    assert len(caught.value.problems) == 1


def test_places_means_and_differences_come_back_from_the_table(request_of, folder, tmp_path):
    examples = [{"prompt": "Hi", "raw": True}, {"prompt": "Hello", "raw": True, "minus": "Bye"}]
    request = request_of(
        examples=write_json(tmp_path / "other.json", {"examples": examples}),
        place="attention_output",
        tokens="last,mean(1:)",
        layers="-1",
    )
    list(run(prepare(request)))
    found = read_csv(request.output)
    assert [(r.current_token, r.token_idx, r.token_source, r.kind, r.place) for r in found] == [
        ("i", 1, "prompt, attention_output", "prompt", "attention_output"),
        ("mean(1:2)", 3, "mean, attention_output", "mean", "attention_output"),
        ("o − e[2]", 4, "difference, attention_output", "difference", "attention_output"),
        ("mean(1:5) − mean(1:3)", 6, "difference, attention_output", "difference", "attention_output"),
    ]
    assert [record.prompt for record in found] == ["Hi", "Hi", "Hello\n−\nBye", "Hello\n−\nBye"]
    model = loading.load_weights(prepare(request).outline, dtype=torch.float32, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = InterpretationPrompt.from_text(tokenizer, SHORT_PROMPT["text"], name="short")
    options = {"raw": True, "place": "attention_output", "tokens": "last,mean(1:)", "layers": [-1]}
    expected = interpret(
        model, tokenizer, "Hello", minus="Bye", interpretation_prompt=prompt, max_new_tokens=3, **options
    )
    assert [record.interpretation for record in found[2:]] == [record.interpretation for record in expected]


def test_the_tokenizer_of_an_output_is_found_by_its_manifest(request_of, tmp_path):
    request = request_of()
    next(run(prepare(request)))
    tokenizer = tokenizer_beside(request.output)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("Hi", add_special_tokens=False)) == ["H", "i"]
    assert tokenizer_beside(tmp_path / "none.csv") is None
    manifest_path(tmp_path / "bad.csv").write_text("{")
    assert tokenizer_beside(tmp_path / "bad.csv") is None
