"""Weights of a mixture's parts: what has one of its own, and how they act on samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.mixtures.blended import Blended
from gradlab.foundation.display import Facts, Shown
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.reading import expected
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.policies.factors import Factors, LinearFactor
from gradlab.problems.problem import Problem

Level = Literal["global", "layer", "parameter", "step", "output"]
LEVELS: tuple[str, ...] = get_args(Level)
TOLERANCE = 1e-6  # how far from 1 a sum of weights may be [1]


@dataclass(frozen=True, eq=False, repr=False)
class Weights(Shown):
    """A weight for each of k parts, which sum to 1, in each of B blocks of consecutive episodes.

    `values` by level: {"": [B, k]} for "global"; {layer: [B, k]} for "layer", of the layer's weight
    and bias; {name: [B, k, *param]} for "parameter"; {"": [B, k, T]} for "step", by the time step
    of a policy call; {"": [B, k, T, nz]} for "output", by the step and the coordinate of what the
    policy gives (mean, log std, and the carry of a recurrent one). N episodes are B blocks of N/B.
    """

    level: Level
    values: dict[str, Tensor]

    @staticmethod
    def stack(level: Level, blocks: Sequence[Mapping[str, Tensor]]) -> Weights:
        """Weights of consecutive blocks, each as [k, ...] by name."""
        return Weights(level, {key: torch.stack([b[key] for b in blocks]) for key in blocks[0]})

    @property
    def blocks(self) -> int:
        """B, the number of blocks of episodes that have weights of their own."""
        return next(iter(self.values.values())).shape[0]

    def to(self, device: torch.device | str) -> Weights:
        """The same weights on a device."""
        return Weights(self.level, {key: value.to(device) for key, value in self.values.items()})

    def facts(self) -> Facts:
        first = next(iter(self.values.values()))
        average = torch.cat([v.movedim(1, 0).flatten(1) for v in self.values.values()], 1).mean(1)
        return {
            "level": self.level,
            "parts": str(first.shape[1]),
            "blocks of episodes": f"{self.blocks:,}",
            "on average": ", ".join(f"{weight:.3g}" for weight in average.tolist()),
        }

    def mix(self, samples: Sequence[GradientSamples]) -> GradientSamples:
        """Σ_k w_k g_k of the parts' samples of the same N episodes.

        Raises `BadShape` unless N is a multiple of the blocks.
        """
        size = self._size(len(samples[0]))
        if self.level in ("layer", "parameter"):
            return Blended(tuple(samples), self._by_parameter(samples[0]), size)
        weights = self.values[""].repeat_interleave(size, 0)
        alike = _alike(samples)
        if alike and self.level != "output":
            return _combined(alike, weights.movedim(1, 0))
        parts = [self._scaled(part, weights[:, i]) for i, part in enumerate(samples)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def deal(self, samples: GradientSamples, share: int) -> GradientSamples:
        """k w_k g_k of samples that were dealt out among the k parts, `share` at a time in turn.

        For weights of layers or parameters, in blocks of k shares or a single one.
        """
        dealt: dict[str, Tensor] = {}
        for name, own in self._by_parameter(samples).items():
            dealt[name] = own.shape[1] * own.flatten(0, 1).unsqueeze(1)
        return Blended((samples,), dealt, share)

    def scaled(self, k: int, part: GradientSamples) -> GradientSamples:
        """w_k g_k of samples of part k alone, in as many blocks.

        Raises `BadShape` unless their number is a multiple of the blocks.
        """
        size = self._size(len(part))
        if self.level in ("layer", "parameter"):
            own = {name: w[:, k : k + 1] for name, w in self._by_parameter(part).items()}
            return Blended((part,), own, size)
        return self._scaled(part, self.values[""][:, k].repeat_interleave(size, 0))

    def _size(self, count: int) -> int:
        """Samples of one block."""
        if count % self.blocks:
            raise BadShape(
                f"{count} samples do not make {self.blocks} blocks of one size; "
                f"use a multiple of {self.blocks}"
            )
        return count // self.blocks

    def _by_parameter(self, samples: GradientSamples) -> dict[str, Tensor]:
        """The weights [B, k, *param] of every parameter, with ones for one of a whole layer."""
        found: dict[str, Tensor] = {}
        for layer in samples.products().layers():
            for name, shape in layer.items():
                own = self.values[layer_of(name) if self.level == "layer" else name]
                ones = [1] * (len(shape) if self.level == "layer" else 0)
                found[name] = own.reshape(*own.shape, *ones)
        return found

    def _scaled(self, part: GradientSamples, weights: Float[Tensor, "N *steps"]) -> GradientSamples:
        if self.level == "global":
            return part * weights
        assert isinstance(part, Factored)
        weights = weights.to(part.cotangent)
        if self.level == "step":
            return part.weight_steps(weights)
        return part.with_cotangent(part.cotangent * weights[:, part.steps])


def _alike(samples: Sequence[GradientSamples]) -> list[Factored]:
    """The parts' samples if they all are of the same policy calls; else none."""
    factored = [part for part in samples if isinstance(part, Factored)]
    if len(factored) < len(samples):
        return []
    first, *others = factored
    same = all(first.same_policy(part) and first.same_calls(part) for part in others)
    return factored if same else []


def _combined(parts: Sequence[Factored], weights: Float[Tensor, "k N *T"]) -> Factored:
    """Σ_k w_k g_k of parts with the very same policy calls, their layer factors kept.

    `weights` are [k, N], or [k, N, T] by the time step of a call. For weights that leave no room
    for parts to cancel: factors are rounded apart, where a sum of samples (`+`) leaves its own to
    one pass through the policy.
    """
    first = parts[0]
    each = weights.to(first.cotangent)
    each = each[..., None, None] if weights.ndim == 2 else each[..., first.steps, None]

    def mixed(tensors: Sequence[Tensor]) -> Tensor:
        total = tensors[0] * each[0]
        for weight, part in zip(each[1:], tensors[1:], strict=True):
            total = total.addcmul_(part, weight)
        return total

    known = None
    found = [part.known for part in parts if part.known is not None]
    if len(found) == len(parts):
        rows = zip(*(one.linear for one in found), strict=True)
        linear = [
            LinearFactor(row[0].layer, row[0].input, mixed([one.cotangent for one in row]))
            for row in rows
        ]
        direct = {name: mixed([one.direct[name] for one in found]) for name in found[0].direct}
        known = Factors(linear, direct)
    return replace(
        first,
        cotangent=mixed([part.cotangent for part in parts]),
        known=known,
        group=math.lcm(*(part.group for part in parts)),
    )


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to."""
    return name.rsplit(".", 1)[0]


def check_level(level: object) -> None:
    """Raise `BadValue` for a word that is no level."""
    if level not in LEVELS:
        raise BadValue(f"level must be global, layer, parameter, step or output, got {level!r}")


def check_weights(
    who: str, weights: Mapping[str, Tensor], level: Level, parts: int, problem: Problem
) -> None:
    """Raise unless these are weights [k, ...] of `parts` parts at `level` that sum to 1.

    `BadShape` for names or shapes of another level or number of parts, `BadValue` for other sums.
    """
    shapes = _shapes(level, parts, problem)
    came = {key: tuple(value.shape) for key, value in weights.items()}
    if came != shapes:
        key = next(k for k in {**shapes, **came} if shapes.get(k) != came.get(k))
        raise BadShape(
            f"{who} should have weights of shape {shapes.get(key, 'absent')} for {key!r} at "
            f"level={level!r} with {parts} parts, got {came.get(key, 'absent')}; "
            "the first dimension is that of the parts"
        )
    for key, value in weights.items():
        sums = value.double().sum(0)
        off = ~((sums - 1).abs() <= TOLERANCE)
        if expected(off.any(), False):
            where = f" for {key!r}" if key else ""
            raise BadValue(
                f"the weights of {who} should sum to 1 over the parts{where}, "
                f"got {float(sums[off].flatten()[0]):.6g}; divide them by their sum"
            )


def _shapes(level: Level, parts: int, problem: Problem) -> dict[str, tuple[int, ...]]:
    shapes = problem.policy.shapes()
    if level == "parameter":
        return {name: (parts, *shape) for name, shape in shapes.items()}
    if level == "layer":
        return {layer_of(name): (parts,) for name in shapes}
    steps, coordinates = problem.horizon, problem.policy.output_dim + problem.policy.carry_dim
    units = {"global": (), "step": (steps,), "output": (steps, coordinates)}
    return {"": (parts, *units[level])}
