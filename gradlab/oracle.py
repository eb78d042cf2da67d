"""Where the truth comes from: closed forms, quadrature, finite differences, large samples.

Every oracle is called with (problem, params) and returns an `OracleGradient` with a standard error
of its own. Oracles that sample have seeds of their own, independent of what they judge.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gradlab import closed_forms
from gradlab.errors import BadShape, BadValue, NotFinite
from gradlab.generators import generator
from gradlab.noise import Noise
from gradlab.outcome import evaluate
from gradlab.policies import BoundPolicy
from gradlab.problem import Problem
from gradlab.rollout import rollout
from gradlab.samples import Dense, Factored, GradientSamples
from gradlab.sampling import Sampler, noise_stream
from gradlab.statistics.moments import BLOCKS, Moments
from gradlab.statistics.streams import Stream
from gradlab.statistics.truth import OracleGradient

Params = dict[str, Tensor]
Progress = Callable[[OracleGradient], None]
ORACLE_SEED = 7_340_033  # far from the small seeds that users choose
PILOT = 2**40  # first episode of pilots, in the stream of the truth and far beyond its end
MARGIN = 1.1  # more episodes than the pilot asks for
LEAST = 5  # means of replicates that `compare` needs
BIAS_SHARE = 0.1  # of its standard error: a finite difference's bias that is as good as none


@runtime_checkable
class Oracle(Protocol):
    """Anything that knows the gradient of a problem and how well it knows it."""

    def __call__(self, problem: Problem, params: Params) -> OracleGradient: ...


def _solve(problem: Problem, params: Params) -> Mapping[str, Tensor]:
    return closed_forms.solve(problem, params).gradient


@dataclass(frozen=True)
class ClosedForm:
    """A formula, exact up to rounding: `gradient(problem, params) -> {name: tensor}`.

    Without one, the formulas of the known-answer problems: `gradlab.closed_forms.solve`.
    """

    gradient: Callable[[Problem, Params], Mapping[str, Tensor]] = _solve
    name: str = "closed form"

    def __call__(self, problem: Problem, params: Params) -> OracleGradient:
        begin = time.perf_counter()
        mean = self.gradient(problem, params)
        return OracleGradient.exact(mean, self.name, time.perf_counter() - begin)


@dataclass(frozen=True)
class LargeSample:
    """The mean of an unbiased estimator over as many episodes as precision asks for.

    How many that is, is decided before any of them is drawn, by a pilot of other episodes of the
    same stream that is then thrown away: with √(tr Σ/n)/‖g*‖ = r after n pilot episodes,

        N = ⌈1.1 n (r/until_relative_stderr)²⌉, at most max_count.

    The pilot doubles until r is at most three times what is wanted, or n an eighth of `max_count`
    (then N is `max_count`). Since
    N knows nothing of the N episodes, their mean and its debiased length are unbiased; to stop when
    the estimate itself looks precise keeps the long ones. `relative_stderr` says what was reached,
    which the margin of a tenth puts below `until_relative_stderr` most of the time. Memory is that
    of one chunk. Means of `replicate` consecutive samples are what enters the statistics: the same
    mean and the same error, for a fraction of the work on dense gradients; at least 64 of them are
    drawn, so that `compare` has its blocks. With `until_relative_stderr=0` there is no pilot, and N
    is `max_count`.
    """

    estimator: Sampler
    until_relative_stderr: float = 0.05
    max_count: int = 1_000_000
    batch: int = 8192  # of the first pilot, and episodes between two calls of `progress`
    chunk_size: int = 512
    replicate: int = 16
    seed: int = ORACLE_SEED

    def __call__(
        self, problem: Problem, params: Params, progress: Progress | None = None
    ) -> OracleGradient:
        """The truth; `progress` is called with the truth so far after each batch, pilot apart."""
        return self.targets(problem, params, {"": None}, progress)[""]

    def targets(
        self,
        problem: Problem,
        params: Params,
        weightings: Mapping[str, Tensor | None],
        progress: Progress | None = None,
    ) -> dict[str, OracleGradient]:
        """Several targets Σ_k w_k g_k from the same episodes: {name: w [T], or None for all ones}.

        Needs an estimator whose samples are policy calls with known time steps, each call's part
        an unbiased sample of g_k (PG, FOG on continuous problems, Split). Precision is judged by
        the first target. Raises `BadValue` if the samples cannot be weighted.
        """
        size = math.lcm(self.replicate, self.estimator.group)
        if not weightings or not self.until_relative_stderr >= 0 or self.max_count < LEAST * size:
            raise BadValue(
                "LargeSample needs at least one target, until_relative_stderr >= 0 and max_count >= "
                f"{LEAST * size} ({LEAST} means of {size} episodes), got {len(weightings)} targets, "
                f"{self.until_relative_stderr} and {self.max_count}; a smaller replicate asks for less"
            )
        for name, weights in weightings.items():
            if weights is not None and tuple(weights.shape) != (problem.horizon,):
                raise BadShape(
                    f"call weights should be [{problem.horizon}], one per policy call, "
                    f"got {list(weights.shape)} for target {name!r}; try estimator.call_weights(problem)"
                )
        begin = time.perf_counter()
        run = _Run(self.estimator, problem, params, weightings, self.seed, size, self.chunk_size)
        batch = _up(max(min(self.batch, self.max_count), LEAST * size), size)
        count = self._count(run, batch, size)
        totals: dict[str, Moments] = {}
        truths: dict[str, OracleGradient] = {}
        for start in range(0, count, batch):
            run.extend(totals, start, min(start + batch, count))
            label = f"{self.estimator.label} x {min(start + batch, count)}"
            seconds = time.perf_counter() - begin
            truths = {
                name: OracleGradient.sampled(total, label, seconds)
                for name, total in totals.items()
            }
            if progress is not None:
                progress(next(iter(truths.values())))
        return truths

    def _count(self, run: _Run, batch: int, size: int) -> int:
        """N of the docstring, in whole groups, by a pilot that nothing else sees."""
        most, least = _up(self.max_count, size), min(BLOCKS * size, _up(self.max_count, size))
        if self.until_relative_stderr == 0:
            return most
        first, origin = next(iter(run.weightings)), _up(PILOT, size)
        totals: dict[str, Moments] = {}
        done, goal = 0, _up(min(max(batch, BLOCKS * size), max(most // 8, LEAST * size)), size)
        while True:
            run.extend(totals, origin + done, origin + goal)
            reached = OracleGradient.sampled(totals[first], "pilot").relative_stderr
            times = reached / self.until_relative_stderr
            done, goal = goal, 2 * goal
            if times <= 3:
                return min(max(_up(math.ceil(MARGIN * done * times**2), size), least), most)
            if goal > most / 8:
                return most


@dataclass(frozen=True)
class _Run:
    """What the episodes of a large sample have in common."""

    estimator: Sampler
    problem: Problem
    params: Params
    weightings: Mapping[str, Tensor | None]
    seed: int
    size: int  # samples in one mean
    chunk_size: int

    def extend(self, totals: dict[str, Moments], begin: int, end: int) -> None:
        """Add episodes begin..end−1 of the stream to the statistics of every target."""
        chunk = _up(self.chunk_size, self.size)
        for noise in noise_stream(self.problem, end, self.seed, chunk, begin=begin):
            samples = self.estimator(self.problem, self.params, noise)
            drawn = Stream(self.seed, begin, begin + noise.count, self.problem.name)
            for name, weights in self.weightings.items():
                means = _weighted(samples, weights).group_means(self.size)
                pilot = totals[name].pilot if name in totals else None
                piece = means.moments(start=begin // self.size, pilot=pilot)
                piece = dataclasses.replace(piece, streams=(drawn,))
                totals[name] = totals[name].merge(piece) if name in totals else piece
            begin += noise.count


def _up(count: int, size: int) -> int:
    """The least multiple of `size` that is not below `count`."""
    return math.ceil(count / size) * size


def _weighted(samples: GradientSamples, weights: Tensor | None) -> GradientSamples:
    if weights is None:
        return samples
    if not isinstance(samples, Factored):
        raise BadValue(
            "only samples made of policy calls have call weights; use an estimator with "
            'engine="pullback", such as Split or PG'
        )
    return samples.weight_steps(weights.to(samples.cotangent))


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
        if problem.task.initial_dim or dims > 2 or self.estimator.group > 1:
            raise BadValue(
                "quadrature needs at most 2 Gaussian noise dimensions, a fixed start and an "
                f"estimator without groups; {problem.name} has {dims} and "
                f"{problem.task.initial_dim} random starts; try LargeSample"
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
                    moments = dataclasses.replace(Dense(held).moments(), streams=(drawn,))
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
            path = rollout(problem, BoundPolicy(problem.policy, params), noise)
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
