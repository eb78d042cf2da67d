"""The rows of `estimator_in_training`, and the rank correlations read out of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy  # its parts are imported when they are used

from gradlab.statistics import Interval
from gradlab.study.tables import UNKNOWN, grouped, read
from studies.estimator_in_training.config import FEWEST

SEEDS = 4  # without which an interval over seeds says nothing
PRECISE = 0.5  # relative standard error of a truth above which a state is left out [1]


@dataclass(frozen=True)
class State:
    """The gradient of one training's next update, and what the next updates gained."""

    task: str
    training: int
    algorithm: str
    updates: int
    gain: float  # in return, over the next updates
    cost: float  # simulator steps of the estimator over those of its segments [1]
    segment_error: float  # relative standard error of the truth [1]
    whole_error: float
    segment_bias: Interval
    segment_noise: Interval  # √tr Cov of an update's gradient over the true length [1]
    segment_cosine: Interval
    whole_bias: Interval
    whole_noise: Interval
    whole_cosine: Interval

    def mse(self, truth: str) -> float:
        """Of an update at equal cost, over the squared true length [1].

        Noise counts as if the estimator had as many episodes as its share of the steps buys.
        """
        bias, noise = getattr(self, f"{truth}_bias"), getattr(self, f"{truth}_noise")
        return max(bias.estimate, 0.0) ** 2 + self.cost * noise.estimate**2


# what a leaderboard could rank by: more of it should gain more
PREDICTORS: dict[str, Callable[[State], float]] = {
    "error to the return": lambda s: -s.mse("whole"),
    "error to the segment": lambda s: -s.mse("segment"),
    "bias to the return": lambda s: -s.whole_bias.estimate,
    "cosine to the return": lambda s: s.whole_cosine.estimate,
    "noise": lambda s: -s.cost * s.segment_noise.estimate**2,
}
MAIN = "error to the return"  # what the verdict is about


@dataclass(frozen=True)
class Return:
    """The mean return of one training at one evaluation."""

    task: str
    training: int
    algorithm: str
    updates: int
    value: float = field(metadata={"column": "return"})


@dataclass(frozen=True)
class Seen:
    """All rows of a run."""

    states: list[State]
    returns: list[Return]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Seen:
        """Those of a table."""
        return cls(read(State, table, kind="state"), read(Return, table, kind="return"))

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(state.task for state in self.states))

    @property
    def algorithms(self) -> list[str]:
        return list(dict.fromkeys(state.algorithm for state in self.states))

    @property
    def precise(self) -> list[State]:
        """Those whose truths are known well enough, and whose gradient is finite."""
        return [
            state
            for state in self.states
            if max(state.segment_error, state.whole_error) <= PRECISE
            and math.isfinite(state.mse("whole") + state.mse("segment") + state.gain)
        ]

    def correlation(self, predictor: str, task: str | None = None) -> Interval:
        """Mean rank correlation of a predictor with the gain over algorithms at one state, with
        Student's interval over seeds; of one task or of all.
        """
        return bounded([*self.correlations(predictor, task).values()])

    def correlations(self, predictor: str, task: str | None = None) -> dict[int, float]:
        """That of each seed; a state whose predictor is not known is left out."""
        value = PREDICTORS[predictor]
        chosen = [s for s in self.precise if task in (None, s.task) and math.isfinite(value(s))]
        by_seed: dict[int, list[float]] = {}
        groups = grouped(chosen, lambda s: (s.training, s.task, s.updates))
        for (training, _, _), states in groups.items():
            one = rank_correlation([value(s) for s in states], [s.gain for s in states])
            if not math.isnan(one):
                by_seed.setdefault(training, []).append(one)
        return {training: float(np.mean(values)) for training, values in by_seed.items()}

    def leaderboard(self, task: str | None = None) -> Interval:
        """The same of whole trainings: the mean logarithm of the error over states against the mean
        return over evaluations.
        """
        return bounded([*self.leaderboards(task).values()])

    def leaderboards(self, task: str | None = None) -> dict[int, float]:
        """That of each seed."""
        errors, learnt = self.errors(), self.learnt()
        groups = grouped(sorted(errors.keys() & learnt.keys()), lambda key: key[:2])
        by_seed: dict[int, list[float]] = {}
        for (place, training), keys in groups.items():
            if task in (None, place):
                one = rank_correlation([-errors[k] for k in keys], [learnt[k] for k in keys])
                if not math.isnan(one):
                    by_seed.setdefault(training, []).append(one)
        return {training: float(np.mean(values)) for training, values in by_seed.items()}

    def errors(self) -> dict[tuple[str, int, str], float]:
        """Mean log error to the return, by task, training and algorithm."""
        groups = grouped(self.precise, lambda s: (s.task, s.training, s.algorithm))
        return {
            key: float(np.mean([math.log(max(s.mse("whole"), 1e-12)) for s in states]))
            for key, states in groups.items()
        }

    def learnt(self) -> dict[tuple[str, int, str], float]:
        """Mean return over evaluations after the first, by task, training and algorithm."""
        later = [row for row in self.returns if row.updates > 0]
        groups = grouped(later, lambda r: (r.task, r.training, r.algorithm))
        return {key: float(np.mean([r.value for r in rows])) for key, rows in groups.items()}

    def mean_ranks(
        self, values: Mapping[tuple[str, int, str], float], task: str, least: bool
    ) -> dict[str, Interval]:
        """Mean ranks of the algorithms over seeds, 1 the best: the least value, or the largest."""
        ranks: dict[str, list[float]] = {name: [] for name in self.algorithms}
        seeds = dict.fromkeys(key[1] for key in values if key[0] == task)
        for seed in seeds:
            known = {k[2]: v for k, v in values.items() if k[:2] == (task, seed)}
            if len(known) < len(ranks):
                continue
            sign = 1 if least else -1
            found = scipy.stats.rankdata([sign * value for value in known.values()])
            for name, rank in zip(known, found, strict=True):
                ranks[name].append(float(rank))
        return {name: student(found) for name, found in ranks.items()}


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's; NaN for fewer than four, or where one does not vary."""
    if len(first) < FEWEST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(scipy.stats.spearmanr(first, second).statistic)


def bounded(values: Sequence[float]) -> Interval:
    """`student` of correlations, within −1 and 1; from fewer than `SEEDS` nothing is told."""
    found = student(values)
    if math.isnan(found.estimate) or len(values) < SEEDS:
        return Interval(found.estimate, -1.0, 1.0)
    return Interval(found.estimate, max(found.low, -1.0), min(found.high, 1.0))


def student(values: Iterable[float]) -> Interval:
    """The mean of independent numbers with its 95 % interval; unknown for fewer than two."""
    known = np.array([value for value in values if math.isfinite(value)])
    if len(known) < 2:
        return UNKNOWN if not len(known) else Interval(float(known[0]), -math.inf, math.inf)
    reach = float(scipy.stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1)) / math.sqrt(
        len(known)
    )
    mean = float(known.mean())
    return Interval(mean, mean - reach, mean + reach)
