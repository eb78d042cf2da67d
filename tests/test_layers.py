"""Imports point down only, and nothing is stored by pickle. Read from the syntax trees, so nothing
is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# (files of this package) may not import (any of these)
RULES = [
    ("gradlab", ("estimators", "studies")),
    ("estimators", ("studies", "gradlab.simulators", "gradlab.tasks", "gradlab.study")),
    (
        "gradlab.simulators",
        (
            "gradlab.tasks",
            "gradlab.problem",
            "gradlab.policies",
            "gradlab.critics",
            "gradlab.events",
        ),
    ),
    (
        "gradlab.tasks",
        ("gradlab.simulators", "gradlab.problem", "gradlab.policies", "gradlab.critics"),
    ),
    (
        "gradlab.statistics",
        ("gradlab.simulators", "gradlab.tasks", "gradlab.policies", "gradlab.critics"),
    ),
    (
        "gradlab.study",
        ("gradlab.simulators", "gradlab.tasks", "gradlab.problem", "gradlab.policies"),
    ),
    ("gradlab.moment", ("gradlab.problem", "gradlab.rollout", "gradlab.outcome")),
    ("gradlab.problem", ("gradlab.rollout", "gradlab.outcome", "gradlab.engines")),
    ("gradlab.rollout", ("gradlab.outcome", "gradlab.engines")),
    ("gradlab.outcome", ("gradlab.engines", "gradlab.stepping")),
    ("gradlab.critics", ("gradlab.simulators", "gradlab.tasks", "gradlab.study")),
]


def modules(root: Path, package: str) -> Iterator[tuple[str, Path]]:
    """The dotted names and files of a package (also of a package that is one file)."""
    base = root.joinpath(*package.split("."))
    files = sorted(base.rglob("*.py")) + [p for p in [base.with_suffix(".py")] if p.exists()]
    for path in files:
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts), path


def imported(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, relative imports resolved."""
    for node in ast.walk(ast.parse(path.read_text())):
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
            for node in ast.walk(ast.parse(path.read_text())):
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
