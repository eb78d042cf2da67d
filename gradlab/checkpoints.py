"""Parameters on disk: safetensors with JSON metadata in the file's header,
and no pickle anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from gradlab.errors import BadShape, Missing


class Checkpoint(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]  # on the CPU
    metadata: dict[str, Any]  # JSON values


def save(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write the file whole or not at all, with a checksum; the same format as a study's artefacts.

    Raises `BadValue` if the metadata are not JSON values.
    """
    # imported late: the study tools bring pandas and pyarrow, which nothing else here needs
    from gradlab.study.cells import Saved
    from gradlab.study.storage import write_artefact

    write_artefact(Path(path), Saved(tensors, metadata), {})


def load(path: str | Path) -> Checkpoint:
    """Exactly what was saved. Raises `Missing` for no file, `Corrupt` for a damaged one."""
    from gradlab.study.storage import read_artefact

    if not Path(path).is_file():
        raise Missing(f"there is no checkpoint at {path}; save one there or check the path")
    saved, _ = read_artefact(Path(path))
    return Checkpoint(saved.tensors, saved.metadata)


def check_shapes(
    tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]], what: str
) -> None:
    """Raise `BadShape`, naming the first difference, unless names and shapes are as expected."""
    got = {name: tuple(value.shape) for name, value in tensors.items()}
    names = [n for n in {**expected, **got} if expected.get(n) != got.get(n)]
    if names:
        first = names[0]
        raise BadShape(
            f"{what} should have {first} of shape {expected.get(first, 'absent')}, "
            f"got {got.get(first, 'absent')} ({len(names)} differ); "
            "check that the checkpoint belongs to this problem"
        )
