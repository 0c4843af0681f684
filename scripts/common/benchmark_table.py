"""The report of `benchmark.py`, for reading."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch
import transformers

from common.benchmark_guidance import guidance_line

DTYPES = ("float32", "bfloat16")
WAYS = ("baseline", "lean", "engine")


def table(report: dict[str, Any]) -> str:
    """The report for reading; Markdown."""
    lines = [f"{report['cells']} cells, {report['rounds']} rounds, medians. {report['machine']}", ""]
    lines += ["| | " + " | ".join(DTYPES) + " |", "|---|" + "---|" * len(DTYPES)]

    def row(title: str, show: Any) -> None:
        lines.append(f"| {title} | " + " | ".join(show(report[dtype]) for dtype in DTYPES) + " |")

    for name in WAYS:
        row(f"{name}, interpretations/s", lambda found, name=name: f"{found['cells_per_second'][name]:.2f}")
    row("engine over baseline", lambda found: f"{found['speedup']:.2f}×")
    row("engine over lean", lambda found: f"{found['speedup_over_lean']:.2f}×")
    for name in WAYS:
        row(f"{name}, peak memory", lambda found, name=name: f"{found['peak_memory'][name] / 1e9:.2f} GB")
    row("memory, engine / baseline", lambda found: f"{found['memory_ratio']:.2f}")
    row("texts that differ (ties)", lambda found: f"{found['different_tokens']} ({found['different_at_ties']})")
    row("largest difference of a number", lambda found: f"{found['max_probability_difference']:.1e}")
    row("same text as float32", lambda found: f"{found.get('same_text_as_float32', 1):.0%}")
    row("the same, baseline", lambda found: f"{found.get('baseline_same_text_as_float32', 1):.0%}")
    if "recovered_answers" in report["float32"]:
        row("answers recovered", lambda found: f"{found['recovered_answers']:.0%}")
    lines.append(
        "| share of the matrix-multiply rate | "
        + " | ".join(f"{report['matmul_fraction'][dtype]:.0%}" for dtype in DTYPES) + " |"
    )  # fmt: skip
    shipped = report["as_shipped"]
    lines += [
        "",
        f"As a user gets it: engine {shipped['dtype']} over baseline float32: {shipped['speedup']:.2f}×, "
        f"{shipped['memory_ratio']:.2f} of its memory.",
    ]
    if grid := report.get("whole_grid"):
        ratios = ", ".join(
            f"{grid[name]:.2f}× {title} ({grid['memory_ratio'][name]:.2f} of the memory)"
            for name, title in [*zip(DTYPES, DTYPES), ("as_shipped", "so")]
        )
        lines.append(f"All {grid['cells']} cells of the grid, one round: engine over baseline {ratios}.")
    (small, few), (large, many) = report["flatness"].items()
    memory = report["flatness_memory"]
    lines.append(
        f"Seconds per cell: {few:.4f} at {small} cells, {many:.4f} at {large} ({many / few:.2f}×); "
        f"peak memory {memory[small] / 1e9:.2f} and {memory[large] / 1e9:.2f} GB."
    )
    lines += [guidance_line(dtype, cost) for dtype, cost in report["guidance"].items()]
    return "\n".join(lines)


def machine(threads: int) -> str:
    """One line about where the numbers come from."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        names = {key.strip(): value.strip() for key, value in lines.items()}
        flags = {"avx512f", "avx512_bf16", "amx_bf16"} & set(names.get("flags", "").split())
        cpu = f"{names.get('model name', cpu)} ({', '.join(sorted(flags)) or 'no avx512'})"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    return f"{cpu}, {threads} of {os.cpu_count()} cores; {versions}"
