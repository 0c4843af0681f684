"""Does the patch work with this transformers? A few seconds on a tiny random Llama, against a plain computation.

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


class SelfTestError(Exception):
    """What the patch does and should not do."""


class Rewritten(nn.Module):
    """A decoder layer that is given `scale` · input + `shift` at one position: surgery without any of our code."""

    def __init__(self, layer: nn.Module, position: int, scale: float, shift: Tensor):
        super().__init__()
        self.layer, self.position, self.scale, self.shift = layer, position, scale, shift

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # newer versions ask a layer for its kind of attention
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        columns = [hidden[:, i] for i in range(hidden.shape[1])]
        columns[self.position] = self.scale * columns[self.position] + self.shift
        return self.layer(torch.stack(columns, dim=1), *args, **kwargs)


@contextmanager
def rewritten(model: nn.Module, layer: int, position: int, scale: float, shift: Tensor):
    """The model with one decoder layer wrapped."""
    original = model.model.layers[layer]
    model.model.layers[layer] = Rewritten(original, position, scale, shift)
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
    """Every module of the package can be imported."""
    package = importlib.import_module("transformers.interpretation")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith(".__main__") and module.name != __spec__.name:
            importlib.import_module(module.name)


def check_surgery(model: nn.Module, mode: str, layer: int, position: int, strength: float) -> None:
    """One surgered row beside an untouched one: logits, generation and greedy search as in the plain computation."""
    vector = 2 * torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(layer))
    insert_info: list[Mapping[Any, Any]] = [
        {layer: ([position], vector.view(1, 1, -1)), "overlay_strength": strength, "replacing_mode": mode},
        {},
    ]
    scale = 1 - strength if mode == "normalized" else 1.0
    untouched = plain_logits(model, PROMPT), plain_greedy(model, PROMPT)
    with rewritten(model, layer, position, scale, strength * vector):
        operated = plain_logits(model, PROMPT), plain_greedy(model, PROMPT)
    require(not close(operated[0], untouched[0]), "the plain computation shows no surgery: nothing to compare with")

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
