"""A 4D sequence as an animated GIF: front view, every modality, at the cache's own size, with the licence line drawn in."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from preprocess.inspection.sheet import GAP_PX, load_font, picture_of, wrap_text
from shared.cache import Cache
from shared.errors import CacheError, FacetError
from shared.schema import MODALITIES, Sample
from shared.schema import Sequence as SequenceRow
from shared.store.storage import write_file

# Greys alone: relief and depth are grey too, so that all of their colours fit a GIF's 256.
PAPER, INK, FAINT = (250, 250, 250), (30, 30, 30), (120, 120, 120)
DEFAULT_RATE = 25.0  # frames a second, where the data set does not say
SHORTEST_MS = 20  # viewers slow down what is shorter
MOST_FRAMES = 250
MIN_WIDTH_PX = 300
HEAD_PX, LINE_PX = 22, 15


def write_gif(cache: Cache, path: Path, *, sequence: str) -> str:
    """Writes a sequence's valid frames in time order, an endless loop at the recording's rate.

    A long recording is thinned to every n-th frame, each shown n times as long. Grey pictures are exact; where a sequence has
    more than 256 colours, texture is drawn in the 256 that fit it best, the same in every frame.

    Returns:
        What was written, for the console.
    Raises:
        FacetError: no such sequence, fewer than two valid frames, or the file is not named .gif.
    """
    if path.suffix.lower() != ".gif":
        raise FacetError(f"--gif {path}: expected a name that ends in .gif")
    row = _find_sequence(cache, sequence)
    frames = [cache.samples[row] for row in cache.frames(sequence) if cache.samples[row].valid]
    if len(frames) < 2:
        raise FacetError(f"--sequence {sequence}: has {len(frames)} valid frames, a GIF takes two; use --sheet")
    step = -(-len(frames) // MOST_FRAMES)
    shown = frames[::step]
    modalities = [m for m in MODALITIES if all(s.has(m) for s in shown)]
    if not modalities:
        raise CacheError(f"{cache.path}: no modality is in every frame of {sequence}")
    rate = row.frames_per_second if row.frames_per_second and row.frames_per_second > 0 else DEFAULT_RATE
    images = [_draw_frame(cache, row, sample, modalities, len(frames)) for sample in shown]
    duration_ms = max(SHORTEST_MS, 10 * round(100 * step / rate))  # a GIF counts in hundredths of a second
    cache.check_unchanged()
    write_file(path, _encode(images, duration_ms), like=cache.path)
    thinned = f", one in {step} of {len(frames)}" if step > 1 else ""
    guess = "" if row.frames_per_second else ", a guess: the data set does not tell its rate"
    return f"{len(shown)} frames{thinned}, {1000 / duration_ms:.3g} a second{guess}"


def _find_sequence(cache: Cache, name: str) -> SequenceRow:
    if not cache.sequences:
        raise FacetError(f"--sequence {name}: {cache.path} holds no sequences; use --sheet")
    found = [row for row in cache.sequences if row.sequence == name]
    if not found:
        some = ", ".join(row.sequence for row in cache.sequences[:3])
        more = f" and {len(cache.sequences) - 3} more (sequences.csv)" if len(cache.sequences) > 3 else ""
        raise FacetError(f"--sequence {name}: no such sequence in {cache.path}; there are {some}{more}")
    return found[0]


def _draw_frame(
    cache: Cache, row: SequenceRow, sample: Sample, modalities: Sequence[str], num_frames: int
) -> Image.Image:
    """Modalities side by side, pixel for pixel, between a line that says which frame this is and the licence."""
    view, size = cache.info.settings.front_view, cache.info.settings.size_px
    width = max(MIN_WIDTH_PX, len(modalities) * (size + GAP_PX) + GAP_PX)
    foot = wrap_text(cache.info.licence, load_font(11), width - 2 * GAP_PX)
    image = Image.new("RGB", (width, HEAD_PX + size + 4 + LINE_PX * len(foot) + 4), PAPER)
    draw = ImageDraw.Draw(image)
    about = [row.sequence, row.label or "no label", f"frame {sample.frame} ({num_frames} in all)"]
    draw.text((GAP_PX, 3), " · ".join(about), INK, load_font(12))
    for column, modality in enumerate(modalities):
        left = GAP_PX + column * (size + GAP_PX)
        image.paste(Image.fromarray(picture_of(cache, sample, modality, view)), (left, HEAD_PX))
    for number, line in enumerate(foot):
        draw.text((GAP_PX, HEAD_PX + size + 4 + number * LINE_PX), line, FAINT, load_font(11))
    return image


def _encode(images: Sequence[Image.Image], duration_ms: int) -> bytes:
    indexed = _index_exactly(images) or _index_nearest(images)
    buffer = io.BytesIO()
    indexed[0].save(
        buffer, "GIF", save_all=True, append_images=indexed[1:], duration=duration_ms, loop=0, optimize=False
    )
    return buffer.getvalue()


def _index_exactly(images: Sequence[Image.Image]) -> list[Image.Image] | None:
    """The images with a palette of their own colours; None where 256 are not enough."""
    packed = [np.asarray(image).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32) for image in images]
    colours = np.unique(np.concatenate([np.unique(image) for image in packed]))
    if len(colours) > 256:
        return None
    palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).ravel().tolist()
    found = []
    for image in packed:
        one = Image.fromarray(np.searchsorted(colours, image).astype(np.uint8))
        one.putpalette(palette)
        found.append(one)
    return found


def _index_nearest(images: Sequence[Image.Image]) -> list[Image.Image]:
    """The images with one palette for all, so that a still pixel stays still."""
    sheet = np.concatenate([np.asarray(image) for image in images[:: -(-len(images) // 16)]])
    palette = Image.fromarray(sheet).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
