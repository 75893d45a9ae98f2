"""Bosphorus' list of action units: sides and strengths, its dialects, and how the scans get them."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_bosphorus import make_bosphorus, write_scan

from preprocess.datasets import DATASETS
from preprocess.datasets.bosphorus_action_units import UNITS
from preprocess.readers.facscodes import CodedUnit, read_facscodes

READER = DATASETS["bosphorus"]
LIST = """bs000_E_HAPPY_0      ->  6C+L7B+12D+25E
bs000_CAU_A12A15_0 ->  G9D+W10B+V6A
bs000_LFAU_12_0      ->  L12C+R25A+63
bs000_N_N_0          ->  0
bs777_N_N_0          ->  0
"""


def values_of(root: Path) -> dict[str, dict[str, int]]:
    """Scan → what is known of it and is not 0."""
    return {
        record.sample_id: {
            name: value
            for name, value in zip(READER.au_names, record.aus, strict=True)
            if value > 0 or (value == 0 and name.endswith("_side"))
        }
        for record in READER.find(root).records
        if record.aus
    }


def summary(root: Path) -> str:
    return "\n".join(list(READER.find(root).notes))


@pytest.mark.parametrize("place", ["facscodes.lst", "facscodes/facscodes.lst", "__others__/FACSCODES/FacsCodes.LST"])
def test_scans_get_their_units_sides_and_strengths(tmp_path: Path, place: str) -> None:
    make_bosphorus(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(LIST.replace("\n", "\r\n").encode())
    assert values_of(tmp_path) == {
        "bs000_E_HAPPY_0": {
            **{"AU6": 1, "AU7": 1, "AU12": 1, "AU25": 1},
            **{"AU6_intensity": 3, "AU7_intensity": 2, "AU12_intensity": 4, "AU25_intensity": 5},
            **{"AU6_side": 0, "AU7_side": 1, "AU12_side": 0, "AU25_side": 0},
        },
        "bs000_CAU_A12A15_0": {
            **{"AU6": 1, "AU9": 1, "AU10": 1, "AU6_intensity": 1, "AU9_intensity": 4, "AU10_intensity": 2},
            **{"AU6_side": 3, "AU9_side": 5, "AU10_side": 4},
        },
        "bs000_LFAU_12_0": {
            **{"AU12": 1, "AU25": 1, "AU63": 1, "AU12_intensity": 3, "AU25_intensity": 1},
            **{"AU12_side": 1, "AU25_side": 2, "AU63_side": 0},
        },
        "bs000_N_N_0": {},
    }
    by_name = {record.sample_id: record for record in READER.find(tmp_path).records}
    neutral = dict(zip(READER.au_names, by_name["bs000_N_N_0"].aus, strict=True))
    assert {neutral[f"AU{unit}"] for unit in UNITS} == {neutral[f"AU{unit}_intensity"] for unit in UNITS} == {0}
    lopsided = dict(zip(READER.au_names, by_name["bs000_LFAU_12_0"].aus, strict=True))
    assert (lopsided["AU63_intensity"], lopsided["AU1"], lopsided["AU1_side"]) == (-1, 0, -1)
    assert by_name["bs001_N_N_0"].aus == ()  # not on the list: unknown
    told = summary(tmp_path)
    assert "18 scans of expressions or action units that it does not list: bs000_E_ANGER_0" in told
    assert "action units of 4 of 32 scans" in told and "1 of its scans are not here" in told


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: text.decode().encode("utf-16-le"),
        lambda text: text.replace(b"\n", b"\r"),
        lambda text: text.replace(b"\n", b"\n\n").rstrip(),
        lambda text: b"Bosphorus FACS codes\nscan units\n" + text,
        lambda text: b"".join(b'"' + line + b'"\n' for line in text.splitlines()),
        lambda text: text.replace(b"->", b",->,"),
        lambda text: text.replace(b"  ->  ", b"\t->\t").replace(b"bs000", b"BS000"),
        lambda text: text.replace(b"+", b" + "),
        lambda text: text.replace(b"_0 ", b"_0.bnt "),
    ],
)
def test_every_dialect_reads_alike(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "facscodes.lst"
    path.write_text(LIST)
    expected = read_facscodes(path)
    path.write_bytes(change(LIST.encode()))
    assert read_facscodes(path) == expected
    assert expected.units["BS000_LFAU_12_0"] == (CodedUnit(12, "L", 3), CodedUnit(25, "R", 1), CodedUnit(63))


def test_what_is_not_understood_is_told_and_unknown(tmp_path: Path) -> None:
    make_bosphorus(tmp_path)
    (tmp_path / "facscodes.lst").write_text(
        "bs000_E_HAPPY_0 -> 6C+Q7+12D\n"
        "bs000_E_FEAR_0 -> 99+4A\n"
        "bs000_E_ANGER_0 -> 4A\nbs000_E_ANGER_0 -> 4B\n"
        "bs000_E_SADNESS_0 ->\n"
        "bs000_N_N_0 0\n"
        "bs000_N_N_1 -> L12B+R12D\n"
        "bs001_N_N_0 -> 71+12A\n"
    )
    records = {
        record.sample_id: dict(zip(READER.au_names, record.aus, strict=False))
        for record in READER.find(tmp_path).records
    }
    happy = records["bs000_E_HAPPY_0"]
    assert (happy["AU6"], happy["AU12_intensity"], happy["AU7"], happy["AU1"]) == (1, 4, -1, -1)
    assert (records["bs000_E_FEAR_0"]["AU4"], records["bs000_E_FEAR_0"]["AU1"]) == (1, 0)
    assert records["bs000_E_ANGER_0"] == records["bs000_E_SADNESS_0"] == records["bs000_N_N_0"] == {}
    both = records["bs000_N_N_1"]
    assert (both["AU12"], both["AU12_intensity"], both["AU12_side"]) == (1, 4, 12)
    unseen = records["bs001_N_N_0"]  # FACS' 71: the eyes cannot be seen
    assert (unseen["AU12"], unseen["AU5"], unseen["AU1"]) == (1, -1, 0)
    told = summary(tmp_path)
    for part in ("bs000_E_HAPPY_0 (Q7)", "bs000_E_FEAR_0 (99)", "different codes, taken as not coded: bs000_E_ANGER_0",
                 "bs000_E_SADNESS_0 (nothing)", "line 6", "the stronger is kept: bs000_N_N_1"):  # fmt: skip
        assert part in told, part


def test_without_a_list(tmp_path: Path) -> None:
    write_scan(tmp_path / "bs000", "bs000_N_N_0")
    assert READER.find(tmp_path).records[0].aus == ()
    assert "no list of action units (facscodes.lst) found" in summary(tmp_path)
    (tmp_path / "facscodes.zip").write_bytes(b"PK")
    assert "facscodes.zip: not unpacked, so no action units are known" in summary(tmp_path)
    (tmp_path / "facscodes.lst").write_text("")
    assert "facscodes.lst: the file is empty" in summary(tmp_path)
    (tmp_path / "facscodes.lst").write_text("nothing of the kind\n")
    assert "holds no line such as" in summary(tmp_path)
