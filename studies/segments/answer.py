"""What `segments` answers, and the claims that it judges."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from gradlab.study import Answer
from studies.segments.config import WHOLE, Variant
from studies.segments.rows import middle, spread, worths
from studies.shared.curves import words
from studies.shared.curves.arms import Arm
from studies.shared.curves.claims import Claim, against
from studies.shared.curves.rows import by_task, curves

QUESTION = "Are longer segments better, and is a constant after short ones safer than a critic?"
CHANGE = (
    "Another budget (--share), more --seeds, the rate, which is ten times the paper's; a critic that is "
    "fitted better: here one pass per update, as in the released code."
)
SOURCE = "002, segment ablation"


def answer(table: pd.DataFrame) -> Answer:
    """The claims, task by task; every arm's return beside its last gradient."""
    base = words.answer(table, QUESTION, claims(table), CHANGE)
    known = worths(table)
    lines = []
    for arm, curve in curves(table).items():
        line = {"task": arm.task, "window": arm.variant, "return": words.interval(curve.band[-1])}
        last = known.get(arm, {})
        line["steps"] = f"{middle(last[max(last)], 'window'):.3g}" if last else ""
        for name, title in (("bias", "bias"), ("cosine", "cosine"), ("variance", "variance")):
            line[title] = spread(last[max(last)], name) if last else ""
        lines.append(line)
    return Answer(base.question, base.answer, base.rests_on, base.would_change, pd.DataFrame(lines))


def claims(table: pd.DataFrame) -> list[Claim]:
    """Longer over shorter for each tail; constants over critics in the shortest windows; weights;
    and windows that a rule chooses over every fixed length.
    """
    found: list[Claim] = []
    for task, known in by_task(curves(table)).items():
        variants = [Variant.of(curve.arm.variant) for curve in known]
        plain = [v for v in variants if v.length is not None and not v.weighted]
        lengths = sorted({v.length for v in plain if v.length is not None})
        if not lengths:
            continue
        for tail in ("constant", "critic"):
            of_tail = [Variant(n, tail) for n in lengths if Variant(n, tail) in plain]
            steps = list(zip(of_tail[1:], of_tail, strict=False))
            if Variant(None) in variants and of_tail:
                steps.append((Variant(None), of_tail[-1]))
            pairs = tuple(against(_arm(task, a), _arm(task, b)) for a, b in steps)
            text = f"On {task} with a {tail} longer windows end higher, step by step up to {WHOLE}"
            found.append(Claim(text, SOURCE, pairs))
        least = lengths[0]
        pair = against(_arm(task, Variant(least)), _arm(task, Variant(least, "critic")))
        text = f"On {task} constants end higher than a critic in windows of {least}"
        found.append(Claim(text, SOURCE, (pair,)))
        pairs = tuple(
            against(_arm(task, v), _arm(task, v._replace(weighted=False)))
            for v in variants
            if v.weighted and v._replace(weighted=False) in variants
        )
        text = f"On {task} weights γ^start raise what is reached"
        found.append(Claim(text, "ours", pairs, need="any"))
        found.extend(_adaptive(task, variants, plain))
    return found


def _adaptive(task: str, variants: list[Variant], plain: list[Variant]) -> Iterator[Claim]:
    """Each rule over all fixed lengths with what comes after its windows, whole episodes included.

    To beat the best of them is to beat each: told of each at 5 %, nothing is to be corrected.
    """
    for rule in (v for v in variants if v.adaptive):
        others = [v for v in plain if v.tail == rule.tail]
        others += [Variant(None)] if Variant(None) in variants else []
        pairs = tuple(against(_arm(task, rule), _arm(task, other)) for other in others)
        text = f"On {task} {rule.name!r} ends higher than the best fixed length"
        yield Claim(text, "002, future work", pairs)


def _arm(task: str, variant: Variant) -> Arm:
    return Arm(task, "apg", variant.name)
