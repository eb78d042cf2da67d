"""What the algorithms of a group of tasks share: sizes, rates, networks, task by task."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from gradlab.training.critic import CriticRecipe
from gradlab.training.optimiser import Adam
from gradlab.training.schedule import Schedule

FLIGHTS = ("hovering", "tracking", "landing", "racing")


@dataclass(frozen=True)
class Family:
    """What the algorithms of a group of tasks share: policy, critic, sizes."""

    hidden: tuple[int, ...]
    critic: tuple[int, ...]
    normed: bool  # the policy: LayerNorm after each hidden layer, observations standardised
    std: float  # initial exploration, a learned vector [1]
    horizon: int  # of an episode [steps]
    episodes: int
    length: int  # of a segment [steps]
    updates: int
    rates: tuple[Schedule, Schedule]  # of policy and critic
    betas: tuple[float, float]
    max_norm: float
    keep: float  # of the old target network
    passes: int
    minibatches: int
    published: str
    critic_norm: float | None = None  # limit of the critic's gradient; None: that of the policy's
    soft: bool = True  # whether `abpt_full` has entropy there
    epsilon: float = 1e-8  # of Adam
    window: int = 32  # of truncated backpropagation, `apg_mc` and `apg_critic` [steps]
    policy: dict[str, Any] = field(default_factory=dict)  # options of the policy that differ
    ppo: dict[str, Any] = field(default_factory=dict)  # what PPO of stable-baselines3 has instead

    def optimiser(self, which: int, scale: float = 1.0) -> Adam:
        """Adam of the policy (0) or the critic (1)."""
        rate = self.rates[which]
        rate = replace(rate, first=rate.first * scale, last=rate.last * scale)
        norm = self.max_norm if which == 0 else self.critic_norm or self.max_norm
        return Adam(rate, self.betas, self.epsilon, max_norm=norm)

    def critic_of(self, kind: str) -> CriticRecipe:
        """A V, or two Q of which the smaller counts."""
        return CriticRecipe(
            kind=kind,  # pyright: ignore[reportArgumentType]
            hidden=self.critic,
            members=2 if kind == "q" else 1,
            optimiser=self.optimiser(1),
            passes=self.passes,
            minibatches=self.minibatches,
            keep=self.keep,
        )


def _flight(
    horizon: int, length: int = 32, episodes: int = 64, updates: int = 200, rate: float = 5e-3
) -> Family:
    return Family(
        hidden=(64, 64), critic=(64, 64), normed=False, std=0.2, horizon=horizon,
        episodes=episodes, length=length, updates=updates, rates=(Schedule(rate, rate / 10), Schedule(2e-3, 2e-3)),
        betas=(0.7, 0.95), max_norm=0.5, keep=0.2, passes=16, minibatches=4,
        published="ours, for a training of one to five minutes on one core; episode lengths are "
        "those of ABPT (Li et al. 2025)",
    )  # fmt: skip


def guest(horizon: int) -> Family:
    """For a problem that has no sizes here: those of flights, whatever its task is."""
    return replace(
        _flight(horizon, length=min(32, horizon)),
        published="ours, those of hovering; nothing of them is tuned for this task",
    )


def _runner(
    episodes: int,
    critic_rate: float,
    hidden: tuple[int, ...] = (128, 64, 32),
    critic: tuple[int, ...] = (64, 64),
    keep: float = 0.2,
) -> Family:
    return Family(
        hidden=hidden, critic=critic, normed=True, std=0.3679, horizon=1000, episodes=episodes,
        length=32, updates=2000, rates=(Schedule(2e-3, 1e-5), Schedule(critic_rate, 1e-5)),
        betas=(0.7, 0.95), max_norm=1.0, keep=keep, passes=16, minibatches=4,
        published="SHAC's configuration files (Xu et al. 2022, DiffRL): networks, rates, Adam, target "
        "network, 16 passes of 4 minibatches, log std from -1",
    )  # fmt: skip


# Horizons, and episodes at once, that the published numbers of steps imply: 38,400 environment
# steps are 320 gradient steps of 4 x 30, 192,000 are 120 of 16 x 100, 138,240 are 144 of 32 x 30.
SUITE = ("point_mass_1d", "point_mass_navigate", "push_t", "franka_reach")
PPO = {
    "length": 128, "learning_rate": 2.5e-4, "last_rate": 0.0, "epochs": 4, "entropy": 0.01,
    "value_clip": 0.2,
}  # fmt: skip


def _suite(horizon: int, episodes: int, steps: int, window: int = 10) -> Family:
    """Of the APG suite, for so many environment steps; segments of others are a window long."""
    rate = Schedule(2.5e-4, 0.0)
    return Family(
        hidden=(64, 64), critic=(64, 64), normed=True, std=math.exp(-2.0), horizon=horizon,
        episodes=episodes, length=window, updates=steps // (episodes * window), rates=(rate, rate),
        betas=(0.9, 0.999), max_norm=0.5, keep=0.0, passes=1, minibatches=1, epsilon=1e-5,
        window=window, ppo=PPO,
        policy={
            "layer_norm": False, "activation": "tanh", "squash": False, "orthogonal": True,
            "head_gain": 0.01,
        },
        published="arXiv 2606.21525 and its released code: networks, rates, Adam, limits of gradients, "
        "PPO; horizons and episodes from its numbers of steps; the lengths of trainings are ours",
    )  # fmt: skip


FAMILIES = {
    "hovering": _flight(256, updates=300),
    "tracking": _flight(256, length=64, updates=300, rate=3e-3),
    # in segments of 32 steps at these rates no algorithm lands in 1000 updates, or passes a gate
    "landing": _flight(256, length=64),
    "racing": _flight(512, length=128, episodes=32, updates=300),
    "ant": _runner(64, 2e-3),
    "hopper": _runner(256, 2e-4),
    "half_cheetah": _runner(64, 2e-3),
    "humanoid": _runner(64, 5e-4, (256, 128), (128, 128), 0.995),
    "ant_brax": _runner(64, 2e-3),  # the sizes of the other ant: Brax's own are for 4,096 episodes
    "point_mass_1d": _suite(30, 4, 80_000),
    "point_mass_navigate": _suite(100, 16, 500_000, window=25),
    "push_t": _suite(30, 32, 500_000),
    "franka_reach": _suite(30, 32, 500_000),
}
