"""Adam as a pure function of tensors, so that a training can be stopped and resumed to the bit.

torch's own keep their state in an object that holds the parameters; here state goes in and out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.foundation.arguments import number
from gradlab.foundation.errors import BadValue
from gradlab.training.schedule import Schedule, at

Tensors = dict[str, Tensor]
KINDS = "mean", "square"  # what Adam remembers of every number
ALL = "all"  # the name of a vector of all parameters


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015), AdamW with `decoupled` weight decay; clipped by the whole norm.

    Gradients of the objective are descended; a caller who ascends hands in their negatives.
    """

    learning_rate: float | Schedule = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False  # AdamW
    max_norm: float | None = None  # of the whole gradient, before the step

    def __post_init__(self) -> None:
        rate = self.learning_rate
        if not isinstance(rate, Schedule) and not number("learning_rate", rate) > 0:
            raise BadValue(f"learning_rate should be positive, got {rate}; try 2e-3")
        if not all(0 <= number("a beta", beta) < 1 for beta in self.betas):
            raise BadValue(f"betas should lie in [0, 1), got {self.betas}; try (0.9, 0.999)")
        if self.max_norm is not None and not number("max_norm", self.max_norm) > 0:
            raise BadValue(f"max_norm should be positive, got {self.max_norm}; None does not clip")

    def init(self, params: Tensors) -> Tensors:
        """The memory before the first step: running means of gradients and squares, and a count."""
        memory = {f"mean.{name}": torch.zeros_like(value) for name, value in params.items()}
        memory |= {f"square.{name}": torch.zeros_like(value) for name, value in params.items()}
        return {**memory, "count": torch.zeros((), dtype=torch.int64)}

    def step(
        self, params: Tensors, gradient: Tensors, memory: Tensors, done: float
    ) -> tuple[Tensors, Tensors, Tensor]:
        """Parameters and memory after a step, and the gradient's norm before it was clipped.

        `done` is the fraction of the training that is over, for the schedule. Nothing that comes in
        is written to.
        """
        norm = norm_of(gradient)
        scale = 1.0
        if self.max_norm is not None:  # as torch.nn.utils.clip_grad_norm_ has it
            scale = (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        rate, (first, second) = at(self.learning_rate, done), self.betas
        count = memory["count"] + 1
        unbiased = [1 - beta ** int(count) for beta in self.betas]
        kept: Tensors = {"count": count}
        moved: Tensors = {}
        for name, value in params.items():
            slope = gradient[name] * scale
            if self.weight_decay and not self.decoupled:
                slope = slope + self.weight_decay * value
            mean = torch.lerp(memory[f"mean.{name}"], slope, 1 - first)
            square = second * memory[f"square.{name}"] + (1 - second) * slope.square()
            kept[f"mean.{name}"], kept[f"square.{name}"] = mean, square
            width = (square / unbiased[1]).sqrt() + self.epsilon
            if self.weight_decay and self.decoupled:
                value = value * (1 - rate * self.weight_decay)
            moved[name] = value - rate / unbiased[0] * mean / width
        return moved, {name: kept[name] for name in memory}, norm


# ----------- all parameters as one vector, of which a step takes no more operations than of one


def joined(params: Tensors, memory: Tensors) -> tuple[Tensor, Tensors]:
    """The parameters end to end, [P], and the memory of `Adam` for that vector under `ALL`."""
    whole = {f"{kind}.{ALL}": _end_to_end(memory, f"{kind}.", params) for kind in KINDS}
    return _end_to_end(params, "", params), {**whole, "count": memory["count"]}


def parted(vector: Tensor, memory: Tensors, like: Tensors) -> tuple[Tensors, Tensors]:
    """What was `joined`, with the names and shapes of `like`, as views."""
    parts = {kind: shaped(memory[f"{kind}.{ALL}"], like) for kind in KINDS}
    each = {f"{kind}.{name}": part for kind in KINDS for name, part in parts[kind].items()}
    return shaped(vector, like), {**each, "count": memory["count"]}


def shaped(vector: Tensor, like: Tensors) -> Tensors:
    """Views of a vector of parameters, with the names and shapes of `like`."""
    parts = vector.split([value.numel() for value in like.values()])
    return {n: part.view(v.shape) for part, (n, v) in zip(parts, like.items(), strict=True)}


def _end_to_end(tensors: Tensors, start: str, names: Iterable[str]) -> Tensor:
    return torch.cat([tensors[f"{start}{name}"].reshape(-1) for name in names])


def norm_of(tensors: Tensors) -> Tensor:
    """The Euclidean norm of all of them together."""
    parts = [torch.linalg.vector_norm(value) for value in tensors.values()]
    return torch.linalg.vector_norm(torch.stack(parts))
