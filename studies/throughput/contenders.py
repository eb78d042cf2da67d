"""Who races in `studies.throughput`: engines, twins in other frameworks, MuJoCo's own step."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from estimators.pathwise import FOG
from gradlab.foundation.errors import BadValue, Unavailable
from gradlab.foundation.noise import Noise
from gradlab.gradients import captured
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from gradlab.statistics.accumulating import Accumulator
from gradlab.statistics.moments import Moments
from studies.throughput.limit import Limit
from studies.throughput.mujoco_step import mujoco_steps

Params = dict[str, Tensor]
Call = Callable[[], object]  # does the work, and returns once it is done


def batched(problem: Problem, params: Params, noise: Noise) -> dict[str, Tensor]:
    """The yardstick: one ordinary backward pass of the mean, as in a training step."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    value = FOG().surrogate(problem, problem.bind(leaves), noise).mean()
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


def _torch_call(
    engine: str,
    compiled: bool | str,
    problem: Problem,
    params: Params,
    noise: Noise,
    checkpoint: bool = False,
) -> Call:
    problem = problem.replace(compile=compiled, checkpoint=checkpoint)

    def work() -> object:
        if engine == "batched":
            result: object = batched(problem, params, noise)
        elif engine == "moments":
            result = statistics(problem, params, noise)
        else:
            result = FOG(engine=engine)(problem, params, noise).per_sample()  # type: ignore[arg-type]
        if noise.initial.is_cuda:
            torch.cuda.synchronize()
        return result

    return work


def statistics(problem: Problem, params: Params, noise: Noise) -> Moments:
    """What `compare` needs of FOG, in one graph where the problem asks for that."""
    if problem.compile != "graph":
        return FOG()(problem, params, noise).moments()
    chunk = captured.summed(FOG(), problem, params, noise, 0, None)
    if chunk is None:
        raise BadValue("samples that are not finite were captured; try another seed")
    total = Accumulator()
    total.add(chunk)
    return Moments(**total.sums())


def _forward_call(compiled: bool, problem: Problem, params: Params, noise: Noise) -> Call:
    problem = problem.replace(compile=compiled)
    policy = problem.bind(params)

    def work() -> object:
        with torch.no_grad():
            result = evaluate(problem, rollout(problem, policy, noise))
        if noise.initial.is_cuda:
            torch.cuda.synchronize()
        return result

    return work


def _brax_call(
    kind: str, backend: str, unroll: int, problem: Problem, params: Params, noise: Noise
) -> Call:
    if problem.task.name != "ant":
        raise Unavailable("Brax races its ant against ants")
    _jax_on("brax", problem.device)
    from studies.throughput.peers import brax_ant

    build = brax_ant.per_sample if kind == "gradient" else brax_ant.forward
    assert isinstance(problem.policy, GaussianPolicy)  # as `build` makes it
    return build(backend, noise.count, problem.horizon, problem.policy.hidden, unroll)


def _jax_call(unroll: int | None, problem: Problem, params: Params, noise: Noise) -> Call:
    jax = _jax_on("jax", problem.device)
    from studies.throughput.peers import jax_quadrotor

    twin = jax_quadrotor.per_sample(problem, unroll or problem.horizon)
    arguments = jax_quadrotor.arrays(params, noise)
    return lambda: jax.block_until_ready(twin(*arguments))


def _jax_on(package: str, place: torch.device | str) -> Any:
    """jax, set to this kind of device. Raises `Unavailable` where it has none."""
    if importlib.util.find_spec(package) is None:
        raise Unavailable(f"{package} is not installed; install the extra `peers`")
    import jax  # pyright: ignore[reportMissingImports]

    kind = torch.device(place).type
    try:
        device = jax.devices("gpu" if kind == "cuda" else kind)[0]
    except RuntimeError:
        raise Unavailable("jax finds no GPU; install jax[cuda12] or jax[cuda13]") from None
    jax.config.update("jax_default_device", device)
    if kind == "cuda":  # as torch: products of float32 are TensorFloat32 there, of three digits
        jax.config.update("jax_default_matmul_precision", "highest")
    return jax


# name: (problem, params, noise) -> call; may raise `Unavailable` or `BadValue`
CONTENDERS: Mapping[str, Callable[[Problem, Params, Noise], Call]] = {
    "batched": lambda *setting: _torch_call("batched", False, *setting),
    "batched_compiled": lambda *setting: _torch_call("batched", True, *setting),
    "pullback": lambda *setting: _torch_call("pullback", False, *setting),
    "pullback_compiled": lambda *setting: _torch_call("pullback", True, *setting),
    "pullback_checkpoint": lambda *setting: _torch_call(
        "pullback", False, *setting, checkpoint=True
    ),
    "pullback_compiled_checkpoint": lambda *setting: _torch_call(
        "pullback", True, *setting, checkpoint=True
    ),
    "moments": lambda *setting: _torch_call("moments", False, *setting),
    "moments_compiled": lambda *setting: _torch_call("moments", True, *setting),
    "pullback_graph": lambda *setting: _torch_call("pullback", "graph", *setting),
    "moments_graph": lambda *setting: _torch_call("moments", "graph", *setting),
    "vmap": lambda *setting: _torch_call("vmap", False, *setting),
    "jax": lambda *setting: _jax_call(1, *setting),
    "jax_unrolled_8": lambda *setting: _jax_call(8, *setting),
    "jax_unrolled": lambda *setting: _jax_call(None, *setting),
    "brax_generalized": lambda *setting: _brax_call("gradient", "generalized", 1, *setting),
    "brax_generalized_unrolled_8": lambda *setting: _brax_call(
        "gradient", "generalized", 8, *setting
    ),
    "brax_spring": lambda *setting: _brax_call("gradient", "spring", 1, *setting),
    "limit": Limit,
    "mujoco": mujoco_steps,
    "forward": lambda *setting: _forward_call(False, *setting),
    "forward_compiled": lambda *setting: _forward_call(True, *setting),
    "brax_generalized_forward": lambda *setting: _brax_call("forward", "generalized", 1, *setting),
    "brax_spring_forward": lambda *setting: _brax_call("forward", "spring", 1, *setting),
}
