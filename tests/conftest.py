"""What every test runs under: one torch thread, checked shapes, and no global torch state left
behind."""

from __future__ import annotations

import gc
import os

# Before torch and numpy are imported: BLAS reads these once. Subprocesses of tests inherit them.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["MPLBACKEND"] = "Agg"
# Torch's compiler would start a pool of processes, each with its own torch, for a few files.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import tests.helpers.checking

# Shape annotations are checked in tests only; users pay nothing for them.
tests.helpers.checking.install(["gradlab", "estimators", "studies"])

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What was imported stays: nothing is won by looking through it for garbage again and again."""
    gc.collect()
    gc.freeze()


def _global_state() -> dict[str, object]:
    """Everything in torch that one test could change for the next."""
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "random number generator": torch.get_rng_state().numpy().tobytes(),
        "grad mode": torch.is_grad_enabled(),
        "number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
    }


def _restore(state: dict[str, object], rng: torch.Tensor) -> None:
    torch.set_default_dtype(state["default dtype"])
    torch.set_default_device(None)
    torch.set_rng_state(rng)
    torch.set_grad_enabled(state["grad mode"])
    torch.set_num_threads(state["number of threads"])
    torch.use_deterministic_algorithms(state["deterministic algorithms"])
    torch.autograd.set_detect_anomaly(state["anomaly mode"])


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fails a test that leaves global torch state other than it found it, and puts the state
    back."""
    before, rng = _global_state(), torch.get_rng_state()
    yield
    after = _global_state()
    leaked = [name for name in before if before[name] != after[name]]
    if leaked:
        _restore(before, rng)
        pytest.fail(f"the test leaked global torch state: {', '.join(leaked)}")


@pytest.fixture(autouse=True)
def unchecked_repetition(request: pytest.FixtureRequest) -> Iterator[None]:
    """Statistical tests make the same calls over and over: all others check the annotations."""
    tests.helpers.checking.begin()
    if request.node.get_closest_marker("statistical") is None:
        yield
        return
    with tests.helpers.checking.off():
        yield
