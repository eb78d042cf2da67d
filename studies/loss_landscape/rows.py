"""The rows of `loss_landscape` that its words read."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import pandas as pd

from gradlab.statistics import Interval, holm
from gradlab.study.tables import read
from studies.loss_landscape.config import RETURN

LEVEL = 0.05  # of the verdicts, after Holm's correction over the table

NAMES = {RETURN: "return J", "sg": "SG", "q": "Q alone", "sg_pg": "SG+PG", "sg_qg": "SG+QG"}
ESTIMATORS = {"fog": "SG (FOG)", "pg": "PG", "qg": "QG", "sg_pg": "SG+PG", "sg_qg": "SG+QG"}


@dataclass(frozen=True)
class Policy:
    """A policy in the centre of a plane, and its critic."""

    task: str
    label: int
    policy: str  # in words
    directions: str
    critic_quality: float  # share of the returns' variance
    critic_start: float  # at t = 0
    critic_start_stderr: float
    critic_ceiling: float
    critic_ceiling_stderr: float

    @property
    def title(self) -> str:
        """Task and policy."""
        return f"{self.task}, {self.policy}"


@dataclass(frozen=True)
class Point:
    """A point of a surface."""

    value: float
    stderr: float
    change_stderr: float  # of the change from the centre


@dataclass(frozen=True)
class Roughness:
    """The roughness of a surface at one scale."""

    objective: str
    alpha: str
    step: int | None  # of the simulation; None for the return
    scale: float  # in coordinates of the plane
    share: Interval  # of the surface's variance
    share_seen: float  # the same, noise left in
    spread: float  # standard deviation over the grid

    @property
    def name(self) -> str:
        """The surface in words."""
        return name_of(self.objective, self.alpha)


@dataclass(frozen=True)
class Pair:
    """The roughness of an objective minus that of SG, on the same episodes."""

    task: str
    label: int
    objective: str
    alpha: str
    step: int
    stride: int  # grid spacings
    difference: Interval  # of variances off quadratics
    p_value: float
    share_difference: Interval
    share_p_value: float
    # corrected over the table
    p_holm: float = math.nan
    share_p_holm: float = math.nan


@dataclass(frozen=True)
class Arrow:
    """An expected gradient on the plane, its two components a and b, at one place."""

    estimator: str  # arrows.TRUTH for the slope itself
    episodes: int
    slope_a: float
    slope_b: float
    slope_stderr_a: float
    slope_stderr_b: float
    truncation_a: float  # of the slope by differences: its error of step
    truncation_b: float
    # the slope by differences on the same episodes, and what the estimator is off by
    true_a: float = math.nan
    true_b: float = math.nan
    true_stderr_a: float = math.nan
    true_stderr_b: float = math.nan
    gap_a: float = math.nan
    gap_b: float = math.nan
    gap_stderr_a: float = math.nan
    gap_stderr_b: float = math.nan
    gap_freedom_a: float = math.nan  # of Student's law
    gap_freedom_b: float = math.nan


def name_of(objective: str, alpha: str) -> str:
    """A surface in words."""
    where = {"centre": ", α of the centre", "point": ", α at each point"}.get(alpha, "")
    return f"{NAMES[objective]}{where}"


def policies_of(table: pd.DataFrame) -> list[tuple[Policy, pd.DataFrame]]:
    """Each policy with its rows, in the order of the table."""
    groups = (rows for _, rows in table.groupby(["task", "label"], sort=False))
    return [(read(Policy, rows.head(1))[0], rows) for rows in groups]


def pairs_of(table: pd.DataFrame) -> list[Pair]:
    """Comparisons with SG, with p-values corrected over the table."""
    pairs = read(Pair, table, kind="pair")
    corrected = (holm([getattr(p, name) for p in pairs]) for name in ("p_value", "share_p_value"))
    return [
        dataclasses.replace(pair, p_holm=one, share_p_holm=other)
        for pair, one, other in zip(pairs, *corrected, strict=True)
    ]


def finest(pairs: list[Pair]) -> list[Pair]:
    """Those at the finest scale."""
    return [pair for pair in pairs if pair.stride == min(one.stride for one in pairs)]


def counts(pairs: list[Pair], share: bool = False) -> str:
    """At how many steps an objective is told to be smoother or rougher than SG."""
    tests = (
        (p.share_difference, p.share_p_holm) if share else (p.difference, p.p_holm) for p in pairs
    )
    sure = [difference.estimate for difference, p in tests if p <= LEVEL]
    smoother, rougher = sum(gap < 0 for gap in sure), sum(gap > 0 for gap in sure)
    return f"smoother at {smoother}, rougher at {rougher}"
