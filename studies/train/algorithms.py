"""Named algorithms with the hyper-parameters of their papers, task by task.

`published` says where the numbers are from and what of the original is not there. What every
algorithm here has in common is in `gradlab.training`: restarts between segments, targets of TD(λ).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import gradlab
from estimators import (
    ABPT,
    AGPO,
    FOG,
    PG,
    AlphaOrder,
    BestLinear,
    Cross,
    InverseVariance,
    MaxNorm,
    Mixture,
    Quantile,
    Same,
    Split,
    Switch,
)
from estimators.base import Estimator
from gradlab.foundation.errors import UnknownName
from gradlab.problems.problem import Problem
from gradlab.training.algorithm import Algorithm
from gradlab.training.critic import CriticRecipe
from gradlab.training.exploration import Entropy, KLPenalty, Temperature
from gradlab.training.optimiser import Adam
from gradlab.training.schedule import Schedule
from gradlab.training.segments import AdaptiveLength, Replay, Reuse
from studies.train.published import (
    ABPT_FLIGHTS,
    AGPO_RUNNERS,
    AHAC_RUNNERS,
    RPO_RUNNERS,
    SAPO_RUNNERS,
)

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

    def optimiser(self, which: int, scale: float = 1.0) -> Adam:
        """Adam of the policy (0) or the critic (1)."""
        rate = self.rates[which]
        rate = replace(rate, first=rate.first * scale, last=rate.last * scale)
        norm = self.max_norm if which == 0 else self.critic_norm or self.max_norm
        return Adam(rate, self.betas, max_norm=norm)

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


def _runner(episodes: int, critic_rate: float, hidden: tuple[int, ...] = (128, 64, 32)) -> Family:
    return Family(
        hidden=hidden, critic=(64, 64), normed=True, std=0.3679, horizon=1000, episodes=episodes,
        length=32, updates=2000, rates=(Schedule(2e-3, 1e-5), Schedule(critic_rate, 1e-5)),
        betas=(0.7, 0.95), max_norm=1.0, keep=0.2, passes=16, minibatches=4,
        published="SHAC's configuration files (Xu et al. 2022, DiffRL): networks, rates, Adam, target "
        "network, 16 passes of 4 minibatches, log std from -1",
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
    "humanoid": _runner(64, 5e-4, (256, 128)),
}


def _v(estimator: Callable[[Family], Estimator]) -> Callable[[Family], Algorithm]:
    """Of an estimator of the segment's return with V of its last state."""
    return lambda f: Algorithm(
        estimator(f), f.critic_of("v"), f.optimiser(0), "v", f.episodes, f.length, f.updates
    )


def _q(estimator: Callable[[Family], Estimator]) -> Callable[[Family], Algorithm]:
    """Of an estimator with a window of its own and two Q."""
    return lambda f: Algorithm(
        estimator(f), f.critic_of("q"), f.optimiser(0), "own", f.episodes, f.length, f.updates
    )


def _bptt(f: Family) -> Algorithm:
    """Segments without a critic; of flights whole episodes, as published."""
    length = f.horizon if f.horizon <= 512 else f.length
    updates = max(1, f.updates * f.length // length)
    return Algorithm(FOG(), None, f.optimiser(0), "none", f.episodes, length, updates)


def _gae() -> PG:
    return PG(returns="gae", gae_lambda=0.95)


def _agpo(f: Family, alpha: Any = None) -> Algorithm:
    """AGPO with a rule for α, or a number; on runners with its entropy and divergence.

    Its rewards are scaled by 0.1, which ours are not: what is in their units is ten times as much
    here, and so is the limit of the policy's gradient.
    """
    chosen = {} if alpha is None else {"alpha": alpha}
    algorithm = _q(lambda f: AGPO(f.length, source=Same(f.episodes), **chosen))(f)
    if not f.normed:
        return algorithm
    return replace(algorithm, entropy=Entropy(0.1), kl=KLPenalty(3.0))


def _abpt_full(f: Family) -> Algorithm:
    """ABPT with what else its paper has: automatic entropy, and restarts at visited states."""
    heat = Temperature(1.0, Adam(f.rates[0].first))
    entropy = Entropy(heat, "estimator", targets=True, target=-1.0) if f.soft else None
    algorithm = _q(lambda f: ABPT(f.length))(f)
    return replace(algorithm, entropy=entropy, replay=Replay(0.5))


def _abpt_published(f: Family) -> Algorithm:
    """The same with the weight decay of its files, every segment beginning anew (algorithm 1)."""
    full = _abpt_full(f)
    assert full.critic is not None
    critic = replace(full.critic, optimiser=replace(full.critic.optimiser, weight_decay=1e-5))
    optimiser = replace(full.optimiser, weight_decay=1e-5)
    replay = Replay(0.5, 50_000, "always")
    return replace(full, critic=critic, optimiser=optimiser, replay=replay)


def _sapo(f: Family) -> Algorithm:
    entropy = Entropy(Temperature(1.0, Adam(5e-3)), "estimator", targets=True, normalised=True)
    critic = replace(
        f.critic_of("v"), members=2, reduction="mean", target_reduction="min", keep=0.0,
        activation="silu", optimiser=_decoupled(f.optimiser(1)),
    )  # fmt: skip
    algorithm = _v(lambda f: FOG())(f)
    return replace(algorithm, critic=critic, optimiser=_decoupled(f.optimiser(0)), entropy=entropy)


def _ahac(sign: Any) -> Callable[[Family], Algorithm]:
    def build(f: Family) -> Algorithm:
        critic = replace(f.critic_of("v"), members=2, keep=0.0, passes=4 * f.passes, stop=0.2)
        adaptive = AdaptiveLength(min(8, f.length), min(64, f.horizon), sign=sign)
        return replace(_v(lambda f: FOG())(f), critic=critic, adaptive=adaptive)

    return build


def _rpo(f: Family) -> Algorithm:
    critic = replace(
        f.critic_of("v"), members=2, activation="silu", optimiser=_decoupled(f.optimiser(1))
    )
    return replace(
        _v(lambda f: FOG())(f), critic=critic, optimiser=_decoupled(f.optimiser(0)),
        entropy=Entropy(0.2), kl=KLPenalty(0.2), reuse=Reuse(5, 0.8, 1.0),
    )  # fmt: skip


def _decoupled(adam: Adam) -> Adam:
    """AdamW with torch's weight decay, of which the papers say nothing."""
    return replace(adam, weight_decay=0.01, decoupled=True)


SILU = {"activation": "silu"}


@dataclass(frozen=True)
class Named:
    """An algorithm: what it is, how it is made, and what differs from a task's `Family`."""

    about: str
    build: Callable[[Family], Algorithm]
    policy: dict[str, Any] = field(default_factory=dict)  # options of the policy
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)  # fields of the family, by task

    def family(self, task: str) -> Family:
        """What it shares with others on a task, with what is its own."""
        return replace(FAMILIES[task], **self.tasks.get(task, {}))


ALGORITHMS: dict[str, Named] = {
    "bptt": Named("first-order gradients of rewards alone (APG)", _bptt),
    "shac": Named("first-order gradients with V at a segment's end", _v(lambda f: FOG())),
    "ahac": Named(
        "SHAC with segments as long as contact allows, by a dual step", _ahac("dual"),
        tasks=AHAC_RUNNERS,
    ),
    "ahac_released": Named(
        "the same with the sign of the published code", _ahac("released"), tasks=AHAC_RUNNERS
    ),
    "sapo": Named(
        "SHAC of the return with entropy, at an automatic temperature", _sapo,
        {"std": "state", "log_std_range": (-5.0, 2.0), **SILU}, SAPO_RUNNERS,
    ),
    "rpo": Named(
        "five steps on each segment, with the gradients by its actions", _rpo, SILU, RPO_RUNNERS
    ),
    "pg": Named("score functions of generalised advantages", _v(lambda f: _gae())),
    "split": Named(
        "pathwise on the continuous part, score functions on the rest", _v(lambda f: Split())
    ),
    "abpt": Named("0-step and n-step returns, two Q", _q(lambda f: ABPT(f.length))),
    "abpt_full": Named(
        "ABPT with automatic entropy and restarts at visited states", _abpt_full,
        tasks={"hovering": {"soft": False}, "tracking": {"soft": False}},
    ),
    "abpt_published": Named(
        "ABPT in full with the networks, rates and segments of its paper", _abpt_published,
        {"std": "state", "activation": "relu"}, ABPT_FLIGHTS,
    ),
    "agpo": Named(
        "simulation and value gradients mixed step by step, two Q", _agpo, tasks=AGPO_RUNNERS
    ),
    "agpo_fixed": Named(
        "the same with α = 0.3 at every step", lambda f: _agpo(f, 0.3), tasks=AGPO_RUNNERS
    ),
    "agpo_maxnorm": Named(
        "the same with simulation gradients clipped at their median norm",
        lambda f: _agpo(f, MaxNorm(1.0, relative=True)), tasks=AGPO_RUNNERS,
    ),
    "agpo_quantile": Named(
        "the same without simulation gradients of extreme norms",
        lambda f: _agpo(f, Quantile()), tasks=AGPO_RUNNERS,
    ),
    "aobg": Named(
        "FOG and PG by an empirical-Bernstein bound",
        _v(
            lambda f: Mixture(
                (FOG(), _gae()), AlphaOrder(10.0, relative=True), source=Same(f.episodes)
            )
        ),
    ),
    "ddcg": Named(
        "FOG and PG by variances where the return is continuous",
        _v(lambda f: Switch("ddcg", source=Same(f.episodes), zeroth=_gae())),
    ),
    "ivwh": Named(
        "FOG and PG by variances at the policy's output, step by step",
        _v(
            lambda f: Mixture((FOG(), _gae()), InverseVariance("IVW-H"), "output", Same(f.episodes))
        ),
    ),
    "best_linear": Named(
        "the least variance of FOG and PG, with their covariance, cross-fitted",
        _v(lambda f: Mixture((FOG(), _gae()), BestLinear(), source=Cross(f.episodes))),
    ),
}  # fmt: skip


def named(
    algorithm: str, task: str, sizes: Mapping[str, Any] | None = None
) -> tuple[Problem, Algorithm]:
    """The problem of a task, with its policy, and the algorithm for it.

    `sizes` are fields of the `Family` that differ. Raises `UnknownName` for either name.
    """
    if algorithm not in ALGORITHMS:
        raise UnknownName("algorithm", algorithm, list(ALGORITHMS))
    if task not in FAMILIES:
        raise UnknownName("task", task, list(FAMILIES))
    chosen = ALGORITHMS[algorithm]
    family = replace(chosen.family(task), **(sizes or {}))
    options: dict[str, Any] = {
        "hidden": family.hidden,
        "std": "global",
        "initial_std": family.std,
        "layer_norm": family.normed,
        "normalise": family.normed,
    }
    policy = gradlab.GaussianPolicy(**{**options, **chosen.policy})
    if task in FLIGHTS:
        course: dict[str, Any] = {"gates": 4} if task == "racing" else {}
        problem = gradlab.make(task, horizon=family.horizon, policy=policy, **course)
    else:
        problem = gradlab.make(task, horizon=family.horizon, policy=policy, preset="dflex")
    return problem, chosen.build(family)
