"""The protocols of every data set, run in full on synthetic copies: the table of results and the time of a fold.

.venv/bin/python tests/benchmarks/protocols.py --out data_cache/protocols [--only bu4dfe,cross …]   (about 2 hours on 2 cores)
Every step resumes: run it again after an interruption. Synthetic faces say whether a path works, not how well it does
on people.
Exit code 0 when each result is above what guessing gives, else 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZE_PX = 96
MODEL = ("--model", "facet-tiny", "--pretrained", "none")


@dataclass(frozen=True)
class Copy:
    """A synthetic copy of a data set."""

    subjects: int
    frames: int | None = None


@dataclass(frozen=True)
class Study:
    """One protocol on one copy, or from one to another."""

    name: str
    caches: tuple[str, ...]
    options: tuple[str, ...]


COPIES = {
    "bu3dfe": Copy(60),  # rule P1 draws 60
    "bosphorus": Copy(20),
    "bu4dfe": Copy(20, frames=16),
    "bp4d": Copy(20, frames=16),
    "4dme": Copy(24),
}
COMMON = ("--modalities", "normal", "--batch-size", "8", "--discard-weights")
AT_REST = ("--reference", "onset", "--frame-sampling", "apex", "--frame-window", "5", "--frames", "2")
MICRO = (
    "--reference",
    "onset",
    "--frame-sampling",
    "apex",
    "--frame-window",
    "1",
    "--frames",
    "1",
    "--augment",
    "none",
)
STUDIES = (
    Study("bu4dfe", ("bu4dfe",), ("--protocol", "bu4dfe", "--epochs", "15", *AT_REST)),
    Study("bp4d", ("bp4d",), ("--protocol", "bp4d", "--epochs", "12", *AT_REST)),
    Study(
        "bp4d-au",
        ("bp4d",),
        (
            "--protocol",
            "bp4d-au",
            "--epochs",
            "4",
            "--frame-stride",
            "2",
            "--reference",
            "onset",
            "--class-weights",
            "balanced",
        ),
    ),
    Study("bu4dfe-bp4d", ("bu4dfe", "bp4d"), ("--protocol", "bu4dfe-bp4d", "--epochs", "15", *AT_REST)),
    Study("bu4dfe-bp4d-all", ("bu4dfe", "bp4d"), ("--protocol", "bu4dfe-bp4d-all", "--epochs", "15", *AT_REST)),
    Study("bosphorus", ("bosphorus",), ("--protocol", "bosphorus", "--epochs", "40")),
    Study("4dme", ("4dme",), ("--protocol", "4dme", "--epochs", "20", *MICRO)),
    Study("4dme-dynamic", ("4dme-dynamic",), ("--protocol", "4dme", "--epochs", "30", "--augment", "none")),
    Study(
        "4dme-multilabel",
        ("4dme-dynamic",),
        ("--protocol", "4dme-multilabel", "--epochs", "20", "--augment", "none", "--class-weights", "balanced"),
    ),
    Study("bu3dfe-subset1", ("bu3dfe",), ("--protocol", "bu3dfe-subset1", "--epochs", "6")),
    Study("bu3dfe-subset2", ("bu3dfe",), ("--protocol", "bu3dfe-subset2", "--epochs", "3")),
    Study("bu3dfe-p1", ("bu3dfe",), ("--protocol", "bu3dfe-p1", "--rounds", "1", "--epochs", "5")),
    Study("bu3dfe-p2", ("bu3dfe",), ("--protocol", "bu3dfe-p2", "--rounds", "1", "--epochs", "5")),
    Study("bu4dfe-dynamic", ("bu4dfe-dynamic",), ("--protocol", "bu4dfe", "--epochs", "30", "--augment", "none")),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "data_cache" / "protocols")
    parser.add_argument("--only", help="names of studies, comma-separated (default: all)")
    chosen = parser.parse_args()
    out: Path = chosen.out.resolve()
    wanted = chosen.only.split(",") if chosen.only else [study.name for study in STUDIES]
    if unknown := set(wanted) - {study.name for study in STUDIES}:
        parser.error(f"--only: no study {', '.join(sorted(unknown))} among {', '.join(s.name for s in STUDIES)}")
    studies = [study for study in STUDIES if study.name in wanted]
    for cache in dict.fromkeys(cache for study in studies for cache in study.caches):
        make_cache(out, cache)
    rows = []
    good = True
    for study in studies:
        report = run_study(out, study)
        row, above = describe(study, report)
        good &= above
        rows.append(row)
        print(row, flush=True)
    print("\n| protocol | tests | folds | accuracy, mean ± std | pooled | UAR | UF1 | guessing | s a fold |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    return 0 if good else 1


def make_cache(out: Path, name: str) -> None:
    dataset, _, dynamic = name.partition("-")
    copy = COPIES[dataset]
    cache = out / "caches" / name
    if dynamic:
        make_cache(out, dataset)
        call("preprocess", "dynamic", "--cache", out / "caches" / dataset, "--out", cache)
        return
    frames = ["--frames", copy.frames] if copy.frames else []
    scans = out / "scans" / dataset
    call("preprocess", "synth", dataset, "--out", scans, "--subjects", copy.subjects, *frames)
    call("preprocess", "build", dataset, "--root", scans, "--cache", cache, "--size", SIZE_PX)
    if not (cache / "text" / "facet-tiny.h5").is_file():
        call("preprocess", "prompts", "--cache", cache, *MODEL)


def run_study(out: Path, study: Study) -> dict[str, dict[str, object]]:
    paths = [out / "caches" / cache for cache in study.caches]
    caches = ["--cache", *paths] if len(paths) == 1 else ["--train-cache", paths[0], "--test-cache", paths[1]]
    run = out / "runs" / study.name
    call("train", "crossval", *caches, "--out", run, *COMMON, *study.options)
    report: dict[str, dict[str, object]] = json.loads((run / "report.json").read_text())
    return report


def call(module: str, *arguments: object) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print("$ python", *command[1:], flush=True)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def describe(study: Study, report: dict[str, dict[str, object]]) -> tuple[str, bool]:
    """A row of the table, and whether the result is above what guessing gives."""
    summary = report["summary"]
    pooled, over_folds = summary["pooled"], summary["over_folds"]
    assert isinstance(pooled, dict) and isinstance(over_folds, dict)
    multilabel = summary["task"] != "classes"
    score = "macro_f1" if multilabel else "accuracy"
    spread = over_folds[score]
    deviation = "–" if spread["std"] is None else f"{100 * spread['std']:.1f}"
    if multilabel:
        guess = pooled["always_yes"]
        guessing = f"UF1 {100 * guess:.1f} (always yes)"
        accuracy = "–"
    else:
        guess = pooled["majority"]
        guessing = f"{100 * guess:.1f} (most frequent)"
        accuracy = f"{100 * pooled['accuracy']:.1f}"
    seconds = summary["seconds"]
    assert isinstance(seconds, dict)
    uar = "–" if pooled["uar"] is None else f"{100 * pooled['uar']:.1f}"
    cells = (
        study.name,
        f"{pooled['num_samples']:,} {report['about']['unit']}s",
        summary["num_folds"],
        f"{100 * spread['mean']:.1f} ± {deviation}" + (" (UF1)" if multilabel else ""),
        accuracy,
        uar,
        f"{100 * pooled['macro_f1']:.1f}",
        guessing,
        f"{seconds['mean']:.0f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |", pooled[score] > guess


if __name__ == "__main__":
    sys.exit(main())
