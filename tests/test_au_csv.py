"""BP4D action-unit files: the one-frame offset, what is unknown, and bad files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.readers.au_csv import find_uncoded_units, read_au_intensity, read_au_occurrence
from shared.errors import ScanError

HEADER = ",".join(map(str, range(100)))


def occurrence_text(rows: dict[int, dict[int, int]]) -> str:
    lines = [HEADER]
    for frame, units in rows.items():
        lines.append(",".join(map(str, [frame, *(units.get(unit, 9) for unit in range(1, 100))])))
    return "\n".join(lines) + "\n"


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.integers(1, 3000), st.dictionaries(st.sampled_from([1, 2, 12, 39, 99]), st.sampled_from([0, 1, 9]))
    )
)
def test_model_frame_n_is_au_frame_n_plus_1(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[int, dict[int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "F001_T1.csv"
    path.write_text(occurrence_text(rows))
    read = {frame: values.tolist() for frame, values in read_au_occurrence(path, (12, 1, 99)).items()}
    assert read == {
        frame - 1: [-1 if units.get(unit, 9) == 9 else units[unit] for unit in (12, 1, 99)]
        for frame, units in rows.items()
    }


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_intensity(tmp_path: Path, newline: str) -> None:
    path = tmp_path / "F001_T1_AU12.csv"
    path.write_bytes("7,0\n8,5\n9,9\n10,3\n".replace("\n", newline).encode())
    assert read_au_intensity(path) == {6: 0, 7: 5, 8: -1, 9: 3}


def test_whole_numbers_with_a_point(tmp_path: Path) -> None:
    path = tmp_path / "F001_T1.csv"
    lines = occurrence_text({3: {12: 1}, 4: {12: 0}}).splitlines()
    path.write_text("\n".join([lines[0], *(line.replace(",", ".0,") for line in lines[1:])]))
    read = {frame: values.tolist() for frame, values in read_au_occurrence(path, (12, 1)).items()}
    assert read == {2: [1, -1], 3: [0, -1]}
    (tmp_path / "a.csv").write_text("1,2.5\n")
    with pytest.raises(ScanError, match=r"expected whole numbers, found 2\.5"):
        read_au_intensity(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("7,\n8,5\n")
    with pytest.raises(ScanError, match=r"expected 2 numbers per line, found 1: '7'"):
        read_au_intensity(tmp_path / "a.csv")


def test_one_frame_and_none(tmp_path: Path) -> None:
    path = tmp_path / "F001_T1.csv"
    path.write_text(occurrence_text({1: {12: 1}}))
    (values,) = read_au_occurrence(path, tuple(range(1, 100))).values()
    assert np.flatnonzero(values == 1).tolist() == [11]
    assert values.dtype == np.int8
    path.write_text(HEADER + "\n")
    assert read_au_occurrence(path, (1,)) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (occurrence_text({1: {}}).replace(HEADER, HEADER[:-3]), "99 numbers"),
        (occurrence_text({1: {}}).replace(HEADER, "frame"), "first line"),
        (occurrence_text({1: {}})[:-3], "100 numbers"),
        (occurrence_text({1: {}}) + "2,9\n", "100 numbers"),
        (occurrence_text({1: {4: 5}}), "value 5"),
        (occurrence_text({1: {}}) + occurrence_text({1: {}}).split("\n")[1], "twice"),
        (occurrence_text({1: {}}).replace(",9,9,9", ",x,9,9"), "expected numbers"),
        (occurrence_text({-4: {}}), "no frame"),
        ("", "empty"),
    ],
)
def test_bad_occurrence_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "F001_T1.csv"
    path.write_text(text)
    with pytest.raises(ScanError, match=message) as error:
        read_au_occurrence(path, (1, 4))
    assert "F001_T1.csv" in str(error.value)


# The data set's second form: 35 columns, the frame's headed 1.
NAMED = (1, 2, 4, 5, 6, 7, *range(9, 21), 22, 23, 24, *range(27, 40))


def named_text(rows: dict[int, dict[int, int]], units: tuple[int, ...] = NAMED, first: str = "1") -> str:
    lines = [",".join([first, *map(str, units)])]
    lines += [",".join(map(str, [frame, *(shown.get(unit, 9) for unit in units)])) for frame, shown in rows.items()]
    return "\n".join(lines) + "\n"


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.integers(1, 3000), st.dictionaries(st.sampled_from([1, 2, 12, 17, 39]), st.sampled_from([0, 1, 9]))
    ),
    st.permutations(NAMED),
)
def test_columns_are_found_by_their_units(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[int, dict[int, int]], units: list[int]
) -> None:
    """As the form with a column for each number reads, whichever columns there are, in any order."""
    path = tmp_path_factory.getbasetemp() / "F013_T1.csv"
    wanted = (12, 1, 39, 17, 99)
    path.write_text(occurrence_text(rows))
    expected = {frame: values.tolist() for frame, values in read_au_occurrence(path, wanted).items()}
    path.write_text(named_text(rows, tuple(units)))
    assert {frame: values.tolist() for frame, values in read_au_occurrence(path, wanted).items()} == expected
    assert find_uncoded_units(path, wanted) == (99,)


def test_units_of_a_few_columns(tmp_path: Path) -> None:
    path = tmp_path / "F001_T1.csv"
    for first, units in (("1", (6, 12, 17)), ("frame", (12,)), ("0", (4, 12)), ("1", (1, 12))):
        path.write_text(named_text({7: {12: 1}, 8: {12: 0}, 9: {}}, units, first))
        read = {frame: values.tolist() for frame, values in read_au_occurrence(path, (12, 24)).items()}
        assert read == {6: [1, -1], 7: [0, -1], 8: [-1, -1]}, (first, units)
    path.write_text("Frame,AU01,AU12\n7,0,1\n")
    assert read_au_occurrence(path, (12,))[6].tolist() == [1]


@pytest.mark.parametrize(
    "header",
    ["1,1,2,2,4", "1,2,3,100", "1,0,2", "frame,brow,lips", "5,1,2", "1", "1,1,2,-4", "1,6,12"],
)
def test_a_header_that_is_neither_is_refused(tmp_path: Path, header: str) -> None:
    """The last is of units alone, without a column of frames."""
    path = tmp_path / "F001_T1.csv"
    path.write_text(header + "\n" + "\n".join(",".join(row * header.count(",") + row) for row in "010") + "\n")
    with pytest.raises(ScanError, match=r"F001_T1\.csv: its first"):
        read_au_occurrence(path, (12,))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", ",,,\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\n\n") + ",,,\n",
        lambda text: '"' + text.replace(",", '","').replace("\n", '"\n"').rstrip('"'),
        lambda text: text.replace(",", ".0,"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_what_spreadsheets_make_of_a_table(tmp_path: Path, change, encoding: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "F001_T1.csv"
    for text in (named_text({3: {12: 1}, 4: {12: 0}}), occurrence_text({3: {12: 1}, 4: {12: 0}})):
        path.write_bytes(change(text).encode(encoding))
        read = {frame: values.tolist() for frame, values in read_au_occurrence(path, (12, 1)).items()}
        assert read == {2: [1, -1], 3: [0, -1]}
    path.write_bytes(change("7,0\n8,5\n").encode(encoding))
    assert read_au_intensity(path) == {6: 0, 7: 5}


@pytest.mark.parametrize("text", ["1,6\n", "1,-1\n", "1\n", "1,2,3\n", "1,2\n1,2\n", "a,b\n", "1,2\n3\n"])
def test_bad_intensity_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ScanError, match=r"a\.csv"):
        read_au_intensity(tmp_path / "a.csv")
