"""Imports point down only, and nothing is stored by pickle. Read from the syntax trees."""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]

# Every part of gradlab, from the ground up: each may import those above it in this list only.
ORDER = [
    "foundation",
    "version",
    "events",
    "policies",
    "simulators",
    "tasks",
    "problems",
    "rollouts",
    "statistics",
    "gradients",
    "critics",
    "oracle",
    "landscapes",
    "testing",
    "training",
    "rendering",
    "environments",
    "study",
    "commands",
    "__main__",
]
# (files of this package) may not import (any of these), beside what the order forbids
RULES = [
    ("gradlab", ("estimators", "studies")),
    ("estimators", ("studies", "gradlab.simulators", "gradlab.tasks", "gradlab.study")),
    ("gradlab.policies", ("gradlab.events",)),
    ("gradlab.simulators", ("gradlab.policies", "gradlab.events")),
    ("gradlab.tasks", ("gradlab.policies", "gradlab.simulators")),
    (
        "gradlab.statistics",
        tuple(f"gradlab.{part}" for part in ORDER[2 : ORDER.index("statistics")]),
    ),
    ("gradlab.critics", ("gradlab.simulators", "gradlab.tasks")),
    (  # words for intervals apart, the tools of studies know nothing of what is studied
        "gradlab.study",
        tuple(f"gradlab.{p}" for p in ORDER[2 : ORDER.index("study")] if p != "statistics"),
    ),
]
ARROWS = 100  # between top-level parts, at most


def modules(root: Path, package: str) -> Iterator[tuple[str, Path]]:
    """The dotted names and files of a package (also of a package that is one file)."""
    base = root.joinpath(*package.split("."))
    files = sorted(base.rglob("*.py")) + [p for p in [base.with_suffix(".py")] if p.exists()]
    for path in files:
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts), path


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """The imports and the calls of a file, which is read once."""
    kinds = (ast.Import, ast.ImportFrom, ast.Call)
    return tuple(n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds))


def imported(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, relative imports resolved."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = name.split(".")[: -node.level]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def violations(root: Path, package: str, forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(root)}:{line} imports {target}"
        for name, path in modules(root, package)
        for line, target in imported(name, path)
        if any(target == f or target.startswith(f + ".") for f in forbidden)
    ]


@pytest.mark.parametrize(("package", "forbidden"), RULES, ids=[rule[0] for rule in RULES])
def test_imports_point_down(package: str, forbidden: tuple[str, ...]) -> None:
    assert list(modules(ROOT, package)), f"no module found in {package}"
    assert violations(ROOT, package, forbidden) == []


def tops(root: Path) -> list[str]:
    """The packages and modules right inside gradlab."""
    found = {path.relative_to(root / "gradlab").parts[0] for path in root.glob("gradlab/**/*.py")}
    return sorted(name.removesuffix(".py") for name in found - {"__init__.py"})


def part(name: str) -> str:
    """The top-level part of a dotted name: a part of gradlab, or another package."""
    parts = name.split(".")
    return parts[1] if parts[0] == "gradlab" and len(parts) > 1 else parts[0]


def arrows(root: Path) -> set[tuple[str, str]]:
    """(part, part that it imports), imports inside functions included."""
    known = set(tops(root)) | {"estimators", "studies"}
    return {
        (part(name), part(target))
        for package in ("gradlab", "estimators", "studies")
        for name, path in modules(root, package)
        if name != "gradlab.__init__"
        for _, target in imported(name, path)
        if target.split(".")[0] in {"gradlab", "estimators", "studies"}
        if part(target) in known and part(target) != part(name)
    }


def test_every_part_has_a_layer() -> None:
    assert tops(ROOT) == sorted(ORDER)


def test_parts_import_what_is_below_them() -> None:
    up = [(a, b) for a, b in arrows(ROOT) if b in ORDER and a in ORDER]
    assert len(up) > 50
    assert [(a, b) for a, b in up if ORDER.index(b) >= ORDER.index(a)] == []


def test_the_structure_can_be_drawn() -> None:
    assert len(arrows(ROOT)) <= ARROWS


def graph(root: Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    """Every module and those that it imports, imports inside functions included; a package's
    `__init__` counts where it is imported itself."""
    known = {
        name.removesuffix(".__init__") for package in packages for name, _ in modules(root, package)
    }
    found: dict[str, set[str]] = {name: set() for name in known}
    for package in packages:
        for name, path in modules(root, package):
            for _, target in imported(name, path):
                inner = target if target in known else target.rpartition(".")[0]
                if inner in known and not name.removesuffix(".__init__").startswith(inner):
                    found[name.removesuffix(".__init__")].add(inner)
    return found


def test_no_modules_import_each_other() -> None:
    found = graph(ROOT, ("gradlab", "estimators", "studies"))
    assert len(found) > 200
    assert len(list(TopologicalSorter(found).static_order())) == len(found)


def test_a_circle_is_seen(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "__init__.py").write_text("")
    (tmp_path / "box" / "a.py").write_text("def f():\n    from box.b import g\n")
    (tmp_path / "box" / "b.py").write_text("from box import a\n")
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph(tmp_path, ("box",))).static_order())


def test_no_module_is_hidden_by_what_its_package_exports() -> None:
    """`import gradlab.x.y as y` gives the module, not a function of its name."""
    hidden = []
    for package in ("gradlab", "estimators", "studies"):
        for name, _ in modules(ROOT, package):
            above, _, last = name.rpartition(".")
            if above and not last.startswith("__"):
                found = getattr(importlib.import_module(above), last, None)
                if found is not None and not isinstance(found, ModuleType):
                    hidden.append(name)
    assert hidden == []


def test_nothing_is_pickled() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {target}"
        for package in ("gradlab", "estimators", "studies")
        for name, path in modules(ROOT, package)
        for line, target in imported(name, path)
        if target.split(".")[0] in {"pickle", "cloudpickle", "dill", "shelve"}
    ]
    for package in ("gradlab", "estimators", "studies"):
        for _, path in modules(ROOT, package):
            for node in nodes(path):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                    "torch.save",
                    "torch.load",
                    "joblib.dump",
                    "joblib.load",
                }:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}")
    assert found == []


def test_a_violation_is_seen(tmp_path: Path) -> None:
    inner = tmp_path / "gradlab" / "simulators"
    inner.mkdir(parents=True)
    (inner / "drone.py").write_text("from ..tasks import landing\nimport estimators.mixtures\n")
    assert violations(tmp_path, "gradlab.simulators", ("gradlab.tasks",)) == [
        "gradlab/simulators/drone.py:1 imports gradlab.tasks.landing"
    ]
    assert len(violations(tmp_path, "gradlab", ("estimators",))) == 1
