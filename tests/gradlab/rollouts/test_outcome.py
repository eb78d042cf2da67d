"""Values of trajectories: a slow obvious twin, the theorems on relaxation, no sampling error."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gradlab.events import Arctan, Event, Hard, Sigmoid, Step
from gradlab.oracle import closed_forms
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, evaluate_step, moment_at
from gradlab.rollouts.rollout import Trajectory, rollout
from gradlab.tasks import Transition
from tests.helpers.known import build
from tests.helpers.toy import toy_params, toy_problem

STEPS: dict[str, Step] = {"hard": Hard(), "sigmoid": Sigmoid(0.2), "arctan": Arctan(0.1)}


def slow_value(problem: Problem, path: Trajectory, cut_every: int | None) -> Tensor:
    """γ^t alive_t r_t of one episode [T], one step after another, with plain bookkeeping."""
    task, step = problem.task, problem.event_step
    events = task.events
    best: list[Tensor | None] = [None] * len(events)  # running maximum of every event's margin
    before = [torch.zeros((), dtype=problem.dtype) for _ in events]  # its step, one time ago
    over: list[Tensor] = []  # running maxima of the events that end the episode
    values = []
    for t in range(path.action.shape[0]):
        if cut_every is not None and t > 0 and t % cut_every == 0:
            best = [None if b is None else b.detach() for b in best]
            before = [b.detach() for b in before]
            over = [o.detach() for o in over]
        now = slice(t, t + 1)
        time = torch.tensor([float(t)], dtype=problem.dtype)
        parts = path.before[now], path.action[now], path.state[t + 1 : t + 2], path.memory[now]
        made = Transition(*parts, time)
        reward = sum(term[0] for term in task.terms(made).values())
        margin = task.margins(made)[0]
        alive = 1 - step(torch.stack(over).max()) if over else torch.ones((), dtype=problem.dtype)
        total = alive * reward
        for i, event in enumerate(events):
            m = margin[i]
            best[i] = m if best[i] is None else torch.maximum(best[i], m)
            reached = step(best[i])
            others = (
                [o for o, e in zip(over, ending(events), strict=True) if e != i] if over else []
            )
            free = 1 - step(torch.stack(others).max()) if others else torch.ones_like(alive)
            weight = free if event.terminates else alive
            total = total + event.bonus * weight * (reached - before[i])
            before[i] = reached
            if event.switches and bool(m > 0):  # it may happen again
                best[i], before[i] = None, torch.zeros_like(reached)
        over = [best[i] for i in ending(events)]
        values.append(problem.discount**t * total)
    return torch.stack(values)


def ending(events: tuple[Event, ...]) -> list[int]:
    return [i for i, event in enumerate(events) if event.terminates]


@pytest.mark.parametrize("cut_every", [None, 1, 3])
@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("switching", [False, True])
def test_outcome_equals_a_loop_over_time(switching: bool, kind: str, cut_every: int | None) -> None:
    problem = toy_problem(switching=switching).replace(event_step=STEPS[kind])
    params = toy_params(problem)
    noise = problem.draw(24, torch.Generator().manual_seed(11))
    path = rollout(problem, problem.bind(params), noise)
    assert (
        (evaluate(problem, path).margins > 0).any(1).any(0).all()
    )  # every event happens somewhere
    state = path.state.detach().requires_grad_()
    before = path.before.detach().requires_grad_()
    path = path.detach()._replace(state=state, before=before)
    value = evaluate(problem, path, cut_every).value
    # the return of each window, weighted apart, so that what is cut from each step matters
    weights = torch.linspace(0.5, 1.5, problem.horizon, dtype=torch.float64)
    gradients = torch.autograd.grad((weights * value).sum(), (state, before))
    for i in range(noise.count):
        leaves = tuple(part[i].detach().requires_grad_() for part in (state, before))
        one = path.map(lambda part, i=i: part[i])
        one = one._replace(state=leaves[0], before=leaves[1])
        slow = slow_value(problem, one, cut_every)
        torch.testing.assert_close(value[i], slow, rtol=1e-12, atol=1e-12)
        slow_gradients = torch.autograd.grad((weights * slow).sum(), leaves)
        for gradient, expected in zip(gradients, slow_gradients, strict=True):
            torch.testing.assert_close(gradient[i], expected, rtol=1e-10, atol=1e-12)


def test_short_paths_are_prefixes() -> None:
    problem = toy_problem().relaxed(0.2)
    params = toy_params(problem)
    noise = problem.draw(6, torch.Generator().manual_seed(2))
    policy = problem.bind(params)
    whole = evaluate(problem, rollout(problem, policy, noise))
    part = evaluate(problem, rollout(problem, policy, noise, length=3))
    torch.testing.assert_close(part.value, whole.value[:, :3], rtol=0, atol=0)
    torch.testing.assert_close(part.events, whole.events[:, :4], rtol=0, atol=0)
    torch.testing.assert_close(part.alive, whole.alive[:, :4], rtol=0, atol=0)


@pytest.mark.parametrize("width", [0.01, 0.1, 1.0])
def test_steps_are_as_close_to_hard_as_the_theorems_say(width: float) -> None:
    margin = torch.linspace(-40 * width, 40 * width, 80_001, dtype=torch.float64)
    hard, size = Hard()(margin), margin.abs()
    sigmoid = (Sigmoid(width)(margin) - hard).abs()
    assert (sigmoid <= torch.exp(-size / width) + 1e-15).all()
    assert (sigmoid > 0.4 * torch.exp(-size / width))[size < 20 * width].all()  # not looser than 2x
    area = torch.trapezoid(sigmoid, margin)
    assert float(area) == pytest.approx(2 * width * math.log(2), rel=1e-3)
    arctan = (Arctan(width)(margin) - hard).abs()
    far = size > 0
    assert (arctan[far] <= width / (math.pi * size[far])).all()
    assert float(arctan[0] * math.pi * size[0] / width) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("horizon", [1, 4, 48])
@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_the_bound_of_one_step_holds_for_any_horizon(horizon: int, discount: float) -> None:
    """|Σ relaxed − Σ hard| <= bonus·max_t e^{−|M_t|/w}: bonuses telescope through the maximum."""
    problem, params = build("gate", horizon=horizon)
    problem = problem.replace(discount=discount)
    noise = problem.draw(512, torch.Generator().manual_seed(5))
    path = rollout(problem, problem.bind(params), noise)
    hard = evaluate(problem, path)
    bonus = problem.task.bonus
    for width in (0.3, 0.03, 0.003):
        relaxed = evaluate(problem.relaxed(width), path)
        gap = (relaxed.value.sum(-1) - hard.value.sum(-1)).abs()
        closest = hard.running[..., 0].abs()
        closest = closest[:, -1] if discount == 1 else closest.amin(-1)
        assert (gap <= bonus * torch.exp(-closest / width) + 1e-12).all()
        arctan = evaluate(problem.relaxed(width, "arctan"), path)
        gap = (arctan.value.sum(-1) - hard.value.sum(-1)).abs()
        assert (gap <= bonus * width / (math.pi * closest) + 1e-12).all()


def test_one_time_bonuses_telescope() -> None:
    """Undiscounted, the bonus of an episode is bonus·Step(M_T) whatever happens on the way."""
    problem, params = build("gate", horizon=20)
    problem = problem.replace(discount=1.0)
    noise = problem.draw(64, torch.Generator().manual_seed(6))
    path = rollout(problem, problem.bind(params), noise)
    for step in STEPS.values():
        result = evaluate(problem.replace(event_step=step), path)
        paid = (result.value - result.dense).sum(-1)
        once = problem.task.bonus * step(result.margins[..., 0].amax(-1))
        torch.testing.assert_close(paid, once, rtol=1e-12, atol=1e-12)


def test_relaxed_value_is_within_width_of_the_hard_one() -> None:
    """|J_width − J| <= bonus·(largest density of the margin)·2·width·ln 2, by closed forms."""
    problem, params = build("heaviside")
    hard = closed_forms.solve(problem, params)
    std = float(params["log_std"].exp())
    density = 1 / (std * math.sqrt(2 * math.pi))
    gaps, errors = [], []
    for width in (
        0.04,
        0.02,
        0.01,
        0.005,
    ):  # far below std = 0.2: the next order is (w/std)² smaller
        relaxed = closed_forms.solve(problem.relaxed(width), params)
        gap = float((relaxed.value - hard.value).abs())
        assert gap <= density * 2 * width * math.log(2)
        gaps.append(gap)
        errors.append(
            sum(float((relaxed.gradient[k] - x).norm()) for k, x in hard.gradient.items())
        )
    # the first-order term vanishes for a symmetric step: the last halvings divide by four
    assert gaps[2] / gaps[3] == pytest.approx(4, rel=0.1)
    assert errors[2] / errors[3] == pytest.approx(4, rel=0.1)


def test_running_minimum_keeps_a_safe_episode_alive() -> None:
    """48 safe steps at margin −4 widths: survival 0.98, where a product of steps keeps 0.42."""

    class Safe(type(toy_problem().task)):
        def margins(self, transition: Transition) -> Tensor:
            return torch.full_like(transition.after[..., :1], -0.4).expand(
                *transition.after.shape[:-1], 3
            )

    problem = toy_problem(horizon=48).replace(task=Safe()).relaxed(0.1)
    noise = problem.draw(2, torch.Generator().manual_seed(0))
    path = rollout(problem, problem.bind(toy_params(problem)), noise)
    alive = evaluate(problem, path).alive
    safe = 1 / (1 + math.exp(-4.0))
    assert float(alive[0, 0]) == 1
    torch.testing.assert_close(
        alive[:, 1:], torch.full_like(alive[:, 1:], safe), rtol=1e-12, atol=0
    )
    assert round(safe, 2) == 0.98
    assert round(safe**48, 2) == 0.42


@pytest.mark.parametrize("kind", STEPS)
def test_a_margin_of_nan_is_not_a_safe_one(kind: str) -> None:
    """An episode whose margins are lost while it is alive has no value from there on.

    One that has ended keeps what it earned: its margins matter no more.
    """

    class Lost(type(toy_problem().task)):
        def margins(self, transition: Transition) -> Tensor:
            step = transition.step
            margins = super().margins(transition)
            late = (step >= 2).reshape(step.shape + (1,)).expand(margins.shape)
            even = torch.arange(len(margins)).reshape(-1, *(1,) * (margins.ndim - 1)) % 2 == 0
            return torch.where(late & even, torch.nan, margins)

    plain = toy_problem(horizon=8).replace(event_step=STEPS[kind])
    problem = plain.replace(task=Lost())
    noise = problem.draw(4, torch.Generator().manual_seed(0))
    policy = problem.bind(toy_params(problem))
    path = rollout(problem, policy, noise)
    expected = evaluate(plain, rollout(plain, policy, noise))
    value = evaluate(problem, path).value
    assert not value[:, :2].isnan().any() and not value[1::2].isnan().any()
    assert value[2, 2:].isnan().all()
    if kind == "hard":
        assert expected.alive[::2, 2].tolist() == [0, 1]
        assert torch.equal(value[0], expected.value[0])
    else:
        assert value[0, 2:].isnan().all()

    now = moment_at(path, evaluate(problem, path), 0)
    now = now._replace(state=path.state[:, 2], memory=path.memory[:, 2], step=now.step + 2)
    step = evaluate_step(problem, now, path.action[:, 2], path.state[:, 3], path.process[:, 2])
    assert step.terminated[::2].all() and step.reward[::2].isnan().all()
    assert not step.reward[1::2].isnan().any()
