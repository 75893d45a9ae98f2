"""What a partial copy of a data set lacks, in lines for the user. Never an error: what is there is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from preprocess.datasets.scan import ScanRecord
from shared.errors import name_some
from shared.pairs import group_pairs

OWN_PICTURES = "pictures of their own name (where a mesh names another, that is taken)"
REPEATED = "files left out, as another has their frame number"


def describe_some(names: Sequence[str], what: str) -> list[str]:
    """Return a line such as "3 WHAT: a, b, c"; none where there are no names."""
    return [f"{len(names):,} {what}: {name_some(names)}"] if names else []


def describe_counts(records: Sequence[ScanRecord], *, subjects: int, scans: int = 0, sequences: int = 0) -> list[str]:
    """Describe how many subjects, sequences and scans there are, if fewer than in the whole data set.

    Args:
        subjects, scans, sequences: how many the whole data set has; 0 = not counted.
    """
    counted = (
        ("subjects", subjects, len({record.subject for record in records})),
        ("sequences", sequences, len({record.sequence for record in records if record.sequence})),
        ("scans", scans, len(records)),
    )
    short = [f"{found:,} of {expected:,} {what}" for what, expected, found in counted if found < expected]
    return [f"a part of the data set: {', '.join(short)}"] if short else []


def describe_lacking(
    records: Sequence[ScanRecord], what: str, lacks: Callable[[ScanRecord], bool], *, unit: str = "scans"
) -> list[str]:
    """Describe which records lack something; whole sequences are named as such.

    Args:
        what: the thing lacked, in the plural: "landmarks".
    """
    lacking = [record for record in records if lacks(record)]
    if not lacking:
        return []
    if len(lacking) == len(records):
        return [f"no {what} found"]
    whole = _whole_sequences(records, lacking)
    single = [record.sample_id for record in lacking if record.sequence not in whole]
    lines = describe_some(sorted(whole), f"sequences without {what}")
    return lines + describe_some(single, f"{unit} without {what}")


def _whole_sequences(records: Sequence[ScanRecord], lacking: Sequence[ScanRecord]) -> set[str]:
    missing = Counter(record.sequence for record in lacking if record.sequence)
    total = Counter(record.sequence for record in records)
    return {name for name, count in missing.items() if count == total[name]}


def describe_gaps(records: Sequence[ScanRecord]) -> list[str]:
    """Describe sequences with missing frame numbers."""
    frames = group_pairs((r.sequence, r.frame) for r in records if r.sequence and r.frame is not None)
    gaps = [name for name, numbers in frames.items() if max(numbers) - min(numbers) + 1 > len(set(numbers))]
    return describe_some(gaps, "sequences with frames left out")


def describe_missing(records: Sequence[ScanRecord]) -> list[str]:
    """Describe sequences that are missing although more than half of the subjects have them."""
    tasks = group_pairs(dict.fromkeys((record.subject, record.task) for record in records))
    shown = Counter(task for own in tasks.values() for task in own)
    usual = [task for task, count in shown.items() if 2 * count > len(tasks)]
    missing = sorted(f"{subject}/{task}" for subject, own in tasks.items() for task in usual if task not in own)
    return describe_some(missing, "sequences missing that most subjects have")
