"""The whole model against the obvious network and against itself without each part, on faces that nobody here drew.

    .venv/bin/python tests/benchmarks/population.py POPULATION --seeds 110,111,112 --modalities normal --out DIR

POPULATION is a folder with write_faces.py, a writer of BU-3DFE's layout. For each seed it writes --subjects people, renders
three views of 112 px and cross-validates each variant over --folds folds, so that each person is tested once. Prints accuracy
with its 95 % interval over people (bootstrap), and the difference to the first variant with the p of a sign-flip test paired
by person, Holm-corrected over the table; for each way of --centre-scores, from the same predictions. An interrupted run
continues. Exit code 0.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from train.inference.centre import centre_logits

PYTHON = sys.executable
CLASSES = "anger,disgust,fear,happiness,sadness,surprise"
LINEAR = "--fusion mean --head linear --lambda-con 0 --lambda-vt 0"
RANDOM = "random"  # a variant that starts from random weights ends so
# Name → options of fit that are added; the variants of `train ablate` of these names.
VARIANTS = {
    "whole": "",
    "linear": LINEAR,
    "no-cvsa": "--fusion mean",
    "no-mtgf": "--head cosine --mtgf-tokens views",
    "no-consistency": "--lambda-con 0",
    "no-view-text": "--lambda-vt 0",
    "plain-clip": "--fusion mean --head cosine --mtgf-tokens views --lambda-con 0 --lambda-vt 0",
    "shuffled labels": "--shuffle-labels",
    f"whole, {RANDOM}": "",
    f"linear, {RANDOM}": LINEAR,
}
NUM_RESAMPLES, NUM_FLIPS = 10_000, 20_000
CENTRINGS = ("none", "neutral", "subject")
Scores = dict[tuple[int, str], float]  # (seed, person) → accuracy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("population", type=Path)
    parser.add_argument("--seeds", default="0,1,2,3,4", help="one population each")
    parser.add_argument("--subjects", type=int, default=24, help="people of each (default 24)")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--people", type=int, default=0, help="train each fold on so many people only (default: all)")
    parser.add_argument("--modalities", default="normal")
    parser.add_argument(
        "--variants", default=";".join(VARIANTS), help=f"separated by ; (default: {';'.join(VARIANTS)})"
    )
    parser.add_argument("--tower", default="synthetic-2", help="pretrained facet-tiny (default synthetic-2)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--random-epochs", type=int, default=30, help="epochs from random weights (default 30)")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    names = chosen.variants.split(";")
    # --centre-scores → variant → scores
    found: dict[str, dict[str, Scores]] = {by: {name: {} for name in ("zero-shot", *names)} for by in CENTRINGS}
    for seed in map(int, chosen.seeds.split(",")):
        cache = make_cache(chosen.population, chosen.out / f"cache-{seed}-{chosen.subjects}", seed, chosen.subjects)
        people = sorted({row["subject"] for row in csv.DictReader((cache / "samples.csv").open())})
        folds = write_folds(chosen.out / f"folds-{seed}-{chosen.subjects}-{chosen.people}.json", people, chosen, seed)
        runs = chosen.out / f"{chosen.modalities}-{seed}-{chosen.subjects}-{chosen.people}-{chosen.tower}"
        common: list[object] = ["--cache", cache, "--modalities", chosen.modalities]
        words = ["--prompts", prompts(chosen.out, chosen.tower), "--classes", CLASSES, "--centre-scores", "none"]
        call(runs / "zero-shot", ["predict", "--zero-shot", *common, *words])
        add_scores(found, "zero-shot", runs / "zero-shot" / "predictions.csv", seed, people)
        for name in names:
            random = name.endswith(RANDOM)
            weights, epochs = ("none", chosen.random_epochs) if random else (chosen.tower, chosen.epochs)
            words = ["--prompts", prompts(chosen.out, weights), "--epochs", epochs, *VARIANTS[name].split()]
            for fold in range(chosen.folds):
                split = ["--protocol", folds, "--fold", fold]
                trained = runs / f"{name}-{fold}"
                call(trained, ["fit", *common, *split, *words])
                table = trained / "all.csv"
                if not table.is_file():
                    again = ["predict", trained, "--cache", cache, "--centre-scores", "none", "--out", table]
                    subprocess.run([PYTHON, "-m", "train", *map(str, again)], check=True, stdout=subprocess.DEVNULL)
                tested = json.loads(folds.read_text())["folds"][fold]["test_subjects"]
                add_scores(found, name, table, seed, tested)
    print(
        f"{chosen.modalities}, seeds {chosen.seeds}, {chosen.subjects} people each, trained on {chosen.people or 'all'}"
    )
    for by in CENTRINGS:
        print(f"\n--centre-scores {by}\n")
        print_table(found[by], names[0])
    return 0


def make_cache(population: Path, cache: Path, seed: int, num_subjects: int) -> Path:
    scans = cache.with_name(f"scans-{seed}-{num_subjects}")
    if not (cache / "cache.json").is_file():
        words = ["--layout", "bu3dfe", "--subjects", str(num_subjects), "--seed", str(seed), "--out", str(scans)]
        subprocess.run([PYTHON, str(population / "write_faces.py"), *words], check=True, stdout=subprocess.DEVNULL)
        build = ["-m", "preprocess", "build", "bu3dfe", "--root", scans, "--cache", cache, "--size", "112"]
        subprocess.run([PYTHON, *map(str, build)], check=True, stdout=subprocess.DEVNULL)
    return cache


def prompts(out: Path, weights: str) -> Path:
    path = out / f"{weights}.h5"
    if not path.is_file():
        words = ["prompts", "--out", str(path), "--model", "facet-tiny", "--pretrained", weights]
        subprocess.run([PYTHON, "-m", "preprocess", *words], check=True, stdout=subprocess.DEVNULL)
    return path


def write_folds(path: Path, people: list[str], chosen: argparse.Namespace, seed: int) -> Path:
    """Deal the people to folds at random, with `seed`; `--people` of the others train."""
    rng = np.random.default_rng(seed)
    dealt = rng.permutation(people).tolist()
    folds = []
    for fold in range(chosen.folds):
        tested = dealt[fold :: chosen.folds]
        trained = rng.permutation([person for person in dealt if person not in tested]).tolist()
        trained = sorted(trained[: chosen.people or None])
        folds.append({"name": f"fold-{fold:02d}", "train_subjects": trained, "test_subjects": sorted(tested)})
    facts = {"format": "facet folds 1", "protocol": "kfold", "dataset": "bu3dfe", "seed": seed}
    path.write_text(json.dumps({**facts, "classes": CLASSES.split(","), "folds": folds}))
    return path


def call(out: Path, words: list[object]) -> None:
    """Train or predict, unless that is done."""
    if not (out / "metrics.json").is_file():
        subprocess.run(
            [PYTHON, "-m", "train", *map(str, words), "--out", str(out)], check=True, stdout=subprocess.DEVNULL
        )


def add_scores(found: dict[str, dict[str, Scores]], name: str, table: Path, seed: int, people: Sequence[str]) -> None:
    """Add the accuracy of each of these people over the labelled samples, from predictions of uncentred scores."""
    classes = CLASSES.split(",")
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["subject"] in people]
    logits = np.log([[float(row[f"p_{one}"]) + 1e-12 for one in classes] for row in rows])
    at_rest = {row["subject"]: scores for row, scores in zip(rows, logits, strict=True) if row["label"] == "neutral"}
    known = np.array([row["label"] in classes for row in rows])
    labels = np.array([row["label"] for row in rows])[known]
    subjects = np.array([row["subject"] for row in rows])[known]
    own = np.array([at_rest[subject] for subject in subjects])
    for by in CENTRINGS:
        predicted = np.array(classes)[centre_logits(logits[known], subjects.tolist(), by, own).argmax(1)]
        for person in people:
            right = (predicted == labels)[subjects == person]
            found[by][name][seed, person] = float(right.mean())


def print_table(found: dict[str, Scores], first: str) -> None:
    rng = np.random.default_rng(0)
    print(f"| variant | accuracy, % (95 %) | people | minus {first} (95 %) | p, Holm |\n|---|---|---|---|---|")
    differences = {
        name: np.array([value - found[first][key] for key, value in scores.items() if key in found[first]])
        for name, scores in found.items()
        if name != first
    }
    ps = {name: sign_flip_p(pairs, rng) for name, pairs in differences.items()}
    holm, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(ps.items(), key=lambda pair: pair[1])):
        largest = max(largest, p * (len(ps) - rank))
        holm[name] = min(largest, 1.0)
    for name, scores in found.items():
        values = np.array(list(scores.values()))
        difference = f"{interval(differences[name], rng, '+')} | {holm[name]:.4f}" if name in holm else " | "
        print(f"| {name} | {interval(values, rng)} | {len(values)} | {difference} |")


def interval(values: np.ndarray, rng: np.random.Generator, sign: str = "") -> str:
    resampled = values[rng.integers(len(values), size=(NUM_RESAMPLES, len(values)))].mean(1)
    low, high = 100 * np.percentile(resampled, [2.5, 97.5])
    return f"{100 * values.mean():{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def sign_flip_p(pairs: np.ndarray, rng: np.random.Generator) -> float:
    flips = rng.choice([-1, 1], (NUM_FLIPS, len(pairs)))
    return float((1 + (np.abs((flips * pairs).mean(1)) >= abs(pairs.mean()) - 1e-12).sum()) / (1 + NUM_FLIPS))


if __name__ == "__main__":
    sys.exit(main())
