"""The orthogonal start of a perceptron: gains of the layers, and a law without a direction."""

from __future__ import annotations

import math

import torch

import gradlab


def test_layers_start_orthogonal_with_their_gains() -> None:
    policy = gradlab.GaussianPolicy(5, 3, hidden=(8, 8), orthogonal=True, head_gain=0.01)
    params = policy.init(torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    gains = {"layers.0": math.sqrt(2), "layers.1": math.sqrt(2), "layers.2": 0.01}
    for name, gain in gains.items():
        weight = params[f"{name}.weight"] / gain
        short = weight if weight.shape[0] <= weight.shape[1] else weight.mT
        eye = torch.eye(len(short), dtype=torch.float64)
        torch.testing.assert_close(short @ short.mT, eye, rtol=0, atol=1e-12)
        assert not params[f"{name}.bias"].any()


def test_the_start_prefers_no_sign() -> None:
    """The mean of an entry over many starts is 0 (without the signs of R it is far from that)."""
    policy = gradlab.GaussianPolicy(2, 1, hidden=(2,), orthogonal=True)
    draws = torch.Generator().manual_seed(0)
    first = [
        policy.init(draws, dtype=torch.float64, device="cpu")["layers.0.weight"] for _ in range(400)
    ]
    mean = torch.stack(first).mean(0) / math.sqrt(2)
    assert float(mean.abs().max()) < 5 * math.sqrt(0.5 / 400)


def test_settings_name_it_where_it_is_on() -> None:
    plain, orthogonal = gradlab.GaussianPolicy(2, 1), gradlab.GaussianPolicy(2, 1, orthogonal=True)
    assert "orthogonal" not in plain.settings() and orthogonal.settings()["orthogonal"]
