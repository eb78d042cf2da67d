"""Samples by what a rollout's own policy calls gave: of parts to which states are constants."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.gradients.engines import Context, Engine
from gradlab.gradients.samples import Factored
from gradlab.problems.problem import Problem

Params = dict[str, Tensor]


def reads_outputs(problem: Problem, engine: Engine, context: Context) -> bool:
    """Whether a part of constant states does without policy calls of its own: `at_outputs`.

    The combination then finds the layer factors of all parts at once, at the rollout's calls. What
    a recurrent policy remembers is not a constant along a path.
    """
    return engine == "pullback" and not context.layers and not problem.policy.carry_dim


def at_outputs(
    problem: Problem,
    params: Params,
    seen: tuple[Tensor, Tensor],
    values: Callable[[Tensor], Float[Tensor, " N"]],
) -> Factored:
    """Samples with the number `values(z)` each, by what a path's own policy calls gave.

    `seen` is the path's observations [N, K, no] and outputs z [N, K, nz], from step 0 on.
    """
    obs, output = seen
    with torch.enable_grad():
        z = output.detach().requires_grad_()
        total = values(z).sum()
        cotangent = torch.zeros_like(output)  # unless something depends on what the policy gave
        if total.requires_grad:
            (cotangent,) = torch.autograd.grad(total, [z], materialize_grads=True)
    steps = torch.arange(z.shape[-2], device=z.device)
    buffers = problem.bind(params).buffers
    return Factored(problem.policy, params, obs.detach(), cotangent, steps, buffers=buffers)
