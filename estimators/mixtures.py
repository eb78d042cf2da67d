"""Inverse-variance mixtures of two estimators of the same quantity."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Cost, Estimator, Params
from gradlab.errors import BadValue
from gradlab.noise import Noise
from gradlab.problem import Problem
from gradlab.samples import Dense, Factored, GradientSamples, concatenate
from gradlab.sampling import block_generator

Level = Literal["global", "layer", "parameter", "step"]
Weights = dict[str, Tensor]  # weight of the first part, per leaf; {"": [T]} at level "step"


@dataclass(frozen=True)
class InverseVariance(Estimator):
    """Inverse-variance mixture w·a + (1 − w)·b with w = σ_b² / (σ_a² + σ_b²).

    `level` says what has a weight of its own: everything ("global"), a layer (its weight and bias
    together), a parameter, or a policy call's time step. `weights_from` says which samples the
    variances come from: the "same" group of `group_size`, the other half of the group ("cross"), or
    a separate "pilot" of `group_size` episodes drawn from `pilot_seed`. Where both variances are
    zero the weight is ½.

    Estimates: what both parts estimate; call weights are the mean of theirs, so the parts must
    agree on them (checked).
    Requires: what the parts require; level "step" needs parts made of policy calls.
    Unbiased when: both parts are and the weights are independent of what they weight (cross,
    pilot). Weights from the same samples bias the mixture (−9 to −11 % at 8 samples in a toy).
    Cost: both parts; a pilot once per set of parameters.
    Reference: AGPO section 3.3 (inverse-variance weights); AoBG section 4; PIPPS section 3.
    """

    first: Estimator
    second: Estimator
    level: Level = "global"
    weights_from: Literal["same", "cross", "pilot"] = "cross"
    group_size: int = 50  # half of ABPT's actor batch of 100
    pilot_seed: int = 0
    _pilots: dict = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def group(self) -> int:
        parts = math.lcm(self.first.group, self.second.group)
        if self.weights_from == "pilot":
            return parts
        return math.lcm(self.group_size, parts * (2 if self.weights_from == "cross" else 1))

    @property
    def label(self) -> str:
        return f"IVW({self.first.label}, {self.second.label})"

    def check(self, problem: Problem) -> None:
        if self.level not in ("global", "layer", "parameter", "step"):
            raise BadValue(f"level must be global, layer, parameter or step, got {self.level!r}")
        if self.weights_from not in ("same", "cross", "pilot"):
            raise BadValue(f"weights_from must be same, cross or pilot, got {self.weights_from!r}")
        if self.group_size < 4:
            raise BadValue(f"InverseVariance needs group_size >= 4, got {self.group_size}")
        self.first.check(problem)
        self.second.check(problem)
        a, b = (part.call_weights(problem).double() for part in (self.first, self.second))
        if not torch.allclose(a, b, atol=1e-6):
            raise BadValue(
                f"{self.first.label} and {self.second.label} estimate different things (their call "
                "weights differ), so no mixture of them is either; mix estimators of the same call "
                "weights, such as FOG, PG, QG(at='all') or tiled NStep"
            )

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return 0.5 * (self.first.call_weights(problem) + self.second.call_weights(problem))

    def cost(self, problem: Problem) -> Cost:
        return self.first.cost(problem) + self.second.cost(problem)

    def sample(self, problem: Problem, params: Params, noise: Noise) -> GradientSamples:
        a, b = self._parts(problem, params, noise)
        if self.weights_from == "pilot":
            return self._mix(a, b, self._pilot(problem, params))
        mixed = []
        for begin in range(0, noise.count, self.group):
            middle, end = begin + self.group // 2, begin + self.group
            if self.weights_from == "same":
                rows = a.rows(begin, end), b.rows(begin, end)
                mixed.append(self._mix(*rows, self._weights(problem, *rows)))
                continue
            low = a.rows(begin, middle), b.rows(begin, middle)
            high = a.rows(middle, end), b.rows(middle, end)
            mixed.append(self._mix(*low, self._weights(problem, *high)))
            mixed.append(self._mix(*high, self._weights(problem, *low)))
        return concatenate(mixed)

    def _parts(
        self, problem: Problem, params: Params, noise: Noise
    ) -> tuple[GradientSamples, GradientSamples]:
        a, b = self.first(problem, params, noise), self.second(problem, params, noise)
        if self.level == "step" and not (isinstance(a, Factored) and isinstance(b, Factored)):
            raise BadValue(
                'level="step" needs parts made of policy calls; use engine="pullback" in both'
            )
        return a, b

    def _pilot(self, problem: Problem, params: Params) -> Weights:
        """Weights from a separate draw, found once for each set of parameters."""
        key = tuple((id(value), value._version) for value in params.values())
        if self._pilots.get("key") != key or self._pilots.get("problem") is not problem:
            count = math.lcm(self.group_size, self.group)
            noise = problem.draw(count, block_generator(self.pilot_seed, -1))
            weights = self._weights(problem, *self._parts(problem, params, noise))
            # the parameters are kept so that their identities stay theirs
            self._pilots.update(key=key, problem=problem, params=params, weights=weights)
        return self._pilots["weights"]

    def _weights(self, problem: Problem, a: GradientSamples, b: GradientSamples) -> Weights:
        if self.level == "step":
            assert isinstance(a, Factored) and isinstance(b, Factored)
            return {"": _ratio(_step_variances(a, problem), _step_variances(b, problem))}
        variance_a, variance_b = _variances(a), _variances(b)
        if self.level == "parameter":
            return {name: _ratio(variance_a[name], variance_b[name]) for name in variance_a}
        groups = {name: _layer(name) if self.level == "layer" else "" for name in variance_a}
        total_a, total_b = _totals(variance_a, groups), _totals(variance_b, groups)
        return {name: _ratio(total_a[g], total_b[g]) for name, g in groups.items()}

    def _mix(self, a: GradientSamples, b: GradientSamples, weights: Weights) -> GradientSamples:
        if self.level == "step":
            assert isinstance(a, Factored) and isinstance(b, Factored)
            return a.weight_steps(weights[""].to(a.cotangent)) + b.weight_steps(
                (1 - weights[""]).to(b.cotangent)
            )
        if self.level == "global":
            weight = float(next(iter(weights.values())))
            return a * weight + b * (1 - weight)
        x, y = a.per_sample(), b.per_sample()
        return Dense({n: weights[n].to(x[n]) * x[n] + (1 - weights[n]).to(y[n]) * y[n] for n in x})


def _layer(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _variances(samples: GradientSamples) -> dict[str, Tensor]:
    """Variance over samples of every parameter, in float64."""
    return {name: leaf.double().var(0) for name, leaf in samples.per_sample().items()}


def _totals(variances: dict[str, Tensor], groups: dict[str, str]) -> dict[str, Tensor]:
    totals: dict[str, Tensor] = {}
    for name, group in groups.items():
        total = variances[name].sum()
        totals[group] = totals[group] + total if group in totals else total
    return totals


def _step_variances(samples: Factored, problem: Problem) -> Float[Tensor, " T"]:
    """Trace of the covariance of each time step's contribution to the gradient.

    In float64 from the observations on: Σ‖g_i‖² − N‖ḡ‖² of float32 numbers loses a small spread.
    """
    count = len(samples)
    exact = replace(
        samples,
        params={name: value.double() for name, value in samples.params.items()},
        obs=samples.obs.double(),
        cotangent=samples.cotangent.double(),
        known=None,
    )
    exact = replace(exact, known=exact.factors())
    out = []
    for t in range(problem.horizon):
        calls = exact.at_step(t)
        mean = torch.cat([leaf.flatten() for leaf in calls.mean().values()])
        spread = calls.squared_norms().sum() - count * mean.square().sum()
        out.append(spread.clamp(min=0) / (count - 1))
    return torch.stack(out)


def _ratio(variance_a: Tensor, variance_b: Tensor) -> Tensor:
    """σ_b² / (σ_a² + σ_b²), ½ where both vanish."""
    total = variance_a + variance_b
    known = total > 0
    return torch.where(known, variance_b / torch.where(known, total, 1.0), 0.5)
