"""The python blocks of the README and of pages with code run, in order,
as a reader would type them.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from estimators.registry import ESTIMATORS
from gradlab.problems.registry import PROBLEMS

ROOT = Path(__file__).parents[2]
NEEDS_WARP = pytest.mark.skipif(
    importlib.util.find_spec("warp") is None, reason="the extra `warp` is not installed"
)
PAGES = (
    "README.md",
    "docs/choosing.md",
    "docs/critics.md",
    pytest.param("docs/engines.md", marks=[pytest.mark.slow, NEEDS_WARP]),
    "docs/extending.md",
    "docs/own_mjcf.md",
    "docs/policies.md",
    "docs/running.md",
    "docs/training.md",
    pytest.param("studies/contact_stiffness/README.md", marks=pytest.mark.slow),
)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str) -> None:
    tables = [(table, dict(table.builders)) for table in (PROBLEMS, ESTIMATORS)]
    try:
        run(page)
    finally:  # names that a page registers are gone after it
        for table, before in tables:
            table.builders.clear()
            table.builders.update(before)


def run(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert blocks, f"{page} has no python block"
    namespace: dict[str, object] = {"__name__": "page"}
    # torch's modules draw their first parameters from the global generator
    with torch.random.fork_rng(devices=[]):
        for block in blocks:
            # blank lines in front: a traceback then shows the line of the page
            code = "\n" * text.count("\n", 0, block.start(1)) + block[1]
            exec(compile(code, page, "exec", dont_inherit=True), namespace)  # noqa: S102  (our own)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md")),
        *(str(p.relative_to(ROOT)) for p in ROOT.glob("studies/*/README.md")),
    ],
)
def test_links_within_the_repository_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"
