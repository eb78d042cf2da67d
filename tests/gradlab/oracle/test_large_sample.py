"""LargeSample decides its count before it draws, and truths know the episodes they come from."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Dense, GradientSamples
from gradlab.oracle import FiniteDifference, LargeSample
from gradlab.problems.problem import Problem
from gradlab.statistics import Moments, OracleGradient, compare, compare_pair
from gradlab.statistics.pairs import CrossMoments
from gradlab.statistics.saving import from_tensors, to_tensors
from gradlab.statistics.streams import Stream, joined, shared
from tests.helpers.known import build

SPREAD = 7.2  # of one sample; a truth of length 1


@dataclass(frozen=True)
class Along:
    """One parameter whose samples are 1 + 7.2 ε; from call number `turn` on they are another's."""

    turn: float = math.inf
    other: float = 1.0
    calls: list[int] = field(default_factory=list)
    group: int = 1
    label: str = "along"

    def __call__(
        self, problem: Problem, params: dict[str, Tensor], noise: Noise
    ) -> GradientSamples:
        self.calls.append(noise.count)
        scale = self.other if len(self.calls) > self.turn else 1.0
        return Dense({"w": scale * (1.0 + SPREAD * noise.action[:, 0, :1])})


def tiny() -> tuple[Problem, dict[str, Tensor]]:
    return build("heaviside")


def test_the_count_knows_nothing_of_the_samples() -> None:
    """Samples after the pilot may be anything:
    the count is that of the pilot, N = 1.1 n (r/r*)².
    """
    problem, params = tiny()
    oracle = LargeSample(Along(), 0.2, batch=1024, replicate=1, chunk_size=1024)
    plain = oracle(problem, params)
    calls = oracle.estimator.calls  # pyright: ignore[reportAttributeAccessIssue]
    turned = dataclasses.replace(oracle, estimator=Along(turn=1, other=100.0))(problem, params)
    assert turned.count == plain.count != 1024
    assert float(turned.mean["w"]) == pytest.approx(100 * float(plain.mean["w"]))
    # one pilot of 1,024 episodes was enough, and is in no statistic
    assert calls[0] == 1024 and sum(calls) == 1024 + plain.count
    assert plain.streams == (Stream(oracle.seed, 0, plain.count, problem.name),)


@pytest.mark.slow
@pytest.mark.statistical
def test_the_squared_length_is_not_lengthened() -> None:
    """1,500 truths at 20 %: ‖ĝ*‖² − tr Σ/N is 1 on average. To stop at the first of 20 looks
    that is precise enough gives 1.04 and more, which the same test must see."""
    problem, params = tiny()
    lengths, stopped = [], []
    for seed in range(1500):
        truth = LargeSample(Along(), 0.2, batch=1024, replicate=1, seed=seed)(problem, params)
        lengths.append(truth.squared_norm)
        noise = next(gradlab.noise_stream(problem, 8192, seed + 10**6, 8192))
        values = 1.0 + SPREAD * noise.action[:, 0, 0].double()
        count = torch.arange(64, 8193, 64)
        mean = values.cumsum(0)[count - 1] / count
        error = SPREAD**2 / count
        fine = error <= 0.04 * (mean**2 - error)
        first = int(fine.nonzero()[0]) if fine.any() else -1
        stopped.append(float(mean[first] ** 2 - error[first]))

    def z(values: list[float]) -> float:
        x = torch.tensor(values, dtype=torch.float64)
        return float((x.mean() - 1) / (x.std() / len(x) ** 0.5))

    assert abs(z(lengths)) < 4  # 6e-5
    assert z(stopped) > 4


def test_every_truth_can_be_compared_with() -> None:
    """A batch of 64 episodes was 4 means of 16, and `compare` needs 5 blocks."""
    problem, params = build("lq")
    truth = LargeSample(E.FOG(), 0.9, batch=64)(problem, params)
    assert truth.count >= 64
    samples = gradlab.measure(E.FOG(), problem, params, 256, seed=0).single
    assert compare(samples, truth).overall.relative_bias.low >= 0
    with pytest.raises(BadValue, match="max_count >= 80"):
        LargeSample(E.FOG(), max_count=64)(problem, params)
    least = LargeSample(E.FOG(), 1e-9, max_count=80)(problem, params)
    compare(samples, least)


def test_a_truth_from_the_same_stream_is_refused() -> None:
    """With the same samples on both sides every test passes, biased or not."""
    problem, params = build("lq")
    truth = LargeSample(E.FOG(), 0.2, seed=3)(problem, params)
    with pytest.raises(BadValue, match="comes from the stream that this test draws"):
        gradlab.testing.assert_unbiased(E.FOG(), problem, params, truth, detect=0.9, seed=3)
    samples = gradlab.measure(E.FOG(), problem, params, 256, seed=3).single
    message = f"same stream .seed 3, episodes 0 to 255 of {problem.name}.*another seed"
    with pytest.raises(BadValue, match=message):
        compare(samples, truth)
    independent = OracleGradient.exact(truth.mean, "formula")
    with pytest.raises(BadValue, match="same stream"):
        compare(samples, independent, OracleGradient.sampled(samples, "target"))
    with pytest.raises(BadValue, match="same stream"):
        compare_pair(CrossMoments(samples, samples), truth)
    difference = FiniteDifference(count=64, steps=(0.2, 0.1, 0.05), seed=3)(problem, params)
    with pytest.raises(BadValue, match="same stream"):
        compare(samples, difference)


def test_the_same_samples_without_a_stream_are_refused() -> None:
    """What was a ZeroDivisionError."""
    x = torch.randn(256, 4, generator=gradlab.generator("same"), dtype=torch.float64)
    moments = Moments.of({"w": x})
    with pytest.raises(BadValue, match="the same samples; use another seed"):
        compare(moments, OracleGradient.sampled(moments, "itself"))


def test_nothing_but_nan() -> None:
    """What was an IndexError."""
    moments = Moments.of({"w": torch.full((64, 4), torch.nan, dtype=torch.float64)})
    truth = OracleGradient.exact({"w": torch.ones(4, dtype=torch.float64)}, "ones")
    with pytest.raises(BadValue, match=r"got 0 \(64 replicates were not finite\)"):
        compare(moments, truth)


def test_streams_are_joined_kept_and_saved() -> None:
    problem, params = build("lq")
    pieces = [
        gradlab.measure(
            E.FOG(), problem, params, end, seed=9, begin=begin, pilots={"FOG": params}
        ).single
        for begin, end in ((0, 64), (64, 128), (256, 320))
    ]
    both = pieces[1].merge(pieces[2]).merge(pieces[0])
    assert both.streams == (Stream(9, 0, 128, problem.name), Stream(9, 256, 320, problem.name))
    assert both.split()[0].streams == both.streams
    truth = OracleGradient.sampled(both, "pieces")
    back = from_tensors(to_tensors(truth), {"name": "pieces", "seconds": 0.0})
    assert back.streams == truth.streams
    old = {n: x for n, x in to_tensors(truth).items() if "norm_m3" not in n and n != "streams"}
    old = {name: x for name, x in old.items() if "norm_m4" not in name}
    assert from_tensors(old, {"name": "pieces", "seconds": 0.0}).streams == ()


def test_what_streams_share() -> None:
    a, b = Stream(1, 0, 64, "hard"), Stream(1, 32, 96, "relaxed")
    assert shared([a], [b]) == Stream(1, 32, 64, "hard")
    assert shared([a], [b._replace(seed=2)]) is None
    assert shared([a], [b._replace(begin=64)]) is None
    assert joined([b, a]) == (a, b)
