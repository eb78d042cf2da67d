"""Brax's own ant as a simulator: the numbers are Brax's, and gradients those of its differences."""

from __future__ import annotations

import pytest
import torch

import gradlab
from gradlab.foundation.errors import UnknownName

jax = pytest.importorskip("jax", reason="the extra `peers` is not installed")
pytest.importorskip("brax", reason="the extra `peers` is not installed")
from gradlab.simulators import brax as module
from gradlab.simulators.brax import AntStep, brax_ant
from gradlab.simulators.jax import QUICK


def test_another_backend_is_not_known() -> None:
    with pytest.raises(UnknownName, match="unknown backend 'bullet'"):
        brax_ant("bullet")


@pytest.mark.slow  # XLA compiles for a minute
@pytest.mark.filterwarnings("ignore")  # Brax's and JAX's own
def test_the_step_is_braxs_and_its_gradient_that_of_differences() -> None:
    """Two steps of the environment from its own reset, and a directional derivative in flight,
    where nothing is in contact. Rounding in float32 lets differences see errors above some 2 %."""
    simulator = brax_ant("spring", block=4, options=QUICK)
    problem = gradlab.make("ant", preset="brax", height=None, simulator=simulator)
    environment = module._ant("spring").environment
    state = environment.reset(jax.random.PRNGKey(0))
    coordinates = [state.pipeline_state.q, state.pipeline_state.qd]
    ours = simulator.start(torch.cat([torch.from_dlpack(part) for part in coordinates]))
    action = torch.linspace(-0.9, 0.9, 8)
    for _ in range(2):
        state = jax.jit(environment.step)(state, action.numpy())
        ours = simulator.step(ours, action, ours[:0])
    observed = problem.task.observe(ours, ours[:0], torch.zeros(()))
    torch.testing.assert_close(observed, torch.from_dlpack(state.obs), rtol=1e-4, atol=1e-4)

    high = simulator.start(
        torch.cat([torch.tensor([0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0]), ours[7:29]])
    )
    push = action.clone().requires_grad_()
    (grad,) = torch.autograd.grad(simulator.step(high, push, high[:0])[15:29].sum(), push)
    way = torch.linspace(1, -0.5, 8)
    ends = [simulator.step(high, action + s * 0.02 * way, high[:0])[15:29].sum() for s in (1, -1)]
    assert float(grad @ way) == pytest.approx(float(ends[0] - ends[1]) / 0.04, rel=0.05)
    assert AntStep("spring") == AntStep("spring")
