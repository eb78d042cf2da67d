"""`gradlab.report`: the comparison of estimators on a problem of one's own, as a function."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import estimators as E
import gradlab
from gradlab.commands import comparison
from gradlab.foundation.errors import BadValue, Missing
from gradlab.simulators import PointMass
from gradlab.study import figures
from tests.helpers.toy import toy_params, toy_problem

THREE = [E.FOG(), E.PG(), E.Split(0.1)]


def test_a_report_is_the_measurement_against_the_formula(tmp_path: Path) -> None:
    problem = gradlab.make("gate", dtype=torch.float64)
    found = gradlab.report(problem, problem.reference, THREE, count=300, seed=7, progress=False)
    measured = gradlab.measure(THREE, problem, problem.reference, 300, 7)
    expected = measured.compare(gradlab.oracle.ClosedForm()(problem, problem.reference), batch=100)
    assert found.reports == expected
    table = found.to_frame().query("part == 'all'").set_index("estimator")
    for name, report in expected.items():
        assert table["cosine_low"][name] == report.overall.cosine.low
        assert f"\n{name} " in str(found)
    text = " ".join(str(found).split())
    assert "300 episodes" in text and "closed form, exact; the policy given; float64" in text
    assert len(repr(found)) < 400 and found._repr_html_().startswith("<pre>Question:")
    found.figure(tmp_path / "gate.png")
    assert {path.name for path in tmp_path.iterdir()} == {"gate.png", "gate.svg"}


def test_intervals_are_drawn_where_they_are() -> None:
    problem = gradlab.make("gate", dtype=torch.float64)
    found = gradlab.report(problem, problem.reference, THREE, count=300, progress=False)
    panels = found.figure().get_axes()
    assert [panel.get_title(loc="left") for panel in panels] == ["a", "b", "c"]
    for panel, quantity in zip(panels[:2], ("cosine", "relative_bias"), strict=True):
        drawn = [line for line in panel.get_lines() if len(line.get_xdata()) == 2]
        spans = {tuple(line.get_xdata()) for line in drawn if line.get_color() != "#555555"}
        assert spans == {tuple(getattr(r.overall, quantity)[1:]) for r in found.reports.values()}
    assert [label.get_text() for label in panels[0].get_yticklabels()] == list(found.reports)


def test_a_truth_may_be_given_or_is_sampled() -> None:
    problem = toy_problem()
    params = toy_params(problem)
    truth = gradlab.oracle.LargeSample(E.PG(), 0, max_count=2000)(problem, params)
    options = {"count": 200, "progress": False}
    given = gradlab.report(problem, params, {"mine": E.FOG()}, truth, **options)
    assert given.truth is truth and list(given.reports) == ["mine"]
    sampled = gradlab.report(problem, params, E.FOG(), stderr=0.5, most=2000, **options)
    assert sampled.truth.name.startswith("Split(0.1) x ")
    assert "all rows share its error" in " ".join(str(sampled).split())


def test_what_cannot_be_compared_is_one_line() -> None:
    problem = gradlab.make("gate")
    for error, words, change in (
        (Missing, "needs a Q critic", {"estimators": [E.QG()]}),
        (BadValue, "count", {"count": 0}),
        (BadValue, "batch", {"batch": 0}),
    ):
        given = {"estimators": [E.FOG()], "progress": False, **change}
        with pytest.raises(error, match=words) as caught:
            gradlab.report(problem, problem.reference, **given)
        assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Loose(PointMass):
    """A simulator that has not converged where the action is positive."""

    def residual(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return action[..., 0].clamp(min=0)


def test_rounding_and_contact_are_looked_at() -> None:
    hopper = gradlab.make("hopper", preset="gymnasium", contact="convex", horizon=3)
    params = hopper.init(torch.Generator().manual_seed(0))
    said = comparison.spot_checks(hopper, params, {"fog": E.FOG()}, 0)
    assert "Of 16 gradients of fog, 0% are off by rounding" in said
    assert "Contact has not converged to 1e-06 in 0 of 48 steps." in said
    gate = gradlab.make("gate", dtype=torch.float64)
    assert comparison.spot_checks(gate, gate.reference, {"fog": E.FOG()}, 0) == ""
    settings = {f.name: getattr(gate.simulator, f.name) for f in dataclasses.fields(gate.simulator)}
    loose = gate.replace(simulator=Loose(**settings))
    noise = next(iter(gradlab.noise_stream(gate, 16, 3)))
    path = gradlab.rollout(gate, gate.bind(gate.reference), noise)
    off = int((path.action[..., 0] > 1e-6).sum())
    said = comparison.spot_checks(loose, gate.reference, {"fog": E.FOG()}, 3)
    assert 0 < off < path.action[..., 0].numel()
    assert said == f" Contact has not converged to 1e-06 in {off} of {16 * gate.horizon} steps."


def test_groups_stay_whole() -> None:
    problem = gradlab.make("gate")
    pair = [E.FOG(), E.PG(baseline="loo", group_size=8)]
    found = gradlab.report(problem, problem.reference, pair, count=201, batch=5, progress=False)
    assert {row.overall.count for row in found.reports.values()} == {208}
    assert {row.batch for row in found.reports.values()} == {8}
    assert all(math.isfinite(row.overall.mse.estimate) for row in found.reports.values())


@pytest.mark.parametrize("estimator", [E.make(name) for name in E.names()], ids=E.names())
def test_a_label_has_the_colour_of_its_name(estimator: E.Estimator) -> None:
    name = next(n for n in E.names() if E.make(n) == estimator)
    assert figures.look(estimator.label) == figures.look(name)
