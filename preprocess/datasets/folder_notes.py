"""What looks doubtful in a user's own folder of scans, in notes for the user: it may be an error, and is used as it is."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from preprocess.datasets.label_spelling import NOT_KNOWN
from preprocess.datasets.manifest import ManifestRow
from preprocess.datasets.scan import ScanRecord
from preprocess.readers.references import plain_name
from shared.errors import name_some
from shared.labels import plain_person, plain_subject, plain_word
from shared.pairs import group_pairs


def describe_doubts(rows: Sequence[ManifestRow], records: Sequence[ScanRecord], au_names: Sequence[str]) -> list[str]:
    """Describe names, folders, groups, action units and files that were perhaps mistaken or mistyped.

    Args:
        rows: of the manifest. records: the scans they list, in any order. au_names: of the records' `aus`.
    """
    return [
        *_describe_names(records),
        *_describe_renamed(rows, records),
        *_describe_scattered(records),
        *_describe_changing(records),
        *_describe_units(records, au_names),
        *_describe_loose(records),
        *_describe_repeated(records),
    ]


def _name(what: str, names: Sequence[str]) -> list[str]:
    return [f"{what}: {name_some(names)}"] if names else []


def _describe_names(records: Sequence[ScanRecord]) -> list[str]:
    """Describe names that may mean one person, who would then be in training and in test, or one sequence of a person; and
    words for "not known" that are taken as a person."""
    subjects = dict.fromkeys(("", record.subject) for record in records)
    sequences = dict.fromkeys((record.subject, record.sequence) for record in records if record.sequence)
    notes = []
    for what, names, plain in (
        ("subjects", subjects, plain_person),
        ("sequences of one subject", sequences, plain_subject),
    ):
        alike = group_pairs(((whose, plain(name)), name) for whose, name in names)
        if pairs := [" and ".join(sorted(several)) for several in alike.values() if len(several) > 1]:
            notes.append(f"{what} that are perhaps one, spelled in several ways: {name_some(pairs)}; spell them alike")
    if unknown := [name for _, name in subjects if plain_word(name) in NOT_KNOWN]:
        notes.append(
            f"subjects whose name means that they are not known: {name_some(unknown)}; each is taken as one person"
        )
    return notes


def _describe_scattered(records: Sequence[ScanRecord]) -> list[str]:
    """Describe subjects whose own folders lie in several places, where two studies may each have an S01."""
    folders: dict[str, set[str]] = {}
    for record in records:
        parts = PurePosixPath(record.source).parts[:-1]
        if record.subject in parts:
            folders.setdefault(record.subject, set()).add("/".join(parts[: parts.index(record.subject) + 1]))
    shown = [f"{name} ({', '.join(sorted(places)[:3])})" for name, places in folders.items() if len(places) > 1]
    return _name("subjects with several folders, each taken as one person", shown)


def _describe_changing(records: Sequence[ScanRecord]) -> list[str]:
    """Describe subjects whose group changes, such as their sex, where that of most does not."""
    groups: dict[str, dict[str, set[str]]] = {}
    for record in records:
        for column, value in record.groups:
            groups.setdefault(column, {}).setdefault(record.subject, set()).update([value] * bool(value))
    notes = []
    for column, values in groups.items():
        odd = [f"{subject} ({', '.join(sorted(found))})" for subject, found in values.items() if len(found) > 1]
        if odd and 2 * len(odd) < len(values):
            notes.append(f"column {column}: other values in some rows of a subject: {name_some(odd)}")
    return notes


def _describe_units(records: Sequence[ScanRecord], names: Sequence[str]) -> list[str]:
    """Describe action units that are coded as absent and with an intensity, or as present and with the intensity 0."""
    index, shown = {name: k for k, name in enumerate(names)}, []
    for name in names:
        if f"{name}_intensity" in index:
            both = [(r.sample_id, r.aus[index[name]], r.aus[index[f"{name}_intensity"]]) for r in records if r.aus]
            if odd := [sample_id for sample_id, *values in both if min(values) == 0 and max(values) > 0]:
                shown.append(f"{name} ({', '.join(odd[:2])}{', …' * (len(odd) > 2)})")
    return _name("action units with and without an intensity at once", shown)


def _describe_loose(records: Sequence[ScanRecord]) -> list[str]:
    """Describe frame numbers without a sequence."""
    num = sum((record.frame, *record.moments) != (None,) * 4 and not record.sequence for record in records)
    what = "scans have a frame number and no sequence, and count as single scans; 4D needs a column sequence"
    return [f"{num:,} {what}"] if num else []


def _describe_repeated(records: Sequence[ScanRecord]) -> list[str]:
    """Describe meshes that several rows name, and images and landmarks that rows of several people name: perhaps lines that
    were copied and not changed."""
    notes = []
    for column, what in (
        ("source", "files in several rows"),
        ("texture", "textures of several people"),
        ("landmarks", "landmarks of several people"),
    ):
        rows = group_pairs((str(getattr(record, column)), record) for record in records)
        shown = [
            f"{name} ({', '.join(dict.fromkeys(f'{one.subject} {one.label}'.strip() for one in same))})"
            for name, same in rows.items()
            if name and len(same if column == "source" else {one.subject for one in same}) > 1
        ]
        notes += _name(what, shown)
    return notes


def _describe_renamed(rows: Sequence[ManifestRow], records: Sequence[ScanRecord]) -> list[str]:
    """Describe files whose names differ in case from the manifest's."""
    found = {name for record in records for name in (record.source, record.texture, record.landmarks)}
    plain = {plain_name(name): name for name in found}
    named = {row[column] for row in rows for column in ("path", "texture", "landmarks")} - found
    pairs = [(name, plain[plain_name(name)]) for name in sorted(named) if plain_name(name) in plain]
    shown = [
        f"{one} is {other}"
        for one, other in pairs
        if unicodedata.normalize("NFC", one) != unicodedata.normalize("NFC", other)
    ]
    return _name("files in another case than in the manifest", shown)
