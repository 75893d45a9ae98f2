"""BP4D action-unit files: the one-frame offset, what is unknown, and bad files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.readers.au_csv import read_au_intensity, read_au_occurrence
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
    with pytest.raises(ScanError, match=r"does not hold 2 numbers \(the first has 1, and begins with '7'\)"):
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


@pytest.mark.parametrize("text", ["1,6\n", "1,-1\n", "1\n", "1,2,3\n", "1,2\n1,2\n", "a,b\n", "1,2\n3\n"])
def test_bad_intensity_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ScanError, match=r"a\.csv"):
        read_au_intensity(tmp_path / "a.csv")
