"""Contact sheets: pictures of cached samples on one page, with names, labels and the data set's licence line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shared.cache import Cache
from shared.errors import CacheError, FacetError
from shared.pictures import BACKGROUND, draw_picture
from shared.schema import RenderSettings, Sample
from shared.storage import write_file

TILE_PX = 150
GAP_PX = 6
MIN_WIDTH_PX = 480  # room for the title and the licence line
INK, FAINT = (30, 30, 30), (120, 120, 120)
MAX_SUBJECTS = 8


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
        blocks = [_sample_block(cache, chosen[0], tile=224)]
    elif subject is not None:
        blocks = [_subject_block(cache, subject)]
    else:
        blocks = _overview_blocks(cache)
    image = _stack(blocks, title=f"{cache.info.dataset} · {cache.info.num_valid} scans", foot=cache.info.licence)
    write_file(path, _png(image))


def picture_of(cache: Cache, sample: Sample, modality: str, view: int) -> np.ndarray:
    """One cached image as people look at it; see `draw_picture`."""
    pixels = cache.arrays.read(modality, [cache.row_of(sample)])[0, view]
    return draw_picture(pixels, modality, dynamic=bool(cache.info.settings.dynamic))


def front_view(settings: RenderSettings) -> int:
    """The number of the view that looks at the face most nearly from the front."""
    return min(
        range(len(settings.views)), key=lambda i: abs(settings.views[i].yaw_deg) + abs(settings.views[i].pitch_deg)
    )


def _overview_blocks(cache: Cache) -> list[Image.Image]:
    by_class = _spread(sorted({s.subject for s in cache.samples if s.valid and s.label}), MAX_SUBJECTS)
    columns = [name for name in cache.info.class_names if any(s.valid and s.label == name for s in cache.samples)]
    rows = []
    for subject in by_class:
        best = {
            name: _clearest([s for s in cache.samples if s.subject == subject and s.label == name]) for name in columns
        }
        rows.append((subject, [(best[name], "") for name in columns]))
    blocks = [_grid(cache, rows, columns)] if rows else []
    samples = [sample for _, row in rows for sample, _ in row if sample] or [s for s in cache.samples if s.valid]
    if not samples:
        raise CacheError(f"{cache.path}: holds no valid sample to show")
    # a textured one shows most
    shown = max(samples, key=lambda s: (len(s.modalities), s.label == "surprise"))
    return [*blocks, _sample_block(cache, shown, tile=TILE_PX)]


def _subject_block(cache: Cache, subject: str) -> Image.Image:
    mine = [s for s in cache.samples if s.subject == subject and s.valid]
    if not mine:
        some = ", ".join(sorted({s.subject for s in cache.samples if s.valid})[:5])
        raise FacetError(f"--subject {subject}: no valid sample of that subject in {cache.path}; there are {some} …")
    labels = [name for name in (*cache.info.class_names, "") if any(s.label == name for s in mine)]
    rows = []
    for label in labels:
        picked = _spread([s for s in mine if s.label == label], 8)
        rows.append(
            (label or "no label", [(s, s.intensity or (f"frame {s.frame}" if s.sequence else "")) for s in picked])
        )
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


def _grid(cache: Cache, rows: list[tuple[str, list[tuple[Sample | None, str]]]], columns: list[str]) -> Image.Image:
    front = front_view(cache.info.settings)
    margin, head, caption = 84, 26 if columns else 6, 16
    width = margin + max(len(row) for _, row in rows) * (TILE_PX + GAP_PX)
    image = Image.new("RGB", (width, head + len(rows) * (TILE_PX + caption + GAP_PX)), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for column, name in enumerate(columns):
        draw.text((margin + column * (TILE_PX + GAP_PX) + TILE_PX // 2, 4), name, INK, load_font(15), anchor="ma")
    for r, (name, row) in enumerate(rows):
        top = head + r * (TILE_PX + caption + GAP_PX)
        draw.text((margin - 8, top + TILE_PX // 2), name, INK, load_font(14), anchor="rm")
        for c, (sample, note) in enumerate(row):
            if sample is None:
                continue
            modality = sample.modalities.split("+")[0]
            left = margin + c * (TILE_PX + GAP_PX)
            image.paste(_tile(picture_of(cache, sample, modality, front), TILE_PX), (left, top))
            draw.text(
                (left + TILE_PX // 2, top + TILE_PX + 1), note or sample.sample_id, FAINT, load_font(11), anchor="ma"
            )
    return image


def _sample_block(cache: Cache, sample: Sample, tile: int) -> Image.Image:
    views, modalities = cache.info.settings.views, sample.modalities.split("+")
    margin, head = 84, 44
    width = margin + len(views) * (tile + GAP_PX)
    image = Image.new("RGB", (width, head + len(modalities) * (tile + GAP_PX)), BACKGROUND)
    draw = ImageDraw.Draw(image)
    about = [sample.sample_id, sample.label or "no label", sample.intensity, f"aligned by {sample.alignment}"]
    draw.text((margin, 2), " · ".join(text for text in about if text), INK, load_font(14))
    for column, view in enumerate(views):
        text = f"yaw {view.yaw_deg:+g}°" + (f", pitch {view.pitch_deg:+g}°" if view.pitch_deg else "")
        draw.text((margin + column * (tile + GAP_PX) + tile // 2, 24), text, FAINT, load_font(13), anchor="ma")
    for row, modality in enumerate(modalities):
        top = head + row * (tile + GAP_PX)
        draw.text((margin - 8, top + tile // 2), modality, INK, load_font(14), anchor="rm")
        for column in range(len(views)):
            tile_image = _tile(picture_of(cache, sample, modality, column), tile)
            image.paste(tile_image, (margin + column * (tile + GAP_PX), top))
    return image


def _stack(blocks: list[Image.Image], *, title: str, foot: str) -> Image.Image:
    width = max(MIN_WIDTH_PX, *(block.width + 2 * GAP_PX for block in blocks))
    lines = wrap_text(foot, load_font(12), width - 24)
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


def wrap_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
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


def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, the same on every machine."""
    return ImageFont.load_default(size)


def _png(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
