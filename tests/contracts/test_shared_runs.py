"""A run that several tests look at is made once, whichever worker asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.runs import shared


class Factory:
    """Folders of one worker, as pytest lays them out."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def getbasetemp(self) -> Path:
        self.base.mkdir(parents=True, exist_ok=True)
        return self.base

    def mktemp(self, name: str) -> Path:
        folder = self.getbasetemp() / name
        folder.mkdir()
        return folder


@pytest.mark.parametrize("worker, runs", [("gw0", 1), (None, 2)])
def test_workers_share_a_run_and_sessions_do_not(
    worker: str | None, runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    if worker:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    made: list[Path] = []

    def run(out: Path) -> None:
        made.append(out)
        (out / "cells").mkdir(parents=True)
        (out / "cells" / "one").write_text("rows")

    one, other = (shared(Factory(tmp_path / name), "toy", run) for name in ("a", "b"))  # pyright: ignore[reportArgumentType]
    assert len(made) == runs
    (one / "cells" / "one").write_text("changed")
    assert (other / "cells" / "one").read_text() == "rows"
    assert all(path not in (one, other) for path in made)


def test_a_run_that_fails_is_tried_again(tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        raise ValueError(out.name)

    factory = Factory(tmp_path / "a")
    with pytest.raises(ValueError, match="shared-toy"):
        shared(factory, "toy", fail)  # pyright: ignore[reportArgumentType]
    assert shared(factory, "toy", lambda out: out.mkdir()).name == "toy"  # pyright: ignore[reportArgumentType]
