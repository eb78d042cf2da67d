"""Mixtures of samples that are there already, with weights from the same samples, from the other
folds, or from another batch; and the rule whose gradients are normalised by their medians.

The weights are those of `estimators.Mixture` with `Same`, `Cross` and `fitted`, made of the same
rules and blocks; but every way of weighing sees the same samples of the parts, simulated once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.mixtures import BestLinear, Cross, InverseVariance, Rule, Same, Weights
from estimators.mixtures.rules import inverse_variance_shares, variances
from estimators.mixtures.sources import Ranges
from estimators.mixtures.weights import Level
from gradlab.gradients.samples import GradientSamples, concatenate

SAME, CROSS, PILOT = "same", "cross", "pilot"
SOURCES = (SAME, CROSS, PILOT)
FOLDS = 2


@dataclass(frozen=True)
class MedianNormalised:
    """Inverse variance of gradients that are first divided by the median of their lengths.

    Weights ∝ (median‖g_k‖)²/σ_k²: AGPO's normalisation (section 5.1 there), for the weights alone.
    Where a median is 0 nothing is normalised. Such weights minimise no variance unless the parts
    are equally long.
    """

    label: str = "IVW, medians"

    def __call__(
        self, parts: Sequence[GradientSamples], level: Level, horizon: int, paired: bool
    ) -> dict[str, Tensor]:
        medians = torch.stack([part.squared_norms().double().median() for part in parts])
        scales = medians if bool((medians > 0).all()) else torch.ones_like(medians)
        found = variances(parts, level, horizon)
        return {
            key: inverse_variance_shares(value / scales.view(-1, *[1] * (value.ndim - 1)))
            for key, value in found.items()
        }


RULES: dict[str, Rule] = {
    "ivw": InverseVariance(),
    "median": MedianNormalised(),
    "best_linear": BestLinear(),
}


def weights_by_source(
    rule: Rule, level: Level, parts: Sequence[GradientSamples], size: int, horizon: int
) -> dict[str, Weights]:
    """Weights of groups of `size` samples by where they come from.

    The pilot of a group is its neighbour (the second of two is that of the first, and the other way
    round), so that pairs of groups are independent of each other. `parts` hold an even number of
    whole groups of the same episodes.
    """
    own = _found(rule, level, parts, size, horizon, Same(size).origins(size))
    folds = _found(rule, level, parts, size, horizon, Cross(size, FOLDS).origins(size))
    swapped = {
        key: value.unflatten(0, (-1, 2)).flip(1).flatten(0, 1) for key, value in own.values.items()
    }
    return {SAME: own, CROSS: folds, PILOT: Weights(level, swapped)}


def _found(
    rule: Rule,
    level: Level,
    parts: Sequence[GradientSamples],
    size: int,
    horizon: int,
    origins: Sequence[Ranges],
) -> Weights:
    """One block of weights for every set of ranges of every group."""
    blocks = []
    for start in range(0, len(parts[0]), size):
        for ranges in origins:
            seen = [
                concatenate([part.rows(start + begin, start + end) for begin, end in ranges])
                for part in parts
            ]
            blocks.append(rule(seen, level, horizon, True))
    return Weights.stack(level, blocks)
