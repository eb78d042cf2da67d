"""Results are never mixed with those of other code unawares,
and are not thrown away for nothing.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

from gradlab.foundation.errors import Conflict
from gradlab.foundation.syntax import hash_source
from gradlab.study import Study, run_study, sources
from gradlab.study.sources import SHOWN_ONLY, Code
from studies import __main__ as listing
from tests.helpers import toy_study
from tests.helpers.forked import ROOT, Done, run_module

STUDY = Study.of(toy_study)

MINE = """
from dataclasses import dataclass
import pandas as pd
from gradlab.study import Answer, Cell, Study, cli
import helper
from report import plot, summarise

@dataclass(frozen=True)
class Config:
    seed: int = 0

def cells(config):
    yield Cell("only")

def run_cell(config, cell, needs):
    yield {"value": helper.value()}

def answer(rows):
    return Answer("What?", f"value {rows['value'][0]}", "It.", "That.", rows)

STUDY = Study(
    module=__name__, config=Config, presets={"default": {"jobs": 1}}, cells=cells,
    run_cell=run_cell, answer=answer, summarise=summarise, plot=plot,
)

if __name__ == "__main__":
    cli("mine")
"""
HELPER = "def value():\n    return 1.0\n"
REPORT = "def plot(rows, path): pass\ndef summarise(rows): return 'old'\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    for name, text in (("mine", MINE), ("helper", HELPER), ("report", REPORT)):
        edit(tmp_path / f"{name}.py", text)
    return tmp_path


def edit(file: Path, text: str) -> None:
    """All edits in the same second, as on a fast machine."""
    file.write_text(text)
    os.utime(file, (1e9, 1e9))


def run(folder: Path, *options: str) -> Done:
    return run_module("mine", "--out", "out", *options, cwd=folder)


def test_an_edit_of_ones_own_module_stops_until_fresh_or_keep(mine: Path) -> None:
    """The daily loop: edit, run, edit, run."""
    assert "value 1.0" in run(mine)[1]
    edit(mine / "helper.py", HELPER.replace("1.0", "2.0"))
    code, out, err = run(mine)
    assert (code, out) == (2, "")
    assert err == (
        "mine: out holds 1 result of other code (changed since: helper); add --fresh to delete them and "
        "do them again, or --keep to go on with them\n"
    )
    code, out, err = run(mine, "--keep")
    assert code == 0 and "value 1.0" in out and "the table will mix both" in err
    assert "value 1.0" in run(mine)[1]  # agreed to for this code
    edit(mine / "helper.py", HELPER.replace("1.0", "3.0"))
    assert run(mine)[0] == 2  # not for the next
    code, out, _ = run(mine, "--fresh")
    assert code == 0 and "value 3.0" in out
    # what shows numbers, and what explains code, may change
    edit(mine / "report.py", REPORT.replace("old", "new"))
    edit(mine / "helper.py", f"# why\n{HELPER.replace('1.0', '3.0')}")
    code, out, _ = run(mine)
    assert code == 0 and "value 3.0" in out
    assert (mine / "out" / "summary.txt").read_text().endswith("new\n")


def toy(out: Path, **options: bool) -> None:
    run_study(STUDY, toy_study.Config(shapes=("flat",)), out, jobs=1, **options)


def test_another_version_of_a_package_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(tmp_path)
    versions = sources._versions()
    monkeypatch.setattr(sources, "_versions", lambda: {**versions, "torch": "9.9"})
    with pytest.raises(
        Conflict, match=f"holds 3 results .*torch {re.escape(versions['torch'])} -> 9.9"
    ):
        toy(tmp_path)
    toy(tmp_path, keep=True)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["code"]["packages"]["torch"] == "9.9"
    (kept,) = manifest["kept"].values()
    assert kept == [manifest["cells"]["shape/flat"]["code"]]


def test_results_without_a_recorded_code_stop(tmp_path: Path) -> None:
    toy(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["code"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    toy(tmp_path)  # the cells themselves say which code made them


def test_fresh_leaves_foreign_files_and_refuses_another_study(tmp_path: Path) -> None:
    toy(tmp_path)
    (tmp_path / "cells" / "notes.txt").touch()
    toy(tmp_path, fresh=True)
    assert (tmp_path / "cells" / "notes.txt").exists()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "study": "other"}))
    with pytest.raises(Conflict, match="holds the results of other"):
        toy(tmp_path, fresh=True)
    assert (tmp_path / "rows.parquet").exists()


def test_what_counts_as_code() -> None:
    modules = Code.of([toy_study.cells]).modules
    assert {"gradlab.rollouts.rollout", "estimators.pathwise", "tests.helpers.toy_study"} <= set(
        modules
    )
    assert not [n for n in modules if n.startswith(SHOWN_ONLY)]
    assert not [name for name in modules if name.startswith(("torch", "numpy", "studies"))]
    for name in SHOWN_ONLY:
        assert (ROOT / f"{name.replace('.', '/')}.py").exists() or (
            ROOT / name.replace(".", "/")
        ).is_dir()


def test_what_shows_the_rows_of_a_study_in_a_folder_does_not_count() -> None:
    """And nothing that counts reads a module that does not."""
    shown = {"answer", "figures", "report"}
    for name in listing.studies():
        study = Study.of(f"studies.{name}")
        code = Code.of([study.config, study.cells, study.run_cell, study.artefacts])
        counted = {module for module in code.modules if module.startswith(f"studies.{name}")}
        assert {f"studies.{name}.cells", f"studies.{name}.config"} <= counted
        assert not {module.rpartition(".")[2] for module in counted} & shown
        for module in counted - {f"studies.{name}"}:  # which puts everything together
            origin = importlib.util.find_spec(module).origin
            tree = ast.parse(Path(origin).read_text(encoding="utf-8"))
            read = {
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            }
            assert not read & shown, module


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""Other words."""\nx = 1  # one\n\n\ndef f():\n    """Says."""\n    return (x)\n', True),
        ('"""Words."""\nx = 2\n\n\ndef f():\n    return x\n', False),
        ('"""Words."""\nx = 1\n\n\ndef f():\n    return -x\n', False),
    ],
)
def test_comments_do_not_count(tmp_path: Path, text: str, same: bool) -> None:
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text('"""Words."""\nx = 1\n\n\ndef f():\n    return x\n')
    second.write_text(text)
    assert (hash_source(first) == hash_source(second)) is same


def test_a_folder_without_init_in_a_package_that_nobody_has_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code counts as any other that a function imports when it is called."""
    inner = tmp_path / "lazy_package" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "lazy_package" / "__init__.py").touch()
    (inner / "deep.py").write_text("x = 1\n")
    text = "def value():\n    from lazy_package.inner import deep\n    return deep.x\n"
    (tmp_path / "lazy_user.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = Code.of([], ["lazy_user"])
    assert {"lazy_user", "lazy_package.inner.deep"} <= set(before.modules)
    (inner / "deep.py").write_text("x = 2\n")
    assert "lazy_package.inner.deep" in Code.of([], ["lazy_user"]).changes(
        {"modules": before.modules, "packages": before.packages}
    )


def test_packages_of_a_python_path_are_installed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on clusters, where torch is in a folder of its own: its code is not read."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "far_package.py").write_text("x = 1\n")
    (tmp_path / "near_user.py").write_text("import far_package\n")
    monkeypatch.syspath_prepend(packages)
    monkeypatch.syspath_prepend(tmp_path)
    assert not {"far_package"} & set(Code.of([], ["near_user"]).modules)
