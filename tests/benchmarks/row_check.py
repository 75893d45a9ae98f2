"""What the check of rendered rows sees in good scans and in broken ones: the figures behind its thresholds.

FACET_FACES=… .venv/bin/python tests/benchmarks/row_check.py [NAME=DIR …]
NAME: bu3dfe, bosphorus …, as `preprocess synth` writes it. Each line: the smallest and largest of every measure over the
scans of a kind, and how many are refused. Exit code 0 when no good scan is refused and every broken one is, else 1.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402

from preprocess.alignment.align import align  # noqa: E402
from preprocess.alignment.crop import crop_mesh  # noqa: E402
from preprocess.alignment.scan_aligner import ScanAligner  # noqa: E402
from preprocess.build.row_check import check_row, measure_row  # noqa: E402
from preprocess.datasets import DATASETS  # noqa: E402
from preprocess.geometry.mesh import Mesh  # noqa: E402
from preprocess.readers.surface import read_surface  # noqa: E402
from preprocess.rendering.cameras import build_cameras  # noqa: E402
from preprocess.rendering.views import render_views  # noqa: E402
from shared.errors import ScanError  # noqa: E402
from shared.schema import RenderSettings, View  # noqa: E402

VIEW_SETS = {
    "0, ±20": (View(0), View(20), View(-20)),
    "0": (View(0),),
    "±45": (View(45), View(-45)),
    "90": (View(90),),
    "0:±20": (View(0, 20), View(0, -20)),
}
SCANS_A_SET = 16
Change = Callable[[Mesh], Mesh]


def good_changes() -> dict[str, Change]:
    """What scans look like that must be kept."""
    return {
        "left half": lambda mesh: _keep(mesh, lambda c: c[:, 0] > 0),
        "right half": lambda mesh: _keep(mesh, lambda c: c[:, 0] < 0),
        "upper half": lambda mesh: _keep(mesh, lambda c: c[:, 1] > -15),
        "hole, 25 mm about the nose": lambda mesh: _keep(mesh, lambda c: np.linalg.norm(c, axis=1) > 25),
        "every second triangle": lambda mesh: _keep(mesh, lambda c: np.arange(len(c)) % 2 == 0),
        "small child (0.6)": lambda mesh: crop_mesh(replace(mesh, vertices_mm=mesh.vertices_mm * np.float32(0.6)), 100),
        "dark skin, little light (× 0.08)": lambda mesh: _shade(mesh, 0.08, 0),
        "washed out (a tenth of the contrast)": lambda mesh: _shade(mesh, 0.1, 200),
    }


def broken_changes() -> dict[str, Change]:
    """What must be put on the failure list."""
    return {
        "three times too small": lambda mesh: replace(mesh, vertices_mm=mesh.vertices_mm / np.float32(3)),
        "pressed flat": lambda mesh: replace(mesh, vertices_mm=mesh.vertices_mm * np.array([1, 1, 0.02], np.float32)),
        "a patch of 40 mm": lambda mesh: _keep(mesh, lambda c: np.linalg.norm(c, axis=1) < 20),
        "black": lambda mesh: _shade(mesh, 0.0, 0),
        "one colour": lambda mesh: _shade(mesh, 0.0, 140),
        "90 mm to the side": lambda mesh: _moved(mesh, (90, 0, 0)),
        "120 mm down": lambda mesh: _moved(mesh, (0, -120, 0)),
        "a wall": lambda mesh: _wall(1.0),
        "a pillow": lambda mesh: _wall(8.0),
    }


def _keep(mesh: Mesh, which: Callable[[np.ndarray], np.ndarray]) -> Mesh:
    centres = mesh.vertices_mm[mesh.triangles].mean(axis=1)
    kept = which(centres)
    return replace(mesh, triangles=mesh.triangles[kept], uv=None if mesh.uv is None else mesh.uv[kept])


def _shade(mesh: Mesh, factor: float, offset: float) -> Mesh:
    def shade(colors: np.ndarray | None) -> np.ndarray | None:
        return None if colors is None else np.clip(colors * factor + offset, 0, 255).astype(np.uint8)

    return replace(mesh, texture=shade(mesh.texture), colors=shade(mesh.colors))


def _moved(mesh: Mesh, by_mm: tuple[float, float, float]) -> Mesh:
    return crop_mesh(replace(mesh, vertices_mm=mesh.vertices_mm + np.array(by_mm, np.float32)), 100)


def _wall(wave_mm: float) -> Mesh:
    xs, ys = np.meshgrid(np.arange(-120, 121, 5.0), np.arange(-120, 121, 5.0))
    rows, columns = xs.shape
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + 1, a + columns], 1), np.stack([a + 1, a + columns + 1, a + columns], 1)]
    )
    points = np.stack([xs, ys, -0.1 * xs + wave_mm * np.sin(ys / 15)], -1).reshape(-1, 3).astype(np.float32)
    return crop_mesh(Mesh(points, triangles.astype(np.int32), None, None), 100)


def aligned_scans(name: str, root: Path) -> Iterator[Mesh]:
    """Up to SCANS_A_SET scans of a data set, evenly over the list, in the face frame."""
    dataset = DATASETS[name]
    records = list(dataset.find(root).records)
    settings = RenderSettings(stabilised=dataset.stabilised)
    for record in records[:: max(len(records) // SCANS_A_SET, 1)]:
        frames = [other for other in records if other.sequence == record.sequence] if record.sequence else [record]
        aligner = ScanAligner(dataset, root, settings, frames)
        try:
            yield aligner.align(record, aligner.read(record)).mesh
        except ScanError as error:
            print(f"  {record.source}: {error}", file=sys.stderr)


def real_scans(folder: Path) -> Iterator[Mesh]:
    for file, scale, texture in (
        ("james/james.obj", 1.0, None), ("leeperrysmith/LeePerrySmith.glb", 54.0, "leeperrysmith/Map-COL.jpg"),
        ("meshmonk/DemoFace_10K.obj", 1.0, None),
    ):  # fmt: skip
        mesh = read_surface(folder / file, texture=folder / texture if texture else None)
        mesh = replace(mesh, vertices_mm=mesh.vertices_mm * np.float32(scale))
        yield align(mesh, landmark_groups={}).mesh


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="NAME=DIR")
    scans: dict[str, list[Mesh]] = {}
    for argument in parser.parse_args().sets:
        name, _, folder = argument.partition("=")
        scans[name] = list(aligned_scans(name, Path(folder)))
    if "FACET_FACES" in os.environ:
        scans["real scans"] = list(real_scans(Path(os.environ["FACET_FACES"])))
    kinds: list[tuple[str, bool, list[Mesh]]] = [(name, True, meshes) for name, meshes in scans.items()]
    sample = [mesh for meshes in scans.values() for mesh in meshes[:3]]
    kinds += [(name, True, [change(mesh) for mesh in sample]) for name, change in good_changes().items()]
    for name, change in broken_changes().items():
        textured = [mesh for mesh in sample if mesh.has_appearance]
        kinds.append(
            (name, False, [change(mesh) for mesh in (textured if name in ("black", "one colour") else sample)])
        )
    wrong = 0
    print("| scans | views | rows | cm² | relief mm | rim | centre mm | spread | level | refused |\n|" + "---|" * 10)
    for name, is_good, meshes in kinds:
        for text, view_set in VIEW_SETS.items():
            if name == "a pillow" and text in ("±45", "90"):
                continue  # the rim is judged from the front
            settings = RenderSettings(views=view_set, supersampling=1)
            rows, refused, reasons = [], 0, set()
            for mesh in meshes:
                try:
                    views = render_views(mesh, build_cameras(view_set), size_px=224, radius_mm=100, supersampling=1)
                    rows.append(astuple(measure_row(views, settings)))
                    check_row(views, settings)
                except ScanError as error:
                    refused += 1
                    reasons.add(re.sub(r"[0-9.]+", "#", str(error))[:40])
            wrong += refused if is_good else len(meshes) - refused
            table = np.array(rows) if rows else np.full((1, 6), np.nan)
            table[:, 0] /= 100
            low, high = np.nanmin(table, axis=0), np.nanmax(table, axis=0)
            figures = " | ".join(f"{a:.3g} – {b:.3g}" for a, b in zip(low, high, strict=True))
            print(
                f"| {name} | {text} | {len(meshes)} | {figures} | {refused} {'; '.join(sorted(reasons))} |", flush=True
            )
    print(f"{wrong} decided wrongly")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
