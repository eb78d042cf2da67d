"""`assert_unbiased`: a test of an estimator's expectation that cannot pass for lack of precision.

Usable in any test-suite:

    gradlab.testing.assert_unbiased(estimators.PG(), problem, params, truth)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported when they are used
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import got
from gradlab.foundation.errors import BadValue, GradlabError, NotFinite
from gradlab.foundation.generators import generator
from gradlab.gradients.samples import GradientSamples
from gradlab.gradients.sampling import Sampler, noise_stream
from gradlab.problems.problem import Problem
from gradlab.statistics.gram import contrasts
from gradlab.statistics.moments import Moments
from gradlab.statistics.parts import parts
from gradlab.statistics.rows import Leaves
from gradlab.statistics.streams import Stream, shared
from gradlab.statistics.truth import OracleGradient

DIRECTIONS = 16  # at most; the false-alarm rate is shared among them
POWER = 2.0  # a bias as large as `detect` is found with the normal probability of 2, 97.7 %


class Biased(AssertionError):
    """The estimator's expectation is not the truth, at the stated false-alarm rate."""


class CannotTell(GradlabError):
    """Too few samples, too noisy a truth or too skewed samples: refusing to pass."""


@dataclass(frozen=True)
class Verdict:
    """What the test saw, for those who want more than that it passed."""

    count: int  # samples
    directions: tuple[str, ...]
    z: tuple[float, ...]  # per direction
    threshold: float  # largest |z| that passes, of the worst direction's Student law
    detectable: float  # bias along g*, over ‖g*‖, that would have been found
    worst_parameter: str  # "leaf[index]"
    worst_parameter_z: float  # reported only: it decides nothing


def project(
    samples: GradientSamples | Mapping[str, Tensor], directions: Mapping[str, Tensor]
) -> Float[Tensor, "N D"]:
    """Inner products of per-sample gradients {leaf: [N, *param]} with {leaf:
    [D, *param]}, float64.
    """
    leaves = samples if isinstance(samples, Mapping) else samples.per_sample()
    total = [
        _flat(g.detach()).to(torch.float64) @ _flat(directions[name].to(g.device)).T
        for name, g in leaves.items()
    ]
    return torch.stack(total).sum(0).cpu()


def _flat(rows: Tensor) -> Float[Tensor, "N p"]:
    """[N, *param] as rows; a scalar parameter has rows of one."""
    return rows.reshape(rows.shape[0], -1)


def fixed_directions(truth: OracleGradient, seed: int) -> tuple[tuple[str, ...], Leaves]:
    """Unit directions fixed before any sample is seen: ({name}, {leaf: [D, *param]}).

    The truth's, each layer's part of it (each leaf's while there are few), random ones.
    """
    mean = {name: x.cpu() for name, x in truth.mean.items()}
    size = _norm(mean)
    draws = generator("directions", seed)
    rows: dict[str, Leaves] = {"truth": mean}
    pieces = list(parts(mean).items())[1:]
    for part, names in pieces if len(mean) > 1 else []:
        piece = {name: x if name in names else torch.zeros_like(x) for name, x in mean.items()}
        if len(rows) < DIRECTIONS - 4 and _norm(piece) > 1e-9 * size:
            rows[part] = piece
    for k in range(min(4, DIRECTIONS - len(rows))):
        rows[f"random {k}"] = {
            name: torch.randn(x.shape, generator=draws, dtype=torch.float64)
            for name, x in mean.items()
        }
    scale = [_norm(row) for row in rows.values()]
    unit = {
        name: torch.stack([row[name] / s for row, s in zip(rows.values(), scale, strict=True)])
        for name in mean
    }
    return tuple(rows), unit


def assert_unbiased(
    estimator: Sampler,
    problem: Problem,
    params: dict[str, Tensor],
    truth: OracleGradient,
    *,
    false_alarm: float = 1e-6,
    detect: float = 0.01,
    count: int = 4096,
    max_count: int = 262_144,
    seed: int = 0,
    chunk_size: int = 256,
    replicate: int = 1,
) -> Verdict:
    """Raises `Biased` if the estimator's expectation is not the truth, `CannotTell` if unsure.

    The mean gradient is tested along at most 16 fixed directions; an unbiased estimator fails with
    probability at most `false_alarm` (Bonferroni over the directions, the truth's error included).
    It passes only if a bias of `detect`·‖g*‖ along g* would have been found with probability
    97.7 %, and only if the skewness γ of the projections leaves the normal tail right: |γ| z³/(3
    √N) <= 1. From `count` samples on, the number doubles until both hold, up to `max_count`.
    Stopping depends on the spread alone, not on the bias seen. `truth` may be ∇J or Σ w_k g_k, from
    other seeds. An estimator that looks across samples enters by the means of its groups;
    `replicate` > 1 does the same for any estimator, for a fraction of the work on millions of
    samples.
    """
    if not isinstance(truth, OracleGradient):
        raise BadValue(
            f"the truth should be an OracleGradient, got {got(truth)}; try "
            'OracleGradient.exact(gradient, "closed form") or gradlab.oracle.LargeSample(...)'
        )
    norm = _norm(truth.mean)
    if not (0 < false_alarm < 1 and detect > 0 and 0 < count <= max_count and norm > 0):
        raise BadValue(
            "expected 0 < false_alarm < 1, detect > 0, 0 < count <= max_count and a truth that is "
            f"not zero, got {false_alarm}, {detect}, {count}, {max_count} and ‖g*‖={norm:.3g}"
        )
    size = math.lcm(replicate, estimator.group)
    count, max_count, chunk_size = (-(-n // size) * size for n in (count, max_count, chunk_size))
    own = Stream(seed, 0, max_count, problem.name)
    if both := shared([own], truth.streams):
        raise BadValue(
            f"the truth {truth.name!r} comes from the stream that this test draws ({both}): it would "
            f"pass whatever the bias; use another seed than {seed}"
        )
    names, directions = fixed_directions(truth, seed)
    projections: _Projections | None = None
    moments: Moments | None = None
    done, checkpoint = 0, count
    for noise in noise_stream(problem, max_count, seed, chunk_size):
        samples = estimator(problem, params, noise).group_means(size)
        gradients = samples.per_sample()
        pilot = None if moments is None else moments.pilot
        piece = Moments.of(gradients, start=done // size, pilot=pilot, per_parameter=True)
        truth.check_leaves(piece.mean)
        if piece.nonfinite:
            raise NotFinite(
                f"{piece.nonfinite} of replicates {done // size} to "
                f"{(done + noise.count) // size - 1} are not finite; an estimator without a finite "
                "mean has no bias to test"
            )
        seen = _Projections.of(project(gradients, directions).numpy())
        moments = piece if moments is None else moments.merge(piece)
        projections = seen if projections is None else projections.merge(seen)
        done += noise.count
        if done >= checkpoint or done >= max_count:
            dtype = next(iter(gradients.values())).dtype
            test = _Test.of(projections, truth, directions, false_alarm, dtype)
            if done >= max_count or test.sure(detect * norm) or test.hopeless(detect * norm):
                verdict = _Verdict(test, moments, truth, names, detect, norm, false_alarm, done)
                return verdict.judge()
            checkpoint = 2 * done
    raise BadValue("the noise stream was empty")


@dataclass(frozen=True)
class _Projections:
    """Count, mean and central sums of the projections, merged as by Pébay 2008."""

    count: int
    mean: Float[np.ndarray, " D"]
    m2: Float[np.ndarray, " D"]
    m3: Float[np.ndarray, " D"]

    @staticmethod
    def of(values: Float[np.ndarray, "N D"]) -> _Projections:
        mean = values.mean(0)
        centred = values - mean
        return _Projections(len(values), mean, (centred**2).sum(0), (centred**3).sum(0))

    def merge(self, other: _Projections) -> _Projections:
        a, b, n = self.count, other.count, self.count + other.count
        gap = other.mean - self.mean
        return _Projections(
            n,
            self.mean + gap * (b / n),
            self.m2 + other.m2 + gap**2 * (a * b / n),
            self.m3
            + other.m3
            + gap**3 * (a * b * (a - b) / n**2)
            + 3 * gap * (a * other.m2 - b * self.m2) / n,
        )


@dataclass(frozen=True)
class _Test:
    """z-scores along the directions and what limits them."""

    count: int  # replicates
    difference: Float[np.ndarray, " D"]
    stderr: Float[np.ndarray, " D"]
    truth_stderr: Float[np.ndarray, " D"]  # the truth's share of it
    threshold: Float[np.ndarray, " D"]
    skew: Float[np.ndarray, " D"]  # |γ| z³/(3 √N) at the threshold

    @staticmethod
    def of(
        seen: _Projections,
        truth: OracleGradient,
        directions: Leaves,
        false_alarm: float,
        dtype: torch.dtype,
    ) -> _Test:
        n, tests = seen.count, len(seen.mean)
        expected = project({name: x[None] for name, x in truth.mean.items()}, directions)[0]
        own = seen.m2 / (n * (n - 1))
        skewness = np.abs(seen.m3 / n) / np.maximum(seen.m2 / n, 1e-200) ** 1.5
        # A deterministic estimator has no spread: what rounding can do then stands in for it.
        rounding = (torch.finfo(dtype).eps * 100 * _norm(truth.mean)) ** 2
        oracle, freedom = np.zeros(tests), np.inf
        if truth.moments is not None:
            errors = project(contrasts(truth.moments), directions).numpy()
            oracle, freedom = (errors**2).mean(0), float(len(errors))
        total = own + oracle + rounding
        # Welch and Satterthwaite: the truth's spread is known from its blocks only.
        df = total**2 / ((own**2 + 1e-300) / (n - 1) + oracle**2 / freedom)
        threshold = scipy.stats.t.isf(false_alarm / (2 * tests), np.minimum(df, 1e9))
        skew = skewness * threshold**3 / (3 * math.sqrt(n)) * (own / total) ** 1.5
        difference = seen.mean - expected.numpy()
        return _Test(n, difference, np.sqrt(total), np.sqrt(oracle), threshold, skew)

    @property
    def z(self) -> Float[np.ndarray, " D"]:
        return self.difference / self.stderr

    @property
    def detectable(self) -> float:
        """Bias along the truth that is found with the probability of `POWER`."""
        return float((self.threshold[0] + POWER) * self.stderr[0])

    def sure(self, size: float) -> bool:
        """Precise enough along the truth, and no direction too skewed."""
        return self.detectable <= size and bool((self.skew <= 1).all())

    def hopeless(self, size: float) -> bool:
        """No number of samples would do: the truth itself is too noisy."""
        return float((self.threshold[0] + POWER) * self.truth_stderr[0]) > size


@dataclass(frozen=True)
class _Verdict:
    """Everything that the messages need."""

    test: _Test
    moments: Moments
    truth: OracleGradient
    names: tuple[str, ...]
    detect: float
    norm: float
    false_alarm: float
    count: int  # samples

    def judge(self) -> Verdict:
        """Passes, or raises `Biased` where a skew-free direction says so, or `CannotTell`."""
        test, norm = self.test, self.norm
        leaf, parameter_z = _worst_parameter(self.moments, self.truth)
        found = (np.abs(test.z) > test.threshold) & (test.skew <= 1)
        if found.any():
            k = int(np.argmax(np.where(found, np.abs(test.z), 0)))
            raise Biased(
                f"biased along {self.names[k]!r}: mean − {self.truth.name} is "
                f"{test.difference[k]:.4g} ± {test.stderr[k]:.2g} (‖g*‖ = {norm:.4g}), z = "
                f"{test.z[k]:.1f}, |z| <= {test.threshold[k]:.2f} allowed at false-alarm rate "
                f"{self.false_alarm:g}; {self.count} samples, bias detectable along g* "
                f"{test.detectable / norm:.2%}; worst parameter {leaf}, z = {parameter_z:.1f}"
            )
        if not test.sure(self.detect * norm):
            raise CannotTell(self.excuse())
        worst = int(np.argmax(np.abs(test.z) / test.threshold))
        return Verdict(
            count=self.count,
            directions=self.names,
            z=tuple(float(z) for z in test.z),
            threshold=float(test.threshold[worst]),
            detectable=test.detectable / norm,
            worst_parameter=leaf,
            worst_parameter_z=parameter_z,
        )

    def excuse(self) -> str:
        """Why it cannot tell, and what to try."""
        test, norm, detect, count = self.test, self.norm, self.detect, self.count
        if test.hopeless(detect * norm):
            limit = float((test.threshold[0] + POWER) * test.truth_stderr[0]) / norm
            return (
                f"expected to detect a bias of {detect:.2%} of ‖g*‖, but the truth "
                f"{self.truth.name!r} itself limits it to {limit:.2%}; use a more precise truth or "
                "a larger detect"
            )
        if test.detectable > detect * norm:
            reached = test.detectable / norm
            return (
                f"expected to detect a bias of {detect:.2%} of ‖g*‖, {count} samples reach "
                f"{reached:.2%}; raise max_count to about {count * (reached / detect) ** 2:.0f} or "
                "detect"
            )
        k = int(np.argmax(test.skew))
        return (
            f"samples too skewed along {self.names[k]!r} for a normal tail: |γ|z³/(3√N) is "
            f"{test.skew[k]:.2g}, at most 1 allowed, with {count} samples; raise max_count to "
            f"about {count * test.skew[k] ** 2:.0f} or false_alarm"
        )


def _worst_parameter(moments: Moments, truth: OracleGradient) -> tuple[str, float]:
    """The parameter with the largest |z|, over both standard errors."""
    worst, where = 0.0, ""
    own = moments.stderr()
    # of the truth's blocks: whoever took its moments need not have kept each parameter's
    draws = {} if truth.moments is None else contrasts(truth.moments)
    for name, mean in moments.mean.items():
        square = own[name].cpu().square().flatten()
        error = (square + draws[name].square().mean(0) if name in draws else square).sqrt()
        gap = (mean.cpu() - truth.mean[name].cpu()).flatten()
        z = torch.where(error > 0, gap / error.clamp(min=1e-300), 0.0)
        k = int(z.abs().argmax())
        if not where or abs(float(z[k])) > abs(worst):
            worst, where = float(z[k]), f"{name}[{k}]"
    return where, worst


def _norm(leaves: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(x.square().sum()) for x in leaves.values()))
