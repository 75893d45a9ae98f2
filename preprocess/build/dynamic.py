"""Dynamic images: a whole sequence as one image per view, by approximate rank pooling.

Bilen et al. 2016, "Dynamic image networks for action recognition", eq. 4: d = Σ α_t I_t with
α_t = 2(T − t + 1) − (T + 1)(H_T − H_{t−1}), t = 1…T, H_t the harmonic numbers. It is the sum of V_q − V_t over all q > t, V_t
the mean of the frames up to t: the weights add up to 0, so whatever does not move cancels, and whatever grows is positive.
Here they are divided by the sum of the positive ones: d is a weighted mean of later frames minus one of the first frames, in
the images' own units.

Stored are texture and normal = round(128 + 2 d), clipped to 1…255, 128 = no change; depth = round(d_mm / 0.02) + 32768; 0 = a
pixel that some frame does not show. Time is the frames' order; invalid frames are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from preprocess.build.cache_folder import describe_build, finish_cache, lock_cache, open_for_writing, start_cache
from preprocess.build.engine import ShardArrays, read_finished, read_records, shard_rows, write_shard
from preprocess.sequences.frames import stream_frames
from shared.cache import Cache, Failure, find_text_files, open_cache
from shared.errors import CacheError, FacetError
from shared.modalities import get_modality
from shared.schema import SHARD_ROWS, CacheInfo, Sample, fingerprint
from shared.schema import Sequence as SequenceRow
from shared.store.paths import is_file, is_same_folder, list_files, read_bytes
from shared.store.storage import write_file

POOLING = "approximate rank pooling over the sum of its positive weights; texture, normal = 128 + 2 d; depth d in its own unit"
TOO_FEW = "fewer than 2 valid frames"


@dataclass(frozen=True)
class DynamicReport:
    """Result of a run. num_pooled: sequences of this run; failures: of the whole cache."""

    info: CacheInfo
    num_pooled: int
    failures: list[Failure]


@dataclass(frozen=True)
class _Row:
    """A row of the new cache. frames: the source's rows that are pooled, in time order, valid ones only."""

    sample: Sample
    first_row: int  # of the sequence, in the source
    frames: list[int]


def rank_pooling_weights(num_frames: int) -> np.ndarray:
    """Return α of approximate rank pooling, f64 (T,); the positive ones add up to 1, all of them to 0.

    Raises:
        ValueError: fewer than 2 frames.
    """
    if num_frames < 2:
        raise ValueError("rank pooling needs at least 2 frames")
    t = np.arange(1, num_frames + 1)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / t)])
    alpha: np.ndarray = 2.0 * (num_frames - t + 1) - (num_frames + 1) * (harmonic[-1] - harmonic[:-1])
    return alpha / alpha[alpha > 0].sum()


def build_dynamic_cache(source: Path, out: Path) -> DynamicReport:
    """Pool each sequence of a cache into a row of a new one; shards that an earlier run finished are not pooled again.

    The new cache has the source's views, modalities, store and prompt embeddings, but no landmarks and action units, which
    belong to single frames.

    Raises:
        CacheError: the source is unfinished, damaged or without sequences; `out` is the source or holds something else.
        FacetError: no sequence has 2 valid frames.
    """
    cache = open_cache(source)
    if not cache.sequences:
        raise CacheError(f"{source}: holds no sequences; dynamic images are for 4D data sets")
    if is_same_folder(out, source):
        raise CacheError(f"--out {out}: is the cache that is read; choose another folder")
    rows = [_plan_row(cache, sequence) for sequence in cache.sequences]
    settings = dataclasses.replace(cache.info.settings, dynamic=POOLING)
    info = describe_build(
        dataclasses.replace(cache.info, settings=settings, num_samples=len(rows), num_landmarks=0, au_names=())
    )
    digests = [fingerprint(record.files) for record in read_records(cache.path, cache.info)]
    inputs = [
        _input_fingerprint(cache, info, [rows[row] for row in shard_rows(info, shard)], digests)
        for shard in range(info.num_shards)
    ]
    num_pooled = 0
    with lock_cache(out):
        start_cache(out, info, advice="choose another --out")
        stored = list_files(out)
        unfinished = [shard for shard in range(info.num_shards) if not _is_finished(out, info, shard, stored, inputs)]
        open_for_writing(out, info, [row.sample for row in rows], unfinished=bool(unfinished))
        for shard in tqdm(unfinished, "pool", unit="shard", delay=2):
            arrays = ShardArrays(info, shard)
            numbers = shard_rows(info, shard)
            samples = [_pool_row(cache, info, rows[number], arrays, number - numbers.start) for number in numbers]
            files = arrays.encode()
            cache.check_unchanged()
            write_shard(out, info, shard, samples, files, inputs[shard])
            num_pooled += sum(sample.valid for sample in samples)
        samples = [sample for record in read_records(out, info) for sample in record.samples]
        _copy_prompts(cache, out)
        groups = {name: tuple(values[row.first_row] for row in rows) for name, values in cache.groups.items()}
        info, failures = finish_cache(out, info, samples, [], groups)
    if not info.complete:
        raise FacetError(f"{source}: none of {len(samples)} sequences has 2 valid frames; see its failures.csv")
    return DynamicReport(info, num_pooled, failures)


def pool_frames(cache: Cache, modality: str, rows: Sequence[int]) -> np.ndarray:
    """Return the dynamic image of some frames, as it is stored.

    Args:
        rows: at least 2 rows that hold the modality, in time order.
    Returns:
        u8 (V, H, W, 3), or u16 (V, H, W) for depth; 0 where some frame shows no surface.
    Raises:
        CacheError: stored images are missing or damaged.
    """
    kind, weights = get_modality(modality), rank_pooling_weights(len(rows))
    total, is_shown = np.zeros(()), np.ones((), bool)
    for weight, image in zip(weights, stream_frames(cache.arrays, modality, rows), strict=True):
        total = total + weight * image
        is_shown = is_shown & kind.find_surface(image)
    pixels = kind.encode_change(total)  # the weights add up to 0, so the stored zero point cancels
    return (pixels * is_shown.reshape(*is_shown.shape, *[1] * len(kind.channels))).astype(kind.dtype)


def _plan_row(cache: Cache, sequence: SequenceRow) -> _Row:
    first = cache.samples[sequence.first_row]
    sample = Sample(
        sample_id=sequence.sequence,
        subject=sequence.subject,
        sequence="",
        frame=None,
        label=sequence.label,
        intensity=first.intensity,
        task=first.task,
        source=first.source,
    )
    frames = [row for row in cache.frames(sequence.sequence) if cache.samples[row].valid]
    return _Row(sample, sequence.first_row, frames)


def _input_fingerprint(cache: Cache, info: CacheInfo, rows: Sequence[_Row], digests: Sequence[str]) -> str:
    """Return a hash of what decides a shard's bytes: settings, the rows, their frames, and the source's shards that hold them.

    Args:
        digests: a hash of each of the source's shards.
    """
    described = []
    for row in rows:
        members = [row.first_row, *row.frames]
        frames = [[frame, cache.samples[frame].source_hash, cache.samples[frame].modalities] for frame in members]
        held_in = sorted({frame // SHARD_ROWS for frame in members})
        described.append([dataclasses.asdict(row.sample), frames, [digests[shard] for shard in held_in]])
    return fingerprint({"settings": info.settings_fingerprint, "rows": described})


def _is_finished(out: Path, info: CacheInfo, shard: int, stored: Collection[str], inputs: Sequence[str]) -> bool:
    record = read_finished(out, info, shard, stored, hash_files=True)
    return record is not None and record.input_fingerprint == inputs[shard]


def _pool_row(cache: Cache, info: CacheInfo, row: _Row, arrays: ShardArrays, position: int) -> Sample:
    """Pool a sequence into one row of a shard, at `position` in it; return the row's sample."""
    held = []
    for modality in info.settings.modalities:
        usable = [frame for frame in row.frames if cache.samples[frame].has(modality)]
        if len(usable) >= 2:
            arrays.set(modality, position, pool_frames(cache, modality, usable))
            held.append(modality)
    if not held:
        return dataclasses.replace(row.sample, reason=TOO_FEW)
    for name in {"scan_to_face", "targets"} & info.arrays().keys():  # of the first valid frame
        arrays.set(name, position, cache.arrays.read(name, row.frames[:1])[0])
    first = cache.samples[row.frames[0]]
    return dataclasses.replace(
        row.sample,
        source_hash=fingerprint([cache.samples[frame].source_hash for frame in row.frames]),
        valid=True,
        modalities="+".join(held),
        alignment=first.alignment,
        misfit_mm=first.misfit_mm,
        eye_distance_mm=first.eye_distance_mm,
    )


def _copy_prompts(cache: Cache, out: Path) -> None:
    """Copy the source's prompt embeddings; those that the new cache already has stay as they are."""
    for path in find_text_files(cache.path):
        for file in (path, path.with_name(path.name + ".sha256")):
            copy = out / "text" / file.name
            if is_file(file) and not is_file(copy):
                write_file(copy, read_bytes(file))
