"""A GGUF file of a Llama-architecture model with a byte-level BPE tokenizer, in the terms of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader, ReaderTensor

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
