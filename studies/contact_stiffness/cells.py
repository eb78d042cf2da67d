"""What `contact_stiffness` measures: one cell per width, horizon and estimator."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

import estimators
import gradlab
from estimators.base import Estimator
from gradlab.critics.fitted import Fit, FittedCritic
from gradlab.critics.fitting import fit_critic
from gradlab.foundation.errors import BadValue
from gradlab.gradients.sampling import block_generator
from gradlab.oracle.closed_forms import static
from gradlab.problems.problem import Problem
from gradlab.statistics import Moments, OracleGradient, compare
from gradlab.statistics.saving import from_tensors, to_tensors
from gradlab.study import Artefact, Cell, Saved, seed_for
from gradlab.tasks.static import Decision
from studies.contact_stiffness import growth, laws
from studies.contact_stiffness.config import BATCH, NAMES, SWEPT, Config, check
from studies.contact_stiffness.problems import (
    PANELS,
    PEGS,
    Pegs,
    path_of,
    policy_of,
    problem_of,
    step_of,
)

PILOT = 64  # episodes behind the weights of InverseVariance
CHUNK = 512  # episodes at once
WITH_CRITIC = ("qg", "nstep")


# ------------------------------------------------------------------------------------ artefacts


def artefacts(config: Config) -> Iterator[Artefact]:
    """Samples of FOG and PG, exact truths of the toy, critics, and norms of step Jacobians."""
    for task in config.tasks:
        for width in config.widths:
            key = {"task": task, "width": width, "seed": config.seed}
            last = max(config.horizons)
            payload = {**key, "horizon": last, "episodes": config.jacobian_episodes}
            yield Artefact(f"jacobians/{task}-{width:g}", sample_jacobians, payload, cost=last)
            for horizon in config.horizons:
                at = {**key, "horizon": horizon}
                if task == PEGS:
                    name = f"truths/{_at(task, width, horizon)}"
                    payload = {"width": width, "horizon": horizon, "panels": PANELS}
                    yield Artefact(name, solve_pegs, payload, cost=0.1 * horizon)
                for estimator in SWEPT:
                    count = config.pg_samples if estimator == "pg" else config.samples
                    payload = {**at, "estimator": estimator, "count": count}
                    name = _samples_name(task, width, horizon, estimator)
                    yield Artefact(name, sample_moments, payload, cost=float(horizon))
                if task != PEGS:
                    fit = {"episodes": config.critic_episodes, "steps": config.critic_steps}
                    name = f"critics/{_at(task, width, horizon)}"
                    yield Artefact(name, build_critic, {**at, **fit}, cost=float(horizon))


def _at(task: str, width: float, horizon: int) -> str:
    return f"{task}-{width:g}-{horizon}"


def _samples_name(task: str, width: float, horizon: int, estimator: str) -> str:
    return f"samples/{_at(task, width, horizon)}-{estimator}"


def _measured(
    estimator: Estimator, problem: gradlab.Problem, task: str, count: int, seed: int
) -> Moments:
    params = policy_of(task)
    return gradlab.measure(estimator, problem, params, count, seed, chunk_size=CHUNK).single


def sample_moments(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Moments of FOG or PG at one width and horizon."""
    at = artefact.payload
    problem = problem_of(at["task"], at["width"], at["horizon"])
    seed = seed_for(at["seed"], artefact.name)
    moments = _measured(_make(at["estimator"], at["task"]), problem, at["task"], at["count"], seed)
    # samples that are not finite are counted in the moments: `OracleGradient` refuses them later
    truth = OracleGradient(moments.mean, at["estimator"], moments)
    name = f"{at['estimator'].upper()} x {at['count']}"
    return Saved(to_tensors(truth), {"name": name, "seconds": 0.0})


def solve_pegs(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Gradient and variances of the toy by quadrature, with the change when panels are halved."""
    at = artefact.payload
    params, whole = policy_of(PEGS), problem_of(PEGS, at["width"], at["horizon"])
    problem, coarse = (
        whole.replace(task=Decision(Pegs(at["width"], at["horizon"], panels)))
        for panels in (at["panels"], at["panels"] // 2)
    )
    fine, rough = (static.truth(p, params).gradient for p in (problem, coarse))
    gap = math.sqrt(sum(float((fine[n] - rough[n]).square().sum()) for n in fine))
    size = math.sqrt(sum(float(x.square().sum()) for x in fine.values()))
    fog, pg = (
        float(sum(x.sum() for x in part.values())) for part in static.variances(problem, params)
    )
    exact = {"fog": fog, "pg": pg, "change": gap / size}
    return Saved(
        to_tensors(OracleGradient.exact(fine, "quadrature")),
        {"name": "quadrature", "seconds": 0.0, **exact},
    )


def build_critic(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """A Q critic fitted to the policy at one width and horizon."""
    at = artefact.payload
    # one action per episode has more noise, so that ∂Q/∂a is learnt: see `Fit`
    fit = Fit(
        steps=at["steps"],
        episodes=at["episodes"],
        exploration=0.3,
        held_out=1024,
        seed=at["seed"],
    )
    problem = problem_of(at["task"], at["width"], at["horizon"])
    fitted = fit_critic(problem, policy_of(at["task"]), fit)
    return Saved(fitted.params, fitted.metadata)


def sample_jacobians(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """ln norms of step Jacobians and of their product along episodes under the policy, [N, T]."""
    at = artefact.payload
    task, width = at["task"], at["width"]
    seed = seed_for(at["seed"], artefact.name)
    states, eps = path_of(task, width, at["horizon"], at["episodes"], seed)
    jacobians = growth.step_jacobians(step_of(task, width), states, eps).double()
    finite = jacobians.isfinite().flatten(1).all(1)
    kept = jacobians[finite]
    if len(kept) < 2:
        raise BadValue(
            f"step Jacobians of {task} at width {width} are finite in {len(kept)} of {len(finite)} "
            "episodes; try wider contact or shorter horizons"
        )
    norms = torch.linalg.matrix_norm(kept, 2).clamp(min=1e-300).log()
    tensors = {
        "product": growth.product_log_norms(kept),
        "summed": growth.summed_log_norms(kept),
        "step": norms,
    }
    return Saved(tensors, {"lost": int((~finite).sum())})


# ---------------------------------------------------------------------------------------- cells


def cells(config: Config) -> Iterator[Cell]:
    """One cell per width, horizon and estimator, and one per task with the growth rates."""
    check(config)
    for task in config.tasks:
        everything: list[str] = []
        for width in config.widths:
            everything.append(f"jacobians/{task}-{width:g}")
            for horizon in config.horizons:
                both = [_samples_name(task, width, horizon, name) for name in SWEPT]
                everything += both
                needs = [*both]
                if task == PEGS:
                    needs.append(f"truths/{_at(task, width, horizon)}")
                for name in _estimators(config, task, horizon):
                    critic = [f"critics/{_at(task, width, horizon)}"] * (name in WITH_CRITIC)
                    payload = {"task": task, "width": width, "horizon": horizon, "estimator": name}
                    cost = 0.1 if name in SWEPT else float(horizon)
                    key = f"{_at(task, width, horizon)}/{name}"
                    yield Cell(key, payload, (*needs, *critic), cost)
        yield Cell(f"{task}/growth", {"task": task}, tuple(everything), 0.1)


def _estimators(config: Config, task: str, horizon: int) -> Iterator[str]:
    for name in NAMES:
        if name in SWEPT:
            yield name
            continue
        # a decision of one step has no window, and QG with its exact critic is FOG
        fits = task != PEGS or name not in WITH_CRITIC
        if fits and name in config.estimators and horizon in config.horizons_of_others:
            yield name


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Rows of one estimator, or of the growth rates of a task."""
    if "estimator" not in cell.payload:
        yield from _laws(config, cell.payload["task"], needs)
        return
    task, width, horizon, name = (
        cell.payload[key] for key in ("task", "width", "horizon", "estimator")
    )
    read = {other: _moments(needs[_samples_name(task, width, horizon, other)]) for other in SWEPT}
    exact = needs.get(f"truths/{_at(task, width, horizon)}")
    truth = _truth(name, read, exact)
    quality: dict[str, float | None] = {"critic_quality": None}
    if name in SWEPT:
        moments = read[name]
    else:
        problem = problem_of(task, width, horizon)
        if name in WITH_CRITIC:
            kept = needs[f"critics/{_at(task, width, horizon)}"]
            fitted = FittedCritic.of(dict(kept.tensors), kept.metadata)
            problem = problem.replace(critic=fitted.critic(problem))
            quality = {**fitted.quality["q"].columns()}
        seed = seed_for(config.seed, cell.key)
        if name == "inverse_variance":
            estimator = _mixture(task, problem, policy_of(task))
        else:
            estimator = _make(name, task, max(1, round(config.window * horizon)))
        moments = _measured(estimator, problem, task, config.samples, seed)
    described = {
        "kind": "estimator", "task": task, "width": width, "horizon": horizon,
        "estimator": name, **quality,
    }  # fmt: skip
    known = {} if exact is None else exact.metadata
    report = compare(moments, truth, batch=BATCH * 4, only=lambda part: part == "all")
    for row in report.table():
        yield {
            **described,
            **row,
            "variance_exact": known.get(name),
            "quadrature_change": known.get("change"),
        }


def _make(name: str, task: str, window: int = 1) -> Estimator:
    # the toy's variance of PG is known without a baseline
    pg = estimators.PG() if task == PEGS else estimators.PG(baseline="loo", group_size=BATCH)
    known: dict[str, Estimator] = {
        "fog": estimators.FOG(),
        "pg": pg,
        "qg": estimators.QG(),
        "nstep": estimators.NStep(window, "tiled"),
    }
    return known[name]


def _mixture(task: str, problem: Problem, params: dict[str, Tensor]) -> Estimator:
    """FOG and PG with inverse-variance weights from a pilot, the same one for every cell."""
    mixture = estimators.Mixture(
        (_make("fog", task), _make("pg", task)), estimators.InverseVariance()
    )
    return mixture.fitted(problem, params, problem.draw(PILOT, block_generator(0, -1)))


def _moments(saved: Saved) -> Moments:
    moments = from_tensors(saved.tensors, saved.metadata).moments
    assert moments is not None
    return moments


def _truth(name: str, read: Mapping[str, Moments], exact: Saved | None) -> OracleGradient:
    """What an estimator is judged by; never its own episodes.

    Raises `NotFinite` if it is not finite.
    """
    if exact is not None:
        return from_tensors(exact.tensors, exact.metadata)
    other = {"fog": "pg", "pg": "fog"}.get(name)
    if other is None:
        other = min(read, key=lambda key: read[key].variance() / read[key].count)
    count = read[other].count * read[other].group
    return OracleGradient.sampled(read[other], f"{other.upper()} x {count}")


def _laws(config: Config, task: str, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Rows of the growth rates of a task."""
    variances = {
        (width, horizon, name): laws.variance_of(
            _moments(needs[_samples_name(task, width, horizon, name)])
        )
        for width in config.widths
        for horizon in config.horizons
        for name in SWEPT
    }
    jacobians = {width: needs[f"jacobians/{task}-{width:g}"] for width in config.widths}
    return laws.rows_of(task, sorted(config.horizons), variances, jacobians)
