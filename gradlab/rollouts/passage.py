"""Passes around the loop of a rollout, as pure functions of tensors: compiled if asked for.

An episode that has ended is held: it repeats its last step, with the inputs that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

# Steps in one compiled graph. A graph is launched once for all of them, forward and backward, which
# is most of what small batches cost; 8 gain a few percent more and take half as long to compile.
UNROLLED = 4


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


class Here(NamedTuple):
    """Where episodes are between two steps."""

    state: Tensor
    memory: Tensor
    carry: Tensor | None  # None: the policy is feed-forward
    ending: Ending | None  # None: no event ends an episode


class Inputs(NamedTuple):
    """What a step is given from outside."""

    probes: Probes | None  # None: nothing is recorded
    step: Tensor  # t
    eps: Tensor
    process: Tensor


class Law(NamedTuple):
    """The part of a pass that ends with what the policy gives."""

    obs: Tensor
    output: Tensor
    recorded: tuple[Tensor, ...]  # by the policy's pull; () when not recording
    start: tuple[Tensor, ...]  # held state, memory, process noise, carry; () if none could be held
    carry: Tensor | None  # after the call, whether the episode has ended or not


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


def begun(here: Here, inputs: Inputs, passage: Passage) -> tuple[Tensor, ...]:
    """State, memory, process noise and, if there is one, carry that a step really started from."""
    carry = () if here.carry is None else (here.carry,)
    return passage.start or (here.state, here.memory, inputs.process, *carry)


def onward(here: Here, inputs: Inputs, passage: Passage) -> Here:
    """Where episodes are after a step."""
    ending = here.ending
    if ending is not None and passage.ended is not None:
        # aliases of what a graph returns are made outside: compiled code makes them anew, slowly
        state, memory, noise, *carry = (part.detach() for part in begun(here, inputs, passage))
        held = state, memory, noise, passage.action.detach()
        ending = Ending(passage.ended, *held, ending.last, carry[0] if carry else None)
    return Here(passage.state, passage.memory, passage.carry, ending)


def stride(problem: Problem, relay: Relay | None) -> int:
    """How many steps a rollout takes at once: `UNROLLED` where they are one compiled graph."""
    alone = problem.checkpoint or relay is not None or isinstance(problem.simulator, CompilesItself)
    return UNROLLED if problem.compile and not alone else 1


def some_steps(
    problem: Problem, policy: Policy, relay: Relay | None
) -> Callable[..., list[Passage]]:
    """Passes around the loop: (number of the first, params, buffers, `Here`, one `Inputs` each).

    A relay at the policy's output or at the action parts a pass there, into pieces that are
    compiled or checkpointed one by one.
    """
    moving = problem.simulator, problem.task, policy, bool(problem.compile)
    if relay is None:
        whole = _rerun(problem, _several(*moving))
        return lambda t, *arguments: whole(*arguments)
    at_output = "output" in relay.nodes
    choose, move = (_rerun(problem, half) for half in _halves(*moving))
    decide, act = (_rerun(problem, part) for part in _choosing(*moving))

    def alone(
        t: int,
        params: dict[str, Tensor],
        buffers: dict[str, Tensor],
        here: Here,
        inputs: Sequence[Inputs],
    ) -> list[Passage]:
        if at_output:
            decided = decide(params, buffers, here, inputs[0])
            output = decided.output
            if here.ending is not None:  # what a relay sends back does not reach an ended episode
                output = here.ending.hold(output.detach(), output)
            output = passed_on(relay, t, "output", output)
            chosen = act(decided._replace(output=output), here, inputs[0])
        else:
            chosen = choose(params, buffers, here, inputs[0])
        if "action" in relay.nodes:
            action = passed_on(relay, t, "action", chosen.action)
            chosen = chosen._replace(action=action)
        return [move(chosen, here, inputs[0])]

    return alone


def _rerun(problem: Problem, piece: Callable[..., Any]) -> Callable[..., Any]:
    """The piece, run again in the backward pass if the problem asks for that."""
    if not (problem.checkpoint and torch.is_grad_enabled()):
        return piece
    return partial(checkpoint, piece, use_reentrant=False, preserve_rng_state=False)


@lru_cache(maxsize=32)
def _several(
    simulator: Simulator, task: Task, policy: Policy, compiled: bool
) -> Callable[..., list[Passage]]:
    """Consecutive steps as a pure function of tensors, compiled if asked for."""
    if compiled and isinstance(simulator, CompilesItself):
        return _several(simulator.compiled(), task, policy, False)
    choose, move = _halves(simulator, task, policy, False)

    def several(
        params: dict[str, Tensor],
        buffers: dict[str, Tensor],
        here: Here,
        inputs: Sequence[Inputs],
    ) -> list[Passage]:
        passages: list[Passage] = []
        for now, given in enumerate(inputs):
            if now > 0:
                here = onward(here, inputs[now - 1], passages[-1])
            passages.append(move(choose(params, buffers, here, given), here, given))
        return passages

    return compile_step(several) if compiled else several


@lru_cache(maxsize=32)
def _halves(
    simulator: Simulator, task: Task, policy: Policy, compiled: bool
) -> tuple[Callable[..., Choice], Callable[..., Passage]]:
    """A step up to its action, and from there on."""
    if compiled and isinstance(simulator, CompilesItself):
        return _halves(simulator.compiled(), task, policy, False)
    margins_after = ending_margins(task)
    decide, act = _choosing(simulator, task, policy, False)

    def choose(
        params: dict[str, Tensor], buffers: dict[str, Tensor], here: Here, inputs: Inputs
    ) -> Choice:
        return act(decide(params, buffers, here, inputs), here, inputs)

    def move(chosen: Choice, here: Here, inputs: Inputs) -> Passage:
        state, memory, process = chosen.start[:3] or (here.state, here.memory, inputs.process)
        after = simulator.step(state, chosen.action, process)
        made = Transition(state, chosen.action, after, memory, inputs.step)
        over = None
        if here.ending is not None:
            # a margin of NaN ends nothing: the episode stays, to be counted
            over = margins_after(made.detach()) > here.ending.last
            over = over if over.shape[-1] == 1 else over.any(-1, keepdim=True)
            over = here.ending.ended | over
        return Passage(*chosen[:4], after, task.advance(made), *chosen[4:], over)

    return (compile_step(choose), compile_step(move)) if compiled else (choose, move)


@lru_cache(maxsize=32)
def _choosing(
    simulator: Simulator, task: Task, policy: Policy, compiled: bool
) -> tuple[Callable[..., Law], Callable[..., Choice]]:
    """A step up to what the policy gives, and from there to its action."""
    compiled = compiled and not isinstance(simulator, CompilesItself)
    pull = policy.pull

    def decide(
        params: dict[str, Tensor], buffers: dict[str, Tensor], here: Here, inputs: Inputs
    ) -> Law:
        (state, memory, carry, ending), process = here, inputs.process
        start: tuple[Tensor, ...] = ()
        if ending is not None:
            given = (state, memory, process)
            start = tuple(ending.hold(*pair) for pair in zip(ending[1:4], given, strict=True))
            state, memory, process = start
            if carry is not None and ending.carry is not None:
                carry = ending.hold(ending.carry, carry)
                start = (*start, carry)
        obs = task.observe(state, memory, inputs.step)
        if inputs.probes is None:
            (output, carry), recorded = policy.apply(params, buffers, obs, carry), ()
        else:
            output, carry, recorded = pull.probed(params, buffers, obs, carry, inputs.probes)
        return Law(obs, output, recorded, start, carry)

    def act(decided: Law, here: Here, inputs: Inputs) -> Choice:
        obs, output, recorded, start, carry = decided
        ending = here.ending
        latent = policy.latent(output, inputs.eps)
        action = policy.action(latent)
        if ending is not None:
            action = ending.hold(ending.action, action)
            if carry is not None and here.carry is not None:
                # observations may go on, with their clock
                carry = ending.hold(here.carry.detach(), carry)
        return Choice(obs, output, latent, action, recorded, start, carry)

    return (compile_step(decide), compile_step(act)) if compiled else (decide, act)


@runtime_checkable
class CompilesItself(Protocol):
    """A simulator with sub-steps: it compiles one of them, not the whole control period."""

    def compiled(self) -> Simulator: ...


def compiled_step(simulator: Simulator) -> Callable[..., Tensor]:
    """The compiled `step` of a simulator, in the way it asks for."""
    if isinstance(simulator, CompilesItself):
        return simulator.compiled().step
    return compile_step(simulator.step)
