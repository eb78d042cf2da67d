"""The only time loop of the project.

A rollout binds nothing, draws nothing and rewards nothing: it alternates observation, policy and
simulator, and stacks what it saw. Rewards and events are computed afterwards, for all times at
once, by `gradlab/outcome.py`. It works for a batch of episodes, for one, and under `torch.func.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gradlab.compilation import compile_step
from gradlab.factors import Probes
from gradlab.noise import Noise
from gradlab.policies import BoundPolicy, GaussianPolicy
from gradlab.simulators.base import Simulator
from gradlab.tasks.base import Task

if TYPE_CHECKING:
    from gradlab.problem import Problem


class Trajectory(NamedTuple):
    """What T steps went through; states and memories have one more entry than actions."""

    obs: Float[Tensor, "*batch T no"]
    output: Float[Tensor, "*batch T nz"]  # z of the policy
    latent: Float[Tensor, "*batch T nu"]  # action before squashing
    action: Float[Tensor, "*batch T nu"]
    state: Float[Tensor, "*batch T_plus_1 ns"]
    memory: Float[Tensor, "*batch T_plus_1 nm"]

    def detach(self) -> Trajectory:
        """The same numbers as constants."""
        return Trajectory(*(part.detach() for part in self))


class Transition(NamedTuple):
    """One pass around the loop."""

    obs: Tensor
    output: Tensor
    latent: Tensor
    action: Tensor
    state: Tensor  # after the step
    memory: Tensor  # after the step
    inputs: tuple[Tensor, ...]  # of the policy's layers after the first; () when not recording


def rollout(
    problem: Problem,
    policy: BoundPolicy,
    noise: Noise,
    *,
    length: int | None = None,
    cut_every: int | None = None,
) -> Trajectory:
    """Run `length` steps (default: the horizon T) from the initial states that `noise` holds.

    Episodes go on after termination: events multiply rewards, not dynamics. With `cut_every=n` the
    state at n, 2n, ... is a constant for what follows it (tiled windows), while `state` keeps the
    attached value, so that a window's end can still be differentiated.
    """
    state, memory = problem.start(noise)
    state = _constant(problem, state)
    step = _transition(problem.simulator, problem.task, problem.policy, problem.compile)
    if problem.checkpoint and torch.is_grad_enabled():
        step = partial(checkpoint, step, use_reentrant=False, preserve_rng_state=False)
    indices = problem.steps.unbind(0)
    # contiguous: compiled code is specialised on strides, which would depend on the horizon
    eps = noise.action.movedim(-2, 0).contiguous().unbind(0)
    process = noise.process.movedim(-2, 0).contiguous().unbind(0)
    path: list[Transition] = []
    states, memories = [state], [memory]
    params = policy.params if policy.tape is None else policy.constants
    for t in range(length or problem.horizon):
        if cut_every is not None and t > 0 and t % cut_every == 0:
            state = _constant(problem, state.detach())
        probes = policy.probes(state)
        now = step(params, probes, state, memory, indices[t], eps[t], process[t])
        policy.record(now.obs, now.inputs, probes, t)
        path.append(now)
        state, memory = now.state, now.memory
        states.append(state)
        memories.append(memory)
    obs, output, latent, action = (
        torch.stack(column, dim=-2) for column in zip(*(now[:4] for now in path), strict=True)
    )
    return Trajectory(
        obs, output, latent, action, torch.stack(states, dim=-2), torch.stack(memories, dim=-2)
    )


def _constant(problem: Problem, state: Tensor) -> Tensor:
    """A state that nothing is differentiated by, as the first of an episode or of a window.

    Compiled code is specialised on which inputs need a gradient: a leaf saves a second compilation.
    """
    if problem.compile and torch.is_grad_enabled() and not state.requires_grad:
        return state.detach().requires_grad_()
    return state


@lru_cache(maxsize=32)
def _transition(
    simulator: Simulator, task: Task, policy: GaussianPolicy, compiled: bool
) -> Callable[..., Transition]:
    """One step as a pure function of tensors, compiled if asked for."""
    if compiled and isinstance(simulator, CompilesItself):
        return _transition(simulator.compiled(), task, policy, False)

    def transition(
        params: dict[str, Tensor],
        probes: Probes | None,
        state: Tensor,
        memory: Tensor,
        step: Tensor,
        eps: Tensor,
        process: Tensor,
    ) -> Transition:
        obs = task.observe(state, memory, step)
        inputs: tuple[Tensor, ...] = ()
        if probes is None:
            output = policy.apply(params, obs)
        else:
            output, inputs = policy.probed(params, obs, probes)
        latent = policy.latent(output, eps)
        action = policy.action(latent)
        after = simulator.step(state, action, process)
        memory_after = task.advance(memory, after, step)
        return Transition(obs, output, latent, action, after, memory_after, inputs)

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
