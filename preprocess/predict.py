"""Predict scans with a trained model: read, align and render them as its training images, predict, explain in a picture.

The only module of stage 1 that calls stage 2, through `train.inference.predictor.Predictor`, imported when the command runs.
The images pass between both as they always do: as a cache, here a private temporary one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from preprocess.build.build import build_cache, is_synthetic
from preprocess.datasets.folder import FOLDER, FileNames, build_record
from preprocess.datasets.manifest import check_rows
from preprocess.datasets.scan import Listing, ScanRecord
from shared.cache import FAILURES_CSV, Cache, Failure
from shared.csv_tables import read_table
from shared.errors import FacetError
from shared.figures import FORMS
from shared.labels import NEUTRAL
from shared.processors import num_cores
from shared.runs import Prediction, Predictions
from shared.schema import SHARD_ROWS, RenderSettings, Sample
from shared.store.storage import check_writable, write_file

if TYPE_CHECKING:
    from preprocess.datasets.scan import DatasetReader

NUM_NAMED = 3  # classes in the line of a scan


@dataclasses.dataclass(frozen=True)
class ScanFiles:
    """The files of the scans to predict, and how to read them.

    textures, landmarks: none, or one for each scan. columns: of a manifest, the same for all scans: units, up, facing …
    neutral: the same person's neutral scan. is_sequence: the scans are frames of one sequence, in this order.
    """

    scans: Sequence[Path]
    textures: Sequence[Path] = ()
    landmarks: Sequence[Path] = ()
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    neutral: Path | None = None
    is_sequence: bool = False

    def __post_init__(self) -> None:
        for option, files in (("--texture", self.textures), ("--landmarks", self.landmarks)):
            if files and len(files) != len(self.scans):
                raise FacetError(
                    f"{option}: {len(files)} files for {len(self.scans)} scans; give one for each, in their order"
                )
        for path in self._files:
            if not path.is_file():
                raise FacetError(f"{path}: {'is a folder; name its meshes' if path.is_dir() else 'no such file'}")
        if twice := [path for path in self._paths if self._paths.count(path) > 1]:
            raise FacetError(f"{twice[0]}: is given twice")

    @property
    def _paths(self) -> list[Path]:
        return [*self.scans, *([self.neutral] if self.neutral else [])]

    @property
    def _files(self) -> list[Path]:
        return [*self._paths, *self.textures, *self.landmarks]

    @functools.cached_property
    def root(self) -> Path:
        """Return a folder above all files: the nearest one that declares its faces synthetic, else the nearest."""
        folders = [path.absolute().parent for path in self._files]
        above = [f for f in (folders[0], *folders[0].parents) if all(path.is_relative_to(f) for path in folders)]
        return next((folder for folder in above if is_synthetic(folder)), above[0])

    def dataset(self) -> DatasetReader:
        """Return the scans as a data set of their own, whose sample names are the paths as they were typed.

        Raises:
            FacetError: a value that a column cannot have.
        """
        is_one_person = self.is_sequence or self.neutral is not None
        sequence = (self.scans[0].absolute().parent.name or "sequence") if self.is_sequence else ""
        header = ["path", "sample_id", "subject", "label", "sequence", "texture", "landmarks"]
        rows = []
        for index, path in enumerate(self._paths):
            is_neutral = index == len(self.scans)
            named = (
                path,
                *(files[index] if files and not is_neutral else "" for files in (self.textures, self.landmarks)),
            )
            file, texture, landmarks = (str(Path(one).absolute()) if one else "" for one in named)
            who, label = "person" if is_one_person else path.stem, NEUTRAL if is_neutral else ""
            row = [file, str(path), who, label, "" if is_neutral else sequence, texture, landmarks]
            rows.append((str(path), row))
        listed = check_rows("--columns", self.root, header, rows, self.columns)
        for note in listed.notes:
            print(f"note: {note}", file=sys.stderr)
        names = FileNames(self.root)
        records = [
            dataclasses.replace(build_record(row, names, frame=frame), sample_id=row["sample_id"], label=row["label"])
            for frame, row in enumerate(listed.rows)
        ]
        return dataclasses.replace(FOLDER, find=functools.partial(_list, records))


def _list(records: Sequence[ScanRecord], root: Path) -> Listing:
    return Listing(records)


def predict_scans(run: Path, files: ScanFiles, *, picture: Path | None, table: Path | None, device: str) -> int:
    """Print the prediction of each scan, and how it was aligned; write a table, and a picture of each.

    Args:
        run: a run folder of `fit`, or a folder of `export`.
        picture: a file for one prediction, or a folder.
        table: a CSV file, as `train predict` writes it.
    Returns:
        0; 1 if some scans could not be predicted.
    Raises:
        FacetError: no such run; options that the model has no use for, or lacks; no scan could be read.
    """
    from train.inference.predictor import Predictor

    _check_outputs(picture, table)
    _check_picture(picture, 1 if files.is_sequence else len(files.scans))
    predictor = Predictor.load(run, device)
    recipe, wanted = predictor.config.recipe, predictor.config.render
    _check_model(run, files, wanted, recipe)
    if files.neutral is not None and recipe.reference != NEUTRAL:
        predictor = predictor.centre(NEUTRAL)
    is_alone = files.neutral is None and recipe.centre_scores != "none"
    if is_alone:  # else a scan's prediction would depend on what other scans were named with it
        predictor = predictor.centre("none")
    for path in (table, picture if picture is None or picture.suffix else picture / "picture"):
        if path is not None:
            check_writable(path)
    settings = dataclasses.replace(wanted, modalities=tuple(m for m in wanted.modalities if m in recipe.modalities))
    with tempfile.TemporaryDirectory(prefix="facet-") as folder:  # private: mode 0700
        failures = _render(files, Path(folder) / "scans", settings)
        for failure in failures:
            if failure.kind == "failed" and failure.sample_id == str(files.neutral):
                raise FacetError(_describe_failure(failure))
            kind = "note" if failure.kind == "warning" else "failed"
            print(f"{kind}: {_describe_failure(failure)}", file=sys.stderr)
        inference = predictor.open(Path(folder) / "scans")
        items = [item for item in inference.items if item.name != str(files.neutral)]
        inference = dataclasses.replace(inference, items=items)
        for sample, pose in _read_poses(inference.cache):
            print(f"{sample.sample_id}: {describe_alignment(sample, pose)}")
            if lacking := [m for m in recipe.modalities if not sample.has(m)]:
                print(f"{sample.sample_id}: no {' and no '.join(lacking)}; predicted from the other images")
        _check_picture(picture, len(items))
        predictions = inference.predict()
        for row in predictions.rows:
            print(f"{row.name}: {describe_prediction(row, predictions)}")
        for line in inference.limits:
            print(line)
        if is_alone:
            print(
                f"each scan is decided alone; the run's own scores are centred (--centre-scores {recipe.centre_scores}), so "
                "its accuracy is another. `train predict` centres the scans of a cache, and --neutral FILE those of a person"
            )
        if table is not None:
            inference.write(table, predictions, like=files.root)
            print(f"probabilities: {table}")
        if picture is not None:
            explanations = inference.explain(predictions, str(len(items)))
            places = _place_pictures(picture, [row.name for row in predictions.rows])
            for number, one in enumerate(tqdm(explanations.samples, "draw", unit="picture", delay=2, leave=False)):
                place = places[one.prediction.name]
                write_file(place, explanations.draw(number, place.suffix[1:].lower()), like=files.root)
            print(f"picture: {picture} ({inference.cache.info.licence})")
    return int(any(failure.kind == "failed" for failure in failures))


def _check_outputs(picture: Path | None, table: Path | None) -> None:
    if table is not None and table.is_dir():
        raise FacetError(f"--csv {table}: is a folder; give the name of a CSV file")
    if picture is not None and picture.suffix and not picture.is_dir() and picture.suffix[1:].lower() not in FORMS:
        forms = ", ".join(f".{form}" for form in FORMS)
        raise FacetError(f"--out {picture}: expected a name that ends in {forms}, or a folder")


def _check_picture(picture: Path | None, num_predictions: int) -> None:
    if picture is not None and picture.suffix and not picture.is_dir() and num_predictions > 1:
        raise FacetError(f"--out {picture}: is one picture, and there are {num_predictions} predictions; give a folder")


def _check_model(run: Path, files: ScanFiles, wanted: RenderSettings, recipe: Any) -> None:
    """Check that a model can be given these scans.

    Args:
        recipe: of the run, a `train.options.Recipe`.

    Raises:
        FacetError: it needs a neutral scan, a sequence or dynamic images, or has no use for a neutral scan; or it was trained
            on images of another version of the renderer.
    """
    if wanted.dynamic:
        raise FacetError(
            f"{run}: was trained on dynamic images; make a cache with `python -m preprocess dynamic`, and use "
            "`python -m train predict`"
        )
    if wanted.revision != RenderSettings().revision:
        raise FacetError(
            f"{run}: was trained on images of revision {wanted.revision} of the renderer, and this program draws revision "
            f"{RenderSettings().revision}; train it again on a new cache"
        )
    if recipe.reference == NEUTRAL and files.neutral is None:
        raise FacetError(f"{run}: compares faces with the same person's neutral scan; give it as --neutral FILE")
    if recipe.reference == "onset" and not files.is_sequence:
        raise FacetError(f"{run}: compares frames with the first of their sequence; give all in order, and --sequence")
    if files.neutral is not None and (recipe.is_multilabel or NEUTRAL in recipe.classes):
        what = "several labels at once" if recipe.is_multilabel else "neutral, too"
        raise FacetError(f"--neutral: {run} predicts {what}, so a neutral scan is of no use; leave it out")


def _render(files: ScanFiles, cache: Path, settings: RenderSettings) -> list[Failure]:
    """Build the cache; return failures and warnings.

    Raises:
        FacetError: no scan can be used; for a single one, why.
    """
    num_shards = math.ceil((len(files.scans) + 1) / SHARD_ROWS)
    try:
        report = build_cache(
            *(files.dataset(), files.root, cache, settings), num_workers=min(num_cores(), num_shards), quiet=True
        )
        return report.failures
    except FacetError:
        failures = read_table(cache / FAILURES_CSV, Failure) if (cache / FAILURES_CSV).is_file() else []
        if not failures:
            raise
        for failure in failures[1:]:
            print(f"failed: {_describe_failure(failure)}", file=sys.stderr)
        raise FacetError(_describe_failure(failures[0])) from None


def _describe_failure(failure: Failure) -> str:
    """Return the path as it was typed, and the reason; most reasons begin with the path from the root."""
    return f"{failure.sample_id}: {failure.reason.removeprefix(f'{failure.source}: ')}"


def _read_poses(cache: Cache) -> list[tuple[Sample, np.ndarray]]:
    """Return the valid samples, and scan_to_face f32 (4, 4) of each."""
    rows = [row for row, sample in enumerate(cache.samples) if sample.valid]
    return [(cache.samples[row], pose) for row, pose in zip(rows, cache.arrays.read("scan_to_face", rows), strict=True)]


def describe_alignment(sample: Sample, pose: np.ndarray) -> str:
    """Describe how a scan came into the face frame."""
    turn_deg = math.degrees(math.acos(np.clip((np.trace(pose[:3, :3]) - 1) / 2, -1, 1)))
    how = "its landmarks, and the surface" if sample.alignment == "landmarks" else "the shape of its surface"
    return (
        f"aligned by {how}: turned by {turn_deg:.0f}°; an average face lies within {sample.misfit_mm:.1f} mm of it; "
        f"eyes {sample.eye_distance_mm:.0f} mm apart"
    )


def describe_prediction(row: Prediction, predictions: Predictions) -> str:
    """Describe the most probable classes; of several labels, those that were decided for."""
    named = sorted(zip(row.probabilities, predictions.class_names, strict=True), key=lambda pair: -pair[0])
    shown = ", ".join(f"{name} {100 * p:.1f} %" for p, name in named[:NUM_NAMED])
    if not predictions.several:
        return shown
    if any("=" in name for name in row.predicted):  # intensities
        return ", ".join(name.replace("=", " ") for name in row.predicted)
    return f"{', '.join(row.predicted) or 'none of the labels'} (most probable: {shown})"


def _place_pictures(picture: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return a file for each prediction: the picture itself, or files in its folder."""
    if picture.suffix and not picture.is_dir():
        return {names[0]: picture}
    stems = [Path(name).stem for name in names]
    return {
        name: picture / (f"{stem}.png" if stems.count(stem) == 1 else f"{number:03d}-{stem}.png")
        for number, (name, stem) in enumerate(zip(names, stems, strict=True), 1)
    }
