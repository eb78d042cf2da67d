"""`gradlab.report`: the comparison of estimators on a problem of one's own, as a function."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import estimators as E
import gradlab
from gradlab.commands import compare, comparison, pictures
from gradlab.foundation.errors import BadValue, Missing
from gradlab.simulators import PointMass
from gradlab.statistics import Interval, Moments, Report
from gradlab.statistics.parts import ALL
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


def test_it_says_by_which_statistics_observations_are_standardised() -> None:
    plain = toy_problem()
    standardising = plain.replace(policy=gradlab.GaussianPolicy(normalise=True))
    told = []
    for problem in (plain, standardising):
        params = problem.init(torch.Generator().manual_seed(0))
        found = gradlab.report(problem, params, E.FOG(), count=20, most=200, progress=False)
        told.append(found.answer.rests_on)
    assert "standardised" not in told[0]
    assert "the policy given, observations standardised by the first statistics, mean 0" in told[1]


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


def test_the_place_and_the_keyframe_of_a_file_are_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def make(name: str, **options: object) -> None:
        asked.append((name, options))
        raise BadValue("enough")

    monkeypatch.setattr(compare.registry, "make", make)
    for words in ("", "--place hand --keyframe home", "--keyframe 1 --task reach"):
        with pytest.raises(BadValue, match="enough"):
            compare.run(["robot.xml", *words.split()])
    assert asked == [
        ("robot.xml", {"task": None}),
        ("robot.xml", {"task": None, "place": "hand", "keyframe": "home"}),
        ("robot.xml", {"task": "reach", "keyframe": 1}),
    ]


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


def reports(**rows: tuple[Interval, bool]) -> dict[str, Report]:
    """Reports of which only the error and whether tails are heavy is of interest."""
    ones = {"w": torch.ones(3, dtype=torch.float64)}
    samples = torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = gradlab.compare(Moments.of({"w": 1 + samples}), gradlab.OracleGradient.exact(ones, "1"))
    one = plain.overall.truth_norm**2
    return {
        name: dataclasses.replace(
            plain,
            rows={
                ALL: dataclasses.replace(
                    plain.overall, mse=Interval(*(x * one for x in mse)), heavy_tails=heavy
                )
            },
        )
        for name, (mse, heavy) in rows.items()
    }


def test_a_winner_is_named_where_there_is_one() -> None:
    low, high, wide = Interval(0.1, 0.09, 0.11), Interval(1.0, 0.9, 1.1), Interval(0.05, 0.02, 9e5)
    said = comparison.headline(reports(fog=(high, False), split=(low, False)))
    assert said.startswith("split has the least error, MSE/‖∇J‖² 0.100 [0.090, 0.110]; the cosine")
    said = comparison.headline(
        reports(fog=(high, False), pg=(Interval(1.05, 0.9, 1.2), True), split=(wide, False))
    )
    assert said.startswith(
        "cannot be decided between split, fog and pg: MSE/‖∇J‖² of split 0.050 [0.020, not known]"
    )
    # what overlaps is named alone
    said = comparison.headline(
        reports(fog=(high, False), pg=(low, False), split=(Interval(0.1, 0.08, 0.12), False))
    )
    assert said.startswith("cannot be decided between pg and split: ")
    # an upper end that tails have made too low decides nothing; a lower end does
    said = comparison.headline(reports(fog=(high, False), split=(low, True)))
    assert said.startswith("cannot be decided between split and fog: ")
    said = comparison.headline(reports(fog=(high, True), split=(low, False)))
    assert said.startswith("split has the least error")
    # alone, nothing is least
    assert comparison.headline(reports(fog=(high, True))).startswith("fog has MSE")


@pytest.mark.parametrize(("gate", "words"), [(1e9, "never"), (2.6, "few"), (0.5, "often")])
def test_events_are_counted_in_the_episodes_that_are_measured(gate: float, words: str) -> None:
    """By a loop over the last states."""
    problem = gradlab.make("terminal_gate", dtype=torch.float64)
    problem = problem.replace(task=dataclasses.replace(problem.task, gate=gate))
    params = problem.reference
    measured = gradlab.measure(E.FOG(), problem, params, 500, 3)
    noise = next(iter(gradlab.noise_stream(problem, 500, 3)))
    with torch.no_grad():
        path = gradlab.rollout(problem, problem.bind(params), noise)
    hits = sum(float(last) > gate for last in path.state[:, -1, 0])
    relaxed = problem.relaxed(0.1)
    for same in (problem, relaxed):
        said = comparison.event_sentences(same, params, measured, 3)
        if words == "never":
            assert hits == 0 and " arrived never happened in 500 episodes: FOG," in said
        else:
            assert f" arrived happened in {hits} of 500 episodes" in said
            assert ("few samples decide" in said) == (words == "few") == (0 < hits < 20)
    assert "first" not in said


def test_of_many_episodes_the_first_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "COUNTED", 40)
    problem = gradlab.make("gate", dtype=torch.float64)
    found = gradlab.report(problem, problem.reference, E.FOG(), count=50, progress=False)
    text = " ".join(str(found).split())
    assert "50 episodes, the same for all" in text
    assert "In the first 40 of these episodes: passed happened in " in text and "of 40 ep" in text
    still = gradlab.make("quadratic", dtype=torch.float64)
    measured = gradlab.measure(E.FOG(), still, still.reference, 20, 0)
    assert comparison.event_sentences(still, still.reference, measured, 0) == ""


@pytest.mark.parametrize("reach", [1.02, 1.5, 4.0, 9.0])
def test_labels_of_a_short_log_axis_stand_apart(reach: float) -> None:
    """At most three, and no two overprint each other."""
    one = reports(fog=(Interval(0.1, 0.1, 0.1 * reach), False))
    truth = gradlab.OracleGradient.exact({"w": torch.ones(3, dtype=torch.float64)}, "1")
    figure = pictures.drawn(one, "gate", truth, "a title")
    figure.draw_without_rendering()
    axes = figure.get_axes()[2]
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    ticks = axes.xaxis.get_major_ticks() + axes.xaxis.get_minor_ticks()
    boxes = sorted(
        (tick.label1.get_window_extent().x0, tick.label1.get_window_extent().x1)
        for tick in ticks
        if tick.label1.get_text() and low <= tick.get_loc() <= high
    )
    assert 1 <= len(boxes) <= 3
    assert all(right[0] > left[1] for left, right in itertools.pairwise(boxes))
