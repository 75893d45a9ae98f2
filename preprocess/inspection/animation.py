"""A 4D sequence as an animated GIF or an MP4 video, with its class, its frame rate and the licence line."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from preprocess.inspection.lettering import load_font, shorten_text, wrap_text
from preprocess.inspection.sheet import Shown, draw_tile
from preprocess.sequences.head_motion import SAME_POSE, HeadMotion, draw_unstabilised, find_head_motion
from shared.cache import Cache
from shared.errors import CacheError, FacetError, name_some
from shared.pictures import WHITE, centre_face, describe_view
from shared.schema import Sample
from shared.schema import Sequence as SequenceRow
from shared.store.storage import write_file

if TYPE_CHECKING:
    import av

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (120, 120, 120)  # grey, as relief and depth are: all fit a GIF's 256
DEFAULT_RATE = 25.0  # frames per second, where the data set gives none
MAX_RATE = {".gif": 50.0, ".mp4": 240.0}  # viewers slow a faster GIF down
MOST_FRAMES = {".gif": 250, ".mp4": 10_000}
SHORT_SECONDS = 1.0
MIN_WIDTH_PX = 300
GAP_PX, LINE_PX = 6, 15
QUALITY = "18"  # of H.264 (CRF): no loss that is seen


def write_animation(
    cache: Cache,
    path: Path,
    *,
    sequence: str,
    shown: Shown,
    size_px: int | None = None,
    frames_per_second: float | None = None,
    before_after: bool = False,
) -> str:
    """Write the valid frames of a sequence in time order: a GIF that repeats, or an MP4 (H.264), by the ending of its name.

    A long recording is thinned to every n-th frame, each shown n times as long. In a GIF, grey pictures are exact; others are
    drawn in the 256 colours that fit the sequence best.

    Args:
        shown: the pictures; a line of them for each view.
        size_px: width and height of a picture; None: as in the cache. frames_per_second: None: the recording's.
        before_after: before each picture, also draw the frame as it would be without `--stabilise`.
    Returns:
        A line about what was written.
    Raises:
        FacetError: no such sequence, fewer than two valid frames, another ending, a rate that the format cannot have, or the
            package for MP4 is missing; before_after: the cache was not stabilised, or has no depth.
    """
    form = path.suffix.lower()
    if form not in MAX_RATE:
        raise FacetError(f"--animation {path}: expected a name that ends in .gif or .mp4")
    if frames_per_second is not None and not 0.1 <= frames_per_second <= MAX_RATE[form]:
        raise FacetError(f"--fps {frames_per_second:g}: expected 0.1 to {MAX_RATE[form]:g} for {form}")
    if form == ".mp4":
        check_video()
    row = _find_sequence(cache, sequence)
    frames = [cache.samples[index] for index in cache.frames(sequence) if cache.samples[index].valid]
    if len(frames) < 2:
        raise FacetError(f"--sequence {sequence}: has {len(frames)} valid frames, an animation takes two; use --sheet")
    recorded = row.frames_per_second if row.frames_per_second and row.frames_per_second > 0 else None
    wanted = frames_per_second or min(recorded or DEFAULT_RATE, MAX_RATE[form])
    step = -(-len(frames) // MOST_FRAMES[form])
    motion = _find_motion(cache, frames[::step]) if before_after else None
    drawer = _Drawer(cache, row, frames[::step], shown, size_px, len(frames), recorded, motion)
    rate = wanted / step
    if form == ".gif":
        duration_ms = 10 * round(100 / rate)  # a GIF counts in hundredths of a second
        rate, data = 1000 / duration_ms, _encode_gif(drawer.draw_all(1000 / duration_ms), duration_ms)
    else:
        data = _encode_mp4(drawer.draw_all(rate), rate)
    cache.check_unchanged()
    write_file(path, data, like=cache.path)
    thinned = f", one in {step} of {len(frames)}" if step > 1 else ""
    guess = "" if recorded or frames_per_second else ", a guess: the data set does not give its rate"
    short = len(drawer.frames) / rate < SHORT_SECONDS and frames_per_second is None
    slower = "; it is short: --fps 5 shows it slower" if short else ""
    head = f"; the head {motion.describe()}" if motion else ""
    return f"{len(drawer.frames)} frames{thinned}, {rate:.3g} a second{guess}{slower}{head}"


def check_video() -> None:
    """Check that the package for MP4 is installed.

    Raises:
        FacetError: it is not.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise FacetError("MP4 needs the package av (FFmpeg): pip install av, or name a .gif") from error


def _find_sequence(cache: Cache, name: str) -> SequenceRow:
    names = [row.sequence for row in cache.sequences]
    if not names:
        raise FacetError(f"--sequence {name}: {cache.path} holds no sequences; use --sheet")
    if name not in names:
        some = name_some(names, 3) + " (sequences.csv)" * (len(names) > 3)
        raise FacetError(f"--sequence {name}: no such sequence in {cache.path}; there are {some}")
    return cache.sequences[names.index(name)]


def _find_motion(cache: Cache, frames: Sequence[Sample]) -> HeadMotion:
    settings = cache.info.settings
    if not settings.stabilised:
        raise FacetError(f"--before-after: {cache.path} was not stabilised: {SAME_POSE}")
    if "depth" not in settings.modalities:
        raise FacetError(f"--before-after: takes depth, and {cache.path} holds {','.join(settings.modalities)} alone")
    return find_head_motion(cache.arrays.read("scan_to_face", [cache.row_of(sample.sample_id) for sample in frames]))


class _Drawer:
    """Draws frames of one size: a line of pictures for each view, between lines about the frame and the licence."""

    def __init__(
        self,
        cache: Cache,
        row: SequenceRow,
        frames: Sequence[Sample],
        shown: Shown,
        size_px: int | None,
        num_frames: int,
        recorded: float | None,
        motion: HeadMotion | None,
    ) -> None:
        """
        Args:
            frames: those that are drawn, of num_frames. recorded: frames per second of the recording, if known. motion: of the
                head in these frames, to draw them without it and with it.
        Raises:
            CacheError: no picture is in every frame.
        """
        self.cache, self.row, self.frames, self.shown = cache, row, frames, shown
        self.pictures = [p for p in shown.pictures if all(sample.has(p.modality.name) for sample in frames)]
        if not self.pictures:
            names = ", ".join(p.name for p in shown.pictures)
            raise CacheError(f"{cache.path}: {names}: in no case in every frame of {row.sequence}")
        self.size_px = size_px or cache.info.settings.size_px
        self.num_frames, self.recorded, self.motion = num_frames, recorded, motion
        # Of the columns: the picture, whether it is drawn without `--stabilise`, and the end of its name.
        ways = [(True, ", before"), (False, ", stabilised")] if motion else [(False, "")]
        self.columns = [(picture, *way) for picture in self.pictures for way in ways]
        width = max(MIN_WIDTH_PX, len(self.columns) * (self.size_px + GAP_PX) + GAP_PX)
        self.width = width + width % 2  # H.264 takes even sizes
        self.foot = wrap_text(cache.info.licence, load_font(11), self.width - 2 * GAP_PX)

    def draw_all(self, rate: float) -> list[Image.Image]:
        """Draw every frame. rate: frames per second that are shown."""
        bar = tqdm(self.frames, desc="draw", unit="frame", leave=False, disable=None)
        return [self._draw(index, sample, rate) for index, sample in enumerate(bar)]

    def _draw(self, index: int, sample: Sample, rate: float) -> Image.Image:
        head, step = self._head(sample, rate), self.size_px + LINE_PX + 2
        top = GAP_PX // 2 + LINE_PX * len(head)
        height = top + step * len(self.shown.views) + LINE_PX * len(self.foot) + GAP_PX
        image = Image.new("RGB", (self.width, height + height % 2), PAPER)
        draw = ImageDraw.Draw(image)
        for number, line in enumerate(head):
            text = shorten_text(line, load_font(12), self.width - 2 * GAP_PX)
            draw.text((GAP_PX, GAP_PX // 2 + number * LINE_PX), text, INK, load_font(12))
        for place, view in enumerate(self.shown.views):
            before = self._draw_before(index, sample, view) if self.motion else {}
            for column, (picture, is_before, end) in enumerate(self.columns):
                pixels = before[picture.name] if is_before else draw_tile(self.cache, sample, picture.name, view)
                tile = Image.fromarray(pixels)
                if tile.width != self.size_px:
                    tile = tile.resize((self.size_px, self.size_px), Image.Resampling.LANCZOS)
                left, above = GAP_PX + column * (self.size_px + GAP_PX), top + place * step
                name = f"{picture.name}, {describe_view(self.cache.info.settings.views[view])}{end}"
                text = shorten_text(name, load_font(11), self.size_px)
                draw.text((left + self.size_px // 2, above), text, FAINT, load_font(11), anchor="ma")
                image.paste(tile, (left, above + LINE_PX))
        for number, text in enumerate(self.foot):
            above = top + step * len(self.shown.views) + number * LINE_PX
            draw.text((GAP_PX, above), text, FAINT, load_font(11))
        return image

    def _draw_before(self, index: int, sample: Sample, view: int) -> dict[str, np.ndarray]:
        """Draw a frame with the pose of the first one: name of the picture → u8 (S, S, 3)."""
        assert self.motion is not None
        settings = self.cache.info.settings
        modalities = {"depth", *(picture.modality.name for picture in self.pictures)} - {"normal"}
        row = [self.cache.row_of(sample.sample_id)]
        images = {name: self.cache.arrays.read(name, row)[0, view] for name in modalities}
        drawn = draw_unstabilised(images, settings.views[view], self.motion.moves[index], settings)
        blank = np.full((settings.size_px, settings.size_px, 3), WHITE, np.uint8)
        return {
            picture.name: centre_face(picture.draw(drawn[picture.modality.name], dynamic=False), settings.views[view])
            if drawn
            else blank
            for picture in self.pictures
        }

    def _head(self, sample: Sample, rate: float) -> list[str]:
        """Return the lines above the pictures: whose sequence and what class; which frame, and how fast."""
        if self.shown.plain:
            return []
        speed = f"{rate:.3g} frames/s"
        if self.recorded and abs(self.recorded - rate) > 0.02 * rate:
            speed += f", recorded at {self.recorded:g}"
        return [
            f"{self.row.sequence} · {self.row.label or 'no label'}",
            f"frame {sample.frame} ({self.num_frames} in all) · {speed}",
        ]


def _encode_gif(images: Sequence[Image.Image], duration_ms: int) -> bytes:
    first, *others = _index_colours(images)
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=duration_ms, loop=0, optimize=False)
    return buffer.getvalue()


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


def _encode_mp4(images: Sequence[Image.Image], rate: float) -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: av.VideoStream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height = images[0].size
        stream.pix_fmt, stream.options = "yuv420p", {"crf": QUALITY}
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    return buffer.getvalue()
