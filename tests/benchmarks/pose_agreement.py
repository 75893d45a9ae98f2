"""How far a pose depends on how it was found: the same scans with and without their landmarks, faces that are refused, others
that are taken for faces, what a scan costs, and how far poses are from the generator's.

FACET_FACES=… .venv/bin/python tests/benchmarks/pose_agreement.py [NAME=DIR …] [--every N]
NAME: bu3dfe, bosphorus … as `preprocess synth` or the population's writer writes it; may be given more than once.
Exit code 0 when the two ways differ by at most 1 degree on average and 3 at worst and no face is refused, else 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from scipy import ndimage  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from preprocess.alignment.align import FoundPose, find_pose, move_mesh  # noqa: E402
from preprocess.datasets import DATASETS  # noqa: E402
from preprocess.geometry.mesh import Mesh  # noqa: E402
from preprocess.readers.landmark_points import FACE_POINTS, read_face_points  # noqa: E402
from preprocess.readers.surface import read_surface  # noqa: E402
from preprocess.synth.action_units import PROTOTYPES, draw_activation  # noqa: E402
from preprocess.synth.head import Person  # noqa: E402
from preprocess.synth.population import draw_person  # noqa: E402
from shared.errors import ScanError  # noqa: E402

MEAN_DEG, WORST_DEG = 1.0, 3.0
Groups = Mapping[str, tuple[int, ...]]


def scans_of(name: str, folder: Path, every: int) -> Iterator[tuple[Mesh, Groups]]:
    dataset = DATASETS[name]
    for record in list(dataset.find(folder).records)[::every]:
        yield dataset.read(folder, record), dataset.landmark_groups


def real_scans(folder: Path) -> Iterator[tuple[Mesh, Groups]]:
    groups = {name: (i,) for i, name in enumerate(FACE_POINTS)}
    for file, scale in (
        ("james/james.obj", 1.0), ("leeperrysmith/LeePerrySmith.glb", 54.0), ("meshmonk/DemoFace_10K.obj", 1.0),
    ):  # fmt: skip
        mesh = read_surface(folder / file)
        points = read_face_points(folder / "james/james.ljson")[0] if "james" in file else None
        yield replace(mesh, vertices_mm=mesh.vertices_mm * np.float32(scale), landmarks_mm=points), groups


def measure(mesh: Mesh, groups: Groups, seconds: list[float]) -> FoundPose | None:
    started = time.perf_counter()
    try:
        return find_pose(mesh, landmark_groups=groups, explain=False)
    except ScanError as error:
        print(f"  refused: {error}", file=sys.stderr)
        return None
    finally:
        seconds.append(1000 * (time.perf_counter() - started))


def compare(name: str, scans: Iterator[tuple[Mesh, Groups]]) -> tuple[list[float], int]:
    """Prints a row; returns the angles between the two ways, and how many faces were refused."""
    angles: list[float] = []
    pitches: list[float] = []
    shifts: list[float] = []
    refused = [0, 0]
    seconds: tuple[list[float], list[float]] = ([], [])
    num = 0
    for mesh, groups in scans:
        num += 1
        with_them = measure(mesh, groups, seconds[0]) if mesh.landmarks_mm is not None else None
        without = measure(mesh, {}, seconds[1])
        refused[0] += with_them is None and mesh.landmarks_mm is not None
        refused[1] += without is None
        if with_them is None or without is None or with_them.method != "landmarks":
            continue
        rest = with_them.scan_to_face @ np.linalg.inv(without.scan_to_face)
        angles.append(float(np.degrees(Rotation.from_matrix(rest[:3, :3]).magnitude())))
        pitches.append(float(Rotation.from_matrix(rest[:3, :3]).as_euler("yxz", degrees=True)[1]))
        shifts.append(float(np.linalg.norm(rest[:3, 3])))
    cost = " / ".join(f"{np.median(s):.0f}" if s else "–" for s in seconds)
    row = [
        f"{np.mean(angles):.2f}", f"{max(angles):.2f}", f"{np.mean(pitches):+.2f}", f"{np.mean(shifts):.2f}",
    ] if angles else ["–"] * 4  # fmt: skip
    print(f"| {name} | {num} | {' | '.join(row)} | {refused[0]} / {refused[1]} | {cost} |", flush=True)
    return angles, sum(refused)


def generated_pitch(num_people: int) -> tuple[np.ndarray, int]:
    """Pitch in degrees of what is found against how the generator turned the head, (people, expressions), NaN if refused."""
    errors = np.full((num_people, len(PROTOTYPES)), np.nan)
    refused = 0
    for k in range(num_people):
        identity, rng = draw_person(2024, k, female=k % 2 == 0)
        person = Person(identity)
        for e, expression in enumerate(PROTOTYPES):
            mesh = person.scan(draw_activation(expression, 1.0, rng), 0.05, k)
            turn = np.eye(4)
            turn[:3, :3] = Rotation.from_euler("yxz", rng.normal(0, 4, 3), degrees=True).as_matrix()
            turn[:3, 3] = rng.normal(0, 12, 3)
            found = measure(move_mesh(mesh, turn), {}, [])
            if found is None:
                refused += 1
            else:
                rest = Rotation.from_matrix(found.scan_to_face[:3, :3] @ turn[:3, :3])
                errors[k, e] = rest.as_euler("yxz", degrees=True)[1]
    return errors, refused


def others() -> Iterator[tuple[str, Mesh]]:
    """What is no upright face: faces upside down, from behind, from the side, from above; balls, cushions, lumps, knobs."""
    rng = np.random.default_rng(0)
    for k in range(45):
        identity, own = draw_person(7, k, female=k % 2 == 0)
        mesh = Person(identity).scan(draw_activation(list(PROTOTYPES)[k % len(PROTOTYPES)], 1.0, own))
        for name, axis, degrees in (
            ("upside down", "z", 180), ("from behind", "y", 180), ("behind, upside down", "x", 180), ("on its side", "z", 90),
            ("profile", "y", 90), ("from above", "x", 90), ("from below", "x", -90),
        ):  # fmt: skip
            turn = np.eye(4)
            wobble = Rotation.from_rotvec(rng.normal(0, 0.1, 3)).as_matrix()
            turn[:3, :3] = wobble @ Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
            yield name, move_mesh(mesh, turn)
    x, y = np.meshgrid(np.arange(-125, 126, 2.5), np.arange(-150, 151, 2.5))
    for k in range(210):
        round_ = rng.uniform(40, 110) * np.sqrt(
            np.clip(1 - (x / rng.uniform(65, 140)) ** 2 - (y / rng.uniform(80, 160)) ** 2, 0, 1)
        )
        if k % 4 == 0:
            yield "ball", height_field(x, y, round_)
        elif k % 4 == 1:
            waves = [rng.uniform(2, 20) * np.sin(axis / rng.uniform(8, 30) + rng.uniform(0, 6)) for axis in (x, y)]
            yield "cushion", height_field(x, y, waves[0] + waves[1])
        elif k % 4 == 2:
            lumps = sum(
                ndimage.gaussian_filter(rng.normal(0, 1, x.shape), s) * s * rng.uniform(2, 9) for s in (4, 8, 14)
            )
            yield "lumps", height_field(x, y, round_ + lumps)
        else:
            knob = rng.uniform(10, 30) * np.exp(-((x / rng.uniform(8, 20)) ** 2) - (y / rng.uniform(10, 25)) ** 2)
            yield "ball with a knob", height_field(x, y, round_ + knob)


def height_field(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Mesh:
    index = np.arange(z.size).reshape(z.shape)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.concatenate([np.stack(corners, -1).reshape(-1, 3) for corners in ((a, b, d), (a, d, c))])
    return Mesh(np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32), triangles.astype(np.int32))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", metavar="NAME=DIR")
    parser.add_argument("--every", type=int, default=1, help="look at every so-manyth scan")
    parser.add_argument("--people", type=int, default=12, help="of the generator, seven expressions each")
    parser.add_argument("--others", action="store_true", help="count what is no face and taken for one")
    arguments = parser.parse_args()
    print(
        "| scans | number | mean ° | worst ° | pitch ° | mm | refused with / without landmarks | ms |\n|" + "---|" * 8
    )
    angles: list[float] = []
    refused = 0
    rows = [(text, scans_of(text.split("=")[0], Path(text.split("=")[1]), arguments.every)) for text in arguments.sets]
    if "FACET_FACES" in os.environ:
        rows.append(("real scans", real_scans(Path(os.environ["FACET_FACES"]))))
    for name, scans in rows:
        found, lost = compare(name.replace("=", " "), scans)
        angles, refused = angles + found, refused + lost
    pitch, lost = generated_pitch(arguments.people)
    refused += lost
    within = np.sqrt(np.nanmean(np.nanvar(pitch, axis=1)))
    print(
        f"against the generator's pose, {pitch.size} scans: pitch off by {np.nanmean(np.abs(pitch)):.2f} degrees on average, "
        f"{np.nanmax(np.abs(pitch)):.2f} at worst, {np.nanmean(pitch):+.2f} with its sign; "
        f"{within:.2f} (standard deviation) over one person's expressions; {lost} refused"
    )
    if arguments.others:
        counts: dict[str, list[int]] = {}
        for name, mesh in others():
            taken = counts.setdefault(name, [0, 0])
            taken[1] += 1
            try:
                find_pose(mesh, landmark_groups={}, explain=False)
                taken[0] += 1
            except ScanError:
                pass
        total = [sum(taken[i] for taken in counts.values()) for i in (0, 1)]
        print(f"taken for a face: {total[0]} of {total[1]} that are none: ", end="")
        print(", ".join(f"{name} {a} of {b}" for name, (a, b) in counts.items()))
    return 0 if not refused and np.mean(angles or [0]) <= MEAN_DEG and max(angles, default=0) <= WORST_DEG else 1


if __name__ == "__main__":
    raise SystemExit(main())
