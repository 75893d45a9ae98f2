"""Tables, signed JSON and text embeddings: round trips, and every single flipped byte noticed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import MakeCache
from hypothesis import given
from hypothesis import strategies as st

from preprocess.build.cache_folder import start_cache
from shared.cache import (
    find_records,
    open_cache,
    read_info,
    read_record,
    record_path,
    write_info,
    write_record,
)
from shared.csv_tables import encode_table, read_table
from shared.errors import CacheError
from shared.schema import CacheInfo, RenderSettings, Sample, ShardRecord, View, text_file_name
from shared.signed_json import read_signed_json, write_signed_json
from shared.text import TextEmbeddings, read_text_embeddings, write_text_embeddings

WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)
SAMPLES = st.builds(
    Sample,
    sample_id=WORDS, subject=WORDS, sequence=WORDS, frame=st.none() | st.integers(0, 10**6), label=WORDS, intensity=WORDS,
    task=WORDS, source=WORDS, source_hash=WORDS, valid=st.booleans(), reason=WORDS, modalities=WORDS, alignment=WORDS,
)  # fmt: skip


@given(rows=st.lists(SAMPLES, max_size=5))
def test_tables_survive_commas_quotes_and_any_word(
    rows: list[Sample], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("table") / "samples.csv"
    path.write_bytes(encode_table(Sample, rows))
    assert read_table(path, Sample) == rows


def test_tables_refuse_other_columns_and_bad_fields(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    with pytest.raises(CacheError, match="missing"):
        read_table(path, Sample)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(CacheError, match="expected columns sample_id,subject"):
        read_table(path, Sample)
    sample = Sample("a", "s", "", None, "", "", "", "f.obj")
    path.write_bytes(encode_table(Sample, [sample]).replace(b",0,", b",maybe,"))
    with pytest.raises(CacheError, match="row 2 cannot be read"):
        read_table(path, Sample)


def make_info() -> CacheInfo:
    return CacheInfo(
        "bu3dfe", "licence — line", ("anger", "fear"), RenderSettings(views=(View(0), View(5, -3))), complete=True
    )


def test_every_flipped_byte_of_a_signed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_signed_json(path, {"name": "é", "rows": [1, 2.5, None, True]})
    whole = path.read_bytes()
    assert read_signed_json(path) == {"name": "é", "rows": [1, 2.5, None, True]}
    for place in range(len(whole)):
        for flip in (1, 32, 128):
            damaged = bytearray(whole)
            damaged[place] ^= flip
            path.write_bytes(damaged)
            with pytest.raises(ValueError):
                read_signed_json(path)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError):
            read_signed_json(path)


def test_cache_json_round_trip_and_another_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no cache here"):
        read_info(tmp_path)
    write_info(tmp_path, make_info())
    assert read_info(tmp_path) == make_info()
    newer = dataclasses.replace(make_info(), format_version=99)
    write_info(tmp_path, newer)
    with pytest.raises(CacheError, match="version 99, this program reads 1"):
        read_info(tmp_path)


def test_records_round_trip_and_never_name_files_outside(tmp_path: Path) -> None:
    sample = Sample("a", "s", "", None, "fear", "01", "", "f.obj", "ab", True, "", "normal", "geometry")
    record = ShardRecord(3, 192, (sample,), "f" * 64, {"views.zarr/x": "0" * 64})
    assert read_record(tmp_path, 3) is None
    write_record(tmp_path, record)
    assert read_record(tmp_path, 3) == record
    for evil in ("../../etc/passwd", "/etc/passwd", "views.zarr/../../x"):
        write_record(tmp_path, dataclasses.replace(record, files={evil: ""}))
        with pytest.raises(CacheError, match="outside the cache"):
            read_record(tmp_path, 3)
    record_path(tmp_path, 3).write_text('{"checksum": 1}')
    with pytest.raises(CacheError, match="checksum"):
        read_record(tmp_path, 3)


def make_text(num_prompts: tuple[int, ...] = (2, 3), dim: int = 8) -> TextEmbeddings:
    rng = np.random.default_rng(0)
    mask = np.arange(max(num_prompts))[None, :] < np.array(num_prompts)[:, None]
    embeddings = rng.normal(size=(*mask.shape, dim)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    embeddings[~mask] = 0
    return TextEmbeddings(
        class_names=tuple(f"class{i}" for i in range(len(num_prompts))),
        prompts=tuple(tuple(f"prompt {i} {k} „ü“" for k in range(n)) for i, n in enumerate(num_prompts)),
        embeddings=embeddings, mask=mask, model="m", pretrained="none", weights_hash="w", image_tower_hash="i",
        logit_scale=14.3, random_weights=True,
    )  # fmt: skip


def test_text_embeddings_round_trip_and_flipped_bytes(tmp_path: Path) -> None:
    text = make_text()
    path = tmp_path / "text" / "m.h5"
    write_text_embeddings(path, text)
    found = read_text_embeddings(path)
    assert (found.embeddings == text.embeddings).all()
    assert dataclasses.replace(found, embeddings=text.embeddings, mask=text.mask) == dataclasses.replace(text)
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 50):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(CacheError, match="does not match"):
            read_text_embeddings(path)


def test_text_embeddings_of_views_round_trip(tmp_path: Path) -> None:
    text = make_text((2, 3))
    path = tmp_path / "text" / "m.h5"
    write_text_embeddings(path, text)
    with h5py.File(path) as file:
        assert "views" not in file  # as written before there were prompts of views
    by_view = dataclasses.replace(text, views=(("", "from above"), ("from the left", "", "from above")))
    write_text_embeddings(path, by_view)
    found = read_text_embeddings(path)
    assert found.views == by_view.views
    assert found.select(["class0"]).views == (("", "from above"),)
    above = found.check_views([View(5, 30)]).of_view(View(5, 30))
    assert above.mask.tolist() == [[True, True, False], [False, True, True]]
    with pytest.raises(CacheError, match="no prompts of a face seen from the front, as in view 0"):
        found.check_views([View(0)])
    with pytest.raises(CacheError, match="no prompts of a face seen from the right, as in view -20"):
        found.check_views([View(20)])  # of its mirrored image
    for side in path.parent.glob("*.sha256"):
        side.unlink()  # a stranger's would fit
    for views in ([["a", "b", "c"]], [["a", "b"]] * 2, ["a", "b"], [1.0, 2.0]):
        with h5py.File(path, "r+") as file:
            del file["views"]
            file["views"] = views
        with pytest.raises(CacheError, match=re.escape(str(path))):
            read_text_embeddings(path)


def test_text_embeddings_of_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "text" / "m.h5"
    write_text_embeddings(path, make_text())
    for side in path.parent.glob("*.sha256"):
        side.unlink()  # without it a file from elsewhere is taken as it is
    read_text_embeddings(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(CacheError, match=r"m\.h5: prompt embeddings of format 99, expected 1"):
        read_text_embeddings(path)


def test_text_embeddings_select_and_refuse() -> None:
    text = make_text()
    assert text.select(["class1"]).prompts == (text.prompts[1],)
    assert (text.select(["class1", "class0"]).embeddings == text.embeddings[::-1]).all()
    with pytest.raises(CacheError, match="no prompts for class nope"):
        text.select(["nope"])
    with pytest.raises(CacheError, match="unit length"):
        dataclasses.replace(text, embeddings=text.embeddings * 2)
    with pytest.raises(CacheError, match="no prompt for class class1"):
        make_text((2, 0))


def test_text_file_names_are_safe() -> None:
    assert text_file_name("ViT-B-16") == "ViT-B-16.h5"
    assert text_file_name("local-dir:/data/my model/") == "my-model.h5"
    assert text_file_name("hf-hub:org/../x") == "x.h5"


def test_settings_refuse_what_cannot_be_rendered() -> None:
    with pytest.raises(CacheError, match="different from each other"):
        RenderSettings(views=(View(0), View(0)))
    with pytest.raises(CacheError, match="yaw must lie"):
        RenderSettings(views=(View(200),))
    with pytest.raises(CacheError, match="16 to 2048"):
        RenderSettings(size_px=4)
    with pytest.raises(CacheError, match="modalities"):
        RenderSettings(modalities=("depth", "texture"))


def test_only_files_named_as_records_are_records(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    for name in ("00000", "00012", "123456", "1", "-0003", "+0004", "0_005", "٠٠٠٠٦", "²²²²²", "notes", "000007", ""):
        (tmp_path / "records" / f"{name}.json").touch()
    (tmp_path / "records" / "00008.json.partial").touch()
    assert find_records(tmp_path) == {0, 12, 123456}


def test_a_cache_that_is_known_to_be_wrong_is_refused_with_the_reason(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """BP4D's, rendered before its landmarks' order was known: by readers, and by a build that would go on in it."""
    path = tiny_cache(num_subjects=1)
    info = read_info(path)
    for dataset, revision, refused in (("bp4d", 3, True), ("bp4d", 4, False), ("bu4dfe", 3, False)):
        settings = dataclasses.replace(info.settings, revision=revision)
        write_info(path, dataclasses.replace(info, dataset=dataset, settings=settings))
        if not refused:
            assert open_cache(path).info.dataset == dataset
            continue
        with pytest.raises(CacheError, match=r"brows first.*pitched by 13 to 18 degrees; build it anew"):
            open_cache(path)
        new = dataclasses.replace(info, dataset=dataset, settings_fingerprint="another")
        with pytest.raises(CacheError, match=r"pitched by 13 to 18 degrees; choose another --cache"):
            start_cache(path, new, advice="choose another --cache")


def test_a_table_without_the_last_columns_is_read(tmp_path: Path) -> None:
    """As samples.csv was written before it had them; a column in the middle must be there."""
    sample = Sample("a", "s", "", None, "fear", "01", "", "f.obj", "ab", True, "", "normal", "geometry", 1.25, 63.5)
    rows = [line.split(",") for line in encode_table(Sample, [sample]).decode().splitlines()]
    (tmp_path / "old.csv").write_text("".join(",".join(row[:-2]) + "\n" for row in rows))
    assert read_table(tmp_path / "old.csv", Sample) == [
        dataclasses.replace(sample, misfit_mm=None, eye_distance_mm=None)
    ]
    (tmp_path / "bad.csv").write_text("".join(",".join([*row[:3], *row[4:]]) + "\n" for row in rows))
    with pytest.raises(CacheError, match="expected columns"):
        read_table(tmp_path / "bad.csv", Sample)
