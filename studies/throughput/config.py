"""What can be asked of `throughput`: its options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradlab.foundation.errors import BadValue, UnknownName
from studies.throughput.combinations import COMBINATIONS
from studies.throughput.contenders import CONTENDERS
from studies.throughput.stopwatch import CLOCKS, PROBLEMS


@dataclass(frozen=True)
class Config:
    problems: tuple[str, ...] = ("hovering", "lq")
    """Simulators to differentiate: hovering (Euler), hovering_rk4 (four sub-steps), racing, lq, ant
    (compliant contact, dFlex's constants, five sub-steps), ant_fresh (mass matrix at every
    sub-step), ant_50ms (Brax's control period, 10 sub-steps), ant_convex (Brax's ant, MuJoCo's
    contact problem)."""
    contenders: tuple[str, ...] = ("batched", "pullback", "pullback_compiled", "vmap", "jax")
    """Who races: these, batched_compiled, moments and moments_compiled (the pullback and the
    statistics that `compare` needs), pullback_graph and moments_graph (one graph of a GPU),
    jax_unrolled_8, jax_unrolled, whose compilation takes a minute, limit (the least time by
    measured bandwidth and rate), mujoco (on ants: MuJoCo's own C step, no gradient),
    pullback_checkpoint and pullback_compiled_checkpoint (each step run again in the backward pass),
    forward and forward_compiled (no gradient), and on the ant brax_generalized, brax_spring,
    their _forward and brax_generalized_unrolled_8."""
    combinations: tuple[str, ...] = (
        "sum", "abpt", "inverse_variance", "alpha_order", "best_linear", "action_mixture", "switch",
    )  # fmt: skip
    """Combinations of estimators to time beside their parts, with the statistics that `compare`
    needs, at the largest N (in whole groups of 64 episodes) and T: these,
    inverse_variance_layer, inverse_variance_step, best_linear_step, best_linear_parameter, agpo,
    total_propagation; none to leave them out."""
    combination_problem: str = "hovering"
    """Problem of the combinations."""
    samples: tuple[int, ...] = (64, 256)
    """Episodes per call N."""
    horizons: tuple[int, ...] = (8, 32)
    """Steps per episode T."""
    hidden: tuple[int, ...] = (256, 128, 64)
    """Hidden layers of the policy."""
    repeats: int = 7
    """Rounds per race."""
    clock: str = "wall"
    """wall, or cpu: time of the process on a core,
    which is steadier when others use the machine.
    """
    threads: int = 1
    """Threads of torch and of XLA."""
    stream_counts: tuple[int, ...] = (100_000, 1_000_000)
    """Lengths of the streams whose peak memory is measured; none to leave them out."""
    stream_problem: str = "lq"
    """Problem of the streams."""
    stream_horizon: int = 4
    """Steps per episode of the streams."""
    stream_hidden: tuple[int, ...] = (32,)
    """Hidden layers of the streams' policy."""
    stream_chunk: int = 1024
    """Samples in memory at once."""
    seed: int = 0
    """Seed of parameters and noise."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "problems": ("hovering",),
        "contenders": ("batched", "pullback", "vmap"),
        "samples": (32,),
        "horizons": (4,),
        "hidden": (32, 32),
        "repeats": 3,
        "combinations": ("inverse_variance",),
        "stream_counts": (4096,),
        "jobs": 1,
    },
    "default": {"jobs": 1},
    "paper": {
        "problems": ("hovering", "hovering_rk4", "racing", "lq", "ant", "ant_50ms", "ant_convex"),
        "contenders": tuple(CONTENDERS),
        "combinations": tuple(COMBINATIONS),
        "samples": (16, 64, 256, 1024),
        "horizons": (8, 32, 96),
        "repeats": 21,
        "stream_problem": "hovering",
        "stream_horizon": 8,
        "stream_hidden": (64, 64),
        "jobs": 1,
    },
}


MINUTES = {"smoke": 1}  # of the presets that were timed, on two free cores


def check(config: Config) -> None:
    """Raises `BadValue` or `UnknownName` for what the study cannot do."""
    for combination in config.combinations:
        if combination not in COMBINATIONS:
            raise UnknownName("combination", combination, COMBINATIONS)
    for problem in (*config.problems, config.combination_problem, config.stream_problem):
        if problem not in PROBLEMS:
            raise UnknownName("problem", problem, PROBLEMS)
    for contender in config.contenders:
        if contender not in CONTENDERS:
            raise UnknownName("contender", contender, CONTENDERS)
    if config.clock not in CLOCKS:
        raise UnknownName("clock", config.clock, CLOCKS)
    counts = (*config.samples, *config.horizons, *config.stream_counts)
    if min(*counts, config.repeats, config.threads, config.stream_chunk) < 1:
        raise BadValue("samples, horizons, repeats, threads and stream sizes must be at least 1")
