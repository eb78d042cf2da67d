"""The problems of `contact_stiffness`: runners and a toy under one family of contact laws.

One number, `width`, goes from smooth to hard: the contact law is `Smoothed` over that length, and
tends to springs whose stiffness is load/width, so that whatever carries about `load` rests about
one width deep.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

import gradlab
from gradlab.events import Event
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.foundation.placement import device, here
from gradlab.gradients.sampling import block_generator
from gradlab.policies.gaussian import GaussianPolicy, LinearPolicy
from gradlab.problems.problem import Problem
from gradlab.simulators.articulated.contact import Compliant, Smoothed
from gradlab.simulators.articulated.mjcf import from_string
from gradlab.simulators.articulated.simulator import Articulated
from gradlab.simulators.static import Static
from gradlab.study import seed_for
from gradlab.tasks.static import Decision

Params = dict[str, Tensor]

PEGS = "pegs"
HIDDEN = (32, 32)
POLICY_SEED = 0


class Setting(NamedTuple):
    """A runner as this study sets it."""

    options: dict[str, Any]  # of `gradlab.make`
    load: float  # of the contact law [N]
    damping_speed: float  # approach at which damping doubles the normal force [m/s]
    friction_damping: float  # [N s/m]
    limit_stiffness: float  # [N m/rad]
    speed_width: float  # of the smoothing over speeds [m/s]


# No bounds on health: a hard event would bias FOG at any stiffness. Resets are spread wider than
# the sources have them, so that feet hit the ground at different times. Loads are about half
# (hopper) and a quarter (ant) of the weight; sub-steps bear the default widths.
RUNNERS = {
    "hopper": Setting(
        {
            "preset": "gymnasium",
            "integrator": "implicit_damping",
            "substeps": 4,
            "height": None,
            "pitch": None,
            "bound": None,
            "position_noise": 0.02,
            "velocity_noise": 0.2,
        },
        load=75.0,
        damping_speed=1.0,
        friction_damping=600.0,
        limit_stiffness=4000.0,
        speed_width=0.1,
    ),
    "ant": Setting(
        {"preset": "brax", "substeps": 25, "height": None},
        load=2.2,
        damping_speed=1.0,
        friction_damping=10.0,
        limit_stiffness=200.0,
        speed_width=0.1,
    ),
}


def tasks() -> list[str]:
    """Every task that this study knows."""
    return [*RUNNERS, PEGS]


def law(width: float, setting: Setting) -> Smoothed:
    """The contact law of a width [m]."""
    stiffness = setting.load / width
    limit = Compliant(
        stiffness,
        stiffness / setting.damping_speed,
        setting.friction_damping,
        None,
        setting.limit_stiffness,
        0.0,
    )
    return Smoothed(width, setting.speed_width, limit)


@lru_cache(maxsize=64)
def problem_of(task: str, width: float, horizon: int) -> Problem:
    """A task with contact of one width [m] over one horizon [steps].

    Raises `UnknownName` for a task, `BadValue` for a width too hard for the task's time step.
    """
    if task == PEGS:
        return _pegs_problem(Pegs(width, horizon))
    if task not in RUNNERS:
        raise UnknownName("task", task, tasks())
    setting = RUNNERS[task]
    problem = gradlab.make(task, contact=law(width, setting), horizon=horizon, **setting.options)
    policy = GaussianPolicy(
        problem.task.observation_dim, problem.simulator.action_dim, hidden=HIDDEN
    )
    return problem.replace(policy=policy)


def policy_of(task: str) -> Params:
    """The seeded random policy of a runner, or the launch of the toy: the same for every width."""
    if task == PEGS:
        cast: dict[str, Any] = {"dtype": torch.float64, "device": device()}
        return {
            "layers.0.weight": torch.tensor([[LAUNCH_MEAN]], **cast),
            "log_std": torch.tensor([math.log(LAUNCH_STD)], **cast),
        }
    problem = problem_of(task, 0.01, 1)
    return problem.init(block_generator(seed_for(POLICY_SEED, task, "policy"), 0))


# ---------------------------------------------------------------------------------------- the toy

RADIUS = 0.6  # of a peg and the ball together [m]
GAP = 0.6  # between the turning points of the ball's centre, with rigid contact [m]
SPEED = 1.0  # of the ball, whose mass is 1 kg [m/s]
PERIOD = 0.02  # [s]
SUBSTEPS = 4
PEGS_LOAD = 30.0  # [N]
LAUNCH_MEAN, LAUNCH_STD = 0.01, 0.01  # off the line through both centres [m]
PANELS = 64  # of the quadrature, over 22 standard deviations

_MJCF = """
<mujoco>
  <option timestep="{step}" gravity="0 0 0"/>
  <worldbody>
    <geom name="left" type="sphere" size="{peg}" pos="-{place} 0 0" condim="1"/>
    <geom name="right" type="sphere" size="{peg}" pos="{place} 0 0" condim="1"/>
    <body name="ball">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom name="ball" type="sphere" size="0.1" mass="1" condim="1"/>
    </body>
  </worldbody>
</mujoco>
"""


@dataclass(frozen=True)
class Pegs:
    """A ball thrown between two round pegs: the reward is its height z after `periods` [m].

    The decision is the height of the throw [m]; it starts midway at 1 m/s towards the right peg.
    There is no friction, no damping and no gravity, so energy is kept. A rigid ball bouncing on the
    line through the centres leaves it by a known factor per bounce (`bounce_rate`), until it
    escapes sideways. Everything is smooth in the decision; the closer contact is to rigid, the
    steeper. One number is random, so that gradient and variances follow by quadrature, whose panels
    `breakpoints` spaces.
    """

    width: float  # of the contact law [m]
    periods: int
    panels: int = PANELS
    simulator: Articulated = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        text = _MJCF.format(step=PERIOD / SUBSTEPS, peg=RADIUS - 0.1, place=RADIUS + GAP / 2)
        limit = Compliant(PEGS_LOAD / self.width, 0.0, 0.0, None, 0.0, 0.0)
        built = Articulated(
            from_string(text),
            Smoothed(self.width, 0.1, limit),
            "explicit_damping",
            PERIOD,
            SUBSTEPS,
        )
        object.__setattr__(self, "simulator", built)

    @property
    def name(self) -> str:
        return PEGS

    @property
    def dim(self) -> int:
        return 1

    @property
    def events(self) -> tuple[Event, ...]:
        return ()

    def start(self, x: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 4"]:
        """[x, z, ẋ, ż] at the throw [m, m/s]."""
        zero = torch.zeros_like(x)
        return torch.cat((zero, x, zero + SPEED, zero), -1)

    def advance(self, state: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
        """One period later."""
        nothing = state[..., :0]
        return self.simulator.step(state, nothing, nothing)

    def reward(self, x: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch"]:
        """Height at the end [m]."""
        state = self.start(x)
        for _ in range(self.periods):
            state = self.advance(state)
        return state[..., 1]

    def margins(self, x: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 0"]:
        """No events."""
        return x[..., :0]

    def breakpoints(self, low: float, high: float) -> tuple[float, ...]:
        """Ends of equal panels: nothing is discontinuous,
        but much is narrower than the launch's std.
        """
        inner = torch.linspace(low, high, self.panels + 1, dtype=torch.float64)[1:-1]
        return tuple(inner.tolist())


def bounce_rate() -> float:
    """ln of the growth per bounce of a rigid ball between the pegs, on their line [1].

    The period-2 orbit of a billiard between two discs of radius R whose gap is L has the eigenvalue
    1 + L/R + √((1 + L/R)² − 1) per bounce (Gaspard & Rice 1989, J. Chem. Phys. 90, 2225).
    """
    return math.acosh(1 + GAP / RADIUS)


def bounce_time() -> float:
    """Time between two bounces of a rigid ball on the line of centres [s]."""
    return GAP / SPEED


def _pegs_problem(landscape: Pegs) -> Problem:
    policy = LinearPolicy(observation_dim=1, action_dim=1, std="global", bias=False)
    return Problem(
        name=PEGS,
        simulator=Static(1),
        task=Decision(landscape),
        policy=policy,
        horizon=1,
        discount=1.0,
        dtype=torch.float64,
        **here(),
    )


def step_of(
    task: str, width: float, dtype: torch.dtype = torch.float32
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(state [n, ns], action noise [n, nu], step [n]) → next state [n, ns], the policy in the loop.

    `dtype` is that of a runner's states; the toy takes any.
    """
    if task == PEGS:
        pegs = Pegs(width, 1)
        return lambda state, eps, step: pegs.advance(state)
    problem = problem_of(task, width, 1)
    params = {name: leaf.to(dtype) for name, leaf in policy_of(task).items()}

    def step(state: Tensor, eps: Tensor, index: Tensor) -> Tensor:
        nothing = state[..., :0]
        output = problem.bind(params)(problem.task.observe(state, nothing, index))
        action = problem.policy.action(problem.policy.latent(output, eps))
        return problem.simulator.step(state, action, nothing)

    return step


def path_of(
    task: str, width: float, horizon: int, episodes: int, seed: int
) -> tuple[Float[Tensor, "N T_plus_1 ns"], Float[Tensor, "N T nu"]]:
    """States and action noise of episodes under the policy of the task."""
    problem = problem_of(task, width, horizon)
    params, noise = policy_of(task), problem.draw(episodes, block_generator(seed, 0))
    with torch.no_grad():
        if task != PEGS:
            return gradlab.rollout(problem, problem.bind(params), noise).state, noise.action
        pegs = Pegs(width, horizon)
        launch = LAUNCH_MEAN + LAUNCH_STD * noise.action[:, 0]
        states = [pegs.start(launch)]
        for _ in range(horizon):
            states.append(pegs.advance(states[-1]))
    return torch.stack(states, 1), launch.new_zeros(episodes, horizon, 0)


def check_width(task: str, width: float) -> None:
    """Raises `BadValue` unless the width is positive and not too hard for the task's time step."""
    if not width > 0:
        raise BadValue(f"widths must be positive lengths [m], got {width}; try 0.003")
    problem_of(task, width, 1)
