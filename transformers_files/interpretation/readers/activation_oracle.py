"""Activation Oracles (arXiv:2512.15674, adamkarvonen/activation_oracles): a LoRA that answers questions about vectors.

A PEFT folder. Nothing in it says how vectors go in; that project's code does: at the output of block 1 (the input of
layer 2 here) each placeholder's state gets the vector added, scaled to the state's own norm. The prompt names the block
K that the vectors are the output of, layer K + 1 here, and has a placeholder for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..models.adapters import CONFIG, Adapter
from ..models.chat_template import default_template, has_chat_template
from ..models.families import decoder_layers
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPromptSpec
from .reader import FittedReader, ReaderError

_RANK, _ALPHA = 64, 128
_NAMES = ("addition", "adding")
"""One is in the names of the adapters that add; older ones replace, and no file says which it is."""
_INSERT_LAYER = 2
_DEPTH = 0.5
"""Of the block that its evaluations read; it was trained on this, 0.25 and 0.75."""


@dataclass(frozen=True)
class ActivationOracle:
    """An adapter that was recognised."""

    path: Path
    adapter: Adapter

    @property
    def description(self) -> str:
        return f"Activation Oracle {self.path.name}: LoRA of rank {_RANK} that adds vectors at layer {_INSERT_LAYER}"

    @property
    def digest(self) -> str:
        return self.adapter.fingerprint[:16]

    def fit(self, model: nn.Module, tokenizer: Tokenizer, layers: str | None = None) -> FittedReader:
        """Raises ReaderError, AdapterError."""
        self.adapter.check(model)
        n_layers = len(decoder_layers(model))
        layer = str(int(n_layers * _DEPTH) + 1) if layers is None else layers
        if not layer.isdecimal() or not 1 <= int(layer) <= n_layers - 1:
            raise ReaderError(
                f"reader {self.path}: found layers {layer}, expected a single one from 1 to {n_layers - 1}: the prompt "
                "names it"
            )
        if len(tokenizer.encode(" ?", add_special_tokens=False)) != 1:
            raise ReaderError(
                f'reader {self.path}: found a tokenizer that cuts its placeholder " ?", expected one token'
            )
        text = f"Layer: {int(layer) - 1}\n ? \n{{question}}"
        prompt = InterpretationPromptSpec(
            "activation_oracle",
            text=text,
            placeholder="?",
            chat=True,
            reply=self._without_thinking(tokenizer),
            repeated=True,
        )
        return FittedReader(prompt, _INSERT_LAYER, "norm_matched_addition", layer, adapter=self.adapter)

    def _without_thinking(self, tokenizer: Tokenizer) -> str:
        """What the chat template begins the reply with where the model is not to think; "" for most."""
        if not has_chat_template(tokenizer):
            raise ReaderError(f"reader {self.path}: found a tokenizer without a chat template, expected one")
        turn, template = [{"role": "user", "content": "x"}], default_template(tokenizer)
        reply = "{% set add_generation_prompt = true %}"  # within the template, because 4.34 takes no variables
        plain, told = (
            tokenizer.apply_chat_template(turn, tokenize=False, chat_template=reply + more + template)
            for more in ("", "{% set enable_thinking = false %}")
        )
        if told != plain and not (told.startswith(plain) and plain[-1:].isspace()):
            raise ReaderError(f"reader {self.path}: found a chat template that writes no-thinking before the reply")
        return told[len(plain) :]


def recognises(path: Path) -> bool:
    """Whether it is a PEFT adapter."""
    return (path / CONFIG).is_file()


def read(path: Path) -> ActivationOracle:
    """Raises ReaderError, AdapterError."""
    adapter = Adapter.find(path)
    found = adapter.config.get("r"), adapter.config.get("lora_alpha")
    if found != (_RANK, _ALPHA):
        raise ReaderError(
            f"reader {path}: found a LoRA of rank and alpha {found}, expected {(_RANK, _ALPHA)} of an Activation "
            "Oracle; an adapter of your own goes with --reader-adapter"
        )
    # The cache of the hub has snapshots in folders of their own, two below the one with the repository's name.
    named = "/".join(path.absolute().parts[-3:] if path.parent.name == "snapshots" else path.resolve().parts[-1:])
    if not any(name in named for name in _NAMES):
        raise ReaderError(
            f"reader {path}: found no {' or '.join(_NAMES)} in the folder's name, expected as published: no file says "
            "whether an oracle adds its vectors or replaces with them"
        )
    return ActivationOracle(path, adapter)
