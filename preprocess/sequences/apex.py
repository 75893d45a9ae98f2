"""Estimates when a sequence's expression is strongest: the frame whose depth differs most from the first ones.

The change of a frame is the mean of |z − z_reference| over the pixels that it and the reference both show, once the small
rigid motion that explains most of it is taken away (a head that drifts is no expression). It is clipped, so that edges of
holes and hair do not outweigh the face, and smoothed over a few frames before its maximum is taken.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from preprocess.build.plan import describe_marks
from shared.cache import read_signed_json, write_signed_json
from shared.errors import CacheError
from shared.schema import DEPTH_STEP_MM, DEPTH_ZERO, SHARD_ROWS, CacheInfo, ShardRecord, fingerprint
from shared.schema import Sequence as SequenceRow
from shared.sequences import group_frames
from shared.store.storage import VIEWS_HDF5, VIEWS_ZARR, ArrayReader, open_arrays

REVISION = 1  # raised whenever the same depth would give another apex
CLIP_MM = 5.0
MOTION_SCALE_MM = 1.0  # what still counts as the head's motion: a drift between frames, not a cheek's
MAX_SLOPE = 2.0
MAX_REFERENCE_FRAMES = 5  # a fifth of a second at 25 a second
SMOOTHED_FRAMES = 5
MIN_FRAMES = 3
MIN_COMMON = 0.2  # of the reference's pixels: a frame that shows fewer of them tells nothing
WORKING_SIZE_PX = 112  # larger images are thinned out to at least this: what moves is far larger than a pixel
FRAMES_AT_ONCE = 16
SEQUENCES_PER_NOTE = 64  # estimates that a kill may cost
NOTES = ".build/apexes.json"


def estimate_apexes(
    cache: Path, info: CacheInfo, records: Sequence[ShardRecord], sequences: Sequence[SequenceRow]
) -> list[SequenceRow]:
    """The sequences with an apex in each, estimated where none is given and marked so.

    Looks at the depth of the view nearest to the front, between the onset and offset that are given. A cache without depth,
    and a sequence of fewer than 3 usable frames or with damaged ones, stays without an estimate. What was found is noted under
    .build/, so that a cache whose depth has not changed is not read again.
    """
    if "depth" not in info.settings.modalities:
        return list(sequences)
    rows_of = _usable_rows(records, [sequence for sequence in sequences if sequence.apex is None])
    samples = [sample for record in records for sample in record.samples]
    keys = _describe_inputs(info, records, rows_of)
    noted = _read_notes(cache)
    apexes = {name: noted[name][1] for name, key in keys.items() if name in noted and noted[name][0] == key}
    todo = [name for name in keys if name not in apexes]
    arrays = open_arrays(cache, info)
    for number, name in enumerate(tqdm(todo, "apex", unit="sequence", delay=2), start=1):
        rows = rows_of[name]
        try:
            peak = find_peak(measure_change_mm(arrays, info, rows))
            apexes[name] = None if peak is None else samples[rows[peak]].frame
        except CacheError as error:  # not noted: estimated when the shard has been repaired
            tqdm.write(f"  no apex for {name}: {error}", file=sys.stderr)
        if number % SEQUENCES_PER_NOTE == 0 or number == len(todo):
            notes = {name: [keys[name], apex] for name, apex in apexes.items()}
            write_signed_json(cache / NOTES, {"apexes": notes})
    return [_with_apex(sequence, apexes.get(sequence.sequence)) for sequence in sequences]


def measure_change_mm(arrays: ArrayReader, info: CacheInfo, rows: Sequence[int]) -> np.ndarray:
    """How far the front view's depth is from that of the first frames, f64 (T,), mm; NaN where a frame shows too little.

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
    """How depth changes with each of six small rigid motions of the surface, (h, w, 6): shifts along x, y, z, turns about them.

    To first order a point that moves by d changes z(x, y) by d_z − z_x d_x − z_y d_y: the point-to-plane distance of Chen &
    Medioni 1992, "Object modelling by registration of multiple range images". NaN where a neighbour shows no surface, and
    where it is too steep for this.
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
    """What is left of a difference (N,) when the rigid motion that explains most of it is taken away.

    Least squares with Cauchy's weights 1 / (1 + (r / 1 mm)²), reweighted three times: what moves by itself counts little.
    """
    rest_mm = difference_mm - np.median(difference_mm)
    for _ in range(3):
        weights = 1 / (1 + (rest_mm / MOTION_SCALE_MM) ** 2)
        weighted = motions * weights[:, None]
        motion = np.linalg.lstsq(weighted.T @ motions, weighted.T @ difference_mm, rcond=1e-9)[0]
        rest_mm = difference_mm - motions @ motion
    return rest_mm


def find_peak(change_mm: np.ndarray) -> int | None:
    """Where a smoothed change is greatest: an index; None where fewer than 3 values are known.

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
    """Depth of one view frame by frame, f32 (h, w) mm, every step-th pixel, NaN where there is no surface; reads ahead."""
    batches = [rows[start : start + FRAMES_AT_ONCE] for start in range(0, len(rows), FRAMES_AT_ONCE)]
    following = arrays.start("depth", batches[0])
    for number in range(len(batches)):
        pixels = following.result()[:, view]
        if number + 1 < len(batches):
            following = arrays.start("depth", batches[number + 1])
        for image in pixels[:, step // 2 :: step, step // 2 :: step]:
            depth_mm = (image.astype(np.float32) - DEPTH_ZERO) * np.float32(DEPTH_STEP_MM)
            yield np.where(image > 0, depth_mm, np.float32(np.nan))


def _mean_where_shown(depth_mm: np.ndarray) -> np.ndarray:
    """Mean over the frames (K, h, w) that show a pixel; NaN where none does."""
    count = np.isfinite(depth_mm).sum(0)
    mean: np.ndarray = np.where(count > 0, np.nansum(depth_mm, 0) / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean


def _usable_rows(records: Sequence[ShardRecord], sequences: Sequence[SequenceRow]) -> dict[str, list[int]]:
    """The valid rows with depth of each sequence, in time order, from its onset to its offset where those are given."""
    samples = [sample for record in records for sample in record.samples]
    frames = group_frames(samples)

    def is_usable(row: int, sequence: SequenceRow) -> bool:
        frame = samples[row].frame
        if frame is None or not samples[row].has("depth"):
            return False
        return (sequence.onset is None or frame >= sequence.onset) and (
            sequence.offset is None or frame <= sequence.offset
        )

    usable = {s.sequence: [row for row in frames.get(s.sequence, ()) if is_usable(row, s)] for s in sequences}
    return {name: rows for name, rows in usable.items() if len(rows) >= MIN_FRAMES}


def _describe_inputs(info: CacheInfo, records: Sequence[ShardRecord], rows_of: dict[str, list[int]]) -> dict[str, str]:
    """For each sequence a hash of what decides its estimate: its rows and frames, and the shards that hold their depth."""
    depth = [
        fingerprint({name: digest for name, digest in record.files.items() if _may_hold_depth(name)})
        for record in records
    ]
    keys = {}
    for name, rows in rows_of.items():
        frames = [records[row // SHARD_ROWS].samples[row % SHARD_ROWS].frame for row in rows]
        shards = sorted({row // SHARD_ROWS for row in rows})
        keys[name] = fingerprint([REVISION, info.settings.front_view, rows, frames, [depth[shard] for shard in shards]])
    return keys


def _may_hold_depth(file: str) -> bool:
    return file.startswith((f"{VIEWS_ZARR}/depth/", f"{VIEWS_HDF5}/"))


def _read_notes(cache: Path) -> dict[str, tuple[str, int | None]]:
    """Sequence → what decided an earlier estimate, and the apex's frame. Notes that cannot be read are made anew."""
    try:
        notes = read_signed_json(cache / NOTES)["apexes"]
        return {name: (str(key), None if apex is None else int(apex)) for name, (key, apex) in notes.items()}
    except (OSError, CacheError, KeyError, ValueError, TypeError, AttributeError):
        return {}


def _with_apex(sequence: SequenceRow, apex: int | None) -> SequenceRow:
    if sequence.apex is not None or apex is None:
        return sequence
    marks = describe_marks((sequence.onset, apex, sequence.offset), estimated=("apex",))
    return dataclasses.replace(sequence, apex=apex, marks=marks)
