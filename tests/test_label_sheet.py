"""Tables in .xlsx files: what openpyxl writes is read back, and what is no table is refused before it is unpacked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from preprocess.readers.label_sheet import read_label_sheet
from shared.errors import FacetError

COLUMNS = ("sub_ID", "Onset", "AUs")


def write_sheet(path: Path, *sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for i, rows in enumerate(sheets):
        sheet = book.create_sheet(f"Sheet{i}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def repack(path: Path, change: dict[str, bytes]) -> Path:
    """The same archive with some members replaced or added."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as old:
        members = {name: old.read(name) for name in old.namelist()} | change
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members.items():
            new.writestr(name, data)
    return path


def test_rows_as_text(tmp_path: Path) -> None:
    path = write_sheet(
        tmp_path / "a.xlsx",
        [["title"], ["nothing here"]],
        [
            ["4DME labels", None, None, "x"],
            [None, " AUS", "Sub_id ", "remark", "onset"],
            ["x", "4+12(L)", 1, "late", 12.0],
            [],
            ["x", None, "  sub 02\n", None, 1.5],
            ["only a remark", None, None, "again", None],
        ],
    )
    rows = read_label_sheet(path, COLUMNS)
    assert rows is not None
    assert [(row.line, row.fields) for row in rows] == [
        (3, {"sub_ID": "1", "Onset": "12", "AUs": "4+12(L)"}),
        (5, {"sub_ID": "sub 02", "Onset": "1.5", "AUs": ""}),
    ]
    assert read_label_sheet(path, (*COLUMNS, "Offset")) is None


def test_formulas_are_not_calculated(tmp_path: Path) -> None:
    path = write_sheet(tmp_path / "a.xlsx", [list(COLUMNS), ["=1+1", '=HYPERLINK("http://x")', 4]])
    rows = read_label_sheet(path, COLUMNS)
    assert rows is not None
    assert [row.fields for row in rows] == [{"sub_ID": "", "Onset": "", "AUs": "4"}]


def test_a_column_twice(tmp_path: Path) -> None:
    path = write_sheet(tmp_path / "a.xlsx", [["sub_ID", "Onset", "AUs", "ONSET"], [1, 2, 3, 4]])
    with pytest.raises(FacetError, match="Onset stands twice"):
        read_label_sheet(path, COLUMNS)


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    path = write_sheet(tmp_path / "a.xlsx", [list(COLUMNS), [1, 2, 3]])
    repack(path, {"xl/media/image1.bin": bytes(140 << 20)})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(FacetError, match=r"a\.xlsx: .*MB unpacked"):
        read_label_sheet(path, COLUMNS)


def test_a_size_that_lies_is_refused(tmp_path: Path) -> None:
    """A directory that says less than a member holds: the member is cut there and does not match its checksum."""
    path = write_sheet(tmp_path / "a.xlsx", [list(COLUMNS), [1, 2, 3]])
    repack(path, {"xl/styles.xml": b"<a>" + bytes(140 << 20)})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"xl/styles.xml")  # its name in the central directory stands 46 bytes after the entry's start
    data[entry - 46 + 24 : entry - 46 + 28] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FacetError, match=r"a\.xlsx: not a readable"):
        read_label_sheet(path, COLUMNS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(tmp_path: Path, encoding: str) -> None:
    path = write_sheet(tmp_path / "a.xlsx", [list(COLUMNS), [1, 2, 3]])
    entities = f'<!ENTITY b "{"b" * 50}"><!ENTITY c "{"&b;" * 50}">'
    bomb = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [{entities}]><a>&c;</a>'
    repack(path, {"xl/sharedStrings.xml": bomb.encode(encoding)})
    with pytest.raises(FacetError, match="defines entities"):
        read_label_sheet(path, COLUMNS)


def test_a_row_far_below_ends_the_table(tmp_path: Path) -> None:
    """A row number of a billion costs a billion empty rows with a reader that believes it."""
    path = write_sheet(tmp_path / "a.xlsx", [list(COLUMNS), [1, 2, 3], [4, 5, 6]])
    with zipfile.ZipFile(path) as archive:
        xml = archive.read("xl/worksheets/sheet1.xml")
    for cell in (b"A", b"B", b"C"):
        xml = xml.replace(b'r="' + cell + b'3"', b'r="' + cell + b'1000000000"')
    repack(path, {"xl/worksheets/sheet1.xml": xml.replace(b'<row r="3"', b'<row r="1000000000"')})
    rows = read_label_sheet(path, COLUMNS)
    assert rows is not None
    assert [row["sub_ID"] for row in rows] == ["1"]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncation(tmp_path: Path, keep: float) -> None:
    path = write_sheet(tmp_path / "a.xlsx", [list(COLUMNS), [1, 2, 3]])
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(FacetError, match=r"a\.xlsx"):
        read_label_sheet(path, COLUMNS)


def test_what_is_no_workbook(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("sub_ID,Onset,AUs\n1,2,3\n")
    with pytest.raises(FacetError, match=r"not a readable \.xlsx"):
        read_label_sheet(tmp_path / "a.xlsx", COLUMNS)
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    with pytest.raises(FacetError, match=r"not a readable \.xlsx"):
        read_label_sheet(tmp_path / "b.xlsx", COLUMNS)
    with pytest.raises(FacetError, match="no such file"):
        read_label_sheet(tmp_path / "c.xlsx", COLUMNS)
