"""Where numbers of a segment are not finite."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome
from gradlab.rollouts.rollout import Trajectory

NUMBERS = 13  # of a state or an action that are shown: all of a quadrotor's


def sound(path: Trajectory, result: Outcome) -> Bool[Tensor, " N"]:
    """Episodes all of whose numbers are finite while they are alive."""
    alive = result.alive[:, :-1] > 0
    states = path.before.isfinite().all(-1) & path.action.isfinite().all(-1)
    after = path.state[:, 1:].isfinite().all(-1)
    return ((states & after & result.reward.isfinite()) | ~alive).all(1)


def where(
    problem: Problem,
    path: Trajectory,
    result: Outcome,
    fine: Bool[Tensor, " N"],
    number: int,
    samples: GradientSamples,
) -> str:
    """One line on a gradient that is not finite: the first step at which anything was not, or the
    last to which the gradient came on its way back.
    """
    said = f"the gradient of update {number} on {problem.name} is not finite"
    hint = "try a shorter segment, a lower learning rate, or on_nonfinite='skip'"
    if bool(fine.all()):
        return f"{said}, though all states and rewards are: {_back(path, samples)}; {hint}"
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
        f"of the segment ({_at(path, row, step)}); {hint}"
    )


def _back(path: Trajectory, samples: GradientSamples) -> str:
    """Where a gradient through finite numbers is lost, if its samples say it call by call."""
    if isinstance(samples, Factored):
        lost = ~samples.cotangent.isfinite().all(-1)
        if bool(lost.any()):
            rows = lost.any(1)
            row = int(rows.nonzero()[0])
            step = int(samples.steps[lost[row]].max())
            if step >= 0:
                return (
                    f"in {int(rows.sum())} of {len(rows)} episodes; first, on its way back, in what step "
                    f"{step} of the segment and those after it are worth ({_at(path, row, step)})"
                )
    return "it grew too large on its way back"


def _at(path: Trajectory, row: int, step: int) -> str:
    """Episode, state and action of a step."""
    return (
        f"episode {row}, from state {_short(path.before[row, step])} by action "
        f"{_short(path.action[row, step])}"
    )


def _short(values: Tensor) -> str:
    more = ", ..." if len(values) > NUMBERS else ""
    return "[" + ", ".join(f"{value:.3g}" for value in values.tolist()[:NUMBERS]) + more + "]"
