"""Policies along a training path, and the critics that belong to them, for `loss_landscape`.

Landing and racing have committed policies by success rate (`studies.shared.stages`); they are used
as they are. Every other problem that `gradlab.make` knows is trained here: seeded Adam ascent by
the first-order gradient, kept every few updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

import gradlab
from gradlab.critics.fitted import Fit, FittedCritic
from gradlab.critics.fitting import fit_critic
from gradlab.foundation.errors import Unavailable
from gradlab.gradients.sampling import block_generator, noise_stream
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.passage import CompilesItself
from gradlab.simulators.articulated.variants import RUNNERS
from gradlab.simulators.quadrotor import Quadrotor
from gradlab.study import Artefact, Saved, file_name, seed_for
from gradlab.study.progress import note
from studies.shared import stages
from studies.shared.borrowed import COMMITTED, borrowed

Params = dict[str, Tensor]

STAGED = ("landing", "racing")  # tasks whose committed policies are used, by success rate [%]
COMMAND = "python -m studies.loss_landscape --retrain"

UPDATES = 120  # length of a training path
KEEP_EVERY = 10  # updates
LEARNING_RATE = 5e-4
WIDTH = 0.3  # of the relaxation that is trained on, fraction of each margin's scale
EVALUATED = 1024  # episodes behind the mean return of each policy of a path
# One action per episode has more noise, so that ∂Q/∂a is learnt: see `Fit`.
FIT = Fit(exploration=0.3, episodes=16_000, steps=2000)


def problem_of(task: str) -> Problem:
    """The problem of a task as this study sets it; a runner may name its preset, as in "ant-dflex".

    Raises `UnknownName`.
    """
    if task in STAGED:
        return stages.problem_of(task)
    runner, _, preset = task.partition("-")
    named = bool(preset) and runner in RUNNERS
    problem = gradlab.make(runner, preset=preset) if named else gradlab.make(task)
    if isinstance(problem.simulator, Quadrotor):
        # observations are divided by 10, so the default first layer would hardly see them
        policy = GaussianPolicy(problem.task.observation_dim, 4, input_gain=10.0)
        problem = problem.replace(policy=policy)
    return problem


def compiled(problem: Problem) -> Problem:
    """The problem with a compiled simulator, where that pays (runners) and can be done."""
    if not isinstance(problem.simulator, CompilesItself):
        return problem
    try:
        problem.simulator.compiled()
    except Unavailable as reason:
        note(f"{problem.name} is not compiled and takes several times as long: {reason}")
        return problem
    return problem.replace(compile=True)


def labels_of(task: str) -> tuple[int, ...]:
    """Names of the policies of a path: updates, or success rates [%] where those are committed."""
    return stages.STAGES if task in STAGED else tuple(range(0, UPDATES + 1, KEEP_EVERY))


def describe(task: str, label: int) -> str:
    """A policy's name in words."""
    return f"{label} % success" if task in STAGED else f"after {label} updates"


def chosen(task: str, count: int, seed: int) -> tuple[int, ...]:
    """`count` policies of the path, chosen at random and in order; fewer if there are no more.

    A larger count adds to a smaller one, so that presets share their critics.
    """
    labels = labels_of(task)
    order = torch.randperm(
        len(labels), generator=block_generator(seed_for(seed, task, "policies"), 0)
    )
    return tuple(sorted(labels[i] for i in order[:count].tolist()))


# ------------------------------------------------------------------------------------ artefacts


def path_name(task: str) -> str:
    """Of the artefact with the policies of one task's path."""
    return f"paths/{file_name(task)}"


def path_artefact(task: str) -> Artefact:
    """The artefact with all policies of one task's path."""
    if task in STAGED:
        return borrowed(path_name(task), f"policies/{task}")
    payload = {
        "task": task,
        "ascent": [UPDATES, KEEP_EVERY, LEARNING_RATE, WIDTH, stages.BATCH, stages.DECAY],
        "evaluated": EVALUATED,
        "policy": problem_of(task).policy.settings(),
    }
    return Artefact(path_name(task), train_path, payload, cost=60.0)


def critic_artefact(task: str, label: int) -> Artefact:
    """The artefact with the Q critic of one policy."""
    name = critic_name(task, label)
    if task in STAGED and (COMMITTED / f"critics/{task}-{label}-full.safetensors").exists():
        return borrowed(name, f"critics/{task}-{label}-full")
    payload = {"task": task, "label": label, "fit": FIT.settings()}
    return Artefact(name, build_critic, payload, (path_name(task),), cost=40.0)


def critic_name(task: str, label: int) -> str:
    return f"critics/{file_name(task)}-{label}"


def train_path(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Seeded Adam ascent of the relaxed objective by its first-order gradient, kept as it goes."""
    task = artefact.payload["task"]
    problem = compiled(problem_of(task))
    setting = stages.Setting({}, problem.horizon, "", WIDTH, LEARNING_RATE)
    ascent = stages.Ascent(problem, setting, seed_for(0, artefact.name, "ascent"))
    tensors: Params = {}
    returns: dict[str, float] = {}
    for label in labels_of(task):
        ascent.run(label - ascent.updates)
        params = ascent.params
        tensors |= {f"{label}/{name}": value for name, value in params.items()}
        returns[str(label)] = mean_return(problem, params, seed_for(0, artefact.name, "returns"))
        note(f"{artefact.name}: {label} updates, mean return {returns[str(label)]:.4g}")
    return Saved(tensors, {"command": COMMAND, "mean_return": returns})


def build_critic(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """A Q critic fitted to the hard task under one policy of the path."""
    task, label = artefact.payload["task"], artefact.payload["label"]
    params = read_policy(needs[path_name(task)], label)
    fitted = fit_critic(problem_of(task), params, FIT)
    return Saved(fitted.params, fitted.metadata)


def read_policy(saved: Saved, label: int) -> Params:
    """One policy out of a path."""
    return stages.read_policy(saved, label)


def read_path(saved: Saved, task: str) -> list[Params]:
    """All policies of a path, in order."""
    return [read_policy(saved, label) for label in labels_of(task)]


def read_critic(saved: Saved) -> FittedCritic:
    """The critic out of its artefact."""
    return FittedCritic.of(dict(saved.tensors), saved.metadata)


def mean_return(problem: Problem, params: Params, seed: int) -> float:
    """Mean return of the hard task over `EVALUATED` episodes."""
    problem = problem.replace(compile=False)  # too few episodes to compile for
    total = 0.0
    with torch.no_grad():
        for noise in noise_stream(problem, EVALUATED, seed):
            path = gradlab.rollout(problem, problem.bind(params), noise)
            total += float(evaluate(problem, path).value.double().sum())
    return total / EVALUATED


def artefacts_of(tasks: tuple[str, ...], count: int, seed: int) -> Iterator[Artefact]:
    """Paths, and critics of the chosen policies."""
    for task in tasks:
        yield path_artefact(task)
        for label in chosen(task, count, seed):
            yield critic_artefact(task, label)
