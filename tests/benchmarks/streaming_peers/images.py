"""The images of the comparison: renders of synthetic people, in our two stores and as one plain array for the peers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.cache import Cache, num_shards, open_cache, write_info
from shared.csv_tables import encode_table as encode_table
from shared.csv_tables import read_table
from shared.schema import COMPRESSIONS, SHARD_ROWS, CacheInfo, Sample
from shared.store.paths import open_path
from shared.store.storage import STORES, encode_metadata, encode_shard, write_file

VIEWS = "0,20,-20,40,-40"
NUM_SAMPLES = 512
NUM_SUBJECTS = (
    4  # 100 different scans, again and again: a sample is compressed by itself, so it costs what a new one would
)
IMAGES_NPY = "images.npy"
ROOT = Path(__file__).resolve().parents[3]


def make_images(folder: Path) -> None:
    """Writes images.npy u8 (512, 5, 224, 224, 3), zarr/ and hdf5/ into a folder; nothing where they are already."""
    if (folder / "made.txt").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "preprocess"]
    scans, cache = str(folder / "scans"), str(folder / "rendered")
    for step in (
        ["synth", "bu3dfe", "--out", scans, "--subjects", str(NUM_SUBJECTS)],
        ["build", "bu3dfe", "--root", scans, "--cache", cache, "--views", VIEWS, "--modalities", "texture"],
    ):
        subprocess.run([*command, *step], cwd=ROOT, check=True, capture_output=True)
    drawn = open_cache(folder / "rendered")
    rows = np.arange(NUM_SAMPLES) % drawn.info.num_samples
    images = drawn.arrays.read("texture", rows)
    np.save(folder / IMAGES_NPY, images)
    samples = [replace(drawn.samples[row], sample_id=f"{place:04d}") for place, row in enumerate(rows)]
    for store in STORES:
        for compression in COMPRESSIONS:
            info = replace(drawn.info, store=store, compression=compression)
            write_cache(str(folder / f"{store}-{compression}"), info, samples, images)
    (folder / "made.txt").write_text("")


def write_cache(where: str, drawn: CacheInfo, samples: list[Sample], images: np.ndarray) -> None:
    """The parts of a cache that reading needs: cache.json, the samples and the shards."""
    path = open_path(where)
    info = replace(drawn, num_samples=len(samples), num_shards=num_shards(len(samples)), file_hashes={})
    for name, data in encode_metadata(info).items():
        write_file(path / name, data)
    for shard in range(info.num_shards):
        part = slice(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, len(samples)))
        num_rows = part.stop - part.start
        arrays = {name: np.zeros((num_rows, *shape[1:]), np.float32) for name, shape in info.arrays().items()}
        for name, data in encode_shard(info, shard, {**arrays, "texture": images[part]}, {}).items():
            write_file(path / name, data)
    write_file(path / "samples.csv", encode_table(Sample, samples))
    write_info(path, info)


def open_images(where: str) -> Cache:
    from shared.cache import read_info

    path = open_path(where)
    return Cache(path, read_info(path), read_table(path / "samples.csv", Sample), [])
