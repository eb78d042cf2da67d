"""Runners by name and preset:
what `gradlab.make("ant", preset="brax", contact="compliant")` builds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from gradlab.foundation.naming import check_options
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.flights import PARTS, options_of
from gradlab.problems.problem import Problem
from gradlab.simulators.articulated.simulator import Articulated
from gradlab.simulators.articulated.variants import (
    RUNNERS,
    CentreOfMass,
    presets,
    simulator,
    variant,
)
from gradlab.simulators.base import Simulator, Timed
from gradlab.tasks.base import Task
from gradlab.tasks.locomotion import Locomotion
from gradlab.tasks.locomotion_dflex import FreeRunner, PlanarRunner, Uprightness

__all__ = ["BUILDERS", "HIDDEN", "RUNNERS", "presets", "task_of"]

HIDDEN = (256, 128, 64)  # layers of the default policy, as in AGPO (ICML 2024, Table 1)
DISCOUNT = 0.99  # AGPO and SHAC

# what a preset determines; `dt` and `contact` are options all the same, of the simulator
FIXED = {"name", "start", "nv", "dt", "hidden", "track", "model", "contact", "keep_action"}

ANT_JOINTS = (0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0)  # [rad]
FLOATING = (1.0, 0.0, 0.0, 0.0)  # w x y z

# what gymnasium v5 and Brax agree on
_RUNNING: dict[str, dict[str, Any]] = {
    "ant": {
        "hidden": 2,
        "control_cost": 0.5,
        "healthy_reward": 1.0,
        "height": (0.2, 1.0),
    },
    "hopper": {
        "healthy_reward": 1.0,
        "height": (0.7, math.inf),
        "pitch": 0.2,
        "bound": 100.0,
        "clip": 10.0,
        "position_noise": 5e-3,
        "velocity_noise": 5e-3,
        "normal_velocities": False,
    },
    "walker2d": {
        "healthy_reward": 1.0,
        "height": (0.8, 2.0),
        "pitch": 1.0,
        "clip": 10.0,
        "position_noise": 5e-3,
        "velocity_noise": 5e-3,
        "normal_velocities": False,
    },
    "half_cheetah": {"control_cost": 0.1},
    "humanoid": {
        "hidden": 2,
        "forward_weight": 1.25,
        "control_cost": 0.1,
        "control_scale": 0.4,
        "healthy_reward": 5.0,
        "height": (1.0, 2.0),
        "position_noise": 1e-2,
        "velocity_noise": 1e-2,
        "normal_velocities": False,
    },
}


def task_of(name: str, preset: str) -> Locomotion | FreeRunner | PlanarRunner:
    """The task of a runner, with the time step of its preset.

    Raises `UnknownName` for another name.
    """
    found = variant(name, preset)
    if preset == "dflex":
        return _dflex(name, found.dt)
    model = found.model
    start = tuple(float(x) for x in model.qpos0)
    if name == "ant" and preset == "brax":
        start = (0.0, 0.0, 0.55, *FLOATING, *ANT_JOINTS)
    return Locomotion(
        name=name,
        start=start,
        nv=model.nv,
        dt=found.dt,
        healthy_event=preset == "gymnasium",
        track=CentreOfMass(model) if name == "humanoid" else None,
        **_RUNNING[name],
    )


def _dflex(name: str, dt: float) -> FreeRunner | PlanarRunner:
    if name == "ant":
        return FreeRunner(name, (0.0, 0.0, 0.75, *FLOATING, *ANT_JOINTS), dt, fall=0.27)
    if name == "humanoid":
        return FreeRunner(
            name,
            (0.0, 0.0, 1.35, *FLOATING, *(0.0,) * 21),
            dt,
            fall=0.74,
            upright=Uprightness(0.1, 0.1, 10.0),
            control_cost=0.002,
            target=200.0,
        )
    if name == "hopper":
        return PlanarRunner(
            name,
            (0.0,) * 6,
            dt,
            fall=-0.45,
            upright=Uprightness(0.15, 0.3, 1.0),
            level=math.pi / 6,
        )
    start = (0.0, -0.2, *(0.0,) * 7)
    return PlanarRunner(name, start, dt, position_noise=0.1, velocity_noise=0.25)


def _builder(name: str) -> Callable[..., Problem]:
    """The builder of a runner: its options are `preset`, `contact`, and the fields of its task and
    of `Articulated` but those that the preset determines."""

    def build(
        task: Task | None = None,
        simulator: Simulator | None = None,
        preset: str = "gymnasium",
        **options: Any,
    ) -> Problem:
        given, run = _parts(name, preset, task, simulator, options)
        policy = GaussianPolicy(hidden=HIDDEN)
        return Problem(name, given, run, policy, run.default_horizon, DISCOUNT)

    kinds = [Articulated, Locomotion, FreeRunner, PlanarRunner]
    more = (*PARTS, "preset", "dt", "contact")
    build.__signature__ = options_of(kinds, more, frozenset(FIXED) - {"dt", "contact"})  # type: ignore[attr-defined]
    build.__qualname__ = build.__name__ = name
    return build


def _parts(
    name: str,
    preset: str,
    task: Task | None,
    given: Simulator | None,
    options: Mapping[str, Any],
) -> tuple[Simulator, Task]:
    """Simulator and task of a runner.

    Raises `UnknownName` for an option that this preset's task lacks.
    """
    built = task_of(name, preset)
    kinds = ([type(built)] if task is None else []) + ([Articulated] if given is None else [])
    own = ("dt", "contact") if given is None else ()
    check_options(name, options, options_of(kinds, own, frozenset(FIXED) - set(own)), ["preset"])
    if given is None:
        changes = {k: v for k, v in options.items() if k in own or k in _fields(Articulated)}
        keep = isinstance(task or built, FreeRunner)
        given = simulator(name, preset, keep_action=keep, **changes)
    if task is None:
        changes = {k: v for k, v in options.items() if k in _fields(type(built))}
        if isinstance(given, Timed):
            changes["dt"] = given.dt
        task = dataclasses.replace(built, **changes)
    return given, task


def _fields(kind: Any) -> set[str]:
    """Fields of a task or a simulator that the preset leaves open."""
    return {field.name for field in dataclasses.fields(kind)} - FIXED


BUILDERS = {name: _builder(name) for name in RUNNERS}
