"""What a study's folder holds already and what is left to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradlab.foundation.checkpoints import read_artefact
from gradlab.foundation.errors import Corrupt
from gradlab.study.cells import Artefact, Cell, identities
from gradlab.study.folder import Folder
from gradlab.study.progress import note
from gradlab.study.storage import read_cell


@dataclass(frozen=True)
class Survey:
    """The units of a study, the files of its artefacts, and the units that are not done."""

    artefacts: Mapping[str, Artefact]
    cells: tuple[Cell, ...]
    paths: Mapping[str, Path]
    """Where each artefact is or will be."""
    identities: Mapping[str, str]
    fingerprint: str
    """Of the config: every cell file carries it."""
    left: tuple[Artefact | Cell, ...]
    """In the order in which they should start: artefacts before cells, long before short."""

    @classmethod
    def of(
        cls,
        folder: Folder,
        artefacts: Mapping[str, Artefact],
        cells: Sequence[Cell],
        fingerprint: str,
        committed: Path | None,
    ) -> Survey:
        """Checks every file; a damaged or outdated one is named, removed and put on the list."""
        who = identities(artefacts)
        paths, checksums, left = {}, {}, []
        for name, artefact in artefacts.items():
            paths[name] = folder.artefact(name)
            for path in [
                folder.artefact(name),
                *([committed / f"{name}.safetensors"] if committed else []),
            ]:
                if (checksum := _usable(path, who[name], ours=path == paths[name])) is not None:
                    paths[name], checksums[name] = path, checksum
                    break
            else:
                left.append(artefact)
        # A stable sort: what an artefact needs comes first at equal cost, and is waited for
        # otherwise.
        left.sort(key=lambda artefact: -artefact.cost)
        todo = [c for c in cells if not _done(folder.cell(c.key), c, fingerprint, checksums)]
        left += sorted(todo, key=lambda cell: -cell.cost)
        return cls(artefacts, tuple(cells), paths, who, fingerprint, tuple(left))


def _usable(path: Path, identity: str, ours: bool) -> str | None:
    """The checksum of an intact artefact of the right identity, else None."""
    if not path.exists():
        return None
    again = "; making it again" if ours else "; making another"
    try:
        header = read_artefact(path)[1]
    except Corrupt as error:
        note(f"{error}{again}")
    else:
        if header.get("identity") == identity:
            return header["checksum"]
        note(f"{path} was made with other settings{again}")
    if ours:
        path.unlink()
    return None


def _done(path: Path, cell: Cell, fingerprint: str, checksums: Mapping[str, str]) -> bool:
    """Is there an intact file of this cell, made from the artefacts that there are?"""
    if not path.exists():
        return False
    try:
        header = read_cell(path)[1]
    except Corrupt as error:
        note(f"{error}; doing cell {cell.key} again")
        path.unlink()
        return False
    made_from = header.get("needs", {})
    same = all(
        made_from.get(name) == checksums.get(name, made_from.get(name)) for name in cell.needs
    )
    if header.get("config") == fingerprint and set(made_from) == set(cell.needs) and same:
        return True
    note(f"{path} was made from another config or other artefacts; doing cell {cell.key} again")
    path.unlink()
    return False
