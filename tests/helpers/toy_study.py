"""How large is the mean of a few noisy products? (A study for the tests of the study tools.)"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.study import Answer, Artefact, Cell, Saved, Study, cli, seed_for

SHAPES = {"square": 30, "tall": 50, "wide": 20, "flat": 10}


@dataclass(frozen=True)
class Config:
    seed: int = 0
    """Seed of everything."""
    shapes: tuple[str, ...] = ("square", "tall", "wide", "flat")
    """Matrices to multiply."""
    repeats: int = 2
    """Rows per cell."""
    seconds: float = 0.0
    """Time that every cell takes at least [s]."""
    spin: int = 0
    """Extra products per cell, for measuring the speed-up."""


def log(line: str) -> None:
    """One line in the file that TOY_LOG names: shows what was done, and how often."""
    if "TOY_LOG" in os.environ:
        with open(os.environ["TOY_LOG"], "a") as file:
            file.write(line + "\n")


def build_policy(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    generator = torch.Generator().manual_seed(seed_for(artefact.payload["seed"], artefact.name))
    saved = Saved({"weight": torch.randn(3, generator=generator)}, {"size": 3})
    log(f"built {artefact.name}")
    return saved


def build_truth(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    total = needs["policy"].tensors["weight"].double().sum()
    log(f"built {artefact.name}")
    return Saved({"mean": total})


def artefacts(config: Config) -> Iterator[Artefact]:
    yield Artefact("truth/all", build_truth, {}, needs=("policy",))
    yield Artefact("policy", build_policy, {"seed": config.seed})
    yield Artefact("unneeded", build_policy, {"seed": config.seed})


def cells(config: Config) -> Iterator[Cell]:
    if config.repeats < 1:
        raise BadValue(f"expected repeats >= 1, got {config.repeats}; try 2")
    for shape in config.shapes:
        if shape not in SHAPES:
            raise UnknownName("shape", shape, SHAPES)
        yield Cell(f"shape/{shape}", {"shape": shape}, needs=("truth/all",), cost=SHAPES[shape])


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    size = SHAPES[cell.payload["shape"]]
    generator = torch.Generator().manual_seed(seed_for(config.seed, cell.key))
    matrix = torch.randn(size, 400, generator=generator)
    log(f"begun {cell.key}")
    begin = time.perf_counter()
    time.sleep(config.seconds)
    for _ in range(config.spin):
        torch.randn(200, 200, generator=generator) @ torch.eye(200)
    for repeat in range(config.repeats):
        noise = torch.randn(400, size, generator=generator)
        yield {
            "shape": cell.payload["shape"],
            "repeat": repeat,
            "mean": (matrix @ noise).mean(),
            "slip": torch.rand(
                ()
            ).item(),  # the global generator: wrong, and still the same every time
            "truth": needs["truth/all"].tensors["mean"],
            "stopwatch": time.perf_counter() - begin,
        }
    log(f"did {cell.key}")


def plot(rows: pd.DataFrame, path: Path) -> None:
    Path(f"{path}.txt").write_text(str(rows["stopwatch"].notna().all()))


def summarise(rows: pd.DataFrame) -> str:
    return f"{len(rows)} rows over {rows['shape'].nunique()} shapes"


def answer(rows: pd.DataFrame) -> Answer:
    table = rows.groupby("shape", sort=False)["mean"].mean().map("{:.3f}".format).reset_index()
    return Answer(
        question="How large is the mean of a few noisy products?",
        answer=f"It is {rows['mean'].mean():.3f} over {rows['shape'].nunique()} shapes.",
        rests_on=f"{len(rows)} products of one policy.",
        would_change="Another seed.",
        table=table,
    )


STUDY = Study(
    module=__name__,
    description=__doc__,
    config=Config,
    presets={
        "smoke": {"shapes": ("square",), "jobs": 1},
        "default": {},
        "paper": {"repeats": 3},
    },
    minutes={"smoke": 0.1},
    artefacts=artefacts,
    cells=cells,
    run_cell=run_cell,
    measured=("stopwatch",),
    answer=answer,
    summarise=summarise,
    plot=plot,
)

if __name__ == "__main__":
    cli("tests.helpers.toy_study")
