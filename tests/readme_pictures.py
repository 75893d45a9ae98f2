"""Makes two pictures of the manuals anew, from synthetic faces: what is rendered, and the coordinate frames.

.venv/bin/python tests/readme_pictures.py   (one minute; writes .github/faces.png and .github/coordinate-frames.png)
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from preprocess.rendering.cameras import build_cameras  # noqa: E402
from shared.cache import Cache, open_cache  # noqa: E402
from shared.modalities import (  # noqa: E402
    DEPTH_STEP_MM,
    DEPTH_ZERO,
    MODALITIES,
)
from shared.pictures import PICTURES, centre_face  # noqa: E402
from shared.schema import FIELD_OF_VIEW_MM  # noqa: E402

OUT = ROOT / ".github"
MOST_BYTES = {"faces.png": 300_000, "coordinate-frames.png": 60_000}
FRONT, LEFT, RIGHT, OBLIQUE = range(4)  # of --views below
EXPRESSIONS = ("AN04", "DI04", "FE04", "HA04", "SA04", "SU04", "NE00")
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
COLOURS = {"x": "#c0392b", "y": "#1e8449", "z": "#1f5fa8"}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        scans, path = Path(folder) / "scans", Path(folder) / "cache"
        _run("synth", "bu3dfe", "--out", scans, "--subjects", 1)
        _run("build", "bu3dfe", "--root", scans, "--cache", path, "--size", 168, "--views", "0,20,-20,35:25")
        cache = open_cache(path)
        _save(_draw_faces(cache), "faces.png")
        _save(_draw_frames(cache), "coordinate-frames.png", num_colours=160)
    return 0


def _run(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "preprocess", *map(str, arguments)], cwd=ROOT, check=True)


def _picture(cache: Cache, code: str, name: str, view: int) -> np.ndarray:
    row = next(k for k, sample in enumerate(cache.samples) if f"_{code}" in sample.sample_id)
    picture = PICTURES[name]
    pixels = cache.arrays.read(picture.modality.name, [row])[0, view]
    return picture.draw(pixels, dynamic=False)


def _draw_faces(cache: Cache) -> Figure:
    """Row 1: every expression, texture. Row 2: one scan in all views and modalities."""
    figure = Figure(figsize=(10.8, 3.0), dpi=110)
    tiles = [(code, "texture", FRONT) for code in EXPRESSIONS]
    names = [next(s.label for s in cache.samples if f"_{code}" in s.sample_id) for code in EXPRESSIONS]
    tiles += [("SU04", modality, view) for modality in MODALITIES for view in (RIGHT, FRONT, LEFT)]
    names += [f"{modality}, yaw {yaw}°" for modality in MODALITIES for yaw in ("−20", "0", "+20")]
    for k, ((code, modality, view), name) in enumerate(zip(tiles, names, strict=True)):
        row, column, count = (0, k, 7) if k < 7 else (1, k - 7, 9)
        axes = figure.add_axes((column / count, 0.5 - 0.5 * row, 1 / count, 0.425))
        picture = centre_face(_picture(cache, code, modality, view), cache.info.settings.views[view])
        axes.imshow(picture[6:166, 14:154], aspect="equal")
        axes.set_title(name, fontsize=8, pad=1)
        axes.axis("off")
    return figure


def _draw_frames(cache: Cache) -> Figure:
    figure = Figure(figsize=(10.8, 3.9), dpi=88)
    _draw_face_frame(figure.add_axes((0.0, 0.0, 0.32, 0.9)), cache)
    _draw_cameras(figure.add_axes((0.335, 0.0, 0.33, 0.9)), cache)
    _draw_image(figure.add_axes((0.69, 0.0, 0.29, 0.9)), cache)
    return figure


def _draw_face_frame(axes: Any, cache: Cache) -> None:
    """The face from the upper left, and the three axes as that camera sees them."""
    half = FIELD_OF_VIEW_MM / 2
    axes.imshow(_picture(cache, "NE00", "relief", OBLIQUE), extent=(-half, half, -half, half))
    camera = build_cameras(cache.info.settings.views).world_to_view[OBLIQUE]
    texts = {"x": "+x\nthe subject's left", "y": "+y up", "z": "+z out of\nthe face"}
    for k, (name, text) in enumerate(texts.items()):
        end = 82 * camera[:2, k]
        axes.annotate("", end, (0, 0), arrowprops={"arrowstyle": "-|>", "color": COLOURS[name], "lw": 2.2})
        shift = {"x": (2, -26), "y": (6, 4), "z": (-14, -22)}[name]
        axes.text(
            *(end + shift), text, color=COLOURS[name], fontsize=10, ha="left" if name == "y" else "center", bbox=BOX
        )
    axes.plot(0, 0, "o", color="black", ms=5)
    axes.text(-10, 6, "origin: nose tip", fontsize=9, ha="right", bbox=BOX)
    axes.set_title("Face frame (mm)", fontsize=11)
    axes.axis("off")


def _draw_cameras(axes: Any, cache: Cache) -> None:
    """Seen from above: the profile of the face at the nose tip, and where the cameras look from."""
    row = next(k for k, sample in enumerate(cache.samples) if "_NE00" in sample.sample_id)
    depth = cache.arrays.read("depth", [row])[0, FRONT]
    size = len(depth)
    line = depth[size // 2].astype(float)
    x_mm = (np.arange(size) + 0.5) * FIELD_OF_VIEW_MM / size - FIELD_OF_VIEW_MM / 2
    z_mm = np.where(line > 0, (line - DEPTH_ZERO) * DEPTH_STEP_MM, np.nan)
    axes.fill_between(x_mm, z_mm, -95, color="#e6dccf", where=np.isfinite(z_mm))
    axes.plot(x_mm, z_mm, color="#7a6a55", lw=1.5)
    axes.text(0, -70, "the face from above", ha="center", fontsize=9, color="#7a6a55")
    for yaw in (-20, 0, 20):
        toward = np.array([np.sin(np.deg2rad(yaw)), np.cos(np.deg2rad(yaw))])
        across = np.array([toward[1], -toward[0]])
        middle = 105 * toward
        axes.plot(*zip(middle - 15 * across, middle + 15 * across, strict=True), color="black", lw=3)
        for offset in (-11, 0, 11):
            start, end = middle + offset * across, 62 * toward + offset * across
            axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#999999", "lw": 0.9})
        axes.text(
            *((119 if yaw else 122) * toward + (0.9 * yaw, 0)),
            f"yaw {yaw:+d}°".replace("+0", "0").replace("-", "−"),
            ha="center",
            va="center",
            fontsize=9,
        )
    for name, end, text in (("x", (55, 0), (66, 0)), ("z", (0, 50), (9, 44))):
        axes.annotate("", end, (0, 0), arrowprops={"arrowstyle": "-|>", "color": COLOURS[name], "lw": 2.2})
        axes.text(*text, f"+{name}", color=COLOURS[name], fontsize=10, ha="center", va="center")
    axes.text(
        0, 146, "parallel rays (orthographic);\n+yaw = toward the subject's left, +pitch = up", ha="center", fontsize=9
    )
    axes.set_xlim(-108, 108)
    axes.set_ylim(150, -95)  # z points down the page, to the viewer of the front view
    axes.set_aspect("equal")
    axes.set_title("Cameras turn about the nose tip", fontsize=11)
    axes.axis("off")


def _draw_image(axes: Any, cache: Cache) -> None:
    """The front view as it is stored."""
    size = cache.info.settings.size_px
    axes.imshow(_picture(cache, "NE00", "texture", FRONT), extent=(0, size, size, 0))
    axes.add_patch(mpl.patches.Rectangle((0, 0), size, size, fill=False, lw=1))
    style = {"arrowstyle": "-|>", "color": "black", "lw": 1.5}
    axes.annotate("", (60, 8), (4, 8), arrowprops=style)
    axes.text(63, 9, "columns", fontsize=9, va="center")
    axes.annotate("", (8, 60), (8, 4), arrowprops=style)
    axes.text(13, 56, "rows", fontsize=9, va="center")
    middle = size / 2
    for name, end, shift in (("x", (middle + 45, middle), (7, 0)), ("y", (middle, middle - 45), (0, -7))):
        axes.annotate("", end, (middle, middle), arrowprops={"arrowstyle": "-|>", "color": COLOURS[name], "lw": 2.2})
        axes.text(
            end[0] + shift[0], end[1] + shift[1], f"+{name}", color=COLOURS[name], fontsize=10, ha="center", va="center"
        )
    axes.text(middle, size - 4, "subject's right          subject's left", ha="center", fontsize=9)
    axes.text(middle, size + 11, f"S pixels = {FIELD_OF_VIEW_MM} mm; pixel centres at +½", ha="center", fontsize=9)
    axes.set_xlim(-1, size + 1)
    axes.set_ylim(size + 18, -1)
    axes.set_title("Image of yaw 0°, as stored", fontsize=11)
    axes.axis("off")


def _save(figure: Figure, name: str, *, num_colours: int | None = None) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", facecolor="white")
    image = Image.open(drawn).convert("RGB")
    if num_colours:
        image = image.quantize(num_colours, method=Image.Quantize.MEDIANCUT)
    image.save(OUT / name, optimize=True)
    size = (OUT / name).stat().st_size
    assert size < MOST_BYTES[name], f"{name}: {size:,} bytes, more than {MOST_BYTES[name]:,}"
    print(f"{OUT / name}: {size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
