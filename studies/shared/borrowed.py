"""Artefacts of one study that come with the repository, read by other studies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gradlab.foundation.checkpoints import read_artefact, read_header
from gradlab.study import Artefact, Saved

STUDIES = Path(__file__).parents[1]
LENDER = "bias_vs_relaxation"
COMMITTED = STUDIES / LENDER / "artefacts"


def borrowed(name: str, source: str, study: str = LENDER) -> Artefact:
    """An artefact of another study under another name; the checksum is its identity."""
    payload = {"source": source, "checksum": read_header(_path(study, source))["checksum"]}
    if study != LENDER:
        payload["study"] = study
    return Artefact(name, borrow, payload, cost=0.1)


def borrow(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """A copy of a committed artefact of another study."""
    study = artefact.payload.get("study", LENDER)
    return read_artefact(_path(study, artefact.payload["source"]))[0]


def _path(study: str, source: str) -> Path:
    return STUDIES / study / "artefacts" / f"{source}.safetensors"
