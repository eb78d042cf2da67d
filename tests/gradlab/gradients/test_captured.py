"""`compile="graph"` on a graph that needs no GPU: the numbers of a plain run, whatever is replayed.

The backend of `tests/helpers/graphs.py` repeats captured operations on the same memory, so that
inputs which are not copied in, outputs which the next replay overwrites and decisions that no
longer hold are seen here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.base import Estimator
from gradlab.foundation.errors import BadValue, Unavailable
from gradlab.foundation.graphs import TRIES, Cuda, Graphs
from gradlab.foundation.noise import Noise
from gradlab.gradients import captured
from gradlab.gradients.samples import Dense, Factored
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from tests.contracts.test_capture import BODIES, DRAWS
from tests.contracts.test_capture import ESTIMATORS as REGISTERED
from tests.contracts.test_policies import POLICIES
from tests.helpers.graphs import FakeBackend, FakeReplay, place
from tests.helpers.toy import toy_problem

COUNT = 8
# a rollout that begins at moments asks for their times on the CPU, and on a GPU nobody
ASKS = {"truncated-growth"}
WAITS = {"mixture-bias"}
ESTIMATORS = {name: one for name, one in REGISTERED.items() if name not in DRAWS | ASKS | WAITS}


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBackend]:
    fake = FakeBackend()
    monkeypatch.setattr(captured, "GRAPHS", Graphs(fake))
    monkeypatch.setattr(captured, "_OTHERS", set())
    yield fake


def setting(problem: Problem, seed: int, count: int = COUNT) -> tuple[dict[str, Tensor], Noise]:
    params = problem.init(torch.Generator().manual_seed(seed))
    return params, problem.draw(count, torch.Generator().manual_seed(seed + 100))


def agree(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """To the rounding of a sum of some hundred numbers in another order."""
    for name, value in a.items():
        eps = 100 * torch.finfo(value.dtype).eps
        gap = (value - b[name]).abs().max()
        assert gap <= eps * max(1.0, float(value.abs().max())), (name, float(gap))


def check(estimator: Estimator, problem: Problem, backend: FakeBackend, whole: bool) -> None:
    """Three settings: gradients, statistics, and that what was handed out stays as it is.

    Samples that are not `whole` are neither policy calls nor gradients: nothing is handed out.
    """
    graph = problem.replace(compile="graph")
    given = [setting(problem, seed) for seed in range(3)]
    plain = [estimator(problem, *each).per_sample() for each in given]
    handed = [estimator(graph, *each) for each in given]
    for expected, samples in zip(plain, handed, strict=True):
        agree(expected, samples.per_sample())
    sums = [  # the second and the third chunk begin in other blocks
        gradlab.measure(estimator, one, given[0][0], 3 * 16, 1, chunk_size=16).single
        for one in (problem, graph)
    ]
    agree(sums[0].mean, sums[1].mean)
    assert sums[1].count == sums[0].count
    assert sums[1].variance() == pytest.approx(sums[0].variance(), rel=1e-9)
    for kept in captured.GRAPHS._kept.values():
        assert isinstance(kept.replay, FakeReplay)
        alive = {place(part) for part in [*kept.inputs, *kept.held]}
        assert kept.replay.outside() <= alive  # or a GPU would read memory that was given away
    replays = [replay.count for replay in backend.replays]
    # samples: one graph; sums: one without a pilot and one with the pilot of the first chunk
    assert replays == [3 if whole else 1, 1, 2]


# a group, a sum, windows, weights; other mixtures take seconds each
FEW = ("fog", "pg-loo", "difference", "nstep-tiled", "mixture-fixed")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in FEW else pytest.mark.slow) for n in sorted(ESTIMATORS)],
)
def test_estimators(name: str, backend: FakeBackend) -> None:
    """Mixtures by layer or parameter are replayed with their statistics alone."""
    problem = toy_problem(horizon=2)
    estimator = ESTIMATORS[name]
    samples = estimator(problem, *setting(problem, 0))
    check(estimator, problem, backend, isinstance(samples, Factored | Dense))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    ["racing", "lq", *(pytest.param(n, marks=SLOW) for n in ("hovering", "landing", "tracking"))],
)
def test_problems(name: str, backend: FakeBackend) -> None:
    problem = gradlab.make(name, dtype=torch.float64, hidden=(6,))
    check(E.Split(0.1), problem.replace(horizon=min(problem.horizon, 2)), backend, True)


@pytest.mark.parametrize(
    "law", ["compliant", *(pytest.param(law, marks=SLOW) for law in BODIES if law != "compliant")]
)
def test_contact_laws(law: str, backend: FakeBackend) -> None:
    problem = gradlab.make("hopper", horizon=1, dtype=torch.float64, **BODIES[law])
    graph, given = problem.replace(compile="graph"), [setting(problem, seed) for seed in (0, 1)]
    handed = [E.FOG()(graph, *each) for each in given]
    for each, samples in zip(given, handed, strict=True):
        agree(E.FOG()(problem, *each).per_sample(), samples.per_sample())
    assert [replay.count for replay in backend.replays] == [2]


@pytest.mark.parametrize("name", ["normalised", "recurrent"])
def test_policies(name: str, backend: FakeBackend) -> None:
    problem = toy_problem(horizon=3).replace(policy=POLICIES[name])
    check(E.FOG(), problem, backend, True)


def test_buffers_are_inputs(backend: FakeBackend) -> None:
    """A normaliser's statistics change while a policy is trained: they are no constants."""
    problem = toy_problem(horizon=3).replace(policy=POLICIES["normalised"])
    params, noise = setting(problem, 0)
    buffers = problem.bind(params).buffers
    assert buffers
    for shift in (0.0, 0.5):
        moved = {
            name: value + shift if value.is_floating_point() else value
            for name, value in buffers.items()
        }
        other = problem.replace(buffers=moved)
        graph = other.replace(compile="graph")
        agree(
            E.FOG()(other, params, noise).per_sample(), E.FOG()(graph, params, noise).per_sample()
        )
    assert [replay.count for replay in backend.replays] == [2]


# ----------------------------------------------------------------------- what does not always hold


class Torn(E.FOG):
    """FOG that is lost where an episode begins far out."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        value = super().surrogate(problem, policy, noise)
        return value * torch.where(noise.initial[..., 0] > 1.5, torch.nan, 1.0)


def test_lost_samples_are_counted_as_without_graphs(backend: FakeBackend) -> None:
    problem = toy_problem(horizon=3)
    params, _ = setting(problem, 0)
    two = {"torn": Torn(), "pg": E.PG()}
    found = [
        gradlab.measure(two, one, params, 5 * 16, 1, chunk_size=16)
        for one in (problem, problem.replace(compile="graph"))
    ]
    assert found[0].lost == found[1].lost
    assert 0 < found[0].lost["torn"] < 5  # so that some chunks are whole
    for name in two:
        assert found[0][name].count == found[1][name].count
        agree(found[0][name].mean, found[1][name].mean)
    assert sum(replay.count for replay in backend.replays) > 2


def test_samples_that_are_always_lost_are_soon_run_as_they_are(backend: FakeBackend) -> None:
    """What is never captured is not tried again for every chunk, in three runs each."""
    problem = toy_problem(horizon=2).replace(compile="graph")
    params, noise = setting(problem, 0)
    far = noise._replace(initial=noise.initial.abs() + 2)
    runs = []

    class Counted(Torn):
        def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
            runs.append(1)
            return super().surrogate(problem, policy, noise)

    estimator = Counted()
    for _ in range(TRIES):
        assert captured.summed(estimator, problem, params, far, 0, None) is None
    tried = len(runs)
    assert captured.summed(estimator, problem, params, far, 0, None) is None
    assert len(runs) == tried and not backend.replays


def test_a_sum_is_captured_anew_where_its_calls_are_others(backend: FakeBackend) -> None:
    """Of one policy call or two, as the episodes have it; after three attempts without a graph."""
    problem = toy_problem(horizon=3)
    both = E.FOG() + Turned()
    graph = problem.replace(compile="graph")
    params, noise = setting(problem, 0)
    signs = [1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0, -1.0]
    for sign in signs:
        some = noise._replace(initial=sign * noise.initial.abs())
        agree(both(problem, params, some).per_sample(), both(graph, params, some).per_sample())
    assert len(backend.replays) == TRIES
    assert all(replay.released for replay in backend.replays)


class Turned(E.FOG):
    """FOG whose policy looks elsewhere in episodes that begin on the left."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        left = (noise.initial[..., :1] < 0).to(noise.initial)
        return super().surrogate(problem, policy, noise._replace(initial=noise.initial + left))


class Asking(E.FOG):
    """FOG that asks the device for a number."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        value = super().surrogate(problem, policy, noise)
        return value * float(noise.initial.sum() > -1e9)


@pytest.mark.parametrize(
    ("estimator", "says"),
    [
        (E.EvolutionStrategies(), "EvolutionStrategies draws random numbers on the host"),
        (REGISTERED["mixture-pilot"], r"a pilot \(Independent\) draws random numbers on the host"),
        (REGISTERED["mixture-bias"], "eigenvectors of three or more parts waits for the device"),
        (Asking(), "waits for the device"),
    ],
)
def test_what_cannot_be_captured_is_refused(estimator: Estimator, says: str) -> None:
    problem = toy_problem(horizon=2, dtype=torch.float64).replace(compile="graph")
    with pytest.raises(Unavailable, match=says):
        estimator(problem, *setting(problem, 0))


# --------------------------------------------------------------------------- which graphs there are


def test_graphs_are_bounded_and_released(
    backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "GRAPHS", Graphs(backend, most=2))
    problem = toy_problem(horizon=2).replace(compile="graph")
    for count in (2, 4, 2, 6):  # the one of 4 goes, as 2 was replayed later
        E.FOG()(problem, *setting(problem, 0, count))
    assert [replay.released for replay in backend.replays] == [False, True, False]
    gradlab.release_graphs()
    assert all(replay.released for replay in backend.replays) and len(captured.GRAPHS) == 0
    E.FOG()(problem, *setting(problem, 0, 2))
    assert len(backend.replays) == 4


def test_what_differs_has_a_graph_of_its_own(backend: FakeBackend) -> None:
    problem = toy_problem(horizon=2).replace(compile="graph")
    for estimator in (E.RelaxedFOG(0.1), E.RelaxedFOG(0.2), E.RelaxedFOG(0.2)):
        estimator(problem, *setting(problem, 0))
    assert len(backend.replays) == 2
    assert problem.critic is not None
    critic = replace(problem.critic, name="again")
    for other in (
        problem.replace(horizon=3),
        problem.replace(discount=0.9),
        problem.replace(dtype=torch.float32),
        problem.replace(critic=critic),
        problem,
    ):
        E.FOG()(other, *setting(other, 0))
    assert len(backend.replays) == 2 + 5
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if before == "high" else "high")
    try:
        E.FOG()(problem, *setting(problem, 0))
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(backend.replays) == 2 + 6


def test_parameters_in_another_order(backend: FakeBackend) -> None:
    """Two biases of one shape: a graph that goes by shapes alone would take one for the other."""
    problem = gradlab.make("lq", dtype=torch.float64, hidden=(5, 5)).replace(horizon=2)
    params, noise = setting(problem, 0)
    params = {name: value + 0.1 * k for k, (name, value) in enumerate(params.items())}
    one, two = (name for name, value in params.items() if value.shape == (5,))
    rest = {name: value for name, value in params.items() if name not in (one, two)}
    graph = problem.replace(compile="graph")
    for last in ((one, two), (two, one)):
        given = rest | {name: params[name] for name in last}
        expected = E.PG()(problem, given, noise).per_sample()
        agree(expected, E.PG()(graph, given, noise).per_sample())
        means = [
            gradlab.measure(E.PG(), either, given, 32, 1, chunk_size=16).single.mean
            for either in (problem, graph)
        ]
        agree(*means)


class Scaled(E.SurrogateEstimator):
    """An estimator of a user, with numbers that are changed between calls."""

    sign = 1.0

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        path = gradlab.rollout(problem, policy, noise)
        return self.sign * self.scale * gradlab.evaluate(problem, path).value.sum(-1)

    def call_weights(self, problem: Problem) -> Tensor:
        return torch.ones(problem.horizon)


def test_numbers_that_are_changed_are_seen(
    backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of estimators that are no dataclasses of their own, alone, in a sum, and of their class."""
    problem = toy_problem(horizon=2)
    params, noise = setting(problem, 0)
    estimator, graph = Scaled(1.0), problem.replace(compile="graph")
    for scale in (1.0, 2.0, 1.0):
        estimator.scale = scale
        for one in (estimator, Scaled(0.5 * scale), E.FOG() + Scaled(0.1 * scale)):
            expected = one(problem, params, noise).per_sample()
            agree(expected, one(graph, params, noise).per_sample())
    assert backend.replays[0].count == 2
    monkeypatch.setattr(Scaled, "sign", -1.0)
    expected = estimator(problem, params, noise).per_sample()
    agree(expected, estimator(graph, params, noise).per_sample())


def test_a_graph_is_found_under_any_mode(backend: FakeBackend) -> None:
    problem = toy_problem(horizon=2)
    params, noise = setting(problem, 0)
    expected = E.FOG()(problem, params, noise).per_sample()
    graph = problem.replace(compile="graph")
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            agree(expected, E.FOG()(graph, params, noise).per_sample())
    assert [replay.count for replay in backend.replays] == [3]


def test_samples_are_those_of_the_callers_parameters(backend: FakeBackend) -> None:
    """Sums of samples ask whether both are of the same parameters, by identity."""
    problem = toy_problem(horizon=2)
    params, noise = setting(problem, 0)
    graph = problem.replace(compile="graph")
    both = E.FOG()(graph, params, noise) + E.PG()(graph, params, noise)
    expected = E.FOG()(problem, params, noise) + E.PG()(problem, params, noise)
    assert type(both) is type(expected)
    agree(expected.per_sample(), both.per_sample())


def test_only_true_false_and_graph() -> None:
    with pytest.raises(BadValue, match='compile should be True, False or "graph"'):
        toy_problem().replace(compile="grahp")


def test_a_cpu_captures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "GRAPHS", Graphs())
    problem = toy_problem(horizon=2).replace(compile="graph")
    params, _ = setting(problem, 0)
    for run in (
        lambda: E.FOG()(problem, *setting(problem, 0)),
        lambda: gradlab.measure(E.FOG(), problem, params, 64, 1),
    ):
        with pytest.raises(Unavailable, match="graphs of a CUDA device, got device=.cpu.; use"):
            run()


def test_torch_takes_what_the_backend_gives() -> None:
    """`torch.cuda` itself needs a GPU; its signatures do not."""
    known: Any = inspect.signature(torch.cuda.graph.__init__).parameters
    assert {"cuda_graph", "pool", "stream"} <= set(known)
    for part in (
        "CUDAGraph",
        "Stream",
        "stream",
        "current_stream",
        "set_stream",
        "graph_pool_handle",
    ):
        assert callable(getattr(torch.cuda, part))
    for part in ("replay", "reset"):
        assert callable(getattr(torch.cuda.CUDAGraph, part))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Stand-ins for what needs a GPU. As in torch a pool is none any more once its graphs are gone,
    or a capture in it has failed, which also leaves another stream as the current one."""
    now = SimpleNamespace(said=[], stream=None, pools={}, broken=False)

    class Stream:
        def wait_stream(self, other: object) -> None:
            now.said.append((self is first, "waits for", other is first))

    class Graph:
        def replay(self) -> None:
            now.said.append("replay")

        def reset(self) -> None:
            now.pools[self.pool] -= 1

    @contextmanager
    def capturing(graph: Any, pool: Any = None, stream: Any = None) -> Iterator[None]:
        if now.pools[pool] == 0:
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        before, now.stream, graph.pool = now.stream, stream, pool
        now.said.append(("captures", stream is not first))
        try:
            yield
        except RuntimeError:
            now.pools[pool] = 0
            raise RuntimeError("previous error during capture") from None
        now.pools[pool] = (now.pools[pool] or 0) + 1
        now.stream = before

    def handle() -> int:
        now.pools[len(now.pools)] = None  # nothing has been captured there yet
        return len(now.pools) - 1

    first = now.stream = Stream()
    for name, part in {
        "Stream": Stream,
        "current_stream": lambda: now.stream,
        "set_stream": lambda stream: setattr(now, "stream", stream),
        "stream": lambda stream: nullcontext(),
        "graph_pool_handle": handle,
        "CUDAGraph": Graph,
        "graph": capturing,
        "current_device": lambda: 0,
    }.items():
        monkeypatch.setattr(torch.cuda, name, part)
    yield now


def test_the_backend_warms_up_and_captures_on_one_stream(cuda: SimpleNamespace) -> None:
    """Who waits for whom, one pool, and what is refused."""
    backend = Cuda()
    backend.check(torch.device("cuda"))
    with pytest.raises(Unavailable, match=r"try torch.cuda.set_device\(1\)"):
        backend.check(torch.device("cuda:1"))
    assert backend.warm(lambda: 3) == 3
    for _ in range(2):
        output, graph = backend.capture(lambda: 5)
        assert output == 5
        graph.replay()
    warm = [(False, "waits for", True), (True, "waits for", False)]
    assert cuda.said == [*warm, *2 * [("captures", True), "replay"]]
    assert cuda.pools == {0: 2}


def test_a_pool_whose_graphs_are_gone_is_not_taken_again(cuda: SimpleNamespace) -> None:
    """Torch asserts that there are some (CachingHostAllocator.h, `use_count > 0`)."""
    backend = Cuda()
    graphs = [backend.capture(lambda: 5)[1] for _ in range(2)]
    graphs[0].release()
    backend.capture(lambda: 5)[1].release()
    assert cuda.pools == {0: 1}
    graphs[1].release()
    for _ in range(2):
        graphs.append(backend.capture(lambda: 5)[1])
    assert cuda.pools == {0: 0, 1: 2}


@pytest.mark.parametrize("before", [0, 1])
def test_a_capture_that_fails_says_why_and_spoils_no_other(
    cuda: SimpleNamespace, before: int
) -> None:
    backend, stream = Cuda(), cuda.stream

    def fails() -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    backend.warm(lambda: 3)
    graphs = [backend.capture(lambda: 5)[1] for _ in range(before)]
    with pytest.raises(
        Unavailable, match=r"captured as a graph \(operation not .* capturing\); use"
    ):
        backend.capture(fails)
    assert cuda.stream is stream
    graphs.append(backend.capture(lambda: 5)[1])
    for graph in graphs:
        graph.release()
