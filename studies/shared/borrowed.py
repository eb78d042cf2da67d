"""Artefacts of `bias_vs_relaxation` that come with the repository, read by other studies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gradlab.foundation.checkpoints import read_artefact, read_header
from gradlab.study import Artefact, Saved

COMMITTED = Path(__file__).parents[1] / "bias_vs_relaxation" / "artefacts"


def borrowed(name: str, source: str) -> Artefact:
    """An artefact of `bias_vs_relaxation` under another name; the checksum is its identity."""
    path = COMMITTED / f"{source}.safetensors"
    payload = {"source": source, "checksum": read_header(path)["checksum"]}
    return Artefact(name, borrow, payload, cost=0.1)


def borrow(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """A copy of a committed artefact of `bias_vs_relaxation`."""
    return read_artefact(COMMITTED / f"{artefact.payload['source']}.safetensors")[0]
