"""Where numbers of a segment are not finite."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome
from gradlab.rollouts.rollout import Trajectory


def sound(path: Trajectory, result: Outcome) -> Bool[Tensor, " N"]:
    """Episodes all of whose numbers are finite while they are alive."""
    alive = result.alive[:, :-1] > 0
    states = path.before.isfinite().all(-1) & path.action.isfinite().all(-1)
    after = path.state[:, 1:].isfinite().all(-1)
    return ((states & after & result.reward.isfinite()) | ~alive).all(1)


def where(
    problem: Problem, path: Trajectory, result: Outcome, fine: Bool[Tensor, " N"], number: int
) -> str:
    """One line on a gradient that is not finite: the first step at which anything was not."""
    said = f"the gradient of update {number} on {problem.name} is not finite"
    hint = "try a shorter segment, a lower learning rate, or on_nonfinite='skip'"
    if bool(fine.all()):
        return (
            f"{said}, though all states and rewards are: it grew too large on its way back; {hint}"
        )
    row = int((~fine).nonzero()[0])
    alive = result.alive[row, :-1] > 0
    parts = {
        "action": path.action[row].isfinite().all(-1),
        "state": path.state[row, 1:].isfinite().all(-1),
        "reward": result.reward[row].isfinite(),
    }
    bad = {
        name: int((alive & ~held).nonzero()[0])
        for name, held in parts.items()
        if bool((alive & ~held).any())
    }
    name = min(bad, key=lambda part: (bad[part], list(parts).index(part)))
    step = bad[name]
    return (
        f"{said}: in {int((~fine).sum())} of {len(fine)} episodes; first the {name} of step {step} "
        f"of the segment (episode {row}, action {_short(path.action[row, step])}); {hint}"
    )


def _short(values: Tensor) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values.tolist()[:8]) + "]"
