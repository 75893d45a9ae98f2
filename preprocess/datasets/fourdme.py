"""4DME: micro-expressions as 3D sequences, with several labels per clip.

Li et al. 2022, "4DME: a spontaneous 4D micro-expression dataset with multimodalities".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from preprocess.datasets.completeness import (
    OWN_PICTURES,
    REPEATED,
    describe_counts,
    describe_gaps,
    describe_lacking,
    describe_some,
)
from preprocess.datasets.fourdme_frames import FrameFile, FrameFinder, parse_frame_pattern
from preprocess.datasets.fourdme_sheet import Clip, describe_exchanged, find_label_sheet, parse_clips
from preprocess.datasets.path_pattern import PathPattern
from preprocess.datasets.scan import DatasetOption, DatasetReader, Listing, Moments, ScanRecord
from preprocess.geometry.mesh import Mesh
from preprocess.readers.surface import read_surface
from shared.errors import FacetError, name_some
from shared.labels import FOURDME_EMOTIONS
from shared.pairs import group_pairs

# The action units of the upper and lower face (FACS; Ekman, Friesen & Hager 2002), which the sheet names for a whole clip.
UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 28, 38, 39, 43, 45)
AU_NAMES = tuple(f"AU{unit}" for unit in UNITS)


@dataclass
class _Clips:
    records: list[ScanRecord] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)  # what was found amiss → the clips it concerns
    lines: list[str] = field(default_factory=list)  # on the sheet as a whole

    def note(self, what: str, clip: Clip, more: str = "") -> None:
        self.notes.setdefault(what, []).append(f"{clip.name} (line {clip.line}{more and f': {more}'})")


def find_4dme(root: Path, *, pattern: PathPattern | None = None) -> Listing:
    """List every frame of the clips in the label sheet, in the sheet's order.

    A clip goes from its onset to its offset; those frames are one sequence and carry its labels, targets and action units
    (`label` only where the clip shows one emotion alone). The folder's other frames are listed as single scans without labels.
    Where a folder holds as many frames as that under other numbers, it is the clip cut out, counted anew (from 0 or 1, if some
    of these numbers lie between onset and offset).

    Args:
        pattern: where frames lie below the root, such as `Meshes/{subject}/{clip}/*_{frame}.obj`; without one, numbered meshes
            in `sub_ID/fold_name`.
    Raises:
        FacetError: no label sheet, a frame in it that is no number, or no frames at all.
    """
    clips = _list_clips(root, pattern)
    outside = sum(not record.sequence for record in clips.records)
    lines = [
        *describe_counts(clips.records, subjects=24, sequences=267),
        *describe_lacking(clips.records, OWN_PICTURES, lambda record: not record.texture, unit="frames"),
        *describe_gaps(clips.records),
        *([f"{outside:,} frames outside onset to offset, kept without labels"] if outside else []),
        *clips.lines,
        *(f"{what}: {len(names)} clips, {name_some(names)}" for what, names in clips.notes.items()),
    ]
    return Listing(clips.records, lines)


def _list_clips(root: Path, pattern: PathPattern | None) -> _Clips:
    finder = FrameFinder(root, pattern)
    path, rows = find_label_sheet(root)
    parsed, nameless = parse_clips(path, rows)
    folders = group_pairs((clip.name, clip) for clip in parsed)
    if not parsed:
        raise FacetError(
            f"{path}: none of its {len(rows)} lines names a subject and a folder (sub_ID, fold_name); mend it"
        )
    listing = _Clips(lines=describe_exchanged(path, rows))
    if nameless:
        shown = name_some([str(line) for line in nameless])
        listing.lines.append(
            f"{path.name}: {len(nameless)} lines without sub_ID or fold_name, left out (of merged cells the first "
            f"alone holds it): line {shown}"
        )
    taken: dict[str, Clip] = {}  # the first frame of a folder → whose it is
    for clips in folders.values():
        frames = finder.find_frames(clips[0].subject, clips[0].folder)
        if frames and (other := taken.setdefault(frames[0].source, clips[0])) is not clips[0]:
            raise FacetError(
                f"{path}: lines {other.line} and {clips[0].line} say {other.name} and {clips[0].name}, but both lead to "
                f"{frames[0].source}; give the person and the folder one name"
                + ("" if pattern is None or "subject" in pattern.fields else ", or a --pattern with {subject} in it")
            )
        _list_folder(listing, clips, frames)
    listing.lines += describe_some(finder.repeated, REPEATED)
    if pattern is None and (others := finder.find_others(list(taken))):
        listing.lines.append(
            f"meshes in folders that the sheet does not name: {len(others)} folders, {name_some(others)}"
        )
    if not listing.records:
        looked = pattern.text if pattern else "{subject}/{clip}/ with numbered meshes"
        first = next(iter(folders), "sub_ID/fold_name")
        raise FacetError(
            f"{root}: no frames of the {len(folders)} folders in {path.name}, looked for {looked} (the first: {first}); "
            f"check --root or give --pattern{finder.suggest_pattern([clip.folder for clip in parsed])}"
        )
    return listing


def _list_folder(listing: _Clips, clips: list[Clip], frames: list[FrameFile]) -> None:
    """Add the records of one folder, whose frames may hold several clips."""
    for clip in clips:
        odd = sorted(clip.units.shown - set(UNITS))
        without_emotion = not clip.emotions and not clip.unknown_emotions
        for applies, what, more in (
            *((True, f"no emotion of {', '.join(FOURDME_EMOTIONS)}", word[:30]) for word in clip.unknown_emotions),
            (without_emotion, "no emotion given (of merged cells the first alone holds it)", ""),
            (clip.written != clip.name, "names written in two ways, taken as one", clip.written),
            (bool(clip.doubt), clip.doubt, ""),
            (
                clip.units.unread,
                "action units that cannot be read, so that of others nothing is known",
                " ".join(clip.units.unread),
            ),
            (clip.units.static, "action units marked (k), static and so not shown", _join(clip.units.static)),
            (
                clip.units.unclear,
                "action units with a mark that is not known, taken as unknown",
                _join(clip.units.unclear),
            ),
            (odd, "action units that are not kept", _join(odd)),
            (not frames, "no frames", ""),
        ):
            if applies:
                listing.note(what, clip, more)
    owner: dict[int, tuple[Clip, Moments, str]] = {}
    for clip in sorted(clips, key=lambda clip: clip.moments[0] or 0):
        members, moments = _match_frames(listing, clip, [frame.number for frame in frames], alone=len(clips) == 1)
        name = clip.name if len(clips) == 1 else f"{clip.name}/{clip.moments[0]}-{clip.moments[2]}"
        if any(number in owner for number in members):
            listing.note("frames that another clip has already", clip)
        for number in members:
            owner.setdefault(number, (clip, moments, name))
    for frame in frames:
        record = ScanRecord(
            sample_id=f"{clips[0].name}/{frame.number:04d}",
            subject=clips[0].subject,
            source=frame.source,
            frame=frame.number,
            task=clips[0].folder,
            texture=frame.texture,
        )
        if frame.number in owner:
            clip, moments, name = owner[frame.number]
            record = replace(
                record,
                sequence=name,
                moments=moments,
                label=next(iter(clip.emotions)) if len(clip.emotions) == 1 else "",
                targets=tuple(int(word in clip.emotions) for word in FOURDME_EMOTIONS) if clip.emotions else (),
                aus=_coded_units(clip),
            )
        listing.records.append(record)


def _coded_units(clip: Clip) -> tuple[int, ...]:
    """Return a value for each of UNITS: 1 shown, 0 not named or marked static, -1 if its mark or the cell is unreadable."""
    units = clip.units
    if not (units.shown or units.static or units.unclear):
        return ()
    known = {**dict.fromkeys(units.static, 0), **dict.fromkeys(units.unclear, -1), **dict.fromkeys(units.shown, 1)}
    return tuple(known.get(unit, -1 if units.unread else 0) for unit in UNITS)


def _join(units: Iterable[int]) -> str:
    return "+".join(str(unit) for unit in sorted(units))


def _match_frames(listing: _Clips, clip: Clip, numbers: list[int], *, alone: bool) -> tuple[list[int], Moments]:
    """Return the frames of a clip, and its onset, apex and offset in the folder's frame numbers."""
    onset, apex, offset = clip.moments
    if not numbers:
        return [], (None, None, None)
    if clip.moments != (None, None, None):
        first = numbers[0] if onset is None else onset
        last = numbers[-1] if offset is None else offset
        members = [number for number in numbers if first <= number <= last]
        is_cut_out = alone and onset is not None and offset is not None and len(numbers) == offset - onset + 1
        # Counted from 0 or 1, some of a cut clip's numbers may lie between onset and offset by chance.
        if is_cut_out and members != numbers and (not members or numbers[0] <= 1):
            shift = numbers[0] - first
            listing.note("frames counted anew within the clip", clip)
            return numbers, (numbers[0], None if apex is None else apex + shift, numbers[-1])
        if members:
            if onset is not None and offset is not None and len(members) < last - first + 1:
                listing.note("some frames between onset and offset missing", clip)
            return members, clip.moments
        listing.note("no frame between onset and offset", clip)
    return (numbers if alone else []), (None, None, None)


def read_4dme_frame(root: Path, record: ScanRecord) -> Mesh:
    """Reads a frame's mesh with the picture of its name, else the one it names itself.

    Raises:
        ScanError: one of the files is missing or cannot be read.
    """
    return read_surface(root / record.source, texture=root / record.texture if record.texture else None)


FOURDME = DatasetReader(
    name="4dme",
    title="4DME",
    licence="4DME: licensed by the University of Oulu for research; faces may only be shown as its agreement allows",
    class_names=FOURDME_EMOTIONS,
    find=find_4dme,
    read=read_4dme_frame,
    au_names=AU_NAMES,
    target_names=FOURDME_EMOTIONS,
    frames_per_second=60.0,
    stabilised=True,
    options=(
        DatasetOption(
            "--pattern",
            "TEXT",
            "path of the frames, such as Meshes/{subject}/{clip}/*_{frame}.obj; {subject} may be left out",
            parse_frame_pattern,
            "pattern",
        ),
    ),
)
