"""The names of the places in and around a decoder layer where hidden embeddings can be read and written."""

from __future__ import annotations

RESIDUAL = "residual"
ATTENTION_OUTPUT = "attention_output"
RESIDUAL_MID = "residual_mid"
MLP_INPUT = "mlp_input"
MLP_OUTPUT = "mlp_output"
LAYER_OUTPUT = "layer_output"
FINAL_NORM = "final_norm"
HOOK_POINTS = (RESIDUAL, ATTENTION_OUTPUT, RESIDUAL_MID, MLP_INPUT, MLP_OUTPUT, LAYER_OUTPUT)
"""Where hidden embeddings can be read: the residual stream at the input of a decoder layer; what its attention returns
after the output projection; the residual stream between attention and MLP, where the one follows the other; what the
MLP (or mixture of experts) is given, after the norm in front of it if there is one; what it returns; the residual
stream at the output of the layer, which of the last one is the state before the final norm. A norm or multiplier that a
layer puts behind its attention or MLP before it adds them to the residual stream (Gemma 2, OLMo 2, GLM 4; Granite) is
not applied."""
WRITING_POINTS = (*HOOK_POINTS, FINAL_NORM)
"""Where they can be written: there, and what the final norm behind the last decoder layer returns."""


def check_hook_point(hook_point: str) -> None:
    """Raise ValueError for what is not one of `HOOK_POINTS`."""
    if hook_point not in HOOK_POINTS:
        raise ValueError(f"place is {hook_point!r}: use one of {', '.join(HOOK_POINTS)}")
