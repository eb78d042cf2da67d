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
from estimators.truncated import TruncatedBPTT
from estimators.window_rules import JacobianGrowth
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.problems.problem import Problem
from gradlab.training.algorithm import Algorithm
from gradlab.training.exploration import Entropy, KLPenalty, Temperature
from gradlab.training.optimiser import Adam
from gradlab.training.segments import AdaptiveLength, Replay, Reuse
from studies.shared.guests import is_guest
from studies.train.families import FAMILIES, FLIGHTS, SUITE, Family, guest
from studies.train.guests import algorithm_of, problem_of
from studies.train.published import (
    ABPT_FLIGHTS,
    AGPO_RUNNERS,
    AHAC_RUNNERS,
    RPO_RUNNERS,
    SAPO_RUNNERS,
)


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


def _apg(f: Family) -> Algorithm:
    """Whole episodes; the gradient is that of the sum over their steps, which limits see."""
    return Algorithm(
        FOG(), None, f.optimiser(0), "none", f.episodes, f.horizon,
        max(1, f.updates * f.length // f.horizon), average=False,
    )  # fmt: skip


def _window(f: Family) -> int:
    return min(f.window, f.horizon)


def _apg_mc(f: Family) -> Algorithm:
    """In windows, what comes after them being a constant; none is weighted by where it begins."""
    return replace(_apg(f), estimator=TruncatedBPTT(_window(f), weighted=False))


def _apg_critic(f: Family) -> Algorithm:
    """In windows that end with V; the source's critic is fitted to windows' starts alone."""
    critic = replace(f.critic_of("v"), activation="tanh", layer_norm=False)
    return replace(_apg(f), estimator=TruncatedBPTT(_window(f), "v", weighted=False), critic=critic)


def _apg_adaptive(f: Family) -> Algorithm:
    """In windows of at least the fixed length that end where Jacobians have grown by 1.2."""
    window = JacobianGrowth(GROWTH, shortest=_window(f))
    return replace(_apg(f), estimator=TruncatedBPTT(window, weighted=False))


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


# of the state's Jacobians over a window of `apg_adaptive`: half of all windows of 10 steps of a
# trained point_mass_navigate are beyond it (one pilot of another seed than the studies')
GROWTH = 1.2
SILU = {"activation": "silu"}


@dataclass(frozen=True)
class Named:
    """An algorithm: what it is, how it is made, and what differs from a task's `Family`."""

    about: str
    build: Callable[[Family], Algorithm]
    policy: dict[str, Any] = field(default_factory=dict)  # options of the policy
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)  # fields of the family, by task

    def family(self, task: str, problem: Problem | None = None) -> Family:
        """What it shares with others on a task, with what is its own; a task that is in no table
        needs its problem.
        """
        shared = FAMILIES[task] if problem is None else family_of(task, problem)
        return replace(shared, **self.tasks.get(task, {}))


BASELINES = ("ppo", "sac", "td3")  # of stable-baselines3, trained by `shared.curves`
ALGORITHMS: dict[str, Named] = {
    "bptt": Named("first-order gradients of rewards alone (APG)", _bptt),
    "apg": Named("the same of whole episodes, summed over steps (APG, arXiv 2606.21525)", _apg),
    "apg_mc": Named("apg in windows, with constants after them", _apg_mc),
    "apg_critic": Named("apg in windows, with V at their ends", _apg_critic),
    "apg_adaptive": Named("apg in windows that end where Jacobians have grown", _apg_adaptive),
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


def family_of(task: str, problem: Problem) -> Family:
    """What the algorithms share on a task, or on a problem that none is tuned for."""
    return FAMILIES[task] if task in FAMILIES else guest(problem.horizon)


def described(algorithm: str, task: str, problem: Problem) -> str:
    """What an algorithm is, and where its numbers on a task are from."""
    if is_guest(algorithm):
        return f"{algorithm}, with its own numbers"
    chosen = ALGORITHMS[algorithm]
    return f"{chosen.about}. Numbers: {chosen.family(task, problem).published}"


def named(
    algorithm: str, task: str, sizes: Mapping[str, Any] | None = None
) -> tuple[Problem, Algorithm]:
    """The problem of a task, with its policy, and the algorithm for it.

    `sizes` are fields of the `Family` that differ. Either may be a user's: `guests` says how it is
    named; a problem of theirs keeps its own policy, but for layers in `sizes`. Raises `UnknownName`
    for either name, `BadValue` for an algorithm that is trained elsewhere, and what `guests`
    raises.
    """
    theirs = is_guest(algorithm)
    if algorithm in BASELINES:
        raise BadValue(
            f"{algorithm} is stable-baselines3's and has no gradient to measure; try "
            f"python -m studies.learning_curves --tasks {task} --algorithms {algorithm}"
        )
    if not theirs and algorithm not in ALGORITHMS:
        raise UnknownName("algorithm", algorithm, list(ALGORITHMS))
    chosen, sizes = ALGORITHMS["shac" if theirs else algorithm], sizes or {}
    if task in FAMILIES:
        family = replace(chosen.family(task), **sizes)
        problem = _made(task, family, chosen)
    else:
        layers = {"hidden": sizes["hidden"]} if "hidden" in sizes else {}
        problem = problem_of(task, **layers)
        family = replace(guest(problem.horizon), **sizes)
    if theirs:
        return problem, algorithm_of(algorithm, task, problem)
    return problem, chosen.build(family)


def _made(task: str, family: Family, chosen: Named) -> Problem:
    """A task that algorithms are tuned for, with their policy."""
    options: dict[str, Any] = {
        "hidden": family.hidden,
        "std": "global",
        "initial_std": family.std,
        "layer_norm": family.normed,
        "normalise": family.normed,
    }
    policy = gradlab.GaussianPolicy(**{**options, **family.policy, **chosen.policy})
    more: dict[str, Any] = {}
    if task in FLIGHTS:
        more = {"gates": 4} if task == "racing" else {}
    elif task == "ant_brax":  # the model, reward and hard contact of Brax's `generalized`
        more = {"preset": "brax", "contact": "brax"}
    elif task not in SUITE:
        more = {"preset": "dflex"}
    name = "ant" if task == "ant_brax" else task
    return gradlab.make(name, horizon=family.horizon, policy=policy, **more)
