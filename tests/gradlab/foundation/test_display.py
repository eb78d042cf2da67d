"""What shows itself fits a line, and a small table in a notebook."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch

import estimators as E
import gradlab


def shown() -> dict[str, tuple[object, tuple[str, ...]]]:
    problem = gradlab.make("hovering", horizon=4)
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(256, torch.Generator().manual_seed(1))
    samples = E.FOG()(problem, params, noise)
    moments = samples.moments()
    return {
        "problem": (problem, ("hovering", "Quadrotor", "13-64-64-4", "4 steps", "0.99", "float32")),
        "ant": (gradlab.make("ant").relaxed(0.1), ("Articulated", "27-256-128-64-8", "Sigmoid")),
        "factored": (samples, ("256", "policy calls each: 4", "5,576 in 6 tensors")),
        "dense": (E.FOG(engine="vmap")(problem, params, noise), ("Dense", "256", "5,576")),
        "moments": (moments, ("256", "not finite: 0", "5,576 in 6")),
        "truth": (gradlab.OracleGradient.sampled(moments, "FOG"), ("FOG", "standard error")),
        "noise": (noise, ("[256, 4, 4]", "float32")),
    }


@pytest.mark.parametrize(
    "name", ["problem", "ant", "factored", "dense", "moments", "truth", "noise"]
)
def test_a_repr_is_one_line(name: str) -> None:
    thing, words = shown()[name]
    text = repr(thing)
    assert "\n" not in text and len(text) <= 300, text
    assert not [word for word in words if word not in text], text
    if name != "noise":
        table = ElementTree.fromstring(thing._repr_html_())  # type: ignore[attr-defined]
        assert table.tag == "table" and len(table.findall("tr")) >= 4


def test_html_is_escaped() -> None:
    truth = gradlab.OracleGradient.exact({"w": torch.ones(2)}, "<script>")
    assert "<script>" not in truth._repr_html_()
