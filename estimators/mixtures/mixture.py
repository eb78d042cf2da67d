"""A weighted sum of estimators of the same quantity, with weights found from samples or given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import (
    Cost,
    Estimator,
    Params,
    call_weights_of,
    check_groups,
    samples_of,
)
from estimators.mixtures.dealing import Batches, check_batches, dealt, gathered
from estimators.mixtures.rules import Rule
from estimators.mixtures.sources import LEAST, Cross, Independent, Source, check_source
from estimators.mixtures.weights import Level, Weights, check_level, check_weights
from gradlab.foundation.arguments import got
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.noise import Noise
from gradlab.foundation.reading import true
from gradlab.gradients.engines import Context
from gradlab.gradients.samples import Factored, GradientSamples, concatenate
from gradlab.problems.problem import Problem


@dataclass(frozen=True)
class Mixture(Estimator):
    """Σ_k w_k · part_k, with weights that sum to 1 and come from samples by a rule.

    `level` says what has a weight of its own: everything ("global"), a layer (its weight and bias
    together), a parameter, the time step of a policy call ("step"), or each coordinate of what the
    policy gives at a step ("output"). `source` says which episodes the weights come from: `Same`,
    `Cross` (the other folds of a group) or `Independent` (a pilot).
    With `batches="separate"` each group (fold) is dealt out among the k parts in equal shares: a
    part runs on its own episodes alone, its samples count k times, and the mean of a group is the
    sum of w_k times the mean of part k's share.

    Estimates: what its parts estimate; call weights are the mean of theirs, so the parts must agree
    on them (checked).
    Requires: what the parts require; levels "step" and "output" need parts made of policy calls.
    Unbiased when: all parts are and the weights are independent of what they weight (`Cross`,
    `Independent`, `fitted`). Those of `Same` bias the mixture (−9 to −11 % at 8 samples in a toy).
    Batches change neither that nor any expectation: those of their own leave less to each part.
    Cost: all parts, with rollouts that they share once, of separate batches their mean;
    `Independent` its pilot's episodes in every call, `fitted` once.
    Reference: AGPO section 3.3 (inverse-variance weights); AoBG section 4; PIPPS section 3.
    """

    parts: Sequence[Estimator]
    rule: Rule
    level: Level = "global"
    source: Source = field(default_factory=Cross)
    batches: Batches = "shared"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _two_or_more(self.parts))
        if not isinstance(self.rule, Rule) or isinstance(self.rule, type):
            raise BadValue(f"rule should be a rule, got {got(self.rule)}; try InverseVariance()")
        check_level(self.level)
        check_batches(self.batches)
        check_source(self.source)

    @property
    def group(self) -> int:
        return self.source.group(_group(self.parts, self.batches))

    @property
    def label(self) -> str:
        return _label(self.rule.label, self.parts)

    def check(self, problem: Problem) -> None:
        self.source.check()
        _check_parts(self.parts, problem)
        behind = self.source.episodes(_group(self.parts, self.batches))
        _check_spread(behind, len(self.parts), self.batches)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return _call_weights(self.parts, problem)

    def cost(self, problem: Problem) -> Cost:
        return _cost(self.parts, problem, self.batches)

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        rule, block = not isinstance(self.source, Independent), self._block()
        samples = _samples(self.parts, self.level, problem, params, noise, context, rule, block)
        if isinstance(self.source, Independent):
            return _mixed(self.weights(problem, params, noise), samples, block)
        return _mixed(self._found(problem, samples), samples, block)

    def weights(self, problem: Problem, params: Params, noise: Noise) -> Weights:
        """The weights with which this mixture takes its parts on these episodes: one block for each
        group (`Same`) or fold (`Cross`), or a single one (`Independent`, whatever the noise is).

        Raises `BadValue` unless the noise holds whole groups.
        """
        self.check_call(problem, params, noise)
        if isinstance(self.source, Independent):
            pilot = self.source.draw(problem, _group(self.parts, self.batches))
            return self.fitted(problem, params, pilot).weights
        samples = _samples(
            self.parts, self.level, problem, params, noise, Context(), True, self._block()
        )
        return self._found(problem, samples)

    def fitted(self, problem: Problem, params: Params, noise: Noise) -> FixedMixture:
        """The mixture with weights from all episodes of `noise`, a pilot, whatever its source is.

        Unbiased, if its parts are, for episodes that are not the pilot's. The weights stay when the
        parameters change. Raises `BadValue` for fewer than 4 episodes, or broken groups of a part.
        """
        for part in self.parts:
            part.check_call(problem, params, noise)
        self.check(problem)
        if noise.count < LEAST:
            raise BadValue(f"a pilot should have at least {LEAST} episodes, got {noise.count}")
        check_groups(self.label, _group(self.parts, self.batches), noise)
        _check_spread(noise.count, len(self.parts), self.batches)
        block = _unit(self.parts, self.batches)
        samples = _samples(self.parts, self.level, problem, params, noise, Context(), True, block)
        weights = Weights.stack(self.level, [self._ruled(problem, samples)])
        return FixedMixture(self.parts, weights, self.rule.label, self.batches)

    def _block(self) -> int | None:
        """Episodes that are dealt out together, a group or a fold; None if they are shared."""
        if self.batches == "shared" or isinstance(self.source, Independent):
            return _unit(self.parts, self.batches)
        return self.group // len(self.source.origins(self.group))

    def _found(self, problem: Problem, samples: list[GradientSamples]) -> Weights:
        """The weights of every group or fold, in the order of the episodes."""
        assert not isinstance(self.source, Independent)
        group = self.group  # of which each part has its share of samples
        group = group // len(self.parts) if self.batches == "separate" else group
        blocks = []
        for start in range(0, len(samples[0]), group):
            for ranges in self.source.origins(group):
                seen = [
                    concatenate([part.rows(start + begin, start + end) for begin, end in ranges])
                    for part in samples
                ]
                blocks.append(self._ruled(problem, seen))
        return Weights.stack(self.level, blocks)

    def _ruled(self, problem: Problem, seen: list[GradientSamples]) -> dict[str, Tensor]:
        """What the rule makes of samples, checked."""
        weights = self.rule(seen, self.level, problem.horizon, self.batches == "shared")
        who = f"the rule {self.rule.label}"
        check_weights(who, weights, self.level, len(self.parts), problem)
        return weights


@dataclass(frozen=True)
class FixedMixture(Estimator):
    """Σ_k w_k · part_k with given weights of a single block, such as those of `Mixture.fitted`.

    Estimates: what its parts estimate, which must agree on their call weights (checked).
    Requires: what the parts require; levels "step" and "output" need parts made of policy calls.
    Unbiased when: all parts are and the weights do not come from the episodes that they weight.
    Cost: all parts, of separate batches their mean.
    Reference: as `Mixture`.
    """

    parts: Sequence[Estimator]
    weights: Weights
    name: str = "Fixed"  # what stands before the parts in its label
    batches: Batches = "shared"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _two_or_more(self.parts))
        check_batches(self.batches)

    @property
    def group(self) -> int:
        return _group(self.parts, self.batches)

    @property
    def label(self) -> str:
        return _label(self.name, self.parts)

    def check(self, problem: Problem) -> None:
        _check_parts(self.parts, problem)
        level, blocks = self.weights.level, self.weights.blocks
        check_level(level)
        if blocks != 1:
            raise BadShape(f"fixed weights should have one block of episodes, got {blocks}")
        values = {key: value[0] for key, value in self.weights.values.items()}
        check_weights(self.label, values, level, len(self.parts), problem)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return _call_weights(self.parts, problem)

    def cost(self, problem: Problem) -> Cost:
        return _cost(self.parts, problem, self.batches)

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        block, level = _unit(self.parts, self.batches), self.weights.level
        samples = _samples(self.parts, level, problem, params, noise, context, False, block)
        return _mixed(self.weights.to(problem.device), samples, block)


def _two_or_more(parts: object) -> tuple[Estimator, ...]:
    """The parts of a mixture as a tuple, if they are what they should be."""
    known = tuple(parts) if isinstance(parts, Sequence) else ()
    if len(known) < 2 or not all(isinstance(part, Estimator) for part in known):
        raise BadValue(
            f"a mixture should have at least two parts, all of them estimators, got {got(parts)}; "
            "try Mixture((FOG(), PG()), InverseVariance())"
        )
    return known


def _group(parts: Sequence[Estimator], batches: Batches) -> int:
    """Episodes that parts look across, or as many for each of them."""
    shares = len(parts) if batches == "separate" else 1
    return shares * math.lcm(*(part.group for part in parts))


def _unit(parts: Sequence[Estimator], batches: Batches) -> int | None:
    """The fewest episodes that can be dealt out; None if they are shared."""
    return _group(parts, batches) if batches == "separate" else None


def _label(name: str, parts: Sequence[Estimator]) -> str:
    return f"{name}({', '.join(part.label for part in parts)})"


def _check_parts(parts: Sequence[Estimator], problem: Problem) -> None:
    """Raise unless every part can run on the problem and all have the same call weights."""
    for part in parts:
        part.check(problem)
    first, *others = parts
    weights = call_weights_of(first, problem).double()
    for other in others:
        if not torch.allclose(weights, call_weights_of(other, problem).double(), atol=1e-6):
            raise BadValue(
                f"{first.label} and {other.label} estimate different things (their call weights "
                "differ), so no mixture of them is either; mix estimators of the same call "
                "weights, such as FOG, PG, QG(at='all') or tiled NStep"
            )


def _call_weights(parts: Sequence[Estimator], problem: Problem) -> Float[Tensor, " T"]:
    return torch.stack([part.call_weights(problem) for part in parts]).mean(0)


def _check_spread(behind: int, parts: int, batches: Batches) -> None:
    """Raise unless the episodes behind weights leave every part a variance."""
    if batches == "separate" and behind < 2 * parts:
        raise BadValue(
            f"separate batches should leave each of {parts} parts 2 or more of the episodes that "
            f"weights come from, got {behind} for all; try a size of {LEAST * parts}"
        )


def _cost(parts: Sequence[Estimator], problem: Problem, batches: Batches) -> Cost:
    costs = [part.cost(problem) for part in parts]
    if batches == "shared":
        return sum(costs[1:], costs[0])
    steps = sum(cost.environment_steps for cost in costs)
    passes = sum(cost.backward_passes for cost in costs)
    return Cost(steps / len(parts), passes / len(parts))


def _samples(
    parts: Sequence[Estimator],
    level: Level,
    problem: Problem,
    params: Params,
    noise: Noise,
    context: Context,
    rule: bool,
    block: int | None,
) -> list[GradientSamples]:
    """The samples of all parts, of a form that the level can weight.

    On the same episodes, or each on its shares of blocks of `block` episodes. Layer factors of the
    parts are wanted where a `rule` looks at them, or weights by parameter; what is weighted at the
    policy's output goes through the policy as one.
    """
    layers = (rule and level != "output") or level in ("layer", "parameter")
    with differentiating():
        params, noise = ordinary(params), ordinary(noise)
        if block is None:
            samples = samples_of(parts, problem, params, noise, context, layers)
        else:
            alone = Context(layers=layers)
            samples = [
                part.sample(problem, params, own, alone).grouped(part.group)
                for part, own in zip(parts, dealt(noise, len(parts), block), strict=True)
            ]
    if level in ("step", "output"):
        for part, found in zip(parts, samples, strict=True):
            if not isinstance(found, Factored) or true((found.steps < 0).any()):
                raise BadValue(
                    f'level="{level}" needs the time step of every policy call and {part.label} '
                    'does not tell it; use engine="pullback" and steps= when the surrogate calls '
                    "the policy, or another level"
                )
    return samples


def _mixed(
    weights: Weights, samples: Sequence[GradientSamples], block: int | None
) -> GradientSamples:
    """Σ_k w_k g_k of the same episodes; or each sample w_k g_k k times, of blocks dealt out."""
    if block is None:
        return weights.mix(samples)
    if weights.level in ("layer", "parameter"):
        return weights.deal(gathered(samples, block), block // len(samples))
    parts = [weights.scaled(k, part) * len(samples) for k, part in enumerate(samples)]
    return gathered(parts, block)
