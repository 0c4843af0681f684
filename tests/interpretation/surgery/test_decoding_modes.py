"""Every way of decoding under surgery: equal to the same decoding over the reference's layers, or refused by name.

Each outcome is also written to runs/decoding_modes/VERSION.json; `python tests/modes_table.py` makes a table of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from reference import reference_generate
from tiny_models import tiny_model
from transformers.generation import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

INSTALLED = Version(transformers.__version__)
OUTCOMES = Path(__file__).resolve().parents[3] / "runs" / "decoding_modes" / f"{INSTALLED}.json"
HIDDEN, WIDTH, NEW = 32, 12, 8
PROMPTS = [[5, 17, 99, 23, 64, 31, 8, 90, 41, 12, 77, 3], [71, 8, 45, 66, 29, 101, 4]]


def vectors(n: int, seed: int) -> torch.Tensor:
    return torch.randn(1, n, HIDDEN, generator=torch.Generator().manual_seed(seed))


INFOS = [
    {1: ([-9, -2], vectors(2, 0)), "replacing_mode": "normalized", "overlay_strength": 1.0},
    {0: ([-3], vectors(1, 2)), 3: ([-1, -7], vectors(2, 3)), "replacing_mode": "addition", "overlay_strength": 1.5},
]
STEERED = [
    {1: (["generated", -2], vectors(2, 4)), "replacing_mode": "norm_matched_addition", "overlay_strength": [0.7, 1.5]},
    {
        3: ("generated", vectors(1, 5)),  # not 0: DoLa reads its recorded states, which the reference does not rewrite
        2: ("generated", lambda states: states.flip(-1)),
        "replacing_mode": "normalized",
        "overlay_strength": 0.5,
    },
]
IDS = torch.tensor([[0] * (WIDTH - len(prompt)) + prompt for prompt in PROMPTS])
MASK = (IDS != 0).long()


@dataclass(frozen=True)
class Mode:
    """One way of decoding, and where it is equal to the reference; elsewhere it must be refused with the message."""

    arguments: Callable[[], dict[str, Any]]
    """makes the arguments of `generate`, afresh for each call: streamers and processors keep state"""
    since: str = "4.34.0"
    until: str | None = None
    broken: tuple[str, ...] = ()
    """versions on which the library's own decoding fails"""
    refusal: str = ""
    rows: int = 2

    @property
    def available(self) -> bool:
        ended = self.until is not None and Version(self.until) < INSTALLED
        return str(INSTALLED) not in self.broken and Version(self.since) <= INSTALLED and not ended


class Halve(LogitsProcessor):
    """Makes tokens that were there already less likely."""

    def __call__(self, input_ids, scores):
        return scores.scatter(1, input_ids, scores.gather(1, input_ids) - 3)


class StopAtSixteen(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        done = input_ids.shape[1] >= 16
        return torch.full((input_ids.shape[0],), done) if Version("4.39") <= INSTALLED else done


class Recorder(BaseStreamer):
    """Keeps what was streamed."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.tokens.append(-1)


def draft():
    """A smaller model with weights of its own, to propose tokens."""
    model = tiny_model(num_hidden_layers=2, eos_token_id=None)
    model.generation_config.num_assistant_tokens = 4
    return model


def embedded() -> dict[str, Any]:
    return {"inputs": None, "inputs_embeds": tiny_model().get_input_embeddings()(IDS).detach(), "use_cache": True}


def own_loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
    return type(model)._sample(
        model, input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus=False, **model_kwargs
    )


SAMPLING = {"do_sample": True, "temperature": 0.9, "top_k": 40, "top_p": 0.95}
REMOTE = "is not supported with insert_info on transformers .* remote code"
UNKNOWN = "not used by the model|Unrecognized|unexpected|does not support|has to be"
QUANTIZED = {"backend": "quanto", "nbits": 4, "residual_length": 4, "q_group_size": 8}
SUB_BATCHES = "with low_memory=True is not supported"
SEQUENTIAL = "`low_memory=True` is not supported after the beam search refactor"
MODES: dict[str, Mode] = {
    "greedy": Mode(dict),
    "greedy without a cache": Mode(lambda: {"use_cache": False}),
    "sampling": Mode(lambda: SAMPLING),
    "sampling, several return sequences": Mode(lambda: {**SAMPLING, "num_return_sequences": 3}),
    "beams": Mode(lambda: {"num_beams": 3}),
    "beams, several return sequences": Mode(lambda: {"num_beams": 4, "num_return_sequences": 2}),
    "beam sampling": Mode(lambda: {"num_beams": 3, **SAMPLING}),
    "beams, low_memory, one row": Mode(
        lambda: {"num_beams": 3, "low_memory": True}, until="4.49", refusal=SEQUENTIAL, rows=1
    ),
    "beams, low_memory, several rows": Mode(
        lambda: {"num_beams": 3, "low_memory": True}, until="0", refusal=SUB_BATCHES
    ),
    "group beams": Mode(
        lambda: {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}, until="4.56", refusal=REMOTE
    ),
    "constrained beams": Mode(lambda: {"num_beams": 3, "force_words_ids": [[7, 9]]}, until="4.56", refusal=REMOTE),
    "contrastive search": Mode(
        lambda: {"penalty_alpha": 0.6, "top_k": 4, "use_cache": True}, until="4.56", refusal=REMOTE
    ),
    "contrastive search, low_memory, one row": Mode(
        lambda: {"penalty_alpha": 0.6, "top_k": 4, "use_cache": True, "low_memory": True},
        until="4.56",
        refusal=REMOTE,
        rows=1,
    ),
    "DoLa": Mode(lambda: {"dola_layers": "low"}, since="4.45", until="4.56", refusal=f"{REMOTE}|{UNKNOWN}"),
    "assisted by a draft model": Mode(lambda: {"assistant_model": draft(), "use_cache": True}, rows=1),
    "assisted sampling": Mode(lambda: {"assistant_model": draft(), "use_cache": True, **SAMPLING}, rows=1),
    "prompt look-up": Mode(
        lambda: {"prompt_lookup_num_tokens": 3, "use_cache": True, "eos_token_id": 127},
        since="4.37",
        refusal=UNKNOWN,
        rows=1,
    ),
    "logits processors": Mode(
        lambda: {"logits_processor": LogitsProcessorList([Halve()]), "repetition_penalty": 1.3, "min_new_tokens": 4}
    ),
    "stopping criteria": Mode(lambda: {"stopping_criteria": StoppingCriteriaList([StopAtSixteen()])}),
    "end-of-sequence tokens": Mode(lambda: {"eos_token_id": list(range(30, 60)), "pad_token_id": 0}),
    "streamer": Mode(lambda: {"streamer": Recorder()}, rows=1),
    "inputs_embeds": Mode(embedded),
    "static cache": Mode(lambda: {"cache_implementation": "static", "use_cache": True}, since="4.38", refusal=UNKNOWN),
    "quantized cache": Mode(
        lambda: {"cache_implementation": "quantized", "cache_config": dict(QUANTIZED), "use_cache": True},
        since="4.42",
        refusal=f"quanto|QuantizedCacheConfig|{UNKNOWN}",
    ),
    "chunked prefill": Mode(
        lambda: {"prefill_chunk_size": 5, "use_cache": True},
        since="4.53",
        broken=("5.0.0",),
        refusal=f"Cannot use prefill chunking|{UNKNOWN}",
    ),
    "chunked prefill, static cache": Mode(
        lambda: {"prefill_chunk_size": 5, "cache_implementation": "static", "use_cache": True},
        since="4.53",
        broken=("5.0.0",),
        refusal=f"out of bounds|{UNKNOWN}",
    ),
    "a decoding loop of one's own": Mode(lambda: {"custom_generate": own_loop}, since="4.55", refusal=UNKNOWN),
    "token healing": Mode(lambda: {"token_healing": True}, until="0", refusal=f"token_healing is not .*|{UNKNOWN}"),
}


@pytest.fixture(scope="module")
def model():
    return tiny_model(eos_token_id=None)


@pytest.fixture(scope="module")
def outcomes():
    """Mode → "equal" or "refused: why", written where the design's table is made from."""
    found: dict[str, str] = {}
    yield found
    OUTCOMES.parent.mkdir(parents=True, exist_ok=True)
    OUTCOMES.write_text(json.dumps(found, indent=1) + "\n")


def arguments(mode: Mode) -> dict[str, Any]:
    batch = {"inputs": IDS[: mode.rows], "attention_mask": MASK[: mode.rows], "max_new_tokens": NEW, "pad_token_id": 0}
    return {**batch, "do_sample": False, "output_scores": True, "return_dict_in_generate": True, **mode.arguments()}


@pytest.mark.parametrize("name", [name for name, mode in MODES.items() if mode.available])
def test_equal_to_the_same_decoding_over_the_reference(model, outcomes, name):
    mode = MODES[name]
    compare(model, mode, INFOS[: mode.rows])
    outcomes[name] = "equal"


STEERABLE = [name for name, mode in MODES.items() if mode.available and not mode.arguments().keys() & {"streamer"}]


@pytest.mark.parametrize("name", STEERABLE)
def test_steering_equals_the_same_decoding_over_the_reference(model, name):
    compare(model, MODES[name], STEERED[: MODES[name].rows])


def compare(model, mode, infos):
    """Sequences, scores and what was streamed; and that the surgery changes something."""
    given = arguments(mode)
    reference = arguments(mode)
    expected = reference_generate(model, infos, WIDTH, seed=3, **reference)
    torch.manual_seed(3)
    found = model.generate_interpret(insert_info=infos, **given)
    assert torch.equal(found.sequences, expected.sequences)
    assert len(found.scores) == len(expected.scores) > 0
    for ours, theirs in zip(found.scores, expected.scores):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
    if "streamer" in given:
        assert given["streamer"].tokens == reference["streamer"].tokens != []
    torch.manual_seed(3)
    plain = model.generate(**arguments(mode))
    assert plain.sequences.shape != found.sequences.shape or not torch.equal(plain.sequences, found.sequences)


@pytest.mark.parametrize("name", [name for name, mode in MODES.items() if not mode.available])
def test_refused_where_it_would_not_be(model, outcomes, name):
    mode = MODES[name]
    with pytest.raises((ValueError, TypeError, ImportError, IndexError), match=mode.refusal) as refusal:
        model.generate_interpret(insert_info=INFOS[: mode.rows], **arguments(mode))
    ours = "insert_info" in str(refusal.value)
    missing = isinstance(refusal.value, ImportError)
    outcomes[name] = "refused" if ours else "package missing" if missing else "not in this version"


def test_every_mode_that_the_library_knows_is_among_them(model):
    try:
        from transformers.generation import GenerationMode
    except ImportError:
        from transformers.generation.utils import GenerationMode
    from transformers.interpretation.surgery.generation_support import effective_config, mode_of

    covered = set()
    for mode in MODES.values():
        given = {"assistant_model": None, **mode.arguments()}
        assistant = given.pop("assistant_model")
        config, _ = effective_config(model, {}, {key: value for key, value in given.items() if value is not None})
        covered.add(mode_of(model, config, assistant))
    assert covered == set(GenerationMode)
