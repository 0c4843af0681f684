"""A few kinds of models out of the sweep in `every_model.py`, wherever the installed version has them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import every_model
import model_checks
import pytest
import torch
import transformers
from tiny_classes import tiny_instance
from transformers.interpretation.models.beginning import read_beginning
from transformers.interpretation.models.families import UnsupportedModelError
from transformers.interpretation.models.forward import next_logits
from transformers.interpretation.models.kv_cache import empty_cache, repeat_rows, select_rows
from transformers.interpretation.models.layer_inputs import check_layer_inputs
from transformers.interpretation.models.text_so_far import TextSoFar
from transformers.interpretation.surgery.hooks import plan_surgery, surgery

pytestmark = pytest.mark.filterwarnings("ignore")

RELEASE = tuple(map(int, transformers.__version__.split(".")[:2]))
KINDS = {
    "Qwen3NextForCausalLM": "equal",  # linear and full attention, experts
    "NemotronHForCausalLM": "equal",  # Mamba 2, attention, and layers that have no cache
    "FalconH1ForCausalLM": "equal",  # both in each layer
    "GlmMoeDsaForCausalLM": "equal",  # an indexer's keys beside keys and values
    "MambaForCausalLM": "equal",  # recurrent states alone
    "RecurrentGemmaForCausalLM": "equal",  # states that no cache holds
    "OpenAIGPTLMHeadModel": "equal",  # no cache at all
    "BertLMHeadModel": "equal",  # layers one level deeper
    "RobertaForCausalLM": "equal",  # positions that begin behind the padding's, but not where it generates
    "XLMRobertaXLForCausalLM": "equal",  # where it generates, too, on some versions
    "RwkvForCausalLM": "equal",  # a state of its own, and a generate of its own
    "DeepseekV4ForCausalLM": "refused",  # several residual streams
    "XLNetLMHeadModel": "refused",  # columns before rows
}
if RELEASE < (5, 23):
    KINDS["RecurrentGemmaForCausalLM"] = "refused"  # states that modules keep from one pass to the next
if (4, 57) <= RELEASE < (5, 23):
    KINDS["MambaForCausalLM"] = "refused"  # generation with a cache that does not say how many positions it has seen
HERE = [name for name in KINDS if hasattr(transformers, name)]
IDS = torch.tensor([model_checks.PROMPT])


@pytest.mark.parametrize("name", HERE)
def test_a_kind_of_model(name: str):
    with torch.no_grad():
        record = model_checks.examine(name)
    assert record["outcome"] == KINDS[name], every_model.line(record)


def only_with(name: str):
    """Versions without the class have nothing to check."""
    return lambda test: test if hasattr(transformers, name) else None


def test_a_model_that_names_no_head_is_refused():
    model = tiny_instance("LlamaForCausalLM")
    model.get_output_embeddings = lambda: None
    with pytest.raises(UnsupportedModelError, match="does not say which of its modules makes logits"):
        next_logits(model, IDS, empty_cache(model))


@only_with("RecurrentGemmaForCausalLM")
def test_a_refused_model_is_left_as_it_was():
    """On older versions a pass over two rows would be met by the next one over a single row."""
    model = tiny_instance("RecurrentGemmaForCausalLM")
    with torch.no_grad():
        quiet = model(IDS, use_cache=False).logits
        with contextlib.suppress(UnsupportedModelError):
            check_layer_inputs(model)
        torch.testing.assert_close(model(IDS, use_cache=False).logits, quiet)


@only_with("MambaForCausalLM")
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


@only_with("MambaForCausalLM")
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


@only_with("BertLMHeadModel")
def test_a_beginning_that_looks_ahead_is_not_read_alone():
    model = tiny_instance("BertLMHeadModel")
    for module in model.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
    model.config.is_decoder = False
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        beginning = read_beginning(model, model_checks.PROMPT, 8)
    assert isinstance(beginning, TextSoFar)
    assert any("slower" in str(warning.message) for warning in said)
    with torch.no_grad():
        logits, _ = next_logits(model, IDS[:, 8:].repeat(2, 1), repeat_rows(beginning, 2))
        torch.testing.assert_close(logits, model(IDS, use_cache=False).logits[:, -1].repeat(2, 1))


def test_the_tool_writes_what_it_found(tmp_path: Path):
    file = tmp_path / "records.json"
    command = [sys.executable, every_model.__file__, "LlamaForCausalLM", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["LlamaForCausalLM", "equal", "{'equal':", "1}"]
    assert json.loads(file.read_text())[0]["outcome"] == "equal"
