"""A critic that follows the policy: V or Q of the discounted task without end, by TD(λ).

Time limits are no ends of the task: the value after the last step of an episode that only ran out
of time is bootstrapped at its own last state. Terminations are ends, and cut it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.critics.episodes import lambda_returns
from gradlab.foundation.arguments import number, whole
from gradlab.foundation.errors import BadValue
from gradlab.policies.normalised import MEAN, standard
from gradlab.policies.perceptron import Perceptron
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, views
from gradlab.rollouts.rollout import Trajectory
from gradlab.training.exploration import Bonus
from gradlab.training.optimiser import ALL, Adam, Tensors, joined, parted, shaped


class Targets(NamedTuple):
    """What a critic is fitted to; rows outside `rows` mean nothing."""

    inputs: Float[Tensor, "N L ni"]
    value: Float[Tensor, "N L"]
    rows: Bool[Tensor, "N L"]

    def flat(self) -> Targets:
        """One after another: segments of any length can then be joined."""
        return Targets(*(part.flatten(0, 1).unsqueeze(1) for part in self))


class SoftSteps(NamedTuple):
    """What the entropy of a segment's policy is worth."""

    bonus: Bonus
    worth: Float[Tensor, "N L"]  # in each of its steps, at the actions that were taken [reward]


@dataclass(frozen=True)
class CriticRecipe:
    """One V (`kind="v"`) or Q network, or several reduced to one value, and how it is fitted.

    After each segment, `passes` times through its rows in `minibatches`, by the mean squared error
    to TD(λ) targets of the target network, which keeps the share `keep` of itself after every
    segment (SHAC's α; ABPT's τ is 1 − keep; 0: no target network). Inputs are observations, as the
    policy standardises them, and flags of events that happen once.

    The targets' values are reduced by `target_reduction`, where it is given (SAPO: the smaller for
    targets, the mean for the policy). With `stop`, passes end once the loss has settled: over the
    last five passes it changed by less than that much per pass on average, up or down (AHAC).
    """

    kind: Literal["v", "q"] = "v"
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "elu"
    layer_norm: bool = True
    members: int = 1
    reduction: Literal["min", "mean"] = "min"
    target_reduction: Literal["min", "mean"] | None = None  # None: the same
    optimiser: Adam = field(default_factory=lambda: Adam(2e-3, (0.7, 0.95), max_norm=1.0))
    passes: int = 16
    minibatches: int = 4
    lam: float = 0.95  # λ of the targets [1]
    keep: float = 0.2  # of the old target network in the new one [1]
    stop: float | None = None  # change of the loss per pass at which passes end [loss]

    def __post_init__(self) -> None:
        if self.kind not in ("v", "q"):
            raise BadValue(f"kind should be 'v' or 'q', got {self.kind!r}")
        for name in ("reduction", "target_reduction"):
            how = getattr(self, name)
            if how not in ("min", "mean") and (how or name == "reduction"):
                raise BadValue(f"{name} should be 'min' or 'mean', got {how!r}")
        if self.stop is not None and not number("stop", self.stop) > 0:
            raise BadValue(f"stop should be positive, got {self.stop}; None runs all passes")
        for name in ("members", "passes", "minibatches"):
            whole(name, getattr(self, name))
        for name in ("lam", "keep"):
            if not 0 <= number(name, getattr(self, name)) <= 1:
                raise BadValue(f"{name} should lie in [0, 1], got {getattr(self, name)}")

    def init(self, problem: Problem, generator: torch.Generator) -> Tensors:
        """Fresh parameters of all members."""
        network = self._network(problem)
        place = {"dtype": problem.dtype, "device": problem.device}
        members = [network.init(generator, **place) for _ in range(self.members)]
        return {f"{i}.{name}": p for i, own in enumerate(members) for name, p in own.items()}

    def critic(self, problem: Problem, params: Tensors) -> Critic:
        """The value functions with these parameters, as constants, for a problem's estimators."""
        fixed = {name: value.detach() for name, value in params.items()}
        if self.kind == "v":
            return Critic(v=lambda view: self.value(problem, fixed, _inputs(problem, view)))
        return Critic(
            q=lambda view, action: self.value(
                problem, fixed, torch.cat([_inputs(problem, view), action], dim=-1)
            )
        )

    def value(
        self,
        problem: Problem,
        params: Tensors,
        inputs: Float[Tensor, "*batch ni"],
        reduction: Literal["min", "mean"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """The members' values, reduced to one; by default as `reduction` says."""
        values = self._each(self._network(problem), params, inputs)
        return values.amin(-1) if (reduction or self.reduction) == "min" else values.mean(-1)

    def targets(
        self,
        problem: Problem,
        policy: BoundPolicy,
        target: Tensors,
        path: Trajectory,
        result: Outcome,
        generator: torch.Generator,
        soft: SoftSteps | None = None,
    ) -> Targets:
        """TD(λ) of every step of a segment that `policy`, frozen, went through.

        V of a Q critic is its value at a fresh action of the policy. With `soft`, what the entropy
        of a step is worth counts as its reward does: V is that of both, and Q of the reward now and
        of both later.
        """
        length = path.action.shape[-2]
        with torch.no_grad():
            seen = views(problem, path, result)
            inputs = _inputs(problem, seen)
            worth, how = 0.0 if soft is None else soft.worth, self.target_reduction
            if self.kind == "v":
                values = self.value(problem, target, inputs, how)
            else:
                shape = (*inputs.shape[:-1], problem.simulator.action_dim)
                fresh = torch.randn(shape, generator=generator, dtype=torch.float64)
                z = policy(seen.obs, range(length + 1), path.carry)
                action = policy.action(policy.latent(z, fresh.to(z)))
                values = self.value(problem, target, torch.cat([inputs, action], dim=-1), how)
                if soft is not None:
                    values = values + soft.bonus.of(policy, z, fresh.to(z))
                taken = torch.cat([path.action, action[..., -1:, :]], dim=-2)
                inputs = torch.cat([inputs, taken], dim=-1)
            alive, reward = result.alive, result.reward + worth
            value = lambda_returns(
                reward, alive, values[..., :-1], problem.discount, self.lam, values[..., -1]
            )
            if self.kind == "q":
                value = value - worth
            return Targets(inputs[..., :-1, :].detach(), value, alive[..., :-1] > 0)

    def fit(
        self,
        problem: Problem,
        params: Tensors,
        memory: Tensors,
        targets: Targets,
        generator: torch.Generator,
        done: float,
    ) -> tuple[Tensors, Tensors, Float[Tensor, ""]]:
        """Parameters and the optimiser's memory after all passes, and the mean loss of the last."""
        inputs, value = targets.inputs[targets.rows], targets.value[targets.rows]
        # of one vector, since a step is as many operations on each tensor as on all of them
        vector, kept = joined(params, memory)
        network = self._network(problem)
        losses: list[Tensor] = []
        history: list[float] = []
        for _ in range(self.passes):
            losses = []
            for rows in self._batches(len(inputs), generator):
                leaf = vector.detach().requires_grad_()
                with torch.enable_grad():
                    found = self._each(network, shaped(leaf, params), inputs[rows])
                    loss = (found - value[rows, None]).square().mean(0).sum()
                (slope,) = torch.autograd.grad(loss, leaf)
                moved, kept, _ = self.optimiser.step({ALL: vector}, {ALL: slope}, kept, done)
                vector = moved[ALL]
                losses.append(loss.detach())
            if self.stop is not None and losses:
                history.append(float(torch.stack(losses).mean()))
                if settled(history, self.stop):
                    break
        params, memory = parted(vector, kept, params)
        return params, memory, torch.stack(losses).mean() if losses else value.new_zeros(())

    def followed(self, target: Tensors, params: Tensors) -> Tensors:
        """The target network after a segment."""
        return {n: torch.lerp(params[n], old, self.keep) for n, old in target.items()}

    def _batches(self, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        """The rows of each minibatch of one pass."""
        order = torch.randperm(count, generator=generator)
        return iter(part for part in order.chunk(self.minibatches) if len(part))

    def _network(self, problem: Problem) -> Perceptron:
        inputs = problem.task.observation_dim + len(_flags(problem))
        inputs += problem.simulator.action_dim if self.kind == "q" else 0
        kind = {"activation": self.activation, "layer_norm": self.layer_norm, "head_gain": 1.0}
        return Perceptron(inputs, 1, self.hidden, **kind)

    def _each(
        self, network: Perceptron, params: Tensors, inputs: Float[Tensor, "*batch ni"]
    ) -> Float[Tensor, "*batch members"]:
        values = []
        for i in range(self.members):
            start = f"{i}."
            own = {n.removeprefix(start): p for n, p in params.items() if n.startswith(start)}
            values.append(network.apply(own, {}, inputs, None)[0])
        return torch.cat(values, dim=-1)


def settled(history: list[float], limit: float) -> bool:
    """Whether the last five losses changed by less than `limit` per pass on average."""
    return len(history) >= 5 and abs(history[-1] - history[-5]) / 4 < limit


def _flags(problem: Problem) -> list[int]:
    """Events that happen once and do not end the episode: a critic must know of them."""
    events = enumerate(problem.task.events)
    return [i for i, event in events if not (event.terminates or event.switches)]


def _inputs(problem: Problem, view: View) -> Float[Tensor, "*batch ni"]:
    """Observations, standardised where the policy's are, and flags."""
    buffers = problem.bind({}).buffers
    obs = standard(buffers, view.obs) if MEAN in buffers else view.obs
    chosen = _flags(problem)
    return torch.cat([obs, *(view.events[..., i : i + 1] for i in chosen)], dim=-1)
