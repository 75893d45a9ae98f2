"""Define the files and arrays of a cache folder, format version 1. Writers and readers both import this module.

    cache.json          CacheInfo: what was rendered and how, counts, `complete`
    samples.csv         one Sample a row; row k of every array belongs to row k here, for ever
    sequences.csv       one Sequence a row (4D data sets)
    groups.csv          what else is known of each row, in columns of the user's own; optional (shared/groups.py)
    views.zarr/         the arrays of ARRAYS, Zarr v3; or views/shard-00000.h5 …, the same arrays, one file per shard
    records/            00000.json …, one ShardRecord each: a shard counts only with its record
    text/<model>.h5     prompt embeddings (TEXT_DATASETS), beside <model>.h5.sha256
    text/<model>.captions.h5   captions of the rows (CAPTION_DATASETS), beside its .sha256; optional
    failures.csv        what could not be read or rendered, and why
    .build/             the builder's own notes (lock, file times); no part of the contract

Coordinates: face frame +x the subject's left, +y up, +z out of the face, mm, origin at the nose tip. Cameras turn about
the origin, orthographic; +yaw moves the camera toward the subject's left, +pitch up. Images row-major, row 0 on top.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import abc
from dataclasses import dataclass, field
from typing import Any

from shared.errors import CacheError, FacetError
from shared.modalities import MODALITIES

FORMAT_VERSION = 1
SHARD_ROWS = 64
MAX_VIEWS = 1024

# Of every chunk: lz4 takes half of the disk or less; none is read faster where it lies in memory.
COMPRESSIONS = ("lz4", "none")
# How a scan came into the face frame.
ALIGNMENTS = ("landmarks", "geometry")

FIELD_OF_VIEW_MM = 201.6  # 0.9 mm per pixel at 224 pixels, the same for every face: a big face stays big


@dataclass(frozen=True)
class ArraySpec:
    """One array of a cache. Axis 0 is always the sample."""

    name: str
    dtype: str
    dims: tuple[str, ...]
    fill: float  # what an absent row reads as; samples.csv, not this value, records presence
    unit: str
    chunk_rows: int  # images: one sample per inner chunk; small arrays: a whole shard


ARRAYS = {
    spec.name: spec
    for spec in (
        *(
            ArraySpec(m.name, m.dtype, ("sample", "view", "row", "column", *m.axes), m.fill, m.unit, chunk_rows=1)
            for m in MODALITIES.values()
        ),
        ArraySpec("landmarks", "float32", ("sample", "landmark", "xyz"), float("nan"), "mm, face frame", SHARD_ROWS),
        ArraySpec("scan_to_face", "float32", ("sample", "to", "from"), float("nan"), "rigid, mm", SHARD_ROWS),
        # Optional, where a data set has them; -1 = unknown. Names in CacheInfo.au_names: "AU12" occurrence,
        # "AU12_intensity", and "AU12_side", the letter before a unit of Bosphorus: 0 none, 1-11 LRVWGHTBXIY, 12 L and R apart.
        ArraySpec("aus", "int8", ("sample", "au"), -1, "0/1 occurrence or 0-5 intensity; -1 unknown", SHARD_ROWS),
        ArraySpec("targets", "int8", ("sample", "class"), -1, "0/1 for each class; -1 unknown", SHARD_ROWS),
    )
}


@dataclass(frozen=True)
class View:
    """A camera direction in degrees: +yaw toward the subject's left, +pitch up."""

    yaw_deg: float
    pitch_deg: float = 0.0

    def __post_init__(self) -> None:
        # 0, 0.0 and -0.0 are one view, so they must be one text in fingerprints
        object.__setattr__(self, "yaw_deg", float(self.yaw_deg) + 0.0)
        object.__setattr__(self, "pitch_deg", float(self.pitch_deg) + 0.0)

    def __str__(self) -> str:
        return f"{self.yaw_deg:g}" if self.pitch_deg == 0 else f"{self.yaw_deg:g}:{self.pitch_deg:g}"


def parse_views(text: str) -> tuple[View, ...]:
    """Parse views of the command line: "0,20,-20" are yaws; "0:15" is yaw 0 and pitch +15.

    Raises:
        FacetError: not numbers.
    """
    views = []
    for item in text.split(","):
        try:
            yaw, _, pitch = item.strip().partition(":")
            views.append(View(float(yaw), float(pitch or 0)))
        except ValueError as error:
            raise FacetError(
                f"--views {text!r}: expected yaw angles such as 0,20,-20 or yaw:pitch such as 0:15, found {item.strip()!r}"
            ) from error
    return tuple(views)


def choose_views(stored: abc.Sequence[View], wanted: abc.Sequence[View]) -> tuple[int, ...] | None:
    """Return the index of each wanted view among those stored; None where they are just those.

    Raises:
        ValueError: some are not among them; names these.
    """
    if lacking := [str(view) for view in wanted if view not in stored]:
        raise ValueError(",".join(lacking))
    if tuple(wanted) == tuple(stored):
        return None
    return tuple(list(stored).index(view) for view in wanted)


@dataclass(frozen=True)
class RenderSettings:
    """Everything that decides the pixels of a cache, given its scans."""

    views: tuple[View, ...] = (View(0), View(20), View(-20))
    size_px: int = 224
    modalities: tuple[str, ...] = tuple(MODALITIES)
    crop_radius_mm: float = 100.0
    supersampling: int = 3  # samples along each side of a pixel at edges of the texture
    stabilised: bool = False  # 4D: aligned frame by frame on forehead and nose bridge, smoothed in time
    revision: int = 7  # raised whenever the same input would give other bytes (REVISIONS of preprocess/build)
    # Empty: images of single scans and frames. Else a row is a whole sequence, its images pooled and scaled in this way.
    dynamic: str = ""

    def __post_init__(self) -> None:
        if not self.views or len(set(self.views)) != len(self.views):
            raise CacheError(f"views must be different from each other and at least one, found {self.views_text()!r}")
        if len(self.views) > MAX_VIEWS or not (0 < self.crop_radius_mm <= 1e4 and 1 <= self.supersampling <= 16):
            raise CacheError(
                f"{len(self.views)} views, crop radius {self.crop_radius_mm} mm, {self.supersampling}² samples per pixel"
            )
        for view in self.views:
            if not (-180 <= view.yaw_deg <= 180 and -90 <= view.pitch_deg <= 90):
                raise CacheError(f"view {view}: yaw must lie in -180…180 and pitch in -90…90 degrees")
        if not 16 <= self.size_px <= 2048:
            raise CacheError(f"size must be 16 to 2048 pixels, found {self.size_px}")
        if not self.modalities or [m for m in MODALITIES if m in self.modalities] != list(self.modalities):
            raise CacheError(
                f"modalities must be some of {','.join(MODALITIES)}, each once, found {','.join(self.modalities)!r}"
            )

    @property
    def mm_per_px(self) -> float:
        return FIELD_OF_VIEW_MM / self.size_px

    @property
    def front_view(self) -> int:
        """Return the index of the view nearest to the front: the least |yaw| + |pitch|."""
        return min(range(len(self.views)), key=lambda i: abs(self.views[i].yaw_deg) + abs(self.views[i].pitch_deg))

    def views_text(self) -> str:
        return ",".join(str(view) for view in self.views)


@dataclass(frozen=True, slots=True)
class Sample:
    """A row of samples.csv: one scan or frame. Empty strings and None are written as empty fields."""

    sample_id: str  # unique, readable: F0001_AN01WH, F001/Angry/042
    subject: str
    sequence: str  # empty for single scans
    frame: int | None
    label: str  # a class name of CacheInfo.class_names, or empty: unlabelled
    intensity: str  # the data set's own word: 01…04; empty where unknown
    task: str  # the data set's own task or folder name
    source: str  # the mesh file, relative to the data set's root, with forward slashes
    source_hash: str = ""  # "blake3:" and the hash over the contents of every file this row was made from
    valid: bool = False
    reason: str = ""  # one line: why a row is not valid; of a valid row, what its files ask for and its images lack
    modalities: str = ""  # what this row holds, joined by +: "texture+normal+depth", "normal+depth"
    alignment: str = ""  # one of ALIGNMENTS: where the first pose came from; the surface then confirmed it
    # Of a row's face, or its sequence's first; None where not known, as in caches that have no such columns.
    misfit_mm: float | None = None  # mean distance of the surface from a fitted average face
    eye_distance_mm: float | None = None  # between the middles of the eyes: by landmarks, else estimated from the shape

    def has(self, modality: str) -> bool:
        return modality in self.modalities.split("+")


@dataclass(frozen=True, slots=True)
class Sequence:
    """A row of sequences.csv: one 4D recording. Its frames are the rows of samples.csv that name it, ordered by `frame`."""

    sequence: str
    subject: str
    first_row: int
    num_frames: int
    frames_per_second: float | None
    label: str
    onset: int | None = None
    apex: int | None = None
    offset: int | None = None
    # Where onset, apex and offset come from, those that are known: "given" or "estimated" where it is the same for all of
    # them; else both in turn, such as "onset,offset given; apex estimated". Empty: none is known.
    marks: str = ""


@dataclass(frozen=True)
class ShardRecord:
    """records/<shard>.json: proof that a shard is finished, and what it was made of."""

    shard: int
    first_row: int
    samples: tuple[Sample, ...]  # with valid, reason, source_hash, modalities, alignment filled in
    input_fingerprint: str  # sha256 over settings, rows and source hashes: unchanged means nothing to render again
    files: dict[str, str]  # path relative to the cache -> sha256 of its bytes; a shard without any surface has no file


@dataclass(frozen=True)
class CacheInfo:
    """cache.json."""

    dataset: str
    licence: str  # one line to print beside every picture of these faces
    class_names: tuple[str, ...]
    settings: RenderSettings
    store: str = "zarr"
    compression: str = "lz4"
    format_version: int = FORMAT_VERSION
    num_samples: int = 0
    num_valid: int = 0
    num_subjects: int = 0
    num_sequences: int = 0
    num_shards: int = 0
    num_landmarks: int = 0
    au_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    settings_fingerprint: str = ""
    content_hash: str = ""  # over samples.csv, sequences.csv, groups.csv and every record: what embeddings are keyed by
    file_hashes: dict[str, str] = field(default_factory=dict)  # small files of the cache -> sha256
    software: dict[str, str] = field(default_factory=dict)
    complete: bool = False

    def arrays(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every array of this cache, by name."""
        n, v, s = self.num_samples, len(self.settings.views), self.settings.size_px
        shapes: dict[str, tuple[int, ...]] = {}
        for modality in self.settings.modalities:
            shapes[modality] = (n, v, s, s, *MODALITIES[modality].channels)
        if self.num_landmarks:
            shapes["landmarks"] = (n, self.num_landmarks, 3)
        shapes["scan_to_face"] = (n, 4, 4)
        if self.au_names:
            shapes["aus"] = (n, len(self.au_names))
        if self.target_names:
            shapes["targets"] = (n, len(self.target_names))
        return shapes


# text/<model>.h5. Attributes: model, pretrained,
# weights_hash, image_tower_hash, logit_scale, random_weights, format_version.
TEXT_DATASETS = {
    "embeddings": ("float32", ("class", "prompt", "dim")),  # unit length; 0 where masked
    "mask": ("bool", ("class", "prompt")),  # True = this prompt exists
    "prompts": ("str", ("class", "prompt")),  # the cleaned text; empty where masked
    "class_names": ("str", ("class",)),
    "views": (
        "str",
        ("class", "prompt"),
    ),  # where the face of a prompt is seen from; empty = anywhere. Absent if all are
}

# text/<model>.captions.h5. Attributes: model, pretrained, weights_hash, random_weights, content_hash (of the cache),
# format_version.
CAPTION_DATASETS = {
    "captions": ("str", ("caption",)),  # each once
    "index": ("int32", ("sample", "wording")),  # row -> caption; -1 = none
    "tokens": ("int32", ("caption", "position")),  # of the model's own tokenizer
    "embeddings": ("float32", ("caption", "dim")),  # unit length
}
CAPTIONS_SUFFIX = ".captions.h5"

_MODEL_FILE = re.compile(r"[^A-Za-z0-9._-]+")


def text_file_name(model: str) -> str:
    """Return the file name under text/ for a model's prompt embeddings, without characters that file systems reject."""
    return _MODEL_FILE.sub("-", model.rstrip("/").rsplit("/", 1)[-1]).strip("-.") + ".h5"


def captions_file_name(model: str) -> str:
    """Return the file name under text/ of the captions of a model; see `text_file_name`."""
    return text_file_name(model).removesuffix(".h5") + CAPTIONS_SUFFIX


def canonical_json(value: Any) -> str:
    """Encode JSON with sorted keys and fixed layout, so that equal values are equal bytes; ends with a line feed."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def fingerprint(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON; dataclasses count as their fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
