"""What papers say of their algorithms, where it differs from a task's `Family`: fields by task."""

from __future__ import annotations

from typing import Any

from gradlab.training.schedule import Schedule

RUNNERS = ("ant", "hopper", "half_cheetah", "humanoid", "ant_brax")


def _constant(rate: float) -> tuple[Schedule, Schedule]:
    return Schedule(rate, rate), Schedule(rate, rate)


def _table_1(rate: float, keep: float, passes: int = 16) -> dict[str, Any]:
    """AGPO's table 1 for one runner; `keep` is 1 − τ."""
    wide = (256, 128, 64)
    return {
        "hidden": wide, "critic": wide, "episodes": 64, "rates": _constant(rate), "keep": keep,
        "max_norm": 10.0, "critic_norm": 10.0, "minibatches": 8, "passes": passes,
        "published": "AGPO's table 1 (Gao et al. 2024), but rewards are not scaled by 0.1: entropy, "
        "KL and the gradient's limit are ten times what is printed",
    }  # fmt: skip


AGPO_RUNNERS = {
    "ant": _table_1(7e-4, 0.2),
    "ant_brax": _table_1(7e-4, 0.2),
    "humanoid": _table_1(7e-4, 0.8),
    "hopper": _table_1(2e-4, 0.2),
    "half_cheetah": _table_1(2e-4, 0.8, 4),
}
LARGE = {"hidden": (400, 200, 100), "critic": (400, 200, 100), "episodes": 128}


def _everywhere(of: str, changes: dict[str, Any], **by_task: dict[str, Any]) -> dict[str, Any]:
    """The same changes for every runner, and more for some."""
    return {task: {"published": of, **changes, **by_task.get(task, {})} for task in RUNNERS}


AHAC_RUNNERS = _everywhere(
    "AHAC's configuration (Georgiev et al. 2024); the critic's rate beside the ant is its default",
    {**LARGE, "rates": (Schedule(2e-3, 1e-5), Schedule(2e-3, 1e-5))},
    ant={"rates": (Schedule(2e-3, 1e-5), Schedule(5e-4, 1e-5))},
    ant_brax={"rates": (Schedule(2e-3, 1e-5), Schedule(5e-4, 1e-5))},
)
RPO_RUNNERS = _everywhere(
    "RPO (arXiv 2508.06214v3), where it says; the rest is SHAC's",
    {**LARGE, "rates": (Schedule(5e-4, 1e-5), Schedule(5e-4, 1e-5))},
    hopper={"episodes": 1024},
)
SAPO_RUNNERS = _everywhere(
    "SAPO's configuration for dFlex's ant (Xing et al. 2025)",
    {"rates": (Schedule(2e-3, 1e-5), Schedule(5e-4, 1e-5)), "max_norm": 0.5},
)


def _abpt(rates: Schedule, hidden: tuple[int, ...], horizon: int, steps: int) -> dict[str, Any]:
    """ABPT's tables 2 to 9 for one flight, of so many steps in all."""
    return {
        "hidden": hidden, "critic": hidden, "horizon": horizon, "episodes": 100, "length": 96,
        "updates": steps // (100 * 96), "rates": (rates, rates), "betas": (0.9, 0.999),
        "max_norm": 0.5, "keep": 0.995, "passes": 10, "minibatches": 1,
        "published": "ABPT's tables and released files (Li et al. 2025); ours are the share of the "
        "replay and a ring of 50,000 moments for 1,000,000 states",
    }  # fmt: skip


DECAYED = Schedule(1e-2, 1e-3, "exponential")
ABPT_FLIGHTS = {
    "hovering": {**_abpt(Schedule(1e-2, 1e-2), (192, 192, 96), 256, 4_000_000), "soft": False},
    "tracking": {**_abpt(DECAYED, (192, 192, 96), 256, 4_000_000), "soft": False},
    "landing": _abpt(Schedule(1e-2, 1e-2), (192, 192, 192, 96), 256, 4_000_000),
    # the paper has 0.01 with decay, the released file 0.02 and a fiftieth of it at the end
    "racing": _abpt(DECAYED, (192, 192, 96), 512, 6_000_000),
}
