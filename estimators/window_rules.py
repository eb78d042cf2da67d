"""How long windows of backpropagation should be, found from what the episodes themselves show.

A rule is the `window` of `TruncatedBPTT`: it says where the state of each episode is cut, in a
first pass without gradients of its own, before the surrogate is built.

- `JacobianGrowth` ends a window where what flows back through it has grown past a limit, step by
  step for every episode, or for all episodes of a group alike.
- `JumpWindow` takes the longest of some lengths whose windows a test finds no jump in.

Cuts that come from the very noise that they cut are correlated with what they weight. Those of
`JacobianGrowth` are *stopping times*: whether s_t is cut is known when s_t is reached. Then an
exact V after every window keeps the estimate unbiased: with δ_k = r_k + γ V(s_{k+1}) − V(s_k) a
window that ends at τ is worth V(s_w) + Σ_k 1[k < τ] δ_k, and the derivative of δ_k by s_k has mean
0 whatever the window knows by then. `JumpWindow` looks at whole windows, as later noise has them:
of `Same` episodes that is a bias of its own, which `Cross` and `Independent` do not have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from estimators.base import Cost, check_window
from estimators.mixtures.sources import Independent, Same, Source, check_source
from gradlab.events import window_begins
from gradlab.foundation.arguments import number, whole
from gradlab.foundation.errors import BadValue, Missing
from gradlab.foundation.moment import concatenate as joined_moments
from gradlab.foundation.noise import Noise
from gradlab.foundation.noise import concatenate as joined_noise
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.problems.stiffness import Stiff
from gradlab.rollouts.outcome import evaluate, moment_at
from gradlab.rollouts.rollout import rollout
from gradlab.statistics.jumps import LEAST as PAIRS
from gradlab.statistics.jumps import Pairs, jump, pairs_of

Measure = Literal["product", "step", "contact"]


class Windows(NamedTuple):
    """Where windows begin: a row for each of B blocks of episodes that are cut alike."""

    cut: Bool[Tensor, "B T"]  # the state before step t is a constant for what follows; False at 0
    measured: Float[Tensor, "B M"]  # what the rule looked at: `JacobianGrowth`: the growth when s_t
    # is reached (M = T); `JumpWindow`: the p-value of no jump, shortest length first

    @property
    def lengths(self) -> Float[Tensor, "B T"]:
        """The length of the window that each step is in [steps]."""
        begin = window_begins(self.cut)
        same = begin.unsqueeze(-1) == begin.unsqueeze(-2)
        return same.sum(-1).to(self.measured.dtype)


@runtime_checkable
class WindowRule(Protocol):
    """Chooses windows from episodes."""

    @property
    def group(self) -> int:
        """Episodes that look at each other."""
        ...

    @property
    def label(self) -> str:
        """A few words for tables."""
        ...

    def check(self, problem: Problem) -> None:
        """Raise `BadValue` or `Missing` where it cannot be used."""
        ...

    def windows(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Windows:
        """The windows of every block; `policy` is frozen."""
        ...

    def cost(self, problem: Problem) -> Cost:
        """What choosing costs, beside what is done with the windows."""
        ...


def _origins(source: Source, group: int, count: int) -> list[list[tuple[int, int]]]:
    """The episodes that each block of windows comes from, all of a pilot's for its only one."""
    if isinstance(source, Independent):
        return [[(0, count)]]
    return [
        [(begin + a, begin + b) for a, b in ranges]
        for begin in range(0, count, group)
        for ranges in source.origins(group)
    ]


@dataclass(frozen=True)
class JacobianGrowth:
    """A window ends at the first state where growth is not below `limit`, and begins anew there.

    `measure="product"`: of a window that begins at w, growth at s_t is ‖∂s_t/∂s_{w+1}‖_F/√n, of the
    closed loop with n numbers of state: by how much, in root mean square, a cotangent of random
    direction at s_t is longer at the first state that the window's first action moves. It is 1
    after one step. "step": the same of the last step alone, ∂s_t/∂s_{t−1}. "contact": AHAC's c_t of
    the last step. Windows have at least `shortest` and at most `longest` steps, but for the last.
    `limit=0` is a fixed window of `shortest` steps, `limit=inf` one of `longest`, or whole episodes
    while growth is finite. Growth has the units of the state's components, which it does not weigh.
    Gradients through memory or through what a recurrent policy carries are not in it.

    `source=None`: every episode has windows of its own. `Same`, `Cross`, `Independent`: all of a
    block have the same, by the root mean square of growth over the episodes that are alive; that
    too is known when s_t is reached.

    Reference: arXiv 2606.21525 names it as future work; "step" and "contact": AHAC (Georgiev et al.
    2024), which shortens the segments of all episodes instead. The stopping times are ours.
    """

    limit: float
    shortest: int = 1  # [steps]
    longest: int | None = None  # None: the horizon [steps]
    measure: Measure = "product"
    source: Source | None = None

    def __post_init__(self) -> None:
        if not number("limit", self.limit) >= 0:
            raise BadValue(f"limit should be at least 0, got {self.limit}; try limit=10.0")
        if self.longest is not None and not whole("shortest", self.shortest) <= self.longest:
            raise BadValue(
                f"longest should be at least shortest, got {self.longest} and {self.shortest}"
            )
        whole("shortest", self.shortest)
        if self.measure not in get_args(Measure):
            raise BadValue(f"measure should be among {get_args(Measure)}, got {self.measure!r}")
        if self.source is not None:
            check_source(self.source)
            self.source.check()

    @property
    def group(self) -> int:
        return 1 if self.source is None else self.source.group(1)

    @property
    def label(self) -> str:
        kind = "growth" if self.measure == "product" else self.measure
        return f"{kind} {self.limit:g}"

    def check(self, problem: Problem) -> None:
        for steps in (self.shortest, self.longest):
            if steps is not None:
                check_window(steps, problem, "JacobianGrowth")
        if self.measure == "contact" and not isinstance(problem.simulator, Stiff):
            raise Missing(
                f"JacobianGrowth(measure='contact') needs a simulator with contact, {problem.name} "
                "has none; try measure='product'"
            )

    def windows(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Windows:
        if isinstance(self.source, Independent):
            noise = self.source.draw(problem, 1)
        factors, alive = self._factors(problem, policy, noise)
        if self.source is None:
            return self._cut(factors[:, None], alive[:, None])
        blocks = [
            [torch.cat([part[a:b] for a, b in ranges]) for part in (factors, alive)]
            for ranges in _origins(self.source, self.group, noise.count)
        ]
        return self._cut(*(torch.stack(part) for part in zip(*blocks, strict=True)))

    def cost(self, problem: Problem) -> Cost:
        steps, passes = problem.horizon, 0
        if self.measure != "contact":
            steps, passes = 2 * problem.horizon, problem.simulator.state_dim
        return Cost(steps, passes)

    def _factors(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> tuple[Float[Tensor, "N T n n"], Bool[Tensor, "N T_plus_1"]]:
        """The step Jacobians, or c_t as [N, T, 1, 1]; and who is alive."""
        if self.measure != "contact":
            return step_jacobians(problem, policy, noise)
        path = rollout(problem, policy, noise)
        assert isinstance(problem.simulator, Stiff)
        stiff = problem.simulator.stiffness(path.before, path.action)
        return stiff.double()[..., None, None], ~path.ended

    def _cut(
        self, factors: Float[Tensor, "B M T n n"], alive: Bool[Tensor, "B M T_plus_1"]
    ) -> Windows:
        """The windows of B blocks, each from M episodes."""
        blocks, _, horizon, size, _ = factors.shape
        longest = horizon if self.longest is None else self.longest
        one = torch.eye(size, dtype=factors.dtype, device=factors.device)
        product = one.expand(factors[:, :, 0].shape)
        begin = torch.zeros(blocks, dtype=torch.long, device=factors.device)
        none = torch.zeros_like(begin, dtype=torch.bool)
        cuts, grown = [none], [factors.new_ones(blocks)]
        for t in range(1, horizon):
            last = factors[:, :, t - 1]
            first = torch.eq(begin, t - 1)[:, None, None, None]
            product = torch.where(first, one, last @ product)
            growth = _root_mean(product if self.measure == "product" else last, alive[..., t])
            long = (t - begin >= self.shortest) & ~(growth < self.limit)
            cut = long | (t - begin >= longest)
            begin = torch.where(cut, t, begin)
            cuts.append(cut)
            grown.append(growth)
        return Windows(torch.stack(cuts, dim=-1), torch.stack(grown, dim=-1))


def _root_mean(factor: Float[Tensor, "B M n n"], alive: Bool[Tensor, "B M"]) -> Float[Tensor, " B"]:
    """‖·‖_F/√n in root mean square over the episodes that are alive; 0 if none is."""
    square = factor.square().sum((-2, -1)) / factor.shape[-1]
    total = torch.where(alive, square, 0.0).sum(-1)
    return (total / alive.sum(-1).clamp(min=1)).sqrt()


def step_jacobians(
    problem: Problem, policy: BoundPolicy, noise: Noise
) -> tuple[Float[Tensor, "N T n n"], Bool[Tensor, "N T_plus_1"]]:
    """∂s_{t+1}/∂s_t of the closed loop in every step of every episode, float64, and who is alive.

    Memory and what a recurrent policy carries are constants; after its end an episode has 0. All
    steps of all episodes are one batch of single steps, and n backward passes through it.
    """
    policy, problem = replace(policy, memo=None), problem.eager
    with torch.no_grad():
        path = rollout(problem, policy, noise)
        result = evaluate(problem, path)
    times = range(problem.horizon)
    begin = joined_moments([moment_at(path, result, t) for t in times]).detach()
    single = joined_noise([noise.during(t, t + 1) for t in times])
    state = begin.state.requires_grad_()
    with torch.enable_grad():
        after = rollout(problem, policy, single, start=begin, length=1).state[..., 1, :]
        rows = [_slope(after[:, i].sum(), state) for i in range(after.shape[-1])]
    flat = torch.stack(rows, dim=-2).double()
    return flat.unflatten(0, (len(times), -1)).transpose(0, 1), ~path.ended


def _slope(total: Float[Tensor, ""], by: Tensor) -> Tensor:
    """∂total/∂by, 0 where nothing depends on it."""
    if not total.requires_grad:
        return torch.zeros_like(by)
    (slope,) = torch.autograd.grad(
        total, [by], retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return slope


@dataclass(frozen=True)
class JumpWindow:
    """The longest of `lengths` whose windows `gradlab.statistics.jumps` finds no jump in.

    The objective of a length n is what a window of n steps earns, from the state where it begins,
    as a function of its actions' noise; windows follow each other from step 0. Episodes are paired,
    and every window runs again with the other's noise. D is summed over windows. Lengths are tried
    from the longest, each at `level`; where all of them jump, or are not finite, the shortest is
    taken. None is the horizon.

    A test that does not see a jump, as with few episodes or where the objective is curved, takes
    the longer window. `source` says which episodes are tested, 16 at least, and how many share the
    answer; of `Same` the choice is correlated with the noise that it is for.

    Reference: the test is that of `gradlab.statistics.jumps`; choosing windows by it is ours.
    """

    lengths: tuple[int | None, ...] = (10, 25, 50, None)  # [steps]
    level: float = 0.05  # of each test [1]
    source: Source = field(default_factory=lambda: Same(64))

    def __post_init__(self) -> None:
        if not 0 < number("level", self.level) < 1:
            raise BadValue(f"level should lie in (0, 1), got {self.level}; try 0.05")
        known = [whole("a length of JumpWindow", n) for n in self.lengths if n is not None]
        ascending = all(a < b for a, b in pairwise(known))
        if not self.lengths or None in self.lengths[:-1] or not ascending:
            raise BadValue(
                f"lengths should be ascending, None (the horizon) last, got {self.lengths}; "
                "try (10, 25, 50, None)"
            )
        check_source(self.source)
        self.source.check()
        whole("the episodes behind a test", self.source.episodes(2), 2 * PAIRS)

    @property
    def group(self) -> int:
        return 1 if isinstance(self.source, Independent) else self.source.group(2)

    @property
    def label(self) -> str:
        return f"jump {self.level:g}"

    def check(self, problem: Problem) -> None:
        for steps in self.lengths:
            if steps is not None:
                check_window(steps, problem, "JumpWindow")

    def windows(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Windows:
        if isinstance(self.source, Independent):
            noise = self.source.draw(problem, 2)
        lengths = [problem.horizon if n is None else n for n in self.lengths]
        origins = _origins(self.source, self.group, noise.count)
        couples = [_couples(problem, policy, noise, n) for n in lengths]
        each = [[_no_jump(pairs, ranges, self.level) for pairs in couples] for ranges in origins]
        p = torch.tensor(each, dtype=torch.float64, device=noise.action.device)
        fine = p > self.level
        order = torch.arange(1, len(lengths) + 1, device=p.device)
        longest = (torch.where(fine, order, 1).amax(-1) - 1).clamp(min=0)
        chosen = torch.tensor(lengths, device=p.device)[longest]
        index = torch.arange(problem.horizon, device=p.device)
        return Windows((index > 0) & (index % chosen[:, None] == 0), p)

    def cost(self, problem: Problem) -> Cost:
        tried = 2 * len(self.lengths)
        return Cost((1 + tried) * problem.horizon, tried)


def _couples(problem: Problem, policy: BoundPolicy, noise: Noise, window: int) -> Pairs:
    """Of every couple of episodes, the mean of its two statistics, each summed over windows."""
    policy, problem = replace(policy, memo=None), problem.eager
    with torch.no_grad():
        path = rollout(problem, policy, noise)
        result = evaluate(problem, path)
    others = torch.arange(noise.count, device=noise.action.device).view(-1, 2).flip(1).flatten()
    total = [torch.zeros(noise.count, dtype=torch.float64, device=noise.action.device)] * 2
    for begin in range(0, problem.horizon, window):
        end = min(begin + window, problem.horizon)
        start, part = moment_at(path, result, begin).detach(), noise.during(begin, end)
        values, slopes = [], []
        for action in (part.action, part.action[others]):
            eps = action.detach().clone().requires_grad_()
            with torch.enable_grad():
                again = rollout(
                    problem, policy, part._replace(action=eps), start=start, length=end - begin
                )
                earned = evaluate(problem, again).value.sum(-1)
                slopes.append(_slope(earned.sum(), eps).flatten(1))
            values.append(earned.detach())
        pairs = pairs_of(torch.stack(values), torch.stack(slopes))
        total = [a + b for a, b in zip(total, pairs, strict=True)]
    # the two of a couple are not independent of each other: their mean is one replicate
    return Pairs(*(part.view(-1, 2).mean(1) for part in total))


def _no_jump(couples: Pairs, ranges: Sequence[tuple[int, int]], level: float) -> float:
    """The p-value of D <= 0 of the episodes in `ranges`; 0 where a number is not finite."""
    rows = Pairs(*(torch.cat([part[a // 2 : b // 2] for a, b in ranges]) for part in couples))
    if not bool(torch.stack(rows).isfinite().all()):
        return 0.0
    p = jump("window", rows, level).p_value
    return 0.0 if math.isnan(p) else p
