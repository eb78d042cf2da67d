"""Another folder named `estimators` or `studies` is named in one line, wherever it hides ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab.foundation import siblings
from gradlab.foundation.errors import Missing

ROOT = Path(__file__).parents[3]

# As an editable installation finds the packages: after all folders of sys.path.
INSTALLED = f"""
import importlib.util, sys
class Installed:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("gradlab", "estimators", "studies"):
            folder = {str(ROOT)!r} + "/" + name
            return importlib.util.spec_from_file_location(
                name, folder + "/__init__.py", submodule_search_locations=[folder]
            )
sys.meta_path.insert(
    next(i for i, f in enumerate(sys.meta_path) if getattr(f, "__name__", "") == "PathFinder") + 1,
    Installed,
)
"""


def run(program: str, folder: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PYTHONPATH": path} if path else {}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_our_own_packages_are_found() -> None:
    for package in siblings.PACKAGES:
        assert siblings.found(package) == ROOT / package
        assert siblings.complaint(package) is None
    siblings.check(*siblings.PACKAGES)


def test_an_empty_folder_is_named_before_the_attribute_error(tmp_path: Path) -> None:
    """The case that users met: nothing but an empty folder where they are."""
    (tmp_path / "estimators").mkdir()
    program = "import estimators\nimport gradlab\nestimators.FOG()\n"
    done = run(INSTALLED + program, tmp_path)
    assert "AttributeError: module 'estimators' has no attribute 'FOG'" in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "HiddenPackage" in line]
    assert f"import estimators finds {tmp_path / 'estimators'}" in said
    assert f"not gradlab's ({ROOT / 'estimators'}); rename it" in said


@pytest.mark.parametrize("package", siblings.PACKAGES)
@pytest.mark.parametrize("form", ["package", "module"])
def test_a_package_or_a_module_of_that_name_is_named(
    tmp_path: Path, package: str, form: str
) -> None:
    decoy = tmp_path / package / "__init__.py" if form == "package" else tmp_path / f"{package}.py"
    decoy.parent.mkdir(exist_ok=True)
    decoy.touch()
    program = f"""
from gradlab.foundation import siblings
from gradlab.foundation.errors import Missing
other = ({{*siblings.PACKAGES}} - {{{package!r}}}).pop()
siblings.check(other)
try:
    siblings.check(*siblings.PACKAGES)
except Missing as error:
    print(error)
"""
    done = run(program, tmp_path, str(ROOT))
    where = decoy.parent if form == "package" else decoy
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"import {package} finds {where}, which is not gradlab's")
    assert done.stdout.count("\n") == 1
    assert done.stderr.count("HiddenPackage") == 1


def test_a_study_says_which_package_is_hidden_before_it_misses_anything(tmp_path: Path) -> None:
    (tmp_path / "estimators.py").touch()
    done = run("import studies.jumps", tmp_path, str(ROOT))
    last = done.stderr.strip().splitlines()[-1]
    assert f"Missing: import estimators finds {tmp_path / 'estimators.py'}" in last
    assert "rename it" in last


def test_a_package_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "found", lambda package: None)
    with pytest.raises(Missing, match=r"studies of gradlab is not there.*install gradlab again"):
        siblings.check("studies")
