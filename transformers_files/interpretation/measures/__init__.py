"""How right interpretations are: measured on facts and entities with known answers.

    from transformers.interpretation.measures import Interpreter, known_facts, read_facts, score_cells, share_named

    interpreter = Interpreter(model, tokenizer, prompt, InterpretationSettings(), batch_size=64)
    cells = score_cells(interpreter, known_facts(model, tokenizer, read_facts("facts.json")), range(25))
    print(share_named(cells, range(25)).net)

`scripts/evaluate_interpretations.py` runs all of them.
"""

from __future__ import annotations

from .baselines import answer_ranks, lens_ranks, lens_shares, own_layer_shares, shares_among_best
from .echoes import Echoes, echoes_in, score_echoes
from .entities import KindShares, names_kind, score_kinds
from .faithfulness import Faithfulness, Returns, score_faithfulness
from .identity import NextToken, next_token_shares
from .interpreter import Interpreter, Said, last_token_states
from .patching import (
    Attributes,
    Question,
    Repaired,
    TwoSteps,
    questions_of,
    score_attributes,
    score_two_steps,
    two_steps_of,
)
from .persons import LearningSettings, Person, check_peft, learn_persons, read_persons
from .privileged import Answers, PrivilegedShares, read_answers, read_text
from .questions import HALVES, Entity, Fact, QuestionsError, names, of_half, read_entities, read_facts
from .recovery import ScoredCell, Shares, known_facts, score_cells, share_named
from .roundtrip import RoundTrip, RoundTripSettings, Separation, compare_scores, fit_round_trip
from .search import Candidate, Search, Trial
from .statistics import Estimate, estimate
from .trust import Step, calibrate, precision_at, separation, steps

__all__ = [
    "HALVES",
    "Answers",
    "Attributes",
    "Candidate",
    "Echoes",
    "Entity",
    "Estimate",
    "Fact",
    "Faithfulness",
    "Interpreter",
    "KindShares",
    "LearningSettings",
    "NextToken",
    "Person",
    "PrivilegedShares",
    "Question",
    "QuestionsError",
    "Repaired",
    "Returns",
    "RoundTrip",
    "RoundTripSettings",
    "Said",
    "ScoredCell",
    "Search",
    "Separation",
    "Shares",
    "Step",
    "Trial",
    "TwoSteps",
    "answer_ranks",
    "calibrate",
    "check_peft",
    "compare_scores",
    "echoes_in",
    "estimate",
    "fit_round_trip",
    "known_facts",
    "last_token_states",
    "learn_persons",
    "lens_ranks",
    "lens_shares",
    "names",
    "names_kind",
    "next_token_shares",
    "of_half",
    "own_layer_shares",
    "precision_at",
    "questions_of",
    "read_answers",
    "read_entities",
    "read_facts",
    "read_persons",
    "read_text",
    "score_attributes",
    "score_cells",
    "score_echoes",
    "score_faithfulness",
    "score_kinds",
    "score_two_steps",
    "separation",
    "share_named",
    "shares_among_best",
    "steps",
    "two_steps_of",
]
