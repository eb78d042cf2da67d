"""Rewards, events and termination of a whole trajectory, vectorised over time.

J(θ) = E[ Σ_{t<T} γ^t alive_t r_t ]. Bonuses are paid once, through the running maximum M_t of their
margin: bonus_t = c·[Step(M_t) − Step(M_{t−1})]; alive_t = 1 − Step(max over terminating events of
M_{t−1}), so the terminating step's own reward counts. A bonus is multiplied by the survival of the
*other* terminations only: with a hard step this is the same number (an event cannot happen twice),
and with a soft one the bonus of a terminating event still telescopes. A survival reward is paid in
every step up to which its event has not happened, c·(1 − Step(M_t)), with the same weight.

An episode has ended once its survival is 0 in the problem's dtype (`events.last_margin`). Every
later value is 0, selected and not multiplied, so that 0 times a number that is not finite never
arises: an ended episode is worth exactly what it has earned, and has the gradient of that alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.events import running_maximum, running_maximum_since_switch
from gradlab.rollout import Trajectory

if TYPE_CHECKING:
    from gradlab.problem import Problem


class Outcome(NamedTuple):
    """What an episode earned."""

    value: Float[Tensor, "*batch T"]  # γ^t·alive_t·r_t: sums to the return
    reward: Float[Tensor, "*batch T"]  # r_t itself, bonuses included
    dense: Float[Tensor, "*batch T"]  # the sum of the smooth terms of r_t
    alive: Float[Tensor, "*batch T_plus_1"]  # not terminated before t; 0 from the end on
    events: Float[Tensor, "*batch T_plus_1 E"]  # Step(M_{t−1}): has it happened before t
    margins: Float[Tensor, "*batch T E"]  # m_t, scaled: an event happens above 0 [1]
    running: Float[Tensor, "*batch T E"]  # M_t, the margin's maximum so far [1]

    def to_go(self) -> Float[Tensor, "*batch T"]:
        """G_t = Σ_{k>=t} γ^k alive_k r_k, with γ counted from the start of the episode."""
        return reward_to_go(self.value)


def reward_to_go(value: Float[Tensor, "*batch T"]) -> Float[Tensor, "*batch T"]:
    """Sums from t to the end."""
    return value.flip(-1).cumsum(-1).flip(-1)


def evaluate(problem: Problem, path: Trajectory, cut_every: int | None = None) -> Outcome:
    """Value, rewards, survival and events of a trajectory under the problem's `event_step`.

    A path may be shorter than the horizon. With `cut_every=n` whatever is carried into a window of
    n steps (survival, running extrema) is a constant there, as the state is in a rollout with the
    same `cut_every`.
    """
    after = path.state[..., 1:, :]
    memory = path.memory[..., :-1, :]
    length = path.action.shape[-2]
    steps = problem.steps[:length]
    dense = _total(problem.task.terms(path.before, path.action, after, memory, steps), after)
    discounts = problem.discounts[:length]
    events = problem.task.events
    if not events:
        alive = torch.ones_like(path.state[..., 0])
        none = path.state[..., :0]
        return Outcome(
            discounts * dense, dense, dense, alive, none, none[..., 1:, :], none[..., 1:, :]
        )

    margins = problem.task.margins(after, memory, steps)
    running, fresh = _running(problem, margins, cut_every)
    reached = problem.event_step(running)
    # what had happened before each step; a repeating event starts afresh after it happened
    start = torch.zeros_like(reached[..., :1, :])
    happened = torch.cat([start, reached], dim=-2)
    carried = _cut(happened[..., :-1, :], cut_every)
    increment = reached - torch.where(fresh, torch.zeros_like(carried), carried)

    ending = [i for i, event in enumerate(events) if event.terminates]
    over = _over(problem, margins[..., ending], path.ended)
    alive = torch.where(over, 0.0, _survival(problem, running, ending))
    over = over[..., :-1]
    alive_now = _cut(alive[..., :-1, None], cut_every)[..., 0]
    value, reward = alive_now * torch.where(over, 0.0, dense), dense
    for i, event in enumerate(events):
        if event.bonus == 0.0 and event.survival == 0.0:
            continue
        others = [j for j in ending if j != i]
        weight = alive_now
        if i in ending:
            free = _survival(problem, running, others)[..., :-1]
            weight = _cut(torch.where(over, 0.0, free)[..., None], cut_every)[..., 0]
        earned = event.bonus * increment[..., i] + event.survival * (1 - reached[..., i])
        value, reward = value + weight * torch.where(over, 0.0, earned), reward + earned
    return Outcome(discounts * value, reward, dense, alive, happened, margins, running)


def while_alive(
    problem: Problem, result: Outcome, values: Float[Tensor, "*batch K"], times: slice
) -> Float[Tensor, "*batch K"]:
    """γ^t alive_t times values at times of 0..T: 0 from the end on,
    whatever the values are there.
    """
    alive = result.alive[..., times]
    return problem.discounts[times] * alive * torch.where(alive == 0, 0.0, values)


class StepOutcome(NamedTuple):
    """What one step of each of N episodes earned."""

    reward: Float[Tensor, " N"]  # r_t: the terms and the bonuses
    terms: dict[str, Float[Tensor, " N"]]  # the smooth ones
    bonuses: dict[str, Float[Tensor, " N"]]  # of the events that pay, survival included
    happened: Bool[Tensor, "N E"]  # in this step; a one-time event does so once
    terminated: Bool[Tensor, " N"]  # an event that ends episodes has happened, or its margin is NaN
    carried: Float[Tensor, "N E"]  # for the next step


def nothing_carried(problem: Problem, count: int) -> Float[Tensor, "N E"]:
    """What `evaluate_step` carries into the first step of `count` episodes."""
    size = count, len(problem.task.events)
    return torch.full(size, -torch.inf, dtype=problem.dtype, device=problem.device)


def evaluate_step(
    problem: Problem,
    before: Float[Tensor, "N ns"],
    action: Float[Tensor, "N nu"],
    after: Float[Tensor, "N ns"],
    memory: Float[Tensor, "N nm"],
    steps: Float[Tensor, " N"],
    carried: Float[Tensor, "N E"],
) -> StepOutcome:
    """`evaluate`, one step at a time: `reward` is that of the `Outcome` at the same step.

    Each episode is at a time of its own (`steps`, the index t). `carried` is M_{t−1}, the running
    maximum of every margin, and −inf where an event starts afresh.
    """
    # a task treats the steps of a trajectory one by one: episodes may stand where time does
    terms = problem.task.terms(before, action, after, memory, steps)
    reward = _total(terms, after)
    margins = problem.task.margins(after, memory, steps)
    running = torch.maximum(carried, margins)
    reached = problem.event_step(running)
    increment = reached - problem.event_step(carried)
    bonuses = {}
    events = problem.task.events
    for i, event in enumerate(events):
        if event.bonus != 0.0 or event.survival != 0.0:
            earned = event.bonus * increment[:, i] + event.survival * (1 - reached[:, i])
            bonuses[event.name] = earned
            reward = reward + earned
    occurs = margins > 0
    ending = [i for i, event in enumerate(events) if event.terminates]
    repeats = torch.tensor([event.switches for event in events], device=margins.device)
    return StepOutcome(
        reward=reward,
        terms=terms,
        bonuses=bonuses,
        happened=occurs & (carried <= 0),
        terminated=~(running[:, ending] <= 0).all(-1),
        carried=torch.where(occurs & repeats.bool(), -torch.inf, running),
    )


def _total(terms: dict[str, Tensor], after: Float[Tensor, "*batch ns"]) -> Float[Tensor, "*batch"]:
    """The sum of the smooth terms; 0 without any."""
    return torch.stack(list(terms.values())).sum(0) if terms else torch.zeros_like(after[..., 0])


def _running(problem: Problem, margins: Tensor, cut_every: int | None) -> tuple[Tensor, Tensor]:
    """M_t of every event, and where a repeating one has just started afresh."""
    running = running_maximum(margins, cut_every)
    fresh = torch.zeros_like(margins, dtype=torch.bool)
    if not any(event.switches for event in problem.task.events):
        return running, fresh
    columns, starts = [], []
    for i, event in enumerate(problem.task.events):
        margin = margins[..., i]
        if not event.switches:
            columns.append(running[..., i])
            starts.append(fresh[..., i])
            continue
        hit = (margin.detach() > 0).to(margin.dtype)
        visit = hit.cumsum(-1) - hit  # occurrences before step t
        columns.append(running_maximum_since_switch(margin, visit, cut_every))
        new = visit[..., 1:] != visit[..., :-1]
        starts.append(torch.cat([torch.zeros_like(fresh[..., :1, i]), new], dim=-1))
    return torch.stack(columns, dim=-1), torch.stack(starts, dim=-1)


def _over(
    problem: Problem, margins: Float[Tensor, "*batch T e"], ended: Bool[Tensor, "*batch T_plus_1"]
) -> Bool[Tensor, "*batch T_plus_1"]:
    """Whether an episode has ended before t, by terminating margins and by what its rollout knew.

    Both are needed: a rollout of the relaxed problem ends later than the hard events that are
    judged on it, and margins of one step and of all steps may be rounded differently.
    """
    beyond = margins.detach() > problem.last_margin
    happened = beyond.any(dim=-1).cumsum(dim=-1) > 0
    return ended | torch.cat([torch.zeros_like(happened[..., :1]), happened], dim=-1)


def _survival(problem: Problem, running: Tensor, ending: list[int]) -> Tensor:
    """[..., T+1]: 1 − Step(max_e M^e_{t−1}) over the events `ending`, 1 at t = 0."""
    one = torch.ones_like(running[..., :1, 0])
    if not ending:
        return torch.cat([one, torch.ones_like(running[..., 0])], dim=-1)
    worst = running[..., ending].max(dim=-1).values
    return torch.cat([one, 1 - problem.event_step(worst)], dim=-1)


def _cut(carried: Tensor, cut_every: int | None) -> Tensor:
    """Detach what is carried into each window; `carried` is [..., T, E]."""
    if cut_every is None:
        return carried
    index = torch.arange(carried.shape[-2], device=carried.device)
    first = (index % cut_every == 0)[:, None]
    return torch.where(first, carried.detach(), carried)
