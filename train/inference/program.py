"""Export a trained model as a program that needs only PyTorch: from a cache's images to class probabilities."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import FacetError, first_line
from shared.modalities import MODALITIES
from shared.store.storage import write_file
from train.config import RunConfig
from train.data.batch_transform import cameras_rad
from train.data.pixels import resize, to_device, to_unit
from train.model.facet import Batch, Facet
from train.tasks.task import find_task

PROGRAM = "model.pt2"
EXAMPLES = 3  # samples that the program is traced with; a batch of 1 would be traced as a constant


class Program(nn.Module):
    """Everything between a cache's rows and the probabilities, in float32.

    Constants are buffers: a tensor that is cached elsewhere during tracing belongs to the tracer, and breaks later calls.
    """

    def __init__(self, config: RunConfig, model: Facet) -> None:
        super().__init__()
        self.model, self.modalities = model, config.recipe.modalities
        self.image_size, self.dynamic = config.tower.image_size, bool(config.render.dynamic)
        self.task, self.compares = find_task(config.recipe.task), config.recipe.reference != "none"
        self.register_buffer("cameras", cameras_rad(config.render.views, 1, torch.device("cpu")))
        self.register_buffer("mean", torch.tensor(config.tower.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(config.tower.std).view(3, 1, 1))
        self.cameras: Tensor
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: dict[str, Tensor]) -> Tensor:
        """Return class probabilities f32 (B, C).

        Args:
            images: modality → u8 (B, T, V, S, S, 3), or i32 (B, T, V, S, S) for depth; none may be missing.
        """
        units = [resize(to_unit(images[m], m, dynamic=self.dynamic), self.image_size) for m in self.modalities]
        stacked = (torch.stack(units, dim=2) - self.mean) / self.std
        num, frames, modalities = stacked.shape[:3]
        batch = Batch(
            images=stacked,
            present=stacked.new_ones((num, frames, modalities), dtype=torch.bool),
            cameras=self.cameras.expand(num, -1, -1),
            complete=True,
            has_reference=stacked.new_ones(num, dtype=torch.bool) if self.compares else None,
        )
        logits: Tensor = self.model(batch).logits
        return self.task.compute_probabilities(logits)


def example_images(config: RunConfig, num: int) -> dict[str, Tensor]:
    """Return black images in the shapes that the program takes."""
    size, num_frames = config.render.size_px, config.recipe.frames + (config.recipe.reference != "none")
    shape = (num, num_frames, len(config.render.views), size, size)
    return {
        modality: to_device(
            np.zeros((*shape, *MODALITIES[modality].channels), MODALITIES[modality].dtype), torch.device("cpu")
        )
        for modality in config.recipe.modalities
    }


def write_program(path: Path, config: RunConfig, model: Facet) -> None:
    """Trace the model and write it atomically.

    Raises:
        FacetError: the image tower cannot be traced.
    """
    program, images = Program(config, model).eval(), example_images(config, EXAMPLES)
    batch = torch.export.Dim("batch")
    shapes = {"images": {modality: {0: batch} for modality in images}}
    try:
        with torch.no_grad():
            traced = torch.export.export(program, (images,), dynamic_shapes=shapes)
    except RuntimeError as error:  # towers of other libraries may not be traceable
        raise FacetError(
            f"--program: {config.tower.name} cannot be traced ({first_line(error)}); leave it out"
        ) from error
    packed = io.BytesIO()
    torch.export.save(traced, packed)
    write_file(path, packed.getvalue())
