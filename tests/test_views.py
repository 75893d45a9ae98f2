"""Training on some of a cache's views is training on a cache that holds these alone, bit for bit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeCache
from safetensors.numpy import load_file
from test_train_cli import call, fails
from viewer_pages import page_text

from preprocess.viewer.run_records import read_run
from preprocess.viewer.site import open_site
from shared.attention_file import ATTENTION_FILE, read_attention
from shared.cache import open_cache
from shared.errors import CacheError
from shared.runs import WEIGHTS
from shared.schema import View
from train.config import read_config
from train.data.preload import PreloadedImages, preload_images
from train.experiment import prepare_experiment
from train.options import Options, RunOptions
from train.reporting.html.pictures import open_tested_cache

FRONT, LEFT, RIGHT, UP = View(0), View(20), View(-20), View(0, 15)
# drawn without noise: the same in every cache
DRAWN: dict[str, Any] = {"modalities": ("normal", "depth"), "num_subjects": 4, "scans_per_class": 1}
QUICK = ["--folds", "2", "--epochs", "2", "--batch-size", "4", "--device", "cpu"]


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_chosen_views_are_read_in_the_order_wanted(store: str, tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(store=store, modalities=("texture", "depth"), without_texture=(2,)))
    for views, places in (((RIGHT, FRONT), [2, 0]), ((LEFT,), [1]), ((LEFT, RIGHT, FRONT), [1, 2, 0])):
        chosen = cache.with_views(views)
        assert chosen.info.settings.views == views and chosen.samples is cache.samples
        for modality in ("texture", "depth"):
            whole = cache.arrays.read(modality, [5, 0, 7])
            assert chosen.info.arrays()[modality][1:] == (len(views), *whole.shape[2:])
            np.testing.assert_array_equal(chosen.arrays.read(modality, [5, 0, 7]), whole[:, places])
            out = np.full((2, len(views), *whole.shape[2:]), 9, whole.dtype)
            assert not chosen.arrays.start_into(modality, np.array([-1, 5]), out).result()[0].any()
            np.testing.assert_array_equal(out[1], whole[0, places])
        poses = chosen.arrays.read("scan_to_face", [0, 1])
        np.testing.assert_array_equal(poses, cache.arrays.read("scan_to_face", [0, 1]))
        assert chosen.with_all_views().info == cache.info == chosen.with_views(cache.info.settings.views).info
    with pytest.raises(CacheError, match="texture is missing or damaged"):
        cache.with_views([LEFT]).arrays.read("texture", [2])
    with pytest.raises(CacheError, match=r"holds no view 45,0:10; it holds 0,20,-20"):
        cache.with_views([View(45), FRONT, View(0, 10)])


def test_training_on_some_views_is_training_on_a_cache_of_them(tiny_cache: MakeCache, tmp_path: Path) -> None:
    three = tiny_cache(name="three", views=(FRONT, LEFT, RIGHT), **DRAWN)
    two = tiny_cache(name="two", views=(FRONT, RIGHT), **DRAWN)
    ways = {
        "files": [],
        "ram": ["--preload", "ram", "--augment", "flip"],
        "frozen": ["--tune", "frozen"],
        "frozen-images": ["--tune", "frozen", "--embeddings", "off"],
    }
    for name, options in ways.items():
        fit = ["fit", *QUICK, *options, "--cache"]
        assert call(*fit, two, "--out", tmp_path / f"two-{name}" / "run") == 0
        # in another order: the cache's counts
        assert call(*fit, three, "--views", "-20,0", "--out", tmp_path / f"three-{name}" / "run") == 0
        assert_same_run(tmp_path / f"two-{name}" / "run", tmp_path / f"three-{name}" / "run")
    # the embeddings of all views were kept, and serve any other choice
    embedded = {path: path.stat().st_mtime_ns for path in (tmp_path / "three-frozen").rglob("*.safetensors")}
    again = ["fit", *QUICK, "--tune", "frozen", "--cache", three, "--out", tmp_path / "three-frozen" / "left"]
    assert call(*again, "--views", "20") == 0
    kept = {path: time for path, time in embedded.items() if "embeddings" in path.parts}
    assert kept and {path: path.stat().st_mtime_ns for path in kept} == kept


def assert_same_run(one: Path, other: Path) -> None:
    expected, found = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    for name in ("predictions.csv", "metrics.json", ATTENTION_FILE):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_all_folds(tiny_cache: MakeCache, tmp_path: Path) -> None:
    three = tiny_cache(name="three", views=(FRONT, LEFT, RIGHT), **DRAWN)
    two = tiny_cache(name="two", views=(FRONT, RIGHT), **DRAWN)
    for cache, views in ((two, []), (three, ["--views", "0,-20"])):
        crossval = ["crossval", *QUICK, "--tune", "frozen", "--jobs", 1, "--cache", cache, *views]
        assert call(*crossval, "--out", tmp_path / cache.name / "run") == 0
    for fold in ("fold-00", "fold-01"):
        assert_same_run(tmp_path / "two" / "run" / fold, tmp_path / "three" / "run" / fold)
    assert "0,-20" in (tmp_path / "three" / "run" / "report.txt").read_text()


def test_a_run_keeps_its_views(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, run = tiny_cache(views=(FRONT, LEFT, RIGHT), **DRAWN), tmp_path / "run"
    fit = ["fit", *QUICK, "--cache", cache, "--out", run]
    assert call(*fit, "--views", "20, -20") == 0
    assert "normal, depth at views 20,-20," in capsys.readouterr().out
    config = read_config(run)
    assert (config.recipe.views, config.render.views) == (("20", "-20"), (LEFT, RIGHT))
    assert {*json.loads((run / "metrics.json").read_text())["view_weights"]} == {
        f"{modality} {view}" for modality in ("normal", "depth") for view in (20, -20)
    }
    before = {name: (run / name).read_bytes() for name in ("metrics.json", "predictions.csv", ATTENTION_FILE)}
    assert call("evaluate", run) == 0
    assert {name: (run / name).read_bytes() for name in before} == before
    tested, why = open_tested_cache(config, {})
    assert tested is not None and not why and tested.info.settings.views == (LEFT, RIGHT)
    assert read_attention(run / ATTENTION_FILE).views == ("20", "-20")
    (test,) = read_run(run, open_cache(cache)).folds
    assert test.views == (1, 2)
    page = page_text(open_site(cache, run), f"/sample/{test.row_of(0)}")
    drawn = re.findall(r"/(?:image/\d+/(normal|depth)|attention/\d+)/(\d)\.png", page)
    assert drawn == [  # each view of the cache by its yaw, -20, 0, 20, and the map of those that the run has seen
        *[("normal", "2"), ("", "1"), ("normal", "0"), ("normal", "1"), ("", "0")],
        *[("depth", "2"), ("", "3"), ("depth", "0"), ("depth", "1"), ("", "2")],
    ]
    # elsewhere the run's views are taken out of those that are there, whatever their order
    other = tiny_cache(name="other", views=(UP, RIGHT, LEFT), **DRAWN)
    assert call("predict", run, "--cache", other) == 0
    assert call("predict", run, "--cache", cache) == 0
    assert (run / "predictions-other.csv").read_bytes() == (run / "predictions-cache.csv").read_bytes()
    (run / "predictions.csv").rename(run / "moved")
    assert [fold.views for fold in read_run(run, open_cache(other)).folds] == [(2, 1)]
    (run / "moved").rename(run / "predictions.csv")
    lacking = tiny_cache(name="lacking", views=(FRONT, LEFT), **DRAWN)
    assert f"{lacking}: views 0,20, but {run} has views 20,-20" in fails(capsys, "predict", run, "--cache", lacking)

    assert "different: --views)" in fails(capsys, *fit)
    assert "different: --views, --train-views)" in fails(capsys, *fit, "--views", "20")
    assert call(*fit, "--views=-20,20") == 0
    out = ["--out", tmp_path / "wrong"]
    assert "holds no view 45; it holds 0,20,-20" in fails(capsys, *fit[:-2], *out, "--views", "0,45")
    assert "found 'left'" in fails(capsys, *fit[:-2], *out, "--views", "left")
    assert "names one twice" in fails(capsys, *fit[:-2], *out, "--views", "0,20,0:0")


def test_what_is_kept_in_memory_and_how_views_are_written(tiny_cache: MakeCache) -> None:
    exact = View(12.3456789, -7.65432109)  # in a run's config.json it is 12.3457:-7.65432
    path = tiny_cache(views=(FRONT, exact, RIGHT), **DRAWN)
    for text in (f"{exact.yaw_deg}:{exact.pitch_deg}", str(exact)):
        experiment = prepare_experiment(Options(views=(text,), folds=2), RunOptions(cache=path), path)
        assert experiment.train.info.settings.views == (exact,) and experiment.recipe.views == (str(exact),)
    source = preload_images(experiment.train, experiment.train_items, ("depth",), "ram", torch.device("cpu"))
    assert isinstance(source, PreloadedImages)
    images = source._tables["depth"].numpy().view(np.uint16)
    assert images.shape == (12, 1, 32, 32)
    np.testing.assert_array_equal(images, open_cache(path).arrays.read("depth", range(12))[:, 1:2])


def test_all_views_are_the_default(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, run = tiny_cache(**DRAWN), tmp_path / "run"
    fit = ["fit", "--cache", cache, "--out", run, *QUICK]
    assert call(*fit) == 0
    assert call(*fit, "--views=-20,20,0") == 0  # in any order
    assert "this run is finished" in capsys.readouterr().out


def test_across_data_sets_the_training_views_are_tested(tiny_cache: MakeCache, tmp_path: Path) -> None:
    train = tiny_cache(name="train", views=(FRONT, LEFT, RIGHT), **DRAWN)
    test = tiny_cache(name="test", views=(UP, RIGHT, FRONT), dataset="others", **DRAWN)
    run = tmp_path / "run"
    caches = ["--train-cache", train, "--test-cache", test]
    assert call("fit", *caches, "--views=-20,0", *QUICK[2:], "--out", run) == 0
    assert read_attention(run / ATTENTION_FILE).views == ("0", "-20")
    before = (run / "predictions.csv").read_bytes()
    assert call("evaluate", run) == 0
    assert (run / "predictions.csv").read_bytes() == before
