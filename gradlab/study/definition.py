"""What a study is made of."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
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

INFINITE = {"infinite": True}  # metadata of a config field in which ∞ has a meaning
RUN_OPTIONS = ("preset", "out", "jobs", "device", "noise", "retrain", "fresh", "keep")


def no_artefacts(config: Any) -> Iterable[Artefact]:
    """For studies whose cells share nothing."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question: its configuration, its cells, and what to make of their rows.

    A study is a module, or better a package, that defines `STUDY`; `__main__` calls `cli` with its
    dotted name. Every function must be importable by name, since workers import it.
    """

    module: str
    """Dotted name of the module that defines it (`__name__`), for `python -m` and for messages."""
    description: str | None = None
    """The question and how it is asked, for --help: normally the module's docstring."""
    config: type
    """A frozen dataclass with a field `seed: int`; its fields are the command line and the
    provenance."""
    presets: Mapping[str, Mapping[str, Any]]
    """Per preset, values of config fields (and `jobs`) that differ from the config's defaults."""
    minutes: Mapping[str, float] = field(default_factory=dict)
    """What each preset takes, roughly, on two free cores [min]; said before it begins."""
    artefacts: Callable[[Any], Iterable[Artefact]] = no_artefacts
    committed: Path | None = None
    """Read-only folder of artefacts that come with the repository."""
    cells: Callable[[Any], Iterable[Cell]]
    run_cell: Callable[[Any, Cell, Mapping[str, Saved]], Iterable[Row]]
    cpu_only: str | None = None
    """Why no other device will do, as a clause: "its simulators are on the CPU"; None: any."""
    cpu_part: str | None = None
    """What of it stays on the CPU whatever the device, as a clause."""
    measured: tuple[str, ...] = ()
    """Columns that a clock or a memory meter fills in: kept in timings.parquet, so that
    rows.parquet is the same for every run; `plot`, `summarise` and `answer` see both."""
    answer: Callable[[pd.DataFrame], Answer]
    """What is printed: five lines and a table."""
    summarise: Callable[[pd.DataFrame], str]
    """The long form, for summary.txt."""
    plot: Callable[[pd.DataFrame, Path], None]
    """Draws `rows` and saves at the stem `path` (`figures.save` adds .png and .svg)."""

    def __post_init__(self) -> None:
        if not dataclasses.is_dataclass(self.config):
            raise BadValue(
                f"expected the config of {self.name} to be a dataclass, got {self.config!r}"
            )
        names = [f.name for f in dataclasses.fields(self.config)]
        if "seed" not in names:
            raise Missing(f"the config of {self.name} has no field `seed: int`; add one")
        if clash := sorted(set(names) & set(RUN_OPTIONS)):
            raise BadValue(
                f"the config of {self.name} must not define {', '.join(clash)}; rename the field"
            )
        if "default" not in self.presets:
            raise Missing(
                f"the presets of {self.name} have no 'default'; add one (it may be empty)"
            )
        for preset in self.minutes:
            if preset not in self.presets:
                raise UnknownName(f"preset in the minutes of {self.name}:", preset, self.presets)
        for preset, values in self.presets.items():
            for key in values:
                if key not in (*names, "jobs"):
                    raise UnknownName(f"config field in preset {preset}:", key, names)

    @classmethod
    def of(cls, source: str | ModuleType | Study) -> Study:
        """The `STUDY` that a module (or its dotted name) defines. Raises `Missing` without one."""
        if isinstance(source, Study):
            return source
        module = importlib.import_module(source) if isinstance(source, str) else source
        found = vars(module).get("STUDY")
        if not isinstance(found, Study):
            raise Missing(
                f"{module.__name__} does not define STUDY; try STUDY = gradlab.study.Study(...)"
            )
        return found

    @property
    def name(self) -> str:
        """The last part of the module's name: of the folder of results, and in messages."""
        return self.module.rpartition(".")[2]

    def preset(self, name: str) -> tuple[Any, int | None]:
        """The config of a preset and the number of jobs that it asks for, if any."""
        if name not in self.presets:
            raise UnknownName("preset", name, self.presets)
        values = dict(self.presets[name])
        jobs = values.pop("jobs", None)
        return self.config(**values), jobs


def check_numbers(config: Any) -> None:
    """Raises `BadValue` for a number of the config that is not finite
    or that float32 cannot hold; ∞ may be in a field with `metadata=INFINITE`.
    """
    for part in dataclasses.fields(config):
        name, value = part.name, getattr(config, part.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and math.isinf(one) and part.metadata.get("infinite"):
                continue
            if isinstance(one, float) and one != 0 and not 1e-30 <= abs(one) <= 1e30:
                raise BadValue(
                    f"expected numbers that float32 holds (0, or 1e-30 to 1e30 in size) for {name}, "
                    f"got {one:g}; try the default"
                )


def check_choices(config: Any) -> None:
    """Raises `BadValue` for a field of choices that is empty or names one twice."""
    for part in dataclasses.fields(config):
        values = getattr(config, part.name)
        if isinstance(values, tuple) and (not values or len(set(values)) < len(values)):
            twice = next((value for value in values if values.count(value) > 1), None)
            what = f"{twice} twice" if values else "none"
            raise BadValue(
                f"expected one or more different {part.name}, got {what}; try the default"
            )


def as_json(config: Any) -> dict[str, Any]:
    """The config as JSON values, for the manifest and for comparing two configs; JSON has no ∞,
    so that it is a word."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str), parse_constant=str)
