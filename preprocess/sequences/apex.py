"""Estimate when a sequence's expression is strongest: the frame whose depth differs most from the first ones.

The change of a frame is the mean of |z − z_reference| over the pixels that it and the reference both show, without the small
rigid motion that explains most of it (a head that drifts is no expression). It is clipped, so that edges of holes and hair do
not outweigh the face, and smoothed over a few frames before its maximum is taken.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from preprocess.datasets.scan import MOMENTS, Moments
from preprocess.sequences.frames import stream_frames
from shared.errors import CacheError
from shared.modalities import DEPTH_STEP_MM, DEPTH_ZERO
from shared.schema import SHARD_ROWS, CacheInfo, Sample, ShardRecord, fingerprint
from shared.schema import Sequence as SequenceRow
from shared.sequences import group_frames
from shared.signed_json import read_signed_json, write_signed_json
from shared.store.arrays import ArrayReader
from shared.store.hdf5_store import VIEWS_HDF5
from shared.store.storage import open_arrays
from shared.store.zarr_store import VIEWS_ZARR

REVISION = 1  # raised whenever the same depth would give another apex
CLIP_MM = 5.0
MOTION_SCALE_MM = 1.0  # residuals above it count little: the head drifts less between frames, a cheek moves more
MAX_SLOPE = 2.0
MAX_REFERENCE_FRAMES = 5  # a fifth of a second at 25 a second
SMOOTHED_FRAMES = 5
MIN_FRAMES = 3
MIN_COMMON = 0.2  # of the reference's pixels: a frame that shows fewer of them has no measured change
WORKING_SIZE_PX = 112  # larger images are subsampled to at least this: moving parts are far larger than a pixel
SEQUENCES_PER_NOTE = 64  # estimates that a killed build may lose
NOTES = ".build/apexes.json"
Run = Callable[[Callable[..., Any], Sequence[Any]], Iterable[Any]]


def estimate_apexes(
    cache: Path, info: CacheInfo, records: Sequence[ShardRecord], sequences: Sequence[SequenceRow], run: Run = map
) -> list[SequenceRow]:
    """Return the sequences with an apex in each: the given one, else an estimate, marked so.

    The estimate uses the depth of the view nearest to the front, between the given onset and offset. There is none in a cache
    without depth, and for a sequence with fewer than 3 usable frames or with damaged ones. Estimates are noted under .build/
    with a hash of their inputs, so that unchanged depth is not read again.

    Args:
        run: as `map`, perhaps in several processes.
    """
    if "depth" not in info.settings.modalities:
        return list(sequences)
    samples = [sample for record in records for sample in record.samples]
    frames = group_frames(samples)
    depth_hashes = [_hash_depth_files(record) for record in records]
    noted, notes = _read_notes(cache), dict[str, tuple[str, int | None]]()
    new = dict[str, tuple[str, list[int]]]()  # hash of the inputs and rows
    for sequence in (s for s in sequences if s.apex is None):
        name = sequence.sequence
        rows = [row for row in frames.get(name, ()) if _is_usable(samples[row], sequence)]
        if len(rows) < MIN_FRAMES:
            continue
        shards = sorted({row // SHARD_ROWS for row in rows})
        numbers = [samples[row].frame for row in rows]
        key = fingerprint(
            [REVISION, info.settings.front_view, rows, numbers, [depth_hashes[shard] for shard in shards]]
        )
        if name in noted and noted[name][0] == key:
            notes[name] = noted[name]
        else:
            new[name] = key, rows
    peaks = run(partial(_estimate_peak, cache, info), [rows for _, rows in new.values()])
    for k, (name, peak) in enumerate(zip(new, tqdm(peaks, "apex", len(new), unit="sequence", delay=2), strict=True), 1):
        key, rows = new[name]
        if isinstance(peak, CacheError):  # not noted: estimated after the shard is repaired
            tqdm.write(f"  no apex for {name}: {peak}", file=sys.stderr)
            continue
        notes[name] = key, None if peak is None else samples[rows[peak]].frame
        if k % SEQUENCES_PER_NOTE == 0:
            write_signed_json(cache / NOTES, {"apexes": {**noted, **notes}})
    if new:
        write_signed_json(cache / NOTES, {"apexes": notes})
    return [
        _with_apex(sequence, notes[s][1]) if (s := sequence.sequence) in notes else sequence for sequence in sequences
    ]


def _estimate_peak(cache: Path, info: CacheInfo, rows: list[int], report: object = None) -> int | CacheError | None:
    """Return the index of the row with the greatest change, None if there is none; or why stored depth cannot be read."""
    try:
        return find_peak(measure_change_mm(open_arrays(cache, info), info, rows))
    except CacheError as error:
        return error


def measure_change_mm(arrays: ArrayReader, info: CacheInfo, rows: Sequence[int]) -> np.ndarray:
    """Return how far the front view's depth is from that of the first frames, f64 (T,), mm; NaN where a frame shows too little.

    Args:
        rows: of the cache, in time order, all with depth; a tenth of them, at most 5, are the reference.
    Raises:
        CacheError: stored depth is missing or damaged.
    """
    num_reference = min(MAX_REFERENCE_FRAMES, max(1, len(rows) // 10))
    view, step = info.settings.front_view, max(1, info.settings.size_px // WORKING_SIZE_PX)
    reference_mm = _mean_where_shown(np.stack(list(_stream_depth_mm(arrays, rows[:num_reference], view, step))))
    motions = rigid_motions(reference_mm, info.settings.mm_per_px * step)
    known = np.isfinite(motions).all(-1)
    change_mm = np.full(len(rows), np.nan)
    for frame, depth_mm in enumerate(_stream_depth_mm(arrays, rows, view, step)):
        difference_mm = depth_mm - reference_mm
        both = np.isfinite(difference_mm) & known
        if both.sum() > max(MIN_COMMON * known.sum(), motions.shape[-1]):
            rest_mm = remove_motion(difference_mm[both], motions[both])
            change_mm[frame] = np.minimum(np.abs(rest_mm), CLIP_MM).mean()
    return change_mm


def rigid_motions(depth_mm: np.ndarray, mm_per_px: float) -> np.ndarray:
    """Return the change of depth by each of six small rigid motions, (h, w, 6): shifts along x, y, z, turns about them.

    To first order a point that moves by d changes z(x, y) by d_z − z_x d_x − z_y d_y: the point-to-plane distance of Chen &
    Medioni 1992, "Object modelling by registration of multiple range images". NaN where a neighbour shows no surface, and
    where the surface is too steep.
    """
    height, width = depth_mm.shape
    x = (np.arange(width) + 0.5 - width / 2) * mm_per_px
    y = (height / 2 - np.arange(height) - 0.5)[:, None] * mm_per_px
    z_y, z_x = np.gradient(depth_mm.astype(np.float64), mm_per_px)
    z_y = -z_y  # rows run downward
    turns = (y + z_y * depth_mm, -x - z_x * depth_mm, z_x * y - z_y * x)
    gentle = np.hypot(z_x, z_y) < MAX_SLOPE
    return np.where(gentle[..., None], np.stack([-z_x, -z_y, np.ones_like(z_x), *turns], axis=-1), np.nan)


def remove_motion(difference_mm: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """Return a difference (N,) without the rigid motion that explains most of it.

    Least squares with Cauchy's weights 1 / (1 + (r / 1 mm)²), reweighted three times: parts that move by themselves count
    little.
    """
    rest_mm = difference_mm - np.median(difference_mm)
    for _ in range(3):
        weights = 1 / (1 + (rest_mm / MOTION_SCALE_MM) ** 2)
        weighted = motions * weights[:, None]
        motion = np.linalg.lstsq(weighted.T @ motions, weighted.T @ difference_mm, rcond=1e-9)[0]
        rest_mm = difference_mm - motions @ motion
    return rest_mm


def find_peak(change_mm: np.ndarray) -> int | None:
    """Return the index where a smoothed change is greatest; None where fewer than 3 values are known.

    Args:
        change_mm: f64 (T,), NaN where unknown. Smoothed over 5 values, fewer at the ends and in short sequences.
    """
    known = np.flatnonzero(np.isfinite(change_mm))
    if len(known) < MIN_FRAMES:
        return None
    half = min(SMOOTHED_FRAMES // 2, len(known) // 6)
    values = change_mm[known]
    smooth = [values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))]
    return int(known[int(np.argmax(smooth))])


def _stream_depth_mm(arrays: ArrayReader, rows: Sequence[int], view: int, step: int) -> Iterator[np.ndarray]:
    """Yield the depth of one view frame by frame, f32 (h, w) mm, every step-th pixel, NaN where there is no surface."""
    for images in stream_frames(arrays, "depth", rows):
        image = images[view, step // 2 :: step, step // 2 :: step]
        depth_mm = (image.astype(np.float32) - DEPTH_ZERO) * np.float32(DEPTH_STEP_MM)
        yield np.where(image > 0, depth_mm, np.float32(np.nan))


def _mean_where_shown(depth_mm: np.ndarray) -> np.ndarray:
    """Return the mean over the frames (K, h, w) that show a pixel; NaN where none does."""
    count = np.isfinite(depth_mm).sum(0)
    mean: np.ndarray = np.where(count > 0, np.nansum(depth_mm, 0) / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean


def _is_usable(sample: Sample, sequence: SequenceRow) -> bool:
    """Return whether a frame has depth and is not before a given onset or after a given offset."""
    if sample.frame is None or not sample.has("depth"):
        return False
    onset = sample.frame if sequence.onset is None else sequence.onset
    offset = sample.frame if sequence.offset is None else sequence.offset
    return onset <= sample.frame <= offset


def _hash_depth_files(record: ShardRecord) -> str:
    prefixes = (f"{VIEWS_ZARR}/depth/", f"{VIEWS_HDF5}/")
    return fingerprint({name: digest for name, digest in record.files.items() if name.startswith(prefixes)})


def _read_notes(cache: Path) -> dict[str, tuple[str, int | None]]:
    """Return sequence → hash of the inputs of an earlier estimate, and the apex's frame; {} where they cannot be read."""
    try:
        notes = read_signed_json(cache / NOTES)["apexes"]
        return {name: (str(key), None if apex is None else int(apex)) for name, (key, apex) in notes.items()}
    except (OSError, CacheError, KeyError, ValueError, TypeError, AttributeError):
        return {}


def _with_apex(sequence: SequenceRow, apex: int | None) -> SequenceRow:
    marks = describe_marks((sequence.onset, apex, sequence.offset), estimated=("apex",))
    return dataclasses.replace(sequence, apex=apex, marks=marks)


def describe_marks(moments: Moments, *, estimated: Sequence[str]) -> str:
    """Return Sequence.marks: the origin of onset, apex and offset.

    Args:
        moments: onset, apex and offset, None where unknown. estimated: names of the estimated ones.
    """
    known = [name for name, moment in zip(MOMENTS, moments, strict=True) if moment is not None]
    origins = {name: "estimated" if name in estimated else "given" for name in known}
    if len(set(origins.values())) <= 1:
        return next(iter(origins.values()), "")
    return "; ".join(
        f"{','.join(name for name in known if origins[name] == origin)} {origin}" for origin in ("given", "estimated")
    )
