"""greedy_search_interpret: 4.34.0's greedy search under surgery, on every version."""

from __future__ import annotations

import pytest
import torch
from reference import reference_generate, reference_greedy
from tiny_models import tiny_model
from transformers import GenerationConfig
from transformers.generation import GenerationMixin, LogitsProcessor, MaxLengthCriteria, StoppingCriteria
from two_prompts import IDS, INFOS, MASK, PROMPTS, WIDTH, continuations, vectors


@pytest.fixture(scope="module")
def model():
    return tiny_model(eos_token_id=None)


@pytest.fixture(scope="module")
def expected(model):
    """[2][8]: the continuations of the two prompts under surgery."""
    return [reference_greedy(model, prompt, info, 8) for prompt, info in zip(PROMPTS, INFOS)]


class Forbid(LogitsProcessor):
    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores[:, self.token] = -float("inf")
        return scores


class StopAt(StoppingCriteria):
    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        done = input_ids.shape[1] >= self.length
        return torch.full((input_ids.shape[0],), done) if hasattr(GenerationMixin, "_sample") else done


def criteria(*given):
    from transformers.generation import StoppingCriteriaList

    return StoppingCriteriaList(given)


def processors(*given):
    from transformers.generation import LogitsProcessorList

    return LogitsProcessorList(given)


@pytest.mark.parametrize(
    ("limit", "n"),
    [
        ({"max_length": WIDTH + 8}, 8),
        ({"stopping_criteria": criteria(MaxLengthCriteria(max_length=WIDTH + 8))}, 8),
        ({"stopping_criteria": criteria(StopAt(WIDTH + 3), MaxLengthCriteria(max_length=WIDTH + 8))}, 3),
        ({"stopping_criteria": criteria(StopAt(WIDTH + 8))}, 8),
    ],
    ids=["max_length", "MaxLengthCriteria", "both", "own"],
)
def test_greedy_search_equals_the_reference(model, expected, limit, n):
    found = model.greedy_search_interpret(IDS, attention_mask=MASK, insert_info=INFOS, pad_token_id=0, **limit)
    assert continuations(found) == [tokens[:n] for tokens in expected]


def test_greedy_search_reads_no_settings_of_the_model(model, expected):
    own = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=True, repetition_penalty=5.0, num_beams=3, pad_token_id=0, top_k=3
    )
    try:
        swapped = model.generation_config
        found = model.greedy_search_interpret(IDS, attention_mask=MASK, insert_info=INFOS, max_length=WIDTH + 8)
        assert model.generation_config is swapped
    finally:
        model.generation_config = own
    assert continuations(found) == expected


def test_greedy_search_leaves_the_settings_that_other_threads_read(model):
    own, seen = model.generation_config, []
    settings = own.to_dict()

    class Watch(StopAt):
        def __call__(self, *args, **kwargs):
            seen.append(model.generation_config is own and own.to_dict() == settings)
            return super().__call__(*args, **kwargs)

    model.greedy_search_interpret(
        IDS, attention_mask=MASK, insert_info=INFOS, pad_token_id=0, stopping_criteria=criteria(Watch(WIDTH + 3))
    )
    assert seen == [True, True, True]


def test_greedy_search_infers_no_mask(model):
    info = {1: ([0], vectors(1, 0)), "replacing_mode": "normalized", "overlay_strength": 1.0}
    found = model.greedy_search_interpret(torch.tensor([[0, 5, 9]]), insert_info=[info], pad_token_id=0, max_length=7)
    assert continuations(found, 3)[0] == reference_greedy(model, [0, 5, 9], info, 4)


def test_greedy_search_ends_at_any_end_token_and_pads(model, expected):
    ends = [expected[0][2], 127]
    n = expected[0].index(ends[0]) + 1
    assert ends[0] not in expected[1]
    found = model.greedy_search_interpret(
        IDS, attention_mask=MASK, insert_info=INFOS, pad_token_id=126, eos_token_id=ends, max_length=WIDTH + 8
    )
    assert continuations(found) == [expected[0][:n] + [126] * (8 - n), expected[1]]


def test_greedy_search_applies_processors_and_returns_what_is_asked(model, expected):
    forbidden = expected[0][0]
    found = model.greedy_search_interpret(
        IDS,
        attention_mask=MASK,
        insert_info=INFOS,
        logits_processor=processors(Forbid(forbidden)),
        max_length=WIDTH + 4,
        pad_token_id=0,
        output_scores=True,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    assert found.sequences.shape == (2, WIDTH + 4)
    assert len(found.scores) == 4
    assert all(bool(torch.isneginf(scores[:, forbidden]).all()) for scores in found.scores)
    assert torch.equal(torch.stack([scores.argmax(-1) for scores in found.scores], 1), found.sequences[:, WIDTH:])
    assert torch.equal(found.hidden_states[0][1][0, [2, 4]], vectors(2, 0)[0])


def test_a_script_written_for_the_predecessor_runs_unchanged():
    model = tiny_model(attn_implementation="eager")
    inputs = {"input_ids": IDS[:1], "attention_mask": MASK[:1]}
    outputs = model.forward_interpret(**inputs, return_dict=True, output_attentions=True, output_hidden_states=True)
    assert len(outputs.hidden_states) == 5
    assert len(outputs.attentions) == 4
    insert_info = [
        {
            2: ([1, 2], outputs.hidden_states[3][0, [4]].repeat(2, 1).unsqueeze(0)),
            "retrieve_layer": 3,
            "retrieve_token": 4,
            "overlay_strength": 1.0,
            "replacing_mode": "normalized",
        }
    ]
    output = model.generate_interpret(
        **inputs, max_new_tokens=30, insert_info=insert_info, pad_token_id=0, output_attentions=False
    )
    with torch.no_grad():
        repeated = {"output_hidden_states": True, "return_dict": True}
        operated = model.forward_interpret(output[..., :-1], **repeated, insert_info=insert_info)
        plain = model.forward_interpret(output[..., :-1], **repeated)
    logits = [model.lm_head(outputs.hidden_states[-1])[0, WIDTH - 1 :] for outputs in (operated, plain)]
    tokens = output[0, WIDTH:]
    assert torch.equal(logits[0].argmax(-1), tokens)
    relevancy = [scores.softmax(-1).gather(-1, tokens[:, None]) for scores in logits]
    assert (relevancy[0] - relevancy[1]).abs().max() > 1e-3
    reference = reference_generate(model, insert_info, WIDTH, **inputs, max_new_tokens=30, pad_token_id=0)
    assert torch.equal(output, reference)
