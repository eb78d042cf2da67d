"""The long form of what `rollout_variance` found."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import scipy  # its parts are imported when they are used

from gradlab.critics.quality import Quality
from gradlab.statistics import Interval
from gradlab.study import text
from gradlab.study.tables import grouped, read
from studies.rollout_variance.rows import ORDER, Ascent, Policy, State, Step, Verdict

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
# claim of the paper: name and estimator of the verdict, and the bound that it lies above
CLAIMS = {
    "QG's spread is smaller than SG's": ("spread_difference", "sg/qg", 0.0),
    "QG wanders less than SG": ("wander_difference", "sg/qg", 0.0),
    "PG is at least one order above QG": ("orders", "pg/qg", ORDER),
    "PG is at least one order above SG": ("orders", "pg/sg", ORDER),
    "SG is at least one order above QG": ("orders", "sg/qg", ORDER),
    "SG's outliers are where contacts change": ("changes_log_odds", "sg", 0.0),
}
Found = dict[tuple[str, str], Interval]  # by name and estimator


def summarise(rows: pd.DataFrame) -> str:
    """Per setting: the policy, the three verdicts and the ascents;
    then what holds in all of them.
    """
    paragraphs = [LEGEND]
    for setting, mine in rows.groupby("setting", sort=False):
        paragraphs.append(f"{setting}\n" + "\n".join(_lines(mine)))
    return "\n\n".join([*paragraphs, _overall(read(Verdict, rows, kind="answer"))])


def _lines(mine: pd.DataFrame) -> list[str]:
    (policy,) = read(Policy, mine, kind="policy")
    lines = [_policy(policy)]
    if not policy.explained.low > 0:
        lines.append(
            "  Q is not seen to explain anything here: what is said of QG, and of the γQ in SG, is said of this Q."
        )
    found = {(one.name, one.estimator): one.value for one in read(Verdict, mine, kind="answer")}
    if any(math.isnan(found[key].estimate) for key in (("orders", "sg/qg"), ("spread", "qg"))):
        return [*lines, "No state was alive and finite where it was measured: nothing can be said."]
    others = [name for name in _estimators(found) if name != "qg"]
    orders = {name: found["orders", f"{name}/qg"] for name in others}
    lines += [
        f"  Their variances spread over this many decades: {_each(found, 'spread')}",
        f"  About the median of each step they spread over: {_each(found, 'spread_levelled')}",
        f"  Along the rollout their medians wander by: {_each(found, 'wander')}",
        f"  They lie above QG by this many orders: {_named(orders)}",
        f"  Is QG steady? {_steady(found, others)}",
        f"  Is PG orders larger? {_larger(found)}",
        f"  Are SG's outliers at contact? {_contact(found)}",
    ]
    if ascents := read(Ascent, mine, kind="ascent"):
        lines.append(f"  This is how ascent by SG moved: {_ascent(ascents)}")
    steps, states = read(Step, mine, kind="step"), read(State, mine, kind="state")
    lines.append(
        f"  Over the start states, with one action each, the medians over steps are: {_across(steps)}"
    )
    if still := grouped((s for s in states if s.value == 0), lambda state: state.estimator):
        parts = ", ".join(f"{NAMES[name]} {len(group)}" for name, group in still.items())
        each = len(states) // len({state.estimator for state in states})
        lines.append(
            "  variances of exactly 0, left out (a critic is constant at times its data never reached): "
            f"{parts} of {each}"
        )
    if lost := sum(step.nonfinite or 0 for step in steps):
        lines.append(f"  {lost} variances are not finite and left out, which is a bias.")
    return lines


def _policy(policy: Policy) -> str:
    explained = policy.explained._replace(high=min(1.0, policy.explained.high))
    still = "No episode ended here, so that falling plays no part in what follows."
    return (
        f"  The policy earns {policy.earned:.4g} ± {policy.return_stderr:.2g} (where it was trained "
        f"{policy.own_return:.4g}, untrained {policy.untrained_return:.4g}), at a speed of {policy.speed:.2g} m/s; "
        f"{policy.survival:.0%} of episodes survive, mean std {policy.std:.2g}. Q explains {explained} of the "
        f"returns' variance along this rollout; on its own test episodes it explains {Quality.in_words(vars(policy))}."
        + (f" {still}" if policy.survival == 1 else "")
    )


def _estimators(found: Found) -> list[str]:
    return [estimator for name, estimator in found if name == "spread"]


def _each(found: Found, name: str) -> str:
    return _named({estimator: found[name, estimator] for estimator in _estimators(found)})


def _named(values: dict[str, Interval]) -> str:
    return "; ".join(f"{NAMES[name]} {value}" for name, value in values.items())


def _steady(found: Found, others: list[str]) -> str:
    """Is QG's variance less spread out, and does it wander less, than that of SG and of PG?"""
    said = []
    for other in others:
        gaps = {what: found[f"{what}_difference", f"{other}/qg"] for what in ("spread", "wander")}
        parts = [
            f"{what} {text.verdict(gap, 0.0, 'smaller', 'larger', 'cannot be told')} (difference {gap})"
            for what, gap in gaps.items()
        ]
        said.append(f"against {NAMES[other]}: " + ", ".join(parts))
    return "; ".join(said)


def _larger(found: Found) -> str:
    said = []
    for name in ("pg", "pg_q"):
        for other in ("qg", "sg"):
            if (value := found.get(("orders", f"{name}/{other}"))) is not None:
                verdict = text.verdict(value, ORDER, "yes", "no, less than one order", "perhaps")
                said.append(f"{NAMES[name]} over {NAMES[other]}: {verdict} ({value})")
    return "; ".join(said) or "PG was not measured"


def _contact(found: Found) -> str:
    said = []
    for flag, words in FLAGS.items():
        odds = found[f"{flag}_log_odds", "sg"]
        top, rest = (found[f"{flag}_{part}", "sg"].estimate for part in ("top", "rest"))
        verdict = text.verdict(odds, 0.0, "yes", "the opposite", "cannot be told")
        said.append(
            f"{words}: cannot be told, it does so in {top:.0%} of all cases"
            if math.isnan(odds.estimate)
            else f"{words}: {verdict}, in {top:.0%} of the top 5 % against {rest:.0%} elsewhere, odds ratio {_odds(odds)}"
        )
    return "; ".join(said)


def _odds(log_odds: Interval) -> str:
    value, low, high = map(math.exp, log_odds)
    if math.isinf(value):
        return f"above {low:.2g}"
    return f"{value:.2g} [{low:.2g}, {high:.2g}]" if value else f"below {high:.2g}"


def _across(steps: list[Step]) -> str:
    """Variance over the states as AGPO's parallel environments have it;
    how far it moves in decades.
    """
    values = grouped((step for step in steps if step.across > 0), lambda step: step.estimator)
    said = []
    for name, label in NAMES.items():
        if known := [step.across for step in values.get(name, ())]:
            decades = math.log10(max(known) / min(known))
            said.append(f"{label} {np.median(known):.2g}, wanders {decades:.2g} decades")
    return "; ".join(said)


def _ascent(ascents: list[Ascent]) -> str:
    """Fall shares by end, and their difference over states with Student's interval."""
    said, ends = [], grouped(ascents, lambda ascent: ascent.end)
    for end in ("low", "high"):
        fallen, largest, gain = (
            [getattr(ascent, name) for ascent in ends[end]]
            for name in ("fallen", "largest", "gain")
        )
        said.append(
            f"{end} variance: {np.mean(fallen):.0%} of all movement is downwards, largest fall {np.mean(largest):.0%} of "
            f"the range, gain {np.mean(gain):.3g} (median {np.median(gain):.3g})"
        )
    for name, words in {"fallen": "downward share", "largest": "largest fall"}.items():
        one, two = (_of_states(ends[end], name) for end in ("high", "low"))
        if len(one) > 1 and len(two) > 1:
            low, high = _welch(one, two)
            said.append(
                f"{words}, high minus low: {one.mean() - two.mean():.2g} [{low:.2g}, {high:.2g}]"
            )
    return "; ".join(said)


def _of_states(ascents: list[Ascent], name: str) -> np.ndarray:
    """The mean over seeds for each state."""
    states = grouped(ascents, lambda ascent: ascent.pick).values()
    return np.array([np.mean([getattr(ascent, name) for ascent in state]) for state in states])


def _welch(one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
    """95 % interval of a difference of mean shares: the two groups of states need not vary alike.

    Within [-1, 1], which is all that is known where no state differs from the others of its group.
    """
    errors = [group.var(ddof=1) / len(group) for group in (one, two)]
    total, rounding = sum(errors), np.finfo(float).eps ** 2
    if not total > rounding:
        return -1.0, 1.0
    freedom = total**2 / sum(e**2 / (len(g) - 1) for e, g in zip(errors, (one, two), strict=True))
    middle = one.mean() - two.mean()
    reach = float(scipy.stats.t.ppf(0.975, freedom)) * math.sqrt(total)
    return max(-1.0, middle - reach), min(1.0, middle + reach)


def _overall(verdicts: list[Verdict]) -> str:
    """In how many settings each claim of the paper holds."""
    said = []
    for claim, (name, estimator, bound) in CLAIMS.items():
        mine = [v for v in verdicts if (v.name, v.estimator) == (name, estimator)]
        if mine:
            tally = text.Tally.of(((v.setting, v.value) for v in mine), bound)
            said.append(
                f"- {claim}: yes in {text.several(tally.yes)}; no in {text.several(tally.no)}; not told in {tally.unsure}"
            )
    return "What the paper says, setting by setting:\n" + "\n".join(said)
