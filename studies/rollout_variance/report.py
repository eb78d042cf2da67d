"""The long form of what `rollout_variance` found."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from gradlab.critics.quality import Quality
from gradlab.statistics import format_interval

# a pandas table and one row of it; pandas' own types get lost at the first column
Table: TypeAlias = Any
Row: TypeAlias = Any

NAMES = {
    "pg": "PG (one-step return)",
    "pg_q": "PG (Q of the action)",
    "pg_return": "PG (return of the rollout)",
    "qg": "QG",
    "sg": "SG (one step)",
}
FLAGS = {
    "touching": "something touches",
    "changes": "something lands or lifts off",
    "splits": "the noise decides what touches",
}
ENDS = {"low": "low", "high": "high"}
ORDER = 1.0  # decades that count as "orders of magnitude larger"


# ------------------------------------------------------------------------------------- summary


def summarise(rows: Table) -> str:
    """Per setting: the policy, the three verdicts and the ascents;
    then what holds in all of them.
    """
    paragraphs = [LEGEND]
    for setting, mine in rows.groupby("setting", sort=False):
        paragraphs.append(f"{setting}\n" + "\n".join(_lines(mine)))
    paragraphs.append(_overall(rows))
    return "\n\n".join(paragraphs)


LEGEND = (
    "This study is about noise alone: it says nothing of direction or length. A variance is Σ‖g_i − ḡ‖²/(M − 1) over the "
    "action noise at one state (AGPO, Definition 3.1), of gradients by the policy's parameters. The spread of an "
    "estimator is the number of decades between the 5 % and the 95 % quantile of its variances over all steps and states. "
    "It wanders by the decades between the least and the largest median over states along the rollout. How many orders "
    "one lies above another is the median of log10 of their ratio at the same step and state. Q is that of a finite "
    "horizon, so all gradients shrink towards its end, which adds to how far they wander. SG's outliers, and the states "
    "of low and of high variance that ascent starts from, are those of its variances over the median of their step. "
    "Brackets are 95 % intervals, from resampling start states as wholes."
)


def _lines(mine: Table) -> list[str]:
    policy = mine[mine["kind"] == "policy"].iloc[0]
    lines = [_policy(policy)]
    if not policy["explained_low"] > 0:
        lines.append(
            "  Q is not seen to explain anything here: what is said of QG, and of the γQ in SG, is said of this Q."
        )
    found = _answers(mine)
    if any(math.isnan(found[key]["value"]) for key in (("orders", "sg/qg"), ("spread", "qg"))):
        lines.append("No state was alive and finite where it was measured: nothing can be said.")
        return lines
    lines.append(
        "  Their variances spread over this many decades: "
        + "; ".join(f"{NAMES[n]} {_interval(found['spread', n])}" for n in _estimators(found))
    )
    lines.append(
        "  About the median of each step they spread over: "
        + "; ".join(
            f"{NAMES[n]} {_interval(found['spread_levelled', n])}" for n in _estimators(found)
        )
    )
    lines.append(
        "  Along the rollout their medians wander by: "
        + "; ".join(f"{NAMES[n]} {_interval(found['wander', n])}" for n in _estimators(found))
    )
    lines.append(
        "  They lie above QG by this many orders: "
        + "; ".join(
            f"{NAMES[n]} {_interval(found['orders', f'{n}/qg'])}"
            for n in _estimators(found)
            if n != "qg"
        )
    )
    lines.append(f"  Is QG steady? {_steady(found)}")
    lines.append(f"  Is PG orders larger? {_larger(found)}")
    lines.append(f"  Are SG's outliers at contact? {_contact(found)}")
    ascent = mine[mine["kind"] == "ascent"]
    if len(ascent):
        lines.append(f"  This is how ascent by SG moved: {_ascent(ascent)}")
    lines.append(
        f"  Over the start states, with one action each, the medians over steps are: {_across(mine)}"
    )
    states = mine[mine["kind"] == "state"]
    still = states[states["value"] == 0]
    if len(still):
        parts = [f"{NAMES[n]} {len(group)}" for n, group in still.groupby("estimator", sort=False)]
        lines.append(
            f"  variances of exactly 0, left out (a critic is constant at times its data never reached): "
            f"{', '.join(parts)} of {len(states) // states['estimator'].nunique()}"
        )
    lost = mine.loc[mine["kind"] == "step", "nonfinite"].fillna(0).sum()
    if lost:
        lines.append(f"  {int(lost)} variances are not finite and left out, which is a bias.")
    return lines


def _policy(row: Row) -> str:
    text = (
        f"  The policy earns {row['return']:.4g} ± {row['return_stderr']:.2g} (where it was trained "
        f"{row['own_return']:.4g}, untrained {row['untrained_return']:.4g}), at a speed of {row['speed']:.2g} m/s; "
        f"{row['survival']:.0%} of episodes survive, mean std {row['std']:.2g}"
    )
    ends = row["explained"], row["explained_low"], min(1.0, row["explained_high"])
    text = (
        f"{text}. Q explains {format_interval(*ends)} of the returns' variance along this rollout; on its own test "
        f"episodes it explains {Quality.in_words(row)}"
    )
    if row["survival"] == 1:
        return f"{text}. No episode ended here, so that falling plays no part in what follows."
    return f"{text}."


def _answers(mine: Table) -> dict[tuple[str, str], Row]:
    rows = mine[mine["kind"] == "answer"]
    return {(row["name"], row["estimator"]): row for _, row in rows.iterrows()}


def _estimators(found: dict[tuple[str, str], Row]) -> list[str]:
    return [estimator for name, estimator in found if name == "spread"]


def _steady(found: dict[tuple[str, str], Row]) -> str:
    """Is QG's variance less spread out, and does it wander less, than that of SG and of PG?"""
    said = []
    for other in (n for n in _estimators(found) if n != "qg"):
        parts = [
            f"{what} {_less(found[f'{what}_difference', f'{other}/qg'])}"
            for what in ("spread", "wander")
        ]
        said.append(f"against {NAMES[other]}: " + ", ".join(parts))
    return "; ".join(said)


def _less(row: Row) -> str:
    """What an interval of (other − QG) says of QG."""
    if row["value_low"] > 0:
        verdict = "smaller"
    elif row["value_high"] < 0:
        verdict = "larger"
    else:
        verdict = "cannot be told"
    return f"{verdict} (difference {_interval(row)})"


def _larger(found: dict[tuple[str, str], Row]) -> str:
    said = []
    for name in ("pg", "pg_q"):
        for other in ("qg", "sg"):
            key = ("orders", f"{name}/{other}")
            if key not in found:
                continue
            row = found[key]
            if row["value_low"] >= ORDER:
                verdict = "yes"
            elif row["value_high"] < ORDER:
                verdict = "no, less than one order"
            else:
                verdict = "perhaps"
            said.append(f"{NAMES[name]} over {NAMES[other]}: {verdict} ({_interval(row)})")
    return "; ".join(said) or "PG was not measured"


def _contact(found: dict[tuple[str, str], Row]) -> str:
    said = []
    for flag, words in FLAGS.items():
        odds = found[f"{flag}_log_odds", "sg"]
        top, rest = found[f"{flag}_top", "sg"]["value"], found[f"{flag}_rest", "sg"]["value"]
        if odds["value_low"] > 0:
            verdict = "yes"
        elif odds["value_high"] < 0:
            verdict = "the opposite"
        else:
            verdict = "cannot be told"
        if math.isnan(odds["value"]):
            said.append(f"{words}: cannot be told, it does so in {top:.0%} of all cases")
            continue
        said.append(
            f"{words}: {verdict}, in {top:.0%} of the top 5 % against {rest:.0%} elsewhere, odds ratio "
            f"{_odds(odds)}"
        )
    return "; ".join(said)


def _odds(row: Row) -> str:
    value, low, high = (math.exp(row[name]) for name in ("value", "value_low", "value_high"))
    if math.isinf(value):
        return f"above {low:.2g}"
    if value == 0:
        return f"below {high:.2g}"
    return f"{value:.2g} [{low:.2g}, {high:.2g}]"


def _across(mine: Table) -> str:
    """Variance over the states as AGPO's parallel environments have it;
    how far it moves in decades.
    """
    steps = mine[(mine["kind"] == "step") & (mine["across"] > 0)]
    said = []
    for name, label in NAMES.items():
        values = steps.loc[steps["estimator"] == name, "across"]
        if len(values):
            decades = math.log10(values.max() / values.min())
            said.append(f"{label} {values.median():.2g}, wanders {decades:.2g} decades")
    return "; ".join(said)


def _ascent(ascent: Table) -> str:
    """Fall shares by end, and their difference over states with Student's interval."""
    said = []
    means = {}
    for end in ENDS:
        mine = ascent[ascent["end"] == end]
        means[end] = mine.groupby("pick")[["fallen", "largest", "gain"]].mean()
        said.append(
            f"{end} variance: {mine['fallen'].mean():.0%} of all movement is downwards, largest fall "
            f"{mine['largest'].mean():.0%} of the range, gain {mine['gain'].mean():.3g} (median "
            f"{mine['gain'].median():.3g})"
        )
    apart = means["high"] - means["low"].mean()
    for name, words in {"fallen": "downward share", "largest": "largest fall"}.items():
        one, two = means["high"][name], means["low"][name]
        if len(one) > 1 and len(two) > 1:
            low, high = _welch(one.to_numpy(), two.to_numpy())
            said.append(
                f"{words}, high minus low: {apart[name].mean():.2g} [{low:.2g}, {high:.2g}]"
            )
    return "; ".join(said)


def _welch(one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
    """95 % interval of a difference of mean shares: the two groups of states need not vary alike.

    Within [-1, 1], which is all that is known where no state differs from the others of its group.
    """
    from scipy import stats

    errors = [group.var(ddof=1) / len(group) for group in (one, two)]
    total, rounding = sum(errors), np.finfo(float).eps ** 2
    if not total > rounding:
        return -1.0, 1.0
    freedom = total**2 / sum(e**2 / (len(g) - 1) for e, g in zip(errors, (one, two), strict=True))
    middle = one.mean() - two.mean()
    reach = float(stats.t.ppf(0.975, freedom)) * math.sqrt(total)
    return max(-1.0, middle - reach), min(1.0, middle + reach)


def _overall(rows: Table) -> str:
    """In how many settings each claim of the paper holds."""
    counts = {
        "QG's spread is smaller than SG's": ("spread_difference", "sg/qg", 0.0),
        "QG wanders less than SG": ("wander_difference", "sg/qg", 0.0),
        "PG is at least one order above QG": ("orders", "pg/qg", ORDER),
        "PG is at least one order above SG": ("orders", "pg/sg", ORDER),
        "SG is at least one order above QG": ("orders", "sg/qg", ORDER),
        "SG's outliers are where contacts change": ("changes_log_odds", "sg", 0.0),
    }
    answers = rows[rows["kind"] == "answer"]
    said = []
    for claim, (name, estimator, bound) in counts.items():
        mine = answers[(answers["name"] == name) & (answers["estimator"] == estimator)]
        if not len(mine):
            continue
        yes = list(mine.loc[mine["value_low"] > bound, "setting"])
        no = list(mine.loc[mine["value_high"] < bound, "setting"])
        said.append(
            f"- {claim}: yes in {_listed(yes)}; no in {_listed(no)}; not told in {len(mine) - len(yes) - len(no)}"
        )
    return "What the paper says, setting by setting:\n" + "\n".join(said)


def _listed(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "none"


def _interval(row: Row, name: str = "value") -> str:
    return format_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _short(value: float) -> str:
    return "unknown" if value is None or math.isnan(value) else f"{value:.2g}"
