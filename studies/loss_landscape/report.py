"""The long form of what `loss_landscape` found, and how its arrows are judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy import stats

from gradlab.critics.quality import Quality
from gradlab.statistics import Interval, format_interval, holm
from studies.loss_landscape.arrows import TRUTH
from studies.loss_landscape.config import RETURN

# a pandas table and one row of it; pandas' own types get lost at the first column
Table: TypeAlias = Any
Row: TypeAlias = Any

LEVEL = 0.05  # of the verdicts, after Holm's correction over the table
APART = 0.01  # share of arrows that noise alone may set apart (Bonferroni over two coordinates)
SHOWN = 0.2  # of the slope's length: the bias that an arrow is asked whether it could have shown
POWER = 0.8  # probability with which it is then shown

NAMES = {RETURN: "return J", "sg": "SG", "q": "Q alone", "sg_pg": "SG+PG", "sg_qg": "SG+QG"}
ESTIMATORS = {"fog": "SG (FOG)", "pg": "PG", "qg": "QG", "sg_pg": "SG+PG", "sg_qg": "SG+QG"}
UNITS = {
    "plain": "lengths of θ",
    "filter": "lengths of each filter",
    "pca": "extents of the training path",
}

# -------------------------------------------------------------------------------------- arrows


class Judged(NamedTuple):
    """What the arrows of one estimator say around one policy."""

    cosine: Interval  # of the field of arrows with the field of slopes, noise taken off
    length: Interval  # of the one over the other
    arrows: int
    apart: int  # further from the slope than noise and the error of step explain
    could: int  # that would have shown a bias of 20 % of the slope's length, whatever its direction


def judged(arrows: Table) -> Judged:
    """Direction, length and the arrows that differ, for the arrows of one estimator."""
    gap, reach = _gaps(arrows, 0.0)
    apart = (np.abs(gap) > reach).any(1)
    _, wide = _gaps(arrows, float(stats.norm.ppf(POWER)))
    length = np.hypot(arrows["true_a"], arrows["true_b"]).to_numpy()
    could = np.hypot(wide[:, 0], wide[:, 1]) <= SHOWN * length
    return Judged(
        _over_places(arrows, lambda sums: sums[0] / math.sqrt(sums[1] * sums[2]), -1.0, 1.0),
        _over_places(arrows, lambda sums: math.sqrt(sums[1] / sums[2]), 0.0, math.inf),
        len(arrows),
        int(apart.sum()),
        int(could.sum()),
    )


def _gaps(arrows: Table, more: float) -> tuple[np.ndarray, np.ndarray]:
    """Estimator minus slope on the same episodes, [arrows, 2],
    and how far it must be from zero to count.

    `more` standard errors are added, for a bias that is to be found with some probability.
    """
    columns = [
        arrows[[f"{name}_a", f"{name}_b"]].to_numpy(dtype=float)
        for name in ("gap", "gap_stderr", "gap_freedom", "truncation")
    ]
    gap, stderr, freedom, truncation = columns
    # no quantile where one episode makes the whole variance: nothing can be told
    quantile = np.where(freedom > 0, stats.t.isf(APART / 4, np.maximum(freedom, 1e-9)), np.inf)
    return gap, np.where(stderr > 0, (quantile + more) * stderr, 0.0) + truncation


def _over_places(
    arrows: Table, read: Callable[[np.ndarray], float], least: float, most: float
) -> Interval:
    """A read-out of Σ⟨g, s⟩, Σ‖g‖² and Σ‖s‖² over arrows, noise taken off,
    with the jackknife over places.
    """
    terms = np.zeros((len(arrows), 3))
    for end in "ab":
        g, s, both = (arrows[f"{name}_{end}"] for name in ("slope", "true", "gap_stderr"))
        noise = [arrows[f"{name}_stderr_{end}"] ** 2 for name in ("slope", "true")]
        # the two share their episodes: cov(g, s) = (var g + var s − var(g − s))/2
        terms[:, 0] += g * s - (noise[0] + noise[1] - both**2) / 2
        terms[:, 1] += g**2 - noise[0]
        terms[:, 2] += s**2 - noise[1]

    def value(sums: np.ndarray) -> float:
        return read(sums) if min(sums[1], sums[2]) > 0 else math.nan

    total, count = terms.sum(0), len(terms)
    found = value(total)
    if count < 3 or not math.isfinite(found):
        return Interval(found, least, most)
    without = np.array([value(total - term) for term in terms])
    if not np.isfinite(without).all():
        return Interval(found, least, most)
    stderr = math.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    reach = float(stats.t.ppf(0.975, count - 1)) * stderr
    estimate = min(max(found, least), most)
    return Interval(estimate, max(least, found - reach), min(most, found + reach))


def judgements(policy: Table) -> Iterator[tuple[str, Judged]]:
    arrows = policy[(policy["kind"] == "arrow") & (policy["estimator"] != TRUTH)]
    for name, group in arrows.groupby("estimator", sort=False):
        yield str(name), judged(group)


# ------------------------------------------------------------------------------------- summary


def summarise(rows: Table) -> str:
    """What was drawn, how rough it is, whether mixtures are smoother than SG, and the arrows."""
    paragraphs = [LEGEND]
    pairs = pairs_of(rows)
    for _, policy in policies_of(rows):
        paragraphs.append(_describe(policy))
        paragraphs.append(_table(policy))
        mine = pairs[pairs.index.isin(policy.index)]
        paragraphs += [text for text in (_verdicts(mine), _arrows(policy)) if text]
    lost = rows.loc[rows["nonfinite"].fillna(0) > 0]
    if len(lost):
        paragraphs.append(
            f"Values that are not finite were left out of {len(lost)} rows (column nonfinite): "
            "what is said of those is biased."
        )
    return "\n\n".join(paragraphs)


LEGEND = (
    "A surface's roughness is the share of its variance over the grid that a quadratic through four "
    "neighbouring points does not explain. It is that of the expected surface: Monte-Carlo noise is taken off, "
    "so that a negative number means that none is seen. The intervals are 95 % ones from independent episodes. "
    "A quadratic has 0, points that have nothing in common have 1. The column `seen` has the noise of these "
    "episodes left in, and `spread` is the standard deviation over the grid. SG, SG+PG and SG+QG are read as the "
    "one-step objectives of AGPO at steps t of the episode, with states and noise held fixed."
)


def pairs_of(rows: Table) -> Table:
    """Comparisons with SG, with p-values corrected over the table."""
    pairs = rows[rows["kind"] == "pair"].copy()
    for name in ("", "share_") if len(pairs) else ():
        pairs[f"{name}p_holm"] = holm(pairs[f"{name}p_value"].tolist())
    return pairs


def policies_of(rows: Table) -> Iterator[tuple[Any, Table]]:
    """Rows of one policy after the other."""
    yield from rows.groupby(["task", "label"], sort=False)


def _describe(policy: Table) -> str:
    first = policy.iloc[0]
    surface = policy[(policy["kind"] == "surface") & (policy["objective"] == RETURN)]
    text = (
        f"{title_of(first)}. The critic explains {first['critic_quality']:.0%} of the variance of the returns "
        f"({Quality.in_words(first)}); the directions are {first['directions']}"
    )
    if not len(surface):
        return text + "."
    centre = surface.iloc[len(surface) // 2]
    return (
        f"{text}. The return is {centre['value']:.4g} ± {centre['stderr']:.2g} in the centre, and lies between "
        f"{surface['value'].min():.4g} and {surface['value'].max():.4g} on {len(surface)} points. A change from the "
        f"centre has a standard error of {surface['change_stderr'].median():.2g} (median)."
    )


def title_of(row: Row) -> str:
    return f"{row['task']}, {row['policy']}"


def _table(policy: Table) -> str:
    """Roughness of every surface, a column per scale."""
    rough = policy[policy["kind"] == "roughness"]
    scales = sorted(set(rough["scale"]))
    lines = [["surface", "t", *(f"share at {s:.3g}" for s in scales), "seen", "spread"]]
    for (step, name, alpha), group in rough.groupby(
        ["step", "objective", "alpha"], sort=False, dropna=False
    ):
        ordered = group.sort_values("scale")
        first = ordered.iloc[0]
        when = "" if math.isnan(step) else f"{step:.0f}"
        # where no episode is alive any more there is nothing to be rough
        flat = first["spread"] == 0
        shares = ["flat" if flat else _interval(row, "share") for _, row in ordered.iterrows()]
        lines.append(
            [
                _name(name, alpha),
                when,
                *shares,
                _short(first["share_seen"]),
                _short(first["spread"]),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _name(objective: str, alpha: str) -> str:
    where = {"centre": ", α of the centre", "point": ", α at each point"}.get(alpha, "")
    return f"{NAMES[objective]}{where}"


def _verdicts(pairs: Table) -> str:
    """In how many steps of the simulation is each objective smoother than SG,
    at the finest scale?
    """
    if not len(pairs):
        return ""
    fine = pairs[pairs["stride"] == pairs["stride"].min()]
    parts = []
    for (name, alpha), group in fine.groupby(["objective", "alpha"], sort=False):
        said = [f"{counts(group, column)} {what}" for column, what in COMPARED.items()]
        parts.append(f"{_name(name, alpha)}: {'; '.join(said)}.")
    return (
        f"Every objective is compared with SG on the same episodes, at the finest scale, at {fine['step'].nunique()} "
        f"steps of the simulation (p < {LEVEL} after Holm's correction over the table; elsewhere it cannot be "
        "told):\n" + "\n".join(parts)
    )


COMPARED = {
    "": "in the variance off quadratics",
    "share_": "in its share of the surface's variance",
}


def counts(group: Table, column: str) -> str:
    sure = group[group[f"{column}p_holm"] <= LEVEL][f"{column}difference"]
    return f"smoother at {int((sure < 0).sum())}, rougher at {int((sure > 0).sum())}"


def _arrows(policy: Table) -> str:
    """Direction, length, and how many arrows differ of those that could have shown it."""
    parts = [
        f"{ESTIMATORS.get(name, name)}: direction {direction(one.cosine)}, length {length(one.length)}; {one.apart} of {one.arrows} "
        f"arrows differ, {one.could} could have shown a bias of 20 %."
        for name, one in judgements(policy)
    ]
    if not parts:
        return ""
    return (
        "The arrows are compared with the slope of J, which is known from differences of returns whose error of step is "
        "part of every comparison. Direction is the cosine between the field of arrows and the field of slopes, "
        "length is their ratio; both are free of noise bias, with 95 % jackknife intervals over the places. An arrow "
        "differs where it is further from the slope than noise and the error of step explain (1 % would be by "
        "chance). It could have shown a bias of 20 % of the slope's length, whatever the direction of that bias, if "
        "it would be found in four of five repetitions:\n" + "\n".join(parts) + "\n"
        "QG and its mixture read the critic of the policy in the centre, which knows less of the policies around it."
    )


def direction(found: Interval) -> str:
    """A cosine with its interval."""
    return format_interval(*found, within=(-1.0, 1.0))


def length(found: Interval) -> str:
    """A ratio of lengths with its interval."""
    return format_interval(*found)


def _interval(row: Row, name: str) -> str:
    return format_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _short(value: float) -> str:
    return "unknown" if value is None or math.isnan(value) else f"{value:.2g}"
