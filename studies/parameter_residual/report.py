"""The long form of what `parameter_residual` found."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from gradlab.study import text
from studies.parameter_residual.answer import LITTLE, claim, one, ratios
from studies.parameter_residual.rows import Found
from studies.parameter_residual.trainings import NONE

LEGEND = (
    "Residual: ‖θ − θ_ref‖/‖θ_ref − θ_0‖, all trainings from the same θ_0 on the same random numbers.\n"
    "Reference: full, the n-step return with nothing detached; own, the same method with nothing\n"
    "detached. Actions: root mean square difference of mean actions at states that the reference\n"
    "visits, as a share of the action's range. Gain: return less the reference's, on the same episodes.\n"
    "Other: the reference's method, nothing detached, other random numbers after θ_0. Intervals are 95 %\n"
    f"over seeds. By part the claim holds where the ratio of residuals is below 1 with its whole\n"
    f"interval, and does not where that is above {LITTLE}; intervals of ratios hold for all parts together."
)
SPACES = {"relative": "parameters", "actions": "actions"}


def summarise(table: pd.DataFrame) -> str:
    """Verdicts, trainings at every checkpoint, gradients and critics."""
    found = Found.of(table)
    return "\n\n".join(
        [
            LEGEND,
            text.titled("1. The claim, by part", _claims(found)),
            text.titled("2. Trainings", _trainings(found)),
            text.titled("3. Gradients at states of the full training", _gradients(found)),
            text.titled("4. Critics at the end: cosine of the action's gradient", _critics(found)),
        ]
    )


def _claims(found: Found) -> Iterator[dict[str, str]]:
    for (of, space), reference in (
        (pair, reference) for pair in SPACES.items() for reference in ("full", "own")
    ):
        shares = ratios(found, of, reference)
        for part, ratio in shares.items():
            beyond = found.beyond_chance(of, part, many=len(shares))
            yield {
                "in": space,
                "reference": reference,
                "detached": part,
                "ABPT/N-step": text.ratio(ratio),
                "the claim": one(ratio),
                "N-step/chance": text.ratio(beyond),
            }
        yield {"in": space, "reference": reference, "detached": "together",
               "ABPT/N-step": "", "the claim": claim(shares), "N-step/chance": ""}  # fmt: skip


def _trainings(found: Found) -> Iterator[dict[str, str]]:
    arms = dict.fromkeys((g.reference, g.part, g.other, g.method) for g in found.gaps)
    for reference, part, other, method in arms:
        for updates in found.updates:
            gaps = found.of_arm(method, part, reference, other=other, updates=updates)
            yield {
                "method": method,
                "detached": part + (", other" if other else ""),
                "reference": reference,
                "updates": f"{updates}",
                "distance": f"{found.over_seeds(gaps, 'distance')}",
                "residual": text.ratio(found.over_seeds(gaps, "relative")),
                "actions": f"{found.over_seeds(gaps, 'actions')}",
                "return": text.signed(found.over_seeds(gaps, "earned")),
                "gain": text.signed(found.over_seeds(gaps, "gain")),
            }


def _gradients(found: Found) -> Iterator[dict[str, str]]:
    """Cosines and lengths before training, and at every checkpoint."""
    for part in (NONE, *found.parts):
        for method, reference in (("nstep", "full"), ("abpt", "full"), ("abpt", "own")):
            for updates in (0, *found.updates):
                which = (method, part, updates, reference)
                yield {
                    "detached": part,
                    "method": method,
                    "reference": reference,
                    "updates": f"{updates}",
                    "cosine": text.cosine(found.angle("cosine", *which), decimals=True),
                    "length": f"{found.angle('length', *which)}",
                }


def _critics(found: Found) -> Iterator[dict[str, str]]:
    arms = dict.fromkeys((one.method, one.part) for one in found.critics)
    for method, part in arms:
        cosine = found.critic(method, part)
        yield {"method": method, "detached": part, "cosine": text.cosine(cosine, decimals=True)}
