"""Rendering in the loop: what training costs without a cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from preprocess.alignment.scan_aligner import ScanAligner
from preprocess.build.plan import plan_rows
from preprocess.datasets.scan import DatasetReader, ScanRecord
from preprocess.rendering.cameras import build_cameras
from preprocess.rendering.views import render_views
from shared.cache import Cache
from shared.schema import RenderSettings
from train.data.stream import RawBatch
from train.tasks.item import Item


class RenderedScans(Dataset):
    """Rows of the cache, read, placed and drawn anew whenever they are asked for: what the cache replaces."""

    def __init__(
        self, dataset: DatasetReader, root: Path, scans: Sequence[ScanRecord | None], settings: RenderSettings
    ) -> None:
        self.dataset, self.root, self.scans, self.settings = dataset, root, scans, settings

    def __getitem__(self, row: int) -> np.ndarray:
        scan = self.scans[row]
        assert scan is not None
        aligner = ScanAligner(self.dataset, self.root, self.settings, [scan])
        mesh = aligner.align(scan, aligner.read(scan)).mesh
        cameras, size_px = build_cameras(self.settings.views), self.settings.size_px
        texture = render_views(mesh, cameras, size_px=size_px, radius_mm=self.settings.crop_radius_mm).texture
        assert texture is not None
        return texture


def render_batches(
    dataset: DatasetReader, root: Path, cache: Cache, batches: Sequence[Sequence[Item]]
) -> Iterator[RawBatch]:
    """Batches of textures as the cache would give them, rendered by as many processes as there are cores."""
    loader = DataLoader(
        RenderedScans(dataset, root, plan_rows(dataset.find(root).records, cache.path).scans, cache.info.settings),
        batch_sampler=[[item.rows[0] for item in batch] for batch in batches],
        num_workers=os.cpu_count() or 1,
        collate_fn=np.stack,
        multiprocessing_context="spawn",
        pin_memory=False,
    )
    for batch, images in zip(batches, loader, strict=True):
        yield RawBatch(list(batch), {"texture": images[:, None]}, np.ones((len(batch), 1, 1), bool))
