"""What `contact_stiffness` answers first."""

from __future__ import annotations

import pandas as pd

from gradlab.critics.quality import Quality
from gradlab.study import Answer, text
from studies.contact_stiffness.rows import Estimate, Rows

ROWS = 12  # of the table


def answer(table: pd.DataFrame) -> Answer:
    """Is FOG still right at the hardest contact and the longest horizon,
    and is it noisier than PG?
    """
    said, lines, estimates = [], [], []
    for task, rows in Rows.by_task(table).items():
        widths = list(rows.by_width())
        lines += [_line(task, width, one) for width, one in widths]
        said += [_hardest(task, *widths[-1])] if widths else []
        estimates += rows.estimates
    return Answer(
        question=(
            "As contact goes from smooth to hard, do first-order gradients (FOG) still point the right way, and do they "
            "become noisier than zeroth-order ones (PG)?"
        ),
        answer=" ".join(said) or "No width was measured.",
        rests_on=_rests_on(estimates),
        would_change=(
            "Longer horizons, harder contact (--widths; the time step must bear it), a trained policy in place of a "
            "random one, hard events, another contact law, more episodes (--samples, --pg-samples)."
        ),
        table=pd.DataFrame(lines[-ROWS:]),
    )


def _hardest(task: str, width: float, rows: Rows) -> str:
    fog = max(rows.of("fog"), key=lambda one: one.horizon)
    return (
        f"{task}, {text.millimetres(width)}, T = {fog.horizon}: FOG's direction is {text.cosine(fog.cosine)} (cosine "
        f"with the truth), its length {fog.relative_norm} of the truth's, its variance "
        f"{rows.crossings[0].last_ratio} of PG's."
    )


def _line(task: str, width: float, rows: Rows) -> dict[str, str]:
    fog = max(rows.of("fog"), key=lambda one: one.horizon)
    return {
        "task": task,
        "contact": text.millimetres(width),
        "T": f"{fog.horizon}",
        "FOG direction (cosine)": text.cosine(fog.cosine),
        "FOG length (ratio)": f"{fog.relative_norm}",
        "variance FOG/PG": f"{rows.crossings[0].last_ratio}",
    }


def _rests_on(estimates: list[Estimate]) -> str:
    truths = ", ".join(dict.fromkeys(one.truth for one in estimates))
    error = max(one.truth_relative_stderr for one in estimates)
    said = (
        f"Truths from other episodes ({truths}) with a relative standard error of at most {error:.0%}; one random "
        "policy per task; float32 for runners."
    )
    fitted = [one for one in estimates if one.critic_quality is not None]
    if not fitted:
        return said
    worst = min(fitted, key=lambda one: one.critic_quality or 0.0)
    return (
        f"{said} The critics of QG and N-step explain {worst.critic_quality:.0%} of the returns' variance or more "
        f"({Quality.in_words(vars(worst))})."
    )
