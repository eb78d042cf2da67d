"""`gradlab.make`: problems by name, those of gradlab, yours, and those of installed packages."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import torch

from gradlab.foundation import placement
from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.naming import Names
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.policies.policy import Policy
from gradlab.problems import apg, contact_toys, flights, known_answers, robots, runners
from gradlab.problems.checking import check_policy
from gradlab.problems.critic import Critic
from gradlab.problems.problem import Problem
from gradlab.simulators.base import Simulator
from gradlab.tasks.base import Task

PROBLEMS = Names(
    kind="problem",
    group="gradlab.problems",
    accepts=lambda built: isinstance(built, Problem),
    expected="a gradlab.Problem",
    builders={
        **flights.BUILDERS,
        **runners.BUILDERS,
        **known_answers.BUILDERS,
        **contact_toys.BUILDERS,
        **apg.BUILDERS,
    },
)


def names() -> list[str]:
    """Every problem that `make` knows by name: gradlab's, the registered,
    those of installed packages.
    """
    return PROBLEMS.names()


def register(name: str, builder: Callable[..., Problem]) -> None:
    """Give a problem a name for `make`: `register("docking", docking)`.

    `builder` returns a `Problem`; its parameters are the options that `make` takes for this name.
    Of what `make` takes for every problem (`horizon`, `task`, ...) it gets those that it has a
    parameter for; the others replace fields of what it returns. A package that is installed does
    the same with an entry point of the group "gradlab.problems". Raises `BadValue` for a name that
    is taken.
    """
    PROBLEMS.register(name, builder)


def make(
    name: str,
    *,
    horizon: int | None = None,
    discount: float | None = None,
    policy: Policy | Callable[[int, int], Policy] | None = None,
    hidden: tuple[int, ...] | None = None,
    task: Task | str | None = None,
    simulator: Simulator | None = None,
    critic: Critic | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    noise: str | None = None,
    compile: bool | str | None = None,
    **options: Any,
) -> Problem:
    """The problem of that name: "hovering", "tracking", "landing", "racing",
    "ant", "lq", "gate", ...

    "my_package.problems:docking" and "my_file.py:docking" name a builder, or a problem, by where it
    is; "robot.xml" is what `gradlab.robot` makes of the file, with its options. What is left out is
    as the problem has it (float32 on the CPU for those of gradlab), or where a run is placed
    (`foundation.placement`: the options --device and --noise of a study). `noise` says where noise
    is drawn: "cpu", the same numbers for every device, or "device", which is what a GPU is used to.
    `policy` is one, or a function of (observation_dim, action_dim) that returns one.
    `hidden=(64, 64)` is the short form for another policy: the problem's own with these layers.

    Other keyword options belong to the problem, such as `gates=4` for racing,
    `drone="visfly-0.46kg"` for all four flights, or `preset="brax", contact="compliant"` for
    runners (`gradlab.problems.runners`); `task` and `simulator` replace a part, which then takes no
    options. The discount is 0.99 for flights (ABPT, Tables 2-9) and runners; known-answer problems
    have their own, and a skewed policy to start from, `problem.reference`.
    Raises `UnknownName` with the nearest names for an unknown problem or option, `BadValue` for a
    name that two packages offer or a builder that returns no problem, `Missing` where its import
    fails.
    """
    if hidden is not None and policy is not None:
        raise BadValue("policy and hidden both say what the policy is; give one of them")
    if horizon is not None:
        horizon = whole("horizon", horizon, hint="try horizon=32")
    here = placement.current()
    if here is not None:
        device = here.device if device is None else device
        noise = here.noise if noise is None else noise
    shared = {
        "horizon": horizon, "discount": discount, "policy": policy, "hidden": hidden, "task": task,
        "simulator": simulator, "critic": critic, "dtype": dtype, "device": device, "noise": noise,
        "compile": compile,
    }  # fmt: skip
    given = {option: value for option, value in shared.items() if value is not None}
    if isinstance(name, str) and name.lower().endswith(".xml"):
        made_of_sizes = policy is not None and not isinstance(policy, Policy | torch.nn.Module)
        build = given.pop("policy") if made_of_sizes else None
        problem = robots.robot(name, **given, **options)
        if build is None:
            return problem
        sizes = problem.task.observation_dim, problem.simulator.action_dim
        return problem.replace(policy=_built(build, *sizes))
    if isinstance(task, str):
        raise BadValue(
            f"a task by name is for robots of MJCF files, got task={task!r} for {name}; "
            'expected a Task, or a file: try gradlab.make("robot.xml", task="stand")'
        )
    own = inspect.signature(PROBLEMS.find(name)).parameters
    of_builder = {option: value for option, value in given.items() if option in own}
    problem = PROBLEMS.build(name, {**options, **of_builder}, shared)
    changes = {option: value for option, value in given.items() if option not in own}
    if "hidden" in changes:
        changes["policy"] = _with_layers(problem, changes.pop("hidden"))
    elif policy is not None and not isinstance(policy, Policy | torch.nn.Module):
        parts = task or problem.task, simulator or problem.simulator
        changes["policy"] = _built(policy, parts[0].observation_dim, parts[1].action_dim)
    return problem.replace(**changes) if changes else problem


def _built(build: Any, observation_dim: int, action_dim: int) -> Policy:
    """What a function of the sizes gives. Raises `BadValue` unless it is a policy."""
    module = isinstance(build, type) and issubclass(build, torch.nn.Module)
    policy: Any = build
    if callable(build) and not module:
        policy = build(observation_dim, action_dim)
    check_policy(policy)
    return policy


def _with_layers(problem: Problem, hidden: tuple[int, ...]) -> GaussianPolicy:
    policy = problem.policy
    if not isinstance(policy, GaussianPolicy):
        raise BadValue(
            f"hidden sets the layers of a GaussianPolicy, and {problem.name} has a "
            f"{type(policy).__name__}; give policy= instead"
        )
    return dataclasses.replace(policy, hidden=hidden)
