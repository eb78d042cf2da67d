"""What is concluded from the variances along a rollout, with intervals that respect the episodes.

The unit of resampling is the start state: its whole episode stays together, since steps that follow
each other are alike. Variances of zero or that are not finite are left out, and counted by the
study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from gradlab.foundation.errors import BadShape
from gradlab.statistics import Interval

# log10 of a variance at [step, state]; NaN where there is none
Field: TypeAlias = Float[np.ndarray, "T N"]

CONFIDENCE = 0.95
TAILS = (0.05, 0.95)  # quantiles between which a spread is taken
TOP = 0.05  # share of the variances that are called outliers


class Answer(NamedTuple):
    """One number of a verdict, under a name."""

    name: str
    estimator: str  # or two, a/b
    interval: Interval


def logs(variance: Float[np.ndarray, "T N"]) -> Field:
    """log10, and NaN for what has none."""
    good = np.isfinite(variance) & (variance > 0)
    return np.where(good, np.log10(np.where(good, variance, 1.0)), np.nan)


def spread(field: Field) -> float:
    """Decades between the 5 % and the 95 % quantile over steps and states."""
    known = field[np.isfinite(field)]
    return float(np.subtract(*np.quantile(known, TAILS[::-1]))) if len(known) else np.nan


def wander(field: Field) -> float:
    """Decades between the least and the largest median over states during the rollout."""
    kept = field[np.isfinite(field).any(1)]
    if not len(kept):
        return np.nan
    middle = np.nanmedian(kept, axis=1)
    return float(middle.max() - middle.min())


def levelled(field: Field) -> Field:
    """Each step about its own median over states: what is left is not the time to go,
    nor the start's drop.
    """
    out = np.full_like(field, np.nan)
    kept = np.isfinite(field).any(1)
    out[kept] = field[kept] - np.nanmedian(field[kept], axis=1, keepdims=True)
    return out


def apart(one: Field, other: Field) -> float:
    """Median over steps and states of how many orders of magnitude `one` is above `other`."""
    gap = one - other
    known = gap[np.isfinite(gap)]
    return float(np.median(known)) if len(known) else np.nan


def bootstrap(
    statistic: Callable[[np.ndarray], float], states: int, resamples: int, seed: int
) -> Interval:
    """A statistic of the start states `index`, with the percentile interval over resamples of them.

    `statistic` gets an index [states] into the start states.
    Values that are not finite are left out.
    """
    if states < 2:
        raise BadShape(f"resampling needs at least 2 start states, got {states}")
    generator = np.random.default_rng(seed)
    drawn = np.array([statistic(generator.integers(0, states, states)) for _ in range(resamples)])
    drawn = drawn[np.isfinite(drawn)]
    found = statistic(np.arange(states))
    if not len(drawn):
        return Interval(found, np.nan, np.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Interval(found, float(low), float(high))


class Table(NamedTuple):
    """Shares of outliers and of the rest at contact."""

    top: float
    rest: float
    log_odds: float  # natural logarithm of the odds ratio


def outliers_at(field: Field, flag: Bool[np.ndarray, "T N"]) -> Table:
    """Share of the `TOP` largest variances, and of all others, where `flag` holds; log odds ratio.

    Half a case is added to every cell (Haldane and Anscombe), so that the ratio is finite.
    NaN without outliers.
    """
    known = np.isfinite(field)
    if not known.any():
        return Table(np.nan, np.nan, np.nan)
    values, flagged = field[known], flag[known]
    top = values > np.quantile(values, 1 - TOP)
    if not top.any():
        return Table(np.nan, np.nan, np.nan)
    if flagged.all() or not flagged.any():  # the flag tells nothing apart
        return Table(float(flagged[0]), float(flagged[0]), np.nan)
    yes, no = (top & flagged).sum(), (top & ~flagged).sum()
    yes_rest, no_rest = (~top & flagged).sum(), (~top & ~flagged).sum()
    odds = np.log((yes + 0.5) * (no_rest + 0.5) / ((no + 0.5) * (yes_rest + 0.5)))
    return Table(yes / top.sum(), yes_rest / max((~top).sum(), 1), float(odds))


def answers(
    fields: Mapping[str, Field],
    flags: Mapping[str, Bool[np.ndarray, "T N"]],
    resamples: int,
    seed: int,
) -> Iterator[Answer]:
    """Everything that a verdict is made of, for one setting."""
    states = next(iter(fields.values())).shape[1]

    def over(statistic: Callable[[np.ndarray], float]) -> Interval:
        return bootstrap(statistic, states, resamples, seed)

    for name, field in fields.items():
        yield Answer("spread", name, over(lambda i, f=field: spread(f[:, i])))
        yield Answer("spread_levelled", name, over(lambda i, f=field: spread(levelled(f[:, i]))))
        yield Answer("wander", name, over(lambda i, f=field: wander(f[:, i])))
    reference = fields["qg"]
    for name, field in fields.items():
        if name == "qg":
            continue
        pair = f"{name}/qg"
        yield Answer("orders", pair, over(lambda i, f=field: apart(f[:, i], reference[:, i])))
        yield Answer(
            "spread_difference",
            pair,
            over(lambda i, f=field: spread(f[:, i]) - spread(reference[:, i])),
        )
        yield Answer(
            "wander_difference",
            pair,
            over(lambda i, f=field: wander(f[:, i]) - wander(reference[:, i])),
        )
    first = fields["sg"]
    for name in (n for n in fields if n not in ("sg", "qg")):
        yield Answer(
            "orders", f"{name}/sg", over(lambda i, f=fields[name]: apart(f[:, i], first[:, i]))
        )
    for flag, where in flags.items():
        for name in ("sg", "qg"):
            field = levelled(fields[name])
            for part in Table._fields:
                found = over(
                    lambda i, f=field, w=where, p=part: getattr(outliers_at(f[:, i], w[:, i]), p)
                )
                if part == "log_odds":
                    found = bounded_log_odds(field, where) or found
                yield Answer(f"{flag}_{part}", name, found)


def bounded_log_odds(field: Field, flag: Bool[np.ndarray, "T N"]) -> Interval | None:
    """The log odds ratio where all outliers, or none, have the flag; None where some do.

    Resampled states never fill an empty cell, so a bootstrap knows nothing of what might be in it.
    One end is infinite. For the other, the share of outliers in the empty cell is at most
    1 − 0.025^(1/m), each of the m states with outliers counted once since its steps are alike
    (Clopper and Pearson 1934). The estimate is the infinite end.
    """
    known = np.isfinite(field)
    if not known.any():
        return None
    top = known & (field > np.quantile(field[known], 1 - TOP))
    rest = known & ~top
    yes, no = (int((rest & f).sum()) for f in (flag, ~flag))
    empty = [not (top & f).any() for f in (flag, ~flag)]
    if not top.any() or not any(empty) or not (yes and no):
        return None
    states = int(top.any(0).sum())
    most = 1 - ((1 - CONFIDENCE) / 2) ** (1 / states)
    least = float(np.log((1 - most) / most))
    if empty[1]:  # all have the flag
        return Interval(np.inf, least - float(np.log(yes / no)), np.inf)
    return Interval(-np.inf, -np.inf, -least - float(np.log(yes / no)))
