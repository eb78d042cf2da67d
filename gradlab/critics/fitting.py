"""Fitting critics to a fixed policy: regression on returns, or TD(λ) with a target network.

The critic learns the hard task over its finite horizon: targets are returns discounted from t,
given alive at t, and only rows that are alive count. Data, minibatches, initial weights and the
held-out episodes of the quality each have a seed of their own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.critics.episodes import episode_stream, lambda_returns, per_time, seed_of
from gradlab.critics.fitted import Fit, FittedCritic, Sizes
from gradlab.critics.networks import Params, ValueNetwork, features
from gradlab.critics.quality import measure
from gradlab.foundation.errors import BadValue, NotFinite
from gradlab.foundation.generators import generator
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.problems.problem import Problem

Progress = Callable[[float], None]  # fraction done, from 0 to 1
Batch = tuple[Tensor, Tensor, Tensor]  # inputs [n, ni], step [n], target [n]


class Data(NamedTuple):
    """What one value function is fitted to."""

    inputs: Float[Tensor, "N T ni"]
    step: Float[Tensor, "N T"]
    reward: Float[Tensor, "N T"]
    alive: Float[Tensor, "N T+1"]
    rows: Bool[Tensor, "N T"]
    returns: Float[Tensor, "N T"]


@differentiating()
def fit_critic(
    problem: Problem,
    params: Params,
    fit: Fit | None = None,
    *,
    progress: Progress | None = None,
    **changes: Any,
) -> FittedCritic:
    """Fit Q, V or both to the policy `params` on the hard task of `problem`.

    `changes` are fields of `Fit` (`fit_critic(problem, params, kind="both", steps=500)`). The same
    arguments give the same critic. `progress` gets the fraction done, from 0 to 1.

    - "monte_carlo": least squares on returns to go (unbiased targets, all the noise of the return);
    - "td_lambda": ABPT eq. 12-15 without entropy; λ-returns over each episode bootstrap from a
      softly updated target network, Q at the episode's own next action.

    Raises `BadValue` for settings out of range, `NotFinite` if the episodes are not finite.
    """
    fit = dataclasses.replace(fit or Fit(), **changes)
    problem, params = problem.unrelaxed, ordinary(params)
    sizes = Sizes.of(problem)
    data = gather(problem, params, fit)
    trained: Params = {}
    for i, head in enumerate(fit.heads):
        network = sizes.network(fit, head)
        draws = generator("critic", fit.seed, head, "init")
        start = network.init(draws, dtype=problem.dtype, device=problem.device)
        batches = generator("critic", fit.seed, head, "batches")
        share = _share(progress, i, len(fit.heads))
        found = train(network, start, data[head], problem.discount, fit, batches, share)
        trained.update({f"{head}.{name}": value for name, value in found.items()})
    fitted = FittedCritic(fit, sizes, trained)
    critic, seed = fitted.critic(problem), seed_of(fit.seed, "held out")
    quality = {
        head: measure(problem, params, critic, head, fit.held_out, seed) for head in fit.heads
    }
    return dataclasses.replace(fitted, quality=quality)


def gather(problem: Problem, params: Params, fit: Fit) -> dict[str, Data]:
    """Roll out the episodes of a fit and keep what each value function needs."""
    columns = Sizes.of(problem).columns(problem)
    seed = seed_of(fit.seed, "data")
    chunks: dict[str, list[Data]] = {head: [] for head in fit.heads}
    for seen in episode_stream(problem, params, fit.episodes, seed, fit.exploration):
        shared = features(seen.view, columns, problem.horizon)
        returns = seen.returns(problem.discount)
        for head, chunk in chunks.items():
            inputs = torch.cat([shared, seen.action], dim=-1) if head == "q" else shared
            rows = seen.q_rows if head == "q" else seen.v_rows
            chunk.append(Data(inputs, seen.view.step, seen.reward, seen.alive, rows, returns))
    data = {
        head: Data(*(torch.cat(column) for column in zip(*chunk, strict=True)))
        for head, chunk in chunks.items()
    }
    for part in data.values():
        if not part.rows.any():
            raise BadValue("no row of these episodes can be fitted to; use more episodes")
        if not all(
            seen.isfinite().all() for seen in (part.inputs[part.rows], part.returns[part.rows])
        ):
            raise NotFinite(
                f"episodes of {problem.name} are not finite, so no critic can be fitted to them; "
                "check the policy, or shorten the horizon"
            )
    return data


def standardised(params: Params, data: Data) -> Params:
    """`params` with the statistics of the data: inputs over all rows, returns at each time.

    An input's scale is its standard deviation, but at least a tenth of its range, so that a flag
    that is rarely set stays of order one; an input that never changes is centred and not scaled.
    A time at which no return varies predicts its mean.
    """
    seen = data.inputs[data.rows]
    centre = seen.mean(0, dtype=torch.float64)
    std = (seen - centre.to(seen)).square().mean(0, dtype=torch.float64).sqrt()
    low, high = seen.aminmax(dim=0)
    scale = torch.maximum(std, 0.1 * (high - low).double())
    constant = scale <= 1e-6 * (1 + centre.abs())
    mean, spread = per_time(data.returns, data.rows)
    end = torch.zeros(1, dtype=torch.float64, device=mean.device)
    statistics = {
        "input.centre": centre,
        "input.scale": torch.where(constant, torch.ones_like(scale), scale),
        "output.centre": torch.cat([mean, end]),
        "output.scale": torch.cat([spread, end]),
    }
    return {**params, **{name: value.to(params[name]) for name, value in statistics.items()}}


def train(
    network: ValueNetwork,
    params: Params,
    data: Data,
    discount: float,
    fit: Fit,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Params:
    """Adam on each member's mean squared error (ABPT eq. 12), in units of the returns' spread."""
    params = standardised(params, data)
    scale = _pooled_scale(params["output.scale"], data)
    learned = {n: p.clone().requires_grad_() for n, p in params.items() if network.is_trained(n)}
    params = {**params, **learned}
    target = {name: value.detach().clone() for name, value in params.items()}
    if fit.method == "monte_carlo":
        batches = _single_rows(data, fit, generator)
    else:
        batches = _whole_episodes(network, target, data, discount, fit, generator)
    optimiser = torch.optim.Adam(learned.values(), lr=fit.learning_rate, fused=True)
    for step in range(fit.steps):
        inputs, times, wanted = next(batches)
        for group in optimiser.param_groups:
            group["lr"] = fit.learning_rate * 0.5 * (1 + math.cos(math.pi * step / fit.steps))
        with torch.enable_grad():
            error = (network.each(params, inputs, times) - wanted[:, None]) / scale
            loss = error.square().mean(0).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for name, value in learned.items():
                target[name].lerp_(value, fit.tau)  # φ⁻ ← (1 − τ) φ⁻ + τ φ
        if progress is not None:
            progress((step + 1) / fit.steps)
    return {name: value.detach() for name, value in params.items()}


def _single_rows(data: Data, fit: Fit, generator: torch.Generator) -> Iterator[Batch]:
    """Rows drawn with replacement, with their returns to go."""
    keep = data.rows.flatten().nonzero()[:, 0]
    inputs, step = data.inputs.flatten(0, 1), data.step.flatten()
    returns = data.returns.flatten()
    while True:
        pick = torch.randint(len(keep), (fit.batch,), generator=generator)
        rows = keep[pick.to(keep.device)]
        yield inputs[rows], step[rows], returns[rows]


def _whole_episodes(
    network: ValueNetwork,
    target: Params,
    data: Data,
    discount: float,
    fit: Fit,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Episodes with λ-returns of the target network as it is when a batch is asked for."""
    keep = data.rows.any(1).nonzero()[:, 0]
    count = math.ceil(fit.batch / data.rows.shape[1])
    while True:
        pick = torch.randint(len(keep), (count,), generator=generator)
        batch = Data(*(part[keep[pick.to(keep.device)]] for part in data))
        with torch.no_grad():
            values = network.apply(target, batch.inputs, batch.step)
            wanted = lambda_returns(batch.reward, batch.alive, values, discount, fit.lam)
        rows = batch.rows
        yield batch.inputs[rows], batch.step[rows], wanted[rows]


def _pooled_scale(per_step: Float[Tensor, " times"], data: Data) -> Tensor:
    """Standard deviation of the returns about their mean at each time,
    over all rows; 1 if it is 0.
    """
    count = data.rows.sum(0)
    pooled = ((per_step[:-1].square() * count).sum() / count.sum()).sqrt()
    return torch.where(pooled > 0, pooled, torch.ones_like(pooled))


def _share(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Progress of one of several equal parts."""
    if progress is None:
        return None
    return lambda done: progress((part + done) / parts)
