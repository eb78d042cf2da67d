"""The only time loop of the project.

A rollout binds nothing, draws nothing and rewards nothing: it alternates observation, policy and
simulator, and stacks what it saw. Rewards and events are computed afterwards, for all times at
once, by `gradlab/rollouts/outcome.py`. It works for a batch of episodes, for one, and under
`torch.func.vmap`. It begins at step 0 of every episode, or at any `Moment`, where each may be at a
time of its own.

An episode that has ended stands still: every later step is its last one again, with the inputs that
it had, as constants. So the state stays the one that ended it, it is as finite as the episode was
when it counted, and no gradient comes back from what counts no more: `torch.where` selects the
inputs, and a cotangent of 0 never meets an infinite derivative on its way to the policy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.moment import Moment
from gradlab.foundation.noise import Noise
from gradlab.foundation.tensors import constant
from gradlab.policies.policy import BoundPolicy, Policy
from gradlab.problems.problem import Problem
from gradlab.problems.segment import check_moment, check_time
from gradlab.rollouts.margins import Cuts
from gradlab.rollouts.passage import (
    Ending,
    Here,
    Inputs,
    Passage,
    begun,
    onward,
    some_steps,
    stride,
)
from gradlab.rollouts.relay import Relay, check_relay, passed_on


class Trajectory(NamedTuple):
    """What T steps went through; states, memories and `ended` have one more entry than actions."""

    obs: Float[Tensor, "*batch T no"]
    output: Float[Tensor, "*batch T nz"]  # z of the policy
    latent: Float[Tensor, "*batch T nu"]  # action before squashing
    action: Float[Tensor, "*batch T nu"]
    before: Float[Tensor, "*batch T ns"]  # the state that each step starts from
    memory_before: Float[Tensor, "*batch T nm"]  # and the memory
    process: Float[Tensor, "*batch T nw"]  # the noise that each step had
    state: Float[Tensor, "*batch T_plus_1 ns"]
    memory: Float[Tensor, "*batch T_plus_1 nm"]
    carry_before: Float[Tensor, "*batch T nc"]  # what a recurrent policy had at each step
    carry: Float[Tensor, "*batch T_plus_1 nc"]  # and hands on; no number if it is feed-forward
    ended: Bool[Tensor, "*batch T_plus_1"]  # before t: what follows is the last step again
    start: Moment | None = None  # where it began; None: at step 0 of every episode

    def map(self, function: Callable[[Tensor], Tensor]) -> Trajectory:
        """`function` of every tensor, those of `start` included."""
        start = None if self.start is None else self.start.map(function)
        return Trajectory(*(function(part) for part in self[:-1]), start=start)  # pyright: ignore

    def detach(self) -> Trajectory:
        """The same numbers as constants."""
        return self.map(torch.Tensor.detach)


def rollout(
    problem: Problem,
    policy: BoundPolicy,
    noise: Noise,
    *,
    start: Moment | None = None,
    length: int | None = None,
    cut_every: int | None = None,
    cut_at: Bool[Tensor, "*batch T"] | None = None,
    relay: Relay | None = None,
) -> Trajectory:
    """Run `length` steps from the initial states that `noise` holds, or from the moment `start`.

    By default all steps of `noise` are taken; its step k is the k-th of this rollout
    (`noise.during` gives those that are left). Gradients pass into `start` as far as its tensors
    have them; `start.detach()` cuts.

    An episode ends when its survival 1 − Step(M_t) is 0 in the problem's dtype: with hard events at
    the event, with relaxed ones where `events.last_margin` says. From then on it stands still.

    With `cut_every=n` the state at n, 2n, ... is a constant for what follows it (tiled windows):
    `before` has the constant, while `state` keeps the attached value, so that a window's end can
    still be differentiated. What a recurrent policy carries is cut with the state. `cut_at` does
    the same at the steps where an episode's own flag is True (of step 0 it says nothing).

    A `relay` decides what flows back at the state, the policy's output or the action of every
    step (`relay.py`). Nothing does through it once an episode has ended. Memory and carry pass
    beside it.

    A rollout that nothing can be differentiated by, such as that of a frozen policy, is not run if
    the policy's `memo` knows its path: the same states come from the same inputs, wherever a window
    is cut. There it is a constant.

    Raises `BadValue` for more steps than `noise` or the horizon have or for cuts of both kinds,
    `BadShape` for a start of other episodes or another problem. On a GPU nobody asks `start` for
    its times: look after them yourself.
    """
    if not isinstance(policy, BoundPolicy):
        raise BadValue(
            f"a rollout needs a policy with its parameters, got {type(policy).__name__}; "
            "try problem.bind(params)"
        )
    if cut_every is not None:
        cut_every = whole("cut_every", cut_every)
    length = _length(problem, noise, start, length)
    if cut_at is not None and (cut_every is not None or cut_at.shape[-1] != length):
        raise BadValue(
            f"expected cut_at to have a flag for each of {length} steps, and no cut_every beside "
            f"it, got {list(cut_at.shape)} and cut_every={cut_every}"
        )
    cuts = cut_every if cut_at is None else cut_at
    if relay is not None:
        check_relay(relay)
    if policy.memo is None or relay is not None:
        return _run(problem, policy, noise, start, length, cuts, relay)
    tensors = [*policy.params.values(), *policy.buffers.values(), *noise, *(start or ())]
    key = (*_same_states(problem, policy.policy), length, *tensors)
    if policy.tape is None and not _attached(tensors):
        known = policy.memo.find(key)
        if known is not None:
            return known
    began = time.perf_counter()
    path = _run(problem, policy, noise, start, length, cuts, None)
    policy.memo.keep(key, path.detach(), time.perf_counter() - began)
    return path


def _same_states(problem: Problem, policy: Policy) -> tuple[Any, ...]:
    """What a path depends on, of a problem: not on what is paid for it."""
    moving = problem.simulator, problem.task, policy, problem.last_margin
    return *moving, problem.dtype, bool(problem.compile)


def _attached(tensors: list[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(part.requires_grad for part in tensors)


def _run(
    problem: Problem,
    policy: BoundPolicy,
    noise: Noise,
    start: Moment | None,
    length: int,
    cuts: Cuts,
    relay: Relay | None,
) -> Trajectory:
    """The loop itself."""
    if start is None and problem.segment is not None:
        start = problem.start(noise)
    begin = problem.start(noise) if start is None else start.map(_laid_out)
    state = _constant(problem, begin.state)
    carry = _constant(problem, begin.carry) if policy.policy.carry_dim else None
    here = Here(state, begin.memory, carry, _ending(problem, begin))
    nodes = () if relay is None else relay.nodes
    parted = "output" in nodes or "action" in nodes
    steps = some_steps(problem, policy.policy, relay if parted else None)
    # one number for all episodes at step 0, and one per episode from anywhere else
    indices = problem.steps.unbind(0)[:length]
    if start is not None:
        indices = [begin.step + t for t in range(length)]
    by_time = zip(indices, _by_time(noise.action), _by_time(noise.process), strict=False)
    given = [Inputs(None, *each) for each in by_time]
    path: list[Passage] = []
    starts: list[tuple[Tensor, ...]] = []
    states, memories, carries = [state], [begin.memory], [begin.carry if carry is None else carry]
    params = policy.params if policy.tape is None else policy.constants
    for times in _blocks(length, cuts, stride(problem, relay)):
        t = times.start
        if cuts is not None and t > 0:
            here = _cut(problem, here, cuts, t)
        if relay is not None and "state" in nodes:
            state = here.state
            if here.ending is not None:  # what a relay sends back does not reach an ended episode
                state = here.ending.hold(state.detach(), state)
            here = here._replace(state=_constant(problem, passed_on(relay, t, "state", state)))
        inputs = [each._replace(probes=policy.probes(here.state)) for each in given[times]]
        passages = steps(t, params, policy.buffers, here, inputs)
        for k, now in enumerate(passages):
            starts.append(begun(here, inputs[k], now))
            had = None if carry is None else starts[-1][3]
            policy.record(now.obs, had, now.recorded, inputs[k].probes, t + k)
            here = onward(here, inputs[k], now)
            states.append(here.state)
            memories.append(here.memory)
            carries.append(begin.carry if here.carry is None else here.carry)
        path.extend(passages)
    obs, output, latent, action = (
        torch.stack(column, dim=-2) for column in zip(*(now[:4] for now in path), strict=True)
    )
    state, memory = torch.stack(states, dim=-2), torch.stack(memories, dim=-2)
    before, memory_before = state[..., :-1, :], memory[..., :-1, :]
    used = noise.process[..., :length, :]
    if here.ending is not None:
        before, memory_before, used = (
            torch.stack(column, dim=-2) for column in list(zip(*starts, strict=True))[:3]
        )
    elif cuts is not None or "state" in nodes:
        before = torch.stack([part[0] for part in starts], dim=-2)
    kept = torch.stack(carries, dim=-2)
    carry_before = kept[..., :-1, :]
    if carry is not None:
        carry_before = torch.stack([part[3] for part in starts], dim=-2)
    chosen = obs, output, latent, action, before, memory_before, used, state, memory
    return Trajectory(*chosen, carry_before, kept, _ended(path, begin.ended), start)


def _blocks(length: int, cuts: Cuts, at_once: int) -> list[slice]:
    """The steps that are taken together: `at_once`, or one by one where fewer are left.

    No block goes past a cut. Other sizes would be graphs of their own, each to be compiled.
    """
    cut_every = 1 if isinstance(cuts, Tensor) else cuts
    blocks: list[slice] = []
    t = 0
    while t < length:
        end = length if cut_every is None else min(length, (t // cut_every + 1) * cut_every)
        count = at_once if t + at_once <= end else 1
        blocks.append(slice(t, t + count))
        t += count
    return blocks


def _cut(problem: Problem, here: Here, cuts: int | Tensor, t: int) -> Here:
    """The same place, as a constant where a window begins at step t."""
    if isinstance(cuts, Tensor):
        begins = cuts[..., t : t + 1]
        state, carry = (
            None if part is None else torch.where(begins, part.detach(), part)
            for part in (here.state, here.carry)
        )
        assert state is not None
        return here._replace(state=state, carry=carry)
    if t % cuts:
        return here
    carry = None if here.carry is None else _constant(problem, here.carry.detach())
    return here._replace(state=_constant(problem, here.state.detach()), carry=carry)


def _length(problem: Problem, noise: Noise, start: Moment | None, length: int | None) -> int:
    """How many steps to run."""
    known = noise.action.shape[-2]
    default = known if start is not None else problem.horizon
    length = default if length is None else whole("length", length)
    if length > known:
        raise BadValue(
            f"expected a length of at most {known}, the steps that the noise has, got {length}; "
            "draw more with problem.replace(horizon=...).draw"
        )
    if start is not None:
        batch = tuple(noise.action.shape[:-2])
        check_moment(start, problem.widths, batch, problem.dtype, problem.name)
        check_time(start, length, problem.episode, problem.name)
    return length


def _by_time(part: Float[Tensor, "*batch T n"]) -> tuple[Tensor, ...]:
    """The numbers of each step, laid out alike at every horizon."""
    return _laid_out(part.movedim(-2, 0)).unbind(0)


def _laid_out(part: Tensor) -> Tensor:
    """The same numbers with the plain strides of their shape: compiled code is specialised on
    strides."""
    return part.contiguous() if part.numel() else part.new_zeros(part.shape)


def _constant(problem: Problem, state: Tensor) -> Tensor:
    """A state that nothing is differentiated by, as the first of an episode or of a window.

    Compiled code is specialised on which inputs need a gradient: a leaf saves a second compilation.
    """
    if problem.compile and torch.is_grad_enabled() and not state.requires_grad:
        return state.detach().requires_grad_()
    return state


def _ending(problem: Problem, start: Moment) -> Ending | None:
    """The `Ending` of the first step; None where no event ends an episode."""
    if not any(event.terminates for event in problem.task.events):
        return None
    last = constant((problem.last_margin,), start.state)
    # copies: compiled code is specialised on which inputs are views of each other
    state, memory, process, action, carry = (part.detach().clone() for part in start[-5:])
    held = state, memory, process, action
    return Ending(start.ended.unsqueeze(-1), *held, last, carry if carry.shape[-1] else None)


def _ended(path: list[Passage], first: Bool[Tensor, "*batch"]) -> Bool[Tensor, "*batch L"]:
    """Whether an episode has ended before t; L is T + 1."""
    begin = first.unsqueeze(-1)
    flags = [begin if now.ended is None else now.ended for now in path]
    return torch.cat([begin, *flags], dim=-1)
