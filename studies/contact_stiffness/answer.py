"""What `contact_stiffness` answers first."""

from __future__ import annotations

import pandas as pd

from gradlab.critics.quality import Quality
from gradlab.statistics import format_interval
from gradlab.study import Answer
from studies.contact_stiffness.report import ENDS, Row, Table, by_width, direction, length

ROWS = 12  # of the table


def answer(rows: Table) -> Answer:
    """Is FOG still right at the hardest contact and the longest horizon,
    and is it noisier than PG?
    """
    said, lines = [], []
    for task, mine in rows.groupby("task", sort=False):
        widths = list(by_width(mine))
        lines += [_line(str(task), width, one) for width, one in widths]
        if widths:
            said.append(_hardest(str(task), *widths[-1]))
    return Answer(
        question=(
            "As contact goes from smooth to hard, do first-order gradients (FOG) still point the right way, and do they "
            "become noisier than zeroth-order ones (PG)?"
        ),
        answer=" ".join(said) or "No width was measured.",
        rests_on=_rests_on(rows),
        would_change=(
            "Longer horizons, harder contact (--widths; the time step must bear it), a trained policy in place of a "
            "random one, hard events, another contact law, more episodes (--samples, --pg-samples)."
        ),
        table=pd.DataFrame(lines[-ROWS:]),
    )


def _longest(rows: Table) -> Row | None:
    """FOG's row at the longest horizon."""
    fog = rows[(rows["kind"] == "estimator") & (rows["estimator"] == "fog")]
    return fog.sort_values("horizon").iloc[-1] if len(fog) else None


def _ratio(rows: Table) -> str:
    crossing = rows[rows["kind"] == "crossing"].iloc[0]
    return format_interval(*(crossing[f"last_ratio{end}"] for end in ENDS))


def _hardest(task: str, width: float, rows: Table) -> str:
    fog = _longest(rows)
    if fog is None:
        return ""
    return (
        f"{task}, {width * 1e3:g} mm, T = {int(fog['horizon'])}: FOG's direction is {direction(fog)} (cosine with the "
        f"truth), its length {length(fog)} of the truth's, its variance {_ratio(rows)} of PG's."
    )


def _line(task: str, width: float, rows: Table) -> dict[str, str]:
    fog = _longest(rows)
    if fog is None:
        return {"task": task, "contact": f"{width * 1e3:g} mm"}
    return {
        "task": task,
        "contact": f"{width * 1e3:g} mm",
        "T": f"{int(fog['horizon'])}",
        "FOG direction (cosine)": direction(fog),
        "FOG length (ratio)": length(fog),
        "variance FOG/PG": _ratio(rows),
    }


def _rests_on(rows: Table) -> str:
    table = rows[rows["kind"] == "estimator"]
    text = (
        f"Truths from other episodes ({', '.join(dict.fromkeys(table['truth']))}) with a relative standard error of at "
        f"most {table['truth_relative_stderr'].max():.0%}; one random policy per task; float32 for runners."
    )
    fitted = table[table["critic_quality"].notna()]
    if not len(fitted):
        return text
    worst = fitted.sort_values("critic_quality").iloc[0]
    return (
        f"{text} The critics of QG and N-step explain {worst['critic_quality']:.0%} of the returns' variance or more "
        f"({Quality.in_words(worst)})."
    )
