"""A task with a policy, trained or new, and its truth by a large sample: flights, and a user's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

import estimators
from gradlab.foundation.errors import BadValue
from gradlab.gradients.sampling import block_generator
from gradlab.oracle import ORACLE_SEED, LargeSample
from gradlab.problems import registry
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.statistics.saving import from_tensors, to_tensors
from gradlab.study import Artefact, Saved, seed_for
from studies.shared import stages

UNTRAINED = 0  # the stage of a policy without training
POLICY_SEED = 0  # of that policy; the one that it is staler than has the next
TRUTH_WIDTH = 0.02  # of Split behind truths, as in `bias_vs_relaxation`
TRUTH_UNIT = 1024  # samples of a truth are whole multiples of it

Params = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Sampling:
    """How a truth is sampled."""

    estimator: str  # "split", or "pg", which holds where the simulator itself jumps
    stderr: float  # relative standard error that is asked for [1]
    samples: int  # episodes after which sampling stops in any case

    def check(self) -> None:
        """Raises `BadValue` for what cannot be sampled."""
        if not self.stderr > 0:
            raise BadValue(f"truth_stderr must be positive, got {self.stderr}; try 0.05")
        if self.samples < TRUTH_UNIT or self.samples % TRUTH_UNIT:
            near = max(1, round(self.samples / TRUTH_UNIT)) * TRUTH_UNIT
            raise BadValue(
                f"truth_samples must be a multiple of {TRUTH_UNIT}, got {self.samples}; try {near}"
            )


def check_stage(task: str, stage: int, option: str = "--stage") -> None:
    """Raises `BadValue` for a stage [%] that no policy of the task can be trained to."""
    if not 0 <= stage < 100:
        raise BadValue(f"{option[2:]} must be between 0 and 99 per cent, got {stage}; try 60")
    if stage == UNTRAINED:
        return
    try:  # a policy is trained until it succeeds so often
        stages.setting_of(task)
    except BadValue as error:
        raise BadValue(f"{error}, or {option} 0 for a policy without training") from None


# ------------------------------------------------------------------------------------ artefacts


def policy_artefacts(
    task: str, asked: Iterable[int], width: float, learning_rate: float
) -> Iterator[Artefact]:
    """The policies of a task that are trained ones, in one artefact."""
    if trained := [stage for stage in asked if stage != UNTRAINED]:
        yield stages.policies(task, 0, trained, width, learning_rate)


def policy_names(task: str, stage: int) -> tuple[str, ...]:
    """The artefact with the policy, if there is one."""
    return () if stage == UNTRAINED else (stages.policies_name(task),)


def truth_artefact(name: str, task: str, stage: int, sampling: Sampling) -> Artefact:
    """∇J of the hard task, under this name."""
    payload = {
        "task": task,
        "stage": stage,
        "estimator": sampling.estimator,
        "stderr": sampling.stderr,
        "samples": sampling.samples,
    }
    needs = policy_names(task, stage)
    return Artefact(name, sample_truth, payload, needs, cost=40.0)


def sample_truth(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """∇J of the hard task, by a large sample of Split or of PG."""
    payload = artefact.payload
    task, stage = payload["task"], payload["stage"]
    seed = seed_for(ORACLE_SEED, artefact.name)
    unbiased = sampler(payload["estimator"])
    oracle = LargeSample(unbiased, payload["stderr"], payload["samples"], seed=seed)
    truth = oracle(problem_of(task), policy_of(task, stage, needs))
    # a clock's reading would make the artefact differ from run to run
    return Saved(to_tensors(truth, compact=True), {"name": truth.name, "seconds": 0.0})


# -------------------------------------------------------------------------------- what they hold


def problem_of(task: str) -> Problem:
    """A flight as the studies set it, any other as `gradlab.make` does.

    Raises `UnknownName` or `Missing` for a task that `gradlab.make` does not know, `BadValue` for
    one whose events are relaxed.
    """
    if task in stages.FLIGHTS:
        return stages.problem_of(task)
    return stages.hard(task, registry.make(task))


def sampler(name: str) -> estimators.Split | estimators.PG:
    """The unbiased estimator of this name: "split" or "pg"."""
    return estimators.PG() if name == "pg" else estimators.Split(TRUTH_WIDTH)


def policy_of(task: str, stage: int, needs: Mapping[str, Saved]) -> Params:
    """The trained policy, or the one without training."""
    if stage == UNTRAINED:
        return _new(task, POLICY_SEED)
    return stages.read_policy(needs[stages.policies_name(task)], stage)


def older_policy(task: str, stage: int) -> Params:
    """What a policy may be stale towards: the one without training, or of that another one."""
    return _new(task, POLICY_SEED + (stage == UNTRAINED))


def _new(task: str, seed: int) -> Params:
    return problem_of(task).init(block_generator(seed, -1))


def read_truth(saved: Saved) -> OracleGradient:
    """The truth out of its artefact; those of `bias_vs_relaxation` have a prefix."""
    prefix = "|" if any(name.startswith("|") for name in saved.tensors) else ""
    return from_tensors(saved.tensors, saved.metadata, prefix)
