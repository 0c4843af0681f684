"""What is reported about a run instead of running it: `--plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.program import REFUSED, fail

if TYPE_CHECKING:
    from transformers.interpretation.runs.estimate import WorkEstimate
    from transformers.interpretation.runs.preparation import Prepared


@dataclass(frozen=True)
class Planning:
    """What is reported about a run instead of running it."""

    wanted: bool
    rate: str | None
    devices: int | None

    def check(self) -> None:
        """Raise RequestError for an invalid rate or number of devices."""
        from transformers.interpretation.models.flops import Rate
        from transformers.interpretation.runs.preparation import RequestError

        try:
            if self.rate not in (None, "measure"):
                Rate.read(self.rate)
        except ValueError as error:
            raise RequestError([f"{error}; or write measure"]) from None
        if self.devices is not None and self.devices < 1:
            raise RequestError([f"devices is {self.devices}: it must be at least 1"])

    def report(self, prepared: Prepared) -> int:
        """Print the plan, with hours if a rate is given."""
        from transformers.interpretation.engine.batch_size import MOST_AT_ONCE
        from transformers.interpretation.models.flops import Rate
        from transformers.interpretation.models.loading import ModelError
        from transformers.interpretation.runs.throughput import measure_rate

        estimate = estimate_of(prepared, prepared.request.batch_size or MOST_AT_ONCE)
        print(*prepared.notes(), *estimate.lines(), sep="\n")
        if self.rate is not None:
            try:
                rate = measure_rate(prepared) if self.rate == "measure" else Rate.read(self.rate)
            except ModelError as error:
                return fail(error, REFUSED)
            print(estimate.duration(rate, self.devices or 1))
        return 0


def estimate_of(prepared: Prepared, batch_size: int) -> WorkEstimate:
    """What a run takes, of examples or of vectors."""
    from transformers.interpretation.runs.estimate import estimate_plan
    from transformers.interpretation.runs.estimate_vectors import estimate_vectors
    from transformers.interpretation.runs.vector_plan import VectorPlan

    plan, settings, model = prepared.plan, prepared.settings, prepared.outline.skeleton
    if isinstance(plan, VectorPlan):
        strength = prepared.vectors.strength
        return estimate_vectors(plan, settings, model, strength=strength, dtype=prepared.dtype, batch_size=batch_size)
    return estimate_plan(
        plan,
        settings,
        model,
        prepared.reader.tokenizer,
        dtype=prepared.dtype,
        batch_size=batch_size,
        source_model=prepared.source and prepared.source.skeleton,
    )
