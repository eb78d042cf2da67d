"""A small made-up problem in which everything happens: noise, events, termination, a critic.

It is skewed on purpose (symmetric problems hide sign errors) and it is small enough for loops.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.events import Event
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.tasks import Transition


@dataclass(frozen=True)
class Pendulum:
    """A noisy damped pendulum with state (angle, rate)."""

    state_dim: int = 2
    action_dim: int = 1
    noise_dim: int = 1

    def start(self, coordinates: Tensor) -> Tensor:
        return coordinates

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        angle, rate = state[..., :1], state[..., 1:]
        rate = 0.9 * rate + 0.3 * action + 0.05 * noise - 0.1 * torch.sin(angle)
        return torch.cat([angle + 0.3 * rate, rate], dim=-1)


@dataclass(frozen=True)
class Swing:
    """Dense terms, a one-time bonus, a crash and a goal that end the episode; maybe a switch."""

    with_events: bool = True
    switching: bool = False
    name: str = "swing"
    observation_dim: int = 3
    initial_dim: int = 2
    default_horizon: int = 8

    @property
    def memory_dim(self) -> int:
        return 1 if self.switching else 0

    @property
    def events(self) -> tuple[Event, ...]:
        if not self.with_events:
            return ()
        if self.switching:
            return (Event("pass", bonus=2.0, switches=True), Event("crash", -1.0, terminates=True))
        return (
            Event("pass", bonus=2.0),
            Event("crash", bonus=-1.0, terminates=True),
            Event("goal", bonus=1.0, terminates=True),
        )

    def draw_initial(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator, dtype=torch.float64)

    def initial(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        memory = torch.zeros_like(noise[..., :1]) if self.switching else noise[..., :0]
        return 0.3 * noise + 0.05, memory

    def observe(self, state: Tensor, memory: Tensor, step: Tensor) -> Tensor:
        target = self._target(memory) if self.switching else torch.zeros_like(state[..., :1])
        clock = (0.1 * step)[..., None].expand_as(state[..., :1])
        return torch.cat([state - target, clock], dim=-1)

    def _target(self, memory: Tensor) -> Tensor:
        return 0.15 * (1 - 2 * (memory % 2))

    def advance(self, transition: Transition) -> Tensor:
        memory = transition.memory
        if not self.switching:
            return memory
        return memory + (self._pass_margin(transition.after, memory) > 0).to(memory.dtype)

    def _pass_margin(self, after: Tensor, memory: Tensor) -> Tensor:
        target = self._target(memory)
        return (target.sign() * (after[..., :1] - target)) / 0.3

    def terms(self, transition: Transition) -> dict[str, Tensor]:
        return {
            "angle": -(transition.after[..., 0] ** 2)
            + 0.5 * transition.after[..., 0] * (1 + 0.1 * transition.step),
            "effort": -0.1 * transition.action[..., 0] ** 2 - 0.05 * transition.before[..., 1] ** 2,
        }

    def margins(self, transition: Transition) -> Tensor:
        angle = transition.after[..., 0]
        if self.switching:
            return torch.stack(
                [
                    self._pass_margin(transition.after, transition.memory)[..., 0],
                    (-angle - 0.4) / 0.3,
                ],
                dim=-1,
            )
        return torch.stack([angle - 0.2, (-angle - 0.4) / 0.3, (angle - 0.5) / 0.2], dim=-1)


def _q(view: View, action: Tensor) -> Tensor:
    bowl = (action[..., 0] - 0.3) ** 2 * (1 + view.events.sum(-1))
    return torch.sin(view.obs).sum(-1) - bowl + 0.1 * view.step * action[..., 0] * view.obs[..., 0]


def _v(view: View) -> Tensor:
    return torch.cos(view.obs[..., 0]) * (1 + 0.1 * view.step)


CRITIC = Critic(q=_q, v=_v, name="made up")


def toy_problem(
    *,
    with_events: bool = True,
    switching: bool = False,
    horizon: int = 8,
    std: str | float = "state",
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """The pendulum with an inexact critic: engines must agree whatever the critic is."""
    policy = GaussianPolicy(3, 1, hidden=(5, 4), std=std, head_gain=1.0)
    task = Swing(with_events=with_events, switching=switching)
    return Problem(
        "toy", Pendulum(), task, policy, horizon=horizon, discount=0.95, critic=CRITIC, dtype=dtype
    )


def toy_params(problem: Problem, seed: int = 0) -> dict[str, Tensor]:
    """Parameters far enough from zero that every layer matters."""
    generator = torch.Generator().manual_seed(seed)
    params = problem.init(generator)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in params.items()
    }
