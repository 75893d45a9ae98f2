"""What `train` offers to Python programs: the examples of its manual, and that they compute what the commands compute."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, MakeCache, write_tiny_cache
from test_readme import TEXTS
from torch.utils.data import DataLoader

import train
from preprocess.prompts import encode_prompts
from shared.cache import open_cache
from shared.errors import CacheError, FacetError
from shared.runs import read_predictions, tabulate_predictions
from shared.schema import text_file_name
from shared.text import write_text_embeddings
from train import CacheDataset, CacheLoader, fit, load_model
from train.inference.export import export
from train.inference.predict import predict
from train.protocols.folds import Fold, FoldList, write_folds
from train.studies.zero_shot import predict_zero_shot

DEMO = "data_cache/demo/cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cache of the examples, with prompts of facet-tiny, and a run trained on it."""
    root = tmp_path_factory.mktemp("api")
    write_tiny_cache(root / DEMO, model="", with_text=False, num_subjects=5, modalities=("texture", "normal", "depth"))
    prompts = {name: [f"a face of {name}", f"{name}"] for name in CLASSES}
    text = encode_prompts(prompts, model="facet-tiny", pretrained="synthetic-2")
    write_text_embeddings(root / DEMO / "text" / text_file_name("facet-tiny"), text)
    fit(cache=root / DEMO, out=root / "run", modalities="texture,normal", folds=5, epochs=1, quiet=True)
    return root


EXAMPLES = re.findall(
    r"```python\n(.*?)```", TEXTS["train/README.md"].partition("## In Python")[2].partition("\n## ")[0], re.S
)


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_the_examples_of_the_manual_run(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLES) == 7
    for example in EXAMPLES:
        for package in ("lightning", "datasets"):
            if f"import {package}" in example:
                pytest.importorskip(package)
        exec(example, {"__name__": "example"})
    printed = capsys.readouterr().out
    assert "accuracy on unseen people" in printed and "(3, 32, 32, 3)" in printed


def test_importing_the_package_is_fast_and_names_what_is_public() -> None:
    code = "import sys, train; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert dir(train) == sorted(train.__all__) and all(getattr(train, name) for name in train.__all__)


# --- a cache ---


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_rows_and_tables_of_a_cache(store: str, tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(store=store, without_texture=(3,), invalid=(4,), num_subjects=2))
    assert len(cache) == 12 and cache.table()["sample_id"][5] == "S0/surprise1"
    assert list(cache[0]) == ["texture", "normal", "scan_to_face"] and list(cache[3]) == ["normal", "scan_to_face"]
    assert list(cache[4]) == ["scan_to_face"]  # not valid: no images
    again = pickle.loads(pickle.dumps(cache))  # after it has read: open files must not be copied
    for row in (cache[-1], cache["S1/surprise1"], again[11]):
        np.testing.assert_array_equal(row["normal"], cache.arrays.read("normal", [11])[0])
    with pytest.raises(IndexError):
        cache[12]


def test_groups_are_columns(inside: Path) -> None:
    from dataclasses import replace

    cache = replace(open_cache(DEMO), groups={"sex": ("F",) * 30, "task": ("t",) * 30})
    assert cache.table()["sex"][0] == "F" and cache.table()["group_task"][0] == "t"


# --- datasets ---


def test_a_sample_holds_the_stored_values_in_unit_range(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(modalities=("texture", "normal", "depth"), without_texture=(3,)))
    with pytest.warns(UserWarning, match="have no texture"):
        data = CacheDataset(cache, views=[20, 0])
    sample, stored = data[3], cache[3]
    assert data.names[3] == cache.samples[3].sample_id and data.classes[sample["label"]] == cache.samples[3].label
    assert sample["images"].shape == (1, 3, 2, 3, 32, 32) and sample["present"].tolist() == [[False, True, True]]
    assert not sample["images"][0, 0].any() and data[0]["images"][0, 0].any()
    np.testing.assert_allclose(sample["cameras"].rad2deg(), [[0, 0], [20, 0]], atol=1e-5)
    normal = np.moveaxis(stored["normal"][:2] / 255, -1, 1)
    np.testing.assert_allclose(sample["images"][0, 1], normal, atol=1e-6)
    depth_mm = (stored["depth"][:2].astype(float) - 32768) * 0.02
    depth = np.clip((depth_mm + 110) / 130, 0, 1) * (stored["depth"][:2] > 0)
    np.testing.assert_allclose(sample["images"][0, 2], np.repeat(depth[:, None], 3, 1), atol=1e-5)
    assert CacheDataset(cache, views="0", modalities="normal", size_px=16)[0]["images"].shape == (1, 1, 1, 3, 16, 16)


def test_folds_are_those_of_fit(folder: Path) -> None:
    train_set, test_set = CacheDataset(folder / DEMO).fold(0, folds=5)
    assert not set(train_set.subjects) & set(test_set.subjects)
    assert set(test_set.names) == set(read_column(folder / "run/predictions.csv", "sample_id"))
    with pytest.raises(FacetError, match="fold 5"):
        CacheDataset(folder / DEMO).fold(5, folds=5)


def test_a_file_of_folds_decides_the_classes_of_each_side(folder: Path, tmp_path: Path) -> None:
    """A class that is left out of the training must not come back through Python."""
    data = CacheDataset(folder / DEMO)
    one, two, *others = sorted(set(data.subjects))
    fold = Fold("a", (*others, two), (one,), (two,), train_classes=tuple(CLASSES[1:]), test_classes=(CLASSES[0],))
    write_folds(tmp_path / "folds.json", FoldList("own", data.cache.info.dataset, 0, data.classes, (fold,)))
    for part, subjects, classes in zip(
        data.fold(protocol=str(tmp_path / "folds.json")), (others, [one]), (CLASSES[1:], CLASSES[:1]), strict=True
    ):
        shown = {part.classes[label] for label in part.labels}
        assert sorted(set(part.subjects)) == subjects and shown == set(classes) & set(data.classes)


def check_equals_file(table: dict[str, list[Any]], path: Path) -> None:
    """Compare a table with predictions.csv, whose numbers are exact as f32."""
    for name, values in tabulate_predictions(read_predictions(path)).items():
        kind = np.float32 if name.startswith("p_") else str
        np.testing.assert_array_equal(np.array(table[name], kind), np.array(values, kind))


def read_column(path: Path, name: str) -> list[str]:
    return [str(value) for value in tabulate_predictions(read_predictions(path))[name]]


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_workers_and_copies_read_the_same(store: str, tiny_cache: MakeCache) -> None:
    data = CacheDataset(tiny_cache(store=store, num_frames=4, num_subjects=2, scans_per_class=1), frames=3)
    assert data[0]["images"].shape[0] == 3  # open files, which workers must not share
    alone = [data[i]["images"] for i in range(len(data))]
    for loader in (DataLoader(data, 2, num_workers=2), DataLoader(pickle.loads(pickle.dumps(data)), 2)):
        assert torch.equal(torch.cat([batch["images"] for batch in loader]), torch.stack(alone))


def test_action_units_and_unlabelled_rows(tiny_cache: MakeCache) -> None:
    path = tiny_cache(units="aus", unlabelled=(1,))
    units = CacheDataset(path, task="aus", classes=["AU12", "AU1"])
    assert len(units) == 23 and units[0]["label"].tolist() == [0, 1]  # row 0 is unknown; anger shows AU1, not AU12
    every = CacheDataset(path, labelled=False)
    assert (len(every), len(CacheDataset(path))) == (24, 23) and every[1]["label"] == -1


def test_a_loader_has_the_order_of_training(folder: Path) -> None:
    data = CacheDataset(folder / DEMO, modalities="normal")
    loader = CacheLoader(data, 8, seed=3)
    for epoch in range(2):
        batches = list(loader)
        order = np.random.default_rng([3, epoch]).permutation(30)
        assert torch.cat([batch["index"] for batch in batches]).tolist() == order.tolist()
        assert len(batches) == len(loader) == 4 and torch.equal(batches[1]["images"][2], data[int(order[10])]["images"])
        loader.set_epoch(epoch)
        shared = list(DataLoader(loader, None, num_workers=2))
        assert all(torch.equal(a["images"], b["images"]) for a, b in zip(batches, shared, strict=True))
        loader.set_epoch(epoch + 1)
    halves = [list(CacheLoader(data, 8, seed=3, rank=rank, num_ranks=2)) for rank in (0, 1)]
    together = [torch.cat([a["index"], b["index"]]) for a, b in zip(*halves, strict=True)]
    assert torch.cat(together).tolist() == np.random.default_rng([3, 0]).permutation(30).tolist()
    with pytest.raises(FacetError, match="set_epoch"):
        next(iter(DataLoader(CacheLoader(data), None, num_workers=1)))


def test_a_loader_mirrors_faces_with_their_cameras(folder: Path) -> None:
    data = CacheDataset(folder / DEMO, modalities="normal")
    flipped, samples = 0, data.__getitems__(range(30))
    for batch in CacheLoader(data, augment="flip", shuffle=False):
        for images, cameras, index in zip(batch["images"], batch["cameras"], batch["index"].tolist(), strict=True):
            plain = samples[index]
            if not torch.equal(images, plain["images"]):
                flipped += 1
                assert torch.equal(cameras[:, 0], -plain["cameras"][:, 0])
                assert torch.equal(images[..., 1, :, :], plain["images"][..., 1, :, :].flip(-1))  # y of the normals
    assert 5 < flipped < 25


def test_wrong_options_are_named(folder: Path) -> None:
    for options, message in (
        ({"modality": "normal"}, "did you mean modalities"),
        ({"classes": ["joy"]}, "did you mean happiness"),
        ({"where": "sex=F"}, "sex"),
        ({"frames": 3}, "no sequences"),
        ({"background": "mean"}, "give R,G,B"),
    ):
        with pytest.raises(FacetError, match=message):
            CacheDataset(folder / DEMO, **options)
    with pytest.raises(FacetError, match="augment"):
        CacheLoader(CacheDataset(folder / DEMO), augment="rotate")
    with pytest.raises(CacheError, match="no cache here"):
        CacheDataset(folder / "nothing")
    with pytest.raises(FacetError, match="did you mean epochs"):
        fit(cache=folder / DEMO, out=folder / "other", epoch=1)


# --- models ---


def test_a_model_predicts_as_the_command_does(folder: Path) -> None:
    model = load_model(folder / "run")
    predict(folder / "run", folder / DEMO, folder / "p.csv", device="cpu")
    table = model.predict(folder / DEMO)
    check_equals_file(table, folder / "p.csv")
    assert set(table["lacks"]) == {""}
    probabilities = np.array([table[f"p_{name}"] for name in model.classes]).T
    cache = open_cache(folder / DEMO)
    rows = {name: cache.arrays.read(name, [0, 1, 2, 3]) for name in ("texture", "normal", "depth")}
    with torch.no_grad():
        np.testing.assert_allclose(model(rows).softmax(-1), probabilities[:4], atol=1e-5)
        np.testing.assert_allclose(model(cache[2]).softmax(-1), probabilities[2], atol=1e-5)
        (batch,) = CacheLoader(CacheDataset(cache, modalities=model.modalities), 30, shuffle=False)
        np.testing.assert_allclose(model(batch).softmax(-1), probabilities, atol=1e-5)
        square = model.encode({name: array.reshape(2, 2, *array.shape[1:]) for name, array in rows.items()})
        assert square.shape == (2, 2, 128) and torch.allclose(square[1, 0], model.encode(cache[2]), atol=1e-6)
        lacking = model.encode({"normal": rows["normal"]})
        assert not torch.allclose(lacking, square.flatten(0, 1), atol=1e-3)
    model.encode(cache[0]).sum().backward()  # it can be tuned further
    assert model.facet.projection.weight.grad is not None
    export(folder / "run", folder / "exported")
    assert load_model(folder / "exported").predict(cache) == table
    copied = pickle.loads(pickle.dumps(model))
    assert torch.equal(copied.encode(cache[0]), model.encode(cache[0]))


def test_a_model_of_sequences_takes_frames(tiny_cache: MakeCache, tiny_model: str, tmp_path: Path) -> None:
    path = tiny_cache(num_frames=4, num_subjects=2, scans_per_class=1)
    options: dict[str, Any] = {"frames": 2, "reference": "onset", "modalities": "texture", "background": "90,200,0"}
    fit(cache=path, out=tmp_path / "run", model=tiny_model, pretrained="none", folds=2, epochs=1, quiet=True, **options)
    model, cache = load_model(tmp_path / "run"), open_cache(path)
    table = model.predict(cache)
    probabilities = np.array([table[f"p_{name}"] for name in model.classes]).T
    (batch,) = CacheLoader(CacheDataset(cache, **options), 6, shuffle=False)
    with torch.no_grad():
        np.testing.assert_allclose(model(batch).softmax(-1), probabilities, atol=1e-5)
        frames = cache.arrays.read("texture", [0, 1, 3])  # the onset, and the middle of each half
        np.testing.assert_allclose(model({"texture": frames}).softmax(-1), probabilities[0], atol=1e-5)


def test_images_of_another_kind_are_refused(folder: Path) -> None:
    model, cache = load_model(folder / "run"), open_cache(folder / DEMO)
    row = cache[0]
    for images, message in (
        ({"depth": row["depth"]}, "no texture or normal"),
        ({"normal": row["normal"][:2]}, "2 views, this model has 3"),
        ({"normal": row["normal"] / 255}, "expected uint8"),
        ({"normal": row["normal"], "texture": row["texture"][:, :16, :16]}, "different shapes"),
        (CacheDataset(cache)[0], "expected .B, T, 2, V, 3, S, S."),
    ):
        with pytest.raises(FacetError, match=message):
            model.encode(images)  # type: ignore[arg-type]
    for name, message in ((folder / "nothing", "no run here"), ("ViT-B-17", "no folder of a run")):
        with pytest.raises(FacetError, match=message):
            load_model(name)


def test_a_clip_model_predicts_as_the_command_does(folder: Path) -> None:
    from train.options import Options, RunOptions

    clip, cache = load_model("facet-tiny"), open_cache(folder / DEMO)
    predict_zero_shot(Options(), RunOptions(cache=cache.path), folder / "zero-shot", adapt=False)
    table = clip.predict(cache, adapt=False)  # type: ignore[call-arg]
    check_equals_file(table, folder / "zero-shot/predictions.csv")
    prompts = {name: [f"a face of {name}", name] for name in CLASSES}  # those of the cache
    assert clip.predict(cache, prompts, adapt=False) == table  # type: ignore[call-arg]
    stored = cache.read_text("facet-tiny")
    np.testing.assert_allclose(clip.encode_text(["a face of anger", "anger"]), stored.embeddings[0], atol=1e-6)
    faces = clip.encode({"normal": cache.arrays.read("normal", range(4))[:, :1]})  # any views
    assert faces.shape == (4, 128) and torch.allclose(faces.norm(dim=1), torch.ones(4))
    with pytest.raises(FacetError, match="no classes"):
        clip(cache[0])
    with pytest.raises(FacetError, match="know no zebra"):
        clip.encode_text(["a zebra"])


def test_a_result_is_that_of_the_files(folder: Path) -> None:
    again = fit({"folds": 5, "epochs": 1}, cache=folder / DEMO, out=folder / "run", modalities=["texture", "normal"])
    hits = [a == b for a, b in zip(again.predictions["label"], again.predictions["predicted"], strict=True)]
    assert again.scores["accuracy"] == np.mean(hits) and again.confusion is not None
    assert again.confusion.sum() == len(hits) == 6 and again.log["step"][-1] == 3
    config = fit(folder / "run/config.toml", out=folder / "second", quiet=True)
    assert config.predictions == again.predictions  # bit for bit
