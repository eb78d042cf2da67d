"""What `bias_vs_relaxation` makes of its rows: the two figures and the answer in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from gradlab.statistics import format_interval, holm

# a pandas table and one row of it; pandas' own types get lost at the first column
Table: TypeAlias = Any
Row: TypeAlias = Any

HARD = 0.0
CRITICS = {
    "none": "untrained critic",
    "short": "short critic",
    "full": "full critic",
    "explored": "explored critic",
    "exact": "exact critic",
}
LEVEL = 0.05  # of the verdicts, after Holm's correction over the table

NAMES = {
    "pg": "PG",
    "fog": "FOG",
    "qg": "QG",
    "nstep": "N-step alone",
    "abpt": "0-step + N-step",
    "split": "Split",
    "relaxed_fog": "RelaxedFOG",
}


def overall(rows: Table, kind: str, experiment: str) -> Table:
    """Rows of all parameters together, of one kind and experiment."""
    return rows[
        (rows["kind"] == kind) & (rows["experiment"] == experiment) & (rows["part"] == "all")
    ]


# ------------------------------------------------------------------------------------- summary


def summarise(rows: Table) -> str:
    """The answer in words: a sentence per comparison, then a paragraph per policy on experiment B."""
    single, pairs = overall(rows, "single", "A"), overall(rows, "pair", "A")
    paragraphs = [LEGEND]
    if len(pairs):
        hard = pairs[pairs["truth_width"] == HARD].copy()
        hard["p_holm"] = holm(hard["p_value"].tolist())
        paragraphs += [_sentence(pair, single, pairs) for _, pair in hard.iterrows()]
    practical = overall(rows, "single", "B")
    for _, group in practical.groupby(["task", "stage"], sort=False):
        paragraphs.append(_least_mse(group))
    paragraphs += list(_truths(practical))
    if bad := sorted(set(rows.loc[rows["status"] != "ok", "status"].dropna())):
        paragraphs.append(f"Rows with samples that are not finite: {'; '.join(bad)}.")
    return "\n\n".join(paragraphs)


LEGEND = (
    "Relative bias is ‖E ĝ − ∇J‖/‖∇J‖ with its 95 % interval, against the hard task unless said "
    "otherwise; negative: a debiased square below zero, so none is seen. p-values of the paired "
    "comparison (on the same episodes) are corrected over the table (Holm)."
)


def _sentence(pair: Row, single: Table, pairs: Table) -> str:
    """One comparison of N-step with and without the 0-step return."""
    at = _same_cell(_same_policy(single, pair), pair)
    at = at[at["truth_width"] == HARD].set_index("estimator")
    abpt, nstep = at.loc["abpt"], at.loc["nstep"]
    parts = [
        (
            f"On {pair['task']}, {_policy(pair)}, {_critic(abpt)}, {pair['form']}, n = "
            f"{int(pair['window'])}: 0-step + N-step has relative bias "
            f"{_interval(abpt, 'relative_bias')} and cosine {_number(abpt['cosine'])} against "
            f"{_interval(nstep, 'relative_bias')} and {_number(nstep['cosine'])} for N-step alone, "
            f"difference of squared relative biases {_interval(pair, 'relative_difference')}"
        ),
        (
            f"against what each aims at by its call weights, {_number(abpt['relative_bias_target'])} and "
            f"{_number(nstep['relative_bias_target'])}"
        ),
        (
            f"after the best scalar {_number(abpt['left_after_scaling'])} and "
            f"{_number(nstep['left_after_scaling'])} are left"
        ),
    ]
    relaxed = _same_cell(_same_policy(pairs, pair), pair)
    relaxed = relaxed[relaxed["truth_width"] > HARD]
    if len(relaxed):
        sharp = relaxed.loc[relaxed["truth_width"].idxmin()]
        parts.append(
            f"against the truth of width {sharp['truth_width']:g} the difference is "
            f"{_interval(sharp, 'relative_difference')}"
        )
    return f"{'; '.join(parts)}; so the 0-step return {_verdict(pair, abpt, nstep)}."


def _verdict(pair: Row, abpt: Row, nstep: Row) -> str:
    p = pair["p_holm"]
    if not p <= LEVEL:
        return f"cannot be told at this budget (p = {p:.2f})"
    said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    verdict = f"{'helps' if pair['difference'] < 0 else 'harms'} ({said})"
    if min(abpt["relative_bias_low"], nstep["relative_bias_low"]) >= 0.95:
        return f"{verdict}, but both are as far from ∇J as no gradient at all"
    if not math.isfinite(abpt["cosine"] + nstep["cosine"]):
        return verdict
    apart = max(abpt["cosine_low"], nstep["cosine_low"]) > min(
        abpt["cosine_high"], nstep["cosine_high"]
    )
    return verdict if apart else f"{verdict}, in length: the directions cannot be told apart"


def _least_mse(group: Table) -> str:
    """Experiment B on one policy: at which width is the MSE(100) least, and how do others compare?"""
    first = group.iloc[0]
    table = _relative(group)
    parts = []
    for name in ("relaxed_fog", "split"):
        best = best_width(table[table["estimator"] == name])
        if best is not None:
            parts.append(
                f"{NAMES[name]} {_short(best['mse_odd'] / best['truth_norm'] ** 2)} at its best "
                f"width {best['width']:g} (relative bias {_interval(best, 'relative_bias_odd')}, "
                "both on the half that did not choose)"
            )
    for _, row in _levels(table).iterrows():
        critic = "" if row["critic_fit"] == "-" else f" with {CRITICS[row['critic_fit']]}"
        window = "" if math.isnan(row["window"]) else f", n = {int(row['window'])}, {row['form']}"
        name = NAMES.get(row["estimator"], row["estimator"])
        parts.append(f"{name}{critic}{window} {_short(row['relative_mse'])}")
    return (
        f"Estimating the hard gradient on {first['task']}, {_policy(first)}, MSE(100)/‖∇J‖²: "
        f"{'; '.join(parts)}."
    )


def _truths(single: Table) -> Iterator[str]:
    hard = single[single["truth_width"] == HARD]
    for (task, stage), group in hard.groupby(["task", "stage"], sort=False):
        row = group.iloc[0]
        error = row["truth_relative_stderr"]
        how = "exact" if error == 0 else f"relative standard error {error:.1%}"
        yield (
            f"Truth on {task} ({_policy(row)}; stage {stage}): {row['truth']}, {how}, "
            f"‖∇J‖ = {row['truth_norm']:.3g}."
        )


def best_width(sweep: Table) -> Row | None:
    """The row of least MSE on the even blocks; report its `mse_odd` and `relative_bias_odd`."""
    if sweep.empty or sweep["mse_even"].isna().all():
        return None
    return sweep.loc[sweep["mse_even"].idxmin()]


def _same_cell(rows: Table, pair: Row) -> Table:
    """Rows of the pair's critic, form and window."""
    same = (rows["critic_fit"] == pair["critic_fit"]) & (rows["form"] == pair["form"])
    return rows[same & (rows["window"] == pair["window"])]


def _critic(row: Row) -> str:
    """The critic in words, with the share of the return's variance that it explains at t = 0."""
    start = row["critic_quality_start"]
    known = start is not None and math.isfinite(start)
    explains = f" (explains {start:.0%} of the return at t = 0)" if known else ""
    return f"{CRITICS[row['critic_fit']]}{explains}"


def _same_policy(rows: Table, like: Row) -> Table:
    return rows[(rows["task"] == like["task"]) & (rows["stage"] == like["stage"])]


def _policy(row: Row) -> str:
    return f"{row['success_rate']:.0%} policy"


def _interval(row: Row, name: str) -> str:
    return format_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _short(value: float) -> str:
    return "unknown" if not math.isfinite(value) else f"{value:.2g}"


def _number(value: Any, decimals: int = 2) -> str:
    return "unknown" if value is None or not math.isfinite(value) else f"{value:.{decimals}f}"


# ------------------------------------------------------------------------------------- figures


def plot(rows: Table, path: Path) -> None:
    """(A) at `path`, (B) at `path`_practical."""
    plot_reviewers(rows, path)
    plot_practical(rows, path.with_name(f"{path.name}_practical"))


def plot_reviewers(rows: Table, path: Path) -> None:
    """(A): relative bias and cosine against the width of the truth's relaxation."""
    from gradlab.study import figures

    single = overall(rows, "single", "A")
    policies = list(single.groupby(["task", "stage"], sort=False))
    with figures.style():
        title = (
            "Gradients that see the hard task against ever sharper truths (middle window, from s₀)"
        )
        figure, axes = figures.panels(2, len(policies), title)
        for column, ((task, _), group) in enumerate(policies):
            top, bottom = axes[0, column], axes[1, column]
            top.set_title(f"{task}, {_policy(group.iloc[0])}")
            for curve, label, dashes in _curves(group):
                x = _positions(curve["truth_width"])
                for axis, name in ((top, "relative_bias"), (bottom, "cosine")):
                    figures.line(
                        axis,
                        x,
                        curve[name],
                        curve[f"{name}_low"],
                        curve[f"{name}_high"],
                        name=curve.iloc[0]["estimator"],
                        label=label,
                        dashes=dashes,
                    )
            widths = sorted(set(group["truth_width"]))
            for axis in (top, bottom):
                _width_axis(axis, widths, "width of the truth")
            top.set_ylim(*_bias_limits(group))
            top.axhline(0.0, color="#555555", linewidth=0.8)
            bottom.set_ylim(-1.05, 1.05)
        axes[0, 0].set_ylabel("relative bias\n‖E ĝ − ∇J‖ / ‖∇J‖ [1]")
        axes[1, 0].set_ylabel("cosine of E ĝ and ∇J [1]")
        figures.legend(figure, axes, columns=min(3, max(1, len(policies))))
        figures.save(figure, path)


def _curves(group: Table) -> Iterator[tuple[Table, str, str]]:
    """Each estimator once per critic, N-step and ABPT at the middle window."""
    windows = sorted(set(group["window"].dropna()))
    middle = windows[len(windows) // 2 - (len(windows) % 2 == 0)] if windows else None
    styles = {"full": "-", "exact": "-.", "explored": "--", "short": "--", "none": ":"}
    for (name, fit), curve in group.groupby(["estimator", "critic_fit"], sort=False):
        if name not in ("fog", "nstep", "abpt"):
            continue
        if name in ("nstep", "abpt"):
            curve = curve[(curve["window"] == middle) & (curve["form"] == _form(curve))]
        label = NAMES[name] + (f", {CRITICS[fit]}" if fit != "-" else "")
        yield curve, label, styles.get(fit, "--")


def _form(rows: Table) -> str:
    """The form to draw: the published one where it was run."""
    return "published" if (rows["form"] == "published").any() else "tiled"


def _bias_limits(group: Table) -> tuple[float, float]:
    seen = group[group["estimator"].isin(("fog", "nstep", "abpt"))]["relative_bias_high"]
    return -0.1, min(max(1.2, float(seen.quantile(0.8)) if len(seen) else 1.2), 2.5)


def plot_practical(rows: Table, path: Path) -> None:
    """(B): bias, spread and MSE against the estimator's own width, the others as levels."""
    from gradlab.study import figures

    practical = overall(rows, "single", "B")
    policies = list(practical.groupby(["task", "stage"], sort=False))
    with figures.style():
        title = "Estimates of the hard gradient, by the estimator's width"
        figure, axes = figures.panels(4, len(policies), title)
        for column, ((task, _), group) in enumerate(policies):
            axes[0, column].set_title(f"{task}, {_policy(group.iloc[0])}")
            table = _relative(group)
            for name, sweep in table[table["width"].notna()].groupby("estimator", sort=False):
                for axis, (y, low, high) in zip(axes[:, column], QUANTITIES, strict=True):
                    band = (sweep[low], sweep[high]) if low else (None, None)
                    figures.line(
                        axis,
                        sweep["width"],
                        sweep[y],
                        *band,
                        name=name,
                        label=NAMES.get(name, name),
                    )
            for _, row in _levels(table).iterrows():
                label = str(NAMES.get(row["estimator"], row["estimator"]))
                if row["critic_fit"] != "-":
                    label += f", {CRITICS[row['critic_fit']]}"
                for axis, (y, low, high) in zip(axes[:, column], QUANTITIES, strict=True):
                    band = (row[low], row[high]) if low else (None, None)
                    figures.level(axis, row[y], *band, name=row["estimator"], label=label)
            widths = sorted(set(table["width"].dropna()))
            for axis, (y, _, _) in zip(axes[:, column], QUANTITIES, strict=True):
                if widths:
                    _width_axis(axis, widths, "estimator's width")
                    axis.set_xlim(min(widths) / 1.3, max(widths) * 1.3)
                figures.signed_log(axis, table[y])
        for axis, label in zip(axes[:, 0], LABELS, strict=True):
            axis.set_ylabel(label)
        figures.legend(figure, axes, columns=min(3, max(1, len(policies))))
        figures.save(figure, path)


QUANTITIES = (
    ("relative_bias", "relative_bias_low", "relative_bias_high"),
    ("spread", "spread_low", "spread_high"),
    ("relative_mse", "relative_mse_low", "relative_mse_high"),
    ("relative_mse_cost", None, None),
)
LABELS = (
    "relative bias [1]",
    "spread of a batch of 100,\n√(tr Σ/100) / ‖∇J‖ [1]",
    "MSE(100) / ‖∇J‖² [1]",
    "MSE / ‖∇J‖² in the\ntime of 100 FOG [1]",
)


def _relative(group: Table) -> Table:
    """Columns in units of the truth's length."""
    table = group.copy()
    square = table["truth_norm"] ** 2
    for end in ("", "_low", "_high"):
        table[f"spread{end}"] = (table[f"variance{end}"] / 100 / square) ** 0.5
        table[f"relative_mse{end}"] = table[f"mse{end}"] / square
    table["relative_mse_cost"] = table["mse_equal_cost"] / square
    return table


def _levels(table: Table) -> Table:
    """One row per estimator without a width: its best-fitted critic, N-step and ABPT mid-window."""
    fixed = table[table["width"].isna()]
    order = {"full": 0, "exact": 0, "explored": 1, "short": 2, "none": 3, "-": 0}
    fixed = fixed.assign(rank=fixed["critic_fit"].map(order))
    windows = sorted(set(fixed["window"].dropna()))
    if windows:
        middle = windows[len(windows) // 2 - (len(windows) % 2 == 0)]
        mine = (fixed["window"] == middle) & (fixed["form"] == _form(fixed))
        fixed = fixed[fixed["window"].isna() | mine]
    return fixed.sort_values("rank", kind="stable").drop_duplicates("estimator")


def _positions(widths: Iterable[float]) -> list[float]:
    """Where a width is drawn: the hard limit a factor 2.5 left of the least positive one."""
    widths = list(widths)
    least = min((w for w in widths if w > 0), default=1.0)
    return [w if w > 0 else least / 2.5 for w in widths]


def _width_axis(axis: Any, widths: list[float], label: str) -> None:
    positions = _positions(widths)
    axis.set_xscale("log")
    axis.set_xticks(positions, ["hard" if w == HARD else f"{w:g}" for w in widths])
    axis.minorticks_off()
    axis.set_xlabel(f"{label} [margin scale]")
