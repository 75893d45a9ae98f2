"""Groups of people and scans: kept beside a cache's rows, scores by group, training on a group."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeCache
from scan_folders import cache_bytes, write_scan_folder
from test_train_cli import QUICK, call, fails

from preprocess.build.build import build_cache
from preprocess.build.verify import verify_cache
from preprocess.datasets import DATASETS
from shared.cache import Cache, hash_content, open_cache, read_info, record_path, write_info
from shared.errors import CacheError, FacetError
from shared.groups import GROUPS_CSV, encode_groups, gather_groups, read_groups
from shared.schema import RenderSettings
from shared.store.storage import hash_file, write_file
from train.protocols.where import report_columns
from train.runs.results import read_fold_result

SMALL = RenderSettings(size_px=32, modalities=("normal",))


def add_groups(path: Path, groups: Mapping[str, tuple[str, ...]]) -> Path:
    """Gives a finished cache columns of groups, as a build would."""
    cache = open_cache(path)
    write_file(path / GROUPS_CSV, encode_groups([sample.sample_id for sample in cache.samples], groups))
    hashes = {**cache.info.file_hashes, GROUPS_CSV: hash_file(path / GROUPS_CSV)}
    digests = [hash_file(record_path(path, shard)) for shard in range(cache.info.num_shards)]
    write_info(path, dataclasses.replace(cache.info, file_hashes=hashes, content_hash=hash_content(hashes, digests)))
    return path


def build(root: Path, cache: Path) -> Cache:
    build_cache(DATASETS["folder"], root, cache, SMALL, num_workers=1)
    return open_cache(cache)


def add_columns(root: Path, head: str, *values: str) -> None:
    manifest = root / "manifest.csv"
    first, *rows = manifest.read_text().splitlines()
    lines = [f"{first},{head}", *(f"{row},{value}" for row, value in zip(rows, values, strict=True))]
    manifest.write_text("\n".join(lines) + "\n")


def test_columns_of_a_manifest_stay_with_their_rows_and_cost_no_rendering(tmp_path: Path) -> None:
    root, path = tmp_path / "scans", tmp_path / "c"
    write_scan_folder(root, 3)
    plain = (root / "manifest.csv").read_text()
    bare = build(root, path)
    before = cache_bytes(path)
    assert bare.groups == {} and GROUPS_CSV not in before

    add_columns(root, "Age,my note", '31,"a, b"', "8,", ",Zoë")
    cache = build(root, path)
    assert cache.groups == {"Age": ("31", "8", ""), "my note": ("a, b", "", "Zoë")}
    assert verify_cache(path) == []
    after = cache_bytes(path)
    assert {name for name in after if after[name] != before.get(name)} == {GROUPS_CSV, "cache.json"}
    assert cache.info.content_hash != bare.info.content_hash

    damaged = after[GROUPS_CSV].replace(b"31", b"32")
    (path / GROUPS_CSV).write_bytes(damaged)
    assert any(GROUPS_CSV in line for line in verify_cache(path))
    with pytest.raises(CacheError, match="changed since"):
        open_cache(path)
    (root / "manifest.csv").write_text(plain)
    build(root, path)
    assert cache_bytes(path) == before


def test_new_words_and_missing_meshes_are_said_once_and_counted_as_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, path = tmp_path / "scans", tmp_path / "c"
    write_scan_folder(root, 2)
    build(root, path)
    manifest = root / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("anger", "fear"))
    capsys.readouterr()
    build(root, path)
    assert "of 2 rows changed" in capsys.readouterr().out
    manifest.write_text("path,subject,label\njames.OBJ,1,anger\n")
    with pytest.raises(
        FacetError, match=r"none of 1 scans could be read; the first: james\.OBJ: no such file"
    ) as error:
        build(root, path)
    assert str(error.value).count("james.OBJ") == 1 and "manifest" in str(error.value)


def test_spellings_of_a_value_are_one_and_it_is_said(tmp_path: Path) -> None:
    write_scan_folder(tmp_path, 3)
    add_columns(tmp_path, "sex", "F", "f", "F")
    reader = DATASETS["folder"]
    records = reader.find(tmp_path).records
    assert {dict(record.groups)["sex"] for record in records} == {"F"}
    assert any(line.startswith("column sex") for line in reader.find(tmp_path).notes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id,a\nx,1\ny,2\n",
        "sample_id,a\nx,1\n",
        "sample_id,a\ny,1\nx,2\n",
        "sample_id,a\nx\ny,2\n",
        "sample_id,a,a\nx,1,1\ny,2,2\n",
    ],
)
def test_a_table_of_other_rows_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / GROUPS_CSV
    path.write_text(text)
    with pytest.raises(CacheError, match=GROUPS_CSV):
        read_groups(path, ["x", "y"])
    path.write_bytes(encode_groups(["x", "y"], gather_groups([[("a", "1")], [("b", "2")]])))
    assert read_groups(path, ["x", "y"]) == {"a": ("1", ""), "b": ("", "2")}


def test_long_columns_are_reported_in_ranges_or_not_at_all(tiny_cache: MakeCache) -> None:
    path = tiny_cache(num_subjects=6)
    num = read_info(path).num_samples
    ages = tuple(str(18 + index) for index in range(num))
    add_groups(path, {"age": ages, "note": tuple(f"n{a}" for a in ages), "empty": ("",) * num, "sex": ("F",) * num})
    columns, notes = report_columns(open_cache(path))
    assert list(columns) == ["age", "sex"] and len(notes) == 1 and "note" in notes[0]
    ranges = {name: [int(a) for a, r in zip(ages, columns["age"], strict=True) if r == name] for name in columns["age"]}
    assert len(ranges) == 4 and sum(map(len, ranges.values())) == num
    for name, members in ranges.items():
        assert name == f"{min(members)} to {max(members)}"
        assert abs(len(members) - num / 4) <= 1


def test_scores_by_group_are_those_of_the_predictions(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tiny_cache(num_subjects=6), tmp_path / "cv"
    samples = open_cache(path).samples
    sex = {sample.sample_id: "" if sample.subject == "S5" else "FM"[int(sample.subject[1:]) % 2] for sample in samples}
    add_groups(path, {"sex": tuple(sex.values())})
    assert call("crossval", "--cache", path, "--out", out, *QUICK, "--epochs", 1, "--tune", "frozen", "--jobs", 1) == 0
    rows = [row for file in out.glob("fold-*/predictions.csv") for row in csv.DictReader(file.open(newline=""))]
    with (out / "groups.csv").open(newline="") as file:
        table = {(row["column"], row["value"]): row for row in csv.DictReader(file)}
    assert set(table) == {("sex", "F"), ("sex", "M"), ("sex", "(not given)")}
    text = (out / "report.txt").read_text()
    for value in ("F", "M", ""):
        mine = [row for row in rows if sex[row["sample_id"]] == value]
        found = table["sex", value or "(not given)"]
        right = np.mean([row["label"] == row["predicted"] for row in mine])
        assert int(found["num_samples"]) == len(mine) and float(found["accuracy"]) == pytest.approx(right)
        assert int(found["num_subjects"]) == len({row["subject"] for row in mine})
        assert f"sex = {value or '(not given)'}" in text
        row = next(
            line for line in (out / "groups.tex").read_text().splitlines() if line.startswith(f"sex = {value or '('}")
        )
        assert row.split(" & ")[1:4] == [str(len(mine)), found["num_subjects"], f"{100 * right:.1f}"]
    html = tmp_path / "r.html"
    assert call("report", out, "--out", html, "--no-faces") == 0
    assert "Groups of people" in html.read_text()

    metrics = out / "fold-00" / "metrics.json"
    value = json.loads(metrics.read_text())
    for damage in (
        {"sex": 3},
        {"sex": {"F": {"num_subjects": 1, "confusion": [[1]]}}},
        {"sex": {"F": {"num_subjects": 1}}},
    ):
        metrics.write_text(json.dumps({**value, "groups": damage}))
        with pytest.raises(FacetError, match="damaged"):
            read_fold_result(out / "fold-00")


def test_training_and_test_on_a_group(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = tiny_cache(num_subjects=8), tmp_path / "run"
    subjects = [sample.subject for sample in open_cache(path).samples]
    add_groups(
        path,
        {"Sex": tuple("FM"[int(s[1:]) % 2] for s in subjects), "site": tuple("ABC"[int(s[1:]) % 3] for s in subjects)},
    )
    quick = [*QUICK, "--epochs", 1, "--tune", "frozen", "--folds", 2]
    assert call("fit", "--cache", path, "--out", run, "--where", "sex=f", *quick) == 0
    assert "Sex=" in capsys.readouterr().out.replace("sex=", "Sex=")
    split = json.loads((run / "split.json").read_text())
    assert {*split["train_subjects"], *split["test_subjects"]} == {"S0", "S2", "S4", "S6"}
    before = (run / "metrics.json").read_bytes()
    assert call("evaluate", run) == 0
    assert (run / "metrics.json").read_bytes() == before
    assert call("fit", "--cache", path, "--out", tmp_path / "two", "--where", "site=A|B,sex=M", *quick) == 0
    split = json.loads((tmp_path / "two" / "split.json").read_text())
    assert {*split["train_subjects"], *split["test_subjects"]} == {"S1", "S3", "S7"}
    for where, words in (
        ("colour=x", "Sex, site"),
        ("sex=X", "found: F, M"),
        ("sex", "COLUMN=VALUE"),
        ("subject=S0,site=B", "is left"),
    ):
        assert words in fails(capsys, "fit", "--cache", path, "--out", tmp_path / "n", "--where", where, *quick)


def test_the_wall_filters_by_group(tiny_cache: MakeCache) -> None:
    from preprocess.viewer.address import Address, parse_query
    from preprocess.viewer.site import open_site

    path = tiny_cache(num_subjects=4)
    num = read_info(path).num_samples
    sex, ages = tuple("FM"[row % 2] for row in range(num)), tuple(str(20 + row) for row in range(num))
    assert open_site(path).catalogue.filters["group"].options() == []
    catalogue = open_site(add_groups(path, {"sex": sex, "age": ages})).catalogue
    options = catalogue.filters["group"].options()
    assert {"sex F", "sex M"} <= {*options}
    address = parse_query(Address(group="sex M").query(), num_views=1)
    assert catalogue.find_rows(address).tolist() == [row for row in range(num) if sex[row] == "M"]
    ranges = [option for option in options if option.startswith("age ")]
    assert sum(len(catalogue.filters["group"].rows(option)) for option in ranges) == num


def test_dynamic_images_keep_the_groups_of_their_sequences(tiny_cache: MakeCache, tmp_path: Path) -> None:
    from preprocess.build.dynamic import build_dynamic_cache

    path = tiny_cache(num_subjects=2, num_frames=3)
    samples = open_cache(path).samples
    add_groups(path, {"who": tuple(sample.subject for sample in samples)})
    build_dynamic_cache(path, tmp_path / "d")
    pooled = open_cache(tmp_path / "d")
    assert pooled.groups == {"who": tuple(sample.subject for sample in pooled.samples)}
    assert verify_cache(tmp_path / "d") == []


def test_the_summary_counts_scans_and_subjects_of_groups(tiny_cache: MakeCache) -> None:
    from preprocess.inspection.summary import describe_cache

    path = tiny_cache(num_subjects=4)
    samples = open_cache(path).samples
    sex = tuple("" if s.subject == "S3" else "FM"[int(s.subject[1:]) % 2] for s in samples)
    add_groups(path, {"sex": sex, "note": tuple(f"n{row}" for row in range(len(samples)))})
    (line,) = [line for line in describe_cache(open_cache(path)).splitlines() if line.startswith("  sex:")]
    assert line == f"  sex: F ({sex.count('F')}, 2), M ({sex.count('M')}, 1), (not given) ({sex.count('')}, 1)"
    assert f"  note: {len(samples)} values" in describe_cache(open_cache(path))


def test_action_units_by_group_add_up(tiny_cache: MakeCache, tmp_path: Path) -> None:
    path, run = tiny_cache(num_subjects=4, num_frames=3, units="aus"), tmp_path / "run"
    samples = open_cache(path).samples
    add_groups(path, {"sex": tuple("FM"[int(s.subject[1:]) // 2] for s in samples)})
    assert (
        call(
            "fit",
            "--cache",
            path,
            "--out",
            run,
            "--task",
            "aus",
            "--tune",
            "frozen",
            *QUICK,
            "--folds",
            2,
            "--epochs",
            1,
        )
        == 0
    )
    metrics = json.loads((run / "metrics.json").read_text())
    groups = metrics["groups"]["sex"]
    assert sum(one["num_samples"] for one in groups.values()) == metrics["num_samples"]
    for name in ("true_positives", "false_positives", "false_negatives", "true_negatives"):
        assert np.sum([one[name] for one in groups.values()], axis=0).tolist() == metrics[name]
    assert read_fold_result(run) is not None
