"""The long form of what `mixture_ratio` found."""

from __future__ import annotations

import pandas as pd

from gradlab.study import text
from studies.mixture_ratio.answer import alpha, lines
from studies.mixture_ratio.rows import Alpha, Policy, by_step, changes, policies, whole

LEGEND = (
    "α is SG's share. SG + QG: AGPO's ratio at the action of each step, one-step gradients, a mean over steps unless a\n"
    "step is named; published is with gradients divided by the medians of their lengths, norms the other reading of\n"
    "'L2 norm along the action dimension'. SG + PG: inverse variance over all parameters (γ = ∞), SG over windows of\n"
    "h steps. AoBG: by γ, or by τ = γ − ε with the confidence radius ε. Means over independent groups, 95 %."
)


def summarise(table: pd.DataFrame) -> str:
    """Every policy, every α, and changes over training."""
    found = changes(table, "sg+qg") + changes(table, "sg+pg")
    change = (
        {
            "training": c.method,
            "mixture": c.mixture,
            "variant": c.variant,
            "last − first": text.signed(c.value),
        }
        for c in found
    )
    parts = [
        LEGEND,
        text.titled("1. α by policy", lines(whole(table, "sg+pg"), whole(table, "sg+qg"))),
        text.titled("2. Policies and critics", map(_policy, policies(table))),
    ]
    if found:
        parts.append(text.titled("3. Over training", change))
    if bounded := whole(table, "aobg"):
        parts.append(text.titled("4. AoBG by its bound", map(_bounded, bounded)))
    steps = [one for name in ("sg+qg", "sg+pg") for one in by_step(table, name)]
    parts.append(text.titled("5. By step", map(_step, steps)))
    return "\n\n".join(parts)


def _policy(one: Policy) -> dict[str, str]:
    return {
        "policy": one.method if one.stage < 0 else f"{one.method}-{one.stage}",
        "steps": f"{one.horizon}",
        "speed [m/s]": f"{one.speed:.2f}",
        "survival": f"{one.survival:.0%}",
        "std": f"{one.std:.2f}",
        "explained at t = 0": f"{one.critic_start:.0%} ± {one.critic_start_stderr:.0%}",
        "ceiling": f"{one.critic_ceiling:.0%}",
    }


def _bounded(one: Alpha) -> dict[str, str]:
    return {
        "policy": one.policy,
        "by": one.variant,
        "bound": f"{one.gamma:g}",
        "α": alpha(one.value),
    }


def _step(one: Alpha) -> dict[str, str]:
    return {
        "policy": one.policy,
        "mixture": one.mixture,
        "variant": one.variant,
        "step": f"{one.step}",
        "α": alpha(one.value),
    }
