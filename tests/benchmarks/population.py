"""The whole model against the obvious network, on a population of faces that nobody here drew.

    .venv/bin/python tests/benchmarks/population.py POPULATION --seeds 100,101,102,103,104 --out DIR     (about an hour)

POPULATION is a folder with write_faces.py, a writer of BU-3DFE's layout. For each seed it writes 24 people and renders three
views of 112 px. Each variant is trained on three quarters of the people and tested on the rest, another quarter for each seed.
Prints accuracy with its 95 % interval over test people (bootstrap), and the difference to the first variant with the p of a
sign-flip test paired by person, Holm-corrected. An interrupted run continues. Exit code 0.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import numpy as np

PYTHON = sys.executable
LINEAR = ["--fusion", "mean", "--head", "linear", "--lambda-con", "0", "--lambda-vt", "0"]
# Name → weights of the tower, options of fit, and whether only three people are trained on.
VARIANTS: dict[str, tuple[str, list[str], bool]] = {
    "whole, synthetic-1, 10 epochs": ("synthetic-1", ["--epochs", "10"], False),
    "linear, synthetic-1, 10 epochs": ("synthetic-1", ["--epochs", "10", *LINEAR], False),
    "linear, random weights, 30 epochs": ("none", ["--epochs", "30", *LINEAR], False),
    "three people: whole, synthetic-1": ("synthetic-1", ["--epochs", "30"], True),
    "three people: linear, random weights": ("none", ["--epochs", "30", *LINEAR], True),
}
NUM_RESAMPLES, NUM_FLIPS = 10_000, 20_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("population", type=Path)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--modalities", default="normal,texture")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    for modality in chosen.modalities.split(","):
        found: dict[str, dict[tuple[int, str], float]] = {name: {} for name in ("zero-shot", *VARIANTS)}
        for number, seed in enumerate(seeds):
            cache = make_cache(chosen.population, chosen.out / f"cache-{seed}", seed)
            people = sorted({row["subject"] for row in csv.DictReader((cache / "samples.csv").open())})
            tested = people[number % 4 :: 4]
            run = chosen.out / f"{modality}-{seed}-zero-shot"
            words = ["predict", "--zero-shot", "--cache", cache, "--prompts", prompts(chosen.out, "synthetic-1")]
            classes = ["--classes", "anger,disgust,fear,happiness,sadness,surprise"]
            train(run / "metrics.json", [*words, *classes, "--modalities", modality, "--out", run])
            found["zero-shot"] |= {(seed, person): score for person, score in read_scores(run).items()}
            for name, (weights, options, few) in VARIANTS.items():
                run = chosen.out / f"{modality}-{seed}-{name.replace(', ', '-').replace(': ', '-').replace(' ', '-')}"
                folds = write_fold(chosen.out / f"fold-{seed}-{few}.json", people, tested, few=few)
                words = ["fit", "--cache", cache, "--prompts", prompts(chosen.out, weights), "--protocol", folds]
                train(run / "metrics.json", [*words, "--modalities", modality, *options, "--out", run])
                found[name] |= {(seed, person): score for person, score in read_scores(run).items()}
        print_table(f"{modality}, seeds {chosen.seeds}", found)
    return 0


def make_cache(population: Path, cache: Path, seed: int) -> Path:
    scans = cache.with_name(f"scans-{seed}")
    if not (cache / "cache.json").is_file():
        words = ["--layout", "bu3dfe", "--subjects", "24", "--seed", str(seed), "--out", str(scans)]
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


def write_fold(path: Path, people: list[str], tested: list[str], *, few: bool) -> Path:
    import json

    trained = [person for person in people if person not in tested]
    if few:
        trained = sorted(np.random.default_rng(0).permutation(trained)[:3].tolist())
    fold = {"name": "fold-00", "train_subjects": trained, "test_subjects": tested}
    classes = ["anger", "disgust", "fear", "happiness", "sadness", "surprise"]
    path.write_text(json.dumps({"classes": classes, "dataset": "bu3dfe", "folds": [fold]}))
    return path


def train(result: Path, words: list[object]) -> None:
    if not result.is_file():
        subprocess.run([PYTHON, "-m", "train", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def read_scores(run: Path) -> dict[str, float]:
    """Return each test person's accuracy over the labelled samples."""
    right: dict[str, list[bool]] = {}
    with (run / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["label"] and f"p_{row['label']}" in row:
                right.setdefault(row["subject"], []).append(row["label"] == row["predicted"])
    return {person: float(np.mean(values)) for person, values in right.items()}


def print_table(title: str, found: dict[str, dict[tuple[int, str], float]]) -> None:
    """Print accuracy in %, and the difference to the whole model that was trained on as many people."""
    rng = np.random.default_rng(0)
    print(f"\n{title}\n\n| variant | accuracy, % (95 %) | people | minus whole | p, Holm |\n|---|---|---|---|---|")
    differences: dict[str, np.ndarray] = {}
    for name in VARIANTS:
        whole = next(first for first in VARIANTS if VARIANTS[first][2] == VARIANTS[name][2])
        if name != whole:
            differences[name] = np.array([value - found[whole][key] for key, value in found[name].items()])
    ps = {name: sign_flip_p(pairs, rng) for name, pairs in differences.items()}
    holm, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(ps.items(), key=lambda pair: pair[1])):
        largest = max(largest, p * (len(ps) - rank))
        holm[name] = min(largest, 1.0)
    for name, scores in found.items():
        values = np.array(list(scores.values()))
        resampled = values[rng.integers(len(values), size=(NUM_RESAMPLES, len(values)))].mean(1)
        low, high = np.percentile(resampled, [2.5, 97.5])
        text = f"{100 * values.mean():.1f} ({100 * low:.1f} to {100 * high:.1f}) | {len(values)}"
        more = f"{100 * differences[name].mean():+.1f} | {holm[name]:.4f}" if name in holm else " | "
        print(f"| {name} | {text} | {more} |")


def sign_flip_p(pairs: np.ndarray, rng: np.random.Generator) -> float:
    flips = rng.choice([-1, 1], (NUM_FLIPS, len(pairs)))
    return float((1 + (np.abs((flips * pairs).mean(1)) >= abs(pairs.mean()) - 1e-12).sum()) / (1 + NUM_FLIPS))


if __name__ == "__main__":
    sys.exit(main())
