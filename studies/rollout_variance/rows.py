"""The rows of `rollout_variance` that its words read."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradlab.statistics import Interval

ORDER = 1.0  # decades that count as "orders of magnitude larger"


@dataclass(frozen=True)
class Policy:
    """How good the policy and the critic are in one setting, and the policy in its own."""

    setting: str
    earned: float = field(metadata={"column": "return"})  # [reward]
    return_stderr: float
    own_return: float  # where it was trained
    untrained_return: float
    speed: float  # [m/s]
    survival: float  # share of episodes
    std: float  # of the action
    explained: Interval  # share of the returns' variance by Q, along the rollout
    critic_start: float  # at t = 0, on the critic's own test episodes
    critic_start_stderr: float
    critic_ceiling: float
    critic_ceiling_stderr: float


@dataclass(frozen=True)
class State:
    """The variance over action noise of one estimator at one step and state."""

    setting: str
    estimator: str
    value: float  # [reward²]


@dataclass(frozen=True)
class Step:
    """Variances of one estimator at one step."""

    setting: str
    estimator: str
    across: float  # over the states, with one action each [reward²]
    nonfinite: int | None


@dataclass(frozen=True)
class Verdict:
    """One number that something is concluded from."""

    setting: str
    name: str
    estimator: str  # or two, a/b
    value: Interval


@dataclass(frozen=True)
class Ascent:
    """How one ascent from one state moved."""

    setting: str
    end: str  # low or high: the variance of the state that it starts from
    pick: int
    gain: float
    fallen: float  # share of all movement
    largest: float  # fall, over the range
