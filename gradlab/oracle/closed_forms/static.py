"""Answers of one-step decision problems, from the moments of their landscape."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.oracle.closed_forms import smoothing
from gradlab.oracle.closed_forms.answer import Answer, exact_critic
from gradlab.oracle.closed_forms.linear_gaussian import LinearGaussian, read, write
from gradlab.oracle.closed_forms.smoothing import Sensitivity, StaticMoments
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.tasks.smoothing import Heaviside, Quadratic, SoftHeaviside
from gradlab.tasks.static import Decision

FORMULAS = {
    Heaviside: smoothing.heaviside,
    SoftHeaviside: smoothing.soft_heaviside,
    Quadratic: smoothing.quadratic,
}


def moments(problem: Problem, params: dict[str, Tensor], baseline: float = 0.0) -> StaticMoments:
    """Moments of the landscape under the policy: a formula where there is one, else quadrature."""
    task = cast(Decision, problem.task)
    if problem.horizon != 1:
        raise BadValue(
            f"{task.name} is a decision of one step, got horizon {problem.horizon}; try horizon=1"
        )
    calls = read(problem.policy, params, 1)
    mean, std = calls.weight[0, :, 0] + calls.bias[0], calls.std[0]
    formula = FORMULAS.get(type(task.landscape), smoothing.by_quadrature)
    return formula(task.landscape, mean, std, baseline)


def truth(problem: Problem, params: dict[str, Tensor]) -> Answer:
    """J, its gradient, and what FOG and QG see of it, of a `Decision` task; no critic yet."""
    known = moments(problem, params)
    per_call, seen = _write(problem, known.gradient), _write(problem, known.fog)
    return Answer(known.value, per_call, seen, seen, None)


def variances(
    problem: Problem, params: dict[str, Tensor], baseline: float = 0.0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Per-parameter variances of one sample of FOG, and of PG with a constant baseline.

    The sum over all parameters is the trace of the per-sample covariance.
    """
    known = moments(problem, params, baseline)
    fog, pg = (
        {name: rows[0] for name, rows in _write(problem, part).items()}
        for part in (known.fog_variance, known.pg_variance)
    )
    return fog, pg


def critic(problem: Problem, params: dict[str, Tensor]) -> Critic:
    """Q(a) = f(a), a step where f is an event; V = J."""
    value = moments(problem, params).value
    landscape = cast(Decision, problem.task).landscape

    def q(view: View, action: Tensor) -> Tensor:
        total = landscape.reward(action)
        for margin, event in zip(
            landscape.margins(action).unbind(-1), landscape.events, strict=True
        ):
            total = total + event.bonus * (margin.detach() > 0).to(total)
        return total

    def v(view: View) -> Tensor:
        return value.to(view.state).expand(view.state.shape[:-1])

    return exact_critic(1, q, v)


def _write(problem: Problem, part: Sensitivity) -> dict[str, Tensor]:
    """The observation is 1, so the weight column and the bias see the same numbers."""
    mean = part.mean[None]
    return write(problem.policy, LinearGaussian(mean[..., None], mean, part.log_std[None]))
