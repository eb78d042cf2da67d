"""Zeroth-order gradients in parameter space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Cost, Estimator, Params
from gradlab.foundation.errors import BadValue
from gradlab.foundation.generators import generator
from gradlab.foundation.noise import Noise
from gradlab.foundation.reading import drawing
from gradlab.gradients.engines import Context
from gradlab.gradients.samples import Dense, GradientSamples
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout


@dataclass(frozen=True)
class EvolutionStrategies(Estimator):
    """Antithetic parameter-space smoothing: (J_i(θ + σε_i) − J_i(θ − σε_i)) / (2σ) · ε_i.

    Both returns of a pair use the same episode noise; ε_i comes from the sample's own seed.

    Estimates: the gradient of J smoothed by N(0, σ²) in parameter space; call weights 1 as σ → 0.
    Requires: nothing, not even differentiability.
    Unbiased when: for the smoothed objective always; for ∇J with an error of order σ².
    Cost: 2T environment steps, no backward pass; variance grows with the number of parameters.
    Reference: Salimans et al. 2017, eq. 1 with antithetic sampling.
    """

    std: float = 0.01  # σ of the perturbation [parameter units]

    def check(self, problem: Problem) -> None:
        if not self.std > 0:
            raise BadValue(f"EvolutionStrategies needs std > 0, got {self.std}; try std=0.01")

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return torch.ones(problem.horizon, dtype=problem.dtype)

    def cost(self, problem: Problem) -> Cost:
        return Cost(2 * problem.horizon, 0)

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        eager = problem.eager
        direction = perturbations(params, noise)

        def value(shift: Params, row: Noise) -> Tensor:
            moved = {name: value.detach() + shift[name] for name, value in params.items()}
            path = rollout(eager, eager.bind(moved), row)
            return evaluate(eager, path).value.sum(-1)

        with torch.no_grad():
            up = {name: self.std * eps for name, eps in direction.items()}
            down = {name: -self.std * eps for name, eps in direction.items()}
            returns = torch.func.vmap(value)
            slope = (returns(up, noise) - returns(down, noise)) / (2 * self.std)
        return Dense(direction) * slope


def perturbations(params: Params, noise: Noise) -> Params:
    """ε_i for each row's seed: standard normal, {name: [N, *param]}."""
    drawing("EvolutionStrategies")
    rows: dict[str, list[Tensor]] = {name: [] for name in params}
    for seed in noise.seed.tolist():
        draws = generator("perturbation", seed)
        for name, value in params.items():
            eps = torch.randn(value.shape, generator=draws, dtype=torch.float64)
            rows[name].append(eps.to(value))
    return {name: torch.stack(column) for name, column in rows.items()}
