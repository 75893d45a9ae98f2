"""--init-from: what a run takes from a trained model, what it does not, and whom it may not test then."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeCache, random_text
from next_commands import next_commands
from safetensors.torch import load_file
from test_train_cli import QUICK, call, fails

from shared.cache import open_cache
from shared.text import write_text_embeddings
from train.config import read_config
from train.protocols.folds import read_split
from train.protocols.trained_subjects import find_seen


def read_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def read_initial(run: Path) -> Any:
    return json.loads((run / "config.json").read_text())["initial"]


def test_what_fits_is_copied_and_the_rest_is_named(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tiny_cache(name="first", dataset="others", class_names=("anger", "fear", "happiness"), num_subjects=3)
    second = tiny_cache(name="second", class_names=("happiness", "surprise", "anger"), num_subjects=3, seed=1)
    old, exported = tmp_path / "old", tmp_path / "exported"
    linear = ["--head", "linear", "--lambda-con", 0.1]
    assert call("fit", "--cache", first, "--out", old, *QUICK, *linear) == 0
    assert call("export", old, "--out", exported) == 0
    capsys.readouterr()
    for source in (old, exported):
        new = tmp_path / f"from-{source.name}"
        options = [*linear, "--lambda-con", 0, "--epochs", 0, "--init-from", source]
        assert call("fit", "--cache", second, "--out", new, *QUICK, *options) == 0
        theirs, mine = read_weights(old), read_weights(new)
        assert set(theirs) - set(mine) == {"view_to_face.weight", "view_to_face.bias"}
        for name in set(mine) - {"text_mean", "head.weight", "class_bias"}:
            assert torch.equal(mine[name], theirs[name]), name
        for name in ("head.weight", "class_bias"):  # happiness and anger keep theirs, surprise is new
            assert torch.equal(mine[name][[0, 2]], theirs[name][[2, 0]])
            assert not torch.equal(mine[name][1], theirs[name][1])
        out = capsys.readouterr().out
        initial = read_initial(new)
        assert initial["trained_subjects"] == ["others:S0", "others:S1"] and initial["name"] == source.name
        wanted = ["weights are copied", "not used: view_to_face (2)", "happiness, anger; new: surprise"]
        assert all(text in out and any(text in line for line in initial["copied"]) for text in wanted)
    assert (tmp_path / "from-old" / "predictions.csv").read_bytes() == (
        tmp_path / "from-exported" / "predictions.csv"
    ).read_bytes()

    # a third run knows everybody on whom the first two were trained; layers that the first one lacks are new
    third = tmp_path / "third"
    options = ["--head", "mtgf", "--modalities", "normal", "--init-from", tmp_path / "from-old"]
    assert call("fit", "--cache", second, "--out", third, *QUICK, *options) == 0
    initial = read_initial(third)
    assert {"others:S0", "others:S1"} < set(initial["trained_subjects"])
    assert any(line.startswith("new, because it has none: head") for line in initial["copied"])
    assert "fusion.modality" in read_weights(third)
    capsys.readouterr()
    assert call("evaluate", third, "--cache", first) == 0
    assert "others" not in capsys.readouterr().err
    metrics = json.loads((third / "on-first" / "metrics.json").read_text())
    assert metrics["num_samples"] == 1 * 2 * 2  # S2 alone has trained none of them; fear is no class of this run


def test_people_who_trained_the_first_model_are_not_tested(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, old, cv = tiny_cache(num_subjects=4), tmp_path / "old", tmp_path / "cv"
    same = ["--folds", 2, "--epochs", 1, "--batch-size", 8, "--device", "cpu"]
    assert call("crossval", "--cache", cache, "--out", cv, *same, "--jobs", 1) == 0
    assert call("fit", "--cache", cache, "--out", old, *same) == 0
    message = fails(capsys, "fit", "--cache", cache, "--out", tmp_path / "a", *same, "--fold", 1, "--init-from", old)
    assert "was trained on 2 of the 2 subjects that fold-01 tests" in message
    message = fails(capsys, "crossval", "--cache", cache, "--out", tmp_path / "b", *same, "--init-from", old)
    assert "subjects that fold-01 tests" in message and not (tmp_path / "b" / "fold-01").exists()

    message = fails(capsys, "fit", "--cache", cache, "--out", old, *same, "--epochs", 2)
    assert "is finished, and its learning rate has fallen to zero; train it further in a new folder" in message
    longer = tmp_path / "longer"
    assert call("fit", "--cache", cache, "--out", longer, *same, "--init-from", old) == 0
    assert not torch.equal(read_weights(old)["projection.weight"], read_weights(longer)["projection.weight"])
    assert call("fit", "--cache", cache, "--out", longer, *same, "--init-from", old) == 0
    assert "finished already" in capsys.readouterr().out

    # every fold of a cross-validation starts from the fold of the same name
    again = tmp_path / "again"
    options = [*same, "--epochs", 0, "--jobs", 1, "--tune", "frozen", "--init-from", cv]
    assert call("crossval", "--cache", cache, "--out", again, *options) == 0
    for name in ("fold-00", "fold-01"):
        for weights in (read_weights(again / name), read_weights(cv / name)):
            weights.pop("text_mean")
        assert torch.equal(read_weights(again / name)["tower.proj"], read_weights(cv / name)["tower.proj"])
    predictions = [path / "fold-00" / "predictions.csv" for path in (cv, again)]
    columns = [[line.split(",")[:4] for line in path.read_text().splitlines()] for path in predictions]
    assert columns[0] == columns[1]


def test_people_of_one_name_in_two_data_sets_of_own_scans(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two studies that both have a subject S0: other people, unless a scan is in both or nothing can be compared."""
    first = tiny_cache(name="first", dataset="folder", num_subjects=3)
    second = tiny_cache(name="second", dataset="folder", num_subjects=3, seed=1)
    again = tiny_cache(name="again", dataset="folder", num_subjects=3, size_px=24)  # the scans of the first, smaller
    old, exported, new = tmp_path / "old", tmp_path / "exported", tmp_path / "new"
    assert call("fit", "--cache", first, "--out", old, *QUICK, "--epochs", 0) == 0  # S0 and S1 are in training
    assert call("export", old, "--out", exported) == 0
    command = ["fit", *QUICK, "--epochs", 0, "--test-subjects", "S0", "--init-from"]
    assert "was trained on 1 of the 1 subjects" in fails(
        capsys, *command, old, "--cache", again, "--out", tmp_path / "a"
    )
    capsys.readouterr()
    assert call(*command, old, "--cache", second, "--out", new) == 0
    note = "S0 has the name of training subjects, but no scan in common: taken as other people"
    assert note in capsys.readouterr().out and note in read_initial(new)["copied"]
    assert call("predict", old, "--cache", second, "--out", tmp_path / "p.csv") == 0
    assert "S0, S1 have the names of training subjects" in capsys.readouterr().err
    assert call("evaluate", old, "--cache", second) == 0
    assert json.loads((old / "on-second" / "metrics.json").read_text())["num_samples"] == 18

    # people under other names are known by their scans: by files, or, saved anew and of another size, by images
    for digest in ("", "new"):
        cache = open_cache(tiny_cache(name="same", dataset="folder", num_subjects=4, size_px=32 if digest else 24))
        samples = [
            dataclasses.replace(s, subject=f"P{s.subject}", source_hash=digest or s.source_hash) for s in cache.samples
        ]
        info = dataclasses.replace(cache.info, content_hash="renamed" + cache.info.content_hash)
        renamed = dataclasses.replace(cache, samples=samples, info=info)
        seen = find_seen(read_config(old), read_split(old), renamed, {"PS0", "PS1", "PS2", "PS3"})
        assert seen.subjects == {"PS0", "PS1"} and not seen.namesakes and not seen.doubt  # S2 was tested, S3 is new
        assert seen.notes == [
            "2 people were in training under another name: one scan is in both caches (S0/anger0 of PS0, S0/anger0 of S0"
            + ("; other files, the same pictures)" if digest else ")")
        ]
    first.rename(tmp_path / "moved")
    message = fails(capsys, *command, exported, "--cache", second, "--out", tmp_path / "b")
    assert "was trained on 1 of the 1 subjects" in message and "is not there to compare scans" in message
    assert "If they are other people, give them other names" in message


def test_own_scans_that_train_and_own_scans_that_are_tested(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tiny_cache(name="first", dataset="folder", num_subjects=3)
    second = tiny_cache(name="second", dataset="folder", num_subjects=2, seed=1)
    part = tiny_cache(name="part", dataset="folder", num_subjects=2)  # two people of the first
    run, longer = tmp_path / "run", tmp_path / "longer"
    command = ["fit", "--train-cache", first, "--epochs", 0, "--batch-size", 8, "--device", "cpu"]
    message = fails(capsys, *command, "--test-cache", part, "--out", run)
    assert "one scan is in both train and test" in message and "S0/anger0 of S0, S0/anger0 of test:S0" in message
    assert call(*command, "--test-cache", second, "--out", run) == 0
    out = capsys.readouterr().out
    assert "S0, S1 have the names of training subjects, but no scan in common: taken as other people" in out
    assert "second is in training: compared were the hashes of all files, and images of 18 and 12 scans" in out
    assert json.loads((run / "split.json").read_text())["test_subjects"] == ["test:S0", "test:S1"]
    tested = (run / "predictions.csv").read_bytes()
    assert b",test:S0," in tested
    assert call("evaluate", run) == 0 and (run / "predictions.csv").read_bytes() == tested
    capsys.readouterr()
    assert call("predict", run, "--cache", second, "--out", tmp_path / "p.csv") == 0
    assert "were in training" not in capsys.readouterr().err
    assert call("export", run, "--out", tmp_path / "exported") == 0
    assert call("predict", tmp_path / "exported", "--cache", second, "--out", tmp_path / "p.csv") == 0
    assert "were in training" not in capsys.readouterr().err
    assert call(*command, "--test-cache", second, "--init-from", run, "--out", longer) == 0
    assert call("evaluate", longer, "--cache", part) == 2
    assert "no sample of an unseen subject" in capsys.readouterr().err


def test_a_model_that_cannot_be_continued_is_refused(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, old = tiny_cache(num_subjects=3), tmp_path / "old"
    assert call("fit", "--cache", cache, "--out", old, *QUICK, "--epochs", 0) == 0
    text = random_text(("anger", "happiness", "surprise"), 128, "facet-tiny")
    write_text_embeddings(cache / "text" / "facet-tiny.h5", text)
    command = ["fit", "--cache", cache, "--out", tmp_path / "new", *QUICK, "--init-from"]
    assert "the prompts are of facet-tiny" in fails(capsys, *command, old, "--model", "facet-tiny")
    (cache / "text" / "facet-tiny.h5").unlink()
    assert "no run here" in fails(capsys, *command, tmp_path / "nowhere")
    assert "leave one of them out" in fails(capsys, *command, old, "--pretrained", "none")
    (old / "model.safetensors").unlink()
    assert "holds no trained weights" in fails(capsys, *command, old)


def test_a_model_of_everyone_has_no_test_and_is_passed_on(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, other = tiny_cache(num_subjects=3, units="aus"), tiny_cache(name="other", dataset="others", units="aus")
    run, exported = tmp_path / "run", tmp_path / "exported"
    command = ["fit", "--cache", cache, "--out", run, "--epochs", 1, "--device", "cpu", "--task", "aus"]
    command += ["--test-subjects", "none"]
    assert call(*command) == 0
    out = capsys.readouterr().out
    assert "18 training samples of 3 subjects, no test" not in out  # row 0 is not coded
    assert "17 training samples of 3 subjects, no test" in out and "nobody to test on" in out
    assert next_commands(out) == ["train export"]
    assert {*(path.name for path in run.iterdir())} & {"metrics.json", "predictions.csv"} == set()
    assert json.loads((run / "split.json").read_text())["test_subjects"] == []
    before = (run / "model.safetensors").stat().st_mtime_ns
    assert call(*command) == 0
    assert "finished already" in capsys.readouterr().out
    assert (run / "model.safetensors").stat().st_mtime_ns == before
    assert "train it further in a new folder" in fails(capsys, *command, "--epochs", 2)

    assert call("verify", run) == 0
    assert call("export", run, "--out", exported) == 0
    for where, known in ((other, ""), (cache, "3 of the 3 subjects were in training")):
        capsys.readouterr()
        assert call("predict", exported, "--cache", where, "--out", tmp_path / "p.csv") == 0
        err = capsys.readouterr().err
        assert known in err and ("in training" in err) == bool(known)
    assert "everyone in it was in training" in fails(capsys, "evaluate", run)
    assert call("evaluate", run, "--cache", other) == 0
    assert call("report", run, "--out", tmp_path / "r.html") == 0
    assert "trained on everyone" in (tmp_path / "r.html").read_text()
    assert "trained on everyone" in fails(capsys, "compare", run)
