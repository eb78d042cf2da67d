"""The four tasks on which analytic policy gradients meet PPO, as builders for `gradlab.make`.

Source: arXiv 2606.21525 and yuecideng/analytic_policy_gradients@d2d04f7. Observations and the
chain of joints are live here; where the released code cuts them is an option
(`detach_observations`, `detach_hand`, `detach_joints`), off by default.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gradlab.foundation.naming import check_options
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.flights import options_of
from gradlab.problems.problem import Problem
from gradlab.simulators.arm import FR3, KinematicArm
from gradlab.simulators.base import Simulator
from gradlab.simulators.damped import DampedBlock, DampedMass, HeldAction
from gradlab.simulators.pusher import PusherT, TShape
from gradlab.simulators.servo_arm import ServoArm
from gradlab.tasks.base import Task
from gradlab.tasks.covering import Covering
from gradlab.tasks.pose_reaching import PoseReaching
from gradlab.tasks.targets import BlockTarget, Navigation, PointTarget

DISCOUNT = 0.99
LINE = {"dims": 1, "dt": 0.1, "force": 1.0, "damping": 0.5, "limit": None}  # of the 1-D task
# simulator, task, and their fields that differ from the classes' defaults
SUITE: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "point_mass_1d": (DampedMass, PointTarget, LINE),
    "point_mass_navigate": (DampedMass, Navigation, {}),
    "push_t": (DampedBlock, BlockTarget, {}),
    "franka_reach": (KinematicArm, PoseReaching, {"arm": FR3}),
    # not of the paper: a T that is pushed
    "pusher_t": (PusherT, Covering, {"shape": TShape()}),
}
PARTS = ("task", "simulator")
# with `dynamics=True`
MOVED: dict[str, tuple[Any, dict[str, Any]]] = {"franka_reach": (ServoArm, {"velocities": True})}


def agent() -> GaussianPolicy:
    """The suite's actor: 64-64 tanh, one log std from −2, orthogonal, of standardised observations.

    It does not squash: actions beyond ±1 are clamped by the environment.
    """
    return GaussianPolicy(
        hidden=(64, 64), activation="tanh", squash=False, std="global", initial_std=math.exp(-2.0),
        normalise=True, orthogonal=True, head_gain=0.01,
    )  # fmt: skip


def _builder(name: str) -> Callable[..., Problem]:
    """The builder of one problem: its options are the fields of its simulator and its task."""
    still, kind, own = SUITE[name]
    moved, more = MOVED.get(name, (None, {}))

    def build(
        task: Task | None = None,
        simulator: Simulator | None = None,
        dynamics: bool = False,
        **options: Any,
    ) -> Problem:
        body = moved if dynamics else still
        kinds = {body: simulator, kind: task}
        free = [part for part, given in kinds.items() if given is None]
        # what only a body that moves has would be read out of something else
        absent = frozenset(more) if simulator is None and not dynamics else frozenset()
        check_options(name, options, options_of(free, but=absent))
        given = own | (more if dynamics else {}) | options
        built = {part: part(**_chosen(part, given)) for part in free}
        chosen = task or built[kind]
        return Problem(
            name=name,
            simulator=simulator or HeldAction(built[body]),
            task=chosen,
            policy=agent(),
            horizon=chosen.default_horizon,
            discount=DISCOUNT,
        )

    bodies = [still] if moved is None else [still, moved]
    ways = PARTS if moved is None else (*PARTS, "dynamics")
    build.__signature__ = options_of([kind, *bodies], ways)  # type: ignore[attr-defined]
    build.__qualname__ = build.__name__ = name
    return build


def _chosen(part: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that are fields of this part."""
    return {name: value for name, value in options.items() if name in part.__dataclass_fields__}


BUILDERS = {name: _builder(name) for name in SUITE}
