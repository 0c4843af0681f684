"""Round trip: how much of a vector can be had back from the words of its interpretation.

    trip = fit_round_trip(interpreter, [12, 24])
    trip.score(texts, vectors, layer=24)        # 1: every distractor is less like what the words lead back to

Words from which the vector can be told apart from others of its layer say something about it; whether they are right
is another question. The way back is a ridge regression per source layer, from the model's own mean hidden state of the
text to the vector, fitted on states of text that the model samples and on what is said about them: no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..mapping.affine import AffineMap
from ..mapping.training_text import OwnTextSettings, sample_own_text
from ..models.activations import capture
from ..models.chat_template import encode_prompt
from ..models.families import decoder_layers
from ..models.forward import input_device
from ..results.calibration import relevancy_score
from .interpreter import Interpreter, last_token_states
from .questions import Fact
from .recovery import ScoredCell
from .statistics import Estimate
from .trust import roc_area, share_right


@dataclass(frozen=True)
class RoundTripSettings:
    """How much text the way back is fitted on."""

    states: int = 320
    """Of each layer, to fit on."""
    distractors: int = 96
    """Others, which the true vector is ranked among."""
    ridge: float = 1.0
    """λ of the regression, in units of states · mean variance of a dimension."""

    def __post_init__(self) -> None:
        if min(self.states, self.distractors) < 1 or not self.ridge > 0:
            raise ValueError(f"{self}: at least one state and distractor, and a ridge above 0")


@dataclass(frozen=True, eq=False)
class RoundTrip:
    """The way back from texts, by source layer."""

    interpreter: Interpreter
    maps: dict[int, AffineMap]
    """Source layer → map from representations of texts to vectors."""
    centres: dict[int, Tensor]
    """Source layer → `[hidden]`, the mean of the states that were fitted to."""
    distractors: dict[int, Tensor]
    """Source layer → `[n, hidden]`, states of other places."""

    def score(self, texts: Sequence[str], vectors: Tensor, layer: int) -> list[float]:
        """For each vector `[n, hidden]` of a layer the share of distractors, 0 … 1, that are less like what its text
        leads back to; by the cosine, around the mean state."""
        centre, back = self.centres[layer], self.maps[layer](representations(self.interpreter, texts))
        directions = torch.nn.functional.normalize(back - centre, dim=1)

        def likeness(rows: Tensor) -> Tensor:
            return torch.nn.functional.normalize(rows.float().cpu() - centre, dim=-1)

        own = (directions * likeness(vectors)).sum(1, keepdim=True)
        others = directions @ likeness(self.distractors[layer]).T
        return ((others < own).float() + 0.5 * (others == own)).mean(1).tolist()


def fit_round_trip(
    interpreter: Interpreter, layers: Sequence[int], settings: RoundTripSettings | None = None
) -> RoundTrip:
    """The same on every call.

    layers: decoder layers, whose inputs are read.

    Raises:
        ValueError: the state after all layers is among them, or the sampled texts have too few states.
    """
    settings = settings or RoundTripSettings()
    model, tokenizer = interpreter.model, interpreter.tokenizer
    if max(layers) >= len(decoder_layers(model)):
        raise ValueError(f"a round trip is for inputs of decoder layers, 0 to {len(decoder_layers(model)) - 1}")
    spoken = sample_own_text(model, tokenizer, layers, OwnTextSettings(texts_per_opening=1))
    maps, centres, distractors = {}, {}, {}
    for layer in layers:
        states = spoken.states[layer][: settings.states + settings.distractors]
        fitted, distractors[layer] = states[settings.distractors :], states[: settings.distractors]
        if not len(fitted):
            raise ValueError(f"the sampled texts have {len(states)} states: too few for {settings}")
        texts = [said.text for said in interpreter(fitted, layer)]
        centres[layer] = fitted.float().mean(0)
        maps[layer] = ridge_map(representations(interpreter, texts), fitted.float(), settings.ridge)
    return RoundTrip(interpreter, maps, centres, distractors)


def ridge_map(inputs: Tensor, outputs: Tensor, ridge: float) -> AffineMap:
    """`[n, a]` → `[n, b]` by ridge regression around the means, in float64; ridge: see `RoundTripSettings`."""
    x, y = inputs.double(), outputs.double()
    middle, centre = x.mean(0), y.mean(0)
    x = x - middle
    penalty = ridge * len(x) * x.pow(2).mean().clamp_min(1e-12)
    weight = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (y - centre))
    return AffineMap(weight.float(), (centre - middle @ weight).float())


def representations(interpreter: Interpreter, texts: Sequence[str]) -> Tensor:
    """The mean hidden state of each text in the middle of the model, `[texts, hidden]`, float32; zeros where a text has
    no tokens."""
    model, tokenizer = interpreter.model, interpreter.tokenizer
    middle = len(decoder_layers(model)) // 2
    seen: dict[str, Tensor] = {}
    for text in dict.fromkeys(texts):
        ids = encode_prompt(tokenizer, text, raw=True) if text else []
        if ids:
            batch = torch.tensor([ids], device=input_device(model))
            seen[text] = capture(model, batch, [middle], [range(len(ids))])[0, 0].float()
        else:
            seen[text] = torch.zeros(model.get_input_embeddings().embedding_dim)
    return torch.stack([seen[text] for text in texts])


@dataclass(frozen=True)
class Separation:
    """How well a score separates right interpretations from wrong ones."""

    area: float | None
    """Under the ROC curve."""
    area_within_layers: float | None
    """The same over pairs of one source layer: the layer alone explains nothing of it."""
    precision: dict[float, Estimate]
    """Share of the best scored cells (0 … 1) → how many of them are right."""


def compare_scores(
    trip: RoundTrip, cells: Sequence[ScoredCell], coverages: Sequence[float] = (1.0, 0.5, 0.25, 0.1)
) -> dict[str, Separation]:
    """ "relevancy", which trust rests on, "round trip", and "both" (the sum of their ranks), on the same cells.

    Interpretations with an error take no part, nor those at layers that the trip was not fitted for.
    """
    kept = [cell for cell in cells if cell.layer in trip.maps and _relevancy(cell) is not None]
    relevancy = [_relevancy(cell) or 0.0 for cell in kept]
    returned = _returned(trip, kept)
    both = [a + b for a, b in zip(_ranks(relevancy), _ranks(returned))]
    right, layers = [cell.right for cell in kept], [cell.layer for cell in kept]
    found = {}
    for name, scores in {"relevancy": relevancy, "round trip": returned, "both": both}.items():
        ordered = [kept[number] for number in sorted(range(len(kept)), key=lambda number: -scores[number])]
        precision = {share: share_right(ordered[: max(1, round(share * len(ordered)))]) for share in coverages}
        found[name] = Separation(roc_area(scores, right), roc_area(scores, right, layers), precision)
    return found


def _relevancy(cell: ScoredCell) -> float | None:
    return relevancy_score(cell.said.interpretation.relevancy)


def _returned(trip: RoundTrip, cells: Sequence[ScoredCell]) -> list[float]:
    """The score of each cell's own vector, which is captured again."""
    model, tokenizer = trip.interpreter.model, trip.interpreter.tokenizer
    scores: dict[tuple[int, Fact], float] = {}
    for layer in dict.fromkeys(cell.layer for cell in cells):
        there = [cell for cell in cells if cell.layer == layer]
        vectors = last_token_states(model, tokenizer, [cell.fact.prompt for cell in there], [layer])[:, 0]
        found = trip.score([cell.said.text for cell in there], vectors, layer)
        scores |= {(layer, cell.fact): score for cell, score in zip(there, found)}
    return [scores[cell.layer, cell.fact] for cell in cells]


def _ranks(scores: Sequence[float]) -> list[float]:
    """Each score's place, ascending; equal ones share the mean of theirs."""
    return [sum(other < one for other in scores) + 0.5 * sum(other == one for other in scores) for one in scores]
