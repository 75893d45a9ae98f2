"""A scan as a data set lists it: where its files are, who it shows, what it is labelled."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from preprocess.geometry.mesh import Mesh
from preprocess.readers.surface import find_surface_files
from shared.errors import FacetError, escape_controls

# A file with this name in a data set's root says that its faces are synthetic.
SYNTHETIC_MARKER = "SYNTHETIC.txt"

# Why a row is empty whose scan was taken out of the data set, or off its list, after an earlier build: no fault of the scan's.
SCAN_GONE = "the scan is no longer in the data set"

# Named groups of landmark indices: what a landmark scheme tells about where the face is. Alignment uses those named in
# preprocess/alignment/anthropometry.py (left_eye, right_eye, nose, mouth).
LandmarkGroups = dict[str, tuple[int, ...]]


MOMENTS = ("onset", "apex", "offset")
Moments = tuple[int | None, int | None, int | None]  # the frame number of each of MOMENTS, None where not known


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """One scan or frame, found but not opened. Paths are relative to the data set's root, with forward slashes."""

    sample_id: str  # unique in the data set, readable: F0001_AN01WH, F001/Angry/042
    subject: str
    source: str  # the mesh file
    label: str = ""  # a class name, empty where the data set gives none
    sequence: str = ""
    frame: int | None = None
    intensity: str = ""
    task: str = ""
    texture: str = ""  # a texture image that stands beside the mesh, where the mesh file does not name it
    landmarks: str = ""  # a landmark file
    options: tuple[tuple[str, str], ...] = ()  # the data set's own: units, up, facing …
    aus: tuple[int, ...] = ()  # a value for each of the data set's au_names, -1 = unknown; empty: none known
    targets: tuple[int, ...] = ()  # 1, 0 or -1 = unknown for each of the data set's target_names (multi-label)
    groups: tuple[tuple[str, str], ...] = ()  # what else is known of whom it shows: (sex, F), or the user's own columns
    moments: Moments = (None, None, None)  # of its sequence


@dataclass(frozen=True)
class Listing:
    """The scans of a data set, in a fixed order.

    notes: lines for the user: what a partial copy lacks, and how files were understood.
    au_names: the action units that this copy codes; empty: those of the data set.
    """

    records: Sequence[ScanRecord]
    notes: Sequence[str] = ()
    au_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", [escape_controls(note) for note in self.notes])


def name_other_scan(mesh: Mesh, record: ScanRecord, named: str, scan: re.Pattern[str]) -> Mesh:
    """Add a note to the mesh if its file names the image of another scan: then its own name may be wrong, and its label.

    Args:
        named: what the file calls its image. scan: finds a sample_id of the data set in it.
    """
    found = scan.search(named)
    if found is None or found[0].casefold() == record.sample_id.casefold():
        return mesh
    note = f"its file names the image of {found[0]}: perhaps it is that scan, renamed or copied over this one"
    return replace(mesh, notes=(*mesh.notes, note))


def find_scan_files(root: Path, record: ScanRecord) -> list[Path]:
    """Return every file that decides a record's pixels: the mesh, its texture, its landmarks.

    Without a texture of the record's own, also the files that the mesh names. Files that are missing are listed as far as
    they are known. Raises nothing.
    """
    mesh = root / record.source
    surface = (
        [mesh, root / record.texture] if record.texture else find_surface_files(mesh) if mesh.is_file() else [mesh]
    )
    return [*surface, *([root / record.landmarks] if record.landmarks else [])]


@dataclass(frozen=True)
class DatasetOption:
    """An option of `build` that not all data sets have. Its home is the data set's own file."""

    flag: str  # --pattern
    metavar: str
    help: str
    parse: Callable[[str], Any]  # of the command line's text; raises FacetError
    keyword: str  # the argument of the data set's `find` that takes the value


@dataclass(frozen=True)
class DatasetReader:
    """One data set: how to find its scans and how to read one.

    find: (root, values of its options) → its scans; opens no files but manifests, label lists and a few probes. Raises
        FacetError if the root holds no such data set.
    read: (root, record) → the mesh in scan coordinates, mm. Raises ScanError.
    source_files: (root, record) → every file that decides the row's pixels, for hashing.
    """

    name: str
    title: str
    licence: str
    class_names: tuple[str, ...]  # empty: the labels found
    find: Callable[..., Listing]
    read: Callable[[Path, ScanRecord], Mesh]
    source_files: Callable[[Path, ScanRecord], Sequence[Path]] = find_scan_files
    num_landmarks: int = 0
    landmark_groups: LandmarkGroups = field(default_factory=dict)  # empty: aligned by geometry
    # The groups of landmark files of another scheme, by the file's ending.
    other_landmark_groups: dict[str, LandmarkGroups] = field(default_factory=dict)
    # "AU12": occurrence 0/1; "AU12_intensity": 0 to 5; "AU12_side": where on the face, as shared/schema.py says.
    au_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    frames_per_second: float | None = None
    stabilised: bool = False
    options: tuple[DatasetOption, ...] = ()

    def with_option(self, flag: str, text: str) -> DatasetReader:
        """Return this data set with one of its options set.

        Raises:
            FacetError: it has no such option, or the text is no value of it.
        """
        option = next((option for option in self.options if option.flag == flag), None)
        if option is None:
            raise FacetError(f"{flag}: is no option of {self.name}")
        return replace(self, find=functools.partial(self.find, **{option.keyword: option.parse(text)}))

    def groups_of(self, record: ScanRecord) -> LandmarkGroups:
        """Return the landmark groups of a record's landmark file."""
        return self.other_landmark_groups.get(PurePosixPath(record.landmarks).suffix.lower(), self.landmark_groups)
