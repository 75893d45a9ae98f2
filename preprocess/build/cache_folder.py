"""Lock, start, continue, clean up and finish a cache folder."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preprocess.build.engine import map_files
from shared.cache import (
    CACHE_JSON,
    FAILURES_CSV,
    SAMPLES_CSV,
    SEQUENCES_CSV,
    Failure,
    describe_withdrawn,
    hash_content,
    num_shards,
    read_info,
    record_path,
    write_info,
)
from shared.csv_tables import encode_table
from shared.errors import CacheError
from shared.groups import GROUPS_CSV, Groups, encode_groups
from shared.schema import FORMAT_VERSION, SHARD_ROWS, CacheInfo, Sample, fingerprint
from shared.schema import Sequence as SequenceRow
from shared.store.hdf5_store import VIEWS_HDF5
from shared.store.lock import hold_lock
from shared.store.paths import is_file, is_litter, is_remote, list_files, read_bytes, remove_file, remove_folder
from shared.store.remote_lock import hold_remote_lock
from shared.store.storage import PARTIAL_SUFFIX, encode_metadata, hash_file, write_file
from shared.store.zarr_store import VIEWS_ZARR

# Names that a folder may hold before its first build: another build may have begun, or was killed.
CACHE_PARTS = {
    ".build",
    CACHE_JSON,
    "text",
    "records",
    VIEWS_ZARR,
    VIEWS_HDF5,
    SAMPLES_CSV,
    SEQUENCES_CSV,
    GROUPS_CSV,
    FAILURES_CSV,
    "README.md",
}
# What each revision of RenderSettings changed in the images.
REVISIONS = {
    5: "the crop sphere cuts faces pixel by pixel, not triangle by triangle",
    6: "texture is filtered over each pixel, with several samples at edges alone",
    7: "texture is filtered also at outlines against the background",
}
SOFTWARE = ("numpy", "zarr", "h5py", "numcodecs", "pillow", "simplejpeg")


def describe_build(info: CacheInfo) -> CacheInfo:
    """Return cache.json before any shard is written: settings, their fingerprint, versions; no results, not complete."""
    return dataclasses.replace(
        info,
        num_valid=0,
        num_subjects=0,
        num_sequences=0,
        content_hash="",
        file_hashes={},
        complete=False,
        num_shards=num_shards(info.num_samples),
        settings_fingerprint=settings_fingerprint(info),
        software=software_versions(),
    )


def settings_fingerprint(info: CacheInfo) -> str:
    """Return a hash of the settings; a build continues only in a cache with the same one."""
    values: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "dataset": info.dataset,
        "settings": dataclasses.asdict(info.settings),
        "store": info.store,
        "shard_rows": SHARD_ROWS,
    }
    if not info.settings.dynamic:  # older caches have no such field and keep their fingerprint
        del values["settings"]["dynamic"]
    if info.compression != "lz4":
        values["compression"] = info.compression
    return fingerprint(values)


def software_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide a cache's bytes."""
    return {name: importlib.metadata.version(name) for name in SOFTWARE}


@contextmanager
def lock_cache(cache: Path) -> Iterator[None]:
    """Make the folder with mode 0700 (it holds faces) and lock it for one writer.

    The kernel releases the lock when the process ends: a killed build leaves no stale lock. In an object store the lock is an
    object that expires.

    Raises:
        CacheError: another build is writing this cache, or the folder holds something else; then no lock is left there.
        StorageError: the object store cannot be reached or refuses.
    """
    what = f"{cache}: another build is writing this cache"
    if is_remote(cache):
        with hold_remote_lock(cache / ".build" / "lock", what=what):
            yield
        return
    if cache.is_dir() and not is_file(cache / CACHE_JSON):
        _refuse_strangers(cache)
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    if linked := [
        name for name in (".build", "records", "text", VIEWS_ZARR, VIEWS_HDF5) if (cache / name).is_symlink()
    ]:
        raise CacheError(
            f"{cache / linked[0]}: is a link, and files would be written to its target; put the folder itself there"
        )
    with hold_lock(cache / ".build" / "lock", CacheError(f"{what}; wait until it has ended")):
        yield


def start_cache(cache: Path, info: CacheInfo, *, overwrite: bool = False, advice: str) -> None:
    """Make sure that a folder may be written as the cache that `info` describes; remove partial files of a killed build.

    Args:
        overwrite: empty a cache of other settings instead of refusing it.
        advice: what to do about a cache of other settings; ends the error message.
    Raises:
        CacheError: the folder holds something else, a cache of other settings, or a damaged one.
    """
    if is_file(cache / CACHE_JSON):
        old = _read_info(cache, damaged_is_none=overwrite, advice=advice)
        if old is None or old.settings_fingerprint != info.settings_fingerprint:
            if old is not None and not overwrite:
                if why := describe_withdrawn(old):
                    raise CacheError(f"{cache}: {why}; {advice}")
                raise CacheError(f"{cache}: was built with other settings ({_describe_change(old, info)}); {advice}")
            _clear(cache)
    else:
        _refuse_strangers(cache)
    if not is_remote(cache):
        for name in list_files(cache):
            if name.endswith(PARTIAL_SUFFIX) and name.rpartition("/")[2].startswith("."):
                remove_file(cache / name)


def _refuse_strangers(cache: Path) -> None:
    """Raise CacheError if a folder without cache.json holds anything that is not part of a cache."""
    if is_remote(cache):
        names = {name.split("/")[0] for name in list_files(cache)}
    else:
        names = {path.name for path in cache.iterdir()}  # empty folders too
    if strangers := sorted(name for name in names if not _is_cache_part(name) and not is_litter(name)):
        raise CacheError(f"{cache}: not empty and not a cache (holds {strangers[0]}); choose another folder")


def _is_cache_part(name: str) -> bool:
    """Return whether a name is in CACHE_PARTS, or of a partial file such as `.cache.json.4711.partial`."""
    partial_name = name[1:].removesuffix(PARTIAL_SUFFIX).rpartition(".")[0]
    return name in CACHE_PARTS or (name.endswith(PARTIAL_SUFFIX) and partial_name in CACHE_PARTS)


def _read_info(cache: Path, *, damaged_is_none: bool, advice: str = "") -> CacheInfo | None:
    try:
        return read_info(cache)
    except CacheError as error:
        if damaged_is_none:
            return None
        what = str(error).rpartition("; ")[0] or str(error)  # the original advice is to build again
        raise CacheError(f"{what}; {advice}") from error


def _describe_change(old: CacheInfo, new: CacheInfo) -> str:
    before, after = (
        {"dataset": info.dataset, "store": info.store, "compression": info.compression, **vars(info.settings)}
        for info in (old, new)
    )
    changes = [
        f"{name} {_show(before[name])}, now {_show(after[name])}" for name in before if before[name] != after[name]
    ]
    news = [text for revision, text in REVISIONS.items() if old.settings.revision < revision <= new.settings.revision]
    if news:
        changes.append(f"since then {'; '.join(news)}")
    return "; ".join(changes) or "another version of the renderer"


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value) or "none"


def _clear(cache: Path) -> None:
    """Remove the files of a build, cache.json first: a kill then leaves no cache rather than half of one."""
    for name in (CACHE_JSON, SAMPLES_CSV, SEQUENCES_CSV, GROUPS_CSV, FAILURES_CSV):
        remove_file(cache / name)
    for folder in ("records", VIEWS_ZARR, VIEWS_HDF5):
        remove_folder(cache / folder)
    for name in list_files(cache / ".build"):
        if name.endswith(".json"):
            remove_file(cache / ".build" / name)


def open_for_writing(cache: Path, info: CacheInfo, samples: Sequence[Sample], *, unfinished: bool) -> None:
    """Write cache.json, samples.csv and the arrays' metadata, before any shard is written.

    Writes nothing if no shard is left to do and the cache is complete and already matches `info`.

    Args:
        info: as it shall be in cache.json until `finish_cache`: without `complete`.
        unfinished: whether some shards are still to be written.
    """
    if not unfinished and _is_finished(cache, info):
        return
    write_info(cache, info)
    write_file(cache / SAMPLES_CSV, encode_table(Sample, samples))
    for name, data in encode_metadata(info).items():
        write_file(cache / name, data)


def _is_finished(cache: Path, info: CacheInfo) -> bool:
    old = _read_info(cache, damaged_is_none=True)
    return old is not None and old.complete and dataclasses.replace(describe_build(old), software=old.software) == info


def finish_cache(
    cache: Path, info: CacheInfo, samples: Sequence[Sample], sequences: Sequence[SequenceRow], groups: Groups
) -> tuple[CacheInfo, list[Failure]]:
    """Write the tables, then cache.json, with `complete` if at least one row is valid.

    Args:
        groups: column → one value per row; empty: no groups.csv.
    Returns:
        The content of cache.json; failed rows and warnings.
    """
    digests = list(map_files(cache, hash_file, (record_path(cache, shard) for shard in range(info.num_shards))))
    failures = [failure for sample in samples if (failure := Failure.of(sample))]
    valid = [sample for sample in samples if sample.valid]
    tables = {
        SAMPLES_CSV: encode_table(Sample, samples),
        SEQUENCES_CSV: encode_table(SequenceRow, sequences),
        FAILURES_CSV: encode_table(Failure, failures),
    }
    if groups:
        tables[GROUPS_CSV] = encode_groups([sample.sample_id for sample in samples], groups)
    else:
        remove_file(cache / GROUPS_CSV)
    hashes = {name: write_file(cache / name, data) for name, data in tables.items()}
    for name, data in encode_metadata(info).items():
        if not is_file(cache / name) or read_bytes(cache / name) != data:
            write_file(cache / name, data)
        hashes[name] = hash_file(cache / name)
    info = dataclasses.replace(
        info,
        num_valid=len(valid),
        num_subjects=len({sample.subject for sample in valid}),
        num_sequences=len(sequences),
        file_hashes=hashes,
        content_hash=hash_content(hashes, digests),
        complete=bool(valid),
    )
    write_info(cache, info)
    return info, failures
