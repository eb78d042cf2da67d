"""AGPO's α: how far a step of the simulator is trusted, and what follows along a window."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from estimators.mixtures.rules import inverse_variance_shares
from gradlab.foundation.arguments import number
from gradlab.foundation.errors import BadValue


class ActionGradients(NamedTuple):
    """One-step gradients by the executed action, of M episodes at L steps, as constants."""

    sg: Float[Tensor, "*groups M L nu"]  # ∂(r_t + γ Q_{t+1})/∂a_t [reward/action]
    qg: Float[Tensor, "*groups M L nu"]  # ∂Q_t/∂a_t [reward/action]
    alive: Bool[Tensor, "*groups M L"]  # elsewhere both are 0 and mean nothing


class StepWeights(NamedTuple):
    """Weights of L time steps in B blocks of consecutive episodes; N episodes are B of N/B."""

    alpha: Float[Tensor, "B L"]  # of SG; QG has 1 − α
    beta: Float[Tensor, "B L"]  # product of α from the window's start to this step
    call: Float[Tensor, "B L"]  # of the policy's call: β before it, 0 once the window is cut


@runtime_checkable
class AlphaRule(Protocol):
    """How much of SG a step gets."""

    @property
    def label(self) -> str:
        """A short name for tables and figures."""
        ...

    @property
    def own(self) -> bool:
        """Whether every episode has an α of its own, rather than one for all."""
        ...

    @property
    def discards(self) -> bool:
        """Whether what SG does not get is lost, rather than QG's."""
        ...

    def __call__(
        self, gradients: ActionGradients
    ) -> Float[Tensor, "*groups L"] | Float[Tensor, "*groups M L"]:
        """α in [0, 1], in float64: [*groups, L], or [*groups, M, L] for each episode its own."""
        ...


@dataclass(frozen=True)
class VarianceRatio:
    """α = σ²_QG/(σ²_QG + σ²_SG), variances over the episodes that are alive.

    `spread` reads "the L2 norm of the gradients along the action dimension": with "trace" σ² is the
    trace of the covariance (definition 3.1), with "norm" the variance of the gradient's norm,
    which does not see a change of direction. With `median_normalisation` (as published) either
    gradient is divided by the median of its norms first, unless one of the medians is 0: SG and QG
    of different length then get α as if they had the same, so that α minimises no variance.

    Where neither varies, or fewer than two episodes are alive, α is ½; where SG is not finite, 0.
    Reference: AGPO eq. 3 and sections 4, 4.2.
    """

    spread: Literal["trace", "norm"] = "trace"
    median_normalisation: bool = True
    own: bool = field(default=False, init=False)
    discards: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.spread not in ("trace", "norm"):
            raise BadValue(f"spread must be 'trace' or 'norm', got {self.spread!r}")

    @property
    def label(self) -> str:
        return "ratio" if self.spread == "trace" else "ratio of norms"

    def __call__(self, gradients: ActionGradients) -> Float[Tensor, "*groups L"]:
        sg, qg, alive = gradients
        if self.median_normalisation:
            medians = [quantile(each.norm(dim=-1), alive, 0.5) for each in (sg, qg)]
            both = (medians[0] > 0) & (medians[1] > 0)
            scales = [torch.where(both, each, 1.0)[..., None, :, None] for each in medians]
            sg, qg = sg / scales[0], qg / scales[1]
        if self.spread == "norm":
            sg, qg = (each.norm(dim=-1, keepdim=True) for each in (sg, qg))
        of_sg = variance(sg, alive).nan_to_num(nan=torch.inf, posinf=torch.inf)
        return inverse_variance_shares(torch.stack([of_sg, variance(qg, alive)]))[0]


@dataclass(frozen=True)
class MaxNorm:
    """α = min(1, limit/‖SG‖) of every episode: SG with a clipped norm.

    The paper's baseline in words, "which clips the SG norm"; the limit is not given there, nor what
    it is relative to: here it is a number [reward/action], or with `relative` that many medians of
    the norms of the episodes that are alive at that step (no limit where the median is 0). Clipped
    is the one-step SG. What is clipped is lost (`discards=True`, as published: hard clipping "also
    discards crucial task information") or QG's. An episode's α depends on its own noise, so that it
    biases both ways of use.
    Reference: AGPO section 5.3 and fig. 7.
    """

    limit: float = 1.0  # [reward/action], or [median norm] if `relative`
    discards: bool = True
    relative: bool = False
    own: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not number("the limit of MaxNorm", self.limit) > 0:
            raise BadValue(f"the limit of MaxNorm should be above 0, got {self.limit}; try 1.0")

    @property
    def label(self) -> str:
        return f"max norm {self.limit:g}{' medians' if self.relative else ''}"

    def __call__(self, gradients: ActionGradients) -> Float[Tensor, "*groups M L"]:
        size = gradients.sg.norm(dim=-1)
        if not self.relative:
            return (self.limit / size.clamp(min=self.limit)).nan_to_num(nan=0.0)
        median = quantile(size, gradients.alive, 0.5).unsqueeze(-2)
        limit = self.limit * median
        share = limit / torch.maximum(size, limit)
        return torch.where(median > 0, share, size.isfinite().to(size)).nan_to_num(nan=0.0)


@dataclass(frozen=True)
class Quantile:
    """α = 1 where ‖SG‖ lies between two quantiles of such norms, and 0 elsewhere.

    The paper's baseline in words, "using gradients within a specific quantile range", which is not
    given there, nor of which gradients: of the episodes that are alive at that step (`over="step"`)
    or of all their steps together (`over="window"`, all that is looked at). What lies outside is
    lost (`discards=True`, as published) or QG's. An episode's α depends on its own noise, so that
    it biases both ways of use.
    Reference: AGPO section 5.3 and fig. 7.
    """

    low: float = 0.05
    high: float = 0.95
    discards: bool = True
    over: Literal["step", "window"] = "step"
    own: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise BadValue(
                f"Quantile needs 0 <= low < high <= 1, got {self.low} and {self.high}; "
                "try Quantile(0.05, 0.95)"
            )
        if self.over not in ("step", "window"):
            raise BadValue(f"over must be 'step' or 'window', got {self.over!r}")

    @property
    def label(self) -> str:
        of_all = " of the window" if self.over == "window" else ""
        return f"quantile {self.low:g} to {self.high:g}{of_all}"

    def __call__(self, gradients: ActionGradients) -> Float[Tensor, "*groups M L"]:
        size, alive = gradients.sg.norm(dim=-1), gradients.alive
        norms, there = size, alive
        if self.over == "window":
            norms, there = (each.flatten(-2).unsqueeze(-1) for each in (size, alive))
        least, most = (
            quantile(norms, there, share).unsqueeze(-2) for share in (self.low, self.high)
        )
        return ((size >= least) & (size <= most) & size.isfinite()).to(size)


def variance(
    values: Float[Tensor, "*groups M L n"], alive: Bool[Tensor, "*groups M L"]
) -> Float[Tensor, "*groups L"]:
    """Trace of the covariance over the M episodes that are alive; 0 for fewer than two."""
    there = alive[..., None]
    count = alive.sum(-2)
    mean = torch.where(there, values, 0.0).sum(-3) / count.clamp(min=1)[..., None]
    apart = torch.where(there, values - mean.unsqueeze(-3), 0.0)
    return apart.square().sum((-3, -1)) / (count - 1).clamp(min=1)


def quantile(
    values: Float[Tensor, "*groups M L"], alive: Bool[Tensor, "*groups M L"], share: float
) -> Float[Tensor, "*groups L"]:
    """The quantile over the M episodes that are alive, linear between two of them."""
    ordered = torch.where(alive, values, torch.inf).sort(dim=-2).values
    place = share * (alive.sum(-2) - 1).clamp(min=0).to(values)
    below = place.floor()
    near = [
        ordered.gather(-2, index.long().unsqueeze(-2)).squeeze(-2)
        for index in (below, place.ceil())
    ]
    between = (1 - (place - below)) * near[0] + (place - below) * near[1]
    return torch.where(place == below, near[0], between)


def step_weights(alpha: Float[Tensor, "B L"], window: int, threshold: float) -> StepWeights:
    """β and the weights of the policy's calls, from α, in windows of `window` steps."""
    length = alpha.shape[-1]
    steps = F.pad(alpha, (0, -length % window), value=1.0).unflatten(-1, (-1, window))
    beta = steps.cumprod(-1)
    before = torch.cat([torch.ones_like(beta[..., :1]), beta[..., :-1]], dim=-1)
    call = torch.where(before >= threshold, before, 0.0)
    return StepWeights(alpha, *(part.flatten(-2)[..., :length] for part in (beta, call)))
