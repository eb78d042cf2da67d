"""Samples by what a rollout's own policy calls gave: of parts to which states are constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.gradients.engines import Engine
from gradlab.gradients.samples import Factored
from gradlab.problems.problem import Problem

Params = dict[str, Tensor]


@runtime_checkable
class HasSurrogate(Protocol):
    """What is asked of the estimator."""

    @property
    def engine(self) -> Engine: ...


def reads_outputs(estimator: HasSurrogate, known: type, problem: Problem, layers: bool) -> bool:
    """Whether a part of constant states does without policy calls of its own: `at_outputs`.

    The combination then finds the layer factors of all parts at once, at the rollout's calls, and
    wants no `layers` of theirs. What a recurrent policy remembers is not a constant along a path,
    and a subclass with a surrogate of its own is not what `known`, the class that asks, stands for.
    """
    own = getattr(type(estimator), "surrogate", None) is getattr(known, "surrogate", None)
    plain = own and estimator.engine == "pullback"
    return plain and not layers and not problem.policy.carry_dim


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
