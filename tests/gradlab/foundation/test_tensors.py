"""Constants take dtype and device from their operands, never from torch's defaults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import estimators as E
import gradlab
from gradlab.problems import flights, known_answers
from gradlab.problems.problem import Problem
from gradlab.simulators.articulated import Articulated, Compliant, Smoothed, from_string

SPHERE = """
<mujoco>
  <option timestep="0.001"/>
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <body pos="0 0 0"><freejoint/><geom type="sphere" size="0.1" mass="1"/></body>
  </worldbody>
</mujoco>
"""
RUNNERS = ("ant", "hopper", "walker2d", "half_cheetah", "humanoid")
CASES = [
    *((name, {}) for name in known_answers.PRESETS),
    *((name, {"horizon": 2}) for name in flights.FLIGHTS),
    *(("ant", {"horizon": 1, "contact": contact}) for contact in ("compliant", "smoothed", "brax")),
    *((name, {"horizon": 1, "contact": "convex"}) for name in RUNNERS),
]
IDS = ["-".join(str(word) for word in (name, *options.values())) for name, options in CASES]
from tests.helpers.forked import run_code


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Only(TorchDispatchMode):
    """Fails at the first operation that gives floating-point numbers of another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # few operations have several results, and looking through a tree takes longer than most
        for x in (out,) if isinstance(out, Tensor) else tree_leaves(out):
            if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != self.dtype:
                raise AssertionError(f"{func} gives {x.dtype} inside a {self.dtype} problem")
        return out


def numbers(problem: Problem) -> list[Tensor]:
    """Per-sample gradients of two hard and two relaxed estimators; of one each on slow runners."""
    generator = torch.Generator().manual_seed(0)
    params = problem.init(generator)
    noise = problem.draw(2, torch.Generator().manual_seed(1))
    cases = [
        (problem.relaxed(0.1), E.FOG()),
        (problem, E.PG()),
        (problem, E.FOG()),
        (problem.relaxed(0.1), E.PG()),
    ]
    return [
        value
        for case, estimator in cases[: 2 if isinstance(problem.simulator, Articulated) else None]
        for value in estimator(case, params, noise).per_sample().values()
    ]


@pytest.mark.parametrize("law", [Compliant, Smoothed])
def test_friction_of_a_law_in_double_precision(law: type) -> None:
    """A sphere of 1 kg, 5 mm deep, slides at 1 m/s: it brakes with μ k c = 4.5623423485 m/s²."""
    base = Compliant(
        stiffness=1234.567, damping=0.0, friction_damping=30.0, friction=0.7391,
        limit_stiffness=0.0, limit_damping=0.0,
    )  # fmt: skip
    # so narrow that the smoothed law is the law itself to 1e-14 at this depth and speed
    chosen = base if law is Compliant else Smoothed(1e-5, 1e-9, base)
    simulator = Articulated(from_string(SPHERE), chosen, "explicit_damping", dt=1e-3, substeps=1)
    qpos = torch.tensor([0, 0, 0.095, 1, 0, 0, 0], dtype=torch.float64)
    qvel = torch.tensor([1, 0, 0, 0, 0, 0], dtype=torch.float64)
    rate = simulator.acceleration(qpos, qvel, torch.zeros(6, dtype=torch.float64))
    expected = 0.7391 * 1234.567 * 0.005
    assert abs(expected - 4.5623423485) < 1e-10
    assert abs(float(-rate[0]) - expected) < 1e-13


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_no_number_of_another_dtype_appears(name: str, options: dict[str, Any]) -> None:
    """Whatever a float64 problem computes, from the first draw on, is float64."""
    with Only(torch.float64):
        numbers(gradlab.make(name, dtype=torch.float64, **options))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_the_default_dtype_changes_nothing(name: str, options: dict[str, Any]) -> None:
    """A float32 problem gives the same numbers under both, to the last bit."""
    found = []
    for default in (torch.float32, torch.float64):
        with default_dtype(default):
            found.append(numbers(gradlab.make(name, dtype=torch.float32, **options)))
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)


KEYED = """
from dataclasses import dataclass
import torch
from gradlab.foundation.tensors import Key, constants_of, plain

@dataclass(frozen=True)
class Spring(Key):
    stiffness: float

@dataclass(frozen=True)
class Mover:
    spring: Spring

    def step(self, x):
        (k,) = tables(self.spring, 2.0, like=x)
        return k * x + stiff(self.spring)

@constants_of
def tables(spring, factor):
    return (torch.tensor([factor * spring.stiffness], dtype=torch.float64),)

@plain
def stiff(spring):
    return spring.stiffness > 10

x = torch.ones(3, dtype=torch.float64)
for stiffness in (1.0, 20.0, 3.0, 20.0):
    mover = Mover(Spring(stiffness))
    traced = torch.compile(mover.step, backend="eager", fullgraph=True, dynamic=False)
    for _ in range(2):
        assert traced(x).tolist() == mover.step(x).tolist() == [2 * stiffness + (stiffness > 10)] * 3
print("same")
"""


def test_compiled_code_keeps_the_tables_of_its_own_object() -> None:
    """Same code, another description: another table.

    Apart, since checked annotations cannot be traced.
    """
    done = run_code(KEYED)
    assert done.stdout.strip() == "same", done.stderr[-2000:]
