"""Whether what a feature is called fits it, with no outside judge: two scores, each with controls.

- *Detection*: does the label tell the texts that activate the feature from others? A text is judged by how much more
  probable the model finds it behind the label, per token: log p(text | label) − log p(text | no label). The score is
  the share of (activating, silent) pairs in which the activating one is judged higher.
- *Generation*: the model writes texts for the label. The score is the share of pairs in which a text for this label
  activates the feature more than a text for another feature's label.

Half of the pairs are what a label that says nothing gets. Controls: the same label with another feature's contexts and
activations ("shuffled"), and a word that no feature is called by ("random").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from ..measures.recovery import continuations
from ..measures.statistics import Estimate, estimate
from ..measures.trust import roc_area
from ..models.activations import capture
from ..models.chat_template import encode_prompt
from ..models.forward import input_device
from ..models.places import RESIDUAL
from ..models.token_text import text_of
from ..models.tokenizer import Tokenizer
from .contexts import Activations, Context, Contexts

WRITTEN = (
    "Here is a sentence about {}:",
    "An example of {} in a text:",
    'Question: What is "{}"?\nAnswer:',
    "The following text is about {}.\n\n",
)
"""What a text for a label begins with; the model goes on by its best tokens."""
WRITTEN_TOKENS = 24
RANDOM_LABELS = (
    *("a wooden chair", "the number seven", "a rainy morning", "old coins", "a long journey", "green paint"),
    *("a quiet library", "the price of bread", "a broken window", "early spring", "a tall fence", "warm soup"),
)
"""What no feature is called by intention."""


@dataclass(frozen=True)
class LabelScore:
    """Of one feature; shares of pairs, None where there are none."""

    index: int
    label: str
    detection: float | None
    detection_shuffled: float | None
    detection_random: float | None
    generation: float | None
    generation_shuffled: float | None
    generation_random: float | None

    def moved(self, by: int) -> LabelScore:
        """The same of the feature so many further on."""
        return replace(self, index=self.index + by)

    @property
    def score(self) -> float:
        """The mean of both; what there is not counts as chance."""
        given = (0.5 if one is None else one for one in (self.detection, self.generation))
        return sum(given) / 2


@torch.no_grad()
def score_labels(
    model: nn.Module,
    tokenizer: Tokenizer,
    labels: Mapping[int, str],
    contexts: Contexts,
    activations: Activations,
    *,
    layer: int,
    place: str = RESIDUAL,
    on_label: Callable[[int], None] = lambda number: None,
) -> list[LabelScore]:
    """Scores of the labels of at least three features, in their order.

    contexts, activations, layer, place: as `contexts.top_contexts` gives and takes them.

    Raises ValueError for fewer labels, and for a feature that there is not.
    """
    indices = list(labels)
    if len(indices) < 3:
        raise ValueError(f"{len(indices)} labels: three at least, since each is compared with others")
    if not 0 <= min(indices) <= max(indices) < len(contexts.best):
        raise ValueError(
            f"labels of features {min(indices)} to {max(indices)}; there are 0 to {len(contexts.best) - 1}"
        )
    randoms = {index: RANDOM_LABELS[number % len(RANDOM_LABELS)] for number, index in enumerate(indices)}
    texts = list(dict.fromkeys((*labels.values(), *randoms.values())))
    written = _peaks(model, tokenizer, texts, activations, layer, place)
    judge, found = Judge(model, tokenizer), []
    for number, index in enumerate(indices):
        other = indices[(number + len(indices) // 2) % len(indices)]
        label = labels[index]
        others = [written[labels[one]] for one in indices if labels[one] != label]
        found.append(
            LabelScore(
                index,
                label,
                _detection(judge, label, contexts, index),
                _detection(judge, label, contexts, other),
                _detection(judge, randoms[index], contexts, index),
                _generation(written[label], others, index),
                _generation(written[label], others, other),
                _generation(written[randoms[index]], others, index),
            )
        )
        on_label(number)
    return found


def means(scores: Sequence[LabelScore]) -> dict[str, Estimate]:
    """Of each kind of score, over the features that have it."""
    kinds = [one.name for one in fields(LabelScore) if one.name not in ("index", "label")]
    given = {kind: [value for one in scores if (value := getattr(one, kind)) is not None] for kind in kinds}
    return {kind: estimate(values) for kind, values in given.items() if values}


def _detection(judge: Judge, label: str, contexts: Contexts, feature: int) -> float | None:
    active = contexts.best[feature]
    silent = contexts.inactive(feature, max(1, len(active)))
    judged = judge.likeness(label, (*active, *silent))
    return roc_area(judged, [True] * len(active) + [False] * len(silent))


class Judge:
    """The model as the judge of texts: how much more probable a label makes them."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._bare: dict[tuple[int, ...], float] = {}
        """Of texts behind no label, which are judged again and again."""

    def likeness(self, label: str, contexts: Sequence[Context]) -> list[float]:
        """Of each text, in nats per token."""
        texts = [context.token_ids for context in contexts]
        if new := [ids for ids in dict.fromkeys(texts) if ids not in self._bare]:
            self._bare |= zip(new, self._log_probabilities("", new))
        behind = self._log_probabilities(label, texts) if texts else []
        return [(with_label - self._bare[ids]) / len(ids) for with_label, ids in zip(behind, texts)]

    @torch.no_grad()
    def _log_probabilities(self, label: str, texts: Sequence[tuple[int, ...]]) -> list[float]:
        """Shorter texts are filled up behind, which nothing before can see."""
        prompt = encode_prompt(self._tokenizer, f"{label}:", raw=True)
        longest, device = max(map(len, texts)), input_device(self._model)
        rows = torch.tensor([[*prompt, *ids, *[0] * (longest - len(ids))] for ids in texts], device=device)
        logits = self._model(input_ids=rows, use_cache=False, return_dict=True).logits[:, len(prompt) - 1 : -1]
        shares = logits.float().log_softmax(-1).gather(2, rows[:, len(prompt) :, None])[..., 0]
        return [float(row[: len(ids)].sum()) for row, ids in zip(shares, texts)]


def _peaks(
    model: nn.Module, tokenizer: Tokenizer, labels: Sequence[str], activations: Activations, layer: int, place: str
) -> dict[str, Tensor]:
    """By label the largest activations `[texts, features]` within each text that the model writes for it."""
    prompts = [encode_prompt(tokenizer, opening.format(label), raw=True) for label in labels for opening in WRITTEN]
    texts = continuations(model, prompts, WRITTEN_TOKENS)
    # Read by themselves: behind the label the model would still think of it.
    bare = [encode_prompt(tokenizer, text_of(tokenizer, ids).strip() or ".", raw=True) for ids in texts]
    peaks = torch.stack(
        [
            activations(capture(model, torch.tensor([ids]), [layer], _behind_the_first(ids), place)[0].float()).amax(0)
            for ids in bare
        ]
    )
    return dict(zip(labels, peaks.split(len(WRITTEN))))


def _behind_the_first(ids: Sequence[int]) -> list[int]:
    return list(range(1, len(ids))) if len(ids) > 1 else [0]


def _generation(own: Tensor, others: Sequence[Tensor], feature: int) -> float | None:
    """own, others: peaks `[texts, features]` of this label's texts and of other labels'."""
    peaks = [*own[:, feature].tolist(), *(value for one in others for value in one[:, feature].tolist())]
    return roc_area(peaks, [True] * len(own) + [False] * (len(peaks) - len(own)))
