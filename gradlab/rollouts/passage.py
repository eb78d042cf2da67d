"""One pass around the loop of a rollout, as a pure function of tensors: compiled if asked for.

An episode that has ended is held: it repeats its last step, with the inputs that it had.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gradlab.foundation.compilation import compile_step
from gradlab.policies.factors import Probes
from gradlab.policies.policy import Policy
from gradlab.problems.problem import Problem
from gradlab.rollouts.relay import Relay, passed_on
from gradlab.simulators.base import Simulator
from gradlab.tasks.base import Task, Transition, ending_margins


class Ending(NamedTuple):
    """Which episodes have ended, and what their last step had, as constants."""

    ended: Bool[Tensor, "*batch 1"]
    state: Float[Tensor, "*batch ns"]
    memory: Float[Tensor, "*batch nm"]
    process: Float[Tensor, "*batch np"]
    action: Float[Tensor, "*batch nu"]
    last: Float[Tensor, " 1"]  # margin of a terminating event above which an episode ends [1]
    carry: Float[Tensor, "*batch nc"] | None = None  # None: the policy is feed-forward

    def hold(self, kept: Tensor, now: Tensor) -> Tensor:
        """`kept` where the episode has ended, else `now`."""
        return torch.where(self.ended, kept, now) if now.shape[-1] else now


class Choice(NamedTuple):
    """The part of a pass that ends with the action."""

    obs: Tensor
    output: Tensor
    latent: Tensor
    action: Tensor
    recorded: tuple[Tensor, ...]  # by the policy's pull; () when not recording
    start: tuple[Tensor, ...]  # held state, memory, process noise, carry; () if none could be held
    carry: Tensor | None  # after the call


class Passage(NamedTuple):
    """One pass around the loop."""

    obs: Tensor
    output: Tensor
    latent: Tensor
    action: Tensor
    state: Tensor  # after the step
    memory: Tensor  # after the step
    recorded: tuple[Tensor, ...]  # by the policy's pull; () when not recording
    start: tuple[Tensor, ...]  # held state, memory, process noise, carry; () if none could be held
    carry: Tensor | None  # after the step; None where the policy is feed-forward
    ended: Tensor | None  # after the step; None where no event ends an episode


def one_step(problem: Problem, policy: Policy, relay: Relay | None) -> Callable[..., Passage]:
    """One pass around the loop; the first argument is its number, the others are `choose`'s.

    A relay at the action parts it in two, which are compiled or checkpointed one by one.
    """
    moving = problem.simulator, problem.task, policy, problem.compile
    if relay is None:
        whole = _rerun(problem, _passage(*moving))
        return lambda t, *inputs: whole(*inputs)
    choose, move = (_rerun(problem, half) for half in _halves(*moving))

    def step(t: int, *inputs: Any) -> Passage:
        chosen = choose(*inputs)
        action = passed_on(relay, t, "action", chosen.action)
        return move(chosen._replace(action=action), *inputs[3:])

    return step


def _rerun(problem: Problem, piece: Callable[..., Any]) -> Callable[..., Any]:
    """The piece, run again in the backward pass if the problem asks for that."""
    if not (problem.checkpoint and torch.is_grad_enabled()):
        return piece
    return partial(checkpoint, piece, use_reentrant=False, preserve_rng_state=False)


@lru_cache(maxsize=32)
def _passage(
    simulator: Simulator, task: Task, policy: Policy, compiled: bool
) -> Callable[..., Passage]:
    """One step as a pure function of tensors, compiled if asked for."""
    if compiled and isinstance(simulator, CompilesItself):
        return _passage(simulator.compiled(), task, policy, False)
    choose, move = _halves(simulator, task, policy, False)

    def passage(*inputs: Any) -> Passage:
        return move(choose(*inputs), *inputs[3:])

    return compile_step(passage) if compiled else passage


@lru_cache(maxsize=32)
def _halves(
    simulator: Simulator, task: Task, policy: Policy, compiled: bool
) -> tuple[Callable[..., Choice], Callable[..., Passage]]:
    """A step up to its action, and from there on."""
    if compiled and isinstance(simulator, CompilesItself):
        return _halves(simulator.compiled(), task, policy, False)
    margins_after, pull = ending_margins(task), policy.pull

    def choose(
        params: dict[str, Tensor],
        buffers: dict[str, Tensor],
        probes: Probes | None,
        state: Tensor,
        memory: Tensor,
        carry: Tensor | None,
        step: Tensor,
        eps: Tensor,
        process: Tensor,
        ending: Ending | None,
    ) -> Choice:
        start: tuple[Tensor, ...] = ()
        last = carry
        if ending is not None:
            given = (state, memory, process)
            start = tuple(ending.hold(*pair) for pair in zip(ending[1:4], given, strict=True))
            state, memory, process = start
            if carry is not None and ending.carry is not None:
                carry = ending.hold(ending.carry, carry)
                start = (*start, carry)
        obs = task.observe(state, memory, step)
        if probes is None:
            (output, carry), recorded = policy.apply(params, buffers, obs, carry), ()
        else:
            output, carry, recorded = pull.probed(params, buffers, obs, carry, probes)
        latent = policy.latent(output, eps)
        action = policy.action(latent)
        if ending is not None:
            action = ending.hold(ending.action, action)
            if carry is not None and last is not None:  # observations may go on, with their clock
                carry = ending.hold(last.detach(), carry)
        return Choice(obs, output, latent, action, recorded, start, carry)

    def move(
        chosen: Choice,
        state: Tensor,
        memory: Tensor,
        carry: Tensor | None,
        step: Tensor,
        eps: Tensor,
        process: Tensor,
        ending: Ending | None,
    ) -> Passage:
        if ending is not None:
            state, memory, process = chosen.start[:3]
        after = simulator.step(state, chosen.action, process)
        made = Transition(state, chosen.action, after, memory, step)
        over = None
        if ending is not None:
            # a margin of NaN ends nothing: the episode stays, to be counted
            over = margins_after(made.detach()) > ending.last
            over = ending.ended | (over if over.shape[-1] == 1 else over.any(-1, keepdim=True))
        return Passage(*chosen[:4], after, task.advance(made), *chosen[4:], over)

    return (compile_step(choose), compile_step(move)) if compiled else (choose, move)


@runtime_checkable
class CompilesItself(Protocol):
    """A simulator with sub-steps: it compiles one of them, not the whole control period."""

    def compiled(self) -> Simulator: ...


def compiled_step(simulator: Simulator) -> Callable[..., Tensor]:
    """The compiled `step` of a simulator, in the way it asks for."""
    if isinstance(simulator, CompilesItself):
        return simulator.compiled().step
    return compile_step(simulator.step)
