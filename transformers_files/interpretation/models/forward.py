"""Logits only where they are read, and what is read from them.

A language model's head is a large part of a small model's work, and `[batch, sequence, vocabulary]` logits are most of
its memory. Newer versions of the library have `logits_to_keep` for some families; a pre-hook on the head serves all
versions and families alike, and leaves alone whatever the model does with its logits afterwards: scaling, soft-capping.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from .families import decoder_layers
from .kv_cache import cache_beside, cache_in, cached_length, empty_cache, says_length
from .layer_inputs import head, keeping_nothing
from .rope import check_pass
from .sending import sent
from .text_so_far import TextSoFar
from .thread_hooks import input_hook, output_hook

_ROWS_IN_CPU_CACHE = 8
"""Rows of logits that are read at once on a CPU: what stays in its cache is read in half the time."""


def next_logits(model: nn.Module, input_ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
    """Process tokens after a cache.

    Args:
        model: a causal language model.
        input_ids: `[batch, sequence]`, without padding.
        cache: keys and values of what came before, as `kv_cache.empty_cache` or an earlier pass gave them.

    Returns:
        logits `[batch, vocabulary]` after the last token, in the model's dtype, on the device of `input_ids`; the cache
        with the new tokens in it.
    """
    if isinstance(cache, TextSoFar):
        return _after_text(model, cache, cache.followed_by(input_ids))
    if says_length(cache):
        check_pass(model, cached_length(cache), input_ids.shape[1])
    before = cache_beside(model, cache, input_ids)
    with input_hook(head(model), lambda hidden: hidden[:, -1:]):
        out = model(input_ids=input_ids, use_cache=True, return_dict=True, **before)
    return out.logits[:, -1].to(input_ids.device), cache_in(out)


def _after_text(model: nn.Module, before: TextSoFar, input_ids: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """The same where all tokens `[batch, sequence]` are to be read."""
    with before.context():
        if before.model_caches:
            return next_logits(model, input_ids, empty_cache(model))
        with input_hook(head(model), lambda hidden: hidden[:, -1:]):
            out = model(input_ids=input_ids, **keeping_nothing(model))
    return out.logits[:, -1].to(input_ids.device), before.grown_to(input_ids)


def read_out(model: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """What the model makes of states in the place of its last decoder layer's output.

    Its own final norm, head and whatever it does to its logits afterwards apply, in every family. Differentiable.

    Args:
        states: `[n, hidden]`, before the final norm.

    Returns:
        float32 logits `[n, vocabulary]`, where the model puts them.
    """

    def logits_of(tokens: int) -> torch.Tensor:
        ids = torch.zeros((tokens, 1), dtype=torch.long, device=input_device(model))
        return model(input_ids=ids, **keeping_nothing(model)).logits

    with output_hook(decoder_layers(model)[-1], lambda hidden: states[:, None].to(hidden)):
        try:
            logits = logits_of(1)  # what goes through the layers is replaced behind them: one token is enough
        except RuntimeError:  # not where the result is given the shape of the ids, as in GPTBigCode
            logits = logits_of(len(states))
    return logits.reshape(len(states), -1).float()


def head_out(model: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """What the model's head makes of states `[n, hidden]` that are after the final norm: as `read_out` otherwise."""
    ids = torch.zeros((len(states), 1), dtype=torch.long, device=input_device(model))
    with input_hook(head(model), lambda hidden: states[:, None].to(hidden)):
        return model(input_ids=ids, **keeping_nothing(model)).logits[:, -1].float()


def best_tokens(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The best token of each row of logits `[rows, vocabulary]` and its float32 probability; NaN where it has NaN."""
    tokens, probabilities = [], []
    for piece in _pieces(logits):
        token = piece.max(-1).indices
        tokens.append(token)
        probabilities.append(piece.softmax(-1).gather(-1, token[:, None])[:, 0])  # a pass less than by logsumexp
    return torch.cat(tokens), torch.cat(probabilities)


def guided_tokens(
    logits: torch.Tensor, without: torch.Tensor, rows: torch.Tensor, guidance: float, plausibility: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The token of each row that is best under guidance, and its float32 probability; NaN where the row has NaN.

    Best is the largest log p + guidance · (log p − log q) among the tokens with p ≥ plausibility · max p.

    Args:
        logits: `[n, vocabulary]`, of p.
        without: `[m, vocabulary]`, of q.
        rows: `[n]`, the row of `without` that q of each row is of.
        guidance, plausibility: at least 0; from 0 (all tokens) to 1 (the most probable alone).
    """
    tokens, probabilities = [], []
    for piece, beside in zip(_pieces(logits), rows.split(_rows_at_once(logits))):
        best = _best_of_few if piece.device.type == "cpu" else _best_of_all
        chosen = best(piece, without, beside, guidance, plausibility)
        tokens.append(chosen)
        probabilities.append((piece.gather(-1, chosen[:, None])[:, 0] - piece.logsumexp(-1)).exp())
    return torch.cat(tokens), torch.cat(probabilities)


def sampled_tokens(
    logits: torch.Tensor,
    without: torch.Tensor,
    rows: torch.Tensor,
    numbers: Sequence[float],
    *,
    guidance: float,
    plausibility: float,
    temperature: float,
    top_p: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token of each row, drawn at random, and its float32 probability p; NaN where the row has NaN.

    The token is the first whose probability, added to those of the tokens before it in the vocabulary, exceeds the
    row's random number. The order is not that of probabilities, which rounding would change.

    Args:
        logits, without, rows, guidance, plausibility: as for `guided_tokens`; with guidance 0 there is no bound.
        numbers: one of each row, from 0 to below 1.
        temperature: greater than 0. top_p: from above 0 to 1 (all tokens).
    """
    tokens, probabilities = [], []
    drawn = sent(torch.tensor(numbers, dtype=torch.float64, device="cpu"), logits.device, _exact(logits))
    for piece, beside, number in zip(_pieces(logits), *(each.split(_rows_at_once(logits)) for each in (rows, drawn))):
        scores = _guided_scores(piece, without[beside], guidance, plausibility) if guidance else piece
        share = ((scores - scores.amax(-1, keepdim=True)) / temperature).softmax(-1)
        token = _at(_nucleus(share, top_p) if top_p < 1 else share, number)
        tokens.append(token)
        probabilities.append(piece.softmax(-1).gather(-1, token[:, None])[:, 0])
    return torch.cat(tokens), torch.cat(probabilities)


def _best_of_all(
    piece: torch.Tensor, without: torch.Tensor, beside: torch.Tensor, guidance: float, plausibility: float
) -> torch.Tensor:
    """The best token of each row `[rows]` under guidance. The host waits for nothing."""
    return _guided_scores(piece, without[beside], guidance, plausibility).max(-1).indices


def _best_of_few(
    piece: torch.Tensor, without: torch.Tensor, beside: torch.Tensor, guidance: float, plausibility: float
) -> torch.Tensor:
    """The same in half the time on a CPU: few tokens are plausible, and these alone are scored."""
    row, token = (piece >= piece.amax(-1, keepdim=True) + _margin(plausibility)).nonzero(as_tuple=True)
    value = piece[row, token]
    # Logits serve as well as logarithms: what they differ by is the same for all tokens of a row.
    score = value + guidance * (value - without[beside[row], token].float())
    score = score.masked_fill(value == -math.inf, -math.inf)
    return _first_best(row, token, score, rows=len(piece))


def _first_best(row: torch.Tensor, token: torch.Tensor, score: torch.Tensor, *, rows: int) -> torch.Tensor:
    """The first of the best tokens of each row `[rows]`; token 0 of a row that has none.

    row, token, score: `[n]` each, by ascending row and token.
    """
    best = score.new_full((rows,), -math.inf).scatter_reduce(0, row, score, "amax")
    first = score == best[row]
    return token.new_zeros(rows).scatter_reduce(0, row[first], token[first], "amin", include_self=False)


def probabilities_of(logits: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """float32 probability of each token `[n]` after the row `[n]` of logits `[rows, vocabulary]`."""
    normalizer = torch.cat([piece.logsumexp(-1) for piece in _pieces(logits)])
    return (logits[rows, tokens].float() - normalizer[rows]).exp()


def end_of_sequence_ids(model: nn.Module) -> frozenset[int]:
    """The tokens that end a text: of a checkpoint's generation config, all that counts here."""
    ids = model.generation_config.eos_token_id
    return frozenset([ids] if isinstance(ids, int) else ids or [])


def input_device(model: nn.Module) -> torch.device:
    """Where token ids go. Weights that are offloaded lie nowhere; their hooks take ids from anywhere."""
    return torch.device("cpu") if model.device.type == "meta" else model.device


def _margin(plausibility: float) -> float:
    """How far below the best logit a plausible one may lie."""
    return math.log(plausibility) if plausibility else -math.inf


def _guided_scores(piece: torch.Tensor, without: torch.Tensor, guidance: float, plausibility: float) -> torch.Tensor:
    """log p + guidance · (log p − log q), up to a number per row; −infinity for tokens that are not plausible."""
    plausible = (piece >= piece.amax(-1, keepdim=True) + _margin(plausibility)) & (piece > -math.inf)
    # Logits serve as well as logarithms: what they differ by is the same for all tokens of a row.
    return torch.where(plausible, piece + guidance * (piece - without.float()), -math.inf)


def _nucleus(share: torch.Tensor, top_p: float) -> torch.Tensor:
    """The shares `[rows, vocabulary]` of the fewest most probable tokens that have `top_p` together; 0 for others."""
    ordered = share.sort(-1, descending=True).values
    least = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, math.inf).amin(-1, keepdim=True)
    return torch.where(share >= least, share, 0)


def _at(share: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
    """For each row of shares `[rows, vocabulary]` the token at which their sum passes that part of the whole."""
    sums = share.to(_exact(share)).cumsum(-1)
    whole = sums[:, -1:]
    last = (sums < whole).sum(-1)  # number · whole may be rounded to the whole
    return torch.minimum((sums <= number[:, None] * whole).sum(-1), last)


def _exact(tensor: torch.Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64  # which has no float64


def _pieces(logits: torch.Tensor) -> Iterator[torch.Tensor]:
    return (piece.float() for piece in logits.split(_rows_at_once(logits)))


def _rows_at_once(logits: torch.Tensor) -> int:
    return _ROWS_IN_CPU_CACHE if logits.device.type == "cpu" else max(1, len(logits))
