"""Measures against cases worked out by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from tiny_models import available_families, tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation.engine.cell import Interpretation
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.mapping.affine import AffineMap, MappingError
from transformers.interpretation.measures import (
    Entity,
    Fact,
    Interpreter,
    Said,
    ScoredCell,
    answer_ranks,
    estimate,
    faithfulness,
    known_facts,
    last_token_states,
    lens_ranks,
    lens_shares,
    names,
    next_token_shares,
    own_layer_shares,
    recovery,
    score_cells,
    score_faithfulness,
    score_kinds,
    share_named,
    shares_among_best,
)
from transformers.interpretation.measures.identity import IDENTITY
from transformers.interpretation.models.activations import capture
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec
from transformers.interpretation.runs.source_activations import continue_greedily

TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def interpreter(model):
    prompt = InterpretationPromptSpec("short", text="ab: _ _ is").build(TOKENIZER)
    return Interpreter(model, TOKENIZER, prompt, InterpretationSettings(max_new_tokens=4), batch_size=8)


def fact(prompt="ab", answer="x", relation="r", half="tuning"):
    return Fact(relation, prompt, answer, half, paraphrase="cd")


def said(text):
    return Said(Interpretation((1,), (0.5,), (0.5,)), (text,))


def cell(answer, layer, text, other="", random=""):
    return ScoredCell(fact(answer=answer, prompt=f"of {answer}s"), layer, said(text), said(other), said(random))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("It is Paris.", True),
        ("PARIS", True),
        (" Paris\nFrance", True),
        ("Parisian", False),
        ("comparis", False),
        ("Paris_1", False),
        ("Pari s", False),
        ("«Paris»", True),
    ],
)
def test_an_answer_counts_as_a_whole_word(text, named):
    assert names("Paris", text) is named


def test_an_answer_of_several_words_or_signs_is_plain_text():
    assert names("New York", "in new york city")
    assert not names("a.c", "abc")


def test_the_bootstrap_interval_is_that_of_all_resamples():
    """Of three values there are 27 resamples: quantiles of their means can be listed."""
    values = [0.0, 1.0, 5.0]
    means = sorted(sum(drawn) / 3 for drawn in itertools.product(values, repeat=3))
    found = estimate(values, level=0.6)
    assert found.value == pytest.approx(2.0)
    assert found.n == 3
    assert found.low == pytest.approx(means[int(0.2 * 27)])
    assert found.high == pytest.approx(means[int(0.8 * 27)])


def test_the_interval_of_a_share_covers_as_often_as_it_says():
    """Of 300 samples of 40 with a share of 0.3, some 95 % have it in their interval."""
    drawn = torch.rand((300, 40), generator=torch.Generator().manual_seed(3)) < 0.3
    inside = [(found := estimate(row)).low <= 0.3 <= found.high for row in drawn.tolist()]
    assert 0.90 <= sum(inside) / 300 <= 0.99


def test_equal_values_have_no_width_and_no_values_are_an_error():
    found = estimate([True, True])
    assert (found.value, found.low, found.high) == (1, 1, 1)
    assert estimate([0, 1, 1]) == estimate([0, 1, 1])
    with pytest.raises(ValueError, match="nothing to average"):
        estimate([])


def test_guesses_are_subtracted():
    cells = [
        cell("Rome", 1, "Rome, Italy"),  # right
        cell("Oslo", 1, "Oslo", other="Oslo too"),  # a guess: another fact's vector says it too
        cell("Lima", 1, "Lima", random="is Lima"),  # a guess: a random vector says it too
        cell("Bonn", 1, "Bonnet"),  # not a whole word
    ]
    shares = share_named(cells, [1])
    assert [cell.right for cell in cells] == [True, False, False, False]
    found = [share.value for share in (shares.net, shares.named, shares.by_other, shares.by_random)]
    assert found == [1 / 4, 3 / 4, 1 / 4, 1 / 4]


def test_any_layer_takes_the_controls_of_all_these_layers():
    cells = [cell("Rome", 1, "Rome"), cell("Rome", 2, "", other="Rome"), cell("Oslo", 1, ""), cell("Oslo", 2, "Oslo")]
    assert share_named(cells, range(3)).net.value == 1 / 2
    assert share_named(cells, range(3)).named.value == 1
    assert share_named(cells, [1]).net.value == 1 / 2
    assert share_named(cells, [1, 2]).net.n == 2


def test_the_other_fact_is_of_the_same_relation_with_another_answer():
    facts = [
        fact("a1", "Rome", "capital"),
        fact("b1", "Asia", "continent"),
        fact("b2", "asia", "continent"),
        fact("b3", "East Asia", "continent"),
        fact("b4", "Europe", "continent"),
        fact("a2", "Oslo", "capital"),
    ]
    assert recovery.other_facts(facts) == [5, 4, 4, 4, 1, 0]
    with pytest.raises(ValueError, match="no other fact"):
        recovery.other_facts(facts[1:3])


def test_known_facts_are_those_whose_continuation_begins_with_the_answer(model):
    """Equal to one continuation at a time, whatever the prompts' lengths."""
    prompts = ["Hi", "Yes", "No", "abc", "Well, I"]
    texts = [
        TOKENIZER.decode(
            continue_greedily(model, TOKENIZER.encode(prompt), recovery.COMPLETION_TOKENS), skip_special_tokens=True
        )
        for prompt in prompts
    ]
    ids = [TOKENIZER.encode(prompt) for prompt in prompts]
    assert [TOKENIZER.decode(row, skip_special_tokens=True) for row in recovery.continuations(model, ids)] == texts
    facts = [fact(prompt, text.split()[0]) for prompt, text in zip(prompts, texts) if text.split()]
    assert len(facts) >= 2
    assert known_facts(model, TOKENIZER, [*facts, fact("Hi", "never")]) == facts


@pytest.mark.parametrize(
    ("text", "begins"),
    [(" Rome.", True), (" the rome", True), (' "Rome"', True), (" Romeo", False), (" in Rome", False)],
)
def test_a_completion_begins_with_the_answer(text, begins):
    assert recovery._begins("Rome", text) is begins


def test_cells_hold_their_own_and_the_others_interpretation(interpreter):
    facts = [fact("Hi", "x"), fact("No", "y"), fact("Yes", "z")]
    cells = score_cells(interpreter, facts, [0, 3, 4])
    assert [(cell.fact, cell.layer) for cell in cells] == [(one, layer) for one in facts for layer in (0, 3, 4)]
    states = last_token_states(interpreter.model, TOKENIZER, ["Hi", "No", "Yes"], [0, 3, 4])
    for index, one in enumerate(cells):
        row, column = divmod(index, 3)
        assert one.said.text == interpreter(states[row, column][None], (0, 3, 4)[column])[0].text
        assert one.by_other == cells[(row + 1) % 3 * 3 + column].said
        assert one.said.text == TOKENIZER.decode(one.said.interpretation.token_ids, skip_special_tokens=True)


def test_random_vectors_have_the_norms_of_the_states():
    states = torch.randn(2, 3, 32)
    random = recovery.random_like(states)
    assert torch.allclose(random.norm(dim=-1), states.norm(dim=-1), rtol=1e-4)
    assert torch.cosine_similarity(random, states, dim=-1).abs().max() < 0.9
    assert torch.equal(random, recovery.random_like(states))


@pytest.mark.parametrize("family", [family.model_type for family in available_families()])
def test_the_lens_after_the_last_layer_is_the_model(family):
    """There, and with the head alone where the state is after the final norm, it ranks as the model itself does."""
    model = tiny_model(family)
    ids = torch.tensor([[5, 9, 17, 30, 41]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].float()
    tokens = torch.arange(5) * 20
    expected = (logits > logits.gather(1, tokens[:, None])).sum(1)
    normed = capture(model, ids, [4], range(5))[0]
    assert torch.equal(lens_ranks(model, normed, 4, tokens), expected)


def test_the_lens_of_a_middle_layer_is_norm_and_head(model):
    ids = torch.tensor([[5, 9, 17, 30, 41]])
    states = capture(model, ids, [2], range(5))[0]
    with torch.no_grad():
        logits = model.lm_head(model.model.norm(states))
    tokens = torch.arange(5) * 20
    expected = (logits > logits.gather(1, tokens[:, None])).sum(1)
    assert torch.equal(lens_ranks(model, states, 2, tokens), expected)


def test_a_lens_comes_before_norm_and_head(model):
    ids = torch.tensor([[5, 9, 17, 30, 41]])
    states = capture(model, ids, [2], range(5))[0]
    one = AffineMap(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)), torch.ones(32))
    with torch.no_grad():
        logits = model.lm_head(model.model.norm(torch.stack([one.weight.T @ state + 1 for state in states])))
    tokens = torch.arange(5) * 20
    expected = (logits > logits.gather(1, tokens[:, None])).sum(1)
    assert torch.equal(lens_ranks(model, states, 2, tokens, one), expected)
    assert not torch.equal(lens_ranks(model, states, 2, tokens), expected)
    with pytest.raises(ValueError, match="after the final norm"):
        lens_ranks(model, states, 4, tokens, one)


def test_a_lens_is_asked_at_its_own_layers_alone(model):
    facts = [fact("Hi", "x"), fact("No", "y")]
    identity = AffineMap(torch.eye(32), torch.zeros(32))
    plain = answer_ranks(model, TOKENIZER, facts, [0, 2, 4])
    mapped = answer_ranks(model, TOKENIZER, facts, [0, 2, 4], {2: identity, 3: identity})
    assert list(mapped) == [2] and torch.equal(mapped[2], plain[2])
    assert answer_ranks(model, TOKENIZER, facts, [0], {2: identity}) == {}


def test_among_the_best_at_any_layer():
    shares = shares_among_best(torch.tensor([0, 5, 30, 9]), torch.tensor([3, 10, 0, 50]))
    assert {best: share.value for best, share in shares.items()} == {1: 2 / 4, 10: 4 / 4}
    assert shares_among_best(torch.tensor([0, 10]))[10].value == 1 / 2


def test_baselines_have_one_share_per_layer(interpreter):
    facts = [fact("Hi", "x"), fact("No", "y")]
    lens = lens_shares(interpreter.model, TOKENIZER, facts, [0, 2, 4])
    assert list(lens) == [0, 2, 4]
    assert all(shares[1].value <= shares[10].value for shares in lens.values())
    assert list(own_layer_shares(interpreter, facts, [0, 2, 4])) == [0, 2]


@pytest.mark.parametrize("insert_layers", [(2,), (1, 2)])
def test_the_next_token_is_that_of_surgery_in_generate(model, insert_layers):
    texts = ["Hi", "No", "Yes"]
    settings = InterpretationSettings(insert_layer=insert_layers)
    found = next_token_shares(model, TOKENIZER, texts, [0, 3], settings, batch_size=2)
    prompt = IDENTITY.build(TOKENIZER)
    ids = torch.tensor([prompt.input_ids])
    for layer in (0, 3):
        hits, surprisals = [], []
        for text in texts:
            source = torch.tensor([TOKENIZER.encode(text)])
            with torch.no_grad():
                own = model(input_ids=source, output_hidden_states=True)
                expected = int(own.logits[0, -1].argmax())
                state = own.hidden_states[layer][:, -1:]
                info = dict.fromkeys(insert_layers, (list(prompt.insert_locations), state))
                info |= {"replacing_mode": "normalized", "overlay_strength": 1.0}
                out = model.forward_interpret(input_ids=ids, insert_info=[info])
            probabilities = out.logits[0, -1].softmax(-1)
            hits.append(int(probabilities.argmax()) == expected)
            surprisals.append(-float(probabilities[expected].log()))
        assert found[layer].precision.value == pytest.approx(sum(hits) / 3)
        assert found[layer].surprisal.value == pytest.approx(sum(surprisals) / 3, rel=1e-3)


class Telling:
    """An interpreter that says what it is told, state by state."""

    def __init__(self, model, answers):
        self.model, self.tokenizer = model, TOKENIZER
        self._answers = iter(answers)

    def __call__(self, vectors, layer):
        return [next(self._answers) for _ in vectors]


def test_kinds_net_of_what_another_kind_is_called(model):
    entities = [
        Entity("Rome", "city", "tuning", ("city", "town")),
        Entity("Oslo", "city", "tuning", ("city", "town")),
        Entity("Peru", "country", "tuning", ("country",)),
        Entity("cat", "animal", "tuning", ("animal",)),
    ]
    texts = ["a town", "a big city in a country", "a country", "an animal of a country"]
    found = score_kinds(Telling(model, map(said, texts)), entities, [2])[2]
    assert found.named.value == 1
    assert found.by_other.value == 1 / 4  # for Peru stands the cat, "of a country"
    assert found.net.value == 3 / 4
    with pytest.raises(ValueError, match="all entities are of the kind 'city'"):
        score_kinds(Telling(model, []), entities[:2], [2])


def of_tokens(**weights):
    pieces = tuple(f" {word}" for word in weights)
    return Said(Interpretation(tuple(range(len(pieces))), (0.5,) * len(pieces), tuple(weights.values())), pieces)


def test_a_words_relevancy_is_the_highest_of_its_tokens():
    interpretation = Interpretation((1, 2, 3, 4), (0.5,) * 4, (0.1, 0.8, 0.3, 0.2))
    parts = Said(interpretation, (" New", "found", "land, a", " dog"))
    assert faithfulness.words(parts) == [("Newfoundland", 0.8), ("a", 0.3), ("dog", 0.2)]


def test_words_of_high_relevancy_come_back_with_the_paraphrase(model):
    facts = [fact("ab", "x", "capital"), fact("ef", "y", "maker")]
    says = [of_tokens(Rome=0.9, city=0.6, the=0.0), of_tokens(Apple=0.8, the=0.05)]
    paraphrased = [said("Rome is the place"), said("the pear")]
    found = score_faithfulness(Telling(model, [*says, *paraphrased]), facts, [3])[3]
    assert found.high.with_paraphrase.value == (1 / 2 + 0) / 2
    assert found.high.with_other.value == 0
    assert found.high.difference.value == 1 / 4
    assert found.high.words == 3
    assert found.low.with_paraphrase.value == found.low.with_other.value == 1
    assert found.low.difference.value == 0
    with pytest.raises(ValueError, match="all facts are of the relation 'capital'"):
        score_faithfulness(Telling(model, []), facts[:1], [3])


def test_no_word_of_a_sort_is_none(model):
    facts = [fact("ab", "x", "capital"), fact("ef", "y", "maker")]
    says = [of_tokens(Rome=0.9), of_tokens(Apple=0.8)]
    assert score_faithfulness(Telling(model, [*says, *says]), facts, [3])[3].low is None


def test_a_mapping_comes_before_the_insertion(interpreter):
    """Twice the vector by a map of its layer is twice the vector."""
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    mapped = replace(interpreter, mapping={2: lambda states: 2 * states})
    assert mapped(vectors, 2) == interpreter(2 * vectors, 2)
    with pytest.raises(MappingError, match="nothing for layer 3"):
        mapped(vectors, 3)
