"""What `contact_stiffness` answers first."""

from __future__ import annotations

import pandas as pd

from gradlab.study import Answer
from studies.stiffness_report import Table, _by_width, _crossing, _interval, _size


def answer(rows: Table) -> Answer:
    """Where FOG's variance passes PG's at the hardest contact of each task."""
    said, lines = [], []
    for task, mine in rows.groupby("task", sort=False):
        widths = list(_by_width(mine))
        if widths:
            said.append(f"{task} at width {widths[-1][0] * 1e3:g} mm: {_crossing(widths[-1][1])}")
        lines += [_line(str(task), width, one) for width, one in widths]
    errors = rows["truth_relative_stderr"].dropna()
    worst = f"{errors.max():.1%}" if len(errors) else "not known"
    return Answer(
        question="When does stiff contact make first-order gradients worse than zeroth-order ones?",
        answer=" ".join(said) or "No width was measured.",
        rests_on=f"Truths with a relative standard error of at most {worst}; one policy per task.",
        would_change="Longer horizons, a trained policy, or another contact law.",
        table=pd.DataFrame(lines[-12:]),
    )


def _line(task: str, width: float, rows: Table) -> dict[str, str]:
    crossing = rows[rows["kind"] == "crossing"]
    fog = rows[(rows["kind"] == "estimator") & (rows["estimator"] == "fog")]
    longest = fog[fog["horizon"] == fog["horizon"].max()]
    return {
        "task": task,
        "width": f"{width * 1e3:g} mm",
        "FOG/PG variance, longest horizon": _interval(crossing.iloc[0], "last_ratio"),
        "FOG's relative bias": _size(longest.iloc[0]) if len(longest) else "",
    }
