"""A cache told in a page of text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from preprocess.alignment.anthropometry import ADULT_EYE_DISTANCE_MM, PERSON_EYE_DISTANCE_MM
from preprocess.datasets.scan import SCAN_GONE
from preprocess.prompts import count_names
from shared.cache import FAILURES_CSV, Cache, Failure
from shared.errors import CacheError
from shared.groups import part_columns
from shared.schema import Sample
from shared.store.paths import list_files
from shared.text import read_text_embeddings

MOST_GROUPS = 16  # lines of the table of subjects
MOST_REASONS = 6
SINGLE = "in no sequence"
Reasoned = TypeVar("Reasoned", Sample, Failure)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def describe_cache(cache: Cache) -> str:
    """What a cache holds: settings, subjects × classes, what is missing, prompts, failures. Several lines."""
    info = cache.info
    valid = [sample for sample in cache.samples if sample.valid]
    failed = [sample for sample in cache.samples if not sample.valid]
    lacking = [sample for sample in valid if sample.reason]
    lines = [
        f"{cache.path}: {info.dataset}, format version {info.format_version}, {info.store}"
        + (", not compressed" if info.compression == "none" else ""),
        f"  {info.licence}",
        f"  {len(valid)} scans of {info.num_subjects} subjects"
        + (f" in {info.num_sequences} sequences" if info.num_sequences else "")
        + f"; {count_failed(sample.reason for sample in failed)}",
        f"  views (yaw[:pitch] in degrees) {info.settings.views_text()}; {info.settings.size_px} px, "
        f"{info.settings.mm_per_px:.3g} mm a pixel",
    ]
    if info.settings.dynamic:
        lines.append(f"  dynamic images, one a sequence: {info.settings.dynamic}")
    for modality in info.settings.modalities:
        count = sum(sample.has(modality) for sample in valid)
        lines.append(
            f"  {modality}: {count} scans" + ("" if count == len(valid) else f" ({len(valid) - count} without)")
        )
    aligned = Counter(sample.alignment for sample in valid)
    lines.append("  aligned by " + ", ".join(f"{how} ({count})" for how, count in aligned.most_common()))
    lines += describe_sizes(valid)
    lines += ["", *_class_table(cache), "", *_subject_table(cache), ""]
    if cache.groups:
        lines += [*_group_lines(cache), ""]
    for array, names in (("targets", info.target_names), ("aus", info.au_names)):
        lines += [*_unit_table(cache, array, names), ""] if names else []
    if cache.sequences:
        lines += [*_sequence_lines(cache), ""]
    lines += _prompt_lines(cache)
    if failed:
        counted = count_failed(sample.reason for sample in failed)
        lines += [
            "",
            f"rows without images: {counted} (all in {cache.path / FAILURES_CSV}):",
            *describe_reasons(failed),
        ]
    if lacking:
        lines += ["", f"warnings, {len(lacking)} rows that lack something:", *describe_reasons(lacking)]
    lines += ["", *_size_lines(cache), f"content {info.content_hash[:16]}"]
    return "\n".join(lines)


def describe_sizes(valid: Sequence[Sample]) -> list[str]:
    """How well and how large faces were found, against people's; none where a cache does not know it."""
    misfits = sorted(sample.misfit_mm for sample in valid if sample.misfit_mm is not None)
    sizes = sorted(sample.eye_distance_mm for sample in valid if sample.eye_distance_mm is not None)
    if not misfits or not sizes:
        return []
    adults, people = ADULT_EYE_DISTANCE_MM, PERSON_EYE_DISTANCE_MM
    apart = sum(not adults[0] <= size <= adults[1] for size in sizes)
    none = sum(not people[0] <= size <= people[1] for size in sizes)
    return [
        f"  an average face fits them to {misfits[len(misfits) // 2]:.1f} mm in the median, {misfits[-1]:.1f} at worst",
        f"  eyes {sizes[len(sizes) // 2]:.0f} mm apart in the median, {sizes[0]:.0f} to {sizes[-1]:.0f}; "
        f"{apart or 'none'} outside adults' {adults[0]:.0f} to {adults[1]:.0f}"
        + (f", {none} outside people's {people[0]:.0f} to {people[1]:.0f}: check units and scale" if none else ""),
    ]


def count_failed(reasons: Iterable[str]) -> str:
    """In words, by why rows are not valid: "none failed", "3 failed, 2 no longer in the data set"."""
    counts = Counter(reason == SCAN_GONE for reason in reasons)
    gone = f", {counts[True]} no longer in the data set" if counts[True] else ""
    return f"{counts[False] or 'none'} failed{gone}"


def _class_table(cache: Cache) -> list[str]:
    """Scans by class and intensity, and how many subjects show each class."""
    valid = [sample for sample in cache.samples if sample.valid]
    intensities = sorted({sample.intensity for sample in valid if sample.intensity})
    names = [*cache.info.class_names, *([""] if any(not s.label for s in valid) else [])]
    rows: list[list[object]] = [["class", "scans", "subjects", *(f"intensity {i}" for i in intensities)]]
    for name in names:
        mine = [sample for sample in valid if sample.label == name]
        levels = Counter(sample.intensity for sample in mine)
        num_subjects = len({sample.subject for sample in mine})
        rows.append([name or "(no label)", len(mine), num_subjects, *(levels[i] for i in intensities)])
    return _align(rows)


def _subject_table(cache: Cache) -> list[str]:
    """Scans (of sequences: sequences) of each class and subject; subjects with the same counts share a line."""
    what = "sequences" if cache.sequences else "scans"
    labels = {_column(cache, sample) for sample in cache.samples if sample.valid}
    names = [*cache.info.class_names, *(name for name in ("", SINGLE) if name in labels)]
    shown: dict[str, dict[str, set[str]]] = {}
    failed: Counter[str] = Counter()
    for sample in cache.samples:
        classes = shown.setdefault(sample.subject, {})
        if sample.valid:
            classes.setdefault(_column(cache, sample), set()).add(sample.sequence or sample.sample_id)
        else:
            failed[sample.subject] += 1
    alike: dict[tuple[int, ...], list[str]] = {}
    for subject in sorted(shown):
        counts = tuple(len(shown[subject].get(name, ())) for name in names)
        alike.setdefault((*counts, failed[subject]), []).append(subject)
    groups = sorted(alike.items(), key=lambda group: (-len(group[1]), group[1]))
    rows: list[list[object]] = [[f"subjects ({what} of each)", *(name or "(no label)" for name in names), "failed"]]
    rows += [[_name_some(subjects), *counts] for counts, subjects in groups[:MOST_GROUPS]]
    lines = _align(rows)
    if SINGLE in names:
        lines.append(
            f"  {SINGLE}: single frames that belong to no clip, such as 4DME's before an onset or after an offset"
        )
    if left := groups[MOST_GROUPS:]:
        lines.append(f"  … and {sum(len(subjects) for _, subjects in left)} subjects more, with other counts")
    return lines


def _group_lines(cache: Cache) -> list[str]:
    """A line a column of groups: how many scans of how many subjects have each value, or range of numbers."""
    lines = ["groups (scans, subjects):"]
    valid = [row for row, sample in enumerate(cache.samples) if sample.valid]
    parted = part_columns(cache.groups, valid)
    for name, values in cache.groups.items():
        if name not in parted:
            lines.append(f"  {name}: {len({values[row] for row in valid} - {''}):,} values")
            continue
        subjects: dict[str, list[str]] = {}
        for row in valid:
            subjects.setdefault(parted[name][row], []).append(cache.samples[row].subject)
        ordered = sorted(subjects.items(), key=lambda group: (not group[0], group[0]))
        counted = [f"{value or '(not given)'} ({len(mine):,}, {len({*mine}):,})" for value, mine in ordered]
        lines.append(f"  {name}: {', '.join(counted)}")
    return lines


def _column(cache: Cache, sample: Sample) -> str:
    """Where a sample counts in the table of subjects: a frame that belongs to no sequence is none of them."""
    return SINGLE if cache.sequences and not sample.sequence else sample.label


def _unit_table(cache: Cache, array: str, names: Sequence[str]) -> list[str]:
    """Of each class: in how many frames it is known (emotions: sequences) and how many show it, of how many subjects.

    Args:
        array: "aus" or "targets", with a column for each of the names: 0 or more, -1 = unknown.
    """
    rows = [row for row, sample in enumerate(cache.samples) if sample.valid]
    try:
        values = cache.arrays.read(array, rows)
    except CacheError as error:
        return [f"  {array}: {error}"]
    counted, what = [cache.samples[row].sample_id for row in rows], "frames"
    if array == "targets":
        counted, what = [cache.samples[row].sequence or cache.samples[row].sample_id for row in rows], "sequences"
    subjects = [cache.samples[row].subject for row in rows]
    table: list[list[object]] = [
        ["action unit" if array == "aus" else "emotion", f"{what} known", "shown", "by subjects"]
    ]
    uncoded = []
    for name, column in zip(names, values.T, strict=True):
        known, shown = np.flatnonzero(column >= 0), np.flatnonzero(column >= 1)
        if name.endswith("_side") or (name.endswith("_intensity") and len(known) and not len(shown)):
            continue  # a letter's place, no amount; what the unit's own line says
        if len(known):
            sizes = [len({words[place] for place in places}) for words, places in ((counted, known), (counted, shown))]
            table.append([name, *sizes, len({subjects[place] for place in shown})])
        else:
            uncoded.append(name)
    if len(table) == 1:
        return [f"  {array}: nothing is known"]
    return _align(table) + ([f"  never known: {', '.join(uncoded)}"] if uncoded else [])


def _name_some(subjects: list[str]) -> str:
    if len(subjects) <= 3:
        return ", ".join(subjects)
    return (
        f"{', '.join(subjects[:3])} and {len(subjects) - 3:,} more"  # not a range: who stands between need not be one
    )


def _align(rows: list[list[object]]) -> list[str]:
    """The first column to the left, numbers to the right."""
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        numbers = (str(cell).rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  " + "  ".join([str(row[0]).ljust(widths[0]), *numbers]))
    return lines


def _sequence_lines(cache: Cache) -> list[str]:
    """How long sequences are, how fast they were recorded, and whose onset, apex and offset are known."""
    lengths = sorted(sequence.num_frames for sequence in cache.sequences)
    seconds = sum(s.num_frames / s.frames_per_second for s in cache.sequences if s.frames_per_second)
    rates = Counter(f"{s.frames_per_second:g} a second" if s.frames_per_second else "unknown" for s in cache.sequences)
    marks = Counter(s.marks or "none known" for s in cache.sequences)
    gaps = {sample.sequence for sample in cache.samples if sample.sequence and not sample.valid}
    span = f", {seconds:,.0f} s" if seconds else ""
    return [
        f"sequences ({len(lengths):,}): {sum(lengths):,} frames{span}",
        f"  frames a sequence {lengths[0]:,} to {lengths[-1]:,}, median {lengths[len(lengths) // 2]:,}; "
        + (f"{len(gaps):,} lack frames that failed" if gaps else "none lacks a frame"),
        f"  rate: {_list_counts(rates)}",
        f"  onset, apex, offset: {_list_counts(marks)}",
    ]


def group_failures(failed: Iterable[Reasoned]) -> list[list[Reasoned]]:
    """Groups rows by their reason, the most frequent first. Reasons that differ in numbers alone are one."""
    alike: dict[str, list[Reasoned]] = {}
    for sample in failed:
        alike.setdefault(_NUMBER.sub("#", sample.reason.replace(sample.source, "")), []).append(sample)
    return sorted(alike.values(), key=lambda group: (-len(group), group[0].source))


def describe_reasons(rows: Iterable[Reasoned]) -> list[str]:
    """Lists the reasons of failures or warnings, the most frequent first, each with its first scan."""
    groups = group_failures(rows)
    lines = []
    for group in groups[:MOST_REASONS]:
        more = f" (and {len(group) - 1:,} alike)" if len(group) > 1 else ""
        lines.append(f"  {group[0].source}: {group[0].reason}{more}")
    if left := groups[MOST_REASONS:]:
        lines.append(f"  … and {len(left):,} reasons more")
    return lines


def _list_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.most_common())


def _size_lines(cache: Cache) -> list[str]:
    """What takes how much room, by the folders of a cache."""
    sizes: Counter[str] = Counter()
    for name, size in list_files(cache.path).items():
        folder = name.split("/")[0] if "/" in name else "tables"
        sizes["images" if folder.startswith("views") else folder] += size
    parts = ", ".join(f"{name.lstrip('.')} {_format_bytes(size)}" for name, size in sizes.most_common())
    mean = sizes["images"] / max(cache.info.num_valid, 1)
    return [f"on disk {_format_bytes(sum(sizes.values()))}: {parts}; {_format_bytes(mean)} of images a row"]


def _prompt_lines(cache: Cache) -> list[str]:
    lines = []
    for path in cache.text_files():
        text = read_text_embeddings(path)
        weights = "RANDOM WEIGHTS" if text.random_weights else f"weights {text.pretrained}"
        lines.append(
            f"prompts by {text.model} ({weights}): {int(text.mask.sum())} prompts for {count_names(text.class_names)}, "
            f"{text.embeddings.shape[2]} dimensions"
        )
    return lines or [f"no prompt embeddings yet: python -m preprocess prompts --cache {cache.path}"]


def _format_bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
