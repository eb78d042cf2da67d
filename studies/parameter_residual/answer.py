"""What `parameter_residual` answers first, and the rules of its verdict."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from gradlab.statistics import Interval
from gradlab.study import Answer, text
from studies.parameter_residual.rows import Found, Gap
from studies.parameter_residual.trainings import METHODS, NONE

LITTLE = 0.9  # a residual that is not brought below this share of itself is not brought back [1]
HOLDS, NOT, DEPENDS, UNTOLD = (
    "holds", "does not hold", "depends on what is detached", "cannot be told at this budget",
)  # fmt: skip
QUESTION = (
    "Where parts of the reward pass no gradient on, does the 0-step return bring the parameters back "
    "towards those that the full gradient trains (ABPT, Fig. 5)?"
)


def one(ratio: Interval) -> str:
    """Of one part, by the ratio of residuals with and without the 0-step return.

    It holds where the whole interval lies below 1, it does not where it lies above 0.9.
    """
    if ratio.high < 1:
        return HOLDS
    return NOT if ratio.low > LITTLE else UNTOLD


def claim(ratios: Mapping[str, Interval]) -> str:
    """Of all parts: it holds (or does not) where it does for half of them or more and the contrary
    for none; it depends where both are seen.
    """
    found = [one(ratio) for ratio in ratios.values()]
    yes, no = found.count(HOLDS), found.count(NOT)
    if yes and no:
        return DEPENDS
    for count, word in ((yes, HOLDS), (no, NOT)):
        if count and 2 * count >= len(found):
            return word
    return UNTOLD


def ratios(found: Found, of: str, reference: str = "full") -> dict[str, Interval]:
    """By part, intervals at 95 % for all parts together."""
    many = len(found.parts)
    return {part: found.ratio(of, part, reference, many=many) for part in found.parts}


def answer(table: pd.DataFrame) -> Answer:
    """The claim in parameters, then what a residual means, then actions and return."""
    found = Found.of(table)
    said = [_parameters(found), _own(found), _chance(found), _actions(found), _returns(found)]
    return Answer(
        question=QUESTION,
        answer=" ".join(said),
        rests_on=_rests_on(found),
        would_change=(
            "Longer trainings, another learning rate or optimiser (Adam ignores a gradient's length), a "
            "better critic, other weights of the reward; and rewards that jump, which detaching only "
            "imitates: here the critic still learns all of the reward."
        ),
        table=pd.DataFrame([line(found, part) for part in (*found.parts, NONE, "")]),
    )


def _parameters(found: Found) -> str:
    shares = ratios(found, "relative")
    already = found.over_seeds(found.of_arm("abpt", NONE), "relative")
    return (
        f"In parameters {_says(shares)}: with the 0-step return trainings end {_listed(shares)} times "
        "as far from the full n-step gradient's as without it; with nothing detached it takes them "
        f"{text.ratio(already)} of the way off already."
    )


def _own(found: Found) -> str:
    shares = ratios(found, "relative", "own")
    return (
        f"Held against ABPT with nothing detached, {_says(shares, 'it')}: {_listed(shares)} times as "
        "far as N-step is from its own."
    )


def _says(shares: Mapping[str, Interval], what: str = "the claim") -> str:
    """The verdict as a clause."""
    word = claim(shares)
    if word != UNTOLD:
        return f"{what} {word}"
    decided = [
        f"it {rule} for {text.listed(parts)}"
        for rule in (HOLDS, NOT)
        if (parts := [part for part, ratio in shares.items() if one(ratio) == rule])
    ]
    return f"whether {what} holds {word}" + (f" ({'; '.join(decided)})" if decided else "")


def _listed(shares: Mapping[str, Interval]) -> str:
    """The least and the most of all parts, with their intervals."""
    ranked = sorted(shares, key=lambda part: shares[part].estimate)
    ends = dict.fromkeys((ranked[0], ranked[-1]))
    return " to ".join(f"{text.ratio(shares[part])} ({part})" for part in ends)


def _chance(found: Found) -> str:
    chance = found.over_seeds(found.of_arm("nstep", NONE, other=True), "relative")
    many = len(found.parts)
    beyond = [
        part for part in found.parts if found.beyond_chance("relative", part, many=many).low > 1
    ]
    return (
        f"Other random numbers alone put two trainings with the full gradient {text.ratio(chance)} of "
        f"the way apart: detached parts (N-step) do more than that in {text.several(beyond)} of {many}."
    )


def _actions(found: Found) -> str:
    shares = ratios(found, "actions")
    return f"In actions {_says(shares, 'it')} ({_listed(shares)})."


def _returns(found: Found) -> str:
    many = len(found.parts)
    tally = text.Tally.of(((p, found.gain(p, many=many)) for p in found.parts), 0.0)
    return (
        f"The return is higher with it in {text.several(tally.yes)}, lower in {text.several(tally.no)} "
        f"of {many}."
    )


def _rests_on(found: Found) -> str:
    full = found.of_arm("abpt", NONE)
    earned = found.over_seeds(full, "reference_return")
    critics = {part: found.critic("abpt", part) for part in (NONE, *found.parts)}
    least, *_, most = sorted(critics.values(), key=lambda cosine: cosine.estimate)
    part = found.parts[-1]
    begin, end = (
        [text.cosine(found.angle("cosine", method, part, at), decimals=True) for method in METHODS]
        for at in (0, found.updates[-1])
    )
    return (
        f"{found.seeds} seeds, {found.updates[-1]} updates, float32; the full training earns "
        f"{text.signed(earned)}. Critics of the trainings with the 0-step return know the action's "
        f"gradient to a cosine of {text.cosine(least)} to {text.cosine(most)}. At states of the full "
        f"training and with its critic, the gradient with {_words(part)} detached has a cosine with the "
        f"full one of {begin[0]} without the 0-step return and {begin[1]} with it before training, of "
        f"{end[0]} and {end[1]} at the end. Intervals "
        f"are 95 % over seeds, ratios and gains for all {len(found.parts)} parts together."
    )


def _words(part: str) -> str:
    return {"all": "all parts"}.get(part, part)


def line(found: Found, part: str) -> dict[str, str]:
    """One part of the table; "": nothing detached, with other random numbers."""
    other, which = not part, part or NONE
    without = found.of_arm("nstep", which, other=other)
    with_it = [] if other else found.of_arm("abpt", which)
    own = found.of_arm("abpt", which, "own", other=other)
    return {
        "detached": part or "other noise",
        "N-step": _residual(found, without),
        "ABPT": _residual(found, with_it),
        "ABPT, from its own": _residual(found, own),
        "return gained": _gain(found, part),
    }


def _residual(found: Found, gaps: list[Gap]) -> str:
    return text.ratio(found.over_seeds(gaps, "relative")) if gaps else ""


def _gain(found: Found, part: str) -> str:
    if not part:
        return ""
    if part == NONE:
        return text.signed(found.over_seeds(found.of_arm("abpt", NONE), "gain"))
    return text.signed(found.gain(part, many=len(found.parts)))
