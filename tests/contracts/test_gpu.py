"""The same numbers on a GPU, where there is one (`pytest -m gpu`)."""

from __future__ import annotations

import pytest
import torch

import estimators as E
import gradlab

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ESTIMATORS = [E.FOG(), E.PG(), E.PG(baseline="loo", group_size=16), E.Split(0.1), E.RelaxedFOG(0.1),
              E.EvolutionStrategies(), E.Mixture((E.FOG(), E.PG()), E.InverseVariance(), source=E.Cross(16))]  # fmt: skip


@pytest.mark.parametrize("name", ["hovering", "tracking", "landing", "racing", "lq"])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.label)
def test_same_gradients_on_cpu_and_gpu(name: str, estimator: E.Estimator) -> None:
    """Noise is drawn on the CPU, so float64 gradients differ by rounding alone."""
    means = []
    for device in ("cpu", "cuda"):
        problem = gradlab.make(name, horizon=8, dtype=torch.float64, device=device)
        generator = torch.Generator().manual_seed(0)
        params = problem.init(generator)
        noise = problem.draw(32, torch.Generator().manual_seed(1))
        samples = estimator(problem, params, noise)
        assert samples.moments().count == 32 // estimator.group
        means.append({name: value.cpu() for name, value in samples.mean().items()})
    for leaf, value in means[0].items():
        assert (value - means[1][leaf]).abs().max() <= 1e-9 * value.abs().max()


# torch advises TensorFloat32, whose products have three digits: not for gradients that are compared
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")
def test_compiled_step_on_gpu() -> None:
    problem = gradlab.make("hovering", horizon=8, device="cuda")
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(32, torch.Generator().manual_seed(1))
    eager = E.FOG()(problem, params, noise).mean()
    compiled = E.FOG()(problem.replace(compile=True), params, noise).mean()
    for leaf, value in eager.items():  # float32, T = 8 steps
        assert (value - compiled[leaf]).abs().max() <= 1e-4 * value.abs().max()
