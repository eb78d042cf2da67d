"""`detect_jump` and `assert_continuous`: is there a part of the objective that FOG cannot see?

    gradlab.testing.detect_jump(problem, params, of="terms")
    gradlab.testing.assert_continuous(problem, params)

What is tested, and what it proves, is in `gradlab/statistics/jumps.py`. The noise is that of the
actions: where a policy's parameters move the actions across a jump, noise does so too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import scipy  # its parts are imported when they are used
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.arguments import number, whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.generators import generator
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import NOISE_BLOCK, noise_stream
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, values_by_term
from gradlab.rollouts.rollout import rollout
from gradlab.statistics.jumps import LEAST, Jump, JumpReport, Pairs, pairs_of, tested
from gradlab.testing.unbiased import CannotTell

Params = dict[str, Tensor]
Objectives = Literal["return", "terms", "steps"]
Chunk = tuple[tuple[str, ...], list[Pairs]]  # names of the objectives, and the pairs of each
CHUNK = 256  # pairs in memory at once


class Discontinuous(AssertionError):
    """An objective has a part that no pathwise gradient sees, at the stated false-alarm rate."""


def detect_jump(
    problem: Problem,
    params: Params,
    *,
    of: Objectives = "return",
    count: int = 1024,
    seed: int = 0,
    level: float = 0.05,
    redraw: int | None = None,
) -> JumpReport:
    """Tests whether the return jumps in the noise of the actions, from `count` pairs of episodes.

    `of` says what is tested: the return; its "terms", the sums of each smooth reward term and of
    what events pay, all as far as the episode is alive; or its "steps", what each time step earns.
    Both episodes of a pair have the same start and process noise; the noise of their actions is
    drawn anew, all of it or that of `redraw` consecutive steps at a random place: less is then
    hidden by curvature, but fewer pairs meet the jump. `level` is the chance to call any objective
    a jump if none jumps or is so steep somewhere that no episode falls there, which happens more
    often than that where the probability to do so is below `gradlab.statistics.jumps.steepest`.
    Raises `BadValue` for options that make no sense, `NotFinite` for episodes that are not finite.
    """
    chunks = list(_stream(problem, params, of, 0, count, seed, redraw))
    return _report(chunks, number("level", level))


def assert_continuous(
    problem: Problem,
    params: Params,
    *,
    of: Objectives = "return",
    false_alarm: float = 1e-6,
    detect: float = 0.05,
    count: int = 1024,
    max_count: int = 65_536,
    seed: int = 0,
    redraw: int | None = None,
) -> JumpReport:
    """Raises `Discontinuous` if an objective is proven to jump, `CannotTell` if unsure.

    It passes only if a jump that holds a share `detect` of the objective's variance, net of what
    curvature hides, would have been found with probability 95 %. From `count` pairs on, the number
    doubles until that is so, up to `max_count`; stopping depends on the spread alone. An objective
    that does not jump raises `Discontinuous` with probability at most `false_alarm`. Options are
    those of `detect_jump`.
    """
    if not (0 < false_alarm < 1 and 0 < detect <= 1 and LEAST <= count <= max_count):
        raise BadValue(
            f"expected 0 < false_alarm < 1, 0 < detect <= 1 and {LEAST} <= count <= max_count, got "
            f"{false_alarm}, {detect}, {count} and {max_count}"
        )
    chunks: list[Chunk] = []
    done, want = 0, count
    while True:
        chunks.extend(_stream(problem, params, of, done, want, seed, redraw))
        done = want
        report = _report(chunks, false_alarm)
        sure = all(one.detectable <= detect and _normal(one, false_alarm) for one in report.jumps)
        if sure or done >= max_count:
            return _judged(report, detect, false_alarm)
        want = min(2 * done, max_count)


def _report(chunks: Sequence[Chunk], level: float) -> JumpReport:
    columns = zip(*(pairs for _, pairs in chunks), strict=True)
    whole_stream = [Pairs(*map(torch.cat, zip(*column, strict=True))) for column in columns]
    return tested(chunks[0][0], whole_stream, level)


def _judged(report: JumpReport, detect: float, false_alarm: float) -> JumpReport:
    found = [one for one in report.found if _normal(one, false_alarm)]
    if found:
        raise Discontinuous(
            f"a part of {found[0]} that no pathwise gradient sees, at false-alarm rate "
            f"{false_alarm:g}; FOG is biased there: relax the event, or use Split or PG"
        )
    worst = max(report.jumps, key=lambda one: one.detectable)
    if worst.detectable > detect:
        more = worst.pairs * (worst.detectable / detect) ** 2
        raise CannotTell(
            f"expected to detect a share of {detect:.1%} of the variance of {worst.name!r}, "
            f"{worst.pairs} pairs reach {worst.detectable:.1%}; raise max_count to about "
            f"{more:.0f} or detect"
        )
    skewed = [one for one in report.jumps if not _normal(one, false_alarm)]
    if skewed:
        raise CannotTell(
            f"the pairs of {skewed[0].name!r} are too skewed for a normal tail (skewness "
            f"{skewed[0].skewness:.2g}, {skewed[0].pairs} pairs): a few steep episodes decide; raise "
            "max_count or false_alarm"
        )
    return report


def _normal(one: Jump, false_alarm: float) -> bool:
    """Whether a normal tail is right: |γ| z³/(3 √n) <= 1 where the skewness γ is negative."""
    z = float(scipy.stats.norm.isf(false_alarm))
    return max(-one.skewness, 0.0) * z**3 <= 3 * math.sqrt(one.pairs)


def _stream(
    problem: Problem,
    params: Params,
    of: str,
    begin: int,
    count: int,
    seed: int,
    redraw: int | None,
) -> Iterator[Chunk]:
    """Names of the objectives, and the pairs begin..count−1 of each, chunk by chunk."""
    if of not in get_args(Objectives):
        raise BadValue(f"of should be among {get_args(Objectives)}, got {of!r}")
    count = whole("count", count, LEAST)
    if redraw is not None and whole("redraw", redraw) > problem.horizon:
        raise BadValue(f"redraw should be at most the horizon {problem.horizon}, got {redraw}")
    problem.policy.check(params, problem.dtype)
    fixed = {name: value.detach() for name, value in ordinary(params).items()}
    others = noise_stream(problem, count, _other(seed), CHUNK, begin)
    for noise, other in zip(noise_stream(problem, count, seed, CHUNK, begin), others, strict=True):
        anew = _anew(problem, noise.count, begin, seed, redraw)
        begin += noise.count
        partner = noise._replace(action=torch.where(anew, other.action, noise.action))
        with differentiating():
            names, *first = _values_and_gradients(problem, fixed, noise, of)
            _, *second = _values_and_gradients(problem, fixed, partner, of)
        values, gradients = (torch.stack(both, 1) for both in zip(first, second, strict=True))
        gradients = torch.where(anew, gradients, 0.0).flatten(3)
        yield names, [pairs_of(*each) for each in zip(values, gradients, strict=True)]


def _other(seed: int) -> int:
    """The seed of the stream that noise is drawn anew from."""
    return int(torch.randint(2**62, (), generator=generator("jumps", seed)))


def _anew(
    problem: Problem, count: int, begin: int, seed: int, redraw: int | None
) -> Bool[Tensor, "N T 1"]:
    """Which steps of a pair have noise of their own: a function of seed and number of the pair."""
    steps = problem.horizon
    if redraw is None:
        return torch.ones(count, steps, 1, dtype=torch.bool, device=problem.device)
    firsts: list[Tensor] = []
    for block in range(begin // NOISE_BLOCK, (begin + count - 1) // NOISE_BLOCK + 1):
        draws = generator("jumps", seed, block)
        firsts.append(torch.randint(steps - redraw + 1, (NOISE_BLOCK,), generator=draws))
    skip = begin % NOISE_BLOCK
    first = torch.cat(firsts)[skip : skip + count, None, None]
    time = torch.arange(steps)[:, None]
    return ((time >= first) & (time < first + redraw)).to(problem.device)


def _values_and_gradients(
    problem: Problem, params: Params, noise: Noise, of: str
) -> tuple[tuple[str, ...], Float[Tensor, "K N"], Float[Tensor, "K N T nu"]]:
    """Names of the objectives, their values, and their gradients by the noise of the actions."""
    action = noise.action.detach().clone().requires_grad_()
    path = rollout(problem, problem.bind(params), noise._replace(action=action))
    result = evaluate(problem, path)
    if of == "return":
        objectives = {"return": result.value.sum(-1)}
    elif of == "steps":
        objectives = {f"step {t}": v for t, v in enumerate(result.value.unbind(-1))}
    else:
        terms = values_by_term(problem, path, result)
        objectives = {name: value.sum(-1) for name, value in terms.items()}
    gradients: list[Tensor] = []
    for value in objectives.values():
        if not value.requires_grad:
            gradients.append(torch.zeros_like(action))
            continue
        (gradient,) = torch.autograd.grad(
            value.sum(), [action], retain_graph=True, materialize_grads=True, allow_unused=True
        )
        gradients.append(gradient)
    values = torch.stack([value.detach() for value in objectives.values()])
    return tuple(objectives), values, torch.stack(gradients)
