"""First and zeroth order mixed at the policy's output, by step and coordinate."""

from __future__ import annotations

from typing import Literal

from estimators.mixtures import Cross, InverseVariance, Mixture
from estimators.mixtures.sources import Independent, Source
from estimators.pathwise import FOG
from estimators.score import PG
from estimators.value import NStep
from gradlab.foundation.errors import BadValue


def action_mixture(
    window: int | None = None,
    advantage: Literal["loo", "none", "v", "q", "gae"] = "loo",
    gae_lambda: float = 0.95,
    source: Source | None = None,
) -> Mixture:
    """IVW-H: G = α g1 + (1 − α) g0 at z = (mean, log std) of every step, which goes through the
    policy once.

    The leave-one-out mean of `advantage="loo"` is over the other episodes of a fold (of a group or
    a pilot, where there are no folds).

    g1 is the first-order gradient by z (g1_logσ = g1_μ σ ε), g0 the zeroth-order one (A ε/σ and
    A (ε² − 1)). α = σ²_0/(σ²_0 + σ²_1) for each step and each coordinate, so separately for mean
    and log std, with variances over episodes. Nothing more is simulated than for the two.

    Estimates: ∇J; call weights 1.
    Requires: a V critic for a `window` and for `advantage="v"` or `"gae"`, a Q critic for `"q"`.
    Unbiased when: both parts are; by default, where rewards and dynamics are continuous in the
    noise. A `window` needs an exact, smooth V, and `"gae"` an exact V or λ = 1. `source=Same(...)`,
    as published, biases; `Cross` (the default, `Cross()`) and `Independent` do not.
    Cost: that of FOG and PG, on one rollout where they can share it.
    Reference: IVW-H, arXiv 2604.18161 appendix E, algorithm 1, which is a `window`,
    `advantage="gae"` and `source=Same(...)` (γ counts from the start of the episode here, from that
    of the segment there).
    """
    if advantage not in ("loo", "none", "v", "q", "gae"):
        raise BadValue(f"advantage must be loo, none, v, q or gae, got {advantage!r}")
    source = Cross() if source is None else source
    if advantage == "gae":
        zeroth = PG(returns="gae", gae_lambda=gae_lambda)
    else:
        zeroth = PG(baseline=advantage, group_size=_fold(source))
    first = FOG() if window is None else NStep(window, "tiled", tail="v")
    rule = InverseVariance("IVW-H")
    return Mixture((first, zeroth), rule, "output", source)


def _fold(source: Source) -> int:
    """Episodes that share a leave-one-out mean: a fold of `Cross`, or all of a group or pilot."""
    if isinstance(source, Independent):
        return source.size
    return source.group(1) // len(source.origins(source.group(1)))
