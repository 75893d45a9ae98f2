"""Which data set a folder holds, by its names alone: for the error where another one was asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

Search = Callable[[Path, re.Pattern[str]], Iterator[list[Path]]]

# Data set → what a subject's folder is called, and what stands in it.
_LAYOUTS: dict[str, tuple[re.Pattern[str], re.Pattern[str]]] = {
    name: (re.compile(subject, re.I), re.compile(inside, re.I))
    for name, subject, inside in (
        ("bu3dfe", r"[FM]\d{4}", r"[FM]\d{4}_[A-Z]{2}\d\d[A-Z]{2}_(F3D|RAW)\.wrl"),
        ("bosphorus", r"bs\d{3}", r"bs\d{3}_.+\.bnt"),
        ("bu4dfe", r"[FM]\d{3}", r"angry|disgust|fear|happy|sad|surprise"),
        ("bp4dplus", r"[FM]\d{3}", r"T0*(9|10)"),  # tasks that bp4d does not have
        ("bp4d", r"[FM]\d{3}", r"T0*\d{1,2}"),
    )
}
_SUBJECT = re.compile(r"[FM]\d{3,4}|bs\d{3}", re.I)
_MANIFEST = "manifest.csv"
_LABEL_SHEET = re.compile(r"4DME.*\.xlsx", re.I)


def describe_other_layout(root: Path, search: Search, name: str) -> str:
    """Return `; it looks like bu4dfe (F001/Angry): give that NAME` if the root holds another data set than `name`, else "".

    Args:
        search: lists the folders below the root, by levels.
    """
    found = _find_layout(root, search)
    return f"; it looks like {found[0]} ({found[1]}): give that NAME" if found and found[0] != name else ""


def _find_layout(root: Path, search: Search) -> tuple[str, str] | None:
    for level in search(root, _SUBJECT):
        for folder in level:
            names = _list(folder)
            for subject in (name for name in names if _SUBJECT.fullmatch(name)):
                entries = _list(folder / subject)
                for layout, (outer, inner) in _LAYOUTS.items():
                    inside = next(filter(inner.fullmatch, entries), None) if outer.fullmatch(subject) else None
                    if inside is not None:
                        return layout, f"{subject}/{inside}"
            for name in names:
                if name.lower() == _MANIFEST:
                    return "folder", name
                if _LABEL_SHEET.fullmatch(name):
                    return "4dme", name
    return None


def _list(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  (names alone)
    except OSError:
        return []
