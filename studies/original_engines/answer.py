"""What `original_engines` answers."""

from __future__ import annotations

import pandas as pd

from gradlab.study import Answer, text
from gradlab.study.text import Tally
from studies.original_engines.rows import Setting

BOUND = 0.2  # relative bias that a setting is called biased above [1]
FEW = 10  # samples that a variance rests on, below which no interval of it can be trusted
QUESTION = (
    "On Brax's own engines, as they are, is the simulation gradient (FOG) of the ant biased, noisier than "
    "zeroth-order ones (PG), or blind to jumps, and how does it stand on gradlab's?"
)
LEGEND = (
    "FOG against PG of other episodes, whose relative standard error is in the table. What that adds to\n"
    "the squared bias on average is taken out, and its spread is in the intervals: a bias is seen where\n"
    "its interval is above 0. Variances are those of one sample, summed over all parameters; FOG's rests\n"
    "on as many samples as are said: where they are few, on outliers. Jump: p-value of the test that no\n"
    "part of the return is unseen by pathwise gradients; it is called below its share of the level.\n"
    "Lost: samples of FOG that are not finite. Intervals are 95 %."
)


def answer(table: pd.DataFrame) -> Answer:
    """Bias, noise and jumps at the longest horizon of every simulator."""
    settings = Setting.all(table)
    tally = Tally.of(((name(one), one.fog.relative_bias) for one in settings), BOUND)
    called = [name(one) for one in settings if one.test.found]
    noisier = [name(one) for one in settings if one.fog.variance.low > one.pg.variance.high]
    quieter = [name(one) for one in settings if one.fog.variance.high < one.pg.variance.low]
    carried = [name(one) for one in settings if one.fog.spread_samples < FEW]
    lost = sum(one.fog.nonfinite for one in settings)
    worst = max(one.fog.truth_relative_stderr for one in settings)
    return Answer(
        question=QUESTION,
        answer=(
            f"FOG is biased by more than {BOUND:.0%} in {said(tally.yes)}, by less in "
            f"{said(tally.no)}; for {tally.unsure} of {tally.total} settings it cannot be told. "
            f"One sample of it is noisier than one of PG in {said(noisier)}, less noisy in "
            f"{said(quieter)}; fewer than {FEW} samples carry its variance in {said(carried)}. "
            f"The jump test calls {said(called)}. {lost} samples of FOG were not finite."
        ),
        rests_on=(
            f"PG of other episodes as FOG's truth, with a relative standard error of up to {worst:.0%}; one "
            "random policy, no end of an episode, Brax in float32."
        ),
        would_change=(
            "Longer horizons, a trained policy, the end of an episode (a hard event), more episodes "
            "(--samples, --pg-samples)."
        ),
        table=pd.DataFrame([line(one) for one in settings]),
    )


def said(names: list[str]) -> str:
    """Names, or none."""
    return text.listed(names) if names else "none"


def name(one: Setting) -> str:
    """A setting in words."""
    return f"{one.fog.simulator} (T = {one.fog.horizon})"


def line(one: Setting) -> dict[str, str]:
    """One setting of the table."""
    return {
        "simulator": one.fog.simulator,
        "T": f"{one.fog.horizon}",
        "FOG's relative bias": f"{one.fog.relative_bias}",
        "cosine": text.cosine(one.fog.cosine),
        "length": f"{one.fog.relative_norm}",
        "truth's error": f"{one.fog.truth_relative_stderr:.0%}",
        "variance FOG": f"{one.fog.variance}",
        "rests on": f"{one.fog.spread_samples:.0f} samples",
        "variance PG": f"{one.pg.variance}",
        "jump p": f"{one.test.p_value:.2g}{' called' if one.test.found else ''}",
        "lost": f"{one.fog.nonfinite}",
    }


def summarise(table: pd.DataFrame) -> str:
    """The legend and all settings."""
    lines = (line(one) for one in Setting.all(table))
    return "\n\n".join([LEGEND, text.titled("Simulators", lines)])
