"""Open, write and read a cache folder: cache.json, the index tables, the shard records, the prompt embeddings."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections import abc
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shared.csv_tables import read_table
from shared.errors import CacheError, describe_os_error, first_line
from shared.groups import GROUPS_CSV, Groups, read_groups
from shared.modalities import MODALITIES
from shared.runs import ABLATION_JSON, CONFIG_JSON, CROSSVAL_JSON
from shared.schema import (
    CAPTIONS_SUFFIX,
    COMPRESSIONS,
    FORMAT_VERSION,
    SHARD_ROWS,
    CacheInfo,
    Sample,
    Sequence,
    ShardRecord,
    View,
    choose_views,
    fingerprint,
    text_file_name,
)
from shared.sequences import group_frames
from shared.signed_json import read_signed_json, write_signed_json
from shared.store.arrays import ArrayReader
from shared.store.paths import is_file, is_remote, list_files, open_path, read_bytes
from shared.store.storage import STORES, hash_file, open_arrays
from shared.text import TextEmbeddings, read_text_embeddings
from shared.typed_json import make

# Data sets whose caches from before a revision of the renderer are wrong in a way that nothing in them shows: that
# revision, and what is wrong.
WITHDRAWN = {
    "bp4d": (
        4,
        "its landmarks, brows first, were read in BU-3DFE's order, eyes first, "
        "and faces placed by them are pitched by 13 to 18 degrees",
    )
}

CACHE_JSON = "cache.json"
SAMPLES_CSV = "samples.csv"
SEQUENCES_CSV = "sequences.csv"
FAILURES_CSV = "failures.csv"
_FILE_NAME = re.compile(r"(?=.{1,200}\Z)[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_COUNT, _MAX_COLUMNS = 1 << 31, 10_000


@dataclass(frozen=True, slots=True)
class Failure:
    """A row of failures.csv: a scan that is not valid ("failed"), or whose images lack something ("warning"), and why."""

    source: str
    sample_id: str
    kind: str  # failed or warning
    reason: str

    @classmethod
    def of(cls, sample: Sample) -> Failure | None:
        """Return the failure or warning of a row of samples.csv; None where nothing is wrong with it."""
        if sample.valid and not sample.reason:
            return None
        return cls(sample.source, sample.sample_id, "warning" if sample.valid else "failed", sample.reason)


def generalise_reason(row: Failure | Sample) -> str:
    """Return why a row failed without its file and numbers: equal for failures of one kind."""
    return _NUMBER.sub("#", row.reason.replace(row.source, ""))


# --- cache.json and records ---


def hash_content(file_hashes: dict[str, str], record_hashes: abc.Sequence[str]) -> str:
    """Return CacheInfo.content_hash from the sha256 of the tables and of each shard's record."""
    tables = [file_hashes.get(SAMPLES_CSV), file_hashes.get(SEQUENCES_CSV)]
    tables += [file_hashes[GROUPS_CSV]] if GROUPS_CSV in file_hashes else []  # most caches have none
    return fingerprint({"tables": tables, "records": list(record_hashes)})


def write_info(cache: Path, info: CacheInfo) -> None:
    write_signed_json(cache / CACHE_JSON, dataclasses.asdict(info))


def _read_cache_json(cache: Path) -> bytes:
    if not is_file(cache / CACHE_JSON):
        if any(is_file(cache / name) for name in (CONFIG_JSON, CROSSVAL_JSON, ABLATION_JSON)):
            raise CacheError(
                f"{cache}: is a run or a model, not a cache; give the folder that `python -m preprocess build` made"
            )
        raise CacheError(f"{cache}: no cache here (no {CACHE_JSON}); make one with `python -m preprocess build`")
    return read_bytes(cache / CACHE_JSON)


def read_info(cache: Path) -> CacheInfo:
    """Read cache.json of a cache folder, complete or not.

    Raises:
        CacheError: no cache here, another format version, damaged.
    """
    path = cache / CACHE_JSON
    try:  # the version first: another version's file may be laid out in any way
        raw = json.loads(_read_cache_json(cache))
        version = raw["format_version"] if isinstance(raw, dict) else None
    except (ValueError, KeyError, RecursionError):
        version = FORMAT_VERSION  # not readable at all: let the checksum speak
    if version != FORMAT_VERSION:
        raise CacheError(
            f"{path}: cache format version {version!r:.40}, this program reads {FORMAT_VERSION}; "
            "build the cache again with this version, or install the version that wrote it"
        )
    try:
        info = make(CacheInfo, read_signed_json(path))
        _check_counts(info)
    except (ValueError, CacheError) as error:
        raise CacheError(f"{path}: damaged ({first_line(error)}); run `python -m preprocess build` again") from error
    if info.store not in STORES:
        raise CacheError(f"{path}: unknown store {info.store!r:.40}, expected one of {', '.join(STORES)}")
    if info.compression not in COMPRESSIONS:
        known = ", ".join(COMPRESSIONS)
        raise CacheError(f"{path}: unknown compression {info.compression!r:.40}, expected one of {known}")
    return info


def describe_withdrawn(info: CacheInfo) -> str:
    """Return why a cache must not be used; "" where nothing is known against it."""
    revision, what = WITHDRAWN.get(info.dataset, (0, ""))
    if info.settings.revision >= revision:
        return ""
    return f"was built by an earlier version (revision {info.settings.revision}) that got {info.dataset} wrong: {what}"


def _check_counts(info: CacheInfo) -> None:
    """Compare the counts with each other: memory and loops follow from them.

    Raises:
        ValueError: they cannot be a cache's.
    """
    counts = {f.name: getattr(info, f.name) for f in dataclasses.fields(info) if f.name.startswith("num_")}
    if wrong := [name for name, count in counts.items() if not 0 <= count < _MAX_COUNT]:
        raise ValueError(f"{wrong[0]} is {counts[wrong[0]]}")
    if info.num_shards != num_shards(info.num_samples) or info.num_valid > info.num_samples:
        raise ValueError(f"{info.num_shards} shards and {info.num_valid} valid rows of {info.num_samples}")
    for name, digest in info.file_hashes.items():  # never trust a path read from a file
        if not _FILE_NAME.fullmatch(name) or ".." in name or not _DIGEST.fullmatch(digest):
            raise ValueError(f"names the file {name!r:.60}")
    if max(info.num_landmarks, len(info.au_names), len(info.target_names)) > _MAX_COLUMNS:
        raise ValueError(f"{info.num_landmarks} landmarks, {len(info.au_names)} action units")


def record_path(cache: Path, shard: int) -> Path:
    return cache / "records" / f"{shard:05d}.json"


def write_record(cache: Path, record: ShardRecord) -> None:
    write_signed_json(record_path(cache, record.shard), dataclasses.asdict(record))


def read_record(cache: Path, shard: int) -> ShardRecord | None:
    """Read a shard's record; None where the shard was never finished.

    Raises:
        CacheError: the record is damaged.
    """
    path = record_path(cache, shard)
    try:
        record = make(ShardRecord, read_signed_json(path))
        if record.shard != shard or record.first_row != shard * SHARD_ROWS or len(record.samples) > SHARD_ROWS:
            raise ValueError(f"a record of shard {record.shard}")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CacheError(f"{path}: damaged ({first_line(error)}); run `python -m preprocess build` again") from error
    for name in record.files:  # never trust a path read from a file
        if not _FILE_NAME.fullmatch(name) or ".." in name:
            raise CacheError(f"{path}: names a file outside the cache ({name!r:.60}); build the cache again")
    return record


# --- a whole cache ---


def find_text_files(cache: Path) -> list[Path]:
    """Return the files of prompt embeddings in a cache, by name."""
    return [path for path in _find_hdf5(cache / "text") if not path.name.endswith(CAPTIONS_SUFFIX)]


def find_caption_files(cache: Path) -> list[Path]:
    """Return the files of captions in a cache, by name."""
    return [path for path in _find_hdf5(cache / "text") if path.name.endswith(CAPTIONS_SUFFIX)]


def _find_hdf5(folder: Path) -> list[Path]:
    return [folder / name for name in list_files(folder) if name.endswith(".h5") and "/" not in name]


def find_records(cache: Path) -> set[int]:
    """Return the shards that have a record."""
    names = {name.removesuffix(".json") for name in list_files(cache / "records") if name.endswith(".json")}
    return {int(name) for name in names if name.isascii() and name.isdigit() and f"{int(name):05d}" == name}


@dataclass(frozen=True)
class Cache:
    """An opened, complete cache. Opening reads the tables; images are read when asked for."""

    path: Path
    info: CacheInfo
    samples: list[Sample]
    sequences: list[Sequence]
    groups: Groups = field(default_factory=dict)
    stored: CacheInfo | None = None  # what its files hold, where `with_views` chose among their views
    version: tuple[int, ...] = ()  # of the file cache.json when it was opened: changes with every writing

    @property
    def name(self) -> str:
        """Return the folder's name. In a run folder, files about this cache have it in their names."""
        return self.path.resolve().name

    @cached_property
    def arrays(self) -> ArrayReader:
        return self.open_arrays()

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: no open files."""
        return {name: value for name, value in self.__dict__.items() if name != "arrays"}

    def __bool__(self) -> bool:
        return True  # also without rows, as an opened cache is not None

    def __len__(self) -> int:
        """Return the number of rows, those that are not valid included."""
        return len(self.samples)

    def __getitem__(self, row: int | str) -> dict[str, np.ndarray]:
        """Return the arrays of one row: name → values as they are stored (shared/README.md, arrays).

        Args:
            row: its index, or its sample_id.
        Returns:
            Only the modalities that the row holds: none if it is not valid.
        Raises:
            IndexError: there is no such row. KeyError: there is no such sample. CacheError: stored values are damaged.
        """
        index = self._rows[row] if isinstance(row, str) else range(len(self))[row]
        sample = self.samples[index]
        names = [name for name in self.info.arrays() if name not in MODALITIES or (sample.valid and sample.has(name))]
        return {name: self.arrays.read(name, [index])[0] for name in names}

    def table(self) -> dict[str, list[Any]]:
        """Return samples.csv and groups.csv as column → values, for `pandas.DataFrame(cache.table())`.

        A group with the name of a column of samples.csv is called group_NAME.
        """
        names = [field.name for field in dataclasses.fields(Sample)]
        columns: dict[str, list[Any]] = {name: [getattr(one, name) for one in self.samples] for name in names}
        return columns | {f"group_{n}" if n in columns else n: list(values) for n, values in self.groups.items()}

    def check_unchanged(self) -> None:
        """Check that the cache is still the one that was opened; to be called before results from it are written.

        A build takes `complete` out of cache.json, or removes it, before it changes an image; so images that were read before
        this call are those of the opened cache.

        Raises:
            CacheError: it was built anew meanwhile, or is being built.
        """
        try:
            version = _file_version(self.path)
            if self.version and version == self.version:
                return
            info = read_info(self.path)
        except CacheError:
            raise CacheError(f"{self.path}: {_REBUILT}") from None
        if (self.version and version) or not info.complete or info.content_hash != self.info.content_hash:
            raise CacheError(f"{self.path}: {_REBUILT}")

    def open_arrays(self) -> ArrayReader:
        """Return a new reader; `arrays` is one for all."""
        stored = self.stored or self.info
        chosen = choose_views(stored.settings.views, self.info.settings.views)
        return open_arrays(self.path, stored, views=chosen)

    def with_views(self, views: abc.Sequence[View]) -> Cache:
        """Return this cache as if it had been rendered from some of its views alone, in the given order.

        Raises:
            CacheError: it does not hold one of them; names those it holds.
        """
        stored = self.stored or self.info
        try:
            chosen = choose_views(stored.settings.views, views)
        except ValueError as error:
            raise CacheError(
                f"{self.path}: holds no view {error}; it holds {stored.settings.views_text()}; see --views"
            ) from error
        if chosen is None:
            return self if self.stored is None else dataclasses.replace(self, info=stored, stored=None)
        settings = dataclasses.replace(stored.settings, views=tuple(views))
        return dataclasses.replace(self, info=dataclasses.replace(stored, settings=settings), stored=stored)

    def with_all_views(self) -> Cache:
        """Return the cache that `with_views` chose from."""
        return self if self.stored is None else self.with_views(self.stored.settings.views)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {sample.sample_id: row for row, sample in enumerate(self.samples)}

    @cached_property
    def _frames(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(rows) for name, rows in group_frames(self.samples).items()}

    def frames(self, sequence: str) -> tuple[int, ...]:
        """Return the rows of a sequence's frames in time order, those that are not valid included; () if there are none."""
        return self._frames.get(sequence, ())

    def row_of(self, sample_id: str) -> int:
        """Return the row that holds a sample's images."""
        return self._rows[sample_id]

    def read_text(self, model: str | None = None) -> TextEmbeddings:
        """Read the prompt embeddings of a model, or the only ones there are."""
        files = find_text_files(self.path)
        advice = f"make them with `python -m preprocess prompts --cache {shlex.quote(str(self.path))}"
        if model is not None:
            path = self.path / "text" / text_file_name(model)
            if path not in files:
                names = ", ".join(f.stem for f in files) or "none"
                raise CacheError(
                    f"{self.path}: no prompt embeddings of {model} (found: {names}); {advice} --model {model}`"
                )
            return read_text_embeddings(path)
        if len(files) != 1:
            found = "no prompt embeddings" if not files else f"prompt embeddings of {', '.join(f.stem for f in files)}"
            raise CacheError(f"{self.path}: {found}; {f'{advice}`' if not files else 'choose one with --model'}")
        return read_text_embeddings(files[0])


_REBUILT = (
    "was built anew while it was read; results since then are discarded: run the command again when the build is done"
)


def _file_version(cache: Path) -> tuple[int, ...]:
    """Return identity, time and size of a local cache.json; () in an object store.

    Raises:
        CacheError: there is none.
    """
    if is_remote(cache):
        return ()
    try:
        status = (cache / CACHE_JSON).stat()
    except OSError as error:
        raise CacheError(f"{cache}: no cache here ({describe_os_error(error)})") from error
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def open_cache(path: Path | str) -> Cache:
    """Open a finished cache and check that its tables and shards are all there (not every byte: `verify` does that).

    Raises:
        CacheError: no cache, another version, unfinished, known to be wrong, or a table or shard is missing or changed.
    """
    path = open_path(path)
    _read_cache_json(path)  # names a folder that is none
    version = _file_version(path)
    info = read_info(path)
    if not info.complete:
        raise CacheError(
            f"{path}: the cache is not finished; wait for its build, or run the same `python -m preprocess build` again"
        )
    if why := describe_withdrawn(info):
        raise CacheError(f"{path}: {why}; build it anew with `python -m preprocess build {info.dataset} … --overwrite`")
    for name, digest in info.file_hashes.items():
        if not is_file(path / name):
            raise CacheError(f"{path / name}: missing; run `python -m preprocess build` again")
        if hash_file(path / name) != digest:
            raise CacheError(
                f"{path / name}: changed since the cache was built; run `python -m preprocess build` again"
            )
    samples = read_table(path / SAMPLES_CSV, Sample)
    if len(samples) != info.num_samples:
        raise CacheError(
            f"{path / SAMPLES_CSV}: {len(samples)} rows, {CACHE_JSON} records {info.num_samples}; run build again"
        )
    for shard in sorted(set(range(info.num_shards)) - find_records(path)):
        raise CacheError(f"{record_path(path, shard)}: missing, so its samples do not count; run build again")
    has_groups = GROUPS_CSV in info.file_hashes
    groups = read_groups(path / GROUPS_CSV, [sample.sample_id for sample in samples]) if has_groups else {}
    cache = Cache(path, info, samples, read_table(path / SEQUENCES_CSV, Sequence), groups, version=version)
    cache.check_unchanged()
    return cache


def num_shards(num_samples: int) -> int:
    return -(-num_samples // SHARD_ROWS)
