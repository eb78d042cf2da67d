"""Total propagation: two messages mixed at every step of one backward pass.

The pathwise message at a node is what comes back through the simulator. The likelihood-ratio
message is the score of what is random at that node times the return from there on. Both have the
same expectation where the return is continuous, and their mixture is what goes on backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Cost, Params, TwoPassEstimator
from estimators.mixtures.rules import inverse_variance_shares
from estimators.mixtures.sources import Cross, Independent, Ranges, Source, check_source
from gradlab.foundation.arguments import number, whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.noise import Noise
from gradlab.foundation.tensors import flags
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.relay import Mixed, Node, mixed
from gradlab.rollouts.rollout import Trajectory, rollout


class Sent(NamedTuple):
    """What the nodes of every episode send back beside the pathwise message, as constants."""

    message: Float[Tensor, "N T n"]  # of the likelihood ratio
    weight: Float[Tensor, "N T m"]  # of that message; m is n, or 1 for all coordinates


@dataclass(frozen=True)
class TotalPropagation(TwoPassEstimator):
    """PIPPS: k·likelihood ratio + (1 − k)·pathwise at a node of every step, all the way back.

    k_t = σ²_path/(σ²_path + σ²_ratio), variances over episodes of the messages at step t, where the
    pathwise one is made of messages that are mixed already. `node="action"` mixes at the law of the
    action, z = (mean, log std): the ratio's message is ∇_z log π(u_t)·(G_t − b_t), so that a
    squashed action and a learned std are exact. `node="state"` mixes at s_t, t ≥ 1, whose score is
    that of the process noise before it; the reward of step t − 1 stays pathwise. b_t is the mean
    G_t of the other episodes of the group, or of the pilot.

    Estimates: ∇J; call weights 1.
    Requires: nothing at the action. At the state: process noise that is added to every component
    of the state with a constant factor (probed at initial states), no memory, no event that ends
    episodes, and hard events if any.
    Unbiased when: rewards and dynamics are continuous in the noise and the weights come from other
    episodes (`Cross`, the default, `Independent`, or a given `weight`). Those of `Same`, as
    published, bias it, most in small groups. At hard events it is biased as far as k < 1.
    Cost: 2T environment steps; two backward passes, or one and one for each fold if there are more
    than two.
    Reference: PIPPS, Parmas et al. 2018, section 3; per coordinate: Parmas et al. 2023 (TPX).
    """

    node: Literal["action", "state"] = "action"
    per_coordinate: bool = False  # a weight for each component of the node, or one for all
    every: int = 1  # k is found anew at every such step, counted from the last, and held between
    source: Source = field(default_factory=Cross)
    weight: float | None = None  # k itself, if given: 0 is FOG, 1 the likelihood ratio

    @property
    def group(self) -> int:
        return self.source.group(1)

    @property
    def label(self) -> str:
        form = ", per coordinate" if self.per_coordinate else ""
        return f"TotalPropagation({self.node}{form})"

    def check(self, problem: Problem) -> None:
        if self.node not in ("action", "state"):
            raise BadValue(f"TotalPropagation node must be 'action' or 'state', got {self.node!r}")
        whole("every", self.every)
        if self.weight is not None and not 0 <= number("weight", self.weight) <= 1:
            raise BadValue(f"weight must lie in [0, 1], got {self.weight}; None finds one")
        check_source(self.source)
        self.source.check()
        if self.node == "state":
            noise_factor(problem)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return torch.ones(problem.horizon, dtype=problem.dtype)

    def cost(self, problem: Problem) -> Cost:
        passes = 0 if isinstance(self.source, Independent) else 1
        if isinstance(self.source, Cross) and self.source.folds > 2:
            passes = self.source.folds
        return Cost(2 * problem.horizon, 1 + passes)

    def weights(self, problem: Problem, params: Params, noise: Noise) -> Float[Tensor, "B T m"]:
        """k of every step, with which a call on these episodes takes the likelihood ratio.

        One row for each group (`Same`) or fold (`Cross`), a single one for `Independent` or a given
        weight; m is 1, or the size of the node `per_coordinate`. At the state of step 0 it is 0:
        nothing is behind it. Raises `BadValue` unless the noise holds whole groups.
        """
        self.check_call(problem, params, noise)
        with differentiating():
            policy = problem.bind(ordinary(params)).frozen
            return self._found(problem, policy, ordinary(noise))[1]

    def first_pass(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Sent:
        message, weight = self._found(problem, policy, noise)
        return Sent(message, weight.repeat_interleave(noise.count // len(weight), 0))

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise, given: Any
    ) -> Float[Tensor, "*batch"]:
        path = rollout(problem, policy, noise, relay=_Sending(self._stands, given))
        total = evaluate(problem, path).value.sum(-1)
        # a node that no reward depends on sends its message all the same
        nodes = path.output if self.node == "action" else path.before
        never = torch.zeros_like(nodes, dtype=torch.bool)
        return total + torch.where(never, nodes, 0.0).sum((-1, -2))

    @property
    def _stands(self) -> Node:
        """Where its relays stand."""
        return "output" if self.node == "action" else "state"

    def _found(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> tuple[Tensor, Tensor]:
        """Messages [N, T, n] of the likelihood ratio and their weights [B, T, m]."""
        if isinstance(self.source, Independent):
            pilot = _Recording(problem, policy, self.source.draw(problem, 1), self._stands)
            every = [[(0, len(pilot.to_go))]]
            own = _Recording(problem, policy, noise, self._stands)
            message = own.score * (own.to_go - pilot.to_go.mean(0))[..., None]
            return message, self._weights(pilot, len(pilot.to_go), every)
        recording = _Recording(problem, policy, noise, self._stands)
        message = recording.messages(self.group, [(0, self.group)]).flatten(0, 1)
        return message, self._weights(recording, self.group, self.source.origins(self.group))

    def _weights(
        self, recording: _Recording, group: int, origins: Sequence[Ranges]
    ) -> Float[Tensor, "B T m"]:
        """The weights of every block of every group, each from the episodes of its origin."""
        if self.weight is not None:
            return recording.to_go.new_full((1, recording.to_go.shape[-1], 1), self.weight)
        if len(origins) == 2:  # an episode tells of one fold alone: one pass for both, and exchange
            half = group // 2
            both = recording.weights(half, [(0, half)], self.every, self.per_coordinate)
            return both.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
        blocks = [
            recording.weights(group, ranges, self.every, self.per_coordinate) for ranges in origins
        ]
        return torch.stack(blocks, dim=1).flatten(0, 1)


@dataclass(frozen=True)
class _Sending:
    """A relay that mixes given messages in."""

    node: Node
    given: Sent

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)

    def __call__(self, step: int, node: Node, value: Tensor) -> Tensor:
        message, weight = (part[..., step, :] for part in self.given)
        return Mixed.apply(value, message, weight)


class _Recording:
    """A rollout of a frozen policy whose backward passes mix as they go, and tell the weights.

    It is the relay of its own rollout. A pass looks at some episodes of every group; what it finds
    does not depend on the others.
    """

    def __init__(self, problem: Problem, policy: BoundPolicy, noise: Noise, node: Node) -> None:
        self.nodes: tuple[Node, ...] = (node,)
        self._passed: list[Tensor] = []
        # several backward passes go through one graph, which compiled code does not promise
        problem = problem.replace(compile=False) if problem.compile else problem
        with torch.enable_grad():
            path = rollout(problem, policy, noise, relay=self)
            result = evaluate(problem, path)
            self._total = result.value.sum()
        self.to_go = result.to_go().detach()  # [N, T]
        self.score = _score(problem, policy, path, noise, node)  # [N, T, n]
        # a std that is not learned has a message that leads nowhere
        fixed = node == "output" and not isinstance(policy.policy.head.std, str)
        self._counted = problem.policy.action_dim if fixed else self.score.shape[-1]

    def __call__(self, step: int, node: Node, value: Tensor) -> Tensor:
        passed = value.clone() if value.requires_grad else value.detach().requires_grad_()
        self._passed.append(passed)
        return passed

    def messages(self, group: int, ranges: Ranges) -> Float[Tensor, "G group T n"]:
        """Score times (G_t − the mean G_t of the other episodes within `ranges` of the group)."""
        to_go = self.to_go.unflatten(0, (-1, group))
        inside = [any(begin <= i < end for begin, end in ranges) for i in range(group)]
        within = flags(inside, to_go)[:, None]
        own = torch.where(within, to_go, 0.0)
        others = torch.where(within, sum(inside) - 1.0, float(sum(inside)))
        baseline = (own.sum(1, keepdim=True) - own) / others.to(to_go)
        return self.score.unflatten(0, (-1, group)) * (to_go - baseline)[..., None]

    def weights(
        self, group: int, ranges: Ranges, every: int, per_coordinate: bool
    ) -> Float[Tensor, "G T m"]:
        """k of every group and step from the episodes within `ranges`, by one backward pass."""
        message = self.messages(group, ranges)
        last = len(self._passed) - 1
        held = [last - (last - t) // every * every for t in range(last + 1)]
        found: dict[int, Tensor] = {}

        def mix(t: int, back: Tensor) -> Tensor:
            """What goes on from step t, found when all that comes after it is mixed."""
            pair = message[:, :, t], back.unflatten(0, (-1, group))
            if held[t] == t:
                ratio, path = (torch.cat([part[:, b:e] for b, e in ranges], 1) for part in pair)
                counted = None if per_coordinate else self._counted
                found[t] = ratio_weight(ratio, path, counted)
            if t == 0 and self.nodes == ("state",):  # no noise before it, and nothing behind it
                found[t] = torch.zeros_like(found[held[t]])
            k = found[t if t in found else held[t]]
            return mixed(pair[1], pair[0], k[:, None].to(back)).flatten(0, 1)

        hooks = [part.register_hook(partial(mix, t)) for t, part in enumerate(self._passed)]
        # messages of zero at the nodes themselves: those that no reward depends on mix as well
        zeros = [torch.zeros_like(part) for part in self._passed]
        ends, sent = [*self._passed], [*zeros]
        if self._total.requires_grad:
            ends, sent = [self._total, *ends], [torch.ones_like(self._total), *sent]
        try:
            torch.autograd.grad(ends, self._passed, sent, retain_graph=True)
        finally:
            for hook in hooks:
                hook.remove()
        chosen = [found[t if t in found else held[t]] for t in range(last + 1)]
        return torch.stack(chosen, dim=1).to(message)


def ratio_weight(
    ratio: Float[Tensor, "G s n"], path: Float[Tensor, "G s n"], counted: int | None
) -> Float[Tensor, "G m"]:
    """σ²_path/(σ²_path + σ²_ratio) over s episodes, in float64.

    Of each coordinate, or of the traces over the first `counted` of them. 1 where the pathwise
    messages alone are not finite.
    """
    variance = torch.stack([part.double().var(1) for part in (ratio, path)])
    if counted is not None:
        variance = variance[..., :counted].sum(-1, keepdim=True)
    exploded = variance[0].isfinite() & ~variance[1].isfinite()
    return torch.where(exploded, 1.0, inverse_variance_shares(variance)[0])


def _score(
    problem: Problem, policy: BoundPolicy, path: Trajectory, noise: Noise, node: Node
) -> Float[Tensor, "N T n"]:
    """∇ log density of what is random at the node; 0 where nothing is."""
    if node == "output":
        z = path.output.detach().requires_grad_()
        with torch.enable_grad():
            log_prob = policy.log_prob_held(z, noise.action)
            (score,) = torch.autograd.grad(log_prob.sum(), z)
        return torch.where(path.ended[..., :-1, None], 0.0, score)
    # s' = m + w F, so that ∇_m log p(s') = w F⁻ᵀ
    before = path.process[..., :-1, :].detach() @ torch.linalg.inv(noise_factor(problem)).mT
    return torch.cat([torch.zeros_like(path.before[..., :1, :]), before], dim=-2).detach()


def noise_factor(problem: Problem) -> Float[Tensor, "ns ns"]:
    """F of s' = m(s, a) + w F, with process noise w of a state's score.

    Raises `BadValue` where the state has no such score, or has one that does not tell of memory and
    ends of episodes.
    """
    who = f"TotalPropagation(node='state') on {problem.name}"
    hint = "use node='action'"
    simulator, events = problem.simulator, problem.task.events
    if problem.task.memory_dim or any(event.terminates for event in events):
        raise BadValue(f"{who} needs a task without memory and ends of episodes; {hint}")
    if events and not problem.hard:
        raise BadValue(f"{who} needs hard events, got {problem.event_step!r}; {hint}")
    size = simulator.state_dim
    if simulator.noise_dim != size:
        raise BadValue(
            f"{who} needs process noise on all {size} components of the state, got "
            f"{simulator.noise_dim} random numbers a step; {hint}"
        )
    draw = problem.draw(8, torch.Generator().manual_seed(0))
    state, action, process = problem.start(draw).state, draw.action[:, 0], draw.process[:, 0]

    def step(noise: Tensor, rows: slice) -> Tensor:
        count = len(noise)
        return simulator.step(state[rows].expand(count, -1), action[rows].expand(count, -1), noise)

    with torch.no_grad():
        rest = step(torch.zeros_like(process), slice(None))
        unit = torch.eye(size, dtype=problem.dtype, device=problem.device)
        factor = step(unit, slice(0, 1)) - rest[:1]
        moved = step(2 * process, slice(None))
        gap = (moved - rest - 2 * process @ factor).abs().max()
        rounding = 1e3 * torch.finfo(problem.dtype).eps * (rest.abs().max() + moved.abs().max())
        if not bool(gap <= rounding) or int(torch.linalg.matrix_rank(factor)) < size:
            raise BadValue(
                f"{who} needs process noise that is added to every component of the state with a "
                f"constant factor; {hint}"
            )
    return factor
