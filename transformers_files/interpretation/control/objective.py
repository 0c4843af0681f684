"""What training makes small: how improbable the wanted text is, or how little its samples are worth; and how far the
states of other prompts have moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..engine.cell import Cell
from ..engine.decode import interpret_chunk
from ..engine.insertion import insert_info_of, resolved
from ..engine.likelihood import token_log_probabilities
from ..engine.sampling import Sampling
from ..engine.settings import InterpretationSettings
from ..models.chat_template import encode_prompt
from ..models.families import decoder_layers
from ..models.forward import input_device
from ..models.tokenizer import Tokenizer
from ..prompts.interpretation_prompt import InterpretationPrompt
from ..results.record import interpretation_pieces
from .targets import Target


@dataclass(frozen=True)
class Reader:
    """The untouched model, which interprets."""

    model: nn.Module
    tokenizer: Tokenizer
    prompt: InterpretationPrompt
    settings: InterpretationSettings
    """Guidance has no part in training: what is made probable is the text with the vector."""

    def cell(self, vector: Tensor, layer: int) -> Cell:
        """vector: `[hidden]`, of that layer; gradients flow through it."""
        depth = layer / len(decoder_layers(self.model))
        plain = resolved(Cell(vector, self.prompt, depth=depth), vector.dtype, self.settings)
        return replace(plain, vector=vector)

    def log_probabilities(self, vector: Tensor, layer: int, texts: Sequence[Sequence[int]]) -> Tensor:
        """`[texts]`: of token ids behind the interpretation prompt with the vector in it, in nats."""
        infos = [insert_info_of(self.cell(vector, layer), self.settings)] * len(texts)
        return torch.stack([row.sum() for row in token_log_probabilities(self.model, self.prompt, infos, texts)])

    def samples(self, vector: Tensor, layer: int, sampling: Sampling, name: str) -> list[tuple[tuple[int, ...], str]]:
        """Token ids and text of interpretations drawn at random, of raw probabilities."""
        settings = replace(self.settings, guidance=0.0, sampling=sampling)
        cell = self.cell(vector.detach(), layer)
        cells = [replace(cell, seed=sampling.seed_of(name, number)) for number in range(sampling.samples)]
        found = interpret_chunk(self.model, cells, settings, batch_size=sampling.samples)
        return [
            (one.token_ids, "".join(interpretation_pieces(self.tokenizer, self.prompt, one.token_ids))) for one in found
        ]


def target_loss(reader: Reader, vector: Tensor, target: Target, sampling: Sampling, name: str) -> Tensor:
    """Nats per token of the wanted text; or minus the samples' advantages times their log probabilities."""
    if isinstance(target.wanted, str):
        ids = reader.tokenizer.encode(target.wanted, add_special_tokens=False)
        return -reader.log_probabilities(vector, target.layer, [ids])[0] / len(ids)
    drawn = reader.samples(vector, target.layer, sampling, name)
    worth = torch.tensor(list(target.wanted([text for _, text in drawn])), dtype=torch.float32)
    advantages = (worth - worth.mean()).to(vector.device)
    kept = [(ids, advantage) for (ids, _), advantage in zip(drawn, advantages) if ids]
    if not kept:
        return vector.sum() * 0.0
    likely = reader.log_probabilities(vector, target.layer, [ids for ids, _ in kept])
    lengths = torch.tensor([len(ids) for ids, _ in kept], device=likely.device)
    return -(torch.stack([advantage for _, advantage in kept]) * likely / lengths).mean()


def states_of(model: nn.Module, texts: Sequence[Sequence[int]], layers: Sequence[int]) -> list[Tensor]:
    """`[layers, tokens, hidden]` of each text; shorter ones are filled up behind, which nothing before can see."""
    longest = max(map(len, texts))
    rows = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=input_device(model))
    found = model(input_ids=rows, use_cache=False, output_hidden_states=True, return_dict=True).hidden_states
    return [torch.stack([found[layer][row, : len(text)] for layer in layers]) for row, text in enumerate(texts)]


def moved(now: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    """The mean over states of ‖now − before‖² / ‖before‖²; each `[layers, tokens, hidden]`. First tokens, whose norms
    are like no others, do not count, unless there are no more."""
    shares = []
    for one, other in zip(now, before):
        first = min(1, other.shape[1] - 1)
        one, other = one[:, first:].float(), other[:, first:].float()
        shares.append(((one - other).square().sum(-1) / other.square().sum(-1)).mean())
    return torch.stack(shares).mean()


def source_ids(tokenizer: Tokenizer, prompt: str, raw: bool = True) -> list[int]:
    """Token ids of what the changed model reads."""
    return list(encode_prompt(tokenizer, prompt, raw=raw))
