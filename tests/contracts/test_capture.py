"""Rollout, backward pass, factors and statistics of a chunk never wait for a device.

Nothing is read by the host, no shape depends on data and no tensor comes from the host, but where
`ALLOWED` says why: what is left could be captured as a graph of a GPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.base import Estimator
from gradlab.foundation.noise import Noise
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from tests.contracts.test_contracts import registered
from tests.contracts.test_policies import POLICIES
from tests.helpers import capture
from tests.helpers.capture import Found, watched
from tests.helpers.toy import toy_problem

# (file, function) and the reason. Nothing of it is in what `compile="graph"` captures: there the
# first answers for the host, and others are refused or are about numbers of the host.
ALLOWED = {
    ("gradlab/foundation/reading.py", "numbers"): "asked once, before a capture",
    ("gradlab/foundation/reading.py", "expected"): "asked once, before a capture",
    ("gradlab/foundation/reading.py", "same"): "asked once, before a capture",
    ("estimators/mixtures/mixture.py", "_check_parts"): "weights of calls are on the host",
    ("estimators/switch.py", "check"): "weights of calls are on the host",
    ("estimators/mixtures/least_error.py", "eigen"): "three parts are refused in a graph",
    ("estimators/evolution.py", "perturbations"): "every episode's seed makes its own directions",
    ("gradlab/problems/segment.py", "check_time"): "on the CPU alone: a GPU is not asked for times",
    ("gradlab/problems/problem.py", "draw"): "a pilot is drawn on the host, as all noise is",
}
# of the statistics, outside of what is captured: `summed(look=False)` waits for nothing
LOOKS = {
    ("gradlab/foundation/reading.py", "expected"): "rows are looked for only if some are lost",
    ("gradlab/statistics/accumulating.py", "sums"): "lost rows are counted, once a stream",
}
ESTIMATORS = registered()
PLAIN = ("fog", "pg", "qg", "nstep", "split", "relaxed_fog", "lambda_return", "zero_step")
DRAWS = {
    "mixture-pilot",
    "total-propagation-pilot",
    "evolution_strategies",
}  # on the host: whatever they drew comes from there
BODIES: dict[str, dict[str, Any]] = {
    "compliant": {"preset": "dflex", "contact": "compliant"},
    "smoothed": {"preset": "dflex", "contact": "smoothed"},
    "convex": {"preset": "gymnasium", "contact": "convex"},
    "brax": {"preset": "brax", "contact": "brax"},
}


def found(estimator: Estimator, problem: Problem) -> set[Found]:
    """What is not allowed, in one chunk; constants and checks of a first call come before it."""
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    estimator(problem, params, noise).moments()
    with watched() as waits:
        samples = estimator(problem, params, noise)
        samples.mean()
        pilot = samples.summed(look=False).pilot
        samples.summed(8, pilot, look=False, per_parameter=True)
    with watched() as looked:
        samples.moments()
    places = {one for one in waits if (one.file, one.function) not in ALLOWED}
    return places | {one for one in looked if (one.file, one.function) not in {**ALLOWED, **LOOKS}}


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_captured_needs_no_allowance(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain pullback: rollout, backward, factors and the statistics of a chunk."""
    monkeypatch.setattr("tests.contracts.test_capture.ALLOWED", {})
    assert not found(ESTIMATORS[name], toy_problem(switching=True, horizon=4))


def test_a_stream_waits_once_a_chunk() -> None:
    """For whether samples were lost; the pilot of a chunk is known to be that of the last."""
    problem = toy_problem(horizon=2)
    params = problem.init(torch.Generator().manual_seed(0))
    samples = E.FOG()(problem, params, problem.draw(12, torch.Generator().manual_seed(1)))
    samples.moments(chunk_size=4)
    with watched() as waits:
        samples.moments(chunk_size=4)
    assert {(one.file, one.function) for one in waits} <= LOOKS.keys()


@pytest.mark.parametrize("switching", [False, True])
@pytest.mark.parametrize("name", sorted(ESTIMATORS.keys() - DRAWS))
def test_estimators(name: str, switching: bool) -> None:
    assert not found(ESTIMATORS[name], toy_problem(switching=switching, horizon=4))


@pytest.mark.parametrize("name", ["hovering", "racing", "landing", "tracking", "lq", "gate"])
def test_problems(name: str) -> None:
    """`Split` relaxes events, judges hard ones and reads scores."""
    problem = gradlab.make(name)
    assert not found(E.Split(0.1), problem.replace(horizon=min(problem.horizon, 3)))


@pytest.mark.parametrize("name", POLICIES)
def test_policies(name: str) -> None:
    """And weights by step, whose parts may be of any policy."""
    problem = toy_problem(horizon=4).replace(policy=POLICIES[name])
    by_step = E.Mixture((E.FOG(), E.PG()), E.InverseVariance(), "step", E.Same(8))
    for estimator in (E.FOG(), E.Split(0.1), E.FOG() + E.PG(), by_step):
        assert not found(estimator, problem), estimator.label


@pytest.mark.parametrize(
    ("rule", "level"),
    [(E.BestLinear(), "step"), (E.BestLinear(nonnegative=True), "layer")],
)
def test_two_parts_need_no_eigenvectors(
    rule: Any, level: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor each alone; by step, parts that vary little in single precision are formed again."""
    monkeypatch.delitem(ALLOWED, ("estimators/mixtures/least_error.py", "eigen"))
    problem = toy_problem(horizon=4, dtype=torch.float32)
    assert not found(E.Mixture((E.FOG(), E.PG()), rule, level, E.Same(8)), problem)


@pytest.mark.parametrize("law", BODIES)
def test_contact_laws(law: str) -> None:
    assert not found(E.FOG(), gradlab.make("hopper", horizon=1, **BODIES[law]))


class Waiting(E.FOG):
    """FOG that asks for a number, a mask and a table of the host on its way."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        value = super().surrogate(problem, policy, noise)
        some = value[value < 9.0]
        table = torch.ones(len(value), dtype=value.dtype)
        return value * torch.tensor([1.0], dtype=value.dtype) * table * bool(some.sum() < 9.0)


SQUARE = torch.eye(3, dtype=torch.float64)
WAIT = {
    "tolist": SQUARE.tolist,
    "nonzero": lambda: torch.where(SQUARE > 0),
    "allclose": lambda: torch.allclose(SQUARE, SQUARE),
    "repeat_interleave": lambda: SQUARE.repeat_interleave(torch.ones(3, dtype=torch.long), 0),
    "unique_consecutive": lambda: torch.unique_consecutive(SQUARE),
    "new_tensor": lambda: SQUARE.new_tensor([1.0]),
    "_linalg_check_errors": lambda: torch.linalg.inv(SQUARE),
    "_linalg_eigh": lambda: torch.linalg.eigvalsh(SQUARE),
    "_linalg_svd": lambda: torch.linalg.matrix_rank(SQUARE),
    "linalg_pinv": lambda: torch.linalg.pinv(SQUARE),
}


@pytest.mark.parametrize("kind", WAIT)
def test_operations_that_wait_within_themselves_are_found(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU; here they ask nothing."""
    monkeypatch.setattr(capture, "PACKAGES", ("tests/",))
    with watched() as waits:
        WAIT[kind]()
    assert kind in {one.what for one in waits}


def test_what_would_wait_is_found() -> None:
    kinds = {one.what for one in found(Waiting(), toy_problem(horizon=2))}
    assert {"tensor", "_local_scalar_dense", "a list or a mask as an index"} <= kinds
    assert "a tensor of the host in mul" in kinds
