"""How fast this machine is at a run's own work, from a few of its chunks; nothing is written.

rate = measure_rate(prepare(request))       # loads the weights
"""

from __future__ import annotations

import time

from ..models.flops import Rate
from .preparation import Prepared
from .runner import Models

_CHUNKS = 5
_SECONDS = 60.0


def measure_rate(prepared: Prepared) -> Rate:
    """Interpretations per second over some chunks from all over the plan, for about a minute or the last one begun.

    The first warms up, and counts only if there is time for no other.
    """
    plan = prepared.plan
    models = Models.load(prepared)
    job = models.job(prepared, plan, prepared.request.batch_size)
    began = time.monotonic()
    rows, seconds = [], []
    for chunk in range(0, plan.n_chunks, -(-plan.n_chunks // _CHUNKS)):
        start = time.monotonic()
        rows.append(len(job.records(chunk)))
        seconds.append(time.monotonic() - start)
        if time.monotonic() - began > _SECONDS:
            break
    counted = slice(1, None) if len(rows) > 1 else slice(None)
    return Rate(sum(rows[counted]) / sum(seconds[counted]), operations=False)
