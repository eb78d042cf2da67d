"""What makes a module a study."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from gradlab.foundation.checkpoints import Saved
from gradlab.foundation.errors import BadValue, Missing, UnknownName
from gradlab.study.answer import Answer
from gradlab.study.cells import Artefact, Cell, Row

RUN_OPTIONS = ("preset", "out", "jobs", "retrain", "fresh", "keep")
_REQUIRED = ("Config", "PRESETS", "cells", "run_cell", "plot", "summarise", "answer")


def no_artefacts(config: Any) -> Iterable[Artefact]:
    """For studies whose cells share nothing."""
    return ()


@dataclass(frozen=True)
class Study:
    """A question: its configuration, its cells, and what to make of their rows.

    Normally read from a module by `Study.of`; every function must be importable by name, since
    workers import it (`python -m studies.x` therefore calls `cli("studies.x")`).
    """

    name: str
    config: type
    """A frozen dataclass with a field `seed: int`; its fields are the command line and the
    provenance."""
    presets: Mapping[str, Mapping[str, Any]]
    """Per preset, values of config fields (and `jobs`) that differ from the config's defaults."""
    cells: Callable[[Any], Iterable[Cell]]
    run_cell: Callable[[Any, Cell, Mapping[str, Saved]], Iterable[Row]]
    plot: Callable[[pd.DataFrame, Path], None]
    """Draws `rows` and saves at the stem `path` (`figures.save` adds .png and .svg)."""
    summarise: Callable[[pd.DataFrame], str]
    """The long form, for summary.txt."""
    answer: Callable[[pd.DataFrame], Answer]
    """What is printed: five lines and a table."""
    artefacts: Callable[[Any], Iterable[Artefact]] = no_artefacts
    measured: tuple[str, ...] = ()
    """Columns that a clock or a memory meter fills in: kept in timings.parquet, so that
    rows.parquet is the same for every run; `plot`, `summarise` and `answer` see both."""
    minutes: Mapping[str, float] = field(default_factory=dict)
    """What each preset takes, roughly, on two free cores [min]; said before it begins."""
    committed: Path | None = None
    """Read-only folder of artefacts that come with the repository."""
    module: str = field(default="", compare=False)
    """Dotted name for `python -m`, used in help and messages."""
    description: str = ""

    def __post_init__(self) -> None:
        if not dataclasses.is_dataclass(self.config):
            raise BadValue(f"expected {self.name}.Config to be a dataclass, got {self.config!r}")
        names = [f.name for f in dataclasses.fields(self.config)]
        if "seed" not in names:
            raise Missing(f"{self.name}.Config has no field `seed: int`; add one")
        if clash := sorted(set(names) & set(RUN_OPTIONS)):
            raise BadValue(
                f"{self.name}.Config must not define {', '.join(clash)}; rename the field"
            )
        if "default" not in self.presets:
            raise Missing(f"{self.name}.PRESETS has no 'default'; add one (it may be empty)")
        for preset in self.minutes:
            if preset not in self.presets:
                raise UnknownName(f"preset in {self.name}.MINUTES:", preset, self.presets)
        for preset, values in self.presets.items():
            for key in values:
                if key not in (*names, "jobs"):
                    raise UnknownName(f"config field in preset {preset}:", key, names)

    @classmethod
    def of(cls, source: str | ModuleType | Study) -> Study:
        """The study that a module (or its dotted name) defines. Raises `Missing` for what it lacks.

        The module defines `Config`, `PRESETS`, `cells`, `run_cell`, `plot`, `summarise`, `answer`,
        and may define `artefacts`, `MEASURED` and `MINUTES`.
        """
        if isinstance(source, Study):
            return source
        module = importlib.import_module(source) if isinstance(source, str) else source
        has = vars(module)
        if lacking := [name for name in _REQUIRED if name not in has]:
            raise Missing(f"study {module.__name__} does not define {', '.join(lacking)}")
        name = module.__name__.rpartition(".")[2]
        return cls(
            name=name,
            config=has["Config"],
            presets=has["PRESETS"],
            cells=has["cells"],
            run_cell=has["run_cell"],
            plot=has["plot"],
            summarise=has["summarise"],
            answer=has["answer"],
            artefacts=has.get("artefacts", no_artefacts),
            measured=tuple(has.get("MEASURED", ())),
            minutes=has.get("MINUTES", {}),
            committed=Path(has["__file__"]).parent / "artefacts" / name,
            module=module.__name__,
            description=module.__doc__ or "",
        )

    def preset(self, name: str) -> tuple[Any, int | None]:
        """The config of a preset and the number of jobs that it asks for, if any."""
        if name not in self.presets:
            raise UnknownName("preset", name, self.presets)
        values = dict(self.presets[name])
        jobs = values.pop("jobs", None)
        return self.config(**values), jobs


def check_numbers(config: Any) -> None:
    """Raises `BadValue` for a number of the config that is not finite
    or that float32 cannot hold.
    """
    for name, value in vars(config).items():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and one != 0 and not 1e-30 <= abs(one) <= 1e30:
                raise BadValue(
                    f"expected numbers that float32 holds (0, or 1e-30 to 1e30 in size) for {name}, "
                    f"got {one:g}; try the default"
                )


def as_json(config: Any) -> dict[str, Any]:
    """The config as JSON values, for the manifest and for comparing two configs."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))
