"""The critics and truths of `bias_vs_relaxation`, as artefacts: made once, used by many cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

import estimators
from estimators.base import Estimator
from gradlab.critics.fitted import FULL, SHORT, Fit
from gradlab.critics.fitting import fit_critic
from gradlab.oracle import ORACLE_SEED, LargeSample, closed_forms
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.statistics.saving import from_tensors, to_tensors
from gradlab.study import Artefact, Saved, file_name, seed_for
from studies.shared import stages

HARD = 0.0  # the width that stands for no relaxation
TRUTH_WIDTH = 0.02  # of the Split behind hard truths: near its least variance on racing and landing
# Episodes behind a flight's hard truth, fixed beforehand: 0.9 % and 1.4 % with the default preset's
# policies
HARD_EPISODES = {("racing", 60): 409_600, ("landing", 60): 737_280}
OTHER_EPISODES = 1_024_000  # with the other policies
PER_CALL = "per_call/"  # prefix of the g_k in exact truths
PAIRED = ("nstep", "abpt")  # always together, on the same rollouts
FITS = {
    "none": Fit(steps=0, episodes=2000),
    "short": SHORT,
    "full": FULL,
    # with a small policy std, on-policy returns alone say little about ∂Q/∂a
    "explored": Fit(exploration=0.3, episodes=40_000),
}


def critic_artefact(task: str, stage: int, fit: str, needs: tuple[str, ...]) -> Artefact:
    """The artefact with one critic of one policy."""
    payload = {"task": task, "stage": stage, "fit": fit, "settings": FITS[fit].settings()}
    return Artefact(critic_name(task, stage, fit), build_critic, payload, needs, cost=30.0)


def truth_artefact(
    task: str, stage: int, width: float, needs: tuple[str, ...], sampling: Mapping[str, Any]
) -> Artefact:
    """The artefact with one ∇J. `sampling` says how precise the truth of a flight's relaxation is.

    The hard truth of a flight does not depend on the study's options: it is what everything is
    judged against, so it is sampled once, precisely, and comes with the repository.
    """
    payload: dict[str, Any] = {"task": task, "stage": stage, "width": width}
    if task in stages.KNOWN:
        return Artefact(truth_name(task, stage, width), solve_truth, payload, cost=4.0)
    if width == HARD:
        episodes = HARD_EPISODES.get((task, stage), OTHER_EPISODES)
        payload |= {"stderr": 0.0, "samples": episodes}
        return Artefact(truth_name(task, stage, width), sample_truth, payload, needs, 4000.0)
    payload |= sampling
    return Artefact(truth_name(task, stage, width), sample_truth, payload, needs, 1.0 / width)


def target_artefact(
    task: str, stage: int, windows: Iterable[float], needs: tuple[str, ...], sampling: Mapping
) -> Artefact:
    """The artefact with every Σ w_k g_k that the estimators of a flight aim at
    by their call weights.
    """
    payload = {"task": task, "stage": stage, "windows": list(windows), **sampling}
    return Artefact(target_name(task, stage), sample_targets, payload, needs, cost=60.0)


def critic_name(task: str, stage: int, fit: str) -> str:
    return f"critics/{file_name(task)}-{stage}-{fit}"


def truth_name(task: str, stage: int, width: float) -> str:
    return f"truths/{file_name(task)}-{stage}-{'hard' if width == HARD else f'{width:g}'}"


def target_name(task: str, stage: int) -> str:
    return f"targets/{file_name(task)}-{stage}"


def build_critic(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """A Q critic fitted to the hard task under one policy; "none" is its initialisation."""
    task, stage = artefact.payload["task"], artefact.payload["stage"]
    params = stages.read_policy(needs[stages.policies_name(task)], stage)
    fitted = fit_critic(stages.problem_of(task), params, FITS[artefact.payload["fit"]])
    return Saved(fitted.params, fitted.metadata)


def sample_truth(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """∇J of the relaxed or of the hard task by a large sample."""
    return _sampled(artefact, needs, artefact.payload["width"], {"": None})


def sample_targets(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Every Σ w_k g_k of the hard task, by a large sample; each has its name as prefix."""
    problem = stages.problem_of(artefact.payload["task"])
    return _sampled(artefact, needs, HARD, weightings(problem, artefact.payload["windows"]))


def _sampled(
    artefact: Artefact,
    needs: Mapping[str, Saved],
    width: float,
    targets: Mapping[str, Tensor | None],
) -> Saved:
    """With a standard error of 0 in the payload, exactly its number of episodes."""
    payload = artefact.payload
    params = stages.read_policy(needs[stages.policies_name(payload["task"])], payload["stage"])
    oracle = LargeSample(
        estimators.Split(TRUTH_WIDTH) if width == HARD else estimators.FOG(),
        payload["stderr"],
        payload["samples"],
        seed=seed_for(ORACLE_SEED, artefact.name),
    )
    problem = stages.problem_of(payload["task"])
    return _saved(oracle.targets(_at(problem, width), params, targets))


def solve_truth(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """∇J of a known-answer problem and every g_k, exactly."""
    task, width = artefact.payload["task"], artefact.payload["width"]
    problem = stages.problem_of(task)
    answer = closed_forms.solve(_at(problem, width), stages.known_policy(task))
    saved = _saved({"": OracleGradient.exact(answer.gradient, "closed form")})
    calls = {f"{PER_CALL}{name}": rows for name, rows in answer.per_call.items()}
    return Saved({**saved.tensors, **calls}, saved.metadata)


def targets_of(
    needs: Mapping[str, Saved], task: str, stage: int, windows: Iterable[float]
) -> dict[str, OracleGradient]:
    """Σ w_k g_k of the hard task, by name, out of the artefacts that a cell reads."""
    named = weightings(stages.problem_of(task), windows)
    if task not in stages.KNOWN:
        saved = needs[target_name(task, stage)]
        return {name: from_tensors(saved.tensors, saved.metadata, f"{name}|") for name in named}
    calls = {
        name.removeprefix(PER_CALL): rows
        for name, rows in needs[truth_name(task, stage, HARD)].tensors.items()
        if name.startswith(PER_CALL)
    }
    totals = {name: closed_forms.total(calls, weights) for name, weights in named.items()}
    return {n: OracleGradient.exact(total, "closed form") for n, total in totals.items()}


def _at(problem: Problem, width: float) -> Problem:
    return problem if width == HARD else problem.relaxed(width)


def _saved(truths: Mapping[str, OracleGradient]) -> Saved:
    tensors: dict[str, Tensor] = {}
    for name, truth in truths.items():
        tensors |= to_tensors(truth, f"{name}|", compact=True)
    # a clock's reading would make the artefact differ from run to run
    return Saved(tensors, {"name": truths[""].name, "seconds": 0.0})


def weightings(problem: Problem, windows: Iterable[float]) -> dict[str, Tensor | None]:
    """Call weights of ∇J and of what N-step and published ABPT aim at, by name."""
    named: dict[str, Tensor | None] = {"": None}
    for name, estimator in _pairs(problem, windows):
        named[name] = estimator.call_weights(problem).double()
    return named


def _pairs(problem: Problem, windows: Iterable[float]) -> Iterator[tuple[str, Estimator]]:
    for share in windows:
        n = window_of(problem, share)
        for name, estimator in zip(PAIRED, pair_of("published", n), strict=True):
            yield f"{name}-{n}", estimator


def pair_of(form: str, window: int) -> tuple[Estimator, Estimator]:
    """N-step without and with the 0-step return."""
    if form == "published":
        return estimators.NStep(window), estimators.ABPT(window)
    return estimators.NStep(window, "tiled"), estimators.ABPT(window, "all")


def window_of(problem: Problem, share: float) -> int:
    """n of N-step for a share of the horizon, at least 1."""
    return max(1, round(share * problem.horizon))
