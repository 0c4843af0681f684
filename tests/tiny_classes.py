"""A tiny random model of any causal class that the installed library lists, from its default configuration.

    model = tiny_instance("Qwen3NextForCausalLM")

Every size of the default configuration is shrunk by rules over names of settings, nested configurations too; what a
class needs beyond them stands in `BY_HAND`. Only what the default configuration has is given to the constructor, so
that everything derived (types of layers, head sizes) is derived by the library.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from torch import nn

VOCABULARY = 96
LAYERS = 4

_NAMES_OF_SIZES: tuple[tuple[int, str], ...] = (
    (
        32,
        "hidden_size d_model n_embd embed_dim word_embed_proj_dim embedding_dim embedding_size emb_dim dim "
        "hidden_size_global lru_width out_hidden_size hidden_dim input_embedding_size output_embedding_size "
        "vision_output_dim projector_input_dim projector_output_dim embed_size decoder_hidden_size "
        "ple_embed_dim output_dim input_dim adapter_in_dim adapter_out_dim adapter_input_size "
        "downsample_hidden_size",
    ),
    (
        LAYERS,
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers depth num_decoder_layers "
        "num_encoder_layers num_blocks conf_num_hidden_layers",
    ),
    (
        4,
        "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads "
        "attention_heads num_encoder_attention_heads num_decoder_attention_heads swa_num_attention_heads "
        "linear_num_heads linear_num_value_heads index_n_heads conf_num_attention_heads num_experts "
        "n_routed_experts num_local_experts moe_num_experts num_global_layers hc_lowrank zero_expert_num "
        "index_topk_blocks heads_per_ngram n_hash_layers loop_gate_rank rel_extent mamba_d_state "
        "time_step_rank mamba_dt_rank index_block_size",
    ),
    (
        2,
        "num_key_value_heads num_kv_heads num_query_groups linear_num_key_heads swa_num_key_value_heads "
        "num_experts_per_tok num_experts_per_token moe_topk moe_top_k moe_k top_k_experts num_attn_heads_kv "
        "o_groups num_quantizers num_residual_layers encoder_hash_byte_group_nb_functions split_ngram_parts "
        "n_layers_per_attn_res_block num_kv_shared_layers global_attn_every_n_layers layer_group_size "
        "full_attention_interval attn_layer_period expert_layer_period num_mem_blocks n_input_layers "
        "n_recurrent_layers n_output_layers num_layers_per_stack H_cycles L_cycles max_window_layers "
        "make_ngram_vocab_size_divisible_by num_global_key_value_heads",
    ),
    (
        1,
        "n_group topk_group num_expert_group n_shared_experts moe_num_shared_experts attn_layer_offset "
        "expert_layer_offset first_k_dense_replace num_dense_layers num_shared_experts",
    ),
    (
        8,
        "head_dim v_head_dim qk_nope_head_dim qk_rope_head_dim kv_channels d_kv dim_head index_head_dim "
        "linear_key_head_dim linear_value_head_dim linear_head_dim swa_head_dim mamba_d_head "
        "attention_head_size d_head mamba_head_dim ssm_state_size state_size hidden_size_per_layer_input "
        "laurel_rank sliding_window sliding_window_size attention_window_size keep_window_size "
        "attention_chunk_size swa_v_head_dim global_head_dim chunk_size mamba_chunk_size gated_norm_rank "
        "codebook_size codebook_dim adapter_rank router_hidden_size local_attention rotary_dim mamba_n_heads "
        "index_topk d_rel",
    ),
    (
        16,
        "q_lora_rank kv_lora_rank o_lora_rank moe_intermediate_size shared_expert_intermediate_size "
        "dim_model_base image_size attention_head_dim",
    ),
    (
        64,
        "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size d_ff dim_ff dff n_inner "
        "d_inner shared_intermediate_size intermediate_size_mlp dense_intermediate_size "
        "expert_ffn_hidden_size feed_forward_size moe_shared_expert_intermediate_size attention_hidden_size "
        "mlp_dim mamba_d_ssm block_multiple_of block_ffn",
    ),
    (
        VOCABULARY,
        "vocab_size decoder_vocab_size audio_vocab_size vocab_size_per_layer_input "
        "encoder_hash_byte_group_vocab unpadded_vocab_size ngram_vocab_size_base pronunciation_vocab_size "
        "shape_vocab_size",
    ),
    (
        128,
        "max_position_embeddings n_positions n_ctx max_seq_len model_max_length context_length "
        "original_max_position_embeddings",
    ),
)

SIZES: dict[str, int] = {name: size for size, names in _NAMES_OF_SIZES for name in names.split()}

RANDOM_SPREAD = {"initializer_range": 0.1, "init_std": 0.1, "embedding_initializer_range": 0.5}
"""Larger than the libraries' own, so that what a layer is given matters to what the model says."""

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
BY_HAND: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "bamba": {"attn_layer_indices": [1, 3]},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0}},
    "deepseek_v2": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "dory": {"num_hidden_layers": 6},
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "dots3_note_vision_encoder": {"mlp_layer_types": ["dense"] * 4},
    "gemma3n_text": {"intermediate_size": 64, "num_kv_shared_layers": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "hrm_text": {"num_hidden_layers": 12},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 4,
        "indexer_compress_ratio": 2,
    },
    "reformer": {"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 16)},
    "rwkv": {"attention_hidden_size": 32},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 6, "layers_block_type": ["mamba", "mamba", "hybrid"] * 2},
    "zamba2": {"num_hidden_layers": 6, "layers_block_type": ["mamba", "mamba", "hybrid"] * 2},
}
"""By model type: settings beyond the rules."""

MAJOR = int(transformers.__version__.split(".")[0])
if MAJOR < 5:
    BY_HAND["granitemoehybrid"] = {"layer_types": ["mamba", "attention"] * 2}
    for model_type in ("jamba", "zamba"):
        BY_HAND.setdefault(model_type, {})["use_mamba_kernels"] = False  # those need a GPU


def tiny_config(config_class: type) -> Any:
    """A configuration of this class that makes a tiny model."""
    return config_class(**_shrunk(config_class))


def tiny_instance(class_name: str, *, seed: int = 0) -> nn.Module:
    """A model of this class of the installed library, with random weights, in float32 and evaluation mode."""
    cls = getattr(transformers, class_name)
    config = tiny_config(cls.config_class)
    config.is_decoder = True
    torch.manual_seed(seed)
    return cls(config).float().eval()


def _shrunk(config_class: type) -> dict[str, Any]:
    """What to give to the constructor of a configuration class."""
    default = config_class()
    taken = _fields(default)
    nested = {name: _shrunk(type(value)) for name, value in taken.items() if hasattr(value, "model_type")}
    plain = {name: _size(name, value) for name, value in taken.items() if name not in nested}
    changed = {name: size for name, size in plain.items() if size is not None}
    if taken.get("num_key_value_heads") == taken.get("num_attention_heads"):
        changed.pop("num_key_value_heads", None)
        if isinstance(taken.get("num_key_value_heads"), int):
            changed["num_key_value_heads"] = SIZES["num_attention_heads"]
    return {**nested, **changed, **BY_HAND.get(default.model_type, {})}


def _fields(config: Any) -> dict[str, Any]:
    """The settings of a configuration, derived ones too; a nested configuration as it is."""
    names = {**vars(config), **dict.fromkeys(inspect.signature(type(config).__init__).parameters)}
    found = {}
    for name in names:
        if name.startswith("_") or name in ("self", "kwargs"):
            continue
        try:
            found[name] = getattr(config, name)
        except Exception:  # settings that differ from layer to layer refuse to be read as one
            continue
    return found


def _size(name: str, value: Any) -> Any:
    """The tiny value of a setting; None where it keeps its default."""
    if name in RANDOM_SPREAD and isinstance(value, float):
        return RANDOM_SPREAD[name]
    if name.endswith(("token_id", "token_index", "_index")) and isinstance(value, int) and value >= VOCABULARY:
        return VOCABULARY - 1 - sum(map(ord, name)) % 16
    if name.endswith("token_id") and isinstance(value, (list, tuple)):
        return VOCABULARY - 1
    if name in SIZES and isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return SIZES[name] if SIZES[name] == LAYERS else min(value, SIZES[name])
    return None
