"""What the identities of artefacts are taken from: names and values that outlive the classes."""

from __future__ import annotations

import dataclasses
import json

import pytest

import gradlab
from gradlab.critics.fitted import Fit
from gradlab.foundation.files import digest

POLICY = gradlab.GaussianPolicy(13, 4, hidden=(64, 32), input_gain=10.0)
# Changing one of these makes every committed policy and critic another's.
POLICY_SETTINGS = (
    '{"action_dim": 4, "activation": "elu", "bias": true, "head_gain": 0.1, "hidden": [64, 32], '
    '"initial_std": 0.3, "input_gain": 10.0, "kind": "gaussian perceptron", "log_std_range": [-5.0, 1.0], '
    '"observation_dim": 13, "squash": true, "std": "state"}'
)
FIT_SETTINGS = (
    '{"activation": "silu", "batch": 1024, "episodes": 20000, "exploration": 0.0, "held_out": 2048, '
    '"hidden": [128, 128], "kind": "q", "lam": 0.95, "learning_rate": 0.002, "method": "monte_carlo", '
    '"reduction": "min", "seed": 0, "steps": 4000, "tau": 0.01, "twin": false}'
)


@pytest.mark.parametrize("what, text", [(POLICY, POLICY_SETTINGS), (Fit(), FIT_SETTINGS)])
def test_settings_stay_what_they_are(what: gradlab.GaussianPolicy | Fit, text: str) -> None:
    assert json.dumps(what.settings(), sort_keys=True) == text


@pytest.mark.parametrize(
    "changes",
    [{"hidden": (64,)}, {"std": 0.3}, {"std": "global"}, {"squash": False}, {"bias": False},
     {"activation": "tanh"}, {"head_gain": 1.0}, {"log_std_range": (-4.0, 1.0)}],
)  # fmt: skip
def test_every_setting_counts(changes: dict[str, object]) -> None:
    other = dataclasses.replace(POLICY, **changes)  # type: ignore[arg-type]
    assert digest(other.settings()) != digest(POLICY.settings())
