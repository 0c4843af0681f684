"""Trust: scores, calibration, and its measures of accuracy, each against a slow and obvious computation."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, replace
from fractions import Fraction

import pytest
from report_records import grid_records
from transformers.interpretation.engine.cell import Interpretation
from transformers.interpretation.interpretations import Interpretations
from transformers.interpretation.measures import (
    Fact,
    Said,
    ScoredCell,
    calibrate,
    estimate,
    precision_at,
    separation,
    steps,
)
from transformers.interpretation.measures.statistics import estimate_ratio
from transformers.interpretation.results.calibration import BUILT_IN_CALIBRATION, STEPS, Calibration, relevancy_score

CALIBRATION = Calibration((0.1, 0.4, 0.7), (0.0, 0.25, 0.5), "made up")


@pytest.mark.parametrize(
    ("relevancy", "score"),
    [
        ((0.2, 0.4, 0.9), 0.3),
        ((0.5,), 0.5),
        ((None, 0.4, 0.9), 0.4),
        ((math.nan, 0.4), 0.4),
        ((), None),
        ((None, None, 0.9), None),
    ],
)
def test_the_score_is_the_mean_relevancy_of_the_first_two_tokens(relevancy, score):
    assert relevancy_score(relevancy) == (score if score is None else pytest.approx(score))


def test_a_score_has_the_share_of_its_step():
    assert [CALIBRATION.share(score) for score in (0, 0.1, 0.39, 0.4, 0.69, 0.7, 1)] == [0, 0, 0, 0.25, 0.25, 0.5, 0.5]
    assert CALIBRATION.trust((0.3, 0.5, 0.0)) == 0.25
    assert CALIBRATION.trust(()) is None


def isotonic(values):
    """The min-max formula (Barlow et al. 1972, theorem 1.9), for values of equal weight."""
    last = len(values)
    return [
        max(
            min(Fraction(sum(values[first:end]), end - first) for end in range(at + 1, last + 1))
            for first in range(at + 1)
        )
        for at in range(last)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_fitted_steps_are_isotonic_regression(seed):
    source = random.Random(seed)
    scores = source.sample(range(1000), STEPS)  # so that every group holds one
    right = [source.random() < score / 1500 for score in scores]
    fitted = Calibration.fit([score / 1000 for score in scores], right, "")
    ordered = sorted(zip(scores, right))
    expected = isotonic([int(verdict) for _, verdict in ordered])
    assert [fitted.share(score / 1000) for score, _ in ordered] == [float(share) for share in expected]


def test_steps_rest_on_groups_and_equal_scores_stay_together():
    source = random.Random(0)
    scores = [source.randrange(30) / 30 for _ in range(400)]
    right = [source.random() < score for score in scores]
    fitted = Calibration.fit(scores, right, "")
    assert 3 < len(fitted.shares) <= STEPS
    for at, share in enumerate(fitted.shares):
        inside = [verdict for score, verdict in zip(scores, right) if fitted.share(score) == fitted.shares[at]]
        assert share == pytest.approx(sum(inside) / len(inside))
        assert len(inside) >= len(scores) // STEPS // 2
    assert Calibration.fit([0.3, 0.3, 0.3], [True, False, False], "").shares == (1 / 3,)


@pytest.mark.parametrize(
    ("scores", "shares"),
    [((), ()), ((0.1,), (0.1, 0.2)), ((0.2, 0.1), (0.1, 0.2)), ((0.1, 0.2), (0.2, 0.2)), ((0.1,), (1.5,))],
)
def test_what_is_no_staircase_is_refused(scores, shares):
    with pytest.raises(ValueError, match="calibration"):
        Calibration(scores, shares, "")


def test_nothing_to_fit_is_refused():
    with pytest.raises(ValueError, match="0 scores and 0 verdicts"):
        Calibration.fit([], [], "")
    with pytest.raises(ValueError, match="1 scores and 2 verdicts"):
        Calibration.fit([0.1], [True, False], "")


def test_a_calibration_comes_out_of_an_evaluation(tmp_path):
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps({"trust": {"calibration": asdict(CALIBRATION)}}))
    assert Calibration.read(file) == CALIBRATION
    for content in ("{}", "[]", "no JSON", '{"trust": {"calibration": {"scores": 3, "shares": 4, "source": ""}}}'):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"evaluation\.json has no calibration"):
            Calibration.read(file)


def test_records_carry_trust_and_results_keep_what_is_trusted():
    records = grid_records()
    bad = replace(records[0], status="NaN", interpretation=(), interpretation_weights=(), interpretation_prob=())
    results = Interpretations([bad, *records[1:]])
    assert bad.trust is None
    assert all(
        record.trust == BUILT_IN_CALIBRATION.share(sum(record.interpretation_weights[:2]) / 2) for record in records
    )
    shares = [record.trust for record in records[1:]]
    for least in (0.0, 0.02, 0.2):
        kept = [record for record, share in zip(records[1:], shares) if share >= least]
        assert list(results.trusted(least)) == kept
    assert 0 < len(results.trusted(0.2)) < len(results.trusted(0.02)) <= len(results.trusted(0.0)) == len(records) - 1
    own = results.trusted(0.5, CALIBRATION)
    assert list(own) == [record for record in records[1:] if sum(record.interpretation_weights[:2]) / 2 >= 0.7]


# --- how right it is ---


def scored(number, layer, relevancy, right):
    fact = Fact("relation", f"prompt {number}", "Rome", "tuning", "paraphrase")
    interpretation = Interpretation((1, 2), (0.5, 0.5), relevancy)
    words, nothing = (Said(interpretation, (text, "")) for text in ("Rome", "nothing"))
    return ScoredCell(fact, layer, words if right else nothing, nothing, nothing)


def random_cells():
    source = random.Random(1)
    cells = []
    for number in range(12):
        for layer in range(5):
            score = source.randrange(100) / 100
            cells.append(scored(number, layer, (score, score), source.random() < score * score))
    return cells


CELLS = random_cells()
BROKEN = replace(CELLS[0], said=Said(Interpretation((), (), (), "NaN"), ()))


def score_of(cell):
    return cell.said.interpretation.relevancy[0]


def test_separation_is_how_often_a_right_one_is_above_a_wrong_one():
    pairs = [(score_of(one), score_of(other)) for one in CELLS if one.right for other in CELLS if not other.right]
    expected = sum(1.0 if one > other else 0.5 if one == other else 0.0 for one, other in pairs) / len(pairs)
    assert separation([*CELLS, BROKEN]) == pytest.approx(expected) and expected > 0.6
    assert separation([cell for cell in CELLS if cell.right]) is None


@pytest.mark.parametrize("coverage", [1.0, 0.5, 0.25, 0.1, 0.001])
def test_precision_is_over_those_that_are_trusted_most(coverage):
    best = sorted(CELLS, key=lambda cell: -score_of(cell))[: max(1, round(coverage * len(CELLS)))]
    measured = precision_at([*CELLS, BROKEN], coverage)
    assert measured.value == pytest.approx(sum(cell.right for cell in best) / len(best))
    assert measured.low <= measured.value <= measured.high
    assert measured.n == len({cell.fact for cell in best})


def test_steps_show_what_was_promised_beside_what_is():
    calibration = calibrate([*CELLS, BROKEN], "these")
    found = steps(CELLS, calibration)
    assert [step.calibrated for step in found] == list(calibration.shares)
    assert sum(step.interpretations for step in found) == len(CELLS)
    for step in found:  # on the cells that it was made of
        assert step.right.value == pytest.approx(step.calibrated)
    assert [step.calibrated for step in steps(CELLS[:1], calibration)] == [calibration.share(score_of(CELLS[0]))]


def test_the_interval_of_a_ratio_is_over_facts():
    parts, wholes = [3, 0, 1, 4, 0, 2], [4, 1, 3, 4, 5, 2]
    measured = estimate_ratio(parts, wholes)
    assert measured.value == pytest.approx(10 / 19)
    source = random.Random(0)
    drawn = sorted(
        sum(parts[at] for at in chosen) / sum(wholes[at] for at in chosen)
        for chosen in ([source.randrange(6) for _ in range(6)] for _ in range(20_000))
    )
    assert measured.low == pytest.approx(drawn[500], abs=0.03)
    assert measured.high == pytest.approx(drawn[19_500], abs=0.03)
    assert estimate_ratio(parts, [1] * 6) == estimate(parts)
    with pytest.raises(ValueError, match="nothing to average"):
        estimate_ratio([], [])
