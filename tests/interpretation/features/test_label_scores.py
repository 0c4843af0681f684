"""Scores of labels against loops, on a tiny model; and that a right label gets a better one, on a real one."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.features.contexts import Context, top_contexts
from transformers.interpretation.features.label_scores import (
    WRITTEN,
    WRITTEN_TOKENS,
    Judge,
    LabelScore,
    means,
    score_labels,
)
from transformers.interpretation.features.table import (
    ShownContext,
    read_contexts,
    read_scores,
    write_contexts,
    write_scores,
)
from transformers.interpretation.report.features import write_features_page

TOKENIZER = tiny_tokenizer()
LAYER = 2


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def encode(states):
    return states @ torch.randn(4, 32, generator=torch.Generator().manual_seed(5)).T


def found(model):
    texts = ["abc def", "xyz", "hello there", "some words", "more of them", "and others"]
    return top_contexts(model, TOKENIZER, texts, encode, layer=LAYER, k=2)


def wins(good, bad):
    pairs = [(a > b) + 0.5 * (a == b) for a in good for b in bad]
    return sum(pairs) / len(pairs) if pairs else None


@torch.no_grad()
def test_likeness_is_what_the_label_adds_to_each_token(model):
    context = found(model).best[0][0]

    def log_probability(prompt):
        ids = [*TOKENIZER.encode(prompt, add_special_tokens=False), *context.token_ids]
        shares = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        first = len(ids) - len(context.token_ids)
        return sum(float(shares[place - 1, ids[place]]) for place in range(first, len(ids)))

    expected = (log_probability("a dog:") - log_probability(":")) / len(context.token_ids)
    assert Judge(model, TOKENIZER).likeness("a dog", [context])[0] == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_scores_against_loops(model):
    labels = {0: "a dog", 2: "a cat", 3: "rain"}
    contexts = found(model)
    scores = score_labels(model, TOKENIZER, labels, contexts, encode, layer=LAYER)
    assert [(one.index, one.label) for one in scores] == list(labels.items())

    def peaks(label, feature):
        values = []
        for opening in WRITTEN:
            ids = TOKENIZER.encode(opening.format(label), add_special_tokens=False)
            out = model.generate(torch.tensor([ids]), max_new_tokens=WRITTEN_TOKENS, do_sample=False)[0, len(ids) :]
            text = TOKENIZER.decode(out, skip_special_tokens=True).strip() or "."
            bare = TOKENIZER.encode(text, add_special_tokens=False)
            states = model(torch.tensor([bare]), output_hidden_states=True).hidden_states[LAYER][0]
            values.append(float(encode(states[1:] if len(bare) > 1 else states)[:, feature].max()))
        return values

    judge = Judge(model, TOKENIZER)
    for number, (feature, label) in enumerate(labels.items()):
        others = [value for other in labels.values() if other != label for value in peaks(other, feature)]
        assert scores[number].generation == pytest.approx(wins(peaks(label, feature), others))
        active = [judge.likeness(label, [one])[0] for one in contexts.best[feature]]
        silent = [judge.likeness(label, [one])[0] for one in contexts.inactive(feature, len(active))]
        expected = wins(active, silent)
        assert scores[number].detection == (expected if expected is None else pytest.approx(expected))
    other = list(labels)[1]  # of the first, half the labels on
    shuffled = [value for label in ("a cat", "rain") for value in peaks(label, other)]
    assert scores[0].generation_shuffled == pytest.approx(wins(peaks("a dog", other), shuffled))


def test_a_label_of_its_own_sort_is_better_on_a_real_model(embedded_model, embedded_tokenizer):
    """Detection alone: texts about food behind "food" and behind "planets"."""
    food = "The soup was hot and the bread was fresh."
    sky = "Saturn and Jupiter are larger than the Earth."
    texts = {text: tuple(embedded_tokenizer.encode(text)) for text in (food, sky)}
    judge = Judge(embedded_model, embedded_tokenizer)

    def judged(label, text):
        return judge.likeness(label, [Context(1.0, texts[text], 0)])[0]

    assert judged("cooking and food", food) - judged("cooking and food", sky) > 0.1
    assert judged("planets of the sun", sky) - judged("planets of the sun", food) > 0.1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({0: "a", 1: "b"}, "2 labels: three at least"),
        ({0: "a", 1: "b", 9: "c"}, "labels of features 0 to 9; there are 0 to 3"),
    ],
)
def test_what_cannot_be_scored(model, labels, message):
    with pytest.raises(ValueError, match=message):
        score_labels(model, TOKENIZER, labels, found(model), encode, layer=LAYER)


SCORES = [
    LabelScore(3, 'a "dog", <b>', 0.5, 0.25, None, 1.0, 0.125, 0.75),
    LabelScore(4, "rain", None, None, None, 0.25, 0.5, 0.5),
]


def test_files_give_back_what_was_written(tmp_path):
    write_scores(tmp_path / "scores.csv", SCORES)
    assert read_scores(tmp_path / "scores.csv") == SCORES
    contexts = {3: (ShownContext(1.5, ("a", " dog"), 1),), 4: ()}
    write_contexts(tmp_path / "contexts.jsonl", contexts.items())
    assert read_contexts(tmp_path / "contexts.jsonl") == contexts
    assert means(SCORES)["generation"].value == pytest.approx(0.625)
    assert "detection_random" not in means(SCORES)


def test_the_page_shows_the_best_first_and_hostile_texts_as_text(tmp_path):
    contexts = {4: [ShownContext(1.0, ("<script>", "alert", "(1)"), 1)]}
    write_features_page(tmp_path / "page.html", SCORES, contexts, [f"feature {n}" for n in range(9)], first=100)
    content = (tmp_path / "page.html").read_text()
    assert content.index("a &#34;dog&#34;, &lt;b&gt;") < content.index("feature 4: rain")
    assert "&lt;script&gt;<mark>alert</mark>(1)" in content
    assert "<script" not in content and 'id="feature-103"' in content
    assert "no text of the corpus activates it" in content
