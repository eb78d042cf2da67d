"""`gradlab.make`: problems by name."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch

from gradlab import locomotion
from gradlab.arguments import check_device, check_dtype, got
from gradlab.critics.base import Critic
from gradlab.errors import BadValue, UnknownName
from gradlab.known_answer import PRESETS
from gradlab.policies import GaussianPolicy, LinearPolicy
from gradlab.problem import Problem
from gradlab.simulators.base import Simulator, Timed
from gradlab.simulators.quadrotor import Quadrotor
from gradlab.tasks.base import Task
from gradlab.tasks.hovering import Hovering
from gradlab.tasks.landing import Landing
from gradlab.tasks.racing import Racing
from gradlab.tasks.tracking import Tracking

FLIGHTS: dict[str, Any] = {
    "hovering": Hovering,
    "tracking": Tracking,
    "landing": Landing,
    "racing": Racing,
}
FLIGHT_DISCOUNT = 0.99  # ABPT, Tables 2-9
# what `make` takes whatever the problem is
OWN = (
    "horizon", "discount", "policy", "task", "simulator", "critic", "dtype", "device", "compile", "hidden",
)  # fmt: skip


def names() -> list[str]:
    """Every problem that `make` knows."""
    return [*FLIGHTS, *locomotion.RUNNERS, *PRESETS]


def make(
    name: str,
    *,
    horizon: int | None = None,
    discount: float | None = None,
    policy: GaussianPolicy | None = None,
    task: Task | None = None,
    simulator: Simulator | None = None,
    critic: Critic | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    compile: bool = False,
    **options: Any,
) -> Problem:
    """The problem of that name: "hovering", "tracking", "landing", "racing", "ant", "lq", "gate", ...

    Other keyword options belong to the task or the simulator, such as `gates=4` for racing,
    `hidden=(256, 128, 64)` for the layers of the policy, `drone="visfly-0.46kg"` for all four flights, or `preset="brax", contact="compliant"` for runners
    (`gradlab.locomotion`); `policy`, `task` and `simulator` replace a part
    and then take no options. The discount is 0.99 for flights (ABPT, Tables 2-9) and runners; known-answer
    problems have their own, and a skewed policy to start from: `known_answer.preset(name)`.
    Raises `UnknownName` with the nearest names for an unknown problem or option.
    """
    check_dtype(dtype)
    check_device(device)
    hidden = options.pop("hidden", None)
    if hidden is not None and policy is not None:
        raise BadValue("policy and hidden both say what the policy is; give one of them")
    if not isinstance(name, str):
        raise BadValue(f'expected the name of a problem, got {got(name)}; try "hovering"')
    if name in PRESETS:
        _check_options(name, options, list(inspect.signature(PRESETS[name]).parameters))
        if horizon is not None and "horizon" in inspect.signature(PRESETS[name]).parameters:
            options["horizon"] = horizon  # presets of several steps depend on their horizon
        preset = PRESETS[name](**options)
        parts = preset.simulator, preset.task, preset.horizon, preset.discount
        policy = policy or LinearPolicy(**preset.policy)  # type: ignore[arg-type]
        if hidden is not None:
            policy = dataclasses.replace(policy, hidden=hidden)
    elif name in FLIGHTS:
        kinds = {Quadrotor: simulator, FLIGHTS[name]: task}
        free = {kind: _fields(kind) for kind, given in kinds.items() if given is None}
        _check_options(name, options, [field for fields in free.values() for field in fields])
        for given in (simulator, task):
            if isinstance(given, Timed):  # the part that is built counts the time of the given one
                options = {"dt": given.dt} | options
        built = {k: k(**{o: v for o, v in options.items() if o in f}) for k, f in free.items()}
        flight = task or built[FLIGHTS[name]]
        parts = simulator or built[Quadrotor], flight, flight.default_horizon, FLIGHT_DISCOUNT
        policy = policy or GaussianPolicy(hidden=(64, 64) if hidden is None else hidden)
    elif name in locomotion.RUNNERS:
        given, run = locomotion.parts(name, task, simulator, options, OWN)
        parts = given, run, run.default_horizon, locomotion.DISCOUNT
        policy = policy or GaussianPolicy(hidden=locomotion.HIDDEN if hidden is None else hidden)
    else:
        raise UnknownName("problem", name, names())
    return Problem(
        name=name,
        simulator=simulator or parts[0],
        task=task or parts[1],
        policy=policy,
        horizon=parts[2] if horizon is None else horizon,
        discount=parts[3] if discount is None else discount,
        critic=critic,
        dtype=dtype,
        device=device,
        compile=compile,
    )


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _check_options(name: str, options: dict[str, Any], known: list[str]) -> None:
    for option in options:
        if option not in known:
            raise UnknownName(f"option of {name}:", option, {*known, *OWN})
