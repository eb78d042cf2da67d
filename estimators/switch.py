"""FOG or PG, as a test says: where the return jumps, the pathwise gradient is left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Cost, Estimator, Params, call_weights_of, samples_of
from estimators.mixtures.rules import inverse_variance_shares, variances
from estimators.mixtures.sources import LEAST, Independent, Same, Source, check_source
from estimators.mixtures.weights import Weights
from estimators.pathwise import FOG
from estimators.score import PG
from gradlab.foundation.arguments import number, whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.memo import Memo
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.noise import Noise
from gradlab.gradients.engines import Context
from gradlab.gradients.samples import Factored, GradientSamples, concatenate
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from gradlab.statistics.jumps import LEAST as PAIRS
from gradlab.statistics.jumps import Pairs, jump, pairs_of

Range: TypeAlias = tuple[int, int]  # (begin, end) of a run of episodes


class Seen(NamedTuple):
    """What the test and the variances look at, of every episode."""

    samples: list[GradientSamples]  # of FOG and of the other part
    value: Float[Tensor, " N"]  # f, the return
    gradient: Float[Tensor, "N d"]  # ∇_ε f, as FOG sees it, by the actions' noise ε
    pairs: Pairs | None  # with the action noise of another episode, for test="jump"


class Tests(NamedTuple):
    """What the test said of every group: FOG takes part where `unseen` is at most `allowed`."""

    unseen: Float[Tensor, " B"]  # D/(2 Var f), the share of the variance that FOG does not see
    allowed: Float[Tensor, " B"]  # c ("ddcg"); what is significant at `level` ("jump")


@dataclass(frozen=True)
class Switch(Estimator):
    """An inverse-variance mixture of FOG and PG where the return passes a test, and PG elsewhere.

    With f the return as a function of the standard normal noise ε of all actions, v1 = tr Cov ∇_ε f
    and the means and variances over a group of episodes, `test="ddcg"` takes FOG in if

        v1 >= 2 (1 − c) Var f − 2 ‖mean ∇_ε f‖²,    that is    D <= 2 c Var f,

    D as in `gradlab/statistics/jumps.py`; c absorbs sampling error. Var f holds what random starts
    contribute, of which ∇_ε f knows nothing: on problems with such starts the test leans to PG.
    `test="jump"` has no constant and holds the starts: episodes of a group are paired, each runs
    again with the other's action noise, and FOG is left out if D > 0 is significant at `level`.

    `source` says which episodes the test and the variances look at, and how many share them.

    Estimates: ∇J; call weights 1.
    Requires: nothing.
    Unbiased when: FOG is, and the test and weights come from other episodes than they weight, as
    with `Cross` and `Independent`. Of `Same`, as published and the default, they come from the same
    ones, which biases the mixture (−9 to −11 % at 8 samples in a toy). A test that does not see a
    jump leaves FOG's bias in the mixture.
    Cost: FOG and PG; `test="jump"` another rollout and backward pass of FOG on top.
    Reference: DDCG (arXiv 2604.18161) eq. 8 and 14, c = 0.3 there; `test="jump"` is ours.
    """

    test: Literal["ddcg", "jump"] = "ddcg"
    c: float = 0.3  # [1]
    level: float = 0.05  # of test="jump" [1]
    source: Source = field(default_factory=lambda: Same(64))
    zeroth: Estimator = field(default_factory=PG)

    def __post_init__(self) -> None:
        check_source(self.source, "try source=Same(64)")
        self.source.check()
        if self.test not in ("ddcg", "jump"):
            raise BadValue(f"test should be 'ddcg' or 'jump', got {self.test!r}")
        if not 0 <= number("c", self.c) <= 1:
            raise BadValue(f"c should lie in [0, 1], got {self.c}; 0.3 is as published")
        if not 0 < number("level", self.level) < 1:
            raise BadValue(f"level should lie in (0, 1), got {self.level}; try 0.05")
        # couples of episodes are what test="jump" counts
        least = 2 * (PAIRS if self.test == "jump" else LEAST)
        whole("the episodes behind a test", self.source.episodes(self._unit), least)

    @property
    def _unit(self) -> int:
        """Episodes that cannot be parted: those of a group of `zeroth`, or of a couple."""
        return math.lcm(self.zeroth.group, 2)

    @property
    def group(self) -> int:
        if isinstance(self.source, Independent):
            return self.zeroth.group
        return self.source.group(self._unit)

    @property
    def label(self) -> str:
        return f"Switch({self.test}, {self.zeroth.label})"

    def check(self, problem: Problem) -> None:
        FOG().check(problem)
        self.zeroth.check(problem)
        if not torch.allclose(call_weights_of(self.zeroth, problem), self.call_weights(problem)):
            raise BadValue(
                f"Switch goes over to an estimator of ∇J, whose call weights are 1; "
                f"{self.zeroth.label} has others; try PG()"
            )

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return torch.ones(problem.horizon, dtype=problem.dtype)

    def cost(self, problem: Problem) -> Cost:
        parts = FOG().cost(problem) + self.zeroth.cost(problem)
        return parts + Cost(problem.horizon, 1) if self.test == "jump" else parts

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        seen = self._seen(problem, params, noise, context)
        samples = seen.samples
        if isinstance(self.source, Independent):
            parts = FOG(), self.zeroth
            samples = samples_of(parts, problem, params, noise, context, layers=False)
        return self._weights(seen).mix(samples)

    def weights(self, problem: Problem, params: Params, noise: Noise) -> Weights:
        """Weights of FOG and of the other part: one block for each group (`Same`) or fold
        (`Cross`), or a single one (`Independent`, whatever the noise is).

        Raises `BadValue` unless the noise holds whole groups.
        """
        self.check_call(problem, params, noise)
        return self._weights(self._seen(problem, params, noise, Context()))

    def tests(self, problem: Problem, params: Params, noise: Noise) -> Tests:
        """What the test says of every block of `weights`. Raises `BadValue` for broken groups."""
        self.check_call(problem, params, noise)
        return self._tests(self._seen(problem, params, noise, Context()))

    def _seen(self, problem: Problem, params: Params, noise: Noise, context: Context) -> Seen:
        """Of the episodes of `noise`, or of the pilot."""
        if isinstance(self.source, Independent):
            noise, context = self.source.draw(problem, self._unit), Context()
        context = Context(Memo() if context.memo is None else context.memo, context.layers)
        parts = FOG(), self.zeroth
        with differentiating():
            params, noise = ordinary(params), ordinary(noise)
            samples = samples_of(parts, problem, params, noise, context, layers=True)
            fog = samples[0]
            assert isinstance(fog, Factored)
            frozen = problem.bind(params, memo=context.memo).frozen
            with torch.no_grad():
                path = rollout(problem, frozen, noise)
                value = evaluate(problem, path).value.sum(-1)
            # u = mean + std ε: what comes back at the mean, times std, is the gradient by ε
            nu = problem.simulator.action_dim
            std = path.output[..., nu:].exp()
            gradient = torch.zeros_like(std)
            if fog.cotangent.shape[1]:  # else nothing of the return depends on the policy
                gradient = fog.cotangent[..., :nu] * std
            gradient = gradient.flatten(1)
            if self.test == "ddcg":
                return Seen(samples, value, gradient, None)
            pairs = _swapped(problem, params, noise, value, gradient)
            return Seen(samples, value, gradient, pairs)

    def _origins(self, seen: Seen) -> list[list[Range]]:
        """The episodes that each block of weights comes from."""
        count = len(seen.value)
        if isinstance(self.source, Independent):
            return [[(0, count)]]
        size = self.group
        within = self.source.origins(size)
        return [
            [(start + begin, start + end) for begin, end in ranges]
            for start in range(0, count, size)
            for ranges in within
        ]

    def _weights(self, seen: Seen) -> Weights:
        tests, blocks = self._tests(seen), []
        trusted = (tests.unseen <= tests.allowed).unbind(0)
        for ranges, fog_too in zip(self._origins(seen), trusted, strict=True):
            rows = [concatenate([part.rows(*each) for each in ranges]) for part in seen.samples]
            variance = variances(rows, "global", 0)[""]
            alone = torch.stack([torch.zeros_like(variance[0]), torch.ones_like(variance[0])])
            blocks.append({"": torch.where(fog_too, inverse_variance_shares(variance), alone)})
        return Weights.stack("global", blocks)

    def _tests(self, seen: Seen) -> Tests:
        origins = self._origins(seen)
        if seen.pairs is None:
            value, gradient = (
                _blocks(part, origins).double() for part in (seen.value, seen.gradient)
            )
            twice = 2 * value.var(1)
            d = twice - 2 * gradient.mean(1).square().sum(-1) - gradient.var(1).sum(-1)
            unseen = torch.where(twice == 0, 0.0, d / torch.where(twice == 0, 1.0, twice))
            return Tests(unseen, torch.full_like(unseen, self.c))
        unseen, allowed = [], []
        for rows in zip(*(_blocks(part, origins).unbind(0) for part in seen.pairs), strict=True):
            # the two of a couple are not independent of each other: their mean is one replicate
            couples = Pairs(*(part.view(-1, 2).mean(1) for part in rows))
            finite = bool(torch.stack(couples).isfinite().all())
            found = jump("return", couples, self.level) if finite else None
            unseen.append(math.nan if found is None else found.share.estimate)
            trusted = found is not None and found.p_value > self.level
            allowed.append(math.inf if trusted else -math.inf)
        cast = {"dtype": torch.float64, "device": seen.value.device}
        return Tests(torch.tensor(unseen, **cast), torch.tensor(allowed, **cast))


def _blocks(part: Float[Tensor, "N *size"], origins: list[list[Range]]) -> Tensor:
    """The episodes that each block of weights comes from, [B, M, *size]."""
    return torch.stack([torch.cat([part[a:b] for a, b in ranges]) for ranges in origins])


def _swapped(
    problem: Problem,
    params: Params,
    noise: Noise,
    value: Float[Tensor, " N"],
    gradient: Float[Tensor, "N d"],
) -> Pairs:
    """Episodes 2j and 2j + 1 run again, each with the action noise of the other."""
    others = torch.arange(noise.count, device=noise.action.device).view(-1, 2).flip(1).flatten()
    action = noise.action[others].clone().requires_grad_()
    path = rollout(problem, problem.bind(params).frozen, noise._replace(action=action))
    again = evaluate(problem, path).value.sum(-1)
    back = torch.zeros_like(action)
    if again.requires_grad:
        (back,) = torch.autograd.grad(
            again.sum(), [action], materialize_grads=True, allow_unused=True
        )
    values = torch.stack([value, again.detach()])
    return pairs_of(values, torch.stack([gradient, back.flatten(1)]))
