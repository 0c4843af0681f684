"""Insertion within layers and behind the last one the slow and obvious way: hooks set by hand on the very modules."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

import torch
from reference import replaced

MODULES = {  # of the parts of a layer, where they are not called self_attn and mlp
    "gpt2": ("attn", "mlp", "mlp"),
    "gpt_bigcode": ("attn", "mlp", "mlp"),
    "gptj": ("attn", "mlp", "mlp"),
    "codegen": ("attn", "mlp", "mlp"),
    "gpt_neox": ("attention", "mlp", "mlp"),
    "falcon": ("self_attention", "mlp", "mlp"),
    "bloom": ("self_attention.dense", "mlp", "mlp.dense_4h_to_h"),
    "opt": ("self_attn", "fc1", "fc2"),
}
WITHIN = ("attention_output", "mlp_input", "mlp_output")


def vectors(n, seed=0):
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))


def parts(model, layer):
    """The modules of the places of a layer, and whether the place is their input."""
    kind = model.config.model_type
    block = next(m for n, m in model.named_modules() if n.split(".")[-1] in ("layers", "h") and len(m) == 4)[layer]
    default = ("self_attn", "block_sparse_moe", "block_sparse_moe") if hasattr(block, "block_sparse_moe") else None
    names = MODULES.get(kind, default or ("self_attn", "mlp", "mlp"))
    found = dict(zip(WITHIN, zip(map(block.get_submodule, names), (False, True, False))))
    norm = getattr(getattr(model, "model", None), "norm", None)
    return found | {"layer_output": (block, False), "final_norm": (norm, False)}


def rewritten(hidden, info, site, before, prompt_length, columns):
    """One row, one column at a time; hidden: [rows, columns, hidden], or both in one dimension."""
    states = hidden.clone().reshape(-1, columns, hidden.shape[-1])
    for row in range(len(states)):
        own = info[row * len(info) // len(states)]
        locations, embedding = own.get(site, ([], None))
        for i, location in enumerate(locations):
            for column in range(columns):
                at = before + column
                meant = at >= prompt_length if location == "generated" else at == location % prompt_length
                if meant:
                    new = replaced(states[row, column], embedding[i], own["replacing_mode"], own["overlay_strength"])
                    states[row, column] = new
    return states.reshape(hidden.shape)


@contextmanager
def by_hand(model, info, prompt_length=7):
    """Hooks on the modules of all places within layers that `info` names; without a cache."""
    columns = []

    def note(_, args, kwargs):
        columns[:] = [(args[0] if args else kwargs["input_ids"]).shape[1]]

    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(note, with_kwargs=True).remove)
        for site in {key for own in info for key in own if isinstance(key, tuple)}:
            module, is_input = parts(model, site[1])[site[0]]

            def before(_, args, kwargs, site=site):
                name = None if args else next(iter(kwargs))
                made = rewritten(args[0] if args else kwargs[name], info, site, 0, prompt_length, columns[0])
                return ((made, *args[1:]), kwargs) if args else (args, kwargs | {name: made})

            def after(_, args, output, site=site):
                hidden = output[0] if isinstance(output, tuple) else output
                made = rewritten(hidden, info, site, 0, prompt_length, columns[0])
                return (made, *output[1:]) if isinstance(output, tuple) else made

            if is_input:
                stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            else:
                stack.callback(module.register_forward_hook(after).remove)
        yield
