"""`measure`: several estimators on the same episodes, against the obvious loop over chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.base import Estimator
from gradlab.foundation.errors import BadShape, BadValue, UnknownName
from gradlab.foundation.noise import Noise
from gradlab.gradients.engines import Context
from gradlab.gradients.samples import Dense, GradientSamples
from gradlab.problems.problem import Problem
from gradlab.statistics import CrossMoments, Moments, PairRow, Row

F64 = torch.float64


@pytest.fixture(scope="module")
def gate() -> tuple[Problem, dict[str, Tensor]]:
    problem = gradlab.make("gate", dtype=F64)
    return problem, problem.reference


def same(a: Moments, b: Moments) -> None:
    assert torch.equal(a.block_count, b.block_count) and a.nonfinite == b.nonfinite
    for name, total in a.block_sum.items():
        assert torch.equal(total, b.block_sum[name])
    for part, value in a.norm_m2.items():
        assert torch.equal(value, b.norm_m2[part])


def near(a: Moments, b: Moments) -> None:
    """Up to the order of float64 sums."""
    assert torch.equal(a.block_count, b.block_count) and a.nonfinite == b.nonfinite
    for name, total in a.block_sum.items():
        torch.testing.assert_close(total, b.block_sum[name], rtol=1e-12, atol=1e-13)
    for part, value in a.norm_m2.items():
        torch.testing.assert_close(value, b.norm_m2[part], rtol=1e-11, atol=0)


def numbers(row: Row | PairRow) -> list[float]:
    return [x for x in row.flat().values() if isinstance(x, float | int)]


def by_hand(
    estimator: Estimator, problem: Problem, params: dict[str, Tensor], chunks: list[Noise]
) -> Moments:
    total, done = None, 0
    for noise in chunks:
        samples = estimator(problem, params, noise)
        pilot = None if total is None else total.pilot
        piece = Moments.of(samples.per_sample(), done, pilot, group=samples.group)
        total = piece if total is None else total.merge(piece)
        done += noise.count
    assert total is not None
    return total


def test_the_same_bits_as_each_alone(gate: tuple[Problem, dict[str, Tensor]]) -> None:
    several = [E.FOG(), E.PG(baseline="loo", group_size=20), E.Split(0.2)]
    measured = gradlab.measure(several, *gate, 200, seed=3, chunk_size=60)
    chunks = list(gradlab.noise_stream(gate[0], 200, 3, 60))
    assert list(measured.moments) == [one.label for one in several]
    for one in several:
        near(measured[one.label], by_hand(one, *gate, chunks))
        alone = gradlab.measure(one, *gate, 200, seed=3, chunk_size=60)
        same(measured[one.label], alone.single)
        assert alone.single.streams == ((3, 0, 200, "gate"),)
        assert measured.seconds[one.label] > 0 and measured.lost[one.label] == 0


def test_a_pair_is_that_of_cross_moments(gate: tuple[Problem, dict[str, Tensor]]) -> None:
    truth = gradlab.oracle.ClosedForm()(*gate)
    measured = gradlab.measure({"a": E.FOG(), "b": E.Split(0.2)}, *gate, 640, seed=1)
    cross = None
    for k, noise in enumerate(gradlab.noise_stream(gate[0], 640, 1, 256)):
        dense = [one(*gate, noise).per_sample() for one in (E.FOG(), E.Split(0.2))]
        pilots = None if cross is None else cross.pilots
        piece = CrossMoments.of(*dense, start=256 * k, pilots=pilots)
        cross = piece if cross is None else cross.merge(piece)
    assert cross is not None
    expected = gradlab.compare_pair(cross, truth).overall
    found = measured.compare_pair("a", "b", truth).overall
    assert numbers(found) == pytest.approx(numbers(expected), rel=1e-9, nan_ok=True)
    alone = gradlab.compare(cross.second, truth).overall
    found = measured.compare(truth)["b"].overall
    assert numbers(found) == pytest.approx(numbers(alone), rel=1e-9, nan_ok=True)


@dataclass(frozen=True)
class Losing(E.FOG):
    """FOG that loses every seventh sample of a chunk."""

    @property
    def label(self) -> str:
        return "losing"

    def sample(
        self, problem: Problem, params: dict[str, Tensor], noise: Noise, context: Context
    ) -> GradientSamples:
        rows = super().sample(problem, params, noise, context).per_sample()
        lost = (torch.arange(noise.count) % 7 == 0).nonzero()[:, 0]
        return Dense({n: x.index_fill(0, lost, torch.nan) for n, x in rows.items()})


def test_what_one_loses_all_lose(gate: tuple[Problem, dict[str, Tensor]]) -> None:
    """Also groups that a lost sample is in; each says how many it lost by itself."""
    several = [Losing(), E.FOG(), E.PG(baseline="loo", group_size=10)]
    measured = gradlab.measure(several, *gate, 140, seed=0, chunk_size=140)
    assert measured.lost == {"losing": 20, "FOG": 0, several[2].label: 0}
    assert measured["FOG"].nonfinite == measured["losing"].nonfinite == 20
    assert measured[several[2].label].count == 0  # every ten samples have one in seven
    same(measured["FOG"], measured["losing"])
    assert gradlab.measure(E.FOG(), *gate, 140, seed=0).single.nonfinite == 0
    assert "20 not finite" in repr(measured)


def test_progress_and_parts(
    gate: tuple[Problem, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    whole = gradlab.measure(E.FOG(), *gate, 100, seed=0, chunk_size=32, progress=seen.append)
    assert seen == [32, 64, 96, 100] and not capsys.readouterr().err
    gradlab.measure(E.FOG(), *gate, 100, seed=0, progress=True)
    assert "100/100" in capsys.readouterr().err
    first = gradlab.measure(E.FOG(), *gate, 60, seed=0)
    rest = gradlab.measure(
        E.FOG(), *gate, 100, seed=0, begin=60, pilots={"FOG": first["FOG"].pilot}
    )
    both = first.single.merge(rest.single)
    for name, mean in whole.single.mean.items():
        torch.testing.assert_close(both.mean[name], mean, rtol=1e-12, atol=1e-15)


MISTAKES: dict[str, Callable[..., object]] = {
    "expected estimators with different labels, got 'FOG' twice": lambda *at: gradlab.measure([E.FOG(), E.FOG()], *at, 8, 0),
    "expected at least one estimator": lambda *at: gradlab.measure([], *at, 8, 0),
    "multiples of the estimator's group of 20": lambda *at: gradlab.measure([E.FOG(), E.PG(baseline="loo", group_size=20)], *at, 30, 0),
    "an empty stream": lambda *at: gradlab.measure(E.FOG(), *at, 8, 0, begin=8),
    "expected a measurement of one estimator, got 2": lambda *at: gradlab.measure([E.FOG(), E.PG()], *at, 8, 0).single,
}  # fmt: skip


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_one_line(message: str, gate: tuple[Problem, dict[str, Tensor]]) -> None:
    with pytest.raises(BadValue, match=message) as caught:
        MISTAKES[message](*gate)
    assert "\n" not in str(caught.value)


def test_names_that_are_not_there(gate: tuple[Problem, dict[str, Tensor]]) -> None:
    measured = gradlab.measure([E.FOG(), E.PG(baseline="loo", group_size=4)], *gate, 640, seed=0)
    with pytest.raises(UnknownName, match="FOG"):
        measured["FGO"]
    truth = gradlab.oracle.ClosedForm()(*gate)
    with pytest.raises(BadShape, match="same samples"):
        measured.compare_pair("FOG", next(n for n in measured.moments if n != "FOG"), truth)


@pytest.fixture
def own_generator() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


class Clock:
    """A clock that only what is timed moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr("gradlab.gradients.measurement.time", clock)


@dataclass(frozen=True)
class Ticking:
    """FOG that takes 1 ms for an episode, and 1000 s more for the first call."""

    clock: Clock
    calls: list[int]
    group: int = 1
    label: str = "ticking"

    def __call__(
        self, problem: Problem, params: dict[str, Tensor], noise: Noise
    ) -> GradientSamples:
        self.clock.now += 1e-3 * noise.count + (0.0 if self.calls else 1000.0)
        self.calls.append(noise.count)
        torch.rand(1)
        return E.FOG()(problem.eager, params, noise)


@pytest.mark.usefixtures("own_generator")
@pytest.mark.parametrize(
    ("count", "chunk", "compiled", "calls", "warm"),
    [
        (70, 20, False, [20, 20, 20, 10], True),  # the first chunk is the warm-up
        (70, 20, True, [20, 20, 20, 10], True),
        (200, 256, False, [2, 200], True),
        (300, 256, False, [2, 256, 44], True),
        (198, 256, False, [198], False),  # two more were over 1 %
        (200, 256, True, [200], False),  # two more were another graph
    ],
)
def test_a_first_call_that_is_slow_is_not_charged(
    count: int, chunk: int, compiled: bool, calls: list[int], warm: bool,
    gate: tuple[Problem, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each of two estimators is as fast as the other, nothing else runs, and torch's generator is
    where the measurement alone leaves it."""
    problem, params = gate
    problem = problem.replace(compile=compiled)
    clock = Clock(monkeypatch)
    one, two = Ticking(clock, []), Ticking(clock, [], label="two")
    torch.manual_seed(1)
    measured = gradlab.measure([one, two], problem, params, count, 0, chunk_size=chunk)
    after = torch.rand(1)
    assert one.calls == two.calls == calls
    expected = 1e-3 if warm else 1e-3 + 1000.0 / count
    assert list(measured.seconds.values()) == pytest.approx([expected] * 2, rel=1e-9)
    torch.manual_seed(1)
    for _ in range(2 * len([n for n in calls if n > 2])):
        torch.rand(1)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.usefixtures("own_generator")
def test_a_warm_up_is_a_whole_group(
    gate: tuple[Problem, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Ticking(Clock(monkeypatch), [], group=4)
    gradlab.measure(one, *gate, 400, 0, chunk_size=400)
    assert one.calls == [4, 400]
