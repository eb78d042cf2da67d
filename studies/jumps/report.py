"""The long form of what `jumps` found."""

from __future__ import annotations

import pandas as pd

from gradlab.study import text
from studies.jumps.answer import count, line, share, verdict
from studies.jumps.rows import Seen, Trial

LEGEND = (
    "The test (`gradlab.testing.detect_jump`) compares the variance of the return with the squares of its\n"
    "gradients by the actions' noise. A positive share proves a part of the objective that no pathwise\n"
    "gradient sees; a share at or below 0 proves nothing, since curvature lowers it. Detectable: the share\n"
    "that these pairs would have found with 95 % probability. Needs: pairs that find the share that was\n"
    "seen with 95 % probability, from the spread that was seen. Intervals are 95 %. A case is built\n"
    "smooth if nothing in it jumps by construction; open if it may: a runner's fall is a hard event."
)


def summarise(table: pd.DataFrame) -> str:
    """Every case, every number of pairs, and every term."""
    cases = Seen.by_case(table)
    parts = [
        LEGEND,
        verdict(cases),
        text.titled("1. Cases", (line(case) for case in cases)),
        text.titled("2. By number of pairs", (_test(t) for case in cases for t in case.returns)),
    ]
    if any(case.terms for case in cases):
        terms = ({**_test(t), "term": t.objective} for case in cases for t in case.terms)
        parts.append(text.titled("3. Reward terms", terms))
    return "\n\n".join(parts)


def _test(test: Trial) -> dict[str, str]:
    return {
        "case": test.case,
        "pairs": f"{test.pairs}",
        "share unseen": share(test.share),
        "p": f"{test.p_value:.2g}",
        "called": "yes" if test.found else "no",
        "detectable": f"{test.detectable:.2g}",
        "needs": count(test.needed),
        "skewness": f"{test.skewness:.2g}",
    }
