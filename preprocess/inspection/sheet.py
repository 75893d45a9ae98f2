"""Contact sheets: pictures of a cache on one page, with names, labels and the licence line of the data set."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache as keep
from pathlib import Path
from typing import TypeVar

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shared.cache import Cache
from shared.errors import CacheError, FacetError
from shared.modalities import BACKGROUND, MODALITIES, NORMAL_LEGEND
from shared.schema import Sample
from shared.store.storage import write_file

TILE_PX, LARGE_TILE_PX, GAP_PX = 150, 224, 6
MIN_WIDTH_PX = 480  # room for the title and the licence line
INK, FAINT = (30, 30, 30), (120, 120, 120)
MAX_SUBJECTS, MAX_PER_LABEL = 8, 8
MAX_MARGIN_PX = 260  # for the names of rows
Item = TypeVar("Item")
_Tile = tuple[np.ndarray, str]  # picture and caption


def write_sheet(cache: Cache, path: Path, *, subject: str | None = None, sample_id: str | None = None) -> None:
    """Write a contact sheet as PNG.

    Args:
        subject: show all classes and intensities of this subject.
        sample_id: show every view and modality of this sample.
            With neither: some subjects × all classes, front view; then one sample in every view and modality.
    Raises:
        FacetError: no such subject or sample, or the file is not named .png.
    """
    if path.suffix.lower() != ".png":
        raise FacetError(f"--sheet {path}: expected a name that ends in .png")
    if sample_id is not None:
        sample = next((s for s in cache.samples if s.sample_id == sample_id), None)
        if sample is None:
            raise FacetError(f"--sample {sample_id}: no such sample in {cache.path}; see samples.csv")
        if not sample.valid:
            raise FacetError(f"--sample {sample_id}: is not valid: {sample.reason}")
        blocks, title = [_draw_sample(cache, sample, LARGE_TILE_PX)], f"one sample of {sample.subject}"
    elif subject is not None:
        num_valid = sum(s.valid and s.subject == subject for s in cache.samples)
        blocks, title = [_draw_subject(cache, subject)], f"{subject} · {num_valid} scans"
    else:
        blocks, title = _draw_overview(cache), f"{cache.info.num_valid} scans of {cache.info.num_subjects} subjects"
    settings = cache.info.settings
    foot = [NORMAL_LEGEND] if "normal" in settings.modalities and not settings.dynamic else []
    image = _stack(blocks, title=f"{cache.info.dataset} · {title}", foot=[*foot, cache.info.licence])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    cache.check_unchanged()
    write_file(path, buffer.getvalue(), like=cache.path)


def picture_of(cache: Cache, sample: Sample, modality: str, view: int) -> np.ndarray:
    """Return one cached image as a picture, u8 (S, S, 3)."""
    pixels = cache.arrays.read(modality, [cache.row_of(sample)])[0, view]
    return MODALITIES[modality].draw(pixels, dynamic=bool(cache.info.settings.dynamic))


def spread(items: Sequence[Item], num: int) -> list[Item]:
    """Return `num` items, or all if there are fewer, evenly over the list."""
    num = min(num, len(items))
    return [items[index * len(items) // num] for index in range(num)]


# --- what a sheet shows ---


def _draw_overview(cache: Cache) -> list[Image.Image]:
    valid = [s for s in cache.samples if s.valid]
    if not valid:
        raise CacheError(f"{cache.path}: holds no valid sample to show")
    subjects = _choose_subjects(cache)
    shown = {s.label for s in valid if s.subject in subjects}
    columns = [name for name in cache.info.class_names if name in shown]
    rows = [
        (subject, [_choose_scan([s for s in valid if s.subject == subject and s.label == name]) for name in columns])
        for subject in subjects
    ]
    blocks = [_draw_grid([(name, [_front(cache, s) for s in row]) for name, row in rows], columns)] if rows else []
    samples = [sample for _, row in rows for sample in row if sample] or valid
    example = max(samples, key=lambda s: (len(s.modalities), s.label == "surprise"))  # prefers textured ones
    return [*blocks, _draw_sample(cache, example, TILE_PX)]


def _choose_subjects(cache: Cache) -> list[str]:
    """Choose subjects with the most classes, evenly over the cache; then one for each class that none of them has."""
    shown: dict[str, set[str]] = {}
    for sample in cache.samples:
        if sample.valid and sample.label:
            shown.setdefault(sample.subject, set()).add(sample.label)
    names = sorted(shown, key=lambda subject: (-len(shown[subject]), subject))
    complete = [subject for subject in names if len(shown[subject]) == len(shown[names[0]])]
    chosen = spread(complete, MAX_SUBJECTS) if len(complete) > MAX_SUBJECTS else names[:MAX_SUBJECTS]
    for class_name in cache.info.class_names:
        if not any(class_name in shown[subject] for subject in chosen):
            chosen += [subject for subject in names if class_name in shown[subject]][:1]
    return sorted(chosen)


def _choose_scan(scans: Sequence[Sample]) -> Sample | None:
    """Return the most intense scan, or the middle frame of the first sequence, near its apex."""
    if scans and scans[0].sequence:
        frames = [s for s in scans if s.sequence == scans[0].sequence]
        return frames[len(frames) // 2]
    return max(scans, key=lambda s: s.intensity, default=None)


def _draw_subject(cache: Cache, subject: str) -> Image.Image:
    scans = [s for s in cache.samples if s.subject == subject and s.valid]
    if not scans:
        some = ", ".join(sorted({s.subject for s in cache.samples if s.valid})[:5])
        raise FacetError(f"--subject {subject}: no valid sample of that subject in {cache.path}; there are {some} …")
    rows = []
    for label in (*cache.info.class_names, ""):
        if found := spread([s for s in scans if s.label == label], MAX_PER_LABEL):
            rows.append((label or "no label", [_front(cache, s) for s in found]))
    return _draw_grid(rows)


def _draw_sample(cache: Cache, sample: Sample, size: int) -> Image.Image:
    """Draw a sample in every view and modality."""
    settings = cache.info.settings
    columns = [f"yaw {v.yaw_deg:+g}°" + (f", pitch {v.pitch_deg:+g}°" if v.pitch_deg else "") for v in settings.views]
    rows = []
    for modality in sample.modalities.split("+"):
        name = MODALITIES[modality].title(dynamic=bool(settings.dynamic)).replace(", ", "\n")
        rows.append((name, [(picture_of(cache, sample, modality, view), "") for view in range(len(columns))]))
    about = [sample.sample_id, sample.label or "no label", sample.intensity, f"aligned by {sample.alignment}"]
    return _draw_grid(rows, columns, size=size, about=" · ".join(text for text in about if text))


# --- how it is drawn ---


def _front(cache: Cache, sample: Sample | None) -> _Tile | None:
    if sample is None:
        return None
    pixels = picture_of(cache, sample, sample.modalities.split("+")[0], cache.info.settings.front_view)
    return pixels, sample.sample_id + (f" · {sample.intensity}" if sample.intensity else "")


def _draw_grid(
    rows: Sequence[tuple[str, Sequence[_Tile | None]]],
    columns: Sequence[str] = (),
    *,
    size: int = TILE_PX,
    about: str = "",
) -> Image.Image:
    """Draw rows of tiles with a name each, under the names of the columns and lines of text."""
    caption_px = 16 if any(tile and tile[1] for _, row in rows for tile in row) else 0
    longest = max(load_font(14).getlength(part) for name, _ in rows for part in name.split("\n"))
    margin = min(max(math.ceil(longest) + 16, 84), MAX_MARGIN_PX)
    width = margin + max(len(row) for _, row in rows) * (size + GAP_PX)
    width = max(width, MIN_WIDTH_PX) if about else width
    lines = wrap_text(about, load_font(14), width - margin) if about else []
    head = (26 if columns else 6) + 18 * len(lines)
    image = Image.new("RGB", (width, head + len(rows) * (size + caption_px + GAP_PX)), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((margin, 2 + 18 * number), shorten_text(line, load_font(14), width - margin), INK, load_font(14))
    for column, name in enumerate(columns):
        middle = margin + column * (size + GAP_PX) + size // 2
        draw.text((middle, head - 22), shorten_text(name, load_font(14), size), INK, load_font(14), anchor="ma")
    for number, (name, row) in enumerate(rows):
        top = head + number * (size + caption_px + GAP_PX)
        text = "\n".join(shorten_text(part, load_font(14), margin - 16) for part in name.split("\n"))
        draw.multiline_text((margin - 8, top + size // 2), text, INK, load_font(14), anchor="rm", align="right")
        for column, tile in enumerate(row):
            if tile is None:
                continue
            pixels, caption = tile
            left = margin + column * (size + GAP_PX)
            image.paste(Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS), (left, top))
            caption = shorten_text(caption, load_font(11), size)
            draw.text((left + size // 2, top + size + 1), caption, FAINT, load_font(11), anchor="ma")
    return image


def _stack(blocks: Sequence[Image.Image], *, title: str, foot: Sequence[str]) -> Image.Image:
    """Draw blocks below each other, with a title above and lines of text below."""
    width = max(MIN_WIDTH_PX, *(block.width + 2 * GAP_PX for block in blocks))
    lines = [line for text in foot for line in wrap_text(text, load_font(12), width - 24)]
    height = 40 + sum(block.height + 14 for block in blocks) + 16 * len(lines) + 8
    image = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((12, 8), shorten_text(title, load_font(18), width - 24), INK, load_font(18))
    top = 40
    for block in blocks:
        image.paste(block, (GAP_PX, top))
        top += block.height + 14
    for line in lines:
        draw.text((12, top), line, FAINT, load_font(12))
        top += 16
    return image


def shorten_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Cut the middle out of a text that is wider than `width` pixels: ids differ at their ends."""
    short = text
    for num in range(len(text) - 1, -1, -1):
        if font.getlength(short) <= width:
            break
        short = text[: num // 2] + "…" + text[len(text) - (num - num // 2) :]
    return short


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text between words into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@keep
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which comes with Matplotlib: the same on every machine, with the letters of most languages."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
