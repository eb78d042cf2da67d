"""Truths by Gauss-Hermite quadrature over the noise."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import Sampler
from gradlab.oracle.base import Params
from gradlab.problems.problem import Problem
from gradlab.statistics.truth import OracleGradient


@dataclass(frozen=True)
class Quadrature:
    """Gauss-Hermite quadrature over one or two noise dimensions of a smooth integrand.

    Integrates the samples of `estimator` (PG, FOG, ...) over the action and process noise, so the
    answer is that estimator's expectation. The nodes converge exponentially for integrands that
    are smooth in the noise and hardly at all across a jump: with half the nodes the answer must
    agree to `tolerance` of its own size, else `BadValue` says by how much it does not.
    """

    estimator: Sampler
    nodes: int = 128
    tolerance: float = 1e-6

    def __call__(self, problem: Problem, params: Params) -> OracleGradient:
        begin = time.perf_counter()
        fine = self._integrate(problem, params, self.nodes)
        coarse = self._integrate(problem, params, self.nodes // 2)
        gap = math.sqrt(sum(float((fine[n] - coarse[n]).square().sum()) for n in fine))
        size = math.sqrt(sum(float(leaf.square().sum()) for leaf in fine.values()))
        if not gap <= self.tolerance * size:
            raise BadValue(
                f"quadrature with {self.nodes} nodes differs by {gap / size:.1e} of its size from "
                f"{self.nodes // 2} nodes, more than {self.tolerance:.0e}: the integrand is not "
                "smooth enough; try a closed form or LargeSample"
            )
        seconds = time.perf_counter() - begin
        return OracleGradient.exact(fine, f"Gauss-Hermite {self.nodes}", seconds)

    def _integrate(self, problem: Problem, params: Params, nodes: int) -> Params:
        sizes = (
            problem.horizon * problem.simulator.action_dim,
            (problem.horizon * problem.simulator.noise_dim),
        )
        dims = sum(sizes)
        if problem.initial_dim or dims > 2 or self.estimator.group > 1:
            raise BadValue(
                "quadrature needs at most 2 Gaussian noise dimensions, a fixed start and an "
                f"estimator without groups; {problem.name} has {dims} and "
                f"{problem.initial_dim} random starts; try LargeSample"
            )
        points, weights = np.polynomial.hermite_e.hermegauss(nodes)
        grid = torch.tensor(list(itertools.product(points, repeat=dims)), dtype=problem.dtype)
        weight = torch.tensor(
            [math.prod(w) for w in itertools.product(weights / weights.sum(), repeat=dims)]
        ).double()
        count = len(grid)
        blank = problem.draw(count, torch.Generator().manual_seed(0))
        noise = Noise(
            blank.initial,
            grid[:, : sizes[0]].reshape(blank.action.shape).to(blank.action),
            grid[:, sizes[0] :].reshape(blank.process.shape).to(blank.process),
            blank.seed,
        )
        samples = self.estimator(problem, params, noise).per_sample()
        return {
            name: torch.tensordot(weight.to(leaf.device), leaf.double(), dims=1)
            for name, leaf in samples.items()
        }
