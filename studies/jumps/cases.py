"""The objectives that are tested: a problem and a policy each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

import gradlab
from gradlab.foundation.errors import UnknownName
from gradlab.gradients.sampling import block_generator
from gradlab.problems.problem import Problem
from gradlab.study import Saved
from studies.shared import stages

STAGE = 60  # success rate of the flights' policies [%]
WIDTH = 0.3  # of relaxed flights, fraction of each margin's scale
HIDDEN = (32, 32)  # layers of the runners' random policy
POLICY_SEED = 0

Params = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One objective, and what is known of it before anything is measured."""

    name: str
    family: str  # known, flight or runner
    task: str
    built: str  # by construction: smooth, jumps, or open where either may be
    relaxed: bool = False  # of flights
    preset: str = ""  # of runners
    contact: str = ""  # of runners

    def problem(self, horizon: int) -> Problem:
        """The problem; the horizon [steps] is that of runners, others have their own."""
        if self.family == "known":
            return gradlab.make(self.task, dtype=torch.float64)
        if self.family == "flight":
            hard = stages.problem_of(self.task)
            return hard.relaxed(WIDTH) if self.relaxed else hard
        return gradlab.make(
            self.task, preset=self.preset, contact=self.contact, horizon=horizon, hidden=HIDDEN
        )

    def policy(self, problem: Problem, trained: Saved | None) -> Params:
        """A skewed one of known-answer problems, a trained one of flights, a random runner."""
        if self.family == "known":
            return problem.reference
        if trained is not None:
            return stages.read_policy(trained, STAGE)
        return problem.init(block_generator(POLICY_SEED, -1))


def _cases() -> tuple[Case, ...]:
    smooth = ("quadratic", "lq", "soft_heaviside")
    hard = ("heaviside", "ball_with_wall", "momentum_transfer", "gate", "terminal_gate")
    flights = ("landing", "racing", "hovering")
    runners = itertools.product(
        ("hopper", "ant"), ("dflex", "gymnasium"), ("compliant", "smoothed", "convex")
    )
    return (
        *(Case(name, "known", name, built="smooth") for name in smooth),
        *(Case(name, "known", name, built="jumps") for name in hard),
        *(Case(name, "flight", name, built="jumps") for name in flights),
        *(Case(f"{n}-relaxed", "flight", n, built="smooth", relaxed=True) for n in flights),
        # a runner's fall is a hard event, whatever its contact
        *(
            Case(f"{name}-{preset}-{contact}", "runner", name, "open", False, preset, contact)
            for name, preset, contact in runners
        ),
    )


CASES = {case.name: case for case in _cases()}


def case_of(name: str) -> Case:
    """The case of a name; raises `UnknownName`."""
    if name not in CASES:
        raise UnknownName("case", name, CASES)
    return CASES[name]
