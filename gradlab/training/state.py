"""Where a training is: tensors only, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradlab.foundation import checkpoints
from gradlab.foundation.checkpoints import Saved
from gradlab.foundation.errors import Corrupt
from gradlab.foundation.moment import Moment
from gradlab.training.optimiser import Tensors

FORMAT = "gradlab training 2"
ON_CPU = ("temperature", "temperature_memory", "length")  # numbers that each update asks for


class TrainingState(NamedTuple):
    """All that the next update takes from the past; the same state goes on in the same way."""

    params: Tensors  # of the policy
    buffers: Tensors  # statistics of observations, frozen within a segment
    memory: Tensors  # of the policy's optimiser
    critic: Tensors  # {} without one
    target: Tensors  # the critic's target network
    critic_memory: Tensors
    episodes: Moment  # where every episode is, alive, with time for a segment
    returns: Float[Tensor, " N"]  # undiscounted, of every episode so far
    seed: Int[Tensor, ""]
    updates: Int[Tensor, ""]  # so far
    steps: Int[Tensor, ""]  # of the simulator, while episodes were alive
    whole: Bool[Tensor, " N"]  # the episode began at its beginning, and not at a visited moment
    visited: Float[Tensor, "M K"]  # moments to begin at, as `packed`; none without a `Replay`
    previous: Tensors  # the policy's parameters before the last update; {} without a `KLPenalty`
    temperature: Tensors  # log κ of a `Temperature`; {} without
    temperature_memory: Tensors
    length: Tensors  # of an `AdaptiveLength`; {} without

    def save(self, path: str | Path, metadata: dict[str, Any] | None = None) -> None:
        """Write one safetensors file, whole or not at all."""
        checkpoints.save(path, *self.packed(metadata))

    @staticmethod
    def load(path: str | Path, device: torch.device | str = "cpu") -> TrainingState:
        """Exactly what was saved. Raises `Missing`, or `Corrupt` for a file of something else."""
        return TrainingState.read(path, device)[0]

    @staticmethod
    def read(
        path: str | Path, device: torch.device | str = "cpu"
    ) -> tuple[TrainingState, dict[str, Any]]:
        """The same, with the metadata that came with it."""
        saved = checkpoints.load(path)
        return TrainingState.unpacked(saved, device), saved.metadata

    def packed(self, metadata: dict[str, Any] | None = None) -> Saved:
        """What a file or a study's artefact holds of it."""
        tensors: Tensors = {}
        for name, part in self._asdict().items():
            if isinstance(part, Tensor):
                tensors[name] = part
                continue
            inner = part._asdict() if isinstance(part, Moment) else part
            tensors |= {f"{name}.{key}": value for key, value in inner.items()}
        # sums over parameters are taken in their order: it must come back with them
        own = {"format": FORMAT, "names": list(tensors)}
        return Saved(tensors, {**(metadata or {}), **own})

    @staticmethod
    def unpacked(saved: Saved, device: torch.device | str = "cpu") -> TrainingState:
        """Exactly what was packed. Raises `Corrupt` for something else."""
        tensors, metadata = saved
        if metadata.get("format") != FORMAT:
            raise Corrupt(
                f"expected a {FORMAT!r}, got {metadata.get('format')!r}; "
                "check that the file is a training's"
            )
        parts: dict[str, Any] = {}
        for name in TrainingState._fields:
            if name in tensors:
                parts[name] = tensors[name].cpu()
                continue
            place = "cpu" if name in ON_CPU else device
            inner = {
                key.removeprefix(f"{name}."): value.to(place)
                for key, value in ((key, tensors[key]) for key in metadata["names"])
                if key.startswith(f"{name}.")
            }
            parts[name] = Moment(**inner) if name == "episodes" else inner
        for name in ("returns", "whole", "visited"):
            parts[name] = parts[name].to(device)
        for memory in ("memory", "critic_memory"):  # counts stay where they are asked for
            if "count" in parts[memory]:
                parts[memory]["count"] = parts[memory]["count"].cpu()
        return TrainingState(**parts)
