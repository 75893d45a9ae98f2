"""4DME's label sheet as people keep it: gaps, zeros, dates, spellings; nothing is guessed in silence."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from test_fourdme import clips_of, make_4dme, summary, write_frames

from preprocess.datasets.fourdme import AU_NAMES, find_4dme
from preprocess.datasets.fourdme_sheet import Units, parse_units
from shared.errors import FacetError


@pytest.mark.parametrize(
    ("moments", "taken", "told"),
    [
        ((3, 0, 6), (3, None, 6), "a moment of 0"),
        ((3, None, 6), (3, None, 6), ""),
        ((3, 2, 6), (3, None, 6), "an apex that is not between"),
        ((3, 9, 6), (3, None, 6), "an apex that is not between"),
        ((3, 4, 0), (3, 4, None), "a moment of 0"),
        ((0, 4, 6), (0, 4, 6), ""),
        ((0, 4, 3), (None, None, None), "not in this order"),
        ((6, 4, 3), (None, None, None), "not in this order"),
    ],
)
def test_moments_out_of_order_cost_no_others(
    tmp_path: Path, moments: tuple[int | None, ...], taken: tuple[int | None, ...], told: str
) -> None:
    make_4dme(tmp_path, ["s1", "c", "Positive", *moments, ""])
    write_frames(tmp_path / "s1" / "c", range(9))
    inside = [record for record in find_4dme(tmp_path).records if record.sequence]
    onset, _, offset = taken
    assert [record.frame for record in inside] == [*range(onset or 0, 9 if offset is None else offset + 1)]
    assert {record.moments for record in inside} == {taken}
    notes = [line for line in summary(tmp_path) if "s1/c (line 2)" in line and "no emotion" not in line]
    assert [told in note for note in notes] == [True] * bool(told)


def test_one_person_and_one_folder_under_two_spellings(tmp_path: Path) -> None:
    make_4dme(
        tmp_path,
        ["Sub01 ", "c", "Positive", 1, 1, 2, ""],
        ["sub1", "d", "Negative", 1, 1, 2, ""],
        ["SUB01", "C", "Surprise", 4, 4, 5, ""],
        ["sub11", "c", "Others", 1, 1, 2, ""],
    )
    for folder in ("sub01/c", "sub01/d", "sub11/c"):
        write_frames(tmp_path / folder, range(1, 6))
    records = find_4dme(tmp_path).records
    assert {record.subject for record in records} == {"Sub01", "sub11"}
    assert len({record.source for record in records}) == len(records) == 15
    assert clips_of(records)["Sub01/c/4-5"] == [4, 5]
    assert any(
        "names written in two ways" in line and "Sub01/c (line 4: SUB01/C)" in line for line in summary(tmp_path)
    )
    make_4dme(tmp_path, ["sub01", "c", "Positive", 1, 1, 2, ""], [1, "c", "Negative", 4, 4, 5, ""])
    with pytest.raises(FacetError, match=r"lines 2 and 3 say sub01/c and 1/c, but both lead to sub01/c/00001\.obj"):
        find_4dme(tmp_path)


def test_what_the_sheet_leaves_open_is_told(tmp_path: Path) -> None:
    make_4dme(tmp_path, ["s1", "c", "Positive", 1, 1, 2, ""], ["s1", "d", None, 1, 1, 2, ""])
    for folder in ("3D/s1/c", "3D/s1/d", "3D/s1/e", "3D/s2/a", "3D/texts"):
        write_frames(tmp_path / folder, range(1, 3))
    lines = summary(tmp_path)
    assert [record.targets for record in find_4dme(tmp_path).records if record.task == "d"] == [()] * 2
    assert any(line.startswith("no emotion given") and line.endswith("1 clips, s1/d (line 3)") for line in lines)
    assert "meshes in folders that the sheet does not name: 2 folders, 3D/s1/e, 3D/s2/a" in lines


@pytest.mark.parametrize(
    ("cell", "units"),
    [
        ("4+7", {4, 7}),
        ("AU4 + au7(L)+R12", {4, 7, 12}),
        ("4(left)+L10+12B+[R]14", {4, 10, 12, 14}),
        ("12(L/R)+4(b,l)", {4, 12}),
        ("4 7", {4, 7}),
        ("AU 4/AU 7", {4, 7}),
        ("", set()),
        ("/", set()),
        ("n/a", set()),
    ],
)
def test_action_units(cell: str, units: set[int]) -> None:
    assert parse_units(cell) == Units(frozenset(units))


@pytest.mark.parametrize(
    ("cell", "shown", "static", "unclear"),
    [
        ("4+7+45(k)", {4, 7}, {45}, set()),
        ("45 (K)", set(), {45}, set()),
        ("4 7(k)", {4}, {7}, set()),
        ("AU4（k）+12[k]+14", {14}, {4, 12}, set()),
        ("(k)45+6(L, k)+12(k", set(), {6, 12, 45}, set()),
        ("4(k)+4", {4}, set(), set()),
        ("12(?)+4(kk)+7", {7, 12}, set(), {4}),
        ("12(q)+L4(k)", set(), {4}, {12}),
    ],
)
def test_static_action_units_are_not_shown(cell: str, shown: set[int], static: set[int], unclear: set[int]) -> None:
    assert parse_units(cell) == Units(frozenset(shown), frozenset(static), frozenset(unclear))


def test_what_is_no_action_unit() -> None:
    assert parse_units("?+x4y+123") == Units(unread=("?", "x4y", "123"))
    assert parse_units("12+24?") == Units(frozenset({12}), unread=("24?",))
    assert parse_units("2021-04-07 00:00:00").unread == ("2021-04-07", "00:00:00")  # a spreadsheet's idea of 4/7


def test_action_units_that_cannot_be_read_are_unknown_and_told(tmp_path: Path) -> None:
    make_4dme(
        tmp_path,
        ["s1", "doubt", "Positive", 1, 2, 3, "12+24?"],
        ["s1", "date", "Positive", 1, 2, 3, datetime(2021, 4, 7)],
        ["s1", "sure", "Positive", 1, 2, 3, "12"],
    )
    for clip in ("doubt", "date", "sure"):
        write_frames(tmp_path / "s1" / clip, range(1, 4))
    aus = {
        record.task: dict(zip(AU_NAMES, record.aus or [-1] * 28, strict=True)) for record in find_4dme(tmp_path).records
    }
    assert [(aus[clip]["AU12"], aus[clip]["AU24"]) for clip in ("doubt", "date", "sure")] == [(1, -1), (-1, -1), (1, 0)]
    assert any(
        "cannot be read" in line and "s1/doubt (line 2: 24?), s1/date (line 3" in line for line in summary(tmp_path)
    )


def test_static_units_are_0_and_unknown_marks_unknown(tmp_path: Path) -> None:
    make_4dme(
        tmp_path,
        ["s1", "static", "Positive", 1, 2, 3, "4+7+45(k)"],
        ["s1", "only", "Others", 1, 2, 3, "45(k)"],
        ["s1", "mark", "Others", 1, 2, 3, "12(q)+4"],
    )
    for clip in ("static", "only", "mark"):
        write_frames(tmp_path / "s1" / clip, range(1, 4))
    aus = {record.task: dict(zip(AU_NAMES, record.aus, strict=True)) for record in find_4dme(tmp_path).records}
    assert {name for name, value in aus["static"].items() if value} == {"AU4", "AU7"}
    assert set(aus["only"].values()) == {0}
    assert (aus["mark"]["AU12"], aus["mark"]["AU4"], aus["mark"]["AU7"]) == (-1, 1, 0)
    told = "\n".join(summary(tmp_path))
    assert "static and so not shown: 2 clips, s1/static (line 2: 45), s1/only (line 3: 45)" in told
    assert "a mark that is not known, taken as unknown: 1 clips, s1/mark (line 4: 12)" in told


def test_lines_without_a_subject_or_folder_are_listed(tmp_path: Path) -> None:
    make_4dme(
        tmp_path,
        ["s1", "c", "Positive", 1, 2, 3, ""],
        ["", "d", "Others", 1, 2, 3, ""],
        ["s1", None, "Others", 1, 2, 3, ""],
    )
    write_frames(tmp_path / "s1" / "c", range(1, 4))
    assert {record.sequence for record in find_4dme(tmp_path).records} == {"s1/c"}
    (line,) = [line for line in summary(tmp_path) if "without sub_ID or fold_name" in line]
    assert line.startswith("labels.xlsx: 2 lines") and line.endswith("line 3, 4")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("4DME_Labelling_Micro_release v1.xlsx", True),
        ("4dme_labelling_micro_release_v1 (copy).xlsx", True),
        ("a.xlsx", False),
    ],
)
def test_the_releases_exchanged_cells_are_told(tmp_path: Path, name: str, told: bool) -> None:
    rows = [["s1", f"c{line}", "Others", 1, 1, 1, "9" if line == 146 else "4"] for line in range(2, 150)]
    make_4dme(tmp_path, *rows)
    (tmp_path / "labels.xlsx").rename(tmp_path / name)
    write_frames(tmp_path / "s1" / "c146", range(1, 2))
    lines = [line for line in summary(tmp_path) if "lines 146 and 147" in line]
    assert len(lines) == told
    if told:
        assert "(s1/c146: 9, s1/c147: 4)" in lines[0]
        (record,) = find_4dme(tmp_path).records
        assert dict(zip(AU_NAMES, record.aus, strict=True))["AU9"] == 1  # as it stands
