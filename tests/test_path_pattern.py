"""Own scans by a pattern of their names: the layouts of public data sets, the dry run, and the manifest that it writes."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from next_commands import next_commands
from scan_folders import cache_bytes, write_scan

from preprocess.__main__ import main
from preprocess.datasets import DATASETS
from preprocess.datasets.path_pattern import match_files, parse_pattern
from shared.errors import FacetError

FOLDER = DATASETS["folder"]
README = (Path(__file__).resolve().parents[1] / "preprocess" / "README.md").read_text(encoding="utf-8")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


# Files of a data set, some that are no scans, and what a few rows should be: path → subject, label, sequence, frame.
LAYOUTS: dict[str, tuple[list[str], dict[str, tuple[str, str, str, int | None]]]] = {
    "FaceScape": (
        [
            *(f"{person}/models_reg/{name}.obj" for person in (1, 2, 847) for name in ("1_neutral", "5_jaw_left")),
            *("1/models_reg/1_neutral.mtl", "1/models_reg/1_neutral.jpg", "1/dpmap/1_neutral.png", "readme.txt"),
        ],
        {
            "1/models_reg/1_neutral.obj": ("1", "neutral", "", None),
            "847/models_reg/5_jaw_left.obj": ("847", "jaw_left", "", None),
        },
    ),
    "CoMA": (
        [
            *(
                f"FaceTalk_1707{day}_TA/{label}/{label}.{frame:06d}.ply"
                for day in (25, 28)
                for label in ("bareteeth", "high_smile")
                for frame in (1, 2, 12)
            )
        ],
        {
            "FaceTalk_170725_TA/bareteeth/bareteeth.000012.ply": (
                "FaceTalk_170725_TA",
                "bareteeth",
                "FaceTalk_170725_TA/bareteeth",
                12,
            ),
        },
    ),
    "D3DFACS": (
        [*(f"{name}/{units}/{units}_{frame}.ply" for name in ("Joe", "Liz") for units in ("1+2", "12") for frame in (9, 175))],
        {"Joe/1+2/1+2_175.ply": ("Joe", "1+2", "Joe/1+2", 175)},
    ),
    "VOCASET": (
        [
            *(
                f"unposedcleaneddata/FaceTalk_1708{day}_TA/sentence{k:02d}/sentence{k:02d}.{frame:06d}.ply"
                for day in (9, 11)
                for k in (1, 40)
                for frame in (1, 2)
            )
        ],
        {
            "unposedcleaneddata/FaceTalk_170811_TA/sentence40/sentence40.000002.ply": (
                "FaceTalk_170811_TA",
                "",
                "FaceTalk_170811_TA/sentence40",
                2,
            )
        },
    ),
}  # fmt: skip


def options_of(name: str) -> dict[str, str]:
    """The options that the manual gives for a data set, in a row of its table."""
    (row,) = re.findall(rf"^\| {name} \|.*$", README, re.MULTILINE)
    (command,) = re.findall(r"`(--pattern[^`]*)`", row)
    return dict(re.findall(r"(--[a-z]+) '?([^' ]+)'?", command))


@pytest.mark.parametrize("name", LAYOUTS)
def test_public_data_sets_are_read_with_the_patterns_of_the_manual(name: str, tmp_path: Path) -> None:
    files, expected = LAYOUTS[name]
    touch(tmp_path, *files)
    reader, options = FOLDER, options_of(name)
    for flag, text in options.items():
        reader = reader.with_option(flag, text)
    records = reader.find(tmp_path).records
    assert {record.source for record in records} == {file for file in files if file.endswith((".obj", ".ply"))}
    for record in records:
        if record.source in expected:
            assert (record.subject, record.label, record.sequence, record.frame) == expected.pop(record.source)
        assert dict(record.options) == ({"units": "m"} if "--columns" in options else {})
    assert not expected
    if records[0].sequence:
        frames = {name: [r.frame for r in records if r.sequence == name] for name in {r.sequence for r in records}}
        assert len(frames) == 4 and all(numbers == sorted(numbers) for numbers in frames.values())  # type: ignore[type-var]


def find(root: Path, pattern: str) -> dict[str, dict[str, str]]:
    """The fields of each file that a pattern matches."""

    def list_folder(folder: str) -> tuple[list[str], list[str]]:
        paths = sorted((root / folder).iterdir())
        return [path.name for path in paths if path.is_dir()], [path.name for path in paths if path.is_file()]

    return dict(match_files(parse_pattern(pattern, needed=(), known=None, example=""), list_folder).files)


@pytest.mark.parametrize(
    ("pattern", "file", "fields"),
    [
        ("{a}_{b}.obj", "x_y_z.obj", {"a": "x", "b": "y_z"}),  # each as short as it can be
        ("{}{frame}.obj", "take2_0130.obj", {"frame": "0130"}),  # all digits at the end
        ("*{frame}_raw.PLY", "f12_raw.ply", {"frame": "12"}),
        ("{a}/{a}_{b}", "S1/s1_b.stl", {"a": "S1", "b": "b"}),  # of any format; in any case
        ("{a}-{b}/*", "1-2/mesh.glb", {"a": "1", "b": "2"}),
        ("{a}+[{b}].obj", "1+[2].obj", {"a": "1", "b": "2"}),  # no regular expression
        ("{a}.obj", "a.b.obj", {"a": "a.b"}),
        ("./x//{a}.off", "x/ü.off", {"a": "ü"}),
    ],
)
def test_what_a_pattern_takes(tmp_path: Path, pattern: str, file: str, fields: dict[str, str]) -> None:
    touch(tmp_path, file, "other.txt", "S1/other.txt")
    assert find(tmp_path, pattern) == {file: fields}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.text("ab_.1", min_size=1, max_size=4)] * 3), min_size=1, max_size=6), st.integers(0, 99))
def test_names_made_of_a_pattern_are_found_again(names: list[tuple[str, str, str]], seed: int) -> None:
    """Any folder and file that the fields make is matched; the values found make the same name again."""
    random.seed(seed)
    tree = {f"p{a}/{b}-{c}.obj" for a, b, c in names}
    listing: dict[str, tuple[list[str], list[str]]] = {"": ([f"p{a}" for a, _, _ in names], [])}
    for a, _, _ in names:
        listing[f"p{a}"] = ([], sorted(file.partition("/")[2] for file in tree if file.startswith(f"p{a}/")))
    pattern = parse_pattern("p{a}/{b}-{c}.obj", needed=("a", "b"), known=("a", "b", "c"), example="")
    found = dict(match_files(pattern, lambda folder: (sorted(set(listing[folder][0])), listing[folder][1])).files)
    assert set(found) == tree
    assert all("p{a}/{b}-{c}.obj".format(**fields) == path for path, fields in found.items())


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{label}.obj", "lacks {subject}; give one such as '{subject}/{label}_{frame}.obj'"),
        ("../{subject}.obj", "leaves the root"),
        ("/{subject}.obj", "leaves the root"),
        ("C:/{subject}.obj", "leaves the root"),
        ("{subject}/{frame}{frame}.obj", "must stand once"),
        ("{subject}/{x.obj", "brace"),
        ("", "lacks {subject}"),
        ("{subject}/a/{Path}.obj", "{path} is what the pattern finds"),
        ("{subject}/b/{label}.obj", "no file matches .* looked in 2 folders {subject} for a folder b, found a, c"),
        ("{subject}/a/{label}_{frame}.obj", r"in 1 folders {subject}/a for a file {label}_{frame}\.obj, found 1\.obj"),
        ("{subject}/{frame}/1.obj", "looked in 2 folders {subject} for a folder {frame}, found a, c"),
        ("{subject}.obj", r"looked in the root for a file {subject}\.obj, found no files"),
        ("{subject}/c/{frame}.obj", r"c/1234567890\.obj: frame '1234567890', expected a whole number"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, pattern: str, message: str) -> None:
    touch(tmp_path, "S1/a/1.obj", "S2/c/1234567890.obj")
    with pytest.raises(FacetError, match=message if "\\" in message or ".*" in message else re.escape(message)):
        FOLDER.with_option("--pattern", pattern).find(tmp_path)


def test_what_does_not_match_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "S1/happy_1.obj", "S1/happy.obj", "S1/notes.txt", "S1/._happy_2.obj", "old/x.stl", "S2x/a_1.obj")
    listing = FOLDER.with_option("--pattern", "S{subject}/{label}_{}.obj").find(tmp_path)
    assert [record.subject for record in listing.records] == ["1", "2x"]
    assert "folders and meshes that the pattern does not match: 2, old/, S1/happy.obj" in listing.notes
    touch(tmp_path, "S1/happy_1.ply")
    for pattern in ("S{subject}/{label}_{}", "S{subject}/{label}_{}.*"):  # any mesh
        with pytest.raises(
            FacetError, match=r"S1/happy_1\.obj and S1/happy_1\.ply are both called.*end the pattern with one"
        ):
            FOLDER.with_option("--pattern", pattern).find(tmp_path)


def test_subjects_without_a_match_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "S1/scans/happy.obj", "S2/scans/deeper/happy.obj", "S3/other/happy.obj", "S4/scans/notes.zip")
    reader = FOLDER.with_option("--pattern", "{subject}/scans/{label}.obj")
    listing = reader.find(tmp_path)
    assert [record.subject for record in listing.records] == ["S1"]
    assert "folders and meshes that the pattern does not match: 3, S3/, S2/scans/, S4/scans/" in listing.notes
    assert "archives that are not unpacked, so not read: S4/scans/notes.zip" in listing.notes
    with pytest.raises(FacetError, match=r"--columns subject=…: --pattern gives this column already"):
        reader.with_option("--columns", "units=m, Subject=Bob").find(tmp_path)
    with pytest.raises(FacetError, match=r"\{path\} is what the pattern finds"):
        FOLDER.with_option("--pattern", "{subject}/scans/{path}.obj")


def test_own_fields_are_groups_and_fixed_columns_fill_gaps(tmp_path: Path) -> None:
    touch(tmp_path, "Bonn/P1/happy.obj", "Jena/P2/sad.obj")
    reader = FOLDER.with_option("--pattern", "{site}/{subject}/{label}").with_option("--columns", "units=cm, AU12=1")
    records = reader.find(tmp_path).records
    assert [dict(record.groups) for record in records] == [{"site": "Bonn"}, {"site": "Jena"}]
    assert [(record.label, dict(record.options), record.aus) for record in records] == [
        (label, {"units": "cm"}, (1,)) for label in ("happiness", "sadness")
    ]
    (tmp_path / "manifest.csv").write_text("path,subject,label,units\nBonn/P1/happy.obj,1,x,m\nJena/P2/sad.obj,2,y,\n")
    found = FOLDER.with_option("--columns", "units=cm,site=home").find(tmp_path).records
    assert [dict(record.options) for record in found] == [{"units": "m"}, {"units": "cm"}]
    assert {dict(record.groups)["site"] for record in found} == {"home"}
    for text in ("units", "units=m,units=cm", "units=", ",", "=m"):
        with pytest.raises(FacetError, match="expected COLUMN=VALUE"):
            FOLDER.with_option("--columns", text)


def call(*words: object) -> int:
    return main(["build", "folder", *map(str, words)])


def test_the_dry_run_prints_the_table_and_its_csv_builds_the_same_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, cache, table = tmp_path / "scans", tmp_path / "cache", tmp_path / "mine.csv"
    for number, (subject, label) in enumerate([("Zoë", "happy"), ("Zoë", "fear"), ("P2", "happy")]):
        folder = scans / "site A" / subject / label
        folder.mkdir(parents=True)
        for frame in (1, 2)[: 1 + (subject == "P2")]:
            write_scan(folder, f"{label}.{frame:03d}", 0.5 * number + frame)
    pattern = ["--root", scans, "--pattern", "{site}/{subject}/{label}/{label}.{frame}.obj"]
    assert call(*pattern, "--list") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["path", "subject", "label", "sequence", "frame", "site"]
    assert shown[1].split("  ")[0] == "site A/P2/happy/happy.001.obj"
    assert shown[5] == "4 scans of 2 subjects, 3 sequences; happiness 3, fear 1"
    assert "give --cache DIR in place of --list" in shown[-1]
    assert call(*pattern, "--list", "--cache", cache) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"to render them into {cache}, leave --list out")
    assert call(*pattern, "--list", table, "--cache", cache) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"--manifest {table} --cache {cache}") and not cache.exists()
    assert call(*pattern, "--list", table) == 0
    assert next_commands(capsys.readouterr().out) == ["preprocess build"]
    images = ["--size", 32, "--workers", 1, "--modalities", "normal"]
    assert call(*pattern, *images, "--cache", cache) == 0
    built = cache_bytes(cache)
    shutil.rmtree(cache)
    assert call("--root", scans, "--manifest", table, *images, "--cache", cache) == 0
    assert cache_bytes(cache) == built
    edited = (
        table.read_text(encoding="utf-8-sig")
        .replace("fear", "anger", 1)
        .replace("site A/", str(scans / "site A") + "/", 1)
    )
    table.write_text(edited, encoding="utf-8")
    listing = FOLDER.with_option("--manifest", str(table)).find(scans)
    assert {record.label for record in listing.records} >= {"happiness"} and len(listing.records) == 4
    for words, message in (
        ([*pattern, "--list", tmp_path / "mine.txt"], r"ends in \.csv"),
        ([*pattern, "--manifest", table, "--list"], "give one of them"),
        (["--root", scans, "--manifest", tmp_path / "no.csv", "--list"], "no such file"),
        (pattern, "--cache DIR: name the cache to write"),
    ):
        with pytest.raises(FacetError, match=message):
            call(*words)
