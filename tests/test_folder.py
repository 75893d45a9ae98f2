"""The folder data set: what a manifest may say, and what is refused."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from preprocess.datasets import DATASETS
from preprocess.datasets.scan_table import write_listing
from shared.errors import FacetError, ScanError

FOLDER = DATASETS["folder"]
OBJ = "v -50 0 0\nv 50 0 0\nv 0 60 0\nv 0 20 33\nvt 0 0\nvt 1 0\nvt 0.5 0.9\nvt 0.5 0.5\nf 1/1 2/2 4/4\nf 2/2 3/3 4/4\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.obj").write_text(OBJ)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "skin.png")
    return tmp_path


def write(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "manifest.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_spreadsheets_of_every_kind(root: Path, delimiter: str, encoding: str, newline: str) -> None:
    text = "Path, subject ,label\na.obj,Zoë,happiness\n\nb.obj,S2,\n".replace(",", delimiter).replace("\n", newline)
    write(root, text, encoding)
    first, second = FOLDER.find(root).records
    assert (first.sample_id, first.subject, first.label) == ("a", "Zoë", "happiness")
    assert (second.source, second.label, second.sequence, second.frame) == ("b.obj", "", "", None)


def test_a_manifest_of_excel(root: Path) -> None:
    book = openpyxl.Workbook()
    for row in (
        ["path", "subject", "label", "visit", None],
        ["a.obj", 7.0, "happy", datetime(2026, 10, 5)],
        [],
        ["b.obj"],
    ):
        book.active.append(row)
    book.active["B4"] = "Zoë"
    book.save(root / "labels.xlsx")
    first, second = FOLDER.with_option("--manifest", str(root / "labels.xlsx")).find(root).records
    assert (first.subject, first.label, dict(first.groups)) == ("7", "happiness", {"visit": "2026-10-05"})
    assert (second.source, second.subject, second.label) == ("b.obj", "Zoë", "")


def test_columns_of_action_units_become_action_units(root: Path) -> None:
    write(
        root,
        "path,subject,label,au12,AU4_intensity,AU04,age\na.obj,1,x,1,C,0,30\nb.obj,1,,9,,,31\nc.obj,1,,0,5.0,-1,32\n",
    )
    listing = FOLDER.find(root)
    assert listing.au_names == ("AU12", "AU4_intensity", "AU4")
    assert [record.aus for record in listing.records] == [(1, 3, 0), (), (0, 5, -1)]
    assert listing.records[0].groups == (("age", "30"),)


@pytest.mark.parametrize(("name", "value"), [("AU12", "2"), ("AU12", "B"), ("AU12_intensity", "6"), ("AU4", "yes")])
def test_odd_values_of_action_units_are_refused(root: Path, name: str, value: str) -> None:
    write(root, f"path,subject,label,{name}\na.obj,1,x,{value}\n")
    with pytest.raises(FacetError, match=f"line 2: {name} '{value}'"):
        FOLDER.find(root)


def test_the_manifest_itself_as_root(root: Path) -> None:
    path = write(root, "path,subject,label\na.obj,1,x\n").rename(root / "mine.csv")
    (record,) = FOLDER.find(path).records
    assert len(FOLDER.read(path, record).triangles) == 2
    assert FOLDER.source_files(path, record) == [root / "a.obj"]


def test_sequences_stand_together_in_the_order_of_their_frames(root: Path) -> None:
    rows = "a.obj,1,x,s,2\nb.obj,2,y,,\nc.obj,1,x,s,1\n"
    write(root, f"path,subject,label,sequence,frame\n{rows}")
    assert [(r.sample_id, r.frame) for r in FOLDER.find(root).records] == [("c", 1), ("a", 2), ("b", None)]
    write(root, "path,subject,label,sequence\nb.obj,1,x,s\na.obj,1,x,s\n")  # without numbers: as they stand
    assert [(r.sample_id, r.frame) for r in FOLDER.find(root).records] == [("b", 0), ("a", 1)]
    write(root, "path,subject,label,sequence,frame,onset,apex\na.obj,1,x,s,2,,2.0\nb.obj,1,x,s,1,1,2\nc.obj,2,y,,,7,\n")
    found = FOLDER.find(root)
    assert [r.moments for r in found.records] == [(1, 2, None)] * 2 + [(7, None, None)]
    assert any(line.startswith("1 scans have a frame number and no sequence") for line in found.notes)
    write_listing(root / "manifest.csv", found, ())
    assert FOLDER.find(root).records == found.records


@pytest.mark.parametrize(
    ("columns", "values", "factor"),
    [("units", "mm", 1), ("units", "CM", 10), ("units", "m", 1000), ("units", "in", 25.4), ("scale", "53.5", 53.5)],
)
def test_units_and_scale(root: Path, columns: str, values: str, factor: float) -> None:
    (root / "points.csv").write_text("left_eye,10,20,30\n")
    write(root, f"path,subject,label,landmarks,{columns}\na.obj,1,x,points.csv,{values}\n")
    (record,) = FOLDER.find(root).records
    mesh = FOLDER.read(root, record)
    np.testing.assert_allclose(mesh.vertices_mm[1], [50 * factor, 0, 0], rtol=1e-6)
    assert mesh.landmarks_mm is not None
    np.testing.assert_allclose(mesh.landmarks_mm[0], np.array([10, 20, 30]) * factor, rtol=1e-6)
    assert mesh.landmarks_mm.shape == (FOLDER.num_landmarks, 3)


def test_texture_and_the_edge_its_coordinates_begin_at(root: Path) -> None:
    header = "path,subject,label,texture,texture_origin,up,facing,sample_id\n"
    rows = [f"a.obj,1,x,skin.png,{o},Z,-y,{i}\n" for i, o in enumerate(("", "bottom", "top"))]
    write(root, header + "".join(rows))
    records = FOLDER.find(root).records
    assert dict(records[0].options) == {"up": "z", "facing": "-y"}
    meshes = [FOLDER.read(root, record) for record in records]
    assert meshes[0].texture is not None
    assert meshes[0].texture[0, 0].tolist() == [1, 2, 3]
    assert meshes[0].uv is not None
    assert meshes[1].uv is not None
    assert meshes[2].uv is not None
    np.testing.assert_array_equal(meshes[0].uv, meshes[1].uv)
    np.testing.assert_allclose(meshes[2].uv[..., 1], 1 - meshes[0].uv[..., 1])
    assert [p.name for p in FOLDER.source_files(root, records[0])] == ["a.obj", "skin.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("path,subject,label\n", "lists no scans"),
        ("path,subject\na.obj,1\n", "lacks the column label"),
        ("path,subject,lable\na.obj,1,x\n", "lacks the column label; is 'lable' the label"),
        (
            "file,participant,Emotion\na.obj,1,x\n",
            "is 'file' the path.*is 'participant' the subject.*is 'Emotion' the label",
        ),
        ("path,subject,label,Age,age\na.obj,1,x,3,4\n", "twice"),
        ("path,subject,label,a\ab\na.obj,1,x,3\n", "control character"),
        ("path,subject,label\n~/a.obj,1,x\n", "leaves the folder"),
        ("path,subject,label\nfile:///a.obj,1,x\n", "leaves the folder"),
        ("path,subject,label\n\\\\server\\a.obj,1,x\n", "another computer's"),
        ("path,subject,label\n./,1,x\n", "names no file"),
        ("path,subject,label\nsub/../../a.obj,1,x\n", "leaves the folder"),
        ("path,subject,label,label\na.obj,1,x,y\n", "twice"),
        ("path,subject,label\n,1,x\n", "line 2: path is empty"),
        ("path,subject,label\na.obj,,x\n", "line 2: subject is empty"),
        ("path,subject,label\na.obj,1,x,more\n", "line 2: 4 fields, expected 3"),
        ("path,subject,label\n../a.obj,1,x\n", "line 2: path '../a.obj' leaves the folder"),
        ("path,subject,label\n/etc/passwd,1,x\n", "leaves the folder"),
        ("path,subject,label\n..\\a.obj,1,x\n", "leaves the folder"),
        ("path,subject,label\na\0.obj,1,x\n", "control character"),
        ("path,subject,label\na.obj,1\a,x\n", "control character"),
        ("path,subject,label\na.obj,1,\ue000x\n", "label.*control character"),
        ("path,subject,label,sequence,frame\na.obj,1,x,s,1234567890\n", "expected a whole number"),
        ("path,subject,label\nC:\\scans\\a.obj,1,x\n", "leaves the folder"),
        ("path,subject,label,texture\na.obj,1,x,../s.png\n", "texture '../s.png' leaves"),
        ("path,subject,label,units\na.obj,1,x,km\n", "units 'km', expected one of mm, cm, m, in"),
        ("path,subject,label,up\na.obj,1,x,up\n", "up 'up', expected one of x"),
        ("path,subject,label,up\na.obj,1,x,-z\n", "up -z needs a facing, one of x, -x, y, -y"),
        ("path,subject,label,up,facing\na.obj,1,x,-z,Z\n", "up -z and facing z name the same axis"),
        ("path,subject,label,scale\na.obj,1,x,-1\n", "positive number"),
        ("path,subject,label,scale,units\na.obj,1,x,1,mm\n", "keep one"),
        ("path,subject,label,sequence,frame\na.obj,1,x,s,1.5\n", "whole number"),
        ("path,subject,label,sequence,frame\na.obj,1,x,s,1\nb.obj,1,x,s,1\n", "two frames of one number"),
        ("path,subject,label,sequence\na.obj,1,x,s\nb.obj,2,x,s\n", "line 3: sequence 's' shows 2 and 1"),
        ("path,subject,label,sequence\na.obj,1,x,s\nb.obj,1,y,s\n", "line 3: sequence 's' is labelled 'y' and 'x'"),
        ("path,subject,label\na.obj,1,x\na.obj,2,x\n", "line 2 and line 3 are both called 'a'"),
        ('path,subject,label\n"a.obj,1,x\n', "not a CSV file"),
        ("path,subject,label\na.obj,#N/A,x\n", "line 2: subject #N/A is an error of the spreadsheet"),
        ("path,subject,label,age\na.obj,1,x,#WERT!\n", "line 2: age #WERT! is an error"),
        (
            "path,subject,label,sequence,frame\na.obj,1,x,s,5\nb.obj,1,x,s,\n",
            "line 3: sequence s has frames with a number and frames without",
        ),
        ("path,subject,label,sequence\na.obj,1,x,b\nb.obj,1,x,\n", "a sequence and a scan .* both called 'b'"),
        ("path,subject,label,sequence,apex\na.obj,1,x,s,1\nb.obj,1,x,s,0\n", "sequence s has more than one apex"),
        (
            "path,subject,label,sequence,onset,apex\na.obj,1,x,s,1,0\nb.obj,1,x,s,,\n",
            "sequence s has onset 1, apex 0; expected numbers of its frames, 0 to 1, in this order",
        ),
        (
            "path,subject,label,sequence,offset\na.obj,1,x,s,9\n",
            "sequence s has offset 9; expected numbers of its frames, 0 to 0",
        ),
    ],
)
def test_what_is_wrong_is_said(root: Path, text: str, message: str) -> None:
    write(root, text)
    with pytest.raises(FacetError, match=message) as error:
        FOLDER.find(root)
    assert "manifest.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_spreadsheets_and_systems_make_of_values(root: Path) -> None:
    import unicodedata

    other = unicodedata.normalize("NFD", "Zoë") + "\u00a0"
    rows = f"a.obj;Zoë;x;Film;1.0;High;0,5\nb.obj;{other};x;Film;2.0;high;0,5\nc.obj;zoë;x;;;high;\n"
    write(root, f"sep=;\npath;subject;label;sequence;frame;intensity;scale\n{rows}", "utf-8-sig")
    records = FOLDER.find(root).records
    assert [(r.subject, r.frame, r.intensity) for r in records] == [
        ("Zoë", 1, "high"),
        ("Zoë", 2, "high"),
        ("zoë", None, "high"),
    ]
    assert dict(records[0].options) == {"scale": "0.5"}
    assert np.isclose(FOLDER.read(root, records[0]).vertices_mm[1, 0], 25)
    lines = list(FOLDER.find(root).notes)
    assert any("Zoë and zoë" in line for line in lines) and any(line.startswith("column intensity") for line in lines)
    write(root, "path;subject;label;scale\na.obj;1;x;1,000\n")
    with pytest.raises(FacetError, match="scale '1,000', expected a positive number"):
        FOLDER.find(root)


def test_rows_that_do_not_mean_what_they_say_are_named(root: Path) -> None:
    rows = "a.obj,7.0,x,1,01,s1,t.png,\nb.obj,7,y,2,1,s2,u.png,l.csv\na.obj,8,y,,1.0,s3,t.png,l.csv\n"
    write(root, f"path,subject,label,frame,intensity,sample_id,texture,landmarks\n{rows}")
    notes = FOLDER.find(root).notes
    for line in (
        "subjects that are perhaps one, spelled in several ways: 7 and 7.0; spell them alike",
        "2 scans have a frame number and no sequence, and count as single scans; 4D needs a column sequence",
        "files in several rows: a.obj (7.0 x, 8 y)",
        "textures of several people: t.png (7.0 x, 8 y)",
        "landmarks of several people: l.csv (7 y, 8 y)",
        "column intensity: 01 and 1 and 1.0 are kept apart; if they are one number, spell them alike",
    ):
        assert line in notes
    write(root, 'path,subject,label\na.obj,"Müller, Anna",x\nb.obj,anna muller,y\nc.obj,Anna Müller 2,y\n')
    assert any("several ways: Müller, Anna and anna muller; spell" in line for line in FOLDER.find(root).notes)
    write(root, "path,subject,label,sequence\na.obj,nan,x,s\nb.obj,nan,x,S\n")
    notes = FOLDER.find(root).notes
    for line in (
        "sequences of one subject that are perhaps one, spelled in several ways: S and s; spell them alike",
        "subjects whose name means that they are not known: nan; each is taken as one person",
    ):
        assert line in notes


def test_subjects_and_units_that_contradict_themselves_are_named(tmp_path: Path) -> None:
    rows = [f"{site}/{who}/{k}.obj,{who},x,{site},F,1,3" for site in "AB" for who in ("S1", "S2") for k in range(2)]
    rows += [f"B/S{n}/0.obj,S{n},x,B,M,0,0" for n in (3, 4, 5)] + ["B/S5/1.obj,S5,x,B,F,0,2", "B/S4/1.obj,S4,x,B,M,1,0"]
    write(tmp_path, "\n".join(["path,subject,label,site,sex,AU12,AU12_intensity", *rows]))
    notes = FOLDER.find(tmp_path).notes
    for line in (
        "subjects with several folders, each taken as one person: S1 (A/S1, B/S1), S2 (A/S2, B/S2)",
        "column site: other values in some rows of a subject: S1 (A, B), S2 (A, B)",
        "column sex: other values in some rows of a subject: S5 (F, M)",
        "action units with and without an intensity at once: AU12 (B/S5/1, B/S4/1)",
    ):
        assert line in notes


def test_columns_of_ones_own_are_groups(root: Path) -> None:
    write(root, "Path,subject,label,Sample ID,Age,sex ,,Landmark\na.obj,1,x,one,31,f,0,\nb.obj,2,y,two,, M ,1,p.csv\n")
    first, second = FOLDER.find(root).records
    assert (first.sample_id, second.sample_id) == ("one", "two")
    assert dict(first.groups) == {"Age": "31", "sex": "f", "Landmark": ""}
    assert dict(second.groups) == {"Age": "", "sex": "M", "Landmark": "p.csv"}
    lines = list(FOLDER.find(root).notes)
    assert any("Landmark" in line and "landmarks" in line for line in lines)
    assert any("without a name" in line for line in lines)
    assert not any("did you mean" in line and ("Age" in line or "sex" in line) for line in lines)


@pytest.mark.parametrize(
    "name", ["./sub/a.obj", ".\\sub\\a.obj", "sub//a.obj", "sub/../sub/a.obj", "{root}/sub/a.obj", "{link}/sub/a.obj"]
)
def test_every_way_to_name_a_file_below_the_root(tmp_path: Path, name: str) -> None:
    root, link = tmp_path / "real", tmp_path / "link"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.obj").write_text(OBJ)
    link.symlink_to(root)
    for given in (root, link):
        write(given, f"path,subject,label\n{name.format(root=root, link=given)},1,x\n")
        (record,) = FOLDER.find(given).records
        assert (record.source, record.sample_id) == ("sub/a.obj", "sub/a")
    write(link, f"path,subject,label,texture\nsub/a.obj,1,x,{root}/sub/skin.png\n")
    assert FOLDER.find(link).records[0].texture == "sub/skin.png"


def test_a_name_in_another_case_or_composition_is_found(root: Path) -> None:
    import unicodedata

    (root / unicodedata.normalize("NFD", "Zoë.obj")).write_text(OBJ)
    write(root, "path,subject,label\nA.OBJ,1,x\nZoë.obj,2,x\nq.obj,3,x\n")
    records = FOLDER.find(root).records
    assert [record.sample_id for record in records] == ["A", "Zoë", "q"]
    assert [(root / record.source).is_file() for record in records] == [True, True, False]
    (line,) = [line for line in FOLDER.find(root).notes if "another case" in line]
    assert "A.OBJ is a.obj" in line and "Zo" not in line
    with pytest.raises(ScanError, match=r"q\.obj: no such file.*out of the manifest"):
        FOLDER.read(root, records[2])
    (root / "a.Obj").write_text(OBJ)  # two files that could be meant: neither is taken
    assert FOLDER.find(root).records[0].source == "A.OBJ"


@pytest.mark.parametrize(
    ("columns", "values", "options"),
    [
        ("up", "z", {"up": "z", "facing": "-y"}),
        ("facing", "-Y", {"up": "z", "facing": "-y"}),
        ("facing", "y", {"up": "z", "facing": "y"}),
        ("up", "x", {"up": "x"}),
        ("up", "-y", {"up": "-y"}),
        ("up,facing", "z,x", {"up": "z", "facing": "x"}),
    ],
)
def test_the_axis_that_is_not_given(root: Path, columns: str, values: str, options: dict[str, str]) -> None:
    write(root, f"path,subject,label,{columns}\na.obj,1,x,{values}\n")
    (record,) = FOLDER.find(root).records
    assert dict(record.options) == options
    is_noted = any("up" in line and "facing" in line for line in FOLDER.find(root).notes)
    assert is_noted == (len(options) > len(columns.split(",")))


def test_other_encodings_and_missing_manifests(root: Path) -> None:
    write(root, "path,subject,label\na.obj,Zoë,x\n", "latin-1")
    with pytest.raises(FacetError, match="UTF-8"):
        FOLDER.find(root)
    (root / "manifest.csv").unlink()
    with pytest.raises(FacetError, match=r"looked for manifest\.csv.*found a\.obj"):
        FOLDER.find(root)
    with pytest.raises(FacetError, match="no such folder"):
        FOLDER.find(root / "none")


def test_a_missing_file_is_listed_and_fails_when_read(root: Path) -> None:
    write(root, "path,subject,label,texture\nnone.obj,1,x,\na.obj,1,x,none.png\n")
    gone, bare = FOLDER.find(root).records
    for record, name in ((gone, "none.obj"), (bare, "none.png")):
        with pytest.raises(ScanError, match=f"{name}: no such file"):
            FOLDER.read(root, record)
    assert FOLDER.source_files(root, gone) == [root / "none.obj"]


def test_a_texture_without_texture_coordinates_is_an_error(root: Path) -> None:
    (root / "bare.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    write(root, "path,subject,label,texture\nbare.obj,1,x,skin.png\n")
    with pytest.raises(ScanError, match="no texture coordinates"):
        FOLDER.read(root, FOLDER.find(root).records[0])


def test_a_scale_beyond_all_numbers(root: Path) -> None:
    write(root, "path,subject,label,scale\na.obj,1,x,1e38\n")
    with pytest.raises(ScanError, match="check its scale"):
        FOLDER.read(root, FOLDER.find(root).records[0])


@pytest.mark.skipif("FACET_FACES" not in os.environ, reason="FACET_FACES names the folder of real scans")
def test_a_glb_is_in_metres(tmp_path: Path) -> None:
    source = Path(os.environ["FACET_FACES"]) / "leeperrysmith" / "LeePerrySmith.glb"
    (tmp_path / "head.glb").write_bytes(source.read_bytes())
    write(tmp_path, "path,subject,label\nhead.glb,1,x\n")
    mesh = FOLDER.read(tmp_path, FOLDER.find(tmp_path).records[0])
    assert 4200 < mesh.vertices_mm[:, 0].max() < 4300


@pytest.mark.skipif("FACET_FACES" not in os.environ, reason="FACET_FACES names the folder of real scans")
def test_real_scans_stand_upright_and_unmirrored(tmp_path: Path) -> None:
    """From the manifest to pixels: lips below the nose, eyes above it, and the mole on the cheek where it belongs."""
    from preprocess.alignment.align import align
    from preprocess.rendering.cameras import build_cameras
    from preprocess.rendering.views import render_views
    from shared.schema import View

    write(
        tmp_path,
        "path,subject,label,texture,texture_origin,scale,landmarks\n"
        "james/james.obj,james,neutral,,,,james/james.ljson\n"
        "leeperrysmith/LeePerrySmith.glb,lee,neutral,leeperrysmith/Map-COL.jpg,bottom,54,\n"
        "meshmonk/DemoFace_10K.obj,demo,neutral,,,,\n",
    )
    for folder in ("james", "leeperrysmith", "meshmonk"):
        (tmp_path / folder).symlink_to(Path(os.environ["FACET_FACES"]) / folder)
    records = FOLDER.find(tmp_path).records
    assert [len(FOLDER.source_files(tmp_path, record)) for record in records] == [4, 2, 1]
    aligned = [align(FOLDER.read(tmp_path, record), landmark_groups=FOLDER.landmark_groups) for record in records]
    assert [a.method for a in aligned] == ["landmarks", "geometry", "geometry"]
    views = [
        render_views(a.mesh, build_cameras((View(0), View(20), View(-20))), size_px=224, supersampling=1)
        for a in aligned
    ]
    for view in views[:2]:
        assert view.texture is not None
        front = view.texture[0].astype(float)
        redness = front[..., 0] - front[..., 1]
        assert redness[148:160, 102:122].mean() > 1.3 * redness[75:95, 108:116].mean()  # lips, nose bridge
        brightness = front.mean(axis=-1)
        assert brightness[65:82, 60:90].mean() < brightness[105:125, 60:90].mean()  # an eye, the cheek below it
    assert views[2].texture is None
    lee = views[1].texture
    assert lee is not None
    row, column = 144, 60  # his mole, on the right cheek: the viewer's left
    around = lee[0].astype(float).mean(axis=-1)
    for c, is_mole in ((column, True), (223 - column, False)):
        patch = around[row - 5 : row + 6, c - 5 : c + 6]
        assert (np.median(patch) - patch.min() > 30) == is_mole
    for view in views:
        depth = view.depth.astype(np.int64)
        surface = depth > 0
        assert 0.35 < surface[0].mean() < 0.8  # fills the frame
        nearest = np.argwhere(depth[0] >= depth[0].max() - 25)  # within half a millimetre
        np.testing.assert_allclose(nearest.mean(axis=0), [111.5, 111.5], atol=4)
        # The camera at the subject's left sees more of the left cheek, which is on the image's right.
        assert surface[1][:, 112:].sum() > surface[2][:, 112:].sum()
