"""What tests of the main script give it, and read of it."""

from __future__ import annotations

import csv

import torch
from transformers.interpretation import AffineMap
from transformers.interpretation.translator import save_maps


def arguments(model, *more):
    return [
        *("--model", str(model), "--examples", "examples.json", "--interpretation-prompt", "short.json"),
        *("--max-new-tokens", "3", "--dtype", "float32", "--device", "cpu", *more),
    ]


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_identities(path, *layers, times=1.0):
    save_maps({layer: AffineMap(times * torch.eye(32), torch.zeros(32)) for layer in layers}, path)
