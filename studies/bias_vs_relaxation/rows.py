"""What the words and the figures of `bias_vs_relaxation` read out of its rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import pandas as pd

from gradlab.statistics import Interval, format_interval, holm

# a pandas table and one row of it; pandas' own types get lost at the first column
Table: TypeAlias = Any
Row: TypeAlias = Any

HARD = 0.0  # the width that stands for no relaxation
LEVEL = 0.05  # of the verdicts, after Holm's correction over the table
BLIND = 0.95  # relative bias from which an estimate is as far from ∇J as no gradient at all

NAMES = {
    "pg": "PG",
    "fog": "FOG",
    "qg": "QG",
    "nstep": "N-step alone",
    "abpt": "0-step + N-step",
    "split": "Split",
    "relaxed_fog": "RelaxedFOG",
}
CRITICS = {
    "none": "untrained critic",
    "short": "briefly fitted critic",
    "full": "fully fitted critic",
    "explored": "critic fitted on explored actions",
    "exact": "exact critic",
}
_BEST = ("exact", "full", "explored", "short", "none", "-")  # critics, the best first
_QUANTITIES = (
    "cosine",
    "relative_norm",
    "relative_bias",
    "relative_bias_target",
    "left_after_scaling",
)
ENDS = ("", "_low", "_high")


def overall(rows: Table, kind: str, experiment: str) -> Table:
    """Rows of all parameters together, of one kind and experiment."""
    chosen = (rows["kind"] == kind) & (rows["experiment"] == experiment) & (rows["part"] == "all")
    return rows[chosen]


def policies(table: Table) -> Iterator[Table]:
    """The rows of each policy, in the order of the table."""
    for _, group in table.groupby(["task", "stage"], sort=False):
        yield group


def comparisons(rows: Table) -> Table:
    """0-step + N-step beside N-step alone against the hard gradient: one row per pair.

    Columns `abpt_X` and `nstep_X` with their ends, `difference` of the squared relative biases,
    `p_holm`, and three verdicts on the 0-step return: `direction` (nearer, farther, unclear),
    `length` (longer, shorter, unclear), `bias` (falls, rises, unclear). Direction and length are
    told apart where the two intervals do not overlap, the bias by the paired test.
    """
    single, pairs = overall(rows, "single", "A"), overall(rows, "pair", "A")
    hard = pairs[pairs["truth_width"] == HARD]
    if not len(hard):
        return pd.DataFrame()
    keys = ["task", "stage", "critic_fit", "form", "window"]
    single = single[single["truth_width"] == HARD].set_index(["estimator", *keys]).sort_index()
    found = []
    for (_, pair), p in zip(hard.iterrows(), holm(hard["p_value"].tolist()), strict=True):
        row: dict[str, Any] = {key: pair[key] for key in keys}
        for name in ("abpt", "nstep"):
            mine = single.loc[(name, *(pair[key] for key in keys))]
            row |= {f"{name}_{q}{end}": mine[f"{q}{end}"] for q in _QUANTITIES for end in ENDS}
            row |= {name: mine[name] for name in (*_CRITIC, "success_rate", "horizon")}
        row |= {f"difference{end}": pair[f"relative_difference{end}"] for end in ENDS}
        found.append({**row, "p_holm": p, "whole": pair["window"] == row["horizon"]})
    table = pd.DataFrame(found)
    table["direction"] = _apart(table, "cosine", "nearer", "farther")
    table["length"] = _apart(table, "relative_norm", "longer", "shorter")
    table["bias"] = [
        "unclear" if not p <= LEVEL else "falls" if gap < 0 else "rises"
        for p, gap in zip(table["p_holm"], table["difference"], strict=True)
    ]
    return table


_CRITIC = ("critic_quality_start", "critic_ceiling_start", "critic_ceiling_start_stderr")


def _apart(table: Table, quantity: str, more: str, less: str) -> list[str]:
    """Whether 0-step + N-step has more or less of a quantity,
    where the intervals do not overlap.
    """
    verdicts = []
    for _, row in table.iterrows():
        abpt, nstep = (interval(row, f"{name}_{quantity}") for name in ("abpt", "nstep"))
        over, under = abpt.low > nstep.high, abpt.high < nstep.low
        verdicts.append(more if over else less if under else "unclear")
    return verdicts


def best_critic(table: Table) -> Table:
    """Of each policy the rows of its best critic, and those that need none."""
    rank = table["critic_fit"].map({fit: k for k, fit in enumerate(_BEST)})
    critics = rank.where(table["critic_fit"] != "-")
    best = critics.groupby([table["task"], table["stage"]]).transform("min")
    return table[(critics == best) | critics.isna()]


def middle_window(table: Table) -> float | None:
    """The window that figures show: the middle one, the shorter of two."""
    windows = sorted(set(table["window"].dropna()))
    return windows[(len(windows) - 1) // 2] if windows else None


def form_of(table: Table) -> str:
    """The form to show: the published one where it was run."""
    return "published" if (table["form"] == "published").any() else "tiled"


def levels(table: Table) -> Table:
    """One row per estimator without a width: its best critic,
    N-step and ABPT at the middle window.
    """
    fixed = best_critic(table[table["width"].isna()])
    shown = (fixed["window"] == middle_window(fixed)) & (fixed["form"] == form_of(fixed))
    return fixed[fixed["window"].isna() | shown]


def relative(group: Table) -> Table:
    """With columns in units of the truth's length."""
    table = group.copy()
    square = table["truth_norm"] ** 2
    for end in ENDS:
        table[f"spread{end}"] = (table[f"variance{end}"] / 100 / square) ** 0.5
        table[f"relative_mse{end}"] = table[f"mse{end}"] / square
    table["relative_mse_odd"] = table["mse_odd"] / square
    table["relative_mse_cost"] = table["mse_equal_cost"] / square
    return table


def best_width(sweep: Table) -> Row | None:
    """The row of least MSE on the even blocks; report its columns that end in `_odd`."""
    if sweep.empty or sweep["mse_even"].isna().all():
        return None
    return sweep.loc[sweep["mse_even"].idxmin()]


def interval(row: Row, name: str) -> Interval:
    """The interval that takes three columns of the row."""
    values = [row[f"{name}{end}"] for end in ENDS]
    return Interval(*(float("nan") if v is None else float(v) for v in values))


def said(row: Row, name: str) -> str:
    """The interval as text; what is of order one with two decimals, its ends rounded outwards."""
    values = interval(row, name)
    within = _within(name)
    if name.endswith(_TWO_DECIMALS) and values.low <= values.estimate <= values.high < math.inf:
        low, high = math.floor(100 * values.low) / 100, math.ceil(100 * values.high) / 100
        return f"{values.estimate:.2f} [{low:.2f}, {high:.2f}]"
    return format_interval(*values, within=within)


_TWO_DECIMALS = ("cosine", "relative_bias", "relative_bias_odd", "relative_norm")


def _within(name: str) -> tuple[float, float]:
    """The range that a quantity can have."""
    if name.endswith("cosine"):
        return -1.0, 1.0
    return (-math.inf if name.endswith("difference") else 0.0), math.inf


def policy_of(row: Row) -> str:
    """The policy in words, by its success rate."""
    return f"{row['success_rate']:.0%} policy"
