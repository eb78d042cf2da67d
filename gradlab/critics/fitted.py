"""A fitted critic: how it was fitted, its parameters and how good it is.

It can be saved and loaded.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.critics.networks import Params, ValueNetwork, features
from gradlab.critics.quality import Estimate, Quality
from gradlab.foundation import checkpoints
from gradlab.foundation.errors import BadShape, BadValue, Corrupt
from gradlab.foundation.modes import ordinary
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem

FORMAT = "gradlab critic 1"


@dataclass(frozen=True)
class Fit:
    """How to fit a critic. The defaults are a full fit; `SHORT` is a deliberately poor one.

    On-policy data say little about ∇_a Q when the policy's std is small: the action is then nearly
    a function of the state, and a Q can explain all variance with action gradients that are wrong
    many times over. `exploration` (0.3, say, with more episodes) is for that; the default,
    on-policy, is what ABPT does.
    """

    kind: Literal["q", "v", "both"] = "q"
    method: Literal["monte_carlo", "td_lambda"] = "monte_carlo"
    lam: float = 0.95  # λ of td_lambda [1]
    steps: int = 4000  # Adam steps, for each of q and v; 0 leaves the initialisation
    batch: int = 1024  # rows (i, t) per step; td_lambda takes whole episodes of about as many rows
    learning_rate: float = 2e-3  # at the first step; decays to 0 along half a cosine
    episodes: int = 20000  # rolled out once and sampled from
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    twin: bool = False  # two networks for Q (a V is always single)
    reduction: Literal["min", "mean"] = "min"  # of the twins
    exploration: float = 0.0  # added to the latent's std at one time per episode; 0: on-policy [1]
    tau: float = 0.01  # soft update of td_lambda's target network, per step [1]
    held_out: int = 2048  # episodes that the quality is measured on
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """These settings as JSON values by name; the identities of artefacts are taken from it."""
        return {**asdict(self), "hidden": list(self.hidden)}

    def __post_init__(self) -> None:
        known = {
            "kind": ("q", "v", "both"),
            "method": ("monte_carlo", "td_lambda"),
            "reduction": ("min", "mean"),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise BadValue(f"{name} must be one of {values}, got {getattr(self, name)!r}")
        for name, least in {"steps": 0, "batch": 1, "episodes": 1, "held_out": 2}.items():
            if getattr(self, name) < least:
                raise BadValue(f"{name} must be at least {least}, got {getattr(self, name)}")
        if any(width < 1 for width in self.hidden):
            raise BadValue(
                f"hidden layers must have at least 1 unit, got {self.hidden}; try (64, 64)"
            )
        for name, (low, high) in {"lam": (0, 1), "tau": (0, 1)}.items():
            if not low <= getattr(self, name) <= high:
                raise BadValue(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not self.exploration >= 0:
            raise BadValue(f"exploration must be at least 0 (on-policy), got {self.exploration}")
        if self.exploration and self.method == "td_lambda":
            raise BadValue(
                "exploration leaves one row per episode, and td_lambda learns from whole episodes; "
                "try method='monte_carlo'"
            )
        if not self.learning_rate > 0:
            raise BadValue(f"learning_rate must be positive, got {self.learning_rate}; try 2e-3")

    @property
    def heads(self) -> tuple[Literal["q", "v"], ...]:
        """The value functions to fit."""
        return ("q", "v") if self.kind == "both" else (self.kind,)


SHORT = Fit(steps=400, episodes=2000)
FULL = Fit()


@dataclass(frozen=True)
class Sizes:
    """What a critic must have in common with a problem."""

    observation_dim: int
    action_dim: int
    horizon: int  # T [steps]
    flags: tuple[str, ...]  # one-time events that do not end the episode, inputs of the critic

    @staticmethod
    def of(problem: Problem) -> Sizes:
        """Those of a problem."""
        return Sizes(
            problem.task.observation_dim,
            problem.simulator.action_dim,
            problem.horizon,
            tuple(e.name for e in problem.task.events if not (e.terminates or e.switches)),
        )

    def columns(self, problem: Problem) -> tuple[int, ...]:
        """The columns of `View.events` that are inputs. Raises `BadShape` for another problem."""
        theirs = Sizes.of(problem)
        if theirs != self:
            name = next(
                f.name
                for f in dataclasses.fields(self)
                if getattr(self, f.name) != getattr(theirs, f.name)
            )
            raise BadShape(
                f"the critic was fitted for {name} {getattr(self, name)}, but {problem.name} has "
                f"{getattr(theirs, name)}; fit one for this problem"
            )
        names = [e.name for e in problem.task.events]
        return tuple(names.index(flag) for flag in self.flags)

    def network(self, fit: Fit, head: Literal["q", "v"]) -> ValueNetwork:
        """The network of one value function."""
        inputs = self.observation_dim + len(self.flags) + 1
        if head == "q":
            inputs += self.action_dim
        members = 2 if fit.twin and head == "q" else 1
        return ValueNetwork(
            inputs, self.horizon, fit.hidden, members, fit.reduction, fit.activation
        )


@dataclass(frozen=True, eq=False)
class FittedCritic:
    """Parameters of Q and V networks ("q.", "v." in front of their names)
    and what they are worth.
    """

    fit: Fit
    sizes: Sizes
    params: Params
    quality: dict[str, Quality] = field(default_factory=dict)  # by "q", "v"

    def __post_init__(self) -> None:
        expected = {
            f"{head}.{name}": shape
            for head in self.fit.heads
            for name, shape in self.sizes.network(self.fit, head).shapes().items()
        }
        checkpoints.check_shapes(self.params, expected, "the critic")

    def head(self, head: Literal["q", "v"]) -> Params:
        """The parameters of one network under its own names."""
        start = f"{head}."
        return {n.removeprefix(start): p for n, p in self.params.items() if n.startswith(start)}

    def critic(self, problem: Problem) -> Critic:
        """Q and V as functions, in the problem's dtype and on its device.

        Raises `BadShape` if the critic was fitted for other dimensions, events or horizon.
        """
        flags, horizon = self.sizes.columns(problem), self.sizes.horizon
        nets = {head: self.sizes.network(self.fit, head) for head in self.fit.heads}
        params = {head: _cast(self.head(head), problem) for head in self.fit.heads}

        def q(view: View, action: Float[Tensor, "*batch nu"]) -> Float[Tensor, "*batch"]:
            inputs = torch.cat([features(view, flags, horizon), action], dim=-1)
            return nets["q"].apply(params["q"], inputs, view.step)

        def v(view: View) -> Float[Tensor, "*batch"]:
            return nets["v"].apply(params["v"], features(view, flags, horizon), view.step)

        name = f"{self.fit.method} ({self.fit.steps} steps)"
        return Critic(q if "q" in nets else None, v if "v" in nets else None, name)

    @property
    def metadata(self) -> dict[str, Any]:
        """Everything but the parameters, as JSON values; depends on nothing but the fit."""
        return {
            "format": FORMAT,
            "fit": dataclasses.asdict(self.fit),
            "sizes": dataclasses.asdict(self.sizes),
            "quality": {head: dataclasses.asdict(q) for head, q in self.quality.items()},
        }

    @staticmethod
    def of(params: Params, metadata: dict[str, Any]) -> FittedCritic:
        """The critic that `params` and `metadata` came from, also after a trip through JSON.

        Raises `Corrupt` for metadata of something else, `BadShape` for parameters of another shape.
        """
        if metadata.get("format") != FORMAT:
            raise Corrupt(
                f"expected a {FORMAT!r}, got {metadata.get('format')!r}; "
                "check that the checkpoint is a critic's"
            )
        fit = {**metadata["fit"], "hidden": tuple(metadata["fit"]["hidden"])}
        sizes = {**metadata["sizes"], "flags": tuple(metadata["sizes"]["flags"])}
        quality = {head: _quality(values) for head, values in metadata["quality"].items()}
        return FittedCritic(Fit(**fit), Sizes(**sizes), params, quality)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        checkpoints.save(path, self.params, self.metadata)


def load_critic(path: str | Path) -> FittedCritic:
    """Exactly what was saved. Raises `Missing`, `Corrupt` or `BadShape`."""
    return FittedCritic.of(*checkpoints.load(path))


def _cast(params: Params, problem: Problem) -> Params:
    cast = {n: p.to(dtype=problem.dtype, device=problem.device) for n, p in params.items()}
    return ordinary(cast)


def _quality(values: dict[str, Any]) -> Quality:
    return Quality(
        Estimate(*values["overall"]),
        Estimate(*values["at_start"]),
        Estimate(*values["ceiling_at_start"]),
        values["episodes"],
    )
