"""Summarise a cache as a page of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TypeVar

import numpy as np

from preprocess.alignment.anthropometry import ADULT_EYE_DISTANCE_MM, PERSON_EYE_DISTANCE_MM
from preprocess.datasets.scan import SCAN_GONE
from preprocess.prompts import count_names
from preprocess.sequences.head_motion import SAME_POSE, find_head_motion
from shared.cache import FAILURES_CSV, Cache, Failure, find_text_files, generalise_reason
from shared.errors import CacheError, name_some
from shared.groups import part_columns
from shared.pairs import group_pairs
from shared.schema import Sample
from shared.store.paths import list_files
from shared.text import read_text_embeddings

MAX_SUBJECT_LINES = 16
MAX_REASONS = 6
SINGLE = "in no sequence"
Reasoned = TypeVar("Reasoned", Sample, Failure)


def describe_cache(cache: Cache) -> str:
    """Describe settings, subjects × classes, groups, labels, sequences, prompts, failures and sizes, in several lines."""
    valid = [sample for sample in cache.samples if sample.valid]
    parts = [
        _describe_settings(cache, valid),
        _class_table(cache, valid),
        _subject_table(cache),
        _describe_groups(cache),
        _unit_table(cache, "targets", cache.info.target_names),
        _unit_table(cache, "aus", cache.info.au_names),
        _describe_sequences(cache),
        _describe_prompts(cache),
    ]
    failed = [sample for sample in cache.samples if not sample.valid]
    if failed:
        counted = count_failed(sample.reason for sample in failed)
        title = f"rows without images: {counted} (all in {cache.path / FAILURES_CSV}):"
        parts.append([title, *describe_reasons(failed)])
    if warned := [sample for sample in valid if sample.reason]:
        parts.append([f"warnings, {len(warned)} rows that lack something:", *describe_reasons(warned)])
    parts.append([*_describe_files(cache), f"content {cache.info.content_hash[:16]}"])
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _describe_settings(cache: Cache, valid: Sequence[Sample]) -> list[str]:
    info = cache.info
    sequences = f" in {info.num_sequences} sequences" if info.num_sequences else ""
    failed = count_failed(sample.reason for sample in cache.samples if not sample.valid)
    lines = [
        f"{cache.path}: {info.dataset}, format version {info.format_version}, {info.store}"
        + (", not compressed" if info.compression == "none" else ""),
        f"  {info.licence}",
        f"  {len(valid)} scans of {info.num_subjects} subjects{sequences}; {failed}",
        f"  views (yaw[:pitch] in degrees) {info.settings.views_text()}; {info.settings.size_px} px, "
        f"{info.settings.mm_per_px:.3g} mm per pixel",
    ]
    if info.settings.dynamic:
        lines.append(f"  dynamic images, one per sequence: {info.settings.dynamic}")
    for modality in info.settings.modalities:
        count = sum(sample.has(modality) for sample in valid)
        without = f" ({len(valid) - count} without)" if count < len(valid) else ""
        lines.append(f"  {modality}: {count} scans{without}")
    aligned = Counter(sample.alignment for sample in valid)
    return [*lines, f"  aligned by {_list_counts(aligned)}", *describe_sizes(valid)]


def describe_sizes(valid: Sequence[Sample]) -> list[str]:
    """Describe how well an average face fits the scans, and their eye distances; [] if the cache does not hold these."""
    misfits = sorted(sample.misfit_mm for sample in valid if sample.misfit_mm is not None)
    sizes = sorted(sample.eye_distance_mm for sample in valid if sample.eye_distance_mm is not None)
    if not misfits or not sizes:
        return []
    (low, high), people = ADULT_EYE_DISTANCE_MM, PERSON_EYE_DISTANCE_MM
    unusual = sum(not low <= size <= high for size in sizes)
    wrong = sum(not people[0] <= size <= people[1] for size in sizes)
    advice = f"; {wrong} outside people's {people[0]:.0f} to {people[1]:.0f}: check units and scale" if wrong else ""
    return [
        f"  distance from a fitted average face: median {misfits[len(misfits) // 2]:.1f} mm, largest {misfits[-1]:.1f} mm",
        f"  distance between the eyes: median {sizes[len(sizes) // 2]:.0f} mm, {sizes[0]:.0f} to {sizes[-1]:.0f} mm; "
        f"{unusual or 'none'} outside adults' {low:.0f} to {high:.0f}{advice}",
    ]


def count_failed(reasons: Iterable[str]) -> str:
    """Count why rows are not valid: "none failed", "3 failed, 2 no longer in the data set"."""
    counts = Counter(reason == SCAN_GONE for reason in reasons)
    gone = f", {counts[True]} no longer in the data set" if counts[True] else ""
    return f"{counts[False] or 'none'} failed{gone}"


def _class_table(cache: Cache, valid: Sequence[Sample]) -> list[str]:
    """Count the scans by class and intensity, and the subjects of each class."""
    intensities = sorted({sample.intensity for sample in valid} - {""})
    rows: list[list[object]] = [["class", "scans", "subjects", *(f"intensity {level}" for level in intensities)]]
    for name in [*cache.info.class_names, *([""] if any(not s.label for s in valid) else [])]:
        scans = [sample for sample in valid if sample.label == name]
        levels = Counter(sample.intensity for sample in scans)
        num_subjects = len({sample.subject for sample in scans})
        rows.append([name or "(no label)", len(scans), num_subjects, *(levels[level] for level in intensities)])
    return _align(rows)


def _subject_table(cache: Cache) -> list[str]:
    """Count the scans or sequences by subject and class; subjects with equal counts share a line."""
    found: dict[str, dict[str, set[str]]] = {}
    failed: Counter[str] = Counter()
    for sample in cache.samples:
        classes = found.setdefault(sample.subject, {})
        if sample.valid:
            label = SINGLE if cache.sequences and not sample.sequence else sample.label
            classes.setdefault(label, set()).add(sample.sequence or sample.sample_id)
        failed[sample.subject] += not sample.valid
    names = [*cache.info.class_names, *(name for name in ("", SINGLE) if any(name in c for c in found.values()))]
    alike = group_pairs(
        ((*(len(found[subject].get(name, ())) for name in names), failed[subject]), subject)
        for subject in sorted(found)
    )
    lines = sorted(alike.items(), key=lambda line: (-len(line[1]), line[1]))
    unit = "sequences" if cache.sequences else "scans"
    rows: list[list[object]] = [[f"subjects ({unit} of each)", *(name or "(no label)" for name in names), "failed"]]
    rows += [[name_some(subjects, 3), *counts] for counts, subjects in lines[:MAX_SUBJECT_LINES]]
    table = _align(rows)
    if SINGLE in names:
        table.append(f"  {SINGLE}: single frames outside every clip, such as 4DME's before an onset or after an offset")
    if more := sum(len(subjects) for _, subjects in lines[MAX_SUBJECT_LINES:]):
        table.append(f"  … and {more} more subjects, with other counts")
    return table


def _describe_groups(cache: Cache) -> list[str]:
    """Count the scans and subjects by value of each column of groups; ranges of numbers count as values."""
    valid = [row for row, sample in enumerate(cache.samples) if sample.valid]
    parted = part_columns(cache.groups, valid)
    lines = ["groups (scans, subjects):"] if cache.groups else []
    for name, values in cache.groups.items():
        if name not in parted:
            lines.append(f"  {name}: {len({values[row] for row in valid} - {''}):,} values")
            continue
        subjects = group_pairs((parted[name][row], cache.samples[row].subject) for row in valid)
        order = sorted(subjects, key=lambda value: (not value, value))
        counts = [
            f"{value or '(not given)'} ({len(subjects[value]):,}, {len({*subjects[value]}):,})" for value in order
        ]
        lines.append(f"  {name}: {', '.join(counts)}")
    return lines


def _unit_table(cache: Cache, array: str, names: Sequence[str]) -> list[str]:
    """Count, for each label of a task with several, where it is known, where it is present, and of how many subjects.

    Args:
        array: "aus", counted by frame, or "targets", counted by sequence; one column per name, -1 = unknown.
    """
    if not names:
        return []
    samples = [sample for sample in cache.samples if sample.valid]
    try:
        values = cache.arrays.read(array, [cache.row_of(sample.sample_id) for sample in samples])
    except CacheError as error:
        return [f"  {array}: {error}"]
    title, unit = ("action unit", "frames") if array == "aus" else ("emotion", "sequences")
    rows: list[list[object]] = [[title, f"{unit} known", "shown", "by subjects"]]
    unknown = []
    for name, column in zip(names, values.T, strict=True):
        known, shown = ([samples[i] for i in np.flatnonzero(column >= least)] for least in (0, 1))
        if name.endswith("_side") or (name.endswith("_intensity") and known and not shown):
            continue  # its action unit has a line
        if not known:
            unknown.append(name)
            continue
        counts = [len({(unit == "sequences" and s.sequence) or s.sample_id for s in some}) for some in (known, shown)]
        rows.append([name, *counts, len({s.subject for s in shown})])
    if len(rows) == 1:
        return [f"  {array}: nothing is known"]
    return _align(rows) + ([f"  never known: {', '.join(unknown)}"] if unknown else [])


def _describe_sequences(cache: Cache) -> list[str]:
    """Describe the lengths and frame rates of sequences, and how many have onset, apex and offset."""
    sequences = cache.sequences
    if not sequences:
        return []
    lengths = sorted(sequence.num_frames for sequence in sequences)
    seconds = sum(s.num_frames / s.frames_per_second for s in sequences if s.frames_per_second)
    rates = Counter(f"{s.frames_per_second:g} per second" if s.frames_per_second else "unknown" for s in sequences)
    marks = Counter(s.marks or "none known" for s in sequences)
    gaps = {sample.sequence for sample in cache.samples if not sample.valid} - {""}
    return [
        f"sequences ({len(lengths):,}): {sum(lengths):,} frames" + (f", {seconds:,.0f} s" if seconds else ""),
        f"  frames per sequence {lengths[0]:,} to {lengths[-1]:,}, median {lengths[len(lengths) // 2]:,}; "
        + (f"{len(gaps):,} lack frames that failed" if gaps else "none lacks a frame"),
        f"  rate: {_list_counts(rates)}",
        f"  onset, apex, offset: {_list_counts(marks)}",
        f"  poses: {_describe_poses(cache)}",
    ]


def _describe_poses(cache: Cache) -> str:
    """Say whether frames were stabilised, and how far heads moved."""
    if not cache.info.settings.stabilised:
        return f"not stabilised: {SAME_POSE}"
    frames = [[row for row in cache.frames(one.sequence) if cache.samples[row].valid] for one in cache.sequences]
    frames = [rows for rows in frames if rows]
    try:
        poses = cache.arrays.read("scan_to_face", list(chain.from_iterable(frames)))
        largest = [find_head_motion(part).largest for part in np.split(poses, np.cumsum(list(map(len, frames))))[:-1]]
    except CacheError as error:
        return str(error)
    if not largest:
        return "stabilised"
    (turn, shift), (most_turn, most_shift) = np.median(largest, axis=0), np.max(largest, axis=0)
    return (
        f"stabilised; heads turned by {turn:.0f}° and moved by {shift:.0f} mm (median of the sequences' largest), "
        f"at most by {most_turn:.0f}° and {most_shift:.0f} mm"
    )


def _describe_prompts(cache: Cache) -> list[str]:
    lines = []
    for text in map(read_text_embeddings, find_text_files(cache.path)):
        weights = "RANDOM WEIGHTS" if text.random_weights else f"weights {text.pretrained}"
        lines.append(
            f"prompts by {text.model} ({weights}): {int(text.mask.sum())} prompts for {count_names(text.class_names)}"
            f"{', which differ by view' * bool(text.views)}, "
            f"{text.embeddings.shape[2]} dimensions"
        )
    return lines or [f"no prompt embeddings yet: python -m preprocess prompts --cache {cache.path}"]


def group_failures(failed: Iterable[Reasoned]) -> list[list[Reasoned]]:
    """Group rows by reason, the most frequent first. Reasons that differ only in numbers are one."""
    groups = group_pairs((generalise_reason(sample), sample) for sample in failed)
    return sorted(groups.values(), key=lambda group: (-len(group), group[0].source))


def describe_reasons(rows: Iterable[Reasoned]) -> list[str]:
    """List the reasons of failures or warnings, the most frequent first, each with its first scan."""
    groups = group_failures(rows)
    lines = []
    for group in groups[:MAX_REASONS]:
        more = f" (and {len(group) - 1:,} alike)" if len(group) > 1 else ""
        lines.append(f"  {group[0].source}: {group[0].reason}{more}")
    return lines + ([f"  … and {len(groups) - MAX_REASONS:,} more reasons"] if len(groups) > MAX_REASONS else [])


def _describe_files(cache: Cache) -> list[str]:
    """Describe how many bytes each folder of a cache takes."""
    sizes: Counter[str] = Counter()
    for name, size in list_files(cache.path).items():
        folder = name.split("/")[0].lstrip(".") if "/" in name else "tables"
        sizes["images" if folder.startswith("views") else folder] += size
    parts = ", ".join(f"{name} {_format_bytes(size)}" for name, size in sizes.most_common())
    mean = _format_bytes(sizes["images"] / max(cache.info.num_valid, 1))
    return [f"on disk {_format_bytes(sizes.total())}: {parts}; {mean} of images per row"]


def _format_bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _list_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.most_common())


def _align(rows: Sequence[Sequence[object]]) -> list[str]:
    """Write a table: the first column to the left, numbers to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    first, *widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [[row[0].ljust(first), *map(str.rjust, row[1:], widths)] for row in texts]
    return ["  " + "  ".join(line) for line in lines]
