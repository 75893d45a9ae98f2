"""Bosphorus from its folder to a mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_bnt import encode, make_grid

from preprocess.datasets import DATASETS
from preprocess.readers.lm3 import BOSPHORUS_LANDMARKS
from shared.errors import FacetError, ScanError

READER = DATASETS["bosphorus"]
NAMES = (
    "E_ANGER_0", "E_DISGUST_0", "E_FEAR_0", "E_HAPPY_0", "E_SADNESS_0", "E_SURPRISE_0", "N_N_0", "N_N_1", "LFAU_12_0",
    "UFAU_4_0", "CAU_A12A15_0", "YR_R20_0", "PR_U_0", "CR_RD_0", "O_EYE_0", "IGN_1",
)  # fmt: skip


def write_scan(folder: Path, stem: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Renamed files occur: the name inside need not be the file's.
    (folder / f"{stem}.bnt").write_bytes(encode(make_grid(12, 10, 10.0), b"bs099_N_N_0.png"))
    image = np.zeros((24, 20, 3), np.uint8)
    image[:12, :, 0] = 200  # the upper half red
    image[12:, :, 2] = 200
    image[:, 10:, 1] = 100  # more green on the right
    Image.fromarray(image).save(folder / f"{stem}.png")
    lines = "".join(f"{name}\n{i}.5 {-i} 2\n" for i, name in enumerate(BOSPHORUS_LANDMARKS))
    (folder / f"{stem}.lm3").write_text("# 3D Landmark File\n\n22 landmarks:\n" + lines)


def make_bosphorus(root: Path) -> Path:
    for subject in ("bs001", "bs000"):
        for name in NAMES:
            write_scan(root / subject, f"{subject}_{name}")
    (root / "bs000" / "bs001_E_HAPPY_1.bnt").write_bytes(b"another subject's")
    (root / "bs000" / "notes.txt").write_text("a stray file")
    return root


@pytest.mark.parametrize("below", ["", "BosphorusDB"])
def test_every_scan_is_listed_and_expressions_are_labelled(tmp_path: Path, below: str) -> None:
    make_bosphorus(tmp_path / below)
    records = READER.find(tmp_path).records
    assert [r.sample_id for r in records] == [f"{s}_{n}" for s in ("bs000", "bs001") for n in sorted(NAMES)]
    by_name = {r.sample_id[6:]: r for r in records if r.subject == "bs000"}
    labels = {name: record.label for name, record in by_name.items() if record.label}
    assert labels == {
        "E_ANGER_0": "anger",
        "E_DISGUST_0": "disgust",
        "E_FEAR_0": "fear",
        "E_HAPPY_0": "happiness",
        "E_SADNESS_0": "sadness",
        "E_SURPRISE_0": "surprise",
        "N_N_0": "neutral",
        "N_N_1": "neutral",
    }
    assert [by_name[name].task for name in NAMES[7:]] == ["N", "LFAU", "UFAU", "CAU", "YR", "PR", "CR", "O", "IGN"]
    prefix = f"{below}/" if below else ""
    assert by_name["IGN_1"].source == f"{prefix}bs000/bs000_IGN_1.bnt"
    assert set(labels.values()) <= set(READER.class_names)


def test_surface_texture_and_landmarks(tmp_path: Path) -> None:
    record = READER.find(make_bosphorus(tmp_path)).records[0]
    mesh = READER.read(tmp_path, record)
    assert mesh.texture is not None and mesh.uv is not None and mesh.landmarks_mm is not None
    assert [note for note in mesh.notes if "bs099_N_N_0" in note]  # perhaps another person's neutral scan
    np.testing.assert_array_equal(mesh.landmarks_mm[:, 0], np.arange(22, dtype=np.float32) + 0.5)
    # The picture stands upright and unmirrored on the grid: red above, more green at larger x.
    height, width = mesh.texture.shape[:2]
    columns = np.clip(mesh.uv[..., 0] * width, 0, width - 1).astype(int)
    rows = np.clip((1 - mesh.uv[..., 1]) * height, 0, height - 1).astype(int)
    colors = mesh.texture[rows, columns]
    x, y = mesh.vertices_mm[mesh.triangles][..., 0], mesh.vertices_mm[mesh.triangles][..., 1]
    np.testing.assert_array_equal(colors[..., 0] > 0, y > 55)
    np.testing.assert_array_equal(colors[..., 1] > 0, x > 45)
    assert [path.suffix for path in READER.source_files(tmp_path, record)] == [".bnt", ".png", ".lm3"]


def test_upper_case_names_and_what_is_not_there(tmp_path: Path) -> None:
    write_scan(tmp_path / "BS007", "BS007_E_HAPPY_0")
    folder = tmp_path / "BS007"
    (folder / "BS007_E_HAPPY_0.png").rename(folder / "bs007_e_happy_0.PNG")
    (folder / "BS007_E_HAPPY_0.lm3").unlink()
    (record,) = READER.find(tmp_path).records
    assert (record.sample_id, record.subject, record.label) == ("bs007_E_HAPPY_0", "bs007", "happiness")
    mesh = READER.read(tmp_path, record)
    assert mesh.texture is not None and mesh.landmarks_mm is None
    (folder / "bs007_e_happy_0.PNG").unlink()
    (record,) = READER.find(tmp_path).records
    assert READER.read(tmp_path, record).texture is None


def test_broken_files_are_scan_errors(tmp_path: Path) -> None:
    record = READER.find(make_bosphorus(tmp_path)).records[0]
    for name in (record.landmarks, record.texture, record.source):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
        with pytest.raises(ScanError, match=Path(name).name):
            READER.read(tmp_path, record)
    grid = make_grid(4, 4)
    (tmp_path / record.source).write_bytes(encode([np.full((4, 4), -1e9)] * 3 + grid[3:]))
    with pytest.raises(ScanError, match=rf"{Path(record.source).name}: no surface"):
        READER.read(tmp_path, record)


def test_wrong_roots(tmp_path: Path) -> None:
    with pytest.raises(FacetError, match="no such folder"):
        READER.find(tmp_path / "none")
    with pytest.raises(FacetError, match="looked for bs000/"):
        READER.find(tmp_path)
    (tmp_path / "bs000").mkdir()
    with pytest.raises(FacetError, match=r"looked for bs000/bs000_N_N_0\.bnt.* and in bs000/ the folder is empty"):
        READER.find(tmp_path)


def test_what_a_partial_copy_lacks_is_summarised(tmp_path: Path) -> None:
    make_bosphorus(tmp_path)
    (tmp_path / "bs001" / "bs001_E_FEAR_0.bnt").unlink()
    (tmp_path / "bs000" / "bs000_O_EYE_0.lm3").unlink()
    lines = list(READER.find(tmp_path).notes)
    assert lines == [
        "a part of the data set: 2 of 105 subjects, 31 of 4,666 scans",
        "1 scans without landmarks (.lm3): bs000_O_EYE_0",
        "1 of 2 subjects show all six expressions",
        "no list of action units (facscodes.lst) found",
        "1 meshes that are left out, by their names: bs000/bs001_E_HAPPY_1.bnt",
    ]
