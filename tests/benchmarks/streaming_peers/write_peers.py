# mypy: ignore-errors
# (run by the peers' Python: their packages are not in this one)
"""Run by the peers' Python: python write_peers.py FOLDER. Writes images.npy in each peer's own format."""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np

SAMPLES_A_SHARD = 64


def write_png(images: np.ndarray, out: Path) -> None:
    from PIL import Image

    for place, views in enumerate(images):
        for view, image in enumerate(views):
            Image.fromarray(image).save(out / f"{place:04d}-{view}.png")


def write_webdataset(images: np.ndarray, out: Path) -> None:
    for first in range(0, len(images), SAMPLES_A_SHARD):
        with tarfile.open(out / f"{first // SAMPLES_A_SHARD:03d}.tar", "w") as tar:
            for place in range(first, min(first + SAMPLES_A_SHARD, len(images))):
                data = images[place].tobytes()
                member = tarfile.TarInfo(f"{place:04d}.bin")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_litdata(images: np.ndarray, out: Path) -> None:
    from litdata.streaming.cache import Cache

    cache = Cache(str(out), chunk_size=SAMPLES_A_SHARD)
    for place, image in enumerate(images):
        cache[place] = {"image": image.tobytes()}
    cache.done()
    cache.merge()


def write_mds(images: np.ndarray, out: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(out), columns={"image": "bytes"}) as writer:
        for image in images:
            writer.write({"image": image.tobytes()})


def write_huggingface(images: np.ndarray, out: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Value("large_binary")})
    parts = [
        datasets.Dataset.from_dict(
            {"image": [image.tobytes() for image in images[first : first + SAMPLES_A_SHARD]]}, features
        )
        for first in range(0, len(images), SAMPLES_A_SHARD)
    ]
    datasets.concatenate_datasets(parts).save_to_disk(str(out))


WRITERS = {
    "png": write_png,
    "webdataset": write_webdataset,
    "litdata": write_litdata,
    "mds": write_mds,
    "huggingface": write_huggingface,
}


def main() -> None:
    folder = Path(sys.argv[1])
    images = np.load(folder / "images.npy", mmap_mode="r")
    for name, write in WRITERS.items():
        out, done = folder / name, folder / f"{name}.done"
        if not done.exists():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            write(images, out)
            done.touch()


if __name__ == "__main__":
    main()
