"""`python -m train predict`: a probability per class for every sample of a cache."""

from __future__ import annotations

import sys
from pathlib import Path

from shared.command_line import print_next
from shared.errors import FacetError, count
from shared.runs import record_hashes
from shared.store.storage import check_writable
from train.data.items import check_neutral, describe_stabilising
from train.inference.explain import EXPLANATIONS_H5
from train.inference.predictor import Predictor, choose_usable
from train.protocols.folds import read_split
from train.protocols.trained_subjects import find_seen


def predict(
    run: Path,
    cache_path: Path,
    out: Path | None,
    *,
    device: str,
    explained: str | None = None,
    form: str = "png",
    centre: str | None = None,
) -> int:
    """Write a probability per class for every usable scan or sequence of a cache, labelled or not.

    Args:
        explained: samples to explain, as in `choose_samples`; None: none. form: of their pictures.
        centre: none, neutral, subject or all, see `centre_logits`; None: as the run was tested.
    Raises:
        FacetError, CacheError: no finished run; a cache with other view settings; no usable sample.
    """
    if out is not None and out.is_dir():
        raise FacetError(f"--out {out}: is a folder; give the name of a CSV file")
    predictor = Predictor.load(run, device)
    if centre is not None:
        predictor = predictor.centre(centre)
    inference = predictor.open(cache_path)
    cache, recipe = inference.cache, predictor.config.recipe
    if centre is not None:
        check_neutral(cache, recipe, inference.neutral)
    notes = choose_usable(cache, recipe.modalities)[1]
    notes += describe_stabilising(cache, predictor.config.render, whose=str(run))
    subjects = {sample.subject for sample in cache.samples if sample.valid}
    seen = find_seen(predictor.config, read_split(run), cache, subjects)
    notes += seen.describe_people()
    if seen.subjects:
        notes.append(
            f"{len(seen.subjects)} of the {len(subjects)} subjects were in training; their predictions are no test of the model"
            + f"; {seen.doubt}" * bool(seen.doubt)
        )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    path, beside = out or run / f"predictions-{cache.name}.csv", run / f"attention-{cache.name}.safetensors"
    check_writable(path)
    predictions = inference.predict(None if out else beside)
    inference.write(path, predictions, like=cache.path if out else run)
    if out is None:
        record_hashes(run, (path.name, beside.name))
    print(f"{len(predictions.rows)} predictions among {', '.join(recipe.classes)}: {path}")
    for line in inference.limits:
        print(line)
    if explained is not None:
        folder = run / f"explained-{cache.name}" if out is None else out.with_name(f"{out.stem}-explained")
        explanations = inference.explain(predictions, explained)
        explanations.write(folder, form)
        print(f"{count(len(explanations.samples), 'sample')} explained: {folder}/*.{form}, {folder / EXPLANATIONS_H5}")
        print(cache.info.licence)
    return 0


def print_next_predict(run: Path, cache_path: Path | str) -> None:
    about = "a probability per class for every scan, of any cache with these views"
    print_next("train", "predict", run, "--cache", cache_path, about=about)
