"""A cache told in a page of text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from preprocess.prompts import count_names
from shared.cache import FAILURES_CSV, Cache
from shared.paths import list_files
from shared.text import read_text_embeddings


def describe_cache(cache: Cache) -> str:
    """What a cache holds: settings, subjects × classes, what is missing, prompts, failures. Several lines."""
    info = cache.info
    valid = [sample for sample in cache.samples if sample.valid]
    failed = [sample for sample in cache.samples if not sample.valid]
    lines = [
        f"{cache.path}: {info.dataset}, format version {info.format_version}, {info.store}",
        f"  {info.licence}",
        f"  {len(valid)} scans of {info.num_subjects} subjects"
        + (f" in {info.num_sequences} sequences" if info.num_sequences else "")
        + f"; {len(failed)} failed; {_size(cache.path)} on disk",
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
    lines += ["", *_class_table(cache), ""]
    lines += _prompt_lines(cache)
    if failed:
        lines += ["", f"failures ({len(failed)}, all in {cache.path / FAILURES_CSV}):"]
        lines += [f"  {sample.source}: {sample.reason}" for sample in failed[:5]]
    lines.append(f"content {info.content_hash[:16]}")
    return "\n".join(lines)


def _class_table(cache: Cache) -> list[str]:
    """Scans by class and intensity, and how many subjects show each class."""
    valid = [sample for sample in cache.samples if sample.valid]
    intensities = sorted({sample.intensity for sample in valid if sample.intensity})
    names = [*cache.info.class_names, *([""] if any(not s.label for s in valid) else [])]
    rows: list[list[object]] = [["class", "scans", "subjects", *(f"level {i}" for i in intensities)]]
    for name in names:
        mine = [sample for sample in valid if sample.label == name]
        levels = Counter(sample.intensity for sample in mine)
        num_subjects = len({sample.subject for sample in mine})
        rows.append([name or "(no label)", len(mine), num_subjects, *(levels[i] for i in intensities)])
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        numbers = (str(cell).rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  " + "  ".join([str(row[0]).ljust(widths[0]), *numbers]))
    return lines


def _prompt_lines(cache: Cache) -> list[str]:
    lines = []
    for path in cache.text_files():
        text = read_text_embeddings(path)
        weights = "RANDOM WEIGHTS" if text.random_weights else f"weights {text.pretrained}"
        lines.append(
            f"prompts by {text.model} ({weights}): {int(text.mask.sum())} prompts for {count_names(text.class_names)}, "
            f"{text.embeddings.shape[2]} dimensions"
        )
    return lines or [f"no prompt embeddings yet: python -m preprocess prompts --cache {cache.path} --model NAME"]


def _size(folder: Path) -> str:
    size: float = sum(list_files(folder).values())
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
