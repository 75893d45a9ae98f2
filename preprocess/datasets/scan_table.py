"""The scans of a data set as a table, before any is rendered: as text, or as CSV that can be edited and built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from preprocess.datasets.manifest import REQUIRED, default_id
from preprocess.datasets.scan import MOMENTS, Listing, ScanRecord
from shared.csv_tables import encode_csv
from shared.errors import FacetError, name_some, shorten
from shared.store.storage import write_file

_SHOWN_ROWS = 12
_MAX_WIDTH = 48
_MARK = b"\xef\xbb\xbf"  # without it, Excel takes UTF-8 for another encoding


def describe_listing(listing: Listing) -> str:
    """Return the first rows of the table, without action units, and the numbers of subjects, labels and sequences."""
    records = listing.records
    header, *rows = tabulate(records[:_SHOWN_ROWS])
    cells = [header, *([shorten(word, _MAX_WIDTH) for word in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    if len(records) > len(rows):
        lines.append(f"… and {len(records) - len(rows):,} more")
    labels = Counter(record.label or "no label" for record in records)
    sequences = len({record.sequence for record in records if record.sequence})
    subjects = len({record.subject for record in records})
    counted = name_some([f"{label} {count:,}" for label, count in labels.most_common()])
    lines.append(f"{len(records):,} scans of {subjects:,} subjects, {sequences:,} sequences; {counted}")
    return "\n".join(lines)


def write_listing(path: Path, listing: Listing, au_names: Sequence[str]) -> None:
    """Write the table as CSV, UTF-8. Of a folder, it is a manifest with the same scans.

    Args:
        au_names: the action units of the records' `aus`.
    Raises:
        FacetError: the name does not end in .csv.
    """
    if path.suffix.lower() != ".csv":
        raise FacetError(f"--list {path}: expected a name that ends in .csv")
    write_file(path, _MARK + encode_csv(tabulate(listing.records, au_names)))


def tabulate(records: Sequence[ScanRecord], au_names: Sequence[str] = ()) -> list[list[str]]:
    """Return the header and a row per record, in the columns of a manifest; columns that are empty throughout are left out."""
    tables = [
        {
            "path": record.source,
            "subject": record.subject,
            "label": record.label,
            "sequence": record.sequence,
            **{
                name: "" if number is None else str(number)
                for name, number in zip(("frame", *MOMENTS), (record.frame, *record.moments), strict=True)
            },
            "intensity": record.intensity,
            "task": record.task,
            "texture": record.texture,
            "landmarks": record.landmarks,
            **dict(record.options),
            **dict(record.groups),
            **{name: "" if value < 0 else str(value) for name, value in zip(au_names, record.aus, strict=False)},
            "sample_id": "" if record.sample_id == default_id(record.source) else record.sample_id,
        }
        for record in records
    ]
    names = dict.fromkeys(name for table in tables for name, word in table.items() if word or name in REQUIRED)
    return [list(names), *([table.get(name, "") for name in names] for table in tables)]
