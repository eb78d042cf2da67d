"""Cover a goal with a shape: the reward is the share of the shape that is where it should be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.arguments import check_positive
from gradlab.foundation.tensors import Matrix, constant
from gradlab.tasks.base import Memoryless, Transition
from gradlab.tasks.targets import success

GOAL = (256.0, 256.0, math.pi / 4)  # pose [px, px, rad]
WINDOW = 512.0  # [px]


@runtime_checkable
class Celled(Protocol):
    """What the task has to know of a shape: `simulators.pusher.TShape` is one."""

    @property
    def cells(self) -> Matrix:
        """Middles of equal cells that it is made of, in its own frame [px]."""
        ...

    def gap(self, point: Float[Tensor, "*b 2"], width: float) -> Float[Tensor, "*b"]:
        """Signed distance of points in its frame, negative inside [px]."""
        ...


@dataclass(frozen=True)
class Covering(Memoryless):
    """r = min(coverage/0.95, 1); an episode whose coverage passes 0.95 ends (event `success`).

    Coverage is the mean over the shape's cells (squares of 5 px) of sigmoid(−d/`width`), with d the
    signed distance of a cell's middle to the goal: the area of the intersection but for half a cell
    along its edge, and smooth, where the source clips polygons. Exactly at the goal it is 0.970;
    at 0.95 the area itself is 0.95 to 0.97. Far from the goal it is flat.

    Starts: the pusher uniform in 50 to 450 px, the shape in 100 to 400 px, its angle normal with a
    standard deviation of 2π, minus π. Observation: places scaled to ±1 of the window, velocity over
    512 px/s, cos θ and sin θ (8 numbers; the source's has θ and no velocity).
    Non-smooth: the event, and the reward's kink there. Raises `BadValue` for a width that is not
    positive.

    Source: the benchmark `pusht` of Diffusion Policy (Chi et al. 2023).
    """

    shape: Celled
    coverage: float = 0.95  # that counts as success [1]
    width: float = 1.0  # [px]
    terminates: bool = True
    default_horizon: int = 100  # [steps]

    observation_dim = 8
    initial_dim = 5
    name = "pusher_t"

    def __post_init__(self) -> None:
        check_positive(self, "coverage", "width")

    @property
    def events(self) -> tuple[Event, ...]:
        return success(self.terminates)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 5"]:
        """Places of pusher and shape [px], angle [rad]."""
        shares = torch.rand(n, 4, generator=generator, dtype=torch.float64)
        angle = torch.randn(n, 1, generator=generator, dtype=torch.float64) * 2 * math.pi - math.pi
        places = torch.cat([50 + 400 * shares[:, :2], 100 + 300 * shares[:, 2:]], dim=-1)
        return torch.cat([places, angle], dim=-1)

    def initial(
        self, noise: Float[Tensor, "*batch 5"]
    ) -> tuple[Float[Tensor, "*batch 7"], Float[Tensor, "*batch 0"]]:
        """At rest."""
        place, pose = noise.split((2, 3), dim=-1)
        return torch.cat([place, torch.zeros_like(place), pose], dim=-1), noise[..., :0]

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch 8"]:
        """[pusher, velocity, shape, cos θ, sin θ]."""
        place, velocity, own, angle = state[..., :7].split((2, 2, 2, 1), dim=-1)
        half = WINDOW / 2
        parts = [place / half - 1, velocity / WINDOW, own / half - 1, angle.cos(), angle.sin()]
        return torch.cat(parts, dim=-1)

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """One term, `coverage`."""
        return {"coverage": (self._covered(transition.after) / self.coverage).clamp(max=1.0)}

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 1"]:
        """Coverage over what counts, minus 1."""
        return (self._covered(transition.after) / self.coverage - 1)[..., None]

    def _covered(self, state: Float[Tensor, "*b ns"]) -> Float[Tensor, "*b"]:
        """The share of the shape's area over the goal [1]."""
        pose, goal = state[..., 4:7], constant(GOAL, state)
        cells = constant(self.shape.cells, state)
        turn = pose[..., 2] - goal[2]
        c, s = turn.cos()[..., None], turn.sin()[..., None]
        x, y = cells.unbind(-1)
        # the cells in the goal's frame: turned, and shifted by the gap between both origins
        cg, sg = goal[2].cos(), goal[2].sin()
        gap = pose[..., :2] - goal[:2]
        ahead = (cg * gap[..., 0] + sg * gap[..., 1])[..., None]
        aside = (cg * gap[..., 1] - sg * gap[..., 0])[..., None]
        points = torch.stack([c * x - s * y + ahead, s * x + c * y + aside], dim=-1)
        return torch.sigmoid(-self.shape.gap(points, self.width) / self.width).mean(-1)
