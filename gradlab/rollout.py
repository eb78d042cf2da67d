"""The only time loop of the project.

A rollout binds nothing, draws nothing and rewards nothing: it alternates observation, policy and
simulator, and stacks what it saw. Rewards and events are computed afterwards, for all times at
once, by `gradlab/outcome.py`. It works for a batch of episodes, for one, and under
`torch.func.vmap`.

An episode that has ended stands still: every later step is its last one again, with the inputs that
it had, as constants. So the state stays the one that ended it, it is as finite as the episode was
when it counted, and no gradient comes back from what counts no more: `torch.where` selects the
inputs, and a cotangent of 0 never meets an infinite derivative on its way to the policy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gradlab.compilation import compile_step
from gradlab.constants import constant
from gradlab.factors import Probes
from gradlab.noise import Noise
from gradlab.policies import BoundPolicy, GaussianPolicy
from gradlab.simulators.base import Simulator
from gradlab.tasks.base import Task, ending_margins

if TYPE_CHECKING:
    from gradlab.problem import Problem


class Trajectory(NamedTuple):
    """What T steps went through; states, memories and `ended` have one more entry than actions."""

    obs: Float[Tensor, "*batch T no"]
    output: Float[Tensor, "*batch T nz"]  # z of the policy
    latent: Float[Tensor, "*batch T nu"]  # action before squashing
    action: Float[Tensor, "*batch T nu"]
    before: Float[Tensor, "*batch T ns"]  # the state that each step starts from
    state: Float[Tensor, "*batch T_plus_1 ns"]
    memory: Float[Tensor, "*batch T_plus_1 nm"]
    ended: Bool[Tensor, "*batch T_plus_1"]  # before t: what follows is the last step again

    def detach(self) -> Trajectory:
        """The same numbers as constants."""
        return Trajectory(*(part.detach() for part in self))


class Ending(NamedTuple):
    """Which episodes have ended, and what their last step had, as constants."""

    ended: Bool[Tensor, "*batch 1"]
    state: Float[Tensor, "*batch ns"]
    memory: Float[Tensor, "*batch nm"]
    process: Float[Tensor, "*batch np"]
    action: Float[Tensor, "*batch nu"]
    last: Float[Tensor, " 1"]  # margin of a terminating event above which an episode ends [1]

    def hold(self, kept: Tensor, now: Tensor) -> Tensor:
        """`kept` where the episode has ended, else `now`."""
        return torch.where(self.ended, kept, now) if now.shape[-1] else now


class Transition(NamedTuple):
    """One pass around the loop."""

    obs: Tensor
    output: Tensor
    latent: Tensor
    action: Tensor
    state: Tensor  # after the step
    memory: Tensor  # after the step
    inputs: tuple[Tensor, ...]  # of the policy's layers after the first; () when not recording
    start: tuple[Tensor, ...]  # held state, memory and process noise; () if none could be held
    ended: Tensor | None  # after the step; None where no event ends an episode


def rollout(
    problem: Problem,
    policy: BoundPolicy,
    noise: Noise,
    *,
    length: int | None = None,
    cut_every: int | None = None,
) -> Trajectory:
    """Run `length` steps (default: the horizon T) from the initial states that `noise` holds.

    An episode ends when its survival 1 − Step(M_t) is 0 in the problem's dtype: with hard events at
    the event, with relaxed ones where `events.last_margin` says. From then on it stands still.

    With `cut_every=n` the state at n, 2n, ... is a constant for what follows it (tiled windows):
    `before` has the constant, while `state` keeps the attached value, so that a window's end can
    still be differentiated.
    """
    state, memory = problem.start(noise)
    state = _constant(problem, state)
    step = _transition(problem.simulator, problem.task, problem.policy, problem.compile)
    if problem.checkpoint and torch.is_grad_enabled():
        step = partial(checkpoint, step, use_reentrant=False, preserve_rng_state=False)
    indices = problem.steps.unbind(0)
    eps, process = (_by_time(part) for part in (noise.action, noise.process))
    ending = _none_ended(problem, state, memory, eps[0], process[0])
    path: list[Transition] = []
    befores: list[Tensor] = []
    states, memories = [state], [memory]
    params = policy.params if policy.tape is None else policy.constants
    for t in range(length or problem.horizon):
        if cut_every is not None and t > 0 and t % cut_every == 0:
            state = _constant(problem, state.detach())
        probes = policy.probes(state)
        now = step(params, probes, state, memory, indices[t], eps[t], process[t], ending)
        policy.record(now.obs, now.inputs, probes, t)
        path.append(now)
        start = now.start or (state, memory, process[t])
        befores.append(start[0])
        if ending is not None and now.ended is not None:
            # aliases are left to here: compiled code would make them anew, slowly
            held_state, held_memory, held_noise = (part.detach() for part in start)
            action = now.action.detach()
            ending = Ending(now.ended, held_state, held_memory, held_noise, action, ending.last)
        state, memory = now.state, now.memory
        states.append(state)
        memories.append(memory)
    obs, output, latent, action = (
        torch.stack(column, dim=-2) for column in zip(*(now[:4] for now in path), strict=True)
    )
    whole = torch.stack(states, dim=-2)
    if ending is None and cut_every is None:
        before = whole[..., :-1, :]
    else:
        before = torch.stack(befores, dim=-2)
    memory = torch.stack(memories, dim=-2)
    return Trajectory(obs, output, latent, action, before, whole, memory, _ended(path, state))


def _by_time(part: Float[Tensor, "*batch T n"]) -> tuple[Tensor, ...]:
    """The numbers of each step, laid out alike at every horizon:
    compiled code is specialised on strides.
    """
    first = part.movedim(-2, 0)
    return (first.contiguous() if first.numel() else first.new_zeros(first.shape)).unbind(0)


def _constant(problem: Problem, state: Tensor) -> Tensor:
    """A state that nothing is differentiated by, as the first of an episode or of a window.

    Compiled code is specialised on which inputs need a gradient: a leaf saves a second compilation.
    """
    if problem.compile and torch.is_grad_enabled() and not state.requires_grad:
        return state.detach().requires_grad_()
    return state


def _none_ended(
    problem: Problem, state: Tensor, memory: Tensor, eps: Tensor, process: Tensor
) -> Ending | None:
    """The `Ending` of the first step; None where no event ends an episode."""
    if not any(event.terminates for event in problem.task.events):
        return None
    last = constant((problem.last_margin,), state)
    none = torch.zeros_like(state[..., :1], dtype=torch.bool)
    # copies: compiled code is specialised on which inputs are views of each other
    start, known, noise = (part.detach().clone() for part in (state, memory, process))
    return Ending(none, start, known, noise, torch.zeros_like(eps), last)


def _ended(path: list[Transition], like: Tensor) -> Bool[Tensor, "*batch T_plus_1"]:
    """Whether an episode has ended before t."""
    never = torch.zeros_like(like[..., :1], dtype=torch.bool)
    flags = [never if now.ended is None else now.ended for now in path]
    return torch.cat([never, *flags], dim=-1)


@lru_cache(maxsize=32)
def _transition(
    simulator: Simulator, task: Task, policy: GaussianPolicy, compiled: bool
) -> Callable[..., Transition]:
    """One step as a pure function of tensors, compiled if asked for."""
    if compiled and isinstance(simulator, CompilesItself):
        return _transition(simulator.compiled(), task, policy, False)
    margins_after = ending_margins(task)

    def transition(
        params: dict[str, Tensor],
        probes: Probes | None,
        state: Tensor,
        memory: Tensor,
        step: Tensor,
        eps: Tensor,
        process: Tensor,
        ending: Ending | None,
    ) -> Transition:
        start: tuple[Tensor, ...] = ()
        if ending is not None:
            given = (state, memory, process)
            start = tuple(ending.hold(*pair) for pair in zip(ending[1:4], given, strict=True))
            state, memory, process = start
        obs = task.observe(state, memory, step)
        inputs: tuple[Tensor, ...] = ()
        if probes is None:
            output = policy.apply(params, obs)
        else:
            output, inputs = policy.probed(params, obs, probes)
        latent = policy.latent(output, eps)
        action = policy.action(latent)
        if ending is not None:
            action = ending.hold(ending.action, action)
        after = simulator.step(state, action, process)
        memory_after = task.advance(memory, after, step)
        over = None
        if ending is not None:
            # a margin of NaN ends nothing: the episode stays, to be counted
            over = margins_after(after.detach(), memory, step) > ending.last
            over = ending.ended | (over if over.shape[-1] == 1 else over.any(-1, keepdim=True))
        return Transition(obs, output, latent, action, after, memory_after, inputs, start, over)

    return compile_step(transition) if compiled else transition


@runtime_checkable
class CompilesItself(Protocol):
    """A simulator with sub-steps: it compiles one of them, not the whole control period."""

    def compiled(self) -> Simulator: ...


def compiled_step(simulator: Simulator) -> Callable[..., Tensor]:
    """The compiled `step` of a simulator, in the way it asks for."""
    if isinstance(simulator, CompilesItself):
        return simulator.compiled().step
    return compile_step(simulator.step)
