"""Training that goes on from where it was stopped, to the same weights: a file beside what is trained.

store = Store(Path("control/checkpoint.safetensors"), every=20, identity="…")
done = store.resume(parameters, optimizer)       # 0 steps, or those of the file
store.save(parameters, optimizer, 40)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

_KEPT = "kept."


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a training has come."""

    steps: int = 0
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    """What else was saved."""


@dataclass(frozen=True)
class Store:
    """Where training can go on from when it was stopped."""

    path: Path
    every: int
    """Steps from one checkpoint to the next."""
    identity: str
    """Of the training: another one's checkpoint is refused."""

    def resume(self, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> Progress:
        """Puts the parameters and Adam's state back. Raises ValueError for a checkpoint of something else."""
        from safetensors import safe_open

        if not self.path.exists():
            return Progress()
        try:
            with safe_open(str(self.path), "pt") as file:
                header = file.metadata() or {}
                if header.get("training") != self.identity:
                    raise ValueError("it is of other data or settings")
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            _restore(trained, optimizer, state)
            kept = {name.removeprefix(_KEPT): one for name, one in state.items() if name.startswith(_KEPT)}
            return Progress(int(header["steps"]), kept)
        except Exception as error:  # safetensors has errors of its own, differing by version
            raise ValueError(f"checkpoint {self.path} cannot be resumed: {error}; remove it to start over") from error

    def save(
        self,
        trained: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        steps: int,
        kept: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Whole or not at all. kept: whatever else training goes on from."""
        from safetensors.torch import save_file

        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.tmp")
        header = {"training": self.identity, "steps": str(steps)}
        extra = {f"{_KEPT}{name}": tensor for name, tensor in (kept or {}).items()}
        save_file(_state_of(trained, optimizer) | extra, str(beside), metadata=header)
        beside.replace(self.path)


def _state_of(trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, and Adam's two means of each and its steps."""
    found = {}
    for name, parameter in trained.items():
        found[f"weight.{name}"] = parameter.detach()
        for part, value in optimizer.state.get(parameter, {}).items():
            found[f"{part}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return {name: tensor.detach().clone().contiguous() for name, tensor in found.items()}


@torch.no_grad()
def _restore(
    trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Raises KeyError, RuntimeError for the state of something else."""
    for name, parameter in trained.items():
        parameter.copy_(state[f"weight.{name}"])
        parts = [key.removesuffix(f".{name}") for key in state if key.endswith(f".{name}")]
        optimizer.state[parameter] = {part: state[f"{part}.{name}"] for part in parts if part != "weight"}
