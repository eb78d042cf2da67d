"""Statistics without [N, P]: the dense twin, tiles, what is lost, and the size of every tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import estimators as E
import gradlab
from estimators.base import Estimator
from gradlab.foundation.memo import Memo
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.policies.composed import NetworkPolicy
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.policies.policy import Policy
from gradlab.problems.problem import Problem
from gradlab.statistics import Moments
from gradlab.statistics.rows import tiles
from tests.helpers.dense_moments import DenseMoments
from tests.helpers.toy import toy_params, toy_problem

Params = dict[str, Tensor]

# float64 sums of some hundred numbers; float32 products of tens of calls, each rounded by itself
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6}


@dataclass(frozen=True)
class Waves:
    """A network whose layers nobody knows: mean = sin(o W) v."""

    carry_dim: int = 0

    def init(self, generator: torch.Generator, *, dtype: torch.dtype, device: Any) -> Params:
        shapes = {"w": (3, 7), "v": (7, 1)}
        drawn = {n: torch.randn(s, generator=generator) for n, s in shapes.items()}
        return {name: value.to(dtype=dtype, device=device) for name, value in drawn.items()}

    def buffers(self, *, dtype: torch.dtype, device: Any) -> Params:
        return {}

    def apply(
        self, params: Params, buffers: Params, obs: Tensor, carry: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        return torch.sin(obs @ params["w"]) @ params["v"], carry


def perceptron(std: Any = "state", hidden: tuple[int, ...] = (16,), **more: Any) -> Policy:
    return GaussianPolicy(3, 1, hidden=hidden, std=std, head_gain=1.0, **more)


SETTINGS: dict[str, tuple[Estimator, Policy]] = {
    "FOG": (E.FOG(), perceptron(hidden=(64, 32))),
    "PG, log std of its own": (E.PG(), perceptron("global")),
    "groups": (E.PG(baseline="loo", group_size=4), perceptron()),
    "a sum": (E.FOG() + 0.5 * E.PG(), perceptron(0.3)),
    "a difference": (E.RelaxedFOG(0.2) - E.RelaxedFOG(0.2002), perceptron()),
    "dense": (E.EvolutionStrategies(), perceptron()),
    "no hidden layer": (E.FOG(), perceptron(hidden=())),
    "no bias": (E.FOG(), perceptron(bias=False)),
    "layers of another kind": (E.FOG(), NetworkPolicy(Waves(), 3, 1)),
}


def drawn(name: str, dtype: torch.dtype, count: int) -> GradientSamples:
    estimator, policy = SETTINGS[name]
    problem = toy_problem(dtype=dtype).replace(policy=policy)
    noise = problem.draw(count, torch.Generator().manual_seed(1))
    return estimator(problem, toy_params(problem), noise)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("name", SETTINGS)
def test_against_the_dense_twin(name: str, dtype: torch.dtype) -> None:
    samples = drawn(name, dtype, 200)
    rows = samples.per_sample()
    for chunk in (None, 60):
        found = samples.moments(chunk, start=36, per_parameter=True)
        DenseMoments.of(rows, 36, samples.group).check(found, TOLERANCES[dtype])
    found = samples.moments(pilot=found.pilot)
    DenseMoments.of(rows, 0, samples.group).check(found, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
def test_digits_survive_a_signal_far_above_the_noise(dtype: torch.dtype) -> None:
    """‖g‖² − 2⟨g, c⟩ + ‖c‖² would lose 2·log10(1e4) digits of seven."""
    samples = drawn("FOG", dtype, 192)
    assert isinstance(samples, Factored)
    one = samples.rows(0, 1)
    wiggle = 1 + 1e-4 * torch.randn(192, generator=torch.Generator().manual_seed(0)).to(dtype)
    count = torch.arange(192)
    near = (
        replace(samples, obs=one.obs[0 * count], cotangent=one.cotangent[0 * count], known=None)
        * wiggle
    )
    found = near.moments(per_parameter=True)
    length = sum(float(x.square().sum()) for x in found.mean.values())
    assert 0 < found.variance() < 2e-8 * length
    DenseMoments.of(near.per_sample()).check(found, TOLERANCES[dtype])


def test_tiles_are_every_sample_once() -> None:
    for count, most, blocks in (
        (1, 5, 64),
        (200, 87, 64),
        (77, 2, 64),
        (640, 1, 10),
        (300, 65, 1),
        (5, 1, 2),
    ):
        seen = torch.zeros(count, dtype=torch.int64)
        for rows, step in tiles(count, most, blocks):
            seen[rows] += 1
            assert blocks % step == 0 and (step == 1 or step % 2 == 0)
        assert bool((seen == 1).all())


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation gives."""

    size: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() // x.element_size()
                 for x in tree_leaves(out) if isinstance(x, Tensor)]  # fmt: skip
        self.size = max(self.size, *sizes, 0)
        return out


def test_no_tensor_has_a_number_for_every_sample_and_parameter() -> None:
    """Neither for one estimator nor for several, with everything that `compare` needs."""
    problem = toy_problem(dtype=torch.float32)
    problem = problem.replace(policy=perceptron(hidden=(128, 128)))
    params, count = toy_params(problem), 256
    layer = 128 * 128
    several = [E.FOG(), E.PG(), E.FOG() - E.PG()]
    with Largest() as seen:
        measured = gradlab.measure(several, problem, params, 512, seed=0, chunk_size=count)
        gradlab.compare(measured["FOG"], gradlab.OracleGradient.exact(measured["PG"].mean, "PG"))
    factors = 2 * count * problem.horizon * 128  # of the difference: two calls a step
    assert seen.size <= max(64 * layer, factors, 130 * layer)
    assert 130 * layer < count * layer
    with Largest() as seen:
        E.FOG()(problem, params, problem.draw(count, torch.Generator())).per_sample()
    assert seen.size == count * layer  # the mode would have seen it


@dataclass(frozen=True)
class Broken(E.FOG):
    """FOG with some cotangents of some samples replaced."""

    change: Callable[[Tensor], None] = lambda cotangent: None

    def sample(
        self, problem: Problem, params: dict[str, Tensor], noise: Noise, memo: Memo | None
    ) -> GradientSamples:
        samples = super().sample(problem, params, noise, memo)
        assert isinstance(samples, Factored)
        cotangent = samples.cotangent.clone()
        self.change(cotangent)
        return samples.with_cotangent(cotangent)


def _nan(cotangent: Tensor) -> None:
    cotangent[3, 0] = torch.nan


def _infinite(cotangent: Tensor) -> None:
    cotangent[5] = torch.inf


def _overflowing(cotangent: Tensor) -> None:
    """Finite cotangents whose products with inputs are not."""
    cotangent[7] = torch.finfo(cotangent.dtype).max


def _huge(cotangent: Tensor) -> None:
    """Gradients whose squares overflow in float32 and not in float64."""
    cotangent[9] *= 1e25


@pytest.mark.parametrize("change", [_nan, _infinite, _overflowing, _huge])
def test_what_is_lost(change: Callable[[Tensor], None]) -> None:
    problem = toy_problem(dtype=torch.float32)
    params = toy_params(problem)
    noise = problem.draw(130, torch.Generator().manual_seed(1))
    samples = Broken(change=change)(problem, params, noise)
    twin = DenseMoments.of(samples.per_sample())
    assert twin.lost == (change is not _huge)
    twin.check(samples.moments(per_parameter=True), 1e-6)
    measured = gradlab.measure(
        {"broken": Broken(change=change), "whole": E.FOG()}, problem, params, 130, seed=1,
        chunk_size=130,
    )  # fmt: skip
    assert measured.lost == {"broken": twin.lost, "whole": 0}
    assert measured["whole"].nonfinite == measured["broken"].nonfinite == twin.lost


def test_a_stream_is_its_chunks_in_any_order() -> None:
    """Accumulated in place or merged, and resumed about the first pilot."""
    samples = drawn("FOG", torch.float64, 192)
    whole = samples.moments(64)
    pieces = [
        samples.rows(begin, begin + 64).moments(start=begin, pilot=whole.pilot)
        for begin in (0, 64, 128)
    ]
    a, b, c = pieces
    for other in (a.merge(b).merge(c), c.merge(a.merge(b)), samples.moments(50, 0, whole.pilot)):
        assert torch.equal(other.block_count, whole.block_count)
        for field in ("block_sum", "norm_mean", "norm_m2", "norm_m3", "norm_m4"):
            for name, value in getattr(whole, field).items():
                torch.testing.assert_close(
                    getattr(other, field)[name], value, rtol=1e-11, atol=1e-13, msg=field
                )
        assert other.variance() == pytest.approx(whole.variance(), rel=1e-12)


def test_moments_of_rows_and_of_layers_are_the_same() -> None:
    samples = drawn("FOG", torch.float64, 100)
    DenseMoments.of(samples.per_sample()).check(Moments.of(samples.per_sample()), 1e-12)
    DenseMoments.of(samples.per_sample()).check(samples.moments(), 1e-12)
