"""A cache of any number of rows from a few images: its tables are whole, its shards are links to the first two."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from conftest import CLASSES, write_tiny_cache

from shared.cache import (
    FAILURES_CSV,
    SAMPLES_CSV,
    SEQUENCES_CSV,
    Failure,
    num_shards,
    open_cache,
    read_info,
    record_path,
    write_info,
)
from shared.csv_tables import encode_table
from shared.schema import SHARD_ROWS, Sample, Sequence
from shared.store.storage import encode_metadata, shard_files, write_file

FRAMES = 160  # of a sequence
SEQUENCES = 6  # of a subject
INVALID_EVERY = 997


def write_large_cache(path: Path, num_rows: int, *, num_subjects: int = 0, size_px: int = 224) -> None:
    """Writes a cache that opens: three views of texture, normal and depth.

    Args:
        num_subjects: 0: of a 4D data set, 6 sequences of 160 frames each; else single scans of so many people.
    """
    write_tiny_cache(
        path, model="none", num_subjects=22, size_px=size_px, modalities=("texture", "normal", "depth"), with_text=False
    )
    stored = open_cache(path)
    samples = [_sample(row, stored.samples[row % (2 * SHARD_ROWS)], num_rows, num_subjects) for row in range(num_rows)]
    sequences = [
        Sequence(
            s.sequence, s.subject, row, min(FRAMES, num_rows - row), 25.0, s.label, apex=FRAMES // 2, marks="given"
        )
        for row, s in enumerate(samples)
        if s.frame == 0
    ]
    info = dataclasses.replace(
        read_info(path),
        num_samples=num_rows,
        num_valid=sum(s.valid for s in samples),
        num_subjects=len({s.subject for s in samples}),
        num_sequences=len(sequences),
        num_shards=num_shards(num_rows),
    )
    for shard in range(info.num_shards):
        for source, name in zip(shard_files(info, shard % 2), shard_files(info, shard), strict=True):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            if shard > 2:
                os.link(path / source, path / name)
            elif shard == 2:  # has rows of its own, too few of them
                (path / name).write_bytes((path / source).read_bytes())
        if shard > 1:
            record_path(path, shard).write_bytes(record_path(path, shard % 2).read_bytes())
    failures = [failure for sample in samples if (failure := Failure.of(sample))]
    tables = {
        SAMPLES_CSV: encode_table(Sample, samples),
        SEQUENCES_CSV: encode_table(Sequence, sequences),
        FAILURES_CSV: encode_table(Failure, failures),
        **encode_metadata(info),
    }
    write_info(
        path,
        dataclasses.replace(info, file_hashes={name: write_file(path / name, data) for name, data in tables.items()}),
    )


def _sample(row: int, image: Sample, num_rows: int, num_subjects: int) -> Sample:
    """Row `row`, which looks like `image`."""
    valid = row % INVALID_EVERY != INVALID_EVERY - 1
    told = dataclasses.replace(
        image,
        source_hash=f"{row:064x}",
        valid=valid,
        reason="" if valid else "no face found: 3 of 4 attempts met a hole where the nose should be",
        modalities=image.modalities if valid else "",
    )
    if num_subjects:
        subject = f"S{row * num_subjects // num_rows:04d}"
        label = CLASSES[row % len(CLASSES)]
        name = f"{subject}/{label}{row:06d}"
        return dataclasses.replace(
            told, sample_id=name, subject=subject, label=label, intensity=f"0{1 + row % 4}", source=f"{name}.obj"
        )
    number, frame = divmod(row, FRAMES)
    subject, label = f"S{number // SEQUENCES:03d}", CLASSES[number % len(CLASSES)]
    sequence = f"{subject}/T{number % SEQUENCES + 1}"
    name = f"{sequence}/{frame:03d}"
    return dataclasses.replace(
        told, sample_id=name, subject=subject, label=label, sequence=sequence, frame=frame, source=f"{name}.obj"
    )
