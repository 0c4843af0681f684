"""Does the patch work with this transformers? A few seconds on a tiny random Llama, against a plain computation.

Surgery with and without a cache, under left padding, with beams, of generated tokens, and the engine that interprets:
enough to trust a version of the library that is newer than the tested ones.

    python -m transformers.interpretation.self_test

Exit status 0 and one line; or 1 and one line that says what is wrong.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn

PROMPT = (3, 14, 15, 9, 26)
NEW_TOKENS = 4
TOLERANCE = 1e-4
EXPLORERS_OWN = ("fastapi", "pydantic", "starlette", "uvicorn")
"""Packages that the explorer needs and nothing else does."""
NOTHING_TO_COMPARE = "the plain computation shows no surgery: nothing to compare with"


class SelfTestError(Exception):
    """What the patch does and should not do."""


class Rewritten(nn.Module):
    """A decoder layer that is given `scale` · input + `shift` at some positions: surgery without any of our code."""

    def __init__(self, layer: nn.Module, positions: slice, scale: float, shift: Tensor):
        super().__init__()
        self.layer, self.positions, self.scale, self.shift = layer, positions, scale, shift

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # newer versions ask a layer for its kind of attention
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        hidden = hidden.clone()
        hidden[:, self.positions] = self.scale * hidden[:, self.positions] + self.shift
        return self.layer(hidden, *args, **kwargs)


@contextmanager
def rewritten(model: nn.Module, layer: int, positions: slice, scale: float, shift: Tensor):
    """The model with one decoder layer wrapped."""
    original = model.model.layers[layer]
    model.model.layers[layer] = Rewritten(original, positions, scale, shift)
    try:
        yield
    finally:
        model.model.layers[layer] = original


def tiny_model() -> nn.Module:
    """A Llama of three layers, the weights wide enough for the best token to be clear."""
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=None,
    )
    model = transformers.LlamaForCausalLM(config).float().eval()
    generator = torch.Generator().manual_seed(0)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model


def plain_logits(model: nn.Module, tokens: Sequence[int]) -> Tensor:
    """Logits [sequence, vocabulary] of one pass without a cache."""
    return model(torch.tensor([list(tokens)]), use_cache=False).logits[0]


def plain_greedy(model: nn.Module, tokens: Sequence[int]) -> list[int]:
    """The next tokens by argmax, each from a pass over the whole text."""
    text = list(tokens)
    for _ in range(NEW_TOKENS):
        text.append(int(plain_logits(model, text)[-1].argmax()))
    return text


def require(holds: bool, what: str) -> None:
    """Raise the one line that says what is wrong."""
    if not holds:
        raise SelfTestError(what)


def close(found: Tensor, expected: Tensor) -> bool:
    """Equal but for rounding?"""
    return torch.allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


def check_imports() -> None:
    """Every module of the package can be imported; those of the explorer where there is what it alone needs."""
    package = importlib.import_module("transformers.interpretation")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith(".__main__") or module.name == __spec__.name:
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in EXPLORERS_OWN or ".explorer." not in module.name:
                raise


def check_surgery(model: nn.Module, mode: str, layer: int, position: int, strength: float) -> None:
    """One surgered row beside an untouched one: logits, generation and greedy search as in the plain computation."""
    vector = _vector(model, layer)
    insert_info: list[Mapping[Any, Any]] = [
        {layer: ([position], vector.view(1, 1, -1)), "overlay_strength": strength, "replacing_mode": mode},
        {},
    ]
    scale = 1 - strength if mode == "normalized" else 1.0
    untouched = plain_logits(model, PROMPT), plain_greedy(model, PROMPT)
    with rewritten(model, layer, slice(position, position + 1), scale, strength * vector):
        operated = plain_logits(model, PROMPT), plain_greedy(model, PROMPT)
    require(not close(operated[0], untouched[0]), NOTHING_TO_COMPARE)

    batch = torch.tensor([PROMPT, PROMPT])
    mask = torch.ones_like(batch)
    logits = model.forward_interpret(batch, attention_mask=mask, insert_info=insert_info).logits
    require(close(logits[0], operated[0]), f"forward_interpret, {mode}: wrong logits in the surgered row")
    require(close(logits[1], untouched[0]), f"forward_interpret, {mode}: wrong logits in the row left alone")
    expected = [operated[1], untouched[1]]
    generated = model.generate_interpret(
        batch, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS, insert_info=insert_info
    )
    require(generated.tolist() == expected, f"generate_interpret, {mode}: wrong tokens")
    searched = model.greedy_search_interpret(
        batch, max_length=len(PROMPT) + NEW_TOKENS, attention_mask=mask, insert_info=insert_info
    )
    require(searched.tolist() == expected, f"greedy_search_interpret, {mode}: wrong tokens")


def check_padding(model: nn.Module) -> None:
    """Rows of unequal length, padded on the left: each as it is alone."""
    vector = _vector(model, 7)
    with rewritten(model, 1, slice(1, 2), 0.0, vector):
        short = plain_greedy(model, PROMPT[:3])
    with rewritten(model, 1, slice(3, 4), 0.0, vector):
        long = plain_greedy(model, PROMPT)
    options = {"overlay_strength": 1.0, "replacing_mode": "normalized"}
    info = [{1: ([column], vector.view(1, 1, -1)), **options} for column in (3, 3)]  # the first row has two of padding
    found = model.generate_interpret(
        torch.tensor([[0, 0, *PROMPT[:3]], PROMPT]),
        attention_mask=torch.tensor([[0, 0, 1, 1, 1], [1] * 5]),
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        insert_info=info,
    ).tolist()
    require(plain_greedy(model, PROMPT[:3]) != short, NOTHING_TO_COMPARE)
    require(found[0][2:] == short and found[1] == long, "generate_interpret, left padding: wrong tokens")


def check_beams(model: nn.Module) -> None:
    """Beams, which reorder the cache, as without a cache."""
    vector, batch = _vector(model, 11), torch.tensor([PROMPT])
    options = {"attention_mask": torch.ones_like(batch), "num_beams": 3, "do_sample": False}
    options |= {"max_new_tokens": NEW_TOKENS}
    with rewritten(model, 1, slice(4, 5), 0.0, vector):
        expected = model.generate(batch, use_cache=False, **options)
    require(model.generate(batch, use_cache=False, **options).tolist() != expected.tolist(), NOTHING_TO_COMPARE)
    info = [{1: ([4], vector.view(1, 1, -1)), "overlay_strength": 1.0, "replacing_mode": "normalized"}]
    found = model.generate_interpret(batch, insert_info=info, **options)
    require(found.tolist() == expected.tolist(), "generate_interpret, beams: wrong tokens")


def check_steering(model: nn.Module) -> None:
    """Every generated token shifted."""
    vector, batch = _vector(model, 15), torch.tensor([PROMPT])
    with rewritten(model, 1, slice(len(PROMPT), None), 1.0, vector):
        expected = plain_greedy(model, PROMPT)
    require(plain_greedy(model, PROMPT) != expected, NOTHING_TO_COMPARE)
    info = [{1: ("generated", vector.view(1, 1, -1)), "overlay_strength": 1.0, "replacing_mode": "addition"}]
    found = model.generate_interpret(
        batch, attention_mask=torch.ones_like(batch), insert_info=info, do_sample=False, max_new_tokens=NEW_TOKENS
    )
    require(found[0].tolist() == expected, "generate_interpret, generated tokens steered: wrong tokens")


def check_engine(model: nn.Module) -> None:
    """Interpretations of several vectors at once: tokens, probabilities and relevancy, each from whole plain passes."""
    from .engine.cell import Cell
    from .engine.decode import interpret_chunk
    from .engine.settings import InterpretationSettings
    from .prompts.interpretation_prompt import InterpretationPrompt

    vectors = [_vector(model, seed) for seed in range(18, 22)]
    prompt = InterpretationPrompt("self-test", PROMPT, (2, 3), "")
    settings = InterpretationSettings(insert_layer=1, max_new_tokens=NEW_TOKENS)
    found = interpret_chunk(model, [Cell(vector, prompt) for vector in vectors], settings, batch_size=3)
    for vector, interpretation in zip(vectors, found):
        places = slice(2, 4)
        with rewritten(model, 1, places, 0.0, vector):
            text = plain_greedy(model, PROMPT)
            operated = plain_logits(model, text).softmax(-1)
        untouched = plain_logits(model, text).softmax(-1)
        said = text[len(PROMPT) :]
        rows = range(len(PROMPT) - 1, len(text) - 1)
        with_it = torch.stack([operated[row, token] for row, token in zip(rows, said)])
        without = torch.stack([untouched[row, token] for row, token in zip(rows, said)])
        require(list(interpretation.token_ids) == said, "interpretations: wrong tokens")
        require(close(torch.tensor(interpretation.probabilities), with_it), "interpretations: wrong probabilities")
        require(close(torch.tensor(interpretation.relevancy), (with_it - without).abs()), "interpretations: relevancy")


def _vector(model: nn.Module, seed: int) -> Tensor:
    return 2 * torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def check() -> None:
    """All of it; raises at the first thing that is wrong."""
    check_imports()
    for name in ("forward_interpret", "generate_interpret", "greedy_search_interpret"):
        require(hasattr(transformers.LlamaForCausalLM, name), f"LlamaForCausalLM has no {name}: not patched")
    model = tiny_model()
    batch = torch.tensor([PROMPT])
    require(torch.equal(model.forward_interpret(batch).logits, model(batch).logits), "forward_interpret is not forward")
    check_surgery(model, "normalized", layer=1, position=2, strength=1.0)
    check_surgery(model, "normalized", layer=0, position=0, strength=0.25)
    check_surgery(model, "addition", layer=2, position=4, strength=0.5)
    check_padding(model)
    check_beams(model)
    check_steering(model)
    check_engine(model)


def main() -> int:
    """Run the check; the exit status."""
    try:
        check()
    except Exception as error:
        message = " ".join(str(error).split())
        print(f"self-test: {type(error).__name__}: {message}", file=sys.stderr)
        return 1
    print(f"self-test: ok on transformers {transformers.__version__}, torch {torch.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
