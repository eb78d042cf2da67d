"""How good the gradient of the next update is: bias, noise, direction, jumps, and its critic.

Everything is seen where the training is. The update's gradient is a mean over N episodes that go on
from the state's moments, each once; what is random in it is the noise of the segment. So the
gradient of the *same* update is drawn `gradients` times, from generators of its own, and set
against two truths from the same N moments:

- *segment*: the gradient of what the update ascends, E Σ_{t<L} γ^t r_t + γ^L V̂(s_L), with the
  critic as it is. With a Q critic V̂ is its mean over actions, by a rule that is exact for cubics;
- *whole*: the gradient by the same L policy calls of the discounted return of many more steps,
  without a critic. With an exact V̂ the two are equal: what the whole adds to the bias is the
  critic's share (without a critic, that of the cut after L steps).

Nothing here draws from a generator that the training draws from, or writes to its state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from gradlab.critics.episodes import lambda_returns
from gradlab.critics.pairs import judge, output_pairs
from gradlab.critics.quality import GradientQuality, Quality, explained_variance, shared_variance
from gradlab.foundation.arguments import got, whole
from gradlab.foundation.errors import BadValue, NotFinite
from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import Sampler
from gradlab.problems.critic import Critic
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, views
from gradlab.rollouts.rollout import rollout
from gradlab.statistics.comparing import compare
from gradlab.statistics.intervals import Interval, ratio_interval
from gradlab.statistics.jumps import LEAST as LEAST_PAIRS
from gradlab.statistics.jumps import Jump
from gradlab.statistics.moments import Moments
from gradlab.statistics.report import Row
from gradlab.statistics.truth import OracleGradient
from gradlab.testing.jumps import detect_jump
from gradlab.training.algorithm import Algorithm
from gradlab.training.ascent import segment_of
from gradlab.training.redraws import Redraws, objective_of
from gradlab.training.state import TrainingState

LEAST = 5  # gradients without which `compare` has no interval
UNKNOWN = Interval(math.nan, -math.inf, math.inf)


@dataclass(frozen=True)
class Yardstick:
    """What the next update's gradient is measured by, and how much that costs.

    `unbiased` is an estimator without bias on segments and on whole episodes, whose samples are
    policy calls: `estimators.Split()`, or `PG()` where the simulator itself jumps. With N episodes
    and L steps of a segment, a measurement simulates N L (gradients + truth) steps, N steps `whole`
    for the second truth, 2 L pairs for the jump test, and with a critic 2 N steps; with a Q also
    2 steps `action_pairs`. With N = 64, L = 32 and a small flight that is the time of about thirty
    updates. An estimator may run an episode more than once.
    """

    unbiased: Sampler
    gradients: int = 16  # of the next update, drawn anew
    truth: int = 64  # gradients of as many episodes, behind the segment's truth
    steps: int = 192  # of the whole return; 0: only the segment is looked at, and no critic
    whole: int = 16  # gradients behind the whole's truth
    pairs: int = 256  # of episodes, of the jump test
    action_pairs: int = 128  # of episodes, that judge a Q critic's ∇_a Q

    def __post_init__(self) -> None:
        if isinstance(self.unbiased, type) or not isinstance(self.unbiased, Sampler):
            raise BadValue(
                f"unbiased should be an estimator, got {got(self.unbiased)}; try estimators.Split()"
            )
        if self.unbiased.group != 1:
            raise BadValue(
                f"unbiased should look at every episode by itself, got {self.unbiased.label}, which "
                f"looks at groups of {self.unbiased.group}; try estimators.Split()"
            )
        for name in ("gradients", "truth", "whole"):
            whole(name, getattr(self, name), LEAST)
        whole("steps", self.steps, 0)
        whole("pairs", self.pairs, LEAST_PAIRS)
        whole("action_pairs", self.action_pairs, 2)


class Against(NamedTuple):
    """The gradient of one update against a truth; 95 % intervals, which share the truth's error."""

    bias: Interval  # ‖E ĝ − g*‖/‖g*‖, debiased, with the sign of the debiased square [1]
    cosine: Interval  # of E ĝ with g* [1]
    noise: Interval  # √tr Cov ĝ / ‖g*‖, of one update [1]
    snr: Interval  # ‖E ĝ‖²/tr Cov ĝ of one update [1]
    mse: Interval  # E ‖ĝ − g*‖²/‖g*‖² of one update [1]
    truth_error: float  # relative standard error of ĝ* [1]

    @staticmethod
    def of(row: Row, truth: OracleGradient) -> Against:
        """Out of a comparison in which a sample is the gradient of a whole update."""
        size = row.truth_norm
        spread = (math.sqrt(max(value, 0.0)) / size for value in row.variance)
        error = Interval(*(value / size**2 for value in row.mse))
        return Against(
            row.relative_bias, row.cosine, Interval(*spread), row.snr, error, truth.relative_stderr
        )


UNSEEN = Against(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, math.inf)  # a truth not finite


class UpdateQuality(NamedTuple):
    """What is known of the gradient of an update, and of the critic in it."""

    updates: int  # before it
    length: int  # of the segment [steps]
    lam: float  # λ of the critic's targets; NaN without a critic
    segment: Against  # the gradient of what the update ascends
    whole: Against | None  # that of the whole return; None where `steps` is 0
    jump: Jump | None  # of what the update ascends; None where episodes were not finite
    weights: dict[str, float]  # means of what a mixture weighs its parts with; {} for others
    critic: Quality | None  # how much of the returns from here it explains
    action: GradientQuality | None  # of a Q critic: ∇_a Q̂ against the truth
    lost: float  # share of the gradients that were not finite, and are in no number [1]
    simulated: int  # steps of the episodes that were drawn [steps]

    def columns(self) -> dict[str, float]:
        """A row for a log: plain numbers, an interval as `x`, `x_low`, `x_high`."""
        row: dict[str, float] = {"segment length": self.length, "lambda": self.lam}
        for name, one in (("", self.segment), ("whole ", self.whole)):
            if one is not None:
                for part in ("bias", "cosine", "noise", "snr", "mse"):
                    row |= _three(name + part, getattr(one, part))
                row[f"{name}truth error"] = one.truth_error
        if self.jump is not None:
            row |= {**_three("jump share", self.jump.share), "jump p": self.jump.p_value}
        row |= {f"weight {name}": value for name, value in self.weights.items()}
        if self.critic is not None:
            now, most = (
                _interval(*part) for part in (self.critic.at_start, self.critic.ceiling_at_start)
            )
            row |= _three("explained", _interval(*self.critic.overall))
            row |= {**_three("explained now", now), **_three("explainable now", most)}
            row |= _three("explained share", ratio_interval(now, most))
        if self.action is not None:
            row |= _three("action cosine", _interval(*self.action.cosine))
        return {**row, "gradients lost": self.lost, "quality steps": self.simulated}


def update_quality(
    problem: Problem, algorithm: Algorithm, state: TrainingState, yardstick: Yardstick
) -> UpdateQuality:
    """Measure the gradient that `update(problem, algorithm, state)` takes a step along.

    `problem` is that of the training. Raises what an update raises for a problem or an algorithm
    that do not fit, and `BadValue` for a recurrent policy with a Q critic of its own tail.

    What an update adds to its estimator's gradient, a bonus for entropy or a `KLPenalty`, is left
    out; entropy in the estimator itself is bias to both truths, which are of rewards. With
    `restart="inside"` it is the gradient up to the restarts, and the pieces after them are not
    measured.
    """
    algorithm = algorithm.now(state)
    bench = _Bench(problem, algorithm, state, yardstick)
    one, objective = segment_of(problem, algorithm, state), objective_of(problem, algorithm, state)
    own = bench.again.moments(algorithm.estimator, one, "own", yardstick.gradients)
    unbiased = yardstick.unbiased
    truth = bench.again.truth(unbiased, objective, "truth", yardstick.truth)
    count, length = len(state.episodes.step), algorithm.length
    simulated = count * (yardstick.gradients * one.horizon + yardstick.truth * length)
    simulated += 2 * yardstick.pairs * length
    long = bench.long(objective) if yardstick.steps else None
    against = critic = action = None
    if long is not None:
        first = torch.zeros(long.horizon)
        first[:length] = 1.0
        far = bench.again.truth(unbiased, long, "whole", yardstick.whole, first)
        against = _against(own, far)
        simulated += count * long.horizon * yardstick.whole
    if long is not None and algorithm.critic is not None:
        critic = bench.explained(long, algorithm.critic.kind)
        simulated += 2 * count * long.horizon
        if algorithm.critic.kind == "q":
            action = bench.action(long)
            simulated += 2 * yardstick.action_pairs * long.horizon
    return UpdateQuality(
        updates=int(state.updates),
        length=length,
        lam=math.nan if algorithm.critic is None else algorithm.critic.lam,
        segment=_against(own, truth),
        whole=against,
        jump=bench.jump(objective),
        weights=bench.weights(one),
        critic=critic,
        action=action,
        lost=own.nonfinite / yardstick.gradients,
        simulated=simulated,
    )


@runtime_checkable
class _Weighing(Protocol):
    """An estimator that says what it weighs its parts or steps with."""

    def weights(self, problem: Problem, params: dict[str, Tensor], noise: Noise) -> Any: ...


@runtime_checkable
class _ByPart(Protocol):
    """Weights of k parts: {name: [B, k, ...]}."""

    values: dict[str, Tensor]


@dataclass(frozen=True)
class _Bench:
    """A training's state, set up to draw its next update again and again."""

    problem: Problem
    algorithm: Algorithm
    state: TrainingState
    yardstick: Yardstick

    @property
    def again(self) -> Redraws:
        return Redraws(self.state)

    def long(self, objective: Problem) -> Problem:
        """The episodes from the same moments over many more steps, without a critic."""
        length = max(self.yardstick.steps, self.algorithm.length)
        whole_task = objective.replace(horizon=self.problem.horizon + length, segment=None)
        return whole_task.from_moments(length, self.state.episodes, bootstrap=False)

    def jump(self, objective: Problem) -> Jump | None:
        """Whether what the update ascends jumps in the noise of its actions."""
        at = objective.segment
        assert at is not None
        pooled = objective.replace(segment=replace(at, moments=self.state.episodes))
        try:
            found = detect_jump(
                pooled, self.state.params, count=self.yardstick.pairs, seed=self.again.seed("jump")
            )
        except NotFinite:
            return None
        return found.jumps[0]

    def weights(self, segment: Problem) -> dict[str, float]:
        """What the estimator weighs its parts with in one update, on average."""
        estimator = self.algorithm.estimator
        if not isinstance(estimator, _Weighing):
            return {}
        found = estimator.weights(
            segment, self.state.params, self.again.noise(segment, "weights", 0, 1)
        )
        return mean_weights(found)

    def explained(self, long: Problem, kind: str) -> Quality:
        """What the critic explains of returns from here: two of every moment, V̂ at their far end.

        The two of a Q share their first action too.
        """
        critic, length = _critic(long), self.algorithm.length
        value = long.require_v if critic.v is not None else None
        noise, other = (self.again.noise(long, use, 0, 1) for use in ("returns", "returns again"))
        if kind == "q":
            action = torch.cat([noise.action[:, :1], other.action[:, 1:]], dim=1)
            other = other._replace(action=action)
        targets, guesses, rows = [], [], []
        policy = long.bind(self.state.params).frozen
        for one in (noise, other):
            with torch.no_grad():
                path = rollout(long, policy, one)
                result = evaluate(long, path)
                end = views(long, path, result, slice(long.horizon, None))
                last = None if value is None else value("the far end")(end)[..., 0]
                none = torch.zeros_like(result.reward)
                returns = lambda_returns(
                    result.reward, result.alive, none, long.discount, 1.0, last
                )
                view = views(long, path, result, slice(0, length))
                if kind == "q":
                    guess = long.require_q("its quality")(view, path.action[:, :length])
                else:
                    guess = long.require_v("its quality")(view)
            targets.append(returns[:, :length])
            guesses.append(guess)
            rows.append(result.alive[:, :length] > 0)
        target, guess, alive = (torch.cat(each, 1) for each in (targets, guesses, rows))
        first = [0, length]
        return Quality(
            explained_variance(target, guess, alive),
            explained_variance(target[:, first], guess[:, first], alive[:, first]),
            shared_variance(targets[0][:, 0], targets[1][:, 0]),
            len(target),
        )

    def action(self, long: Problem) -> GradientQuality:
        """∇_a Q̂ over the steps of a segment against what all that follows says of the action."""
        pairs = output_pairs(
            long,
            self.state.params,
            self.yardstick.unbiased,
            self.yardstick.action_pairs,
            self.again.seed("action"),
            within=self.algorithm.length,
        )
        return judge(long, _critic(long), pairs)


def _critic(problem: Problem) -> Critic:
    assert problem.critic is not None
    return problem.critic


def _against(own: Moments, truth: OracleGradient | None) -> Against:
    if truth is None or own.count < LEAST:
        return UNSEEN
    return Against.of(compare(own, truth, batch=1, only=lambda part: part == "all").overall, truth)


def mean_weights(found: Any) -> dict[str, float]:
    """Means over blocks, steps and parameters of what `weights` of an estimator gives: of each part
    of a mixture ("1", "2", ...), of each field of weights of steps, or of a single tensor ("").
    """
    if isinstance(found, Tensor):
        return {"": float(found.double().mean())}
    if isinstance(found, _ByPart):
        flat = [value.movedim(1, 0).flatten(1) for value in found.values.values()]
        means = torch.cat(flat, 1).double().mean(1).tolist()
        return {str(i): mean for i, mean in enumerate(means, 1)}
    fields = found._asdict()
    return {name: float(value.double().mean()) for name, value in fields.items()}


def _interval(value: float, stderr: float) -> Interval:
    return Interval(value, value - 1.96 * stderr, value + 1.96 * stderr)


def _three(name: str, interval: Interval) -> dict[str, float]:
    """The columns of an interval."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
