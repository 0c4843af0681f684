"""A few kinds of models out of the sweep in `every_model.py`, wherever the installed version has them."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import every_model
import pytest
import torch
import transformers
from tiny_classes import tiny_instance
from transformers.interpretation.models.beginning import read_beginning
from transformers.interpretation.models.families import UnsupportedModelError
from transformers.interpretation.models.forward import next_logits
from transformers.interpretation.models.kv_cache import empty_cache, repeat_rows, select_rows
from transformers.interpretation.models.text_so_far import TextSoFar
from transformers.interpretation.surgery.hooks import plan_surgery, surgery

pytestmark = pytest.mark.filterwarnings("ignore")

NEW = tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 23)
"""Older versions have caches of their own for some of these classes; there they may be refused as well."""

KINDS = {
    "Qwen3NextForCausalLM": "equal",  # linear and full attention, experts
    "NemotronHForCausalLM": "equal",  # Mamba 2, attention, and layers that have no cache
    "FalconH1ForCausalLM": "equal",  # both in each layer
    "GlmMoeDsaForCausalLM": "equal",  # an indexer's keys beside keys and values
    "MambaForCausalLM": "equal",  # recurrent states alone
    "RecurrentGemmaForCausalLM": "equal",  # states that no cache holds
    "OpenAIGPTLMHeadModel": "equal",  # no cache at all
    "BertLMHeadModel": "equal",  # layers one level deeper
    "DeepseekV4ForCausalLM": "refused",  # several residual streams
    "XLNetLMHeadModel": "refused",  # columns before rows
}
HERE = [name for name in KINDS if hasattr(transformers, name)]
IDS = torch.tensor([every_model.PROMPT])


@pytest.mark.parametrize("name", HERE)
def test_a_kind_of_model(name: str):
    with torch.no_grad():
        record = every_model.examine(name)
    assert record["outcome"] in ({KINDS[name]} if NEW else {"equal", "refused"}), every_model.line(record)


def without(name: str):
    return pytest.mark.skipif(not hasattr(transformers, name), reason=f"this version has no {name}")


@without("MambaForCausalLM")
def test_rows_of_recurrent_states_are_taken_apart_and_never_written_back():
    model = tiny_instance("MambaForCausalLM")
    if isinstance(empty_cache(model), TextSoFar):
        return  # an older version: there is nothing to take apart
    with torch.no_grad():
        _, beginning = next_logits(model, IDS[:, :10], empty_cache(model))
        first, second = IDS[:, 10:11], IDS[:, 11:12]
        expected = [
            model(torch.cat([IDS[:, :10], one], dim=1), use_cache=False).logits[:, -1] for one in (first, second)
        ]
        for _ in range(2):  # the second time finds the beginning as it was
            rows = repeat_rows(beginning, 2)
            logits, rows = next_logits(model, torch.cat([first, second]), rows)
            torch.testing.assert_close(logits, torch.cat(expected))
        logits, _ = next_logits(model, second, select_rows(rows, torch.tensor([0])))
        whole = model(torch.cat([IDS[:, :10], first, second], dim=1), use_cache=False).logits[:, -1]
        torch.testing.assert_close(logits, whole)


@without("MambaForCausalLM")
def test_recurrent_states_from_elsewhere_are_refused():
    model = tiny_instance("MambaForCausalLM")
    embedding = torch.ones(1, 1, 32)
    info = [{1: ([2], embedding), "overlay_strength": 1.0, "replacing_mode": "normalized"}]
    with torch.no_grad():
        out = model(IDS, use_cache=True)
        states = {name: out[name] for name in ("cache", "cache_params") if name in out}
        plan = plan_surgery(info, n_layers=4, hidden_size=32, batch_size=1, prompt_length=3)
        with pytest.raises(UnsupportedModelError, match="recurrent states"), surgery(model, plan):
            model(IDS[:, :3], use_cache=True, **states)


@without("BertLMHeadModel")
def test_a_beginning_that_looks_ahead_is_not_read_alone():
    model = tiny_instance("BertLMHeadModel")
    for module in model.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
    model.config.is_decoder = False
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        beginning = read_beginning(model, every_model.PROMPT, 8)
    assert isinstance(beginning, TextSoFar)
    assert any("slower" in str(warning.message) for warning in said)
    with torch.no_grad():
        logits, _ = next_logits(model, IDS[:, 8:].repeat(2, 1), repeat_rows(beginning, 2))
        torch.testing.assert_close(logits, model(IDS, use_cache=False).logits[:, -1].repeat(2, 1))


def test_the_tool_writes_what_it_found(tmp_path: Path):
    file = tmp_path / "records.json"
    command = [sys.executable, every_model.__file__, "LlamaForCausalLM", "--table", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| equal | 1 | LlamaForCausalLM |" in done.stdout
    assert json.loads(file.read_text())[0]["outcome"] == "equal"
