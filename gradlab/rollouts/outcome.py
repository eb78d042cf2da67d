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

A trajectory that began at a `Moment` is judged as the part of a longer one that it is: with the
extrema, the survival and the discount of its start. `moment_at` gives the moment from which the
next one goes on.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.moment import Moment, beginning
from gradlab.foundation.tensors import flags, positions
from gradlab.problems.critic import View
from gradlab.problems.problem import Problem
from gradlab.rollouts.margins import Cuts, afresh, cut_between, running_margins
from gradlab.rollouts.rollout import Trajectory
from gradlab.tasks.base import Transition


class Outcome(NamedTuple):
    """What an episode earned."""

    value: Float[Tensor, "*batch T"]  # γ^t·alive_t·r_t: sums to the return
    reward: Float[Tensor, "*batch T"]  # r_t itself, bonuses included
    dense: Float[Tensor, "*batch T"]  # the sum of the smooth terms of r_t
    alive: Float[Tensor, "*batch T_plus_1"]  # not terminated before t; 0 from the end on
    events: Float[Tensor, "*batch T_plus_1 E"]  # Step(M_{t−1}): has it happened before t
    margins: Float[Tensor, "*batch T E"]  # m_t, scaled: an event happens above 0 [1]
    running: Float[Tensor, "*batch T E"]  # M_t, the margin's maximum so far [1]
    discount: Float[Tensor, "*times T_plus_1"]  # γ^t; of every episode where they began apart

    def detach(self) -> Outcome:
        """The same numbers as constants."""
        return Outcome(*(part.detach() for part in self))

    def to_go(self) -> Float[Tensor, "*batch T"]:
        """G_t = Σ_{k>=t} γ^k alive_k r_k, with γ counted from the start of the episode."""
        return reward_to_go(self.value)


def reward_to_go(value: Float[Tensor, "*batch T"]) -> Float[Tensor, "*batch T"]:
    """Sums from t to the end."""
    return value.flip(-1).cumsum(-1).flip(-1)


def evaluate(
    problem: Problem,
    path: Trajectory,
    cut_every: int | None = None,
    cut_at: Bool[Tensor, "*batch T"] | None = None,
) -> Outcome:
    """Value, rewards, survival and events of a trajectory under the problem's `event_step`.

    A path may be shorter than the horizon, and may begin anywhere: its value is discounted from
    where γ began to count, and it earns what it would earn as part of the whole. With `cut_every=n`
    whatever is carried into a window of n steps (survival, running extrema) is a constant there, as
    the state is in a rollout with the same `cut_every`; what is carried into the first one is as
    attached as its start. `cut_at` are windows of each episode's own, as those of a rollout.

    A path to the end of a segment that bootstraps also earns γ^T alive_T V(s_T), in its last step.
    """
    result = _earned(problem, path, cut_every if cut_at is None else cut_at)
    if not bootstraps(problem, path):
        return result
    value = result.value
    last = value[..., -1:] + bootstrap(problem, path, result)[..., None]
    return result._replace(value=torch.cat([value[..., :-1], last], dim=-1))


def bootstraps(problem: Problem, path: Trajectory) -> bool:
    """Whether the state after the last step of the path is worth what the critic says."""
    known = problem.segment is not None and problem.segment.bootstrap
    return known and path.action.shape[-2] == problem.horizon


def bootstrap(problem: Problem, path: Trajectory, result: Outcome) -> Float[Tensor, "*batch"]:
    """γ^T alive_T V(s_T) after the last step."""
    v = problem.require_v(f"the end of a segment of {problem.name}")
    times = slice(path.action.shape[-2], None)
    return while_alive(result, v(views(problem, path, result, times)), times)[..., 0]


def _earned(problem: Problem, path: Trajectory, cuts: Cuts) -> Outcome:
    """`evaluate` without what follows after the last step."""
    after = path.state[..., 1:, :]
    memory = path.memory[..., :-1, :]
    start = path.start
    steps, discount = _times(problem, path)
    steps, weight = steps[..., :-1], discount[..., :-1]
    made = Transition(path.before, path.action, after, memory, steps)
    dense = _total(problem.task.terms(made), after)
    events = problem.task.events
    if not events:
        alive = torch.ones_like(path.state[..., 0])
        none = path.state[..., :0]
        later = none[..., 1:, :]
        return Outcome(weight * dense, dense, dense, alive, none, later, later, discount)

    margins = problem.task.margins(made)
    carried = None if start is None else start.running
    running, fresh = running_margins(problem, margins, cuts, carried)
    reached = problem.event_step(running)
    # what had happened before each step; a repeating event starts afresh after it happened
    first = torch.zeros_like(reached[..., :1, :])
    if start is not None:
        first = problem.event_step(start.running).unsqueeze(-2)
    happened = torch.cat([first, reached], dim=-2)
    known = cut_between(happened[..., :-1, :], cuts)
    increment = reached - torch.where(fresh, torch.zeros_like(known), known)

    ending = [i for i, event in enumerate(events) if event.terminates]
    over = _over(problem, margins[..., positions(ending, margins)], path, ending)
    alive = torch.where(over, 0.0, _survival(problem, running, ending, start))
    over = over[..., :-1]
    alive_now = cut_between(alive[..., :-1, None], cuts)[..., 0]
    value, reward = alive_now * torch.where(over, 0.0, dense), dense
    for i, event in enumerate(events):
        if event.bonus == 0.0 and event.survival == 0.0:
            continue
        others = [j for j in ending if j != i]
        share = alive_now
        if i in ending:
            free = _survival(problem, running, others, start)[..., :-1]
            share = cut_between(torch.where(over, 0.0, free)[..., None], cuts)[..., 0]
        earned = event.bonus * increment[..., i] + event.survival * (1 - reached[..., i])
        value, reward = value + share * torch.where(over, 0.0, earned), reward + earned
    return Outcome(weight * value, reward, dense, alive, happened, margins, running, discount)


def while_alive(
    result: Outcome, values: Float[Tensor, "*batch K"], times: slice
) -> Float[Tensor, "*batch K"]:
    """γ^t alive_t times values at times of 0..T: 0 from the end on,
    whatever the values are there.
    """
    alive = result.alive[..., times]
    return result.discount[..., times] * alive * torch.where(alive == 0, 0.0, values)


def values_by_term(
    problem: Problem, path: Trajectory, result: Outcome
) -> dict[str, Float[Tensor, "*batch T"]]:
    """The parts of `result.value`: every smooth reward term of the task, and what events pay.

    γ^t alive_t times the term; "events" is the rest, and there is none where no event pays. What a
    segment's last state is worth is the part "bootstrap".
    """
    steps = _times(problem, path)[0][..., :-1]
    after, memory = path.state[..., 1:, :], path.memory[..., :-1, :]
    terms = problem.task.terms(Transition(path.before, path.action, after, memory, steps))
    now = slice(0, path.action.shape[-2])
    parts = {name: while_alive(result, term, now) for name, term in terms.items()}
    if bootstraps(problem, path):
        earlier = torch.zeros_like(result.value[..., 1:])
        worth = bootstrap(problem, path, result)[..., None]
        parts["bootstrap"] = torch.cat([earlier, worth], dim=-1)
    if any(event.bonus != 0.0 or event.survival != 0.0 for event in problem.task.events):
        parts["events"] = result.value - sum(parts.values(), torch.zeros_like(result.value))
    return parts


def survival(problem: Problem, moment: Moment) -> Float[Tensor, "*batch"]:
    """1 − Step(M) of the events that end an episode: 1 at its beginning, 0 where it has ended."""
    ending = [i for i, event in enumerate(problem.task.events) if event.terminates]
    return torch.where(moment.ended, 0.0, _carried_survival(problem, moment, ending))


def moment_at(path: Trajectory, result: Outcome, time: int | None = None) -> Moment:
    """Where the episodes of a trajectory are after `time` of its steps; by default at its end.

    `result` is what `evaluate` says of the path: it knows the margins so far. The moment is
    attached to the path, so that the gradient of a rollout from there goes on into it; `.detach()`
    makes it a constant. Raises `BadValue` for a time that the path does not have.
    """
    length = path.action.shape[-2]
    time = length if time is None else whole("time", time, 0)
    if time > length:
        raise BadValue(f"expected a time of at most {length}, the steps of the path, got {time}")
    start = path.start
    if start is None:
        start = beginning(
            path.state[..., 0, :],
            path.memory[..., 0, :],
            events=result.running.shape[-1],
            noise_dim=path.process.shape[-1],
            action_dim=path.action.shape[-1],
            carry_dim=path.carry.shape[-1],
        )
    if time == 0:
        return start
    last = time - 1
    return Moment(
        state=path.state[..., time, :],
        memory=path.memory[..., time, :],
        carry=path.carry[..., time, :],
        step=start.step + time,
        discounted=start.discounted + time,
        running=result.running[..., last, :],
        ended=path.ended[..., time],
        held_state=path.before[..., last, :].detach(),
        held_memory=path.memory_before[..., last, :].detach(),
        held_process=path.process[..., last, :].detach(),
        held_action=path.action[..., last, :].detach(),
        held_carry=path.carry_before[..., last, :].detach(),
    )


def views(problem: Problem, path: Trajectory, result: Outcome, times: slice = slice(None)) -> View:
    """What a critic sees at the chosen times of 0..T, attached to the states of `path`.

    Where the episode has ended it is, as a constant, the last state that was alive, with no event
    that ends episodes: a critic is never asked about what comes after the end, and its answer there
    has a weight of 0.
    """
    state, memory = path.state[..., times, :], path.memory[..., times, :]
    events = result.events[..., times, :]
    ends = [event.terminates for event in problem.task.events]
    if any(ends):
        # the step before t started from the last state that was alive
        first = (
            path.state[..., :1, :] if path.start is None else path.start.held_state[..., None, :]
        )
        living = torch.cat([first, path.before], dim=-2)[..., times, :]
        over = result.alive[..., times, None] == 0
        state = torch.where(over, living.detach(), state)
        memory = torch.where(over, memory.detach(), memory)
        # nor is it told of an end: log(1 - event) would be infinite there
        spared = events.detach().masked_fill(flags(ends, events), 0.0)
        events = torch.where(over, spared, events)
    step = _times(problem, path)[0][..., times]
    obs = problem.task.observe(state, memory, step)
    return View(state, obs, events, step.expand(state.shape[:-1]))


def _times(
    problem: Problem, path: Trajectory
) -> tuple[Float[Tensor, "*times T_plus_1"], Float[Tensor, "*times T_plus_1"]]:
    """The index t of every time, and γ^t as far as γ has counted."""
    count = path.state.shape[-2]
    passed = problem.steps[:count]
    if path.start is None:
        return passed, problem.discounts[:count]
    # the same powers for every path, from one table; plain indexing fails under `vmap`
    index = (path.start.discounted[..., None] + passed).long()
    powers = torch.nn.functional.embedding(index, problem.discounts[:, None])[..., 0]
    return path.start.step[..., None] + passed, powers


class StepOutcome(NamedTuple):
    """What one step of each of N episodes earned, and where it led."""

    reward: Float[Tensor, " N"]  # r_t: the terms and the bonuses
    terms: dict[str, Float[Tensor, " N"]]  # the smooth ones
    bonuses: dict[str, Float[Tensor, " N"]]  # of the events that pay, survival included
    happened: Bool[Tensor, "N E"]  # in this step; a one-time event does so once
    terminated: Bool[Tensor, " N"]  # an event that ends episodes has happened, or its margin is NaN
    end: Moment


def evaluate_step(
    problem: Problem,
    start: Moment,
    action: Float[Tensor, "N nu"],
    after: Float[Tensor, "N ns"],
    process: Float[Tensor, "N nw"],
) -> StepOutcome:
    """`evaluate`, one step at a time: `reward` is that of the `Outcome` at the same step.

    `after` is what the simulator makes of the state of `start`, the action and the process noise.
    No policy runs here: what a recurrent one carries stays as it is, for its caller to replace.
    """
    before, memory, steps = start.state, start.memory, start.step
    # a task treats the steps of a trajectory one by one: episodes may stand where time does
    made = Transition(before, action, after, memory, steps)
    terms = problem.task.terms(made)
    reward = _total(terms, after)
    margins = problem.task.margins(made)
    carried = afresh(problem, start.running)
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
    ending = [i for i, event in enumerate(events) if event.terminates]
    last = positions(ending, margins)
    over = (margins[:, last].detach() > problem.last_margin).any(-1)
    ended = start.ended[:, None]

    def held(kept: Tensor, now: Tensor) -> Tensor:
        return torch.where(ended, kept, now.detach())

    end = Moment(
        state=after,
        memory=problem.task.advance(made),
        carry=start.carry,
        step=steps + 1,
        discounted=start.discounted + 1,
        running=running,
        ended=start.ended | over,
        held_state=held(start.held_state, before),
        held_memory=held(start.held_memory, memory),
        held_process=held(start.held_process, process),
        held_action=held(start.held_action, action),
        held_carry=start.held_carry,
    )
    return StepOutcome(
        reward=reward,
        terms=terms,
        bonuses=bonuses,
        happened=(margins > 0) & (carried <= 0),
        terminated=~(running[:, last] <= 0).all(-1),
        end=end,
    )


def _total(terms: dict[str, Tensor], after: Float[Tensor, "*batch ns"]) -> Float[Tensor, "*batch"]:
    """The sum of the smooth terms; 0 without any."""
    return torch.stack(list(terms.values())).sum(0) if terms else torch.zeros_like(after[..., 0])


def _over(
    problem: Problem, margins: Float[Tensor, "*batch T e"], path: Trajectory, ending: list[int]
) -> Bool[Tensor, "*batch T_plus_1"]:
    """Whether an episode has ended before t, by terminating margins and by what its rollout knew.

    Both are needed: a rollout of the relaxed problem ends later than the hard events that are
    judged on it, and margins of one step and of all steps may be rounded differently.
    """
    beyond = margins.detach() > problem.last_margin
    happened = beyond.any(dim=-1).cumsum(dim=-1) > 0
    first = torch.zeros_like(happened[..., :1])
    if path.start is not None:
        carried = path.start.running[..., positions(ending, margins)].detach() > problem.last_margin
        first = carried.any(dim=-1, keepdim=True)
        happened = happened | first
    return path.ended | torch.cat([first, happened], dim=-1)


def _survival(
    problem: Problem, running: Tensor, ending: list[int], start: Moment | None
) -> Float[Tensor, "*batch T_plus_1"]:
    """1 − Step(max_e M^e_{t−1}) over the events `ending`, 1 at the beginning."""
    first = torch.ones_like(running[..., :1, 0])
    if start is not None:
        first = _carried_survival(problem, start, ending).unsqueeze(-1)
    if not ending:
        return torch.cat([first, torch.ones_like(running[..., 0])], dim=-1)
    worst = running[..., positions(ending, running)].max(dim=-1).values
    return torch.cat([first, 1 - problem.event_step(worst)], dim=-1)


def _carried_survival(
    problem: Problem, moment: Moment, ending: list[int]
) -> Float[Tensor, "*batch"]:
    """1 − Step(max_e M^e) over the events `ending`."""
    if not ending:
        return torch.ones_like(moment.state[..., 0])
    last = positions(ending, moment.running)
    return 1 - problem.event_step(moment.running[..., last].max(dim=-1).values)
