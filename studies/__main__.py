"""`python -m studies`: the studies, one line each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from gradlab.foundation.pipes import readers_may_leave


def listed(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and question of every study: of each package that defines STUDY.

    Runs none of them.
    """
    for path in sorted(folder.glob("*/__init__.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        if "STUDY" in names:
            summary = (ast.get_docstring(tree) or "").partition("\n\n")[0]
            yield path.parent.name, " ".join(summary.split())


def studies() -> dict[str, str]:
    """The studies of this folder, with their first lines."""
    return dict(listed(Path(__file__).parent))


def text(command: str) -> str:
    """The list as it is printed, where a study is run by `command` and its name."""
    found = studies()
    width = max(map(len, found))
    lines = [f"{command}{name.ljust(width)}  {line}" for name, line in found.items()]
    ends = "Each has --help, and --preset smoke for a first look."
    return "\n".join([*lines, "", ends, "python -m studies.train trains a policy."])


if __name__ == "__main__":
    with readers_may_leave():
        print(text("python -m studies."))
