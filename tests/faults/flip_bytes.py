"""Flips single bytes at random places over all files of a cache, one at a time: does `verify` find every one, and the sample?

    python tests/faults/flip_bytes.py [--flips 1000] [--seed 0]

Builds a small synthetic cache in each store, with prompt embeddings. A flip is found when `verify_cache` reports a problem or
refuses the cache; for flips in image files the sample that owns the byte is known from the undamaged file's own index, and must
be named. Prints a table by kind of file. Exit code 0: all found; 1: some were not, and they are listed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from preprocess.build.verify import verify_cache  # noqa: E402
from shared.cache import read_info, read_record  # noqa: E402
from shared.errors import CacheError  # noqa: E402
from shared.schema import SHARD_ROWS, ShardRecord  # noqa: E402
from shared.store.storage import STORES  # noqa: E402


def build(folder: Path, store: str) -> Path:
    """A cache of 75 synthetic scans of three people, two shards, through the command line as a user builds it."""
    scans, cache = folder / "scans", folder / store
    command = [sys.executable, "-m", "preprocess"]
    if not scans.exists():
        run([*command, "synth", "bu3dfe", "--out", str(scans), "--subjects", "3"])
    run([*command, "build", "bu3dfe", "--root", str(scans), "--cache", str(cache), "--size", "32", "--store", store])
    run([*command, "prompts", "--cache", str(cache), "--model", "facet-tiny", "--pretrained", "none"])
    return cache


def run(command: list[str]) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {result.returncode}\n{result.stderr}")


def kind_of(name: str) -> str:
    parts = name.split("/")
    if parts[0] == "views.zarr":
        return "zarr.json" if parts[-1] == "zarr.json" else f"zarr {parts[1]}"
    return {"views": "hdf5 shard", "records": "record", "text": "prompts"}.get(parts[0], name)


def owners(path: Path, name: str, place: int, records: dict[int, ShardRecord]) -> set[str]:
    """The samples of which `verify` must name one for this byte; empty where the byte is no array's."""
    parts = name.split("/")
    if parts[0] == "views":
        record = records[int(parts[1][6:11])]
        with h5py.File(path) as file:
            for dataset in file.values():
                for number in range(dataset.id.get_num_chunks()):
                    chunk = dataset.id.get_chunk_info(number)
                    if chunk.byte_offset <= place < chunk.byte_offset + chunk.size:
                        first = chunk.chunk_offset[0]
                        return {s.sample_id for s in record.samples[first : first + dataset.chunks[0]]}
        return set()
    if parts[0] == "views.zarr" and parts[-1] != "zarr.json":
        record = records[int(parts[3])]
        data = path.read_bytes()
        num_chunks = SHARD_ROWS if parts[1] in ("texture", "normal", "depth") else 1
        index = np.frombuffer(data[-16 * num_chunks - 4 : -4], "<u8").reshape(-1, 2)
        for row, (start, length) in enumerate(index.tolist()):
            if start <= place < start + length:
                return {record.samples[row].sample_id} if num_chunks > 1 else {s.sample_id for s in record.samples}
        return {s.sample_id for s in record.samples}
    return set()


@dataclass
class Flips:
    """Counts by kind of file; missed: a line for each flip that was not found, or whose sample was not named."""

    tried: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)


def flip_all(cache: Path, num_flips: int, rng: np.random.Generator) -> Flips:
    """Tries the flips, every other one in a file drawn by its size, the rest in any file alike."""
    files = sorted(p for p in cache.rglob("*") if p.is_file() and ".build" not in p.parts and p.stat().st_size)
    sizes = np.array([path.stat().st_size for path in files], float)
    info = read_info(cache)
    records = {shard: record for shard in range(info.num_shards) if (record := read_record(cache, shard)) is not None}
    flips = Flips()
    for attempt in range(num_flips):
        path = files[rng.choice(len(files), p=sizes / sizes.sum() if attempt % 2 else None)]
        name = path.relative_to(cache).as_posix()
        whole = path.read_bytes()
        place, mask = int(rng.integers(len(whole))), int(rng.integers(1, 256))
        expected = owners(path, name, place, records)
        damaged = bytearray(whole)
        damaged[place] ^= mask
        path.write_bytes(damaged)
        try:
            problems = verify_cache(cache)
        except CacheError as error:
            problems = [str(error)]
        finally:
            path.write_bytes(whole)
        kind = kind_of(name)
        flips.tried[kind] += 1
        flips.found[kind] += bool(problems)
        text = " ".join(problems)
        flips.named[kind] += not expected or any(sample in text for sample in expected)
        if not problems:
            flips.missed.append(f"{name}, byte {place} xor {mask}")
        elif expected and not any(sample in text for sample in expected):
            flips.missed.append(f"{name}, byte {place} xor {mask}: found, but the sample is not named: {text[:200]}")
    return flips


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000, help="in each store (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for store in STORES:
            cache = build(Path(folder), store)
            if verify_cache(cache):
                sys.exit(f"{store}: the cache is not well before anything was flipped")
            flips = flip_all(cache, arguments.flips, np.random.default_rng(arguments.seed))
            if verify_cache(cache):
                sys.exit(f"{store}: a flip was not taken back")
            print(f"\n{store}: {arguments.flips} single-byte flips\n")
            print("| file | flips | found | sample named |\n|---|---|---|---|")
            for kind in sorted(flips.tried):
                print(f"| {kind} | {flips.tried[kind]} | {flips.found[kind]} | {flips.named[kind]} |")
            print(f"| all | {flips.tried.total()} | {flips.found.total()} | {flips.named.total()} |", flush=True)
            missed += [f"{store}: {line}" for line in flips.missed]
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
