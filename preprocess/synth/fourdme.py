"""A synthetic data set in the layout of 4DME (Li et al. 2022): micro-expressions, small and brief, on neutral faces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from preprocess.synth.action_units import Activation, displace
from preprocess.synth.head import Person
from preprocess.synth.label_sheet import encode_sheet
from preprocess.synth.movement import draw_slow_path, turn_head
from preprocess.synth.obj import encode_jpeg, write_textured_obj
from preprocess.synth.population import SCANNER_NOISE_MM, Layout, SubjectTask, pose_randomly
from preprocess.synth.sheet import grid_sheet, smoothstep
from preprocess.synth.skin import grid_uv
from preprocess.synth.wrl import encode_bu4dfe_wrl
from shared.store.storage import write_file

MAX_SUBJECTS = 99
LABEL_SHEET = "4DME_labels.xlsx"
COLUMNS = ("sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs")
FRAMES_PER_SECOND = 60
SMALLEST_MM, LARGEST_MM = 0.45, 1.0  # how far the face moves where it moves most
LARGEST_TURN_DEG, LARGEST_SHIFT_MM = 1.5, 2.0

# Emotion → the units it may show in, each "unit" or "unit(side)" as the sheet writes them.
EMOTIONS: dict[str, tuple[str, ...]] = {
    "Positive": ("12", "6+12", "12(L)", "12(R)"),
    "Negative": ("4", "4+7", "9+10", "4+15"),
    "Surprise": ("1+2", "1+2+5", "1(L)+2(L)"),
    "Repression": ("14", "17+24", "14(R)+24"),
    "Others": ("20", "43", "7(L)+43(L)", "16+25"),
    "Negative,Surprise": ("1+2+4", "1+4+5"),
    "Positive,Repression": ("12+24", "12(L)+14(L)"),
}
SINGLE, DOUBLE = tuple(EMOTIONS)[:5], tuple(EMOTIONS)[5:]


@dataclass(frozen=True)
class Clip:
    """One clip as the label sheet has it; frames are numbers in file names. largest_mm: of the movement at the apex."""

    subject: str
    folder: str
    emotion: str
    first: int
    onset: int
    apex: int
    offset: int
    units: str
    largest_mm: float

    def course(self, num_frames: int) -> np.ndarray:
        """Return the intensity in each frame, f64 (T,): 0 up to the onset and from the offset on, 1 at the apex."""
        frame = self.first + np.arange(num_frames)
        rise = smoothstep((frame - self.onset) / (self.apex - self.onset))
        return rise * smoothstep((self.offset - frame) / (self.offset - self.apex))


def _write_label_sheet(out: Path, num_subjects: int, seed: int, num_frames: int) -> None:
    clips = [clip for number in range(num_subjects) for clip in draw_clips(number, seed, num_frames)]
    # As in a sheet that people typed, a single unit is a number and several are text.
    units = [int(clip.units) if clip.units.isdigit() else clip.units for clip in clips]
    rows = [(c.subject, c.folder, c.emotion, c.onset, c.apex, c.offset, u) for c, u in zip(clips, units, strict=True)]
    write_file(out / LABEL_SHEET, encode_sheet(COLUMNS, rows))


def draw_clips(number: int, seed: int, num_frames: int) -> list[Clip]:
    """Draw a subject's clips from a generator of their own: the label sheet is written apart from the faces."""
    rng = np.random.default_rng([seed, number, 1])
    emotions = [*SINGLE, str(rng.choice(DOUBLE))]
    clips: list[Clip] = []
    for index in rng.permutation(len(emotions)):
        emotion = emotions[index]
        length = min(round(rng.uniform(0.26, 0.34) * FRAMES_PER_SECOND), num_frames - 3)  # onset to offset
        first = int(rng.integers(1, 2000))
        onset = first + int(rng.integers(1, num_frames - length - 1))
        apex = onset + max(round(length * rng.uniform(0.35, 0.6)), 1)
        clips.append(
            Clip(
                subject=f"sub{number + 1:02d}",
                folder=f"clip{len(clips) + 1:02d}",
                emotion=emotion,
                first=first,
                onset=onset,
                apex=apex,
                offset=onset + length,
                units=str(rng.choice(EMOTIONS[emotion])),
                largest_mm=float(rng.uniform(SMALLEST_MM, LARGEST_MM)),
            )
        )
    return clips


@cache
def _activate(units: str, largest_mm: float) -> Activation:
    """Activate units equally, so that the point of the face that moves most moves by `largest_mm`."""
    sides = {}
    for token in units.split("+"):
        unit, _, side = token.rstrip(")").partition("(")
        sides[int(unit)] = (float(side != "R"), float(side != "L"))
    activation = Activation(sides)
    return activation.scaled(largest_mm / float(np.linalg.norm(displace(grid_sheet(), activation), axis=1).max()))


def _write_subject(task: SubjectTask, person: Person, rng: np.random.Generator) -> int:
    """Write six clips: `sub01/clip01/00123.obj` (or `.wrl`, every second subject) with a `.jpg`, at 60 fps.

    One clip of each emotion, and one of two emotions at once. Frame numbers begin where the clip was cut from its recording.
    """
    out, number, num_frames = task.out, task.number, task.num_frames
    clips = draw_clips(number, task.seed, num_frames)
    for clip in clips:
        folder = out / clip.subject / clip.folder
        folder.mkdir(parents=True, exist_ok=True)
        apex = _activate(clip.units, clip.largest_mm)
        turns_deg = draw_slow_path(num_frames, LARGEST_TURN_DEG, rng)
        shifts_mm = draw_slow_path(num_frames, LARGEST_SHIFT_MM, rng)
        pose_seed = int(rng.integers(2**31))
        for frame, share in enumerate(clip.course(num_frames).tolist()):
            mesh = person.scan(apex.scaled(share), SCANNER_NOISE_MM, int(rng.integers(2**31)))
            mesh = turn_head(mesh, turns_deg[frame], shifts_mm[frame])
            mesh = pose_randomly(mesh, np.random.default_rng(pose_seed), degrees=3.0, shift_mm=12.0)
            stem = f"{clip.first + frame:05d}"
            if number % 2 == 0:
                write_textured_obj(folder, stem, mesh, grid_uv(), slashes=True)
            else:
                assert mesh.texture is not None
                wrl = encode_bu4dfe_wrl(mesh, grid_uv(), f"{stem}.jpg")
                (folder / f"{stem}.wrl").write_bytes(wrl)
                (folder / f"{stem}.jpg").write_bytes(encode_jpeg(mesh.texture))
    return len(clips) * num_frames


FOURDME = Layout(
    "4dme",
    [f"sub{number:02d}" for number in range(1, MAX_SUBJECTS + 1)],
    "{}",
    _write_subject,
    frames=(24, 7, 1000),  # a micro-expression needs an onset, an apex and an offset
    finish=_write_label_sheet,
)
