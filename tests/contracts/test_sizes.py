"""Modules and functions stay short enough to be read at once, and a public class has one name.

Read from the syntax trees. Widths of lines are ruff's: W505 in `pyproject.toml`.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = 400  # of a module
BODY = 60  # lines of a function, its docstring apart
TWICE = {"Answer", "Line", "Tables"}  # each in two modules that never meet


def modules(*packages: str) -> Iterator[tuple[str, str]]:
    """Path from the root and text of every module of the packages."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def bodies(text: str) -> Iterator[tuple[str, int]]:
    """Name and lines of every function of a module, without its docstring."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield node.name, node.end_lineno - first[0].lineno + 1 if first else 0


def over(sizes: dict[str, int], limit: int) -> dict[str, int]:
    """Sizes above their limit."""
    return {name: n for name, n in sizes.items() if n > limit}


def test_modules_are_short() -> None:
    sizes = {path: text.count("\n") for path, text in modules("gradlab", "estimators", "studies")}
    assert len(sizes) > 100
    assert over(sizes, LINES) == {}


def test_functions_are_short() -> None:
    sizes = {
        f"{path} {name}": lines
        for path, text in modules("gradlab", "estimators", "studies")
        for name, lines in sorted(bodies(text), key=lambda body: body[1])
    }
    assert len(sizes) > 1000
    assert over(sizes, BODY) == {}


def test_docstrings_are_no_part_of_a_function() -> None:
    text = 'def f():\n    """One.\n\n    Two.\n    """\n    a = 1\n    return a\n'
    assert dict(bodies(text)) == {"f": 2}
    assert over({"f": 61, "g": 60}, 60) == {"f": 61}


def test_public_classes_of_the_core_have_names_of_their_own() -> None:
    places = defaultdict(list)
    for path, text in modules("gradlab", "estimators"):
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path)
    assert {name for name, paths in places.items() if len(paths) > 1} == TWICE
