"""What a training is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, cast

from gradlab.foundation.arguments import got, whole
from gradlab.foundation.errors import BadValue
from gradlab.gradients.sampling import SharingSampler
from gradlab.problems.problem import Problem
from gradlab.training.critic import CriticRecipe
from gradlab.training.exploration import Bonus, Entropy, KLPenalty, Soft, Temperature
from gradlab.training.optimiser import Adam
from gradlab.training.segments import AdaptiveLength, Replay, Reuse
from gradlab.training.state import TrainingState


@dataclass(frozen=True)
class Algorithm:
    """An estimator, a critic that follows, segments of episodes, and an optimiser.

    Every update runs `length` steps of `episodes` episodes from where they are, ascends the mean of
    the estimator's samples there, and fits the critic to what was seen. Episodes that have ended,
    or whose time is over, begin anew between segments: a time limit is no part of the task, and the
    segment that it falls into is run to its end.

    `tail` says what the state after a segment is worth to the estimator: "v", V of the critic, in
    the segment's return (SHAC); "own", what the estimator itself makes of it, which needs an
    estimator of a window of `length` and a Q critic (ABPT, AGPO); "none", nothing (BPTT).

    The rest is off unless it is given: what entropy is worth and what divergence costs
    (`exploration`), several steps on one segment, starts at visited moments, a length that follows
    the stiffness of contact (`segments`).

    `restart="inside"` is SHAC's auto-reset, for fidelity: a segment whose episode is over goes on
    with a new one for the steps that are left, each with its own return and V at its end (none
    after a termination), all in the same mean. Time limits then end an episode where they are.
    """

    estimator: SharingSampler
    critic: CriticRecipe | None = field(default_factory=CriticRecipe)
    optimiser: Adam = field(default_factory=lambda: Adam(2e-3, (0.7, 0.95), max_norm=1.0))
    tail: Literal["v", "own", "none"] = "v"
    episodes: int = 64
    length: int = 32  # of a segment [steps]
    updates: int = 2000  # of the whole training, for schedules
    average: bool = True  # over the steps of a segment: the gradient is divided by `length`
    entropy: Entropy | None = None
    kl: KLPenalty | None = None
    reuse: Reuse | None = None
    replay: Replay | None = None
    adaptive: AdaptiveLength | None = None  # the length of segments, instead of `length`
    restart: Literal["between", "inside"] = "between"  # of episodes that are over
    on_nonfinite: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        for name in ("episodes", "length", "updates"):
            whole(name, getattr(self, name))
        if isinstance(self.estimator, type) or not isinstance(self.estimator, SharingSampler):
            raise BadValue(
                f"estimator should be an estimator, got {got(self.estimator)}; try estimators.FOG()"
            )
        if self.episodes % self.estimator.group:
            raise BadValue(
                f"{self.estimator.label} looks across groups of {self.estimator.group} episodes, "
                f"got episodes={self.episodes}; take a multiple"
            )
        needed = {"v": "v", "own": "q", "none": None}
        if self.tail not in needed:
            raise BadValue(f"tail should be 'v', 'own' or 'none', got {self.tail!r}")
        kind = needed[self.tail]
        if kind is not None and (self.critic is None or self.critic.kind != kind):
            raise BadValue(
                f"tail={self.tail!r} needs a {kind.upper()} critic; "
                f"try critic=CriticRecipe(kind={kind!r}), or tail='none'"
            )
        if self.tail == "own":
            self._check_window()
        if self.on_nonfinite not in ("stop", "skip"):
            raise BadValue(f"on_nonfinite should be 'stop' or 'skip', got {self.on_nonfinite!r}")
        self._check_options()

    def _check_window(self) -> None:
        """Raise `BadValue` for windows that do not end where the segment does."""
        if any(window != self.length for window in _windows(self.estimator)):
            raise BadValue(
                f"with tail='own' a window is a segment, {self.length} steps, got "
                f"{self.estimator.label}; try estimators.ABPT({self.length})"
            )

    def _check_options(self) -> None:
        """Raise `BadValue` for options that do not go with the estimator or the tail."""
        entropy = self.entropy
        inside = entropy is not None and entropy.where == "estimator"
        if inside and not isinstance(self.estimator, Soft):
            raise BadValue(
                f"entropy in the estimator needs one with an `entropy`, got {self.estimator.label}; "
                "try FOG(), ABPT(...) or where='bonus'"
            )
        if entropy is not None and entropy.targets and self.critic is None:
            raise BadValue("entropy in targets needs a critic; try targets=False")
        if self.adaptive is not None and self.tail == "own":
            raise BadValue(
                "an adaptive length needs tail='v' or 'none', got 'own': windows have a fixed length"
            )
        if self.restart not in ("between", "inside"):
            raise BadValue(f"restart should be 'between' or 'inside', got {self.restart!r}")
        if self.restart == "inside":
            self._check_inside()

    def _check_inside(self) -> None:
        """Raise `BadValue` unless segments may be run in pieces of any length and number."""
        unfit = {
            f"an estimator without groups, got {self.estimator.label}": self.estimator.group > 1,
            "tail='v' or 'none', got 'own'": self.tail == "own",
            "replay=None": self.replay is not None,
            "adaptive=None": self.adaptive is not None,
        }
        for words, wrong in unfit.items():
            if wrong:
                raise BadValue(f"restart='inside' needs {words}; try restart='between'")

    def check_state(self, state: TrainingState) -> None:
        """Raise `BadValue` for a state that lacks what the algorithm goes on from."""
        heat = None if self.entropy is None else self.entropy.coefficient
        wanted = {
            "critic": (self.critic is not None, state.critic),
            "coefficient of entropy": (isinstance(heat, Temperature), state.temperature),
            "policy before the last update": (self.kl is not None, state.previous),
            "length of segments": (self.adaptive is not None, state.length),
        }
        lacks = [f"no {name}" for name, (needed, held) in wanted.items() if needed and not held]
        if len(state.returns) != self.episodes:
            lacks.append(f"{len(state.returns)} episodes in place of {self.episodes}")
        if lacks:
            raise BadValue(
                f"the state is of another algorithm: it has {' and '.join(lacks)}; "
                "try init(problem, algorithm)"
            )

    def now(self, state: TrainingState) -> Algorithm:
        """The algorithm of the next update: with the length and the coefficient of now."""
        changes: dict[str, Any] = {}
        if self.adaptive is not None:
            changes |= {"length": self.adaptive.steps(state.length), "adaptive": None}
        if self.entropy is not None and self.entropy.where == "estimator":
            bonus = self.bonus(state)
            changes["estimator"] = replace(cast(Any, self.estimator), entropy=bonus.slope)
        return replace(self, **changes) if changes else self

    def bonus(self, state: TrainingState) -> Bonus:
        """What an entropy is worth in the next update; nothing without the option."""
        if self.entropy is None:
            return Bonus(0.0, 0.0)
        actions = state.episodes.held_action.shape[-1]
        return self.entropy.now(state.temperature, self.done(state), actions)

    def done(self, state: TrainingState) -> float:
        """The fraction of the training that is over."""
        return int(state.updates) / self.updates

    def segment(self, problem: Problem) -> Problem:
        """The problem of one segment, of a problem that has the critic.

        With its own tail the estimator also acts in the state after its window.
        """
        longer = problem.replace(horizon=problem.horizon + self.length)
        if self.tail != "own":
            return longer.from_moments(self.length, bootstrap=self.tail == "v")
        return longer.from_moments(self.length + 1, bootstrap=False)

    def _beyond(self, problem: Problem) -> bool:
        """Whether a call after the segment has a weight; an estimator may not say."""
        if not hasattr(self.estimator, "call_weights"):
            return False
        weights = cast(Any, self.estimator).call_weights(self.segment(problem))
        return bool(weights[self.length :].any())

    def check(self, problem: Problem) -> None:
        """Raise `BadValue` unless the problem can be trained on: hard, whole, long enough."""
        problem.require_whole("a training")
        if problem.task.events and not problem.hard:
            raise BadValue(
                f"a training is on the hard task, got {problem.name} with {problem.event_step!r}; "
                "relax in the estimator, as estimators.RelaxedFOG() and Split() do"
            )
        length = self.length if self.adaptive is None else self.adaptive.most
        if length > problem.horizon:
            raise BadValue(
                f"a segment should have at most the {problem.horizon} steps of {problem.name}, "
                f"got length={length}"
            )
        if self.tail == "own" and self._beyond(problem):
            raise BadValue(
                "with tail='own' no policy call of the next segment may count, and "
                f"{self.estimator.label} has one; try estimators.ABPT({self.length}), or tail='v' with "
                "a V critic"
            )
        if self.restart == "inside" and problem.compile:
            raise BadValue(
                "restart='inside' runs pieces of any number of episodes, for each of which the step "
                "would be compiled anew; try compile=False or restart='between'"
            )
        if self.reuse is not None and problem.policy.carry_dim:
            raise BadValue("a segment can be used again with a feed-forward policy; try reuse=None")


def _windows(estimator: object) -> Iterator[object]:
    """The windows of an estimator, or of all parts that have one."""
    if hasattr(estimator, "window"):
        yield cast(Any, estimator).window
    elif isinstance(estimator, tuple):
        for part in estimator:
            yield from _windows(part)
    elif is_dataclass(estimator):
        for one in fields(estimator):
            yield from _windows(getattr(estimator, one.name))
