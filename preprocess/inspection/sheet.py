"""Contact sheets: pictures of cached samples on one page, with names, labels and the data set's licence line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache as keep
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shared.cache import Cache
from shared.errors import CacheError, FacetError
from shared.modalities import BACKGROUND, MODALITIES, NORMAL_LEGEND
from shared.schema import Sample
from shared.store.storage import write_file

TILE_PX = 150
GAP_PX = 6
MIN_WIDTH_PX = 480  # room for the title and the licence line
INK, FAINT = (30, 30, 30), (120, 120, 120)
MAX_SUBJECTS = 8
MAX_MARGIN_PX = 260  # for the names of rows


def write_sheet(cache: Cache, path: Path, *, subject: str | None = None, sample_id: str | None = None) -> None:
    """Writes a contact sheet as PNG.

    Without a choice: some subjects × all classes, front view, then one sample in every view and modality. With a subject:
    all of its classes and intensities. With a sample: that sample in every view and modality.

    Raises:
        FacetError: no such subject or sample, or the file is not named .png.
    """
    if path.suffix.lower() != ".png":
        raise FacetError(f"--sheet {path}: expected a name that ends in .png")
    if sample_id is not None:
        chosen = [s for s in cache.samples if s.sample_id == sample_id]
        if not chosen:
            raise FacetError(f"--sample {sample_id}: no such sample in {cache.path}; see samples.csv")
        if not chosen[0].valid:
            raise FacetError(f"--sample {sample_id}: is not valid: {chosen[0].reason}")
        blocks, what = [_sample_block(cache, chosen[0], tile=224)], f"one sample of {chosen[0].subject}"
    elif subject is not None:
        num_valid = sum(s.valid and s.subject == subject for s in cache.samples)
        blocks, what = [_subject_block(cache, subject)], f"{subject} · {num_valid} scans"
    else:
        blocks = _overview_blocks(cache)
        what = f"{cache.info.num_valid} scans of {cache.info.num_subjects} subjects"
    settings = cache.info.settings
    foot = [NORMAL_LEGEND] if "normal" in settings.modalities and not settings.dynamic else []
    image = _stack(blocks, title=f"{cache.info.dataset} · {what}", foot=[*foot, cache.info.licence])
    cache.check_unchanged()
    write_file(path, _png(image), like=cache.path)


def picture_of(cache: Cache, sample: Sample, modality: str, view: int) -> np.ndarray:
    """Return one cached image as a picture, u8 (S, S, 3)."""
    pixels = cache.arrays.read(modality, [cache.row_of(sample)])[0, view]
    return MODALITIES[modality].draw(pixels, dynamic=bool(cache.info.settings.dynamic))


def _overview_blocks(cache: Cache) -> list[Image.Image]:
    subjects = _choose_subjects(cache)
    shown = {s.label for s in cache.samples if s.valid and s.subject in subjects}
    columns = [name for name in cache.info.class_names if name in shown]
    rows = []
    for subject in subjects:
        mine = [s for s in cache.samples if s.subject == subject]
        rows.append((subject, [_clearest([s for s in mine if s.label == name]) for name in columns]))
    blocks = [_grid(cache, rows, columns)] if rows else []
    samples = [sample for _, row in rows for sample in row if sample] or [s for s in cache.samples if s.valid]
    if not samples:
        raise CacheError(f"{cache.path}: holds no valid sample to show")
    # a textured one shows most
    clear = max(samples, key=lambda s: (len(s.modalities), s.label == "surprise"))
    return [*blocks, _sample_block(cache, clear, tile=TILE_PX)]


def _choose_subjects(cache: Cache) -> list[str]:
    """Some who show the most classes, evenly over the cache; then, for each class that none of them shows, one who does."""
    shown: dict[str, set[str]] = {}
    for sample in cache.samples:
        if sample.valid and sample.label:
            shown.setdefault(sample.subject, set()).add(sample.label)
    names = sorted(shown, key=lambda subject: (-len(shown[subject]), subject))
    all_round = [subject for subject in names if len(shown[subject]) == len(shown[names[0]])]
    chosen = _spread(all_round, MAX_SUBJECTS) if len(all_round) > MAX_SUBJECTS else names[:MAX_SUBJECTS]
    for class_name in cache.info.class_names:
        if not any(class_name in shown[subject] for subject in chosen):
            found = next((subject for subject in names if class_name in shown[subject]), None)
            chosen = [*chosen, found] if found else chosen
    return sorted(chosen)


def _subject_block(cache: Cache, subject: str) -> Image.Image:
    mine = [s for s in cache.samples if s.subject == subject and s.valid]
    if not mine:
        some = ", ".join(sorted({s.subject for s in cache.samples if s.valid})[:5])
        raise FacetError(f"--subject {subject}: no valid sample of that subject in {cache.path}; there are {some} …")
    labels = [name for name in (*cache.info.class_names, "") if any(s.label == name for s in mine)]
    rows = []
    for label in labels:
        picked = _spread([s for s in mine if s.label == label], 8)
        rows.append((label or "no label", list(picked)))
    return _grid(cache, rows, [])


def _clearest(samples: Sequence[Sample]) -> Sample | None:
    """The most intense scan of a class, or the middle of a sequence, where its apex is."""
    valid = [s for s in samples if s.valid]
    if not valid:
        return None
    if valid[0].sequence:
        first = [s for s in valid if s.sequence == valid[0].sequence]
        return first[len(first) // 2]
    return max(valid, key=lambda s: s.intensity)


def _spread(items: list, count: int) -> list:
    """At most `count` items, evenly over the list."""
    if len(items) <= count:
        return items
    return [items[i * len(items) // count] for i in range(count)]


def _grid(cache: Cache, rows: Sequence[tuple[str, Sequence[Sample | None]]], columns: list[str]) -> Image.Image:
    front = cache.info.settings.front_view
    margin, head, caption = _margin([name for name, _ in rows]), 26 if columns else 6, 16
    width = margin + max(len(row) for _, row in rows) * (TILE_PX + GAP_PX)
    image = Image.new("RGB", (width, head + len(rows) * (TILE_PX + caption + GAP_PX)), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for column, name in enumerate(columns):
        middle = margin + column * (TILE_PX + GAP_PX) + TILE_PX // 2
        draw.text((middle, 4), shorten_text(name, load_font(15), TILE_PX), INK, load_font(15), anchor="ma")
    for r, (name, row) in enumerate(rows):
        top = head + r * (TILE_PX + caption + GAP_PX)
        _name_row(draw, name, margin, top + TILE_PX // 2)
        for c, sample in enumerate(row):
            if sample is None:
                continue
            modality = sample.modalities.split("+")[0]
            left = margin + c * (TILE_PX + GAP_PX)
            image.paste(_tile(picture_of(cache, sample, modality, front), TILE_PX), (left, top))
            level = f" · {sample.intensity}" if sample.intensity else ""
            room = TILE_PX - round(load_font(11).getlength(level))
            text = shorten_text(sample.sample_id, load_font(11), room) + level
            draw.text((left + TILE_PX // 2, top + TILE_PX + 1), text, FAINT, load_font(11), anchor="ma")
    return image


def _sample_block(cache: Cache, sample: Sample, tile: int) -> Image.Image:
    views, modalities = cache.info.settings.views, sample.modalities.split("+")
    dynamic = bool(cache.info.settings.dynamic)
    names = [MODALITIES[modality].title(dynamic=dynamic).replace(", ", "\n") for modality in modalities]
    margin = _margin(names)
    width = max(margin + len(views) * (tile + GAP_PX), MIN_WIDTH_PX)
    about = [sample.sample_id, sample.label or "no label", sample.intensity, f"aligned by {sample.alignment}"]
    lines = wrap_text(" · ".join(text for text in about if text), load_font(14), width - margin)
    head = 26 + 18 * len(lines)
    image = Image.new("RGB", (width, head + len(modalities) * (tile + GAP_PX)), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((margin, 2 + 18 * number), shorten_text(line, load_font(14), width - margin), INK, load_font(14))
    for column, view in enumerate(views):
        text = f"yaw {view.yaw_deg:+g}°" + (f", pitch {view.pitch_deg:+g}°" if view.pitch_deg else "")
        draw.text((margin + column * (tile + GAP_PX) + tile // 2, head - 20), text, FAINT, load_font(13), anchor="ma")
    for row, modality in enumerate(modalities):
        top = head + row * (tile + GAP_PX)
        _name_row(draw, names[row], margin, top + tile // 2)
        for column in range(len(views)):
            tile_image = _tile(picture_of(cache, sample, modality, column), tile)
            image.paste(tile_image, (margin + column * (tile + GAP_PX), top))
    return image


def _margin(names: Sequence[str]) -> int:
    """Room to the left of the pictures for the longest name of a row; a line feed starts another line."""
    longest = max(load_font(14).getlength(part) for name in names for part in name.split("\n"))
    return min(max(math.ceil(longest) + 16, 84), MAX_MARGIN_PX)


def _name_row(draw: ImageDraw.ImageDraw, name: str, margin: int, middle: int) -> None:
    text = "\n".join(shorten_text(part, load_font(14), margin - 16) for part in name.split("\n"))
    draw.multiline_text((margin - 8, middle), text, INK, load_font(14), anchor="rm", align="right")


def _stack(blocks: list[Image.Image], *, title: str, foot: list[str]) -> Image.Image:
    width = max(MIN_WIDTH_PX, *(block.width + 2 * GAP_PX for block in blocks))
    title = shorten_text(title, load_font(18), width - 24)
    lines = [line for text in foot for line in wrap_text(text, load_font(12), width - 24)]
    height = 40 + sum(block.height + 14 for block in blocks) + 16 * len(lines) + 8
    image = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((12, 8), title, INK, load_font(18))
    top = 40
    for block in blocks:
        image.paste(block, (GAP_PX, top))
        top += block.height + 14
    for line in lines:
        draw.text((12, top), line, FAINT, load_font(12))
        top += 16
    return image


def shorten_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text where it takes at most so many pixels, else its beginning and end: ids differ at the end."""
    if font.getlength(text) <= width:
        return text
    kept = next((n for n in range(len(text) - 1, 0, -1) if font.getlength(_cut(text, n)) <= width), 0)
    return _cut(text, kept)


def _cut(text: str, num_kept: int) -> str:
    ahead = num_kept // 2
    return text[:ahead] + "…" + text[len(text) - (num_kept - ahead) :]


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines of at most so many pixels, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _tile(pixels: np.ndarray, size: int) -> Image.Image:
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)


@keep
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib: the same on every machine, with the letters of most languages."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _png(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
