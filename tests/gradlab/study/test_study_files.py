"""Seeds, tables and artefact files: stable, whole, checked."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from gradlab.foundation.checkpoints import read_artefact, write_artefact
from gradlab.foundation.errors import BadValue, Corrupt, NotWritten, UnknownName
from gradlab.foundation.files import write_whole
from gradlab.study import Answer, Artefact, Cell, Saved, seed_for
from gradlab.study.cells import identities, in_order
from gradlab.study.storage import read_cell, table_of, write_cell, write_rows


def test_seeds_are_stable_and_depend_on_names() -> None:
    # Fixed numbers: published tables depend on them.
    assert seed_for(0) == 6197007067532723406
    assert seed_for(3, "landing", "noise", 2, 0.5) == 4282088161419330209
    different = {
        seed_for(s, a, b) for s in range(20) for a in ("x", "y", "xy") for b in ("", "y", "z")
    }
    assert len(different) == 20 * 9
    assert seed_for(0, "a", "b") != seed_for(0, "ab") != seed_for(0, "b", "a")
    assert all(0 <= seed < 2**63 for seed in different)


ROWS = [
    {"name": "a", "count": 1, "value": 1, "flag": True, "late": None, "nothing": None},
    {"name": "b", "count": 2, "value": 0.1 + 0.2, "flag": False, "nothing": None, "extra": "x"},
    {"name": "c", "count": 3, "value": math.nan, "flag": True, "late": 4, "nothing": None},
]


def test_column_types_do_not_depend_on_row_order() -> None:
    types = {n: str(table_of(ROWS)[n].type) for n in table_of(ROWS).column_names}
    assert types == {
        "name": "string", "count": "int64", "value": "double", "flag": "bool",
        "late": "int64", "nothing": "double", "extra": "string",
    }  # fmt: skip
    turned = table_of(ROWS[::-1])
    assert {n: str(turned[n].type) for n in turned.column_names} == types


def test_numbers_of_numpy_and_torch_become_plain() -> None:
    table = table_of([{"a": np.float32(0.5), "b": torch.tensor(2), "c": np.bool_(True)}])
    assert table.to_pylist() == [{"a": 0.5, "b": 2, "c": True}]


@pytest.mark.parametrize("values", [(1, "x"), (True, 2), ([1, 2], [3]), (torch.ones(2), None)])
def test_mixed_or_compound_values_are_refused(values: tuple) -> None:
    with pytest.raises(BadValue, match="column 'a'"):
        table_of([{"a": value} for value in values])


def test_cell_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cell.parquet"
    write_cell(path, ROWS, {"cell": "x"})
    rows, header = read_cell(path)
    assert (header["cell"], header["rows"]) == ("x", 3)
    assert (
        rows[1]["value"] == 0.1 + 0.2 and math.isnan(rows[2]["value"]) and rows[0]["late"] is None
    )
    assert [p.name for p in path.parent.iterdir()] == ["cell.parquet"]
    write_cell(path, [], {"cell": "x"})
    assert read_cell(path)[0] == []


def test_rows_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    write_rows(tmp_path / "a", ROWS)
    write_rows(tmp_path / "b", ROWS)
    write_rows(tmp_path / "c", [ROWS[0] | {"count": 7}, *ROWS[1:]])
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
@pytest.mark.parametrize("kind", ["cell", "artefact"])
def test_damage_is_noticed(tmp_path: Path, damage: str, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "cell":
        write_cell(path, [{"value": math.sin(i)} for i in range(100)], {"cell": "x"})
    else:
        write_artefact(path, Saved({"w": torch.arange(100.0)}), {"name": "x"})
    read = read_cell if kind == "cell" else read_artefact
    read(path)
    whole = path.read_bytes()
    middle = whole.find(np.float64(math.sin(7)).tobytes()) if kind == "cell" else len(whole) - 9
    assert middle > 0
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    changed = {"cut": whole[:-5], "flip": flipped, "empty": b"", "foreign": b"hello" * 40}
    path.write_bytes(changed[damage])
    with pytest.raises(Corrupt, match=str(path)) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_artefact_gives_back_what_was_written_in_the_same_bytes(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    saved = Saved(
        {"b": shared.view(2, 3).t(), "a": shared, "scalar": torch.tensor(1.5, dtype=torch.float64),
         "half": torch.ones(2, dtype=torch.bfloat16), "none": torch.zeros(0)},
        {"rate": 0.1, "list": [1, 2], "text": "x"},
    )  # fmt: skip
    write_artefact(tmp_path / "a", saved, {"name": "x"})
    write_artefact(tmp_path / "b", saved, {"name": "x"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    back, header = read_artefact(tmp_path / "a")
    assert header["name"] == "x" and back.metadata == saved.metadata
    assert back.tensors.keys() == saved.tensors.keys()
    for name, tensor in saved.tensors.items():
        assert back.tensors[name].dtype == tensor.dtype
        assert torch.equal(back.tensors[name], tensor)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NotWritten, match=r"cannot write .*file \(No space left on device\)"):
        write_whole(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def build(artefact: Artefact, needs: object) -> Saved:
    raise AssertionError("never called")


def test_artefacts_come_after_what_they_need() -> None:
    chain = [
        Artefact("c", build, needs=("b",)),
        Artefact("b", build, needs=("a",)),
        Artefact("a", build),
    ]
    assert list(in_order([*chain, Artefact("other", build)], [Cell("x", needs=("c",))])) == [
        "a",
        "b",
        "c",
    ]
    with pytest.raises(UnknownName, match="unknown artefact 'aa'"):
        in_order(chain, [Cell("x", needs=("aa",))])
    with pytest.raises(BadValue, match="cycles, got a -> b -> a"):
        in_order(
            [Artefact("a", build, needs=("b",)), Artefact("b", build, needs=("a",))],
            [Cell("x", needs=("a",))],
        )
    with pytest.raises(BadValue, match="'a' twice"):
        in_order([Artefact("a", build), Artefact("a", build)], [])


def test_identity_covers_payload_and_needs() -> None:
    def of(payload: dict) -> str:
        parts = {"a": Artefact("a", build, payload), "b": Artefact("b", build, needs=("a",))}
        return identities(parts)["b"]

    assert of({"seed": 1}) == of({"seed": 1}) != of({"seed": 2})
    with pytest.raises(BadValue, match="JSON"):
        of({"seed": torch.ones(1)})


@pytest.mark.parametrize("name", ["", "a b", "../a", "a//b", ".hidden", "a/", "/a", "a:b", "a\n"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(BadValue, match="name"):
        Cell(name)
    with pytest.raises(BadValue, match="name"):
        Artefact(name, build)


def answer_of(rows: int, sentence: str = "It does.") -> Answer:
    table = pd.DataFrame([{"name": f"row {i}", "value": f"{i}.0"} for i in range(rows)])
    return Answer("Does it?", sentence, "Ten episodes.", "Another seed.", table)


def test_an_answer_fits_a_screen() -> None:
    lines = str(answer_of(2)).splitlines()
    assert lines[:2] == ["Question:        Does it?", "Answer:          It does."]
    assert lines[4:] == ["", "name   value", "row 0  0.0", "row 1  1.0"]
    for rows, sentence in ((3, "word " * 200), (200, "Yes."), (31, "Yes."), (0, "Yes.")):
        text = str(answer_of(rows, sentence)).splitlines()
        assert len(text) <= 37 and max(map(len, text)) <= 100
    cut = str(answer_of(200)).splitlines()
    assert len(cut) == 37 and cut[-1] == "... and 170 more rows" and cut[-2] == "row 29  29.0"


def test_an_answer_needs_its_sentences_and_a_table() -> None:
    with pytest.raises(BadValue, match=r"Answer\.answer, got ''"):
        answer_of(1, "")
    fields = {"question": "?", "answer": "Yes.", "rests_on": "One.", "would_change": "Two."}
    with pytest.raises(BadValue, match=r"Answer\.table, got list"):
        Answer.__post_init__(SimpleNamespace(**fields, table=[]))  # past the tests' type checks
    gaps = pd.DataFrame({"a": ["x", None], "b": [math.nan, "y"]})
    assert str(Answer("Does it?", "Yes.", "1.", "2.", gaps)).splitlines()[-2:] == ["x", "   y"]
