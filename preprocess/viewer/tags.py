"""Tags of samples, kept in a CSV file beside the cache, so that neither a browser nor a rebuilt cache loses them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from preprocess.viewer.address import ANY
from shared.cache import Cache
from shared.csv_tables import encode_csv, read_csv
from shared.errors import CacheError, FacetError
from shared.labels import clean_word
from shared.pairs import group_pairs
from shared.store.lock import hold_lock
from shared.store.paths import is_remote
from shared.store.storage import write_file

HEADER = ["sample_id", "tag"]
MAX_LENGTH = 40  # of a tag
MAX_BYTES = 1 << 26  # of the file


def choose_tags_file(cache: Cache) -> Path:
    """Return `NAME.tags.csv` beside the cache; in the current folder if the cache lies in an object store."""
    folder = Path() if is_remote(cache.path) else cache.path.resolve().parent
    return folder / f"{cache.name}.tags.csv"


class Tags:
    """The file of tags: a line per sample and tag. It is read again when it changes; columns of the user's own stay."""

    def __init__(self, path: Path, cache: Cache) -> None:
        """
        Args:
            cache: what is tagged; the file gets no permission that its folder lacks.
        """
        self.path, self._like = path, None if is_remote(cache.path) else cache.path
        self._names = [sample.sample_id for sample in cache.samples]
        self._lock = threading.Lock()
        self._read: tuple[tuple[int, int], dict[str, tuple[str, ...]]] = ((0, 0), {})

    def by_sample(self) -> dict[str, tuple[str, ...]]:
        """Return sample_id → tags, in the order in which they were given.

        Raises:
            FacetError: the file is no such table.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return {}
        version = (status.st_mtime_ns, status.st_size)
        if version != self._read[0]:
            found = group_pairs((sample_id, tag) for sample_id, tag, *_ in self._lines()[1:])
            self._read = (version, {name: tuple(dict.fromkeys(tags)) for name, tags in found.items()})
        return self._read[1]

    def options(self) -> list[str]:
        """Return the tags of the cache's samples, as a filter offers them."""
        words = sorted({tag for tags in self._by_row() for tag in tags})
        return [*words, ANY] if words else []

    def rows(self, tag: str) -> np.ndarray:
        """Return the rows with a tag, ascending, i64 (n,). tag: ANY: any."""
        return np.flatnonzero([bool(tags) if tag == ANY else tag in tags for tags in self._by_row()])

    def _by_row(self) -> list[tuple[str, ...]]:
        found = self.by_sample()
        return [found.get(name, ()) for name in self._names]

    def change(self, sample_id: str, tag: str, *, on: bool) -> tuple[str, ...]:
        """Add a tag to a sample, or remove it, and write the file. Return the sample's tags.

        Raises:
            FacetError: the tag is empty or too long, or the file cannot be read or written.
        """
        tag = clean_word(tag)
        if not 0 < len(tag) <= MAX_LENGTH or not tag.isprintable():
            raise FacetError(f"a tag has 1 to {MAX_LENGTH} printable characters, found {tag[:60]!r}")
        try:
            with self._lock, hold_lock(self.path.with_name(f".{self.path.name}.lock")):
                lines = self._lines()
                if not on:
                    lines = [line for line in lines if line[:2] != [sample_id, tag]]
                elif all(line[:2] != [sample_id, tag] for line in lines):
                    lines.append([sample_id, tag, *[""] * (len(lines[0]) - 2)])
                write_file(self.path, encode_csv(lines), like=self._like)
        except OSError as error:
            raise FacetError(f"{self.path}: cannot be written ({error.strerror}); give --tags FILE.csv") from error
        return self.by_sample().get(sample_id, ())

    def _lines(self) -> list[list[str]]:
        """Read the file, its header first."""
        if not self.path.exists():
            return [[*HEADER]]
        try:
            lines = read_csv(self.path) if self.path.stat().st_size <= MAX_BYTES else []
        except CacheError:  # not UTF-8, or not CSV
            lines = []
        if not lines or lines[0][:2] != HEADER or any(len(line) != len(lines[0]) for line in lines):
            raise FacetError(
                f"{self.path}: is no table with the columns {','.join(HEADER)}; correct it, or give --tags FILE.csv"
            )
        return lines
