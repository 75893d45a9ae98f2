"""A 4D sequence as an animated GIF: front view, every modality, at the size of the cache, with the licence line."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from preprocess.inspection.sheet import FAINT, GAP_PX, INK, load_font, picture_of, wrap_text
from shared.cache import Cache
from shared.errors import CacheError, FacetError
from shared.schema import Sample
from shared.schema import Sequence as SequenceRow
from shared.store.storage import write_file

PAPER = (250, 250, 250)  # grey, as relief and depth are: all of their colours fit a GIF's 256
DEFAULT_RATE = 25.0  # frames per second, where the data set gives none
SHORTEST_MS = 20  # viewers slow down what is shorter
MOST_FRAMES = 250
MIN_WIDTH_PX = 300
HEAD_PX, LINE_PX = 22, 15


def write_gif(cache: Cache, path: Path, *, sequence: str) -> str:
    """Write the valid frames of a sequence in time order, as an endless loop at the recording's rate.

    A long recording is thinned to every n-th frame, each shown n times as long. Grey pictures are exact; texture is
    drawn in the 256 colours that fit the sequence best.

    Returns:
        A line about what was written.
    Raises:
        FacetError: no such sequence, fewer than two valid frames, or the file is not named .gif.
    """
    if path.suffix.lower() != ".gif":
        raise FacetError(f"--gif {path}: expected a name that ends in .gif")
    row = _find_sequence(cache, sequence)
    frames = [cache.samples[index] for index in cache.frames(sequence) if cache.samples[index].valid]
    if len(frames) < 2:
        raise FacetError(f"--sequence {sequence}: has {len(frames)} valid frames, a GIF takes two; use --sheet")
    step = -(-len(frames) // MOST_FRAMES)
    shown = frames[::step]
    modalities = [name for name in cache.info.settings.modalities if all(sample.has(name) for sample in shown)]
    if not modalities:
        raise CacheError(f"{cache.path}: no modality is in every frame of {sequence}")
    images = [_draw_frame(cache, row, sample, modalities, len(frames)) for sample in shown]
    rate = row.frames_per_second if row.frames_per_second and row.frames_per_second > 0 else DEFAULT_RATE
    duration_ms = max(SHORTEST_MS, 10 * round(100 * step / rate))  # a GIF counts in hundredths of a second
    first, *others = _index_colours(images)
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=duration_ms, loop=0, optimize=False)
    cache.check_unchanged()
    write_file(path, buffer.getvalue(), like=cache.path)
    thinned = f", one in {step} of {len(frames)}" if step > 1 else ""
    guess = "" if row.frames_per_second else ", a guess: the data set does not give its rate"
    return f"{len(shown)} frames{thinned}, {1000 / duration_ms:.3g} a second{guess}"


def _find_sequence(cache: Cache, name: str) -> SequenceRow:
    names = [row.sequence for row in cache.sequences]
    if not names:
        raise FacetError(f"--sequence {name}: {cache.path} holds no sequences; use --sheet")
    if name not in names:
        more = f" and {len(names) - 3} more (sequences.csv)" if len(names) > 3 else ""
        some = ", ".join(names[:3])
        raise FacetError(f"--sequence {name}: no such sequence in {cache.path}; there are {some}{more}")
    return cache.sequences[names.index(name)]


def _draw_frame(
    cache: Cache, row: SequenceRow, sample: Sample, modalities: Sequence[str], num_frames: int
) -> Image.Image:
    """Draw the modalities side by side, between a line about the frame and the licence."""
    settings = cache.info.settings
    width = max(MIN_WIDTH_PX, len(modalities) * (settings.size_px + GAP_PX) + GAP_PX)
    foot = wrap_text(cache.info.licence, load_font(11), width - 2 * GAP_PX)
    top = HEAD_PX + settings.size_px + 4  # of the licence
    image = Image.new("RGB", (width, top + LINE_PX * len(foot) + 4), PAPER)
    draw = ImageDraw.Draw(image)
    about = [row.sequence, row.label or "no label", f"frame {sample.frame} ({num_frames} in all)"]
    draw.text((GAP_PX, 3), " · ".join(about), INK, load_font(12))
    for column, modality in enumerate(modalities):
        picture = Image.fromarray(picture_of(cache, sample, modality, settings.front_view))
        image.paste(picture, (GAP_PX + column * (settings.size_px + GAP_PX), HEAD_PX))
    for number, line in enumerate(foot):
        draw.text((GAP_PX, top + number * LINE_PX), line, FAINT, load_font(11))
    return image


def _index_colours(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Give all images one palette, so that a still pixel stays still: exact if they have at most 256 colours."""
    packed = [np.asarray(image).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32) for image in images]
    colours = np.unique(np.concatenate([np.unique(image) for image in packed]))
    if len(colours) > 256:
        sheet = np.concatenate([np.asarray(image) for image in images[:: -(-len(images) // 16)]])
        palette = Image.fromarray(sheet).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        return [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    indexed = [Image.fromarray(np.searchsorted(colours, image).astype(np.uint8)) for image in packed]
    for image in indexed:
        image.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).ravel().tolist())
    return indexed
