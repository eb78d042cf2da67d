"""What `loss_landscape` answers first."""

from __future__ import annotations

import pandas as pd

from gradlab.statistics import holm
from gradlab.study import Answer
from studies.landscape_report import LEVEL, RETURN, Table, _interval, _name, _policies


def answer(rows: Table) -> Answer:
    """At how many steps of the simulation each mixture is smoother than SG."""
    pairs = rows[rows["kind"] == "pair"].copy()
    said = []
    if len(pairs):
        pairs["p_holm"] = holm(pairs["p_value"].tolist())
        fine = pairs[pairs["stride"] == pairs["stride"].min()]
        for (name, alpha), group in fine.groupby(["objective", "alpha"], sort=False):
            sure = group.loc[group["p_holm"] <= LEVEL, "difference"]
            said.append(
                f"{_name(name, alpha)} is smoother at {int((sure < 0).sum())} of {len(group)} places "
                f"and rougher at {int((sure > 0).sum())}"
            )
    quality = rows["critic_quality"].dropna()
    critics = f"critics that explain {quality.min():.0%} to {quality.max():.0%} of the returns"
    return Answer(
        question="Are the surfaces that mixtures of gradients climb smoother than that of SG?",
        answer="; ".join(said) + "." if said else "No surface was compared with SG's.",
        rests_on=f"One plane per policy, {critics if len(quality) else 'no critic'}, and the same "
        f"episodes for both (p < {LEVEL} after Holm's correction).",
        would_change="Another plane, a finer grid, or a better critic.",
        table=_table(rows),
    )


def _table(rows: Table) -> Table:
    """Roughness of the return and of SG at the finest scale."""
    lines = []
    for _, policy in _policies(rows):
        rough = policy[policy["kind"] == "roughness"]
        for name in (RETURN, "sg"):
            mine = rough[rough["objective"] == name].sort_values("scale")
            if len(mine):
                first = mine.iloc[0]
                lines.append(
                    {
                        "task": first["task"],
                        "policy": first["policy"],
                        "surface": _name(name, first["alpha"]),
                        "roughness (share off a quadratic)": _interval(first, "share"),
                    }
                )
    return pd.DataFrame(lines)
