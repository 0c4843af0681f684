"""Vectors of any origin: as `interpret_vectors` interprets them, in the queue with everything else."""

from __future__ import annotations

import pytest
from transformers.interpretation import InterpretationPromptSpec, interpret_vectors
from transformers.interpretation.report.page import cell_data
from transformers.interpretation.results.calibration import BUILT_IN_CALIBRATION

ASKED = {"interpretation_prompt": {"text": "x: _ is"}, "max_new_tokens": 3}
SPEC = InterpretationPromptSpec("custom", text="x: _ is")


@pytest.mark.parametrize(
    "options",
    [{}, {"strength": 2.5, "names": ["a", "b"]}, {"strength": "auto"}, {"samples": 2, "seed": 3}, {"guidance": 0}],
    ids=str,
)
def test_they_are_those_of_interpret_vectors(client, tiny, options):
    vectors = tiny[0].get_input_embeddings().weight[5:7].detach()
    results = interpret_vectors(*tiny, vectors, **{**ASKED, "interpretation_prompt": SPEC, **options})
    status, answer = client.post("vectors", {**ASKED, **options, "vectors": vectors.tolist()})
    assert status == 200
    assert answer["cells"] == [cell_data(record, BUILT_IN_CALIBRATION) for record in results]
    assert answer.get("samples") == ([0, 1, 0, 1] if "samples" in options else None)


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        ([[1.0, 2.0], [1.0]], "the vectors have 1, 2 numbers; give vectors of one size"),
        (
            [[1.0, 2.0]],
            "vectors are torch.float32, 1 × 2; expected floating point numbers, n × 32, or n × placeholders × 32",
        ),
        ([[]], "vectors are torch.float32, 1 × 0; expected floating point numbers, n × 32, or n × placeholders × 32"),
        ([], "vectors: List should have at least 1 item after validation, not 0"),
    ],
)
def test_others_are_refused(client, vectors, problem):
    assert client.post("vectors", {"vectors": vectors}) == (422, {"detail": problem})


def test_a_vector_that_cannot_be_inserted_says_so(client, tiny):
    status, answer = client.post("vectors", {**ASKED, "vectors": [[1e300] * 32, [0.5] * 32]})
    assert status == 200
    assert answer["cells"][0] == [None, 0, "the vector has NaN or infinity in torch.float32"]
    assert len(answer["cells"][1]) == 7


def test_too_many_are_refused_before_they_are_listed(client):
    status, answer = client.post("vectors", {"vectors": [[0.5] * 32] * 200, "samples": 10_000})
    assert status == 422 and answer["detail"].startswith("2,000,000 cells are asked for, and at most 50,000 can be")
