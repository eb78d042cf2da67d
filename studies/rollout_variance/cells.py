"""What `rollout_variance` measures: one cell per preset and contact law."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts are imported when they are used
import torch
from torch import Tensor

from gradlab.critics.fitted import FittedCritic
from gradlab.foundation.moment import Moment, concatenate
from gradlab.gradients.sampling import block_generator
from gradlab.problems.critic import View
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import moment_at
from gradlab.statistics import Interval
from gradlab.study import Artefact, Cell, Saved, seed_for
from gradlab.study.tables import flat
from studies.rollout_variance import ascent, policies, statistics
from studies.rollout_variance.config import Config, check
from studies.rollout_variance.gradients import (
    Contact,
    Variance,
    contact_of,
    gradients_at,
    gram_of,
    variance_of,
)
from studies.rollout_variance.policies import HORIZON, Episodes, Setting
from studies.shared.medians import median_interval

CONFIDENCE = 0.95
COSTS = {"compliant": 1.0, "smoothed": 1.0, "brax": 4.0, "convex": 5.0}  # roughly, per step
PRESET_COSTS = {"brax": 1.0, "dflex": 2.5, "gymnasium": 4.0}
ENDS = ("low", "high")  # variance of the states that ascent starts from


def artefacts(config: Config) -> Iterator[Artefact]:
    """A policy of each preset family, and a critic of each setting."""
    return policies.artefacts_of(Setting.of(text) for text in config.settings)


def cells(config: Config) -> Iterator[Cell]:
    """One per setting: its rollout, the variances along it and the ascents
    from some of its states.
    """
    check(config)
    for text in config.settings:
        setting = Setting.of(text)
        policies.problem_of(setting)  # what cannot be built fails before anything runs
        needs = (
            policies.policy_name(setting.preset),
            policies.critic_name(setting),
        )
        cost = COSTS[setting.contact] * PRESET_COSTS[setting.preset]
        yield Cell(text, {"setting": text}, needs, cost)


# ---------------------------------------------------------------------------------------- cells


@dataclass(frozen=True)
class Bench:
    """A setting with its policy, critic and rollout."""

    problem: Problem
    critic: FittedCritic
    params: dict[str, Tensor]
    seen: Episodes
    steps: tuple[int, ...]  # at which is measured
    seed: int  # the same for every contact law of a preset: start states and noise are common

    def moment(self, step: int, states: Tensor) -> Moment:
        """Where the episodes `states` are at a step."""
        return moment_at(self.seen.path, self.seen.result, step).take(states)


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Rows of one setting: the policy, each state, each step, the verdicts and the ascents."""
    setting = Setting.of(cell.payload["setting"])
    shared = {"setting": str(setting), "preset": setting.preset, "contact": setting.contact}
    bench = _bench(config, setting, needs)
    yield {**shared, **_policy_row(bench, needs[policies.policy_name(setting.preset)])}
    variances = {
        name: np.full((len(bench.steps), config.states), np.nan) for name in config.estimators
    }
    flags = {
        name: np.zeros((len(bench.steps), config.states), dtype=bool) for name in Contact._fields
    }
    for k, step in enumerate(bench.steps):
        if (seen := _measured(config, bench, step)) is None:
            continue
        index = seen.states.cpu().numpy()  # a tensor with one entry would be taken for a number
        for name, found in seen.variances.items():
            variances[name][k, index] = found.value.cpu().numpy()
        for name, flag in seen.contact._asdict().items():
            flags[name][k, index] = flag.cpu().numpy()
        for row in _step_rows(bench, step, seen):
            yield {**shared, "step": step, **row}
    fields = {name: statistics.logs(values) for name, values in variances.items()}
    found = statistics.answers(
        fields, flags, config.resamples, seed_for(config.seed, str(setting), "bootstrap")
    )
    for one in found:
        yield {
            **shared, "kind": "answer", "name": one.name, "estimator": one.estimator,
            **flat("value", one.interval),
        }  # fmt: skip
    if config.updates:
        for row in _ascent_rows(config, bench, torch.from_numpy(variances["sg"])):
            yield {**shared, **row}


def _bench(config: Config, setting: Setting, needs: Mapping[str, Saved]) -> Bench:
    problem = policies.problem_of(setting).replace(compile=config.compile)
    critic = policies.read_critic(needs[policies.critic_name(setting)])
    problem = problem.replace(critic=critic.critic(problem))
    params = dict(needs[policies.policy_name(setting.preset)].tensors)
    seed = seed_for(config.seed, setting.preset)
    noise = problem.draw(config.states, block_generator(seed_for(seed, "starts"), 0))
    seen = policies.episodes_of(problem, params, noise)
    return Bench(problem, critic, params, seen, tuple(range(0, HORIZON, config.every)), seed)


def _policy_row(bench: Bench, policy: Saved) -> dict[str, Any]:
    """How good the policy and the critic are in this setting, and the policy in its own."""
    explained = _explained(bench)
    return {
        "kind": "policy",
        **policies.described(bench.problem, bench.seen),
        **flat("explained", explained),
        **bench.critic.quality["q"].columns(),
        **{f"own_{name}": policy.metadata["trained"][name] for name in ("return", "return_stderr", "speed")},
        "untrained_return": policy.metadata["untrained"]["return"],
    }  # fmt: skip


def _explained(bench: Bench) -> Interval:
    """Explained variance of the returns to go by Q along the rollout,
    episodes resampled by the jackknife.

    As `gradlab.critics.quality`: deviations are from the mean at the same time,
    rows that are alive count.
    """
    path, problem = bench.seen.path, bench.problem
    q = problem.require_q("the explained variance")
    alive = bench.seen.result.alive[:, :-1].double()
    steps = problem.steps[:HORIZON].expand(len(alive), HORIZON)
    events = torch.zeros_like(bench.seen.result.running)
    view = View(path.state[:, :-1], path.obs, events, steps)
    with torch.no_grad():
        predicted = q(view, path.action).double()
    returns = bench.seen.to_go.double()
    count = alive.sum(0).clamp(min=1)
    centred = returns - (alive * returns).sum(0) / count
    error = (alive * (returns - predicted).square()).sum(1)
    total = (alive * centred.square()).sum(1)
    value = 1 - error.sum() / total.sum()
    without = 1 - (error.sum() - error) / (total.sum() - total)
    size = len(without)
    stderr = ((size - 1) / size * (without - without.mean()).square().sum()).sqrt()
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, size - 1)) * float(stderr)
    return Interval(float(value), float(value) - reach, float(value) + reach)


class Measured(NamedTuple):
    """What is seen at one step, of the n states in which an episode is alive."""

    states: Tensor  # their indices [n]
    contact: Contact
    variances: dict[str, Variance]  # by estimator, over action noise
    across: dict[str, Interval]  # by estimator, over the states with one sample each


def _measured(config: Config, bench: Bench, step: int) -> Measured | None:
    """Variances and contact at one step; None where no episode is alive."""
    states = bench.seen.result.alive[:, step].nonzero()[:, 0]
    if not len(states):
        return None
    size = config.samples
    start = bench.moment(step, states)
    noise = torch.randn(
        config.states, size, 2, bench.problem.simulator.action_dim,
        generator=block_generator(seed_for(bench.seed, "noise", step), 0), dtype=torch.float64,
    )  # fmt: skip
    noise = noise[states.cpu()].flatten(0, 1).to(start.state)
    sampled = gradients_at(
        bench.problem, bench.params, start.repeat(size), noise, config.estimators
    )
    after = sampled.after.unflatten(0, (-1, size))
    contact = contact_of(policies.articulated(bench.problem), start.state, after)
    variances, across = {}, {}
    for name, gradients in sampled.gradients.items():
        variances[name] = variance_of(gram_of(gradients, size))
        across[name] = _across({k: v[::size] for k, v in gradients.per_sample().items()})
    return Measured(states, contact, variances, across)


def _step_rows(bench: Bench, step: int, seen: Measured) -> Iterator[dict[str, Any]]:
    """Every state at one step, and what is said over the states."""
    for name, found in seen.variances.items():
        yield from _state_rows(name, seen.states, found, seen.contact)
        yield _over_states(name, found, seen.across[name])
    yield _return_row(bench, step, seen.states)


def _state_rows(
    name: str, states: Tensor, found: Variance, contact: Contact
) -> Iterator[dict[str, Any]]:
    columns = [part.tolist() for part in (states, *found, *contact)]
    for state, value, low, high, signal, touching, changes, splits in zip(*columns, strict=True):
        yield {
            "kind": "state", "estimator": name, "state": state, "value": value, "value_low": low,
            "value_high": high, "signal": signal, "touching": touching, "changes": changes, "splits": splits,
        }  # fmt: skip


def _over_states(name: str, found: Variance, across: Interval) -> dict[str, Any]:
    """Median and quantiles over states, and the variance over states of one sample each."""
    known = found.value[found.value.isfinite()].cpu().numpy()
    quantiles = np.quantile(known, (0.05, 0.25, 0.75, 0.95)) if len(known) else [np.nan] * 4
    return {
        "kind": "step", "estimator": name, **flat("value", median_interval(known)),
        **dict(zip(("q05", "q25", "q75", "q95"), map(float, quantiles), strict=True)),
        **flat("across", across), "alive": len(found.value), "nonfinite": len(found.value) - len(known),
    }  # fmt: skip


def _across(first: Mapping[str, Tensor]) -> Interval:
    """The variance over states; NaN with fewer than three."""
    rows = torch.cat([value.flatten(1) for value in first.values()], dim=1).double()
    if len(rows) < 3:
        return Interval(np.nan, np.nan, np.nan)
    value, low, high, _ = variance_of((rows @ rows.mT)[None])
    return Interval(float(value), float(low), float(high))


def _return_row(bench: Bench, step: int, states: Tensor) -> dict[str, Any]:
    """PG with the return of the rollout itself: one sample per state,
    so a variance over states alone.
    """
    problem, moment = bench.problem, bench.moment(step, states)
    eps = bench.seen.eps[states, step]
    noise = torch.stack([eps, torch.zeros_like(eps)], dim=1)
    sampled = gradients_at(
        problem, bench.params, moment, noise, ("pg_return",), bench.seen.to_go[states, step]
    )
    gradients = sampled.gradients["pg_return"].per_sample()
    return {
        "kind": "step",
        "estimator": "pg_return",
        **flat("across", _across(gradients)),
        "alive": len(states),
    }


def _ascent_rows(config: Config, bench: Bench, variance: Tensor) -> Iterator[dict[str, Any]]:
    """Paths of r + γQ from states of low and of high SG variance, and how they moved."""
    # about the median of their step: else the low ones are late ones, with little left to gain
    level = torch.from_numpy(10 ** statistics.levelled(statistics.logs(variance.numpy())))
    picks = {end: ascent.chosen(level, getattr(config, end), config.picks) for end in ENDS}
    places = torch.cat(list(picks.values()))
    moments = [bench.moment(bench.steps[k], torch.tensor([state])) for k, state in places.tolist()]
    starts = concatenate(moments)
    paths = ascent.ascend(
        bench.problem, starts, seeds=config.ascent_seeds, updates=config.updates,
        samples=config.ascent_samples, judged=config.judged, learning_rate=config.learning_rate,
        seed=bench.seed,
    )  # fmt: skip
    moved = ascent.apart(paths.value.double())
    labels = [end for end, found in picks.items() for _ in found]
    for s, (end, (k, state)) in enumerate(zip(labels, places.tolist(), strict=True)):
        where = {
            "end": end, "pick": s - labels.index(end), "state": state, "step": bench.steps[k],
            "variance": float(variance[k, state]), "level": float(level[k, state]),
        }  # fmt: skip
        for r in range(config.ascent_seeds):
            yield {
                "kind": "ascent", **where, "ascent_seed": r, "gain": float(moved.gain[s, r]),
                "fallen": float(moved.fallen[s, r]), "largest": float(moved.largest[s, r]),
                "nonfinite": int((~paths.value[s, r].isfinite()).sum()),
            }  # fmt: skip
        if where["pick"] == 0:  # drawn
            for r, path in enumerate(paths.value[s].tolist()):
                for update, value in enumerate(path):
                    yield {
                        "kind": "path", **where, "ascent_seed": r, "update": update, "value": value,
                    }  # fmt: skip
