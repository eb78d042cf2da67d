"""Trainings as chains of artefacts: each is the state after so many updates, from the one before.

A study that is stopped goes on from the last state of every training that it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

import estimators
import gradlab
from gradlab.foundation.placement import device
from gradlab.problems.problem import Problem
from gradlab.study import Artefact, Saved
from gradlab.tasks.flight import PARTS
from gradlab.training.algorithm import Algorithm
from gradlab.training.critic import CriticRecipe
from gradlab.training.loop import init, update
from gradlab.training.optimiser import Adam
from gradlab.training.schedule import Schedule
from gradlab.training.state import TrainingState
from studies.parameter_residual.config import ALL, Config

METHODS = ("nstep", "abpt")  # without the 0-step return, with it
NONE = "none"  # nothing detached
BETAS, MAX_NORM, STD = (0.7, 0.95), 0.5, 0.2  # of `studies.train` on flights

Needs = Mapping[str, Saved]


class Arm(NamedTuple):
    """One kind of training."""

    method: str  # of METHODS
    part: str  # of the reward that is detached, or NONE
    other: bool = False  # the same policy at first, then other random numbers

    @property
    def name(self) -> str:
        return f"{self.method}-{self.part}" + ("-other" if self.other else "")


FULL = Arm("nstep", NONE)


@dataclass(frozen=True)
class Sizes:
    """What all trainings of a run have in common."""

    updates: int
    episodes: int
    length: int
    horizon: int
    hidden: tuple[int, ...]
    learning_rate: float
    last_learning_rate: float
    critic_learning_rate: float
    passes: int
    minibatches: int
    target_keep: float

    @staticmethod
    def of(config: Config | Mapping[str, Any]) -> Sizes:
        """Out of the options, or out of an artefact's payload."""
        given = config if isinstance(config, Mapping) else asdict(config)
        found = {name: given[name] for name in Sizes.__dataclass_fields__}
        return Sizes(**{**found, "hidden": tuple(found["hidden"])})

    def problem(self, part: str = NONE) -> Problem:
        """Hovering with a part of the reward detached."""
        detached = {NONE: (), ALL: PARTS}.get(part, (part,))
        policy = gradlab.GaussianPolicy(hidden=self.hidden, std="global", initial_std=STD)
        return gradlab.make("hovering", horizon=self.horizon, policy=policy, detached=detached)

    def estimator(self, method: str) -> estimators.NStep | estimators.ABPT:
        """The n-step return, without or with the 0-step return."""
        return (estimators.ABPT if method == "abpt" else estimators.NStep)(self.length)

    def algorithm(self, method: str) -> Algorithm:
        """Two Q critics, of which the smaller counts, and Adam."""
        critic = CriticRecipe(
            kind="q",
            hidden=self.hidden,
            members=2,
            optimiser=Adam(self.critic_learning_rate, BETAS, max_norm=MAX_NORM),
            passes=self.passes,
            minibatches=self.minibatches,
            keep=self.target_keep,
        )
        rate = Schedule(self.learning_rate, self.last_learning_rate)
        return Algorithm(
            self.estimator(method),
            critic,
            Adam(rate, BETAS, max_norm=MAX_NORM),
            "own",
            self.episodes,
            self.length,
            self.updates,
        )


def stages(config: Config, number: int, seeds: tuple[int, int], arm: Arm) -> Iterator[Artefact]:
    """The training of an arm with seed number `number`: its states at all checkpoints.

    `seeds` are that of the policy and all noise, and that of other noise.
    """
    every = config.updates // config.checkpoints
    sizes = asdict(Sizes.of(config))
    for until in checkpoints(config):
        before = (stage_name(number, arm, until - every),) if until > every else ()
        payload = {**sizes, **arm._asdict(), "seeds": list(seeds), "until": until}
        steps = every * config.length * config.episodes
        yield Artefact(
            stage_name(number, arm, until), train_stage, payload, before, 0.2 + steps / 1e4
        )


def checkpoints(config: Config) -> list[int]:
    """The numbers of updates after which trainings are compared."""
    every = config.updates // config.checkpoints
    return list(range(every, config.updates + 1, every))


def stage_name(number: int, arm: Arm, until: int) -> str:
    return f"trainings/{number}-{arm.name}/{until}"


def train_stage(artefact: Artefact, needs: Needs) -> Saved:
    """From the state before, or from new parameters, to that after `until` updates."""
    payload = artefact.payload
    sizes, (seed, other) = Sizes.of(payload), payload["seeds"]
    problem, algorithm = sizes.problem(payload["part"]), sizes.algorithm(payload["method"])
    if artefact.needs:
        state = TrainingState.unpacked(needs[artefact.needs[0]], device())
    else:
        state = init(problem, algorithm, seed)
        if payload["other"]:
            state = state._replace(seed=torch.tensor(other))
    while int(state.updates) < payload["until"]:
        state, _ = update(problem, algorithm, state)
    return state.packed()
