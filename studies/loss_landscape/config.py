"""What can be asked of `loss_landscape`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradlab import landscapes
from gradlab.foundation.errors import BadValue, UnknownName
from studies.loss_landscape import objectives, policies
from studies.loss_landscape.arrows import ARROWS, arrow_of, group_of

RETURN = "return"  # name of the objective over the whole episode, among those of one step


@dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = ("hovering",)
    """Any problem of gradlab.make; runners may name their preset, as in ant-dflex (tens of minutes;
    ant, with gymnasium's RK4 and convex contact: hours). Landing and racing (one gate) use the
    committed policies."""
    policies: int = 2
    """Policies per task, drawn at random from the training path."""
    simulation_steps: int = 3
    """Random steps t of the episode at which the one-step objectives are drawn."""
    directions: str = "plain"
    """plain (Gaussian, orthogonal), filter (rows as long as the policy's own, Li et al. 2018) or
    pca (principal components of the training path)."""
    radius: float = 0.1
    """Half the side of the plane, in lengths of the direction: of all parameters (plain), of each
    filter, or of the path's extent (pca) [1]."""
    points: int = 51
    """Grid points along each side; odd, so that the centre is one."""
    cut_points: int = 201
    """Points of the cuts along the first direction; odd."""
    episodes: int = 64
    """Episodes behind every point, the same for all."""
    strides: tuple[int, ...] = (1, 2, 4)
    """Scales of the roughness, in grid spacings."""
    alphas: tuple[str, ...] = objectives.ALPHAS
    """Where the mixtures' α is computed: centre, point. The first is the one that is drawn."""
    estimators: tuple[str, ...] = tuple(ARROWS)
    """Whose arrows are drawn: fog (SG), pg, qg, sg_pg, sg_qg (inverse-variance mixtures)."""
    arrows: int = 5
    """Arrows along each side."""
    arrow_episodes: int = 512
    """Episodes behind every arrow; a mixture, and the slope that all are judged
    by, have twice as many.
    """
    seed: int = 0
    """Seed of the choice of policies and steps, of directions and of episodes; not of training."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "policies": 1,
        "simulation_steps": 1,
        "points": 9,
        "cut_points": 11,
        "episodes": 8,
        "strides": (1, 2),
        "arrows": 2,
        "arrow_episodes": 32,
        "jobs": 1,
    },
    "default": {},
    "paper": {
        "tasks": ("hovering", "landing", "racing"),
        "policies": 3,
        "simulation_steps": 6,
        "episodes": 512,
        "strides": (1, 2, 4, 8),
        "arrows": 7,
        "arrow_episodes": 4096,
    },
}


MINUTES = {"smoke": 0.5}  # of the presets that were timed, on two free cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    for task in config.tasks:
        policies.problem_of(task)
    if not config.tasks or len(set(config.tasks)) < len(config.tasks):
        raise BadValue(f"expected different tasks, got {config.tasks}; try --tasks hovering")
    if config.directions not in landscapes.KINDS:
        raise UnknownName("directions", config.directions, landscapes.KINDS)
    for name in config.estimators:
        arrow_of(name, group_of(name, config.arrow_episodes))
    for alpha in config.alphas:
        if alpha not in objectives.ALPHAS:
            raise UnknownName("alpha", alpha, objectives.ALPHAS)
    for name, least in {
        "policies": 1, "simulation_steps": 0, "episodes": 5, "arrows": 1, "arrow_episodes": 8,
    }.items():  # fmt: skip
        if getattr(config, name) < least:
            raise BadValue(f"{name} must be at least {least}, got {getattr(config, name)}")
    for points in (config.points, config.cut_points):
        landscapes.grid(config.radius, points)
    for stride in config.strides:
        if not 1 <= stride <= (config.points - 1) // 3:
            raise BadValue(
                f"strides must lie between 1 and {(config.points - 1) // 3} for {config.points} "
                f"points a side, got {stride}; try --strides 1"
            )
