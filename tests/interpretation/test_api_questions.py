"""Questions in bulk: in memory, in a run's table and on the page."""

from __future__ import annotations

import pytest
from report_records import data_of
from tiny_folder import short_run, write_json, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPromptSpec, interpret, interpret_vectors, read_csv
from transformers.interpretation.report import page
from transformers.interpretation.runs.manifest import read_manifest
from transformers.interpretation.runs.preparation import RequestError, check, prepare
from transformers.interpretation.runs.runner import run

TOKENIZER = tiny_tokenizer()
FIELD = {"name": "q", "text": "ab: _ _ {question}"}
SPEC = InterpretationPromptSpec(**FIELD)
WHY, WHO = "Why?", "Who is it?"
OPTIONS = {"max_new_tokens": 3, "batch_size": 5}


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def test_each_question_is_a_prompt_of_its_own(model):
    options = {"raw": True, "layers": "1,2", "tokens": "last", **OPTIONS}
    found = interpret(model, TOKENIZER, "Hi", interpretation_prompt=SPEC, question=[WHY, WHO], **options)
    assert [(r.repeat_prompt_name, r.question, r.layer_idx) for r in found] == [
        ("q", WHY, 1),
        ("q", WHY, 2),
        ("q", WHO, 1),
        ("q", WHO, 2),
    ]
    by_hand = [InterpretationPromptSpec(text, text=f"ab: _ _ {text}") for text in (WHY, WHO)]
    plain = interpret(model, TOKENIZER, "Hi", interpretation_prompt=by_hand, **options)
    assert [r.interpretation for r in found] == [r.interpretation for r in plain]
    assert [r.repeat_prompt for r in found] == [r.repeat_prompt for r in plain]
    assert {r.question for r in plain} == {None}
    (vector,) = interpret_vectors(
        model,
        TOKENIZER,
        model.get_input_embeddings().weight[5:6].detach(),
        interpretation_prompt=SPEC,
        question=WHY,
        **OPTIONS,
    )
    assert vector.question == WHY


def test_what_does_not_fit_is_refused(model):
    for options, message in (
        ({"question": WHY}, r"'describe': it has no field \{question\}"),
        ({"interpretation_prompt": SPEC}, "give a question"),
        ({"interpretation_prompt": SPEC, "question": [WHY, WHY]}, 'named "q" and ask the same question'),
    ):
        with pytest.raises(ValueError, match=message):
            interpret(model, TOKENIZER, "Hi", raw=True, **options)


def test_a_run_asks_them_and_the_page_has_a_grid_for_each(tmp_path_factory, tmp_path):
    folder = write_tiny_folder(tmp_path_factory.mktemp("model"))
    examples = {"examples": [{"prompt": "Hi", "raw": True}]}

    def request_of(**changes):
        prompts = (str(write_json(tmp_path / "q.json", FIELD)),)
        given = {"layers": "1", "output": tmp_path / "out.csv", "interpretation_prompts": prompts}
        return short_run(folder, tmp_path, examples, **given | changes)

    request = request_of(questions=(WHY, WHO))
    list(run(prepare(request)))
    found = read_csv(request.output)
    assert [r.question for r in found] == [WHY] * 3 + [WHO] * 3
    readings = data_of(page(list(found)))["examples"][0]["readings"]
    assert [reading["label"] for reading in readings] == ["q · Why?", "q · Who is it?"]
    assert [len(reading["cells"]) for reading in readings] == [3, 3]
    assert set(read_manifest(request.output).identity["interpretation prompt"]) == {"q: Why?", "q: Who is it?"}
    with pytest.raises(RequestError, match=r"interpretation prompt q: Why.: was .*, now none"):
        prepare(request_of(questions=(WHO,)))
    with pytest.raises(RequestError, match="give a question"):
        check(request_of())
