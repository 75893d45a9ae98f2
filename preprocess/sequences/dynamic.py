"""Dynamic images: a whole sequence as one image a view, by approximate rank pooling.

Bilen et al. 2016, "Dynamic image networks for action recognition", eq. 4: d = Σ α_t I_t with
α_t = 2(T − t + 1) − (T + 1)(H_T − H_{t−1}), t = 1…T, H_t the harmonic numbers. It is the sum of V_q − V_t over all q > t, V_t
the mean of the frames up to t: the weights add up to 0, so what does not move cancels, and what grows comes out positive.
Here they are divided by the sum of the positive ones: d is a weighted mean of later frames minus one of the first frames, in
the images' own units.

Stored are texture and normal = round(128 + 2 d), clipped to 1…255, 128 = no change; depth = round(d_mm / 0.02) + 32768; 0 = a
pixel that some frame does not show. Time is the frames' order: those that are not valid are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from preprocess.build.cache_folder import (
    finish_cache,
    lock_cache,
    open_for_writing,
    read_records,
    settings_fingerprint,
    software_versions,
    start_cache,
)
from shared.cache import Cache, Failure, num_shards, open_cache, read_record, record_path, write_record
from shared.errors import CacheError, FacetError
from shared.modalities import get_modality
from shared.schema import ARRAYS, SHARD_ROWS, CacheInfo, Sample, ShardRecord, fingerprint
from shared.schema import Sequence as SequenceRow
from shared.store.paths import is_file, is_same_place, read_bytes, remove_file
from shared.store.storage import encode_shard, hash_file, shard_files, write_file

POOLING = "approximate rank pooling over the sum of its positive weights; texture, normal = 128 + 2 d; depth d in its own unit"
FRAMES_AT_ONCE = 16
TOO_FEW = "fewer than 2 valid frames"


@dataclasses.dataclass
class DynamicReport:
    """What was done. num_pooled: sequences of this run; failures: of the whole cache."""

    info: CacheInfo
    num_pooled: int
    failures: list[Failure]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Row k of the new cache is samples[k], pooled from the source's rows frames[k], in time order, valid ones only."""

    samples: list[Sample]
    frames: list[list[int]]
    first_rows: list[int]
    digests: list[str]  # of each of the source's shards: their files


def rank_pooling_weights(num_frames: int) -> np.ndarray:
    """α of approximate rank pooling, f64 (T,), divided so that the positive ones add up to 1; all add up to 0.

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
    """Pools each sequence of a cache into a row of a new one, or those that an earlier run left unfinished or damaged.

    The new cache has the source's views, modalities and store, and its prompt embeddings; landmarks and action units, which
    belong to single frames, stay behind.

    Raises:
        CacheError: the source is no finished cache, or holds no sequences, or cannot be read; `out` is the source or holds
            something else.
        FacetError: no sequence has 2 valid frames.
    """
    cache = open_cache(source)
    if not cache.sequences:
        raise CacheError(f"{source}: holds no sequences; dynamic images are for 4D data sets")
    if is_same_place(out, source):
        raise CacheError(f"--out {out}: is the cache that is read; choose another folder")
    plan = _plan_rows(cache)
    info = _describe(cache, len(plan.samples))
    num_pooled = 0
    with lock_cache(out):
        start_cache(out, info, advice="choose another --out")
        unfinished = [shard for shard in range(info.num_shards) if not _is_finished(cache, out, info, shard, plan)]
        open_for_writing(out, info, plan.samples, unfinished=bool(unfinished))
        with tqdm(
            desc="pool", total=sum(len(_rows(info, shard)) for shard in unfinished), unit="sequence", delay=2
        ) as bar:
            for shard in unfinished:
                num_pooled += _build_shard(cache, out, info, shard, plan, bar)
        samples = [sample for record in read_records(out, info) for sample in record.samples]
        _copy_prompts(cache, out)
        groups = {name: tuple(values[row] for row in plan.first_rows) for name, values in cache.groups.items()}
        info, failures = finish_cache(out, info, samples, [], groups)
    if not info.complete:
        raise FacetError(f"{source}: none of {len(samples)} sequences has 2 valid frames; see its failures.csv")
    return DynamicReport(info, num_pooled, failures)


def pool_frames(cache: Cache, modality: str, rows: Sequence[int]) -> np.ndarray:
    """The dynamic image of some frames, as it is stored.

    Args:
        rows: at least 2 rows that hold the modality, in time order.
    Returns:
        u8 (V, H, W, 3), or u16 (V, H, W) for depth; 0 where some frame shows no surface.
    Raises:
        CacheError: stored images are missing or damaged.
    """
    kind, weights = get_modality(modality), rank_pooling_weights(len(rows))
    total: np.ndarray
    following = cache.arrays.start(modality, rows[:FRAMES_AT_ONCE])
    for start in range(0, len(rows), FRAMES_AT_ONCE):
        images = following.result()
        if start + FRAMES_AT_ONCE < len(rows):  # read while these are added up
            following = cache.arrays.start(modality, rows[start + FRAMES_AT_ONCE : start + 2 * FRAMES_AT_ONCE])
        if start == 0:
            total = np.zeros(images.shape[1:])
            weighted = np.empty_like(total)
            shown = np.ones(images.shape[1:4], bool)
        for weight, image in zip(weights[start : start + len(images)], images, strict=True):
            total += np.multiply(image, weight, out=weighted)  # one by one: the same sum whatever the batch
            shown &= kind.find_surface(image)
    pixels = kind.encode_change(total)  # the weights add up to 0, so the stored zero point cancels
    return (pixels * shown.reshape(*shown.shape, *[1] * len(kind.channels))).astype(kind.dtype)


def _describe(cache: Cache, num_sequences: int) -> CacheInfo:
    settings = dataclasses.replace(cache.info.settings, dynamic=POOLING)
    return CacheInfo(
        dataset=cache.info.dataset,
        licence=cache.info.licence,
        class_names=cache.info.class_names,
        settings=settings,
        store=cache.info.store,
        compression=cache.info.compression,
        num_samples=num_sequences,
        num_shards=num_shards(num_sequences),
        target_names=cache.info.target_names,
        settings_fingerprint=settings_fingerprint(
            cache.info.dataset, settings, cache.info.store, cache.info.compression
        ),
        software=software_versions(),
    )


def _plan_rows(cache: Cache) -> _Plan:
    digests = [fingerprint(record.files) for record in read_records(cache.path, cache.info)]
    return _Plan(
        samples=[_plan_sample(cache, sequence) for sequence in cache.sequences],
        frames=[[r for r in cache.frames(s.sequence) if cache.samples[r].valid] for s in cache.sequences],
        first_rows=[sequence.first_row for sequence in cache.sequences],
        digests=digests,
    )


def _plan_sample(cache: Cache, sequence: SequenceRow) -> Sample:
    first = cache.samples[sequence.first_row]
    return Sample(
        sample_id=sequence.sequence,
        subject=sequence.subject,
        sequence="",
        frame=None,
        label=sequence.label,
        intensity=first.intensity,
        task=first.task,
        source=first.source,
    )


def _rows(info: CacheInfo, shard: int) -> range:
    return range(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, info.num_samples))


def _input_fingerprint(cache: Cache, info: CacheInfo, shard: int, plan: _Plan) -> str:
    """What decides a shard's bytes and rows: settings, the sequences' words, their frames, and the shards that hold those."""
    rows = []
    for row in _rows(info, shard):
        members = [plan.first_rows[row], *plan.frames[row]]
        frames = [[frame, cache.samples[frame].source_hash, cache.samples[frame].modalities] for frame in members]
        digests = [plan.digests[number] for number in sorted({frame // SHARD_ROWS for frame in members})]
        rows.append([dataclasses.asdict(plan.samples[row]), frames, digests])
    return fingerprint({"settings": info.settings_fingerprint, "rows": rows})


def _is_finished(cache: Cache, out: Path, info: CacheInfo, shard: int, plan: _Plan) -> bool:
    """Whether a shard's record speaks of these sequences and every byte is as it was written."""
    try:
        record = read_record(out, shard)
    except CacheError:
        return False
    if record is None or record.input_fingerprint != _input_fingerprint(cache, info, shard, plan):
        return False
    if not set(record.files) <= set(shard_files(info, shard)):
        return False
    return all(is_file(out / name) and hash_file(out / name) == digest for name, digest in record.files.items())


def _build_shard(cache: Cache, out: Path, info: CacheInfo, shard: int, plan: _Plan, bar: tqdm) -> int:
    """Writes one shard and its record; returns how many of its sequences are valid."""
    rows = _rows(info, shard)
    arrays, present = {}, {}
    for name, shape in info.arrays().items():
        arrays[name] = np.full((len(rows), *shape[1:]), ARRAYS[name].fill, ARRAYS[name].dtype)
        present[name] = np.zeros(len(rows), bool)
    samples = []
    for place, row in enumerate(rows):
        frames = plan.frames[row]
        held = []
        for modality in info.settings.modalities:
            usable = [frame for frame in frames if cache.samples[frame].has(modality)]
            if len(usable) >= 2:
                arrays[modality][place], present[modality][place] = pool_frames(cache, modality, usable), True
                held.append(modality)
        sample = dataclasses.replace(plan.samples[row], reason="" if held else TOO_FEW)
        if held:
            for name in {"scan_to_face", "targets"} & info.arrays().keys():  # those of the first frame
                arrays[name][place], present[name][place] = cache.arrays.read(name, frames[:1])[0], True
            sample = dataclasses.replace(
                sample,
                source_hash=fingerprint([cache.samples[frame].source_hash for frame in frames]),
                valid=True,
                modalities="+".join(held),
                alignment=cache.samples[frames[0]].alignment,
                misfit_mm=cache.samples[frames[0]].misfit_mm,
                eye_distance_mm=cache.samples[frames[0]].eye_distance_mm,
            )
        samples.append(sample)
        bar.update()
    files = encode_shard(info, shard, arrays, present)
    cache.check_unchanged()
    # The record goes first: from here to its rewriting the shard does not count.
    remove_file(record_path(out, shard))
    for name in shard_files(info, shard):
        if name not in files:
            remove_file(out / name)
    hashes = {name: write_file(out / name, data) for name, data in files.items()}
    inputs = _input_fingerprint(cache, info, shard, plan)
    write_record(out, ShardRecord(shard, rows.start, tuple(samples), inputs, hashes))
    return sum(sample.valid for sample in samples)


def _copy_prompts(cache: Cache, out: Path) -> None:
    """The source's prompt embeddings; those that the new cache was given since stay."""
    for path in cache.text_files():
        for file in (path, path.with_name(path.name + ".sha256")):
            copy = out / "text" / file.name
            if is_file(file) and not is_file(copy):
                write_file(copy, read_bytes(file))
