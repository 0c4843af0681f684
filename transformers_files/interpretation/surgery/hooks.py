"""Surgery on hidden embeddings while a model runs.

    plan = plan_surgery(insert_info, n_layers=..., hidden_size=..., batch_size=..., prompt_length=...)
    with surgery(model, plan):
        model(input_ids)            # or model.generate(input_ids, ...)

Nothing stays behind: the hooks are gone after success, error and interrupt. Surgery that was planned and never took
place is an error when the context ends.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from ..models.families import UnsupportedModelError, decoder, decoder_layers
from ..models.hook_points import check_writable, hook_at
from ..models.kv_cache import NAMES, cache_in, cached_length, is_unused, says_length
from ..models.layer_inputs import check_layer_inputs, check_runs_once
from ..models.places import FINAL_NORM, RESIDUAL_MID
from .insert_info import LayerInsertion, SurgeryPlan, plan_surgery
from .keys import Site, called, layer_at, place_of
from .writing import write

__all__ = ["LayerInsertion", "SurgeryPlan", "plan_surgery", "surgery", "surgery_disabled"]

RECURRENT_STATES = ("cache_params", "state", "mems")

_SURGERY_DISABLED: ContextVar[bool] = ContextVar("surgery_disabled", default=False)


@contextmanager
def surgery(model: nn.Module, plan: SurgeryPlan) -> Iterator[None]:
    """Carry out `plan` in every pass of `model` that this thread runs inside the context.

    Raises `ValueError` for a layer that the model does not have, `UnsupportedModelError` for a model whose layers are
    not given one embedding per token, and `RuntimeError` when the context ends without an
    exception and a planned insertion never took place.
    """
    owner, layers = decoder(model), decoder_layers(model)
    deepest = max(map(layer_at, plan.layers))
    if deepest >= len(layers):
        raise ValueError(f"layer {deepest} is out of range; the model has layers 0 to {len(layers) - 1}")
    check_layer_inputs(model)
    check_runs_once(model, set(map(layer_at, plan.layers)))
    for site in plan.layers:
        check_writable(model, [layer_at(site)], place_of(site))  # before hooks are set: it may take passes of its own
    operation = _Operation(plan)
    with ExitStack() as stack:
        stack.callback(operation.end)
        stack.enter_context(_uncompiled())
        stack.enter_context(_without_checkpointing(model))
        stack.callback(owner.register_forward_pre_hook(operation.start, with_kwargs=True).remove)
        stack.callback(owner.register_forward_hook(operation.finish).remove)
        for site in plan.layers:
            if place_of(site) != FINAL_NORM:  # which `finish` sees, by whatever name the module goes
                stack.enter_context(hook_at(model, layer_at(site), place_of(site), operation.at_site(site)))
        yield
    operation.check_complete()


@contextmanager
def surgery_disabled() -> Iterator[None]:
    """Passes that this thread runs inside the context see no surgery."""
    token = _SURGERY_DISABLED.set(True)
    try:
        yield
    finally:
        _SURGERY_DISABLED.reset(token)


class _Operation:
    """The state of one surgery: where the pass in hand begins, what it replaced, what is still to be done."""

    def __init__(self, plan: SurgeryPlan) -> None:
        self.plan = plan
        self.thread: int | None = threading.get_ident()
        self.pending = {site: ~at.onward for site, at in plan.layers.items()}  # a text may end before it begins
        self.offset: int | None = None
        self.width = 0  # columns of the pass in hand, where its arguments tell
        self.met: set[Site] = set()  # in the pass in hand
        self.columns = self.columns_before = 0  # of passes without a cache
        self.columns_read = 0  # by passes that went on from recurrent states
        self.replaced: list[tuple[Tensor, Tensor]] = []

    def active(self) -> bool:
        return threading.get_ident() == self.thread and not _SURGERY_DISABLED.get()

    def end(self) -> None:
        """A hook that an interrupt left on the model does nothing any more."""
        self.thread = None

    def start(self, module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        """Before the decoder: note where its chunk begins, once, since its first layer already extends the cache.

        Another thread that runs the model while the hook is removed may call it without the keywords.
        """
        if self.active() and kwargs is not None:
            given = _named(module, args, kwargs)
            self.offset, self.width = self.begin(module, given), _columns(given)
            self.columns_before = max(self.columns_before, self.columns)
            self.replaced.clear()
            self.met.clear()

    def begin(self, module: nn.Module, given: dict[str, Any]) -> int | None:
        """Absolute column of the first position of the pass in hand; None where nothing tells.

        Recurrent states do not say how many positions they have seen, so that the columns of passes are counted, from
        the one that began with none.
        """
        state = _recurrent_state(given)
        if state is None:
            self.columns_read = _columns(given)
            return _offset(given)
        self.columns_read = 0 if is_unused(state) else self.columns_read or self.plan.cached_length
        if self.columns_read == 0 and not is_unused(state):
            raise UnsupportedModelError(
                f"{type(module).__name__} continues from recurrent states ({type(state).__name__}), which do not say "
                "how many positions they hold; give the whole text without them, or use_cache=False"
            )
        offset, self.columns_read = self.columns_read, self.columns_read + _columns(given)
        return offset

    def at_site(self, site: Site) -> Callable[[Tensor], Tensor | None]:
        """What happens at one site."""
        return lambda hidden: self.operate(site, hidden) if self.active() else None

    def operate(self, site: Site, hidden: Tensor) -> Tensor:
        """The hidden states [rows, columns, hidden] of this pass after the surgery at a site.

        OPT's MLP has rows and columns in one dimension, [rows · columns, hidden].
        """
        at = self.plan.layers[site]
        if not isinstance(site, int):
            self.check_place(site, hidden, at)
        states = hidden if hidden.ndim == 3 else hidden.view(-1, self.width, hidden.shape[-1])
        copies, rest = divmod(states.shape[0], self.plan.batch_size)
        if rest or not copies:
            raise RuntimeError(
                f"{called(site)} runs {states.shape[0]} rows, which is no multiple of the planned "
                f"{self.plan.batch_size}"
            )
        offset = self.first_column(states.shape[1])
        entries, columns = at.within(offset, states.shape[1])
        if not len(entries):
            return hidden
        operated = write(states, at, entries, columns - offset, copies).view(hidden.shape)
        self.pending[site][entries] = False
        if isinstance(site, int):
            self.replaced.append((hidden, operated))
        elif place_of(site) == RESIDUAL_MID:
            return hidden.copy_(operated)  # in place: the layer adds this very tensor to what its MLP returns
        return operated

    def check_place(self, site: Site, hidden: Tensor, at: LayerInsertion) -> None:
        """Raise for a place within a layer that is not met once in a pass with one embedding per token."""
        if site in self.met:
            raise UnsupportedModelError(f"{called(site)} runs more than once in a pass, so it has no single state")
        self.met.add(site)
        size = at.vectors.shape[-1]
        is_flat = hidden.ndim == 2 and self.width > 0 and hidden.shape[0] % self.width == 0
        if hidden.shape[-1] != size or not (hidden.ndim == 3 or is_flat):
            raise UnsupportedModelError(
                f"{called(site)} is {list(hidden.shape)}, and must be [rows, columns, {size}], one embedding per token"
            )

    def first_column(self, columns: int) -> int:
        """Absolute column at which the pass in hand begins, of so many columns.

        Passes without a cache run the whole text, and a longer one each time while tokens are generated. Where one is
        no longer, the text before it came in by a way that is not known here, and surgery would hit the wrong tokens.
        """
        if self.offset is not None:
            return self.offset
        self.columns = columns
        if columns < self.columns_before + self.plan.generates:
            raise UnsupportedModelError(
                f"a pass over {columns} tokens after one over {self.columns_before} was given neither a cache "
                f"({', '.join(NAMES)}) nor cache_position, so its place in the text is not known; use_cache=False "
                "runs the whole text in every pass"
            )
        return 0

    def finish(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """After the decoder: the recorded hidden states become those that the layers saw."""
        if not self.active():
            return output
        output = self.after_norm(output)
        if not self.replaced:
            return output
        if type(output) is tuple:  # one with names keeps them
            output = tuple(self.corrected(part) for part in output)
        elif isinstance(recorded := getattr(output, "hidden_states", None), tuple):
            output["hidden_states"] = self.corrected(recorded)
        self.replaced.clear()
        return output

    def after_norm(self, output: Any) -> Any:
        """The decoder's output after the surgery on what its final norm returns."""
        site = next((site for site in self.plan.layers if place_of(site) == FINAL_NORM), None)
        if site is None:
            return output
        if type(output) is tuple:
            operated = self.operate(site, output[0])
            self.replaced.append((output[0], operated))
            return (operated, *output[1:])
        hidden = output.last_hidden_state
        output["last_hidden_state"] = self.operate(site, hidden)
        self.replaced.append((hidden, output["last_hidden_state"]))
        return output

    def corrected(self, recorded: Any) -> Any:
        if not isinstance(recorded, tuple):
            return recorded
        operated = {id(before): after for before, after in self.replaced}
        return tuple(operated.get(id(state), state) for state in recorded)

    def check_complete(self) -> None:
        for site, pending in self.pending.items():
            if bool(pending.any()):
                first = int(pending.nonzero()[0])
                at = self.plan.layers[site]
                raise RuntimeError(
                    f"the surgery at row {int(at.rows[first])}, {called(site)}, position {int(at.positions[first])} "
                    "never took place: no pass of this thread ran that layer over that position; run the model that "
                    "was given to surgery(), over the whole prompt"
                )


def _named(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a pass by name."""
    return inspect.signature(module.forward).bind_partial(*args).arguments | kwargs if args else kwargs


def _recurrent_state(given: dict[str, Any]) -> Any:
    """The state that the pass continues from, if it does not say how long it is."""
    cache = cache_in(given)
    if cache is not None and not says_length(cache):
        return cache
    return next((given[name] for name in RECURRENT_STATES if given.get(name) is not None), None)


def _columns(given: dict[str, Any]) -> int:
    names = ("input_ids", "inputs_embeds", "hidden_states")
    tokens = next((given[name] for name in names if given.get(name) is not None), None)
    return 0 if tokens is None else tokens.shape[1]


def _offset(given: dict[str, Any]) -> int | None:
    """Absolute column of the first position of the pass in hand, by its arguments; None where they do not tell."""
    cache, cache_position = cache_in(given), given.get("cache_position")
    if cache_position is not None and type(cache).__name__ != "DynamicCache":  # others may have to count what they hold
        return int(cache_position[0])
    return None if cache is None else cached_length(cache)


def _uncompiled() -> AbstractContextManager[Any]:
    """A compiled model that has run ignores new hooks; an old torch without the switch ends in `check_complete`."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    return set_stance("force_eager") if set_stance else nullcontext()


@contextmanager
def _without_checkpointing(model: nn.Module) -> Iterator[None]:
    """Gradient checkpointing runs the layers again in the backward pass, when the hooks are gone."""
    modules = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False) is True]
    try:
        for module in modules:
            module.gradient_checkpointing = False
        yield
    finally:
        for module in modules:
            module.gradient_checkpointing = True
