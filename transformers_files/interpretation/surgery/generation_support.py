"""What a call of `generate` will do, and which ways of decoding cannot be carried out exactly under surgery."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any


def effective_config(model: Any, arguments: Mapping[str, Any], kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(generation config, model inputs) as `generate` makes them of its named `arguments` and its `kwargs`."""
    given = arguments.get("generation_config")
    prepare = getattr(model, "_prepare_generation_config", None)
    if prepare is None:  # 4.34
        config = copy.deepcopy(model.generation_config if given is None else given)
        return config, config.update(**kwargs)
    known = inspect.signature(prepare).parameters
    defaults = {name: arguments[name] for name in ("use_model_defaults",) if name in known and name in arguments}
    return prepare(given, **defaults, **kwargs)


def refuse_unsupported(model: Any, arguments: Mapping[str, Any], config: Any, batch_size: int) -> None:
    """Raise `ValueError`, naming the mode, for what would not equal the same decoding over a changed forward pass."""
    import transformers
    from transformers.generation import utils

    version = f"transformers {transformers.__version__}"
    if isinstance(arguments.get("custom_generate"), str):
        raise ValueError("custom_generate from a repository is not supported with insert_info; give a callable")
    mode = mode_of(model, config, arguments.get("assistant_model"))
    home = getattr(utils, "GENERATION_MODES_MAPPING", {}).get(mode, "")
    if "/" in home:
        raise ValueError(
            f"{mode.value} is not supported with insert_info on {version}, which runs it as remote code from {home}; "
            "use another decoding mode, or a version that has it built in (4.34.0 to 4.48.3)"
        )
    if (config.num_beams or 1) > 1 and batch_size > 1 and getattr(config, "low_memory", None):
        raise ValueError(
            f"{mode.value} with low_memory=True is not supported with insert_info for a batch of {batch_size} on "
            f"{version}: its sub-batches mix up the rows; leave low_memory out, or give one row at a time"
        )
    if getattr(config, "token_healing", False):
        raise ValueError(
            "token_healing is not supported with insert_info: it tokenizes the prompt again, so positions would shift"
        )
    if getattr(config, "cache_implementation", None) == "paged":
        raise ValueError(
            f"continuous batching (cache_implementation='paged') is not supported with insert_info on {version}: it "
            "runs rows in an order and a thread of its own; leave cache_implementation out"
        )


def mode_of(model: Any, config: Any, assistant_model: Any) -> Any:
    if hasattr(config, "get_generation_mode"):
        return config.get_generation_mode(assistant_model)
    return model._get_generation_mode(config, assistant_model)  # 4.34
