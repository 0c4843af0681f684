"""A folder with a tiny random model and its byte tokenizer, as `from_pretrained` takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers import PreTrainedModel
from transformers.interpretation.runs.request import RunRequest

SHORT_PROMPT = {"name": "short", "text": "ab: _ _ is"}
"""An interpretation prompt, as a JSON file has it."""


def write_tiny_folder(folder: Path, *, weights: bool = True, model: PreTrainedModel | None = None) -> Path:
    """By default Llama, 4 layers, hidden size 32. Without weights, nothing but checks can succeed."""
    model = model or tiny_model(vocab_size=VOCABULARY)
    if weights:
        model.save_pretrained(folder, safe_serialization=True)
    else:
        model.config.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def short_run(folder: Path, outputs: Path, examples: object, /, **options: Any) -> RunRequest:
    """A request for few float32 tokens from the model in `folder`; whatever it writes lies in `outputs`."""
    given = {
        "model": str(folder),
        "examples": write_json(outputs / "examples.json", examples),
        "output": outputs / "out.parquet",
        "interpretation_prompts": (str(write_json(outputs / "short.json", SHORT_PROMPT)),),
        "max_new_tokens": 3,
        "batch_size": 5,
        "dtype": "float32",
        "device": "cpu",
    }
    return RunRequest(**given | options)
