"""What an estimator says that it costs is what it asks of the simulator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import estimators as E
from gradlab.simulators.base import Simulator
from tests.contracts.test_contracts import COUNT, posed, registered


class Counting:
    """A simulator that counts the steps of episodes that it is asked for."""

    def __init__(self, simulator: Simulator) -> None:
        self.inside, self.steps = simulator, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inside, name)

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        self.steps += len(state)
        return self.inside.step(state, action, noise)


COMBINATIONS = {
    "fog + pg": E.FOG() + E.PG(),
    "pg + (qg + fog)": E.PG() + (E.QG() + E.FOG()),
    "qg - pg": E.QG() - E.PG(),
    "nstep + qg": E.NStep(2, starts="tiled") + E.QG(),
    "first window + pg": E.NStep(2) + E.PG(),
    "two first-order": E.FOG() + E.NStep(3, starts="tiled"),
    "relaxed + pg": E.RelaxedFOG() + E.PG(),
    "separate": E.Mixture((E.FOG(), E.PG()), E.InverseVariance(), "global", E.Same(8), "separate"),
}


@pytest.mark.parametrize("name", [*registered(), *COMBINATIONS])
def test_cost_is_what_the_simulator_is_asked_for(name: str) -> None:
    """Environment steps as declared, with those that the parts of a combination share."""
    estimator = COMBINATIONS[name] if name in COMBINATIONS else registered()[name]
    if "Independent" in str(getattr(estimator, "source", "")) or name.startswith("evolution"):
        pytest.skip("runs its pilot in every call, or episodes one by one")
    problem, params = posed("toy")
    noise = problem.draw(COUNT, torch.Generator().manual_seed(1))
    estimator(problem, params, noise)  # the first call checks that samples are independent
    counting = Counting(problem.simulator)
    estimator(problem.replace(simulator=counting), params, noise)
    assert counting.steps == COUNT * estimator.cost(problem).environment_steps
