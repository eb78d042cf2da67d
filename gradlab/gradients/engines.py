"""Three ways from a scalar surrogate to per-sample gradients; they give the same answer.

A surrogate maps (problem, bound policy, noise) to one number per sample. `vmap` is the reference,
`loop` its obvious twin, and `pullback` the fast one: parameters enter a surrogate only through the
policy's outputs z_k, so one backward pass over the whole batch gives the cotangents ∂J_i/∂z_k, and
pulling them back through the policy alone gives every sample's gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import got
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.memo import Memo
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.noise import Noise
from gradlab.foundation.tensors import positions
from gradlab.gradients.samples import Dense, Factored, GradientSamples
from gradlab.policies.factors import Call
from gradlab.policies.policy import BoundPolicy, Policy
from gradlab.problems.problem import Problem

Engine = Literal["pullback", "vmap", "loop"]
Params = dict[str, Tensor]
# (policy, noise, given) -> [*batch]; `given` is a tuple of constants per sample
Surrogate = Callable[[BoundPolicy, Noise, Any], Float[Tensor, "*batch"]]


class Context(NamedTuple):
    """What the part of a combination is told; by default it is alone."""

    memo: Memo | None = None  # the rollouts of these episodes that the other parts have run
    layers: bool = True  # False: the combination finds the layer factors of all parts at once


def per_sample_gradients(
    surrogate: Surrogate,
    problem: Problem,
    params: Params,
    noise: Noise,
    given: Any = (),
    engine: Engine = "pullback",
    context: Context | None = None,
) -> GradientSamples:
    """Gradients of `surrogate` with respect to `params`, one per row of `noise`.

    `given` holds what a first pass found (a tuple of tensors with a leading N), as constants.
    `context` is that of a part of a combination; `pullback` alone uses it, as nothing leaves a
    transform.
    Under `vmap` and `loop` the step of the rollout is never compiled.
    """
    if engine not in ENGINES:
        raise BadValue(f"engine must be one of {sorted(ENGINES)}, got {engine!r}")
    with differentiating():
        tensors = ordinary(params), ordinary(noise), ordinary(given)
        if engine == "pullback":
            return pullback(surrogate, problem, *tensors, context or Context())
        return ENGINES[engine](surrogate, problem, *tensors)


def pullback(
    surrogate: Surrogate,
    problem: Problem,
    params: Params,
    noise: Noise,
    given: Any,
    context: Context,
) -> Factored:
    """One batched backward pass to the policy's outputs, then the policy's own pullback."""
    policy = problem.policy
    _check_names(policy, params)
    # its calls are recorded and take constants: whatever else reads the parameters would be lost
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    tape: list[Call] = []
    bound = problem.bind(leaves, tape, context.memo)
    values = surrogate(bound, noise, given)
    count = noise.count
    if not isinstance(values, Tensor) or values.shape != (count,):
        raise _bad_shape(count, values)
    _check_recorded(values, leaves)
    if not values.requires_grad or not tape:  # nothing of the surrogate depends on the policy
        carry = policy.carry_dim
        obs = noise.initial.new_zeros(count, 0, policy.observation_dim + carry)
        empty = noise.initial.new_zeros(count, 0, policy.output_dim + carry)
        none = torch.zeros(0, dtype=torch.long)
        return Factored(policy, params, obs, empty, none, buffers=bound.buffers)
    steps = positions([s for call in tape for s in call.steps], noise.initial)
    if not context.layers:
        grads = torch.autograd.grad(
            values.sum(), [call.probes.output for call in tape], materialize_grads=True
        )
        obs = _over_calls([call.inputs[0] for call in tape], count)
        cotangent = _over_calls(grads, count)
        return Factored(policy, params, obs, cotangent, steps, buffers=bound.buffers)
    probes = [(*call.probes.layers, call.probes.output) for call in tape]
    grads = torch.autograd.grad(
        values.sum(), [leaf for row in probes for leaf in row], allow_unused=True,
        materialize_grads=True,
    )  # fmt: skip
    width = len(probes[0])
    *layers, output = (_over_calls(grads[i::width], count) for i in range(width))
    recorded = [_over_calls(part, count) for part in zip(*(c.inputs for c in tape), strict=True)]
    calls = policy.pull.collect(bound.constants, bound.buffers, recorded, layers, output)
    return Factored(
        policy, params, calls.inputs, calls.cotangent, steps, calls.known, buffers=bound.buffers
    )


def _check_names(policy: Policy, params: Params) -> None:
    """Raise unless the parameters are those of the policy, which alone records its calls."""
    expected = policy.shapes()
    other = sorted(expected.keys() ^ params.keys())
    if other:
        raise BadShape(
            f"parameters do not fit the policy: {other[0]} is "
            f"{'missing' if other[0] in expected else 'none of its own'} ({len(other)} differ); "
            'use policy.init, or engine="vmap" for parameters that only your own code reads'
        )


def _check_recorded(values: Tensor, leaves: Params) -> None:
    """Raise if the values depend on parameters in another way than through recorded calls."""
    if not values.requires_grad:
        return
    grads = torch.autograd.grad(
        values.sum(), list(leaves.values()), allow_unused=True, retain_graph=True
    )
    for name, grad in zip(leaves, grads, strict=True):
        if grad is not None and bool((grad != 0).any()):
            raise BadValue(
                f"the surrogate reads {name} itself and not through policy(obs), which "
                'engine="pullback" alone sees: it would lose that part; use engine="vmap"'
            )


def check_independent(
    surrogate: Surrogate, problem: Problem, params: Params, noise: Noise, given: Any
) -> None:
    """Raise `BadValue` if the first sample's number has a gradient by what
    the policy did in another.

    One small rollout and backward pass. `pullback` would count such a gradient for the other
    sample; `vmap` has no other sample.
    """
    tape: list[Call] = []
    fixed = {name: value.detach() for name, value in params.items()}
    values = surrogate(problem.bind(fixed, tape), noise, given)
    if not isinstance(values, Tensor) or values.shape != (noise.count,):
        raise _bad_shape(noise.count, values)
    if not values.requires_grad or not tape:
        return
    # less what flows back from nothing: a relay may send constants of its own to every sample
    first = torch.zeros_like(values)
    first[0] = 1.0
    outputs = [call.probes.output for call in tape]
    by_first, by_none = (
        torch.autograd.grad(values, outputs, back, retain_graph=True, materialize_grads=True)
        for back in (first, torch.zeros_like(values))
    )
    for grad, sent in zip(by_first, by_none, strict=True):
        # a NaN says nothing: 0 · inf of a sample that is not finite
        if bool(((grad - sent).reshape(noise.count, -1)[1:].abs() > 0).any()):
            raise BadValue(
                "the surrogate couples samples: the number of one depends on the policy's outputs in "
                "another, so that there are no gradients of one sample; hand over what comes from "
                "other samples as constants, with TwoPassEstimator and its `group`"
            )


def _over_calls(parts: Sequence[Tensor], count: int) -> Float[Tensor, "N K size"]:
    """Tensors [N·K', size] of every batch of calls as one; laid out [K, N, size] when joined.

    That layout is a plain copy of a rollout's parts, and no slower to multiply.
    """
    rows = [part.reshape(count, -1, part.shape[-1]) for part in parts]
    if len(rows) == 1:
        return rows[0]
    return torch.cat([row.transpose(0, 1) for row in rows]).transpose(0, 1)


def vmapped(
    surrogate: Surrogate, problem: Problem, params: Params, noise: Noise, given: Any
) -> Dense:
    """`torch.func.vmap(torch.func.grad(surrogate))`: the reference."""
    one = _single(surrogate, problem)
    fixed = {name: value.detach() for name, value in params.items()}
    return Dense(torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))(fixed, noise, given))


def looped(
    surrogate: Surrogate, problem: Problem, params: Params, noise: Noise, given: Any
) -> Dense:
    """One ordinary backward pass per sample: the obvious twin of the other two."""
    one = _single(surrogate, problem)
    rows: list[dict[str, Tensor]] = []
    for i in range(noise.count):
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        row = Noise(*(part[i] for part in noise))
        mine = type(given)(*(g[i] for g in given)) if given else ()
        value = one(leaves, row, mine)
        if value.requires_grad:
            grads = torch.autograd.grad(
                value, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
        else:
            grads = [torch.zeros_like(leaf) for leaf in leaves.values()]
        rows.append(dict(zip(leaves, grads, strict=True)))
    return Dense({name: torch.stack([row[name] for row in rows]) for name in params})


def _single(surrogate: Surrogate, problem: Problem) -> Callable[[Params, Noise, Any], Tensor]:
    def one(params: Params, noise: Noise, given: Any) -> Tensor:
        value = surrogate(problem.bind(params), noise, given)
        if not isinstance(value, Tensor) or value.ndim:
            raise _bad_shape(1, value)
        return value

    return one


def _bad_shape(count: int, value: Any) -> BadShape:
    expected = (count,) if count > 1 else "one number"
    if not isinstance(value, Tensor):
        return BadShape(
            f"a surrogate should return one number per sample, {expected} here, got {got(value)}; "
            "is its `return` missing?"
        )
    came = tuple(value.shape)
    return BadShape(
        f"a surrogate should return one number per sample, {expected} here, got shape {came}; "
        "sum over time with .sum(-1), and never over samples"
    )


ENGINES = {"pullback": pullback, "vmap": vmapped, "loop": looped}
