"""An ablation: every variant is what its name says, on the same folds, whatever interrupts it; one table of all."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeCache
from crossval_results import about_with, random_folds
from next_commands import next_commands
from test_crossval_signals import assert_same_folds
from test_train_cli import call, fails
from tiny_training import RECIPE, make_model

from train.arguments import build_parser
from train.options import Options
from train.protocols.folds import read_folds
from train.studies.ablation.report import (
    format_ablation,
    format_ablation_latex,
    list_rows,
    summarise_ablation,
)
from train.studies.ablation.variants import (
    GROUPS,
    OBVIOUS,
    PARTS,
    Chosen,
    Variant,
    change_options,
    list_variants,
    read_chosen,
)
from train.training.checkpoint import CHECKPOINT
from train.training.step import StepResult, train_step

FAST = [
    "--folds",
    2,
    "--epochs",
    1,
    "--batch-size",
    8,
    "--device",
    "cpu",
    "--tune",
    "frozen",
    "--lr",
    1e-3,
    "--jobs",
    1,
]


def ablate(cache: Path, out: Path, *options: object) -> list[object]:
    return ["ablate", "--cache", cache, "--out", out, *FAST, *options]


def read_recipe(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "config.json").read_text())["recipe"]
    return value


def read_rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "ablation.csv").open(newline="") as file:
        return {row["variant"]: row for row in csv.DictReader(file)}


def test_every_name_is_what_its_part_is() -> None:
    off = {"fusion": "mean", "head": "cosine", "lambda_con": 0.0, "lambda_vt": 0.0}
    changes: dict[str, dict[str, Any]] = {
        "full": {},
        "no-cvsa": {"fusion": "mean"},
        "no-mtgf": {"head": "cosine"},
        "no-consistency": {"lambda_con": 0.0},
        "no-view-text": {"lambda_vt": 0.0},
        "plain-clip": off,
        "only-texture": {"modalities": ("texture",)},
        "only-depth": {"modalities": ("depth",)},
        "mine": {"tune": "last-2", "gradient_checkpointing": True},
    }
    chosen = read_chosen(None, ["mine=--tune last-2 --gradient-checkpointing"])
    found = {variant.name: variant for variant in list_variants(chosen, ("texture", "depth"))}
    assert list(found) == list(changes)
    for name, variant in found.items():
        assert change_options(Options(seed=3, lr=1e-2), variant) == Options(seed=3, lr=1e-2, **changes[name])
    assert [v.name for v in list_variants(Chosen(("no-cvsa",)), ("texture",))] == ["full", "no-cvsa"]
    more = {v.name: v for v in list_variants(Chosen(("with-patches",)), ("texture",))}  # by name alone
    assert change_options(Options(), more["with-patches"]) == Options(mtgf_tokens="patches")
    for name in ("no-mtgf", "plain-clip"):  # nothing is left that could look at patches
        assert change_options(Options(mtgf_tokens="patches"), found[name]) == Options(**changes[name])
    assert not any(v.name.startswith("only-") for v in list_variants(Chosen(), ("texture",)))  # it looks at one anyway


def test_every_run_is_what_its_name_says(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out = tiny_cache(without_texture=(3,)), tmp_path / "out"
    names = ["--variants", "no-mtgf,only-texture", "--variant", "slow=--lr 1e-4", "--jobs", 1]
    assert call(*ablate(cache, out, "--modalities", "texture,normal", *names)) == 0
    printed = capsys.readouterr().out
    expected: dict[str, dict[str, object]] = {
        "full": {},
        "no-mtgf": {"head": "cosine"},
        "only-texture": {"modalities": ["texture"]},
        "slow": {"lr": 1e-4, "tower_lr": 1e-4},
    }
    folds = read_folds(out / "folds.json").folds
    full = read_recipe(out / "full" / "fold-00")
    for name, changes in expected.items():
        for number, fold in enumerate(folds):
            assert read_recipe(out / name / fold.name) == full | {"fold": number} | changes
            split = json.loads((out / name / fold.name / "split.json").read_text())
            assert tuple(split["test_subjects"]) == fold.test_subjects
            assert tuple(split["train_subjects"]) == fold.train_subjects
        assert (out / name / "report.txt").is_file()
    rows = read_rows(out)
    assert list(rows) == list(expected)
    for name, row in rows.items():
        report = json.loads((out / name / "report.json").read_text())["summary"]["pooled"]
        assert float(row["uar_mean"]) == report["uar"]
        assert row["uar_std"] == ""  # one seed
    assert rows["only-texture"]["num_tested"] == "23"  # one scan has no texture
    assert "only-texture is tested on 23 samples, the full model on 24" in printed
    assert "RANDOM WEIGHTS" in printed and "RANDOM WEIGHTS" in (out / "ablation.tex").read_text()
    words = shlex.split(printed.splitlines()[-1], comments=True)
    assert words[:5] == ["next:", "python", "-m", "train", "compare"]
    pairs = [str(out / name) for name in expected if name != "only-texture"]  # whose samples are not the full model's
    found = dict(word.split("=") for word in words[5 + len(pairs) :] if word != "--name")
    assert words[5 : 5 + len(pairs)] == pairs and sorted(found.values()) == sorted(pairs)
    assert found["Full model"] == str(out / "full") and found["w/o MTGF"] == str(out / "no-mtgf")

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert call("crossval", "--cache", cache, "--protocol", out / "folds.json", "--out", out / "no-mtgf", *FAST[2:],
                "--modalities", "texture,normal", "--head", "cosine", "--jobs", 1) == 0  # fmt: skip
    assert "2 of 2 folds are finished already" in capsys.readouterr().out  # an ordinary cross-validation
    assert call(*ablate(cache, out, "--modalities", "texture,normal", "--variants", "no-mtgf")) == 0
    assert capsys.readouterr().out.count("finished already") == 2
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path.name == "metrics.json")


def test_the_sizes_of_the_obvious_networks() -> None:
    num = {}
    for variant in list_variants(read_chosen("obvious", []), ("texture",)):
        changed = vars(change_options(Options(), variant))
        kept = {n: changed[n] for n, value in vars(Options()).items() if n != "views" and changed[n] != value}
        num[variant.name] = sum(p.numel() for p in make_model(dataclasses.replace(RECIPE, **kept)).parameters())
    assert set(num) == {"full", *GROUPS["obvious"]}
    assert num["max"] == num["late"] == num["linear"] < num["concat"]
    assert num["margin"] == num["full"] - 32 * 33 + 1  # no h, but α
    assert num["mit"] > 2 * num["late"]


def test_the_obvious_networks(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table tells what each costs, and whether its difference is chance."""
    cache, out = tiny_cache(scans_per_class=1), tmp_path / "out"
    options = ["--tune", "full", "--modalities", "texture"]
    command = ablate(cache, out, "--variants", "zero-shot,frontal,linear,max", "--discard-weights", *options)
    assert call(*command) == 0
    printed = capsys.readouterr().out
    rows = read_rows(out)
    assert set(rows) == {"full", "zero-shot", "frontal", "linear", "max"}
    num = {name: int(row["num_parameters"]) for name, row in rows.items()}
    assert num["frontal"] == num["linear"] == num["max"] < num["full"]
    assert rows["zero-shot"]["memory_bytes"] == ""
    assert int(rows["linear"]["memory_bytes"]) > 1e6
    assert all(float(row["seconds"]) >= 0 and float(row["cpu_seconds"]) >= 0 for row in rows.values())
    assert rows["full"]["accuracy_p"] == ""

    words = shlex.split(printed.splitlines()[-1], comments=True)[4:]
    assert call(*words, "--out", tmp_path / "compared") == 0  # its numbers are compare's
    with (tmp_path / "compared" / "compare.csv").open(newline="") as file:
        compared = [row for row in csv.DictReader(file) if row["p"]]
    assert len(compared) == 3 * (len(rows) - 1)
    wanted = sorted((row["score"], row["p"], row["p_holm"]) for row in compared)
    scores = ("accuracy", "uar", "macro_f1")
    found = [(s, row[f"{s}_p"], row[f"{s}_p_holm"]) for s in scores for n, row in rows.items() if n != "full"]
    assert sorted(found) == wanted
    latex = (out / "ablation.tex").read_text()
    assert "Holm" in latex and "FEW SUBJECTS" in latex and "Max over views & " in latex


def test_seeds_share_their_folds_and_may_be_added(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out = tiny_cache(), tmp_path / "out"
    command = ablate(cache, out, "--variants", "no-mtgf", "--seed", 5, "--discard-weights")
    assert call(*command) == 0
    assert call(*command, "--seeds", 2) == 0
    printed = capsys.readouterr().out
    assert printed.count("finished already") == 2
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"full", "no-mtgf", "full-seed6", "no-mtgf-seed6"}
    for name, seed in (("full", 5), ("full-seed6", 6), ("no-mtgf-seed6", 6)):
        assert read_recipe(out / name / "fold-01")["seed"] == seed
        split = (out / name / "fold-01" / "split.json").read_bytes()
        assert split == (out / "full" / "fold-01" / "split.json").read_bytes()
    row = read_rows(out)["no-mtgf"]
    assert row["seeds"] == "5 6" and row["accuracy_std"] != ""
    assert next_commands(printed.splitlines()[-1]) == ["train compare"]
    words = shlex.split(printed.splitlines()[-1], comments=True)[4:]
    assert words[1:5] == [str(out / name) for name in ("full", "full-seed6", "no-mtgf", "no-mtgf-seed6")]
    assert call(*words) == 0  # what is advised can be done
    assert call(*command, "--seeds", 2) == 0  # and does not stand in the way
    assert "different: --lambda-vt" in fails(capsys, *command, "--lambda-vt", 0.25)  # another ablation


def test_a_stopped_ablation_goes_on_bit_for_bit(
    tiny_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out, whole = tiny_cache(num_subjects=3), tmp_path / "out", tmp_path / "whole"
    options = ["--variants", "no-cvsa", "--epochs", 3, "--embeddings", tmp_path / "embeddings"]

    def stop(*arguments: Any, **options: Any) -> StepResult:
        if (out / "no-cvsa").is_dir():  # in the second run
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("train.training.loop.train_step", stop)
        assert call(*ablate(cache, out, *options)) == 0
    assert "the same command goes on" in capsys.readouterr().err
    assert (out / "full" / "report.json").is_file()
    assert (out / "no-cvsa" / "fold-00" / CHECKPOINT).is_file()
    assert not (out / "ablation.csv").exists()
    finished = (out / "full" / "fold-00" / "model.safetensors").stat().st_mtime_ns
    for folder in (out, whole):
        assert call(*ablate(cache, folder, *options)) == 0
    assert (out / "full" / "fold-00" / "model.safetensors").stat().st_mtime_ns == finished
    for name in ("full", "no-cvsa"):
        assert_same_folds(out / name, whole / name)
    assert (out / "folds.json").read_bytes() == (whole / "folds.json").read_bytes()
    measured = {"seconds", "cpu_seconds", "memory_bytes"}
    rows, wanted = read_rows(out), read_rows(whole)
    for name, row in wanted.items():
        assert measured <= set(row)
        assert {k: v for k, v in rows[name].items() if k not in measured} == {
            k: v for k, v in row.items() if k not in measured
        }


def test_what_cannot_be_meant_is_one_line(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out = tiny_cache(), tmp_path / "out"

    def refused(*options: object) -> str:
        return fails(capsys, *ablate(cache, out, *options))

    assert "'no-clip' not among full, no-cvsa, no-mtgf" in refused("--variants", "no-clip,no-cvsa")
    assert "nothing to compare the full model with" in refused("--variants", "full")
    message = refused("--fusion", "mean", "--variants", "no-cvsa")
    assert "no-cvsa (--fusion mean) is left out: the settings are those of full" in message
    late = ["--fusion", "late", "--head", "linear", "--mtgf-tokens", "views", "--lambda-con", 0, "--lambda-vt", 0]
    message = refused(*late, "--variants", "mit")  # towers that are not trained stay alike
    assert "mit (" in message and "is left out: the settings are those of full" in message
    assert "expected NAME='OPTIONS'" in refused("--variant", "slow")
    assert "--variant no-mtgf: is the name of another" in refused("--variant", "no-mtgf=--lr 1")
    assert "--variant Slow: is the name of another" in refused("--variant", "slow=--lr 1", "--variant", "Slow=--lr 2")
    for name in ("../out", "a b", "", "full-seed3", "only-me"):
        assert "expected a name of letters" in refused("--variant", f"{name}=--lr 1e-4")
    assert "--variant x: argument --fusion: invalid choice: 'sum'" in refused("--variant", "x=--fusion sum")
    assert "--variant x: --seed is the same for all variants" in refused("--variant", "x=--seed 3")
    assert "--variant x: --jobs is no option that changes a model" in refused("--variant", "x=--jobs 3")
    assert "--variant x: --lr 'open: No closing quotation" in refused("--variant", "x=--lr 'open")
    assert "--variant x: --epochs: expected 0" in refused("--variant", "x=--epochs -1")
    assert "--variant obvious: is the name of another" in refused("--variant", "obvious=--lr 1")
    assert "variant x (--modalities depth): --modalities" in refused("--variant", "x=--modalities depth")
    assert "--fold 2: there is no such fold" in refused("--fold", 2)
    assert "--test-subjects: is for one training" in refused("--test-subjects", "S1")
    assert not out.exists()  # nothing was begun
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "is not empty and holds no ablation (no ablation.json)" in refused()
    (out / "thesis.txt").rename(out / "crossval.json")
    assert "is a cross-validation" in refused()


def test_help_tells_every_variant_and_its_examples_can_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["ablate", "--help"])
    text = capsys.readouterr().out
    for name, one in (PARTS | OBVIOUS).items():
        assert all(part in text for part in (name, one.options, one.about))
    examples = [line for line in text.splitlines() if line.startswith("  python -m train ablate")]
    assert len(examples) == 5
    for line in examples:
        build_parser().parse_args(shlex.split(line)[3:])


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_table_gives_means_and_paired_differences(seeds: Sequence[int]) -> None:
    variants = [Variant("full"), Variant("no-cvsa", "--fusion mean"), Variant("half_done", "--lr 1")]
    about = about_with(licence="no & all", num_folds=2)
    results = {
        (v.name, seed): random_folds(10 * n + seed, [30, 40])[0] for n, v in enumerate(variants) for seed in seeds
    }
    results["half_done", 0] = results["half_done", 0][:1]
    ablation = summarise_ablation(variants, results, about)

    def accuracy(name: str, seed: int) -> float:
        confusion = np.sum([result.metrics.counts["confusion"] for result in results[name, seed]], axis=0)
        return float(np.trace(confusion) / confusion.sum())

    full, other, half = ablation.rows
    values = np.array([[accuracy(v.name, seed) for seed in seeds] for v in variants])
    assert full.scores["accuracy"].mean == pytest.approx(values[0].mean())
    assert full.differences["accuracy"].num == 0
    assert other.differences["accuracy"].mean == pytest.approx((values[1] - values[0]).mean())
    assert half.differences["accuracy"].num == len(seeds) - 1  # where both have the same folds
    if len(seeds) > 1:
        assert other.scores["accuracy"].std == pytest.approx(values[1].std(ddof=1))
        assert other.differences["accuracy"].std == pytest.approx((values[1] - values[0]).std(ddof=1))
    else:
        assert other.differences["accuracy"].std is None
    text, latex = format_ablation(ablation), format_ablation_latex(ablation, about)
    assert f"{100 * values[0].mean():.1f}" in text and f"{100 * (values[1] - values[0]).mean():+.1f}" in latex
    assert "PARTIAL: 1 of 2 folds are finished (half_done, seed 0)" in text
    assert r"half\_done &" in latex and latex.count("&") == 4 * 4 + 1  # four rows; the licence in a comment
    assert len(list(csv.reader(list_rows(ablation).format_csv().splitlines()))) == 4
    assert "One seed" in text if len(seeds) == 1 else "over 3 seeds" in text


def test_across_data_sets(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where all of another data set is tested there are no folds to deal, and none that a seed could change."""
    ours = tiny_cache(dataset="ours", num_subjects=2, scans_per_class=1)
    theirs = tiny_cache(name="theirs", dataset="theirs", num_subjects=2, scans_per_class=1, seed=5)
    command = ["ablate", "--train-cache", ours, "--test-cache", theirs, "--out", tmp_path / "out", *FAST[2:]]
    command += ["--variants", "no-mtgf", "--seeds", 2]
    assert call(*command) == 0
    assert read_rows(tmp_path / "out")["no-mtgf"]["seeds"] == "0 1"
    capsys.readouterr()
    assert call(*command) == 0
    assert capsys.readouterr().out.count("finished already") == 4
