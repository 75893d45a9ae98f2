"""Align the scans of a shard: single scans on their own, frames with their sequence.

The frames of a sequence share one transform, that of its first readable frame, so that motion of the face stays motion in
the images. If stabilised, every frame is registered on forehead and nose bridge of the first, and the poses are smoothed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from preprocess.alignment.align import Alignment, FoundPose, apply_pose, find_pose
from preprocess.alignment.depth_map import Surface
from preprocess.alignment.nose import find_nose_tip
from preprocess.alignment.stabilise import HALF_WIDTH, RigidPatch, find_rigid_patch, register, smooth_pose
from preprocess.alignment.texture_check import SeenTextures
from preprocess.datasets.scan import DatasetReader, ScanRecord
from preprocess.geometry.mesh import Mesh
from shared.errors import ScanError, describe_os_error
from shared.schema import RenderSettings
from shared.sequences import group_frames

REFERENCE_TRIES = 3  # frames that may serve as a sequence's reference: the first readable one does
# A head so near to where it was in the reference need not be searched for.
NOSE_MM = (-25.0, 25.0)  # x and y of the window in which the nose's tip is looked for
NEAR_MM, NEAR_RAD, NEAR_RMS_MM = 20.0, np.deg2rad(10.0), 0.8
MESHES_KEPT = 2 * HALF_WIDTH + 2  # a frame is read once although its neighbours ask for it too
# For the next shards of the same sequences in this process: to find a face takes as long as many frames.
REFERENCES_KEPT = 4


@dataclass(frozen=True)
class _Reference:
    found: FoundPose
    patch: RigidPatch | None


_known_references: OrderedDict[tuple[object, ...], _Reference] = OrderedDict()


class ScanAligner:
    """Align the scans of one shard. References, poses and the last few meshes are cached; references also for later shards."""

    def __init__(
        self,
        dataset: DatasetReader,
        root: Path,
        settings: RenderSettings,
        scans: Sequence[ScanRecord],
        *,
        skip: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare to align scans.

        Args:
            scans: the shard's own, and frames of other shards that its sequences need (`frames_needed`).
            skip: scans that are not read: sample_id → the reason to report.
        """
        self._skip = skip or {}
        self._dataset, self._root, self._settings = dataset, root, settings
        self._frames = {name: [scans[i] for i in frames] for name, frames in group_frames(scans).items()}
        self._textures = SeenTextures()
        self._meshes: OrderedDict[str, Mesh | ScanError] = OrderedDict()
        self._references: dict[str, _Reference | ScanError] = {}
        self._poses: dict[str, np.ndarray | ScanError] = {}

    def read(self, scan: ScanRecord) -> Mesh:
        """Return the scan's mesh in scan coordinates.

        Raises:
            ScanError: it cannot be read.
        """
        if scan.sample_id not in self._meshes:
            self._meshes[scan.sample_id] = self._read_or_error(scan)
            if len(self._meshes) > MESHES_KEPT:
                self._meshes.popitem(last=False)
        mesh = self._meshes[scan.sample_id]
        if isinstance(mesh, ScanError):
            raise mesh
        return mesh

    def align(self, scan: ScanRecord, mesh: Mesh) -> Alignment:
        """Return the mesh in the face frame, cropped.

        Raises:
            ScanError: no face is found, or the frame does not fit its sequence.
        """
        if not scan.sequence:
            found = self._align(scan, mesh)
        else:
            reference = self._reference(scan.sequence)
            found = reference.found
            if self._settings.stabilised:
                found = replace(found, scan_to_face=self._smoothed(scan, reference))
        return apply_pose(mesh, found, self._settings.crop_radius_mm)

    def _read_or_error(self, scan: ScanRecord) -> Mesh | ScanError:
        if scan.sample_id in self._skip:
            return ScanError(self._skip[scan.sample_id])
        try:
            mesh = self._dataset.read(self._root, scan)
            notes = self._textures.describe(scan, mesh.texture)
            return replace(mesh, notes=mesh.notes + notes) if notes else mesh
        except ScanError as error:
            return error
        except OSError as error:  # a read error concerns this scan alone
            return ScanError(describe_os_error(error))
        except MemoryError:
            return ScanError("needs more memory than there is")

    def _align(self, scan: ScanRecord, mesh: Mesh, *, explain: bool = True) -> FoundPose:
        options = dict(scan.options)
        return find_pose(
            mesh,
            landmark_groups=self._dataset.groups_of(scan),
            up=options.get("up", "y"),
            facing=options.get("facing", "z"),
            explain=explain,
        )

    def _reference(self, sequence: str) -> _Reference:
        if sequence not in self._references:
            self._references[sequence] = self._find_reference(sequence)
        reference = self._references[sequence]
        if isinstance(reference, ScanError):
            raise reference
        return reference

    def _find_reference(self, sequence: str) -> _Reference | ScanError:
        candidates = self._frames[sequence][:REFERENCE_TRIES]
        key = self._describe(candidates[0])
        if key in _known_references:
            return _known_references[key]
        last: ScanError | None = None
        for scan in candidates:
            try:
                mesh = self.read(scan)
                found = self._align(scan, mesh)
                aligned = apply_pose(mesh, found, self._settings.crop_radius_mm).mesh
                reference = _Reference(found, find_rigid_patch(aligned) if self._settings.stabilised else None)
            except ScanError as error:
                last = error
                continue
            if key and last is None:
                _known_references[key] = reference
                if len(_known_references) > REFERENCES_KEPT:
                    _known_references.popitem(last=False)
            return reference
        return ScanError(f"none of the first frames of sequence {sequence} can be aligned ({last})")

    def _describe(self, scan: ScanRecord) -> tuple[object, ...]:
        """Return what decides how a scan is aligned, its files by size and time; () if it is not to be read."""
        try:
            files = [(path, path.stat()) for path in self._dataset.source_files(self._root, scan)]
        except OSError:
            files = []
        if not files or scan.sample_id in self._skip:
            return ()
        times = ((path, status.st_size, status.st_mtime_ns) for path, status in files)
        groups = self._dataset.groups_of(scan).items()
        return (self._dataset.read, *groups, self._root, self._settings, scan, *times)

    def _smoothed(self, scan: ScanRecord, reference: _Reference) -> np.ndarray:
        """Return the frame's pose, smoothed over equally many neighbours before and after it."""
        frames = self._frames[scan.sequence]
        index = next(i for i, frame in enumerate(frames) if frame.sample_id == scan.sample_id)
        own = self._registered(scan, reference)
        around = [own]
        for distance in range(1, HALF_WIDTH + 1):
            if index - distance < 0 or index + distance >= len(frames):
                break
            try:
                before = self._registered(frames[index - distance], reference)
                after = self._registered(frames[index + distance], reference)
            except ScanError:  # a neighbour that cannot be read is listed as itself; it only ends the smoothing here
                break
            around = [before, *around, after]
        return smooth_pose(around)

    def _registered(self, scan: ScanRecord, reference: _Reference) -> np.ndarray:
        if scan.sample_id not in self._poses:
            self._poses[scan.sample_id] = self._register_or_error(scan, reference)
        pose = self._poses[scan.sample_id]
        if isinstance(pose, ScanError):
            raise pose
        return pose

    def _register_or_error(self, scan: ScanRecord, reference: _Reference) -> np.ndarray | ScanError:
        assert reference.patch is not None
        try:
            mesh = self.read(scan)
            near = _register_near(reference, mesh)
            if near is not None:
                return near
            try:
                # From where the face is in this frame: a head that has moved far would slide to a wrong fit from elsewhere.
                start = self._align(scan, mesh, explain=False).scan_to_face
                return register(reference.patch, mesh, start).pose
            except ScanError:
                return register(reference.patch, mesh, reference.found.scan_to_face).pose
        except ScanError as error:
            return error


def _register_near(reference: _Reference, mesh: Mesh) -> np.ndarray | None:
    """Register a frame without a face search (the slowest step), or return None if its head moved far or fits badly."""
    assert reference.patch is not None
    try:
        tip = find_nose_tip(
            Surface(mesh.vertices_mm, mesh.triangles), reference.found.scan_to_face, x_mm=NOSE_MM, y_mm=NOSE_MM
        )
        if np.linalg.norm(tip) > NEAR_MM:
            return None
        start = reference.found.scan_to_face.copy()
        start[:3, 3] -= tip
        found = register(reference.patch, mesh, start)
    except ScanError:
        return None
    return found.pose if found.turn_rad <= NEAR_RAD and found.rms_mm <= NEAR_RMS_MM else None


def frames_needed(frames: Sequence[ScanRecord], inside: set[str], *, stabilised: bool) -> list[ScanRecord]:
    """Return the frames of other shards that this shard's frames need: reference candidates and close neighbours.

    Args:
        frames: all of the sequence, in time order. inside: sample_ids that the shard holds.
    """
    needed = set(range(min(REFERENCE_TRIES, len(frames))))
    if stabilised:
        for index, frame in enumerate(frames):
            if frame.sample_id in inside:
                needed.update(range(max(index - HALF_WIDTH, 0), min(index + HALF_WIDTH + 1, len(frames))))
    return [frames[index] for index in sorted(needed) if frames[index].sample_id not in inside]
