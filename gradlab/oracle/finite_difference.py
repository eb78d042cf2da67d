"""Truths by finite differences of the mean return."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.foundation.errors import BadValue, NotFinite
from gradlab.foundation.generators import generator
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Dense
from gradlab.gradients.sampling import noise_stream
from gradlab.oracle.base import ORACLE_SEED, Params
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from gradlab.statistics.streams import Stream
from gradlab.statistics.truth import OracleGradient

BIAS_SHARE = 0.1  # of its standard error: a finite difference's bias that is as good as none


@dataclass(frozen=True)
class FiniteDifference:
    """Differences of the mean return with common random numbers, coordinate by coordinate.

    Needs no gradient at all, only 2P rollouts per sample and step size: for small policies. Central
    differences D(h) are combined to R(h) = D(h') + (D(h') − D(h))/((h/h')² − 1), h' the next step,
    whose error is of order h⁴ (Richardson). From large to small, the first R(h) is taken that
    differs from the next one by no more than the paired standard error of that difference, or by a
    tenth of its own standard error. What it does differ by, its error of step, is part of the
    truth's standard error. On a hard event the per-sample difference is a jump over 2h, whose
    variance grows like 1/h; a jump that no sample saw is in no error. Raises `BadValue` for more
    than `max_parameters` parameters, fewer than three steps, or when no step size passes.
    """

    count: int = 4096
    steps: tuple[float, ...] = (0.2, 0.1, 0.05, 0.025, 0.0125, 0.00625)
    chunk_size: int = 1024
    max_parameters: int = 200
    seed: int = ORACLE_SEED

    def __call__(self, problem: Problem, params: Params) -> OracleGradient:
        begin = time.perf_counter()
        size = sum(leaf.numel() for leaf in params.values())
        if size > self.max_parameters:
            raise BadValue(
                f"finite differences over {size} parameters need {2 * size} rollouts per sample; "
                f"at most {self.max_parameters} are allowed: use LargeSample, or raise "
                "max_parameters"
            )
        if len(self.steps) < 3 or any(b >= a for a, b in itertools.pairwise(self.steps)):
            raise BadValue(
                f"expected three falling steps or more, got {self.steps}; try (0.1, 0.05, 0.025)"
            )
        last, found = self._differences(problem, params, self.steps[0]), None
        for k, (h, half) in enumerate(itertools.pairwise(self.steps)):
            central = self._differences(problem, params, half)
            share = 1 / ((h / half) ** 2 - 1)
            finer = {n: d + share * (d - last[n]) for n, d in central.items()}
            if found is not None:
                gap = {n: found[n] - finer[n] for n in finer}
                if _as_good(gap, found):
                    held = _holding(found, {n: leaf.mean(0) for n, leaf in gap.items()})
                    name = f"finite difference h={self.steps[k - 1]:g} x {self.count}"
                    drawn = Stream(self.seed, 0, self.count, problem.name)
                    moments = dataclasses.replace(
                        Dense(held).moments(per_parameter=True), streams=(drawn,)
                    )
                    return OracleGradient.sampled(moments, name, time.perf_counter() - begin)
            last, found = central, finer
        raise BadValue(
            f"no step size of {self.steps} has a bias below its noise with {self.count} episodes; "
            "add smaller steps, or fewer episodes if less precision will do"
        )

    def _differences(self, problem: Problem, params: Params, h: float) -> Params:
        """Central differences of every episode's return: {name: [count, *param]}."""
        parts: dict[str, list[Tensor]] = {name: [] for name in params}
        for noise in noise_stream(problem, self.count, self.seed, self.chunk_size):
            for name, found in parts.items():
                leaf = self._slopes(problem, params, noise, name, h)
                if not bool(torch.isfinite(leaf).all()):
                    raise NotFinite(
                        f"a return of {problem.name} is not finite; no truth without it"
                    )
                found.append(leaf)
        return {name: torch.cat(found) for name, found in parts.items()}

    def _slopes(
        self, problem: Problem, params: Params, noise: Noise, name: str, h: float
    ) -> Tensor:
        base = params[name]
        columns = []
        for i in range(base.numel()):
            shift = torch.zeros_like(base).flatten()
            shift[i] = h
            shift = shift.reshape(base.shape)
            up = self._returns(problem, {**params, name: base + shift}, noise)
            down = self._returns(problem, {**params, name: base - shift}, noise)
            columns.append((up - down) / (2 * h))
        return torch.stack(columns, dim=-1).unflatten(-1, base.shape)

    def _returns(self, problem: Problem, params: Params, noise: Noise) -> Tensor:
        with torch.no_grad():
            path = rollout(problem, problem.bind(params), noise)
            return evaluate(problem, path).value.sum(-1).double()


def _as_good(gap: Params, slopes: Params) -> bool:
    """Whether the mean of `gap` is what its noise explains,
    or next to nothing of that of `slopes`.
    """

    def error(samples: Params) -> float:
        return sum(float(x.var(0).sum()) / len(x) for x in samples.values())

    size = sum(float(x.mean(0).square().sum()) for x in gap.values())
    return size <= 2 * error(gap) or size <= BIAS_SHARE**2 * error(slopes)


def _holding(samples: Params, error: Params) -> Params:
    """Samples with the same mean, whose standard error holds `error` beside the noise, in squares.

    Each is moved by ±√N·error, as many up as down, in an order that knows nothing of the samples:
    what a truth says of its own error (blocks, variances) then contains it without being told.
    """
    count = len(next(iter(samples.values())))
    order = torch.randperm(count, generator=generator("finite difference", count))
    signs = math.sqrt(count) * torch.linspace(-1, 1, count, dtype=torch.float64).sign()[order]
    return {
        n: x + signs.to(x.device).reshape(-1, *[1] * (x.ndim - 1)) * error[n]
        for n, x in samples.items()
    }
