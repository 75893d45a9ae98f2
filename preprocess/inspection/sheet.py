"""Contact sheets: pictures of a cache on one page, with names, labels and the licence line of the data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from preprocess.inspection.page import Block, Row, Tile, draw_page
from shared.cache import Cache
from shared.errors import CacheError, FacetError
from shared.figures import find_form
from shared.pairs import group_pairs
from shared.pictures import PICTURES, Picture, centre_face, choose_pictures, describe_view, order_views
from shared.schema import Sample, View, choose_views
from shared.store.storage import write_file

SMALL, LARGE = 64.0, 96.0  # points of a tile; seven small ones and their names are as wide as a page
MAX_SUBJECTS, MAX_PER_LABEL = 8, 8
LEAST_FILLED = 0.5  # of the cells of a table of subjects and classes: with less, each class gets a row of its own
Item = TypeVar("Item")


@dataclass(frozen=True)
class Shown:
    """What pictures show.

    pictures: kinds of them. views: indices of the cache's views, from the subject's right to the left.
    plain: without title, names of samples and legend, as for a paper.
    """

    pictures: Sequence[Picture]
    views: Sequence[int]
    plain: bool = False


def choose_shown(cache: Cache, names: Sequence[str] = (), views: Sequence[View] = (), *, plain: bool = False) -> Shown:
    """Return what pictures of a cache show.

    Args:
        names: kinds of pictures, as in `PICTURES`; none: one of each modality. views: none: all.
    Raises:
        FacetError: the cache has no such modality or view.
    """
    settings = cache.info.settings
    try:
        chosen = choose_views(settings.views, views) if views else None
    except ValueError as error:
        raise FacetError(f"--views {error}: {cache.path} holds {settings.views_text()}") from error
    order = [index for index in order_views(settings.views) if chosen is None or index in chosen]
    return Shown(choose_pictures(names, settings.modalities, dynamic=bool(settings.dynamic)), order, plain)


def write_sheet(
    cache: Cache, path: Path, *, subject: str | None = None, sample_id: str | None = None, shown: Shown | None = None
) -> None:
    """Write a contact sheet as PNG, PDF or SVG, by the ending of its name.

    Args:
        subject: show all classes and intensities of this subject.
        sample_id: show every view and modality of this sample.
            With neither: some subjects × all classes, from the front; then one sample in every view and modality.
        shown: the pictures and views to show; None: all.
    Raises:
        FacetError: no such subject or sample, or the name has another ending.
    """
    form = find_form("--sheet", path)
    shown = shown or choose_shown(cache)
    if sample_id is not None:
        sample = next((s for s in cache.samples if s.sample_id == sample_id), None)
        if sample is None:
            raise FacetError(f"--sample {sample_id}: no such sample in {cache.path}; see samples.csv")
        if not sample.valid:
            raise FacetError(f"--sample {sample_id}: is not valid: {sample.reason}")
        blocks, title = [_lay_sample(cache, sample, shown, LARGE)], f"one sample of {sample.subject}"
    elif subject is not None:
        num_valid = sum(s.valid and s.subject == subject for s in cache.samples)
        blocks, title = [_lay_subject(cache, subject, shown)], f"{subject} · {num_valid} scans"
    else:
        title = f"{cache.info.num_valid} scans of {cache.info.num_subjects} subjects"
        blocks = _lay_overview(cache, shown)
    legend = [picture.describe(dynamic=bool(cache.info.settings.dynamic)) for picture in shown.pictures]
    data = draw_page(
        blocks,
        title="" if shown.plain else f"{cache.info.dataset} · {title}",
        foot=[*([] if shown.plain else filter(None, legend)), cache.info.licence],
        form=form,
    )
    cache.check_unchanged()
    write_file(path, data, like=cache.path)


def picture_of(cache: Cache, sample: Sample, name: str, view: int) -> np.ndarray:
    """Return one cached image as a picture of PICTURES, u8 (S, S, 3)."""
    picture = PICTURES[name]
    pixels = cache.arrays.read(picture.modality.name, [cache.row_of(sample.sample_id)])[0, view]
    return picture.draw(pixels, dynamic=bool(cache.info.settings.dynamic))


def draw_tile(cache: Cache, sample: Sample, name: str, view: int) -> np.ndarray:
    """Return `picture_of` with the face where it is from the front."""
    return centre_face(picture_of(cache, sample, name, view), cache.info.settings.views[view])


def spread(items: Sequence[Item], num: int) -> list[Item]:
    """Return `num` items, or all if there are fewer, evenly over the list."""
    num = min(num, len(items))
    return [items[index * len(items) // num] for index in range(num)]


# --- what a sheet shows ---


def _lay_overview(cache: Cache, shown: Shown) -> list[Block]:
    valid = [s for s in cache.samples if s.valid and _find_picture(s, shown)]
    if not valid:
        raise CacheError(f"{cache.path}: holds no valid sample to show")
    subjects = _choose_subjects(cache)
    present = {s.label for s in valid if s.subject in subjects}
    columns = [name for name in cache.info.class_names if name in present]
    table = {
        subject: [_choose_scan([s for s in valid if s.subject == subject and s.label == name]) for name in columns]
        for subject in subjects
    }
    scans = [sample for row in table.values() for sample in row if sample]
    if table and len(scans) >= LEAST_FILLED * len(table) * len(columns):
        rows = [(subject, [_front(cache, s, shown) for s in row]) for subject, row in table.items()]
        block = _lay_grid(cache, rows, shown, columns)
    else:
        block = _lay_classes(cache, valid, shown)
    example = max(scans or valid, key=lambda s: (len(s.modalities), s.label == "surprise"))  # prefers textured ones
    return [block, _lay_sample(cache, example, shown, SMALL)]


def _lay_classes(cache: Cache, valid: Sequence[Sample], shown: Shown) -> Block:
    """Lay out a row a class, with one scan of each of some subjects."""
    rows = []
    for label in (*cache.info.class_names, ""):
        if subjects := group_pairs((sample.subject, sample) for sample in valid if sample.label == label):
            scans = [_choose_scan(subjects[name]) for name in spread(sorted(subjects), MAX_PER_LABEL)]
            rows.append((label or "no label", [_front(cache, s, shown, subject=True) for s in scans]))
    return _lay_grid(cache, rows, shown)


def _choose_subjects(cache: Cache) -> list[str]:
    """Choose subjects with the most classes, evenly over the cache; then one for each class that none of them has."""
    labels = group_pairs((sample.subject, sample.label) for sample in cache.samples if sample.valid and sample.label)
    shown = {subject: set(some) for subject, some in labels.items()}
    names = sorted(shown, key=lambda subject: (-len(shown[subject]), subject))
    complete = [subject for subject in names if len(shown[subject]) == len(shown[names[0]])]
    chosen = spread(complete, MAX_SUBJECTS) if len(complete) > MAX_SUBJECTS else names[:MAX_SUBJECTS]
    for class_name in cache.info.class_names:
        if not any(class_name in shown[subject] for subject in chosen):
            chosen += [subject for subject in names if class_name in shown[subject]][:1]
    return sorted(chosen)


def _choose_scan(scans: Sequence[Sample]) -> Sample | None:
    """Return the most intense scan, or the middle frame of the first sequence, near its apex."""
    if scans and scans[0].sequence:
        frames = [s for s in scans if s.sequence == scans[0].sequence]
        return frames[len(frames) // 2]
    return max(scans, key=lambda s: s.intensity, default=None)


def _lay_subject(cache: Cache, subject: str, shown: Shown) -> Block:
    scans = [s for s in cache.samples if s.subject == subject and s.valid and _find_picture(s, shown)]
    if not scans:
        some = ", ".join(sorted({s.subject for s in cache.samples if s.valid})[:5])
        raise FacetError(f"--subject {subject}: no valid sample of that subject in {cache.path}; there are {some} …")
    rows = []
    for label in (*cache.info.class_names, ""):
        if found := spread([s for s in scans if s.label == label], MAX_PER_LABEL):
            rows.append((label or "no label", [_front(cache, s, shown) for s in found]))
    return _lay_grid(cache, rows, shown)


def _lay_sample(cache: Cache, sample: Sample, shown: Shown, size: float) -> Block:
    """Lay out a sample in every view and modality."""
    settings = cache.info.settings
    rows = []
    for picture in shown.pictures:
        if sample.has(picture.modality.name):
            tiles = [Tile(draw_tile(cache, sample, picture.name, view)) for view in shown.views]
            rows.append(Row(picture.name, tiles, picture.draw_key(dynamic=bool(settings.dynamic))))
    if not rows:
        raise FacetError(f"--show: {sample.sample_id} has no {', '.join(picture.name for picture in shown.pictures)}")
    about = [sample.sample_id, sample.label or "no label", sample.intensity, f"aligned by {sample.alignment}"]
    return Block(
        rows,
        [describe_view(settings.views[view]) for view in shown.views],
        "" if shown.plain else " · ".join(text for text in about if text),
        size,
    )


def _lay_grid(
    cache: Cache, rows: Sequence[tuple[str, Sequence[Tile | None]]], shown: Shown, columns: Sequence[str] = ()
) -> Block:
    """Lay out pictures of the first kind, with its key beside the first row."""
    key = shown.pictures[0].draw_key(dynamic=bool(cache.info.settings.dynamic))
    found = [Row(name, tiles, key if number == 0 else None) for number, (name, tiles) in enumerate(rows)]
    return Block(found, columns, tile=SMALL)


def _find_picture(sample: Sample, shown: Shown) -> Picture | None:
    """Return the first kind of picture that a sample has."""
    return next((picture for picture in shown.pictures if sample.has(picture.modality.name)), None)


def _front(cache: Cache, sample: Sample | None, shown: Shown, *, subject: bool = False) -> Tile | None:
    """Return the tile of a sample, from the view nearest to the front."""
    if sample is None or (picture := _find_picture(sample, shown)) is None:
        return None
    views = cache.info.settings.views
    view = min(shown.views, key=lambda index: abs(views[index].yaw_deg) + abs(views[index].pitch_deg))
    name = sample.subject if subject else sample.sample_id
    caption = "" if shown.plain else name + (f" · {sample.intensity}" if sample.intensity else "")
    return Tile(draw_tile(cache, sample, picture.name, view), caption)
