"""BU-4DFE: 101 subjects, six sequences each at 25 frames per second.

Yin et al. 2008, "A high-resolution 3D dynamic facial expression database".
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from preprocess.datasets.bu_scan import read_bu_scan
from preprocess.datasets.completeness import (
    OWN_PICTURES,
    REPEATED,
    describe_counts,
    describe_gaps,
    describe_lacking,
    describe_missing,
    describe_some,
)
from preprocess.datasets.scan import DatasetReader, Listing, ScanRecord
from preprocess.datasets.subject_folders import (
    describe_archives,
    describe_left_out,
    find_subject_folders,
    find_texture,
    is_left_behind,
    list_files,
    list_names,
    number_frames,
    parents_up_to,
    search_levels,
    subfolders,
)
from preprocess.readers.bu_landmarks import BU_LANDMARK_GROUPS, NUM_BU_LANDMARKS
from shared.labels import BASIC_EXPRESSIONS, BU4DFE_FOLDERS

_EXPECTED = "F001/Angry/000.wrl"
_SUBJECT = re.compile(r"[FM]\d{3}", re.IGNORECASE)
_FOLDERS = {name.upper(): name for name in BU4DFE_FOLDERS}
_PACKAGE = "BU4DFE_BND"
_FRAME = re.compile(r"[0-9]+\.WRL")


def find_bu4dfe(root: Path) -> Listing:
    """List every frame, by subject, expression and number. The landmarks' package may stand in the root or beside it.

    How many frames a sequence has differs; the whole data set has about 60,600.

    Raises:
        FacetError: the root holds no BU-4DFE.
    """
    subjects = find_subject_folders(root, _SUBJECT, _EXPECTED, name="bu4dfe", holds=_holds_scans)
    packages = _find_landmark_packages(root, subjects.base)
    repeated: list[str] = []
    records = [
        record
        for subject, folder in subjects.folders.items()
        for child in subfolders(folder)
        if child.name.upper() in _FOLDERS
        for record in _list_sequence(root, subject, child, packages, repeated)
    ]
    lines = [
        *describe_counts(records, subjects=101, sequences=606),
        *describe_missing(records),
        *describe_gaps(records),
        *describe_some(repeated, REPEATED),
        *describe_lacking(records, OWN_PICTURES, lambda record: not record.texture, unit="frames"),
        *describe_lacking(records, "landmarks (BU4DFE_BND)", lambda record: not record.landmarks, unit="frames"),
        *_describe_renumbered(records),
        *describe_left_out(subjects, _SUBJECT, is_part=lambda name: name.upper() in _FOLDERS, has_scans=_has_frames),
        *describe_archives(root, subjects),
    ]
    return Listing(records, lines)


def _holds_scans(subject: Path) -> bool:
    return any(folder.name.upper() in _FOLDERS and _has_frames(folder) for folder in subfolders(subject))


def _has_frames(folder: Path) -> bool:
    return any(_FRAME.fullmatch(name.upper()) for name in list_names(folder))


def _list_sequence(
    root: Path, subject: str, folder: Path, packages: list[Path], repeated: list[str]
) -> list[ScanRecord]:
    """List a sequence; files of a frame that another file has are added to `repeated`."""
    expression = _FOLDERS[folder.name.upper()]
    files = list_files(root, folder)
    numbered = ((int(name[:-4]), path) for name, path in files.items() if _FRAME.fullmatch(name))
    frames = sorted(number_frames(numbered, repeated).items())
    landmarks = _match_landmarks([number for number, _ in frames], subject, expression, packages)
    return [
        ScanRecord(
            sample_id=f"{subject}/{expression}/{PurePosixPath(path).stem}",
            subject=subject,
            source=path,
            label=BU4DFE_FOLDERS[expression],
            sequence=f"{subject}/{expression}",
            frame=number,
            task=expression,
            texture=find_texture(files, PurePosixPath(path).stem.upper()),
            landmarks=Path(os.path.relpath(bnd, root.resolve())).as_posix() if bnd else "",
            groups=(("sex", subject[0]),),
        )
        for (number, path), bnd in zip(frames, landmarks, strict=True)
    ]


def _find_landmark_packages(root: Path, base: Path) -> list[Path]:
    """Find the subjects' folders in packages named like BU4DFE_BND_V1.1, up to the root or beside it."""
    parents = [*parents_up_to(base, root), base.resolve().parent, root.resolve().parent]
    named = [
        child
        for parent in dict.fromkeys(parents)
        for child in subfolders(parent)
        if child.name.upper().startswith(_PACKAGE)
    ]
    inside = [folder for package in named for level in search_levels(package, _SUBJECT) for folder in level]
    return [folder for folder in inside if any(_SUBJECT.fullmatch(child.name) for child in subfolders(folder))]


def _match_landmarks(frames: list[int], subject: str, expression: str, packages: list[Path]) -> list[Path | None]:
    """Return the landmark file of each frame, by the last number in its name.

    If one of these numbers is 0, or all are numbers of scans, a file belongs to the scan of its number. Otherwise there must be
    as many files as scans: files go by order if all numbers are shifted alike (such as by 1), or if some are equal.
    """
    for package in packages:
        folder = _child(_child(package, subject), expression)
        if folder is None:
            continue
        files = [path for path in folder.iterdir() if path.suffix.lower() == ".bnd" and not is_left_behind(path.name)]
        numbers = {path: _last_number(path.name) for path in files}
        by_number = {number: path for path, number in numbers.items()}
        if files and len(by_number) == len(files) and (0 in by_number or by_number.keys() <= set(frames)):
            return [by_number.get(frame) for frame in frames]
        shifts = {number - frame for number, frame in zip(sorted(numbers.values()), frames, strict=False)}
        if files and len(files) == len(frames) and (len(by_number) < len(files) or len(shifts) == 1):
            return [*sorted(files, key=lambda file: (numbers[file], file.name))]
    return [None] * len(frames)


def _last_number(path: str) -> int:
    """Return the last number in a file's name, -1 if there is none."""
    found = re.findall(r"\d+", PurePosixPath(path).stem)
    return int(found[-1]) if found else -1


def _child(folder: Path | None, name: str) -> Path | None:
    """Return a folder's child by its name, ignoring case."""
    if folder is None or (folder / name).is_dir():
        return folder and folder / name
    return next(
        (child for child in sorted(folder.iterdir()) if child.name.upper() == name.upper() and child.is_dir()), None
    )


def _describe_renumbered(records: Sequence[ScanRecord]) -> list[str]:
    """Describe sequences whose landmark files are numbered otherwise than their frames."""
    found = {
        record.sequence: f"{record.sequence} ({PurePosixPath(record.landmarks).name} for {record.frame})"
        for record in reversed(records)
        if record.landmarks and _last_number(record.landmarks) != record.frame
    }
    return describe_some(sorted(found.values()), "sequences whose landmarks are numbered otherwise, matched in order")


BU4DFE = DatasetReader(
    name="bu4dfe",
    title="BU-4DFE",
    licence="BU-4DFE: licensed by Binghamton University for research; faces may only be shown as its agreement allows",
    class_names=BASIC_EXPRESSIONS,
    find=find_bu4dfe,
    read=read_bu_scan,
    num_landmarks=NUM_BU_LANDMARKS,
    landmark_groups=BU_LANDMARK_GROUPS,
    frames_per_second=25.0,
)
