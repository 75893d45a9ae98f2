"""What `--log` shows in TensorBoard, MLflow and Weights & Biases, read back with their own readers."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeCache
from test_train_cli import QUICK, call, fails

from shared.runs import LOG_JSONL
from train.trackers.open import open_trackers

Shown = dict[str, dict[int, float]]  # name → step → value; a step that is shown twice fails


def read_tensorboard(run: Path) -> Shown:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {name: unique((e.step, e.value) for e in events.Scalars(name)) for name in events.Tags()["scalars"]}


def read_mlflow(run: Path) -> Shown:
    (found,) = find_mlflow_runs()
    assert json.loads((run / "tracking.json").read_text())["mlflow"] == found.info.run_id
    return read_mlflow_run(found)


def read_mlflow_run(found: Any) -> Shown:
    client = pytest.importorskip("mlflow").MlflowClient()
    names = found.data.metrics
    return {
        name: unique((m.step, m.value) for m in client.get_metric_history(found.info.run_id, name)) for name in names
    }


def find_mlflow_runs() -> list[Any]:
    client = pytest.importorskip("mlflow").MlflowClient()
    return list(client.search_runs([client.get_experiment_by_name("facet-vlm").experiment_id]))


def read_wandb(run: Path) -> Shown:
    """The records of all offline parts of a run."""
    rows: dict[str, list[tuple[int, float]]] = {}
    for record in read_wandb_records(run):
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            for name, value in values.items():
                if not name.startswith("_") and isinstance(value, int | float):
                    rows.setdefault(name, []).append((values["_step"], value))
    return {name: unique(pairs) for name, pairs in rows.items()}


def read_wandb_records(run: Path) -> list[Any]:
    """Read LevelDB's log format, which W&B's offline files have: blocks of 32 KiB, each record in one part or several."""
    proto: Any = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    found = []
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        data, position, whole = path.read_bytes(), 7, b""
        while position + 7 <= len(data):
            if (left := -position % (1 << 15)) < 7:  # no room for a header
                position += left
                continue
            _, length, kind = struct.unpack_from("<IHB", data, position)
            whole += data[position + 7 : position + 7 + length]
            position += 7 + length
            if kind in (1, 4):  # whole, last
                record = proto.Record()
                record.ParseFromString(whole)
                found.append(record)
                whole = b""
    return found


def unique(pairs: Any) -> dict[int, float]:
    pairs = list(pairs)
    assert len({step for step, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


READERS: dict[str, Callable[[Path], Shown]] = {
    "tensorboard": read_tensorboard,
    "mlflow": read_mlflow,
    "wandb": read_wandb,
}
programs = pytest.mark.parametrize("program", READERS)


@pytest.fixture(autouse=True)
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything stays in files: W&B offline, MLflow in a folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def test_the_log_the_settings_and_the_test_are_shown(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("mlflow", "wandb"):
        pytest.importorskip(package)
    run, names = tmp_path / "run", ",".join(READERS)
    options = ["--cache", tiny_cache(), *QUICK, "--modalities", "normal", "--epochs", 7]
    assert call("fit", *options, "--out", run, "--log", names) == 0
    printed, errors = capsys.readouterr()
    assert "WARNING" not in errors
    assert f"tensorboard: tensorboard --logdir {run / 'tensorboard'}" in printed and "wandb: wandb sync" in printed
    lines = [json.loads(line) for line in (run / LOG_JSONL).read_text().splitlines()]
    metrics = json.loads((run / "metrics.json").read_text())
    assert len(lines) == 2
    for program, read in READERS.items():
        shown = read(run)
        for name in ("loss", "ce", "lr", "accuracy", "samples_per_second"):
            assert shown[name] == {line["step"]: pytest.approx(line[name], rel=1e-6) for line in lines}, program
        if program != "wandb":
            assert list(shown["test/accuracy"].values()) == [pytest.approx(metrics["accuracy"])]
            assert [*shown["test/recall/anger"].values()] == [pytest.approx(metrics["per_class_recall"][0])]
    (found,) = find_mlflow_runs()
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    assert found.data.params["lr"] == "0.001" and found.data.params["batch_size"] == "8"
    assert [path.name for path in (tmp_path / "mlruns").glob(f"*/{found.info.run_id}/artifacts/*")] == ["confusion.png"]
    records = read_wandb_records(run)
    summary = {i.key: i.value_json for r in records if r.HasField("summary") for i in r.summary.update}
    summary |= {
        "/".join(i.nested_key): i.value_json for r in records if r.HasField("summary") for i in r.summary.update
    }
    assert json.loads(summary["test/accuracy"]) == pytest.approx(metrics["accuracy"])
    assert list(run.glob("wandb/offline-run-*/files/media/images/confusion_*.png"))
    config = {item.key: item.value_json for r in records if r.HasField("run") for item in r.run.config.update}
    assert config["lr"] == "0.001" and str(tmp_path) not in str(config)

    plain = tmp_path / "plain"
    assert call("fit", *options, "--out", plain) == 0  # showing a run changes nothing in it
    for name in ("model.safetensors", "config.json", "predictions.csv"):
        assert (plain / name).read_bytes() == (run / name).read_bytes()


def test_a_cross_validation_is_a_run_beside_its_folds(tiny_cache: MakeCache, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    out = tmp_path / "cv"
    command = ["crossval", "--cache", tiny_cache(), *QUICK, "--folds", 2, "--epochs", 0, "--jobs", 1, "--out", out]
    command += ["--log", "mlflow,tensorboard"]
    for _ in range(2):  # nothing is shown twice
        assert call(*command) == 0
        names = {run.info.run_name: run for run in find_mlflow_runs()}
        assert sorted(names) == ["cv", "cv/fold-00", "cv/fold-01"]
        assert {run.data.tags["study"] for run in names.values()} == {"cv"}
        report = json.loads((out / "report.json").read_text())["summary"]
        for shown in (read_mlflow_run(names["cv"]), read_tensorboard(out)):
            assert shown["pooled/accuracy"] == {0: pytest.approx(report["pooled"]["accuracy"])}
            assert shown["mean/accuracy"] == {0: pytest.approx(report["over_folds"]["accuracy"]["mean"])}
        assert names["cv"].info.status == "FINISHED"


@programs
def test_an_interrupted_run_goes_on_as_the_same(program: str, tmp_path: Path) -> None:
    """It was logged up to step 30, and goes on from a checkpoint of step 20."""
    if program != "tensorboard":
        pytest.importorskip(program)
    run = tmp_path / "run"
    run.mkdir()
    lines = [{"step": step, "loss": 1 / step} for step in (10, 20, 30, 40)]
    for step, earlier, new in ((0, [], lines[:3]), (20, lines[:3], lines[2:])):
        with open_trackers(run, [program], {}) as (tracker,):
            tracker.start(step, earlier)
            for line in new:
                tracker.log(line)
        time.sleep(1.1 * (program == "wandb"))  # it names its offline files by the second
    assert READERS[program](run)["loss"] == {line["step"]: pytest.approx(line["loss"]) for line in lines}
    if program == "wandb":
        assert len({r.run.run_id for r in read_wandb_records(run) if r.HasField("run")}) == 1


def test_a_program_that_is_added_later_gets_what_was_logged_before(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    lines = [{"step": step, "loss": 1 / step} for step in (10, 20, 30)]
    with open_trackers(tmp_path, ["mlflow"], {}) as (tracker,):
        tracker.start(20, lines)
        tracker.log({"step": 30, "loss": 0.5})
    assert read_mlflow(tmp_path)["loss"] == {10: 0.1, 20: 0.05, 30: 0.5}
    assert find_mlflow_runs()[0].info.status == "KILLED"  # there was no test


def test_a_program_that_fails_ends_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    with open_trackers(tmp_path, ["mlflow"], {}) as (tracker,):
        tracker.start(0, [])
        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", fail)
        for step in (10, 20):
            tracker.log({"step": step, "loss": 1.0})
    assert capsys.readouterr().err.splitlines() == [
        "warning: --log mlflow: no route to host; nothing more is sent there"
    ]


@programs
def test_what_cannot_be_used_is_one_line_before_the_training(
    program: str, tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    package = {"tensorboard": "torch.utils.tensorboard"}.get(program, program)
    command = ["--cache", tiny_cache(), *QUICK, "--out", run, "--log", program]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, package, None)
        for kind in ("fit", "crossval"):
            assert f"--log {program}: the package {program} is not installed" in fails(capsys, kind, *command)
    assert not run.exists()
    if program == "mlflow":
        os.environ["MLFLOW_TRACKING_URI"] = "nothing://here"
        assert "see MLFLOW_TRACKING_URI" in fails(capsys, "fit", *command)
        assert not run.exists()
