"""Parameters on disk: safetensors with JSON metadata and a checksum in the file's header, and no
pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gradlab.foundation.errors import BadShape, Corrupt, Missing
from gradlab.foundation.files import digest, first_line, write_whole

KEY = "gradlab"  # of the one header entry


class Saved(NamedTuple):
    """What a file holds: tensors, on the CPU when read, and plain JSON values."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = {}  # noqa: RUF012  (never written to)

    def to(self, device: torch.device | str) -> Saved:
        """The same with its tensors there."""
        return self._replace(tensors={n: t.to(device) for n, t in self.tensors.items()})


def save(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write the file whole or not at all, with a checksum; the same format as a study's artefacts.

    Raises `BadValue` if the metadata are not JSON values.
    """
    write_artefact(Path(path), Saved(tensors, metadata), {})


def load(path: str | Path) -> Saved:
    """Exactly what was saved. Raises `Missing` for no file, `Corrupt` for a damaged one."""
    if not Path(path).is_file():
        raise Missing(f"there is no checkpoint at {path}; save one there or check the path")
    return read_artefact(Path(path))[0]


def content_checksum(saved: Saved) -> str:
    """A hash of names, types, shapes, values and metadata."""
    running = hashlib.sha256(digest(saved.metadata).encode())
    for name in sorted(saved.tensors):
        tensor = saved.tensors[name].detach().cpu().contiguous()
        running.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        running.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return running.hexdigest()[:32]


def write_artefact(path: Path, saved: Saved, header: dict[str, Any]) -> None:
    """Writes tensors and metadata as safetensors, with `header` and a checksum in the file's own
    header."""
    # One key only: the library does not keep the order of several.
    full = {**header, "metadata": saved.metadata, "checksum": content_checksum(saved)}
    tensors = {n: t.detach().cpu().contiguous().clone() for n, t in sorted(saved.tensors.items())}
    write_whole(path, lambda p: save_file(tensors, p, {KEY: json.dumps(full)}), (SafetensorError,))


def read_header(path: Path) -> dict[str, Any]:
    """The header of an artefact file, without its tensors. Raises `Corrupt`."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[KEY])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise Corrupt(f"{path} is damaged ({first_line(error)})") from None


def read_artefact(path: Path) -> tuple[Saved, dict[str, Any]]:
    """What was saved, and the header. Raises `Corrupt` if the file is not what was written."""
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise Corrupt(f"{path} is damaged ({first_line(error)})") from None
    saved = Saved(tensors, header.get("metadata", {}))
    if header.get("checksum") != content_checksum(saved):
        raise Corrupt(f"{path} is damaged (its values do not match its checksum)")
    return saved, header


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
