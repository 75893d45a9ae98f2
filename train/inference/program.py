"""Export a trained model as a program for PyTorch or ONNX Runtime alone: from a cache's images to class probabilities."""

from __future__ import annotations

import io
import logging
from importlib import import_module

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from shared.errors import FacetError, first_line
from shared.labels import NEUTRAL
from shared.modalities import MODALITIES
from train.config import RunConfig
from train.data.batch_transform import cameras_rad
from train.data.pixels import resize, to_device, to_unit
from train.inference.centre import AT_REST_WEIGHT
from train.model.batch import Batch
from train.model.facet import Facet
from train.tasks.task import find_task

PROGRAM, ONNX = "model.pt2", "model.onnx"
ONNX_TOLERANCE = 1e-4  # of probabilities
EXAMPLES = 3  # samples that the program is traced with; a batch of 1 would be traced as a constant


class Program(nn.Module):
    """Everything between a cache's rows and the probabilities, in float32.

    Constants are buffers: a tensor that is cached elsewhere during tracing belongs to the tracer, and breaks later calls.
    """

    def __init__(self, config: RunConfig, model: Facet) -> None:
        super().__init__()
        self.model, self.modalities = model, config.recipe.modalities
        self.tower, self.dynamic = config.tower, bool(config.render.dynamic)
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
        units = [
            resize(to_unit(images[m], m, dynamic=self.dynamic, background=self.tower.background), self.tower.image_size)
            for m in self.modalities
        ]
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


def trace_program(config: RunConfig, model: Facet) -> ExportedProgram:
    """Trace the model, for any number of samples.

    Raises:
        FacetError: the image tower cannot be traced.
    """
    program, images = Program(config, model).eval(), example_images(config, EXAMPLES)
    batch = torch.export.Dim("batch")
    shapes = {"images": {modality: {0: batch} for modality in images}}
    try:
        with torch.no_grad():
            return torch.export.export(program, (images,), dynamic_shapes=shapes)
    except RuntimeError as error:  # towers of other libraries may not be traceable
        raise FacetError(
            f"--program, --onnx: {config.tower.name} cannot be traced ({first_line(error)}); leave them out"
        ) from error


def describe_program(config: RunConfig) -> str:
    """Return what a program computes, as its file says."""
    recipe = config.recipe
    text = f"Probabilities of {', '.join(recipe.classes)}, of each sample alone."
    if recipe.centre_scores != "none":
        what = "their mean over these scans"
        if recipe.centre_scores == NEUTRAL:
            what = f"{AT_REST_WEIGHT:g} times those of the same person's neutral scan"
        text += (
            f" NOT CENTRED: the run's own scores are (--centre-scores {recipe.centre_scores}), by other scans. To do the "
            f"same, subtract {what} from the logarithms of the probabilities."
        )
    return text


def encode_program(traced: ExportedProgram, config: RunConfig) -> bytes:
    """Return the bytes of model.pt2, with `describe_program` in it as the extra file `about`."""
    packed = io.BytesIO()
    torch.export.save(traced, packed, extra_files={"about": describe_program(config)})
    return packed.getvalue()


def find_onnx() -> None:
    """Check that the packages of `encode_onnx` are installed.

    Raises:
        FacetError: one is not; says how to install them.
    """
    try:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            import_module(name)
    except ImportError as error:
        raise FacetError(f"--onnx: {error}; pip install onnx onnxscript onnxruntime") from error


def encode_onnx(traced: ExportedProgram, config: RunConfig) -> bytes:
    """Return the bytes of model.onnx, after `compare_onnx`; its doc_string is `describe_program`.

    Raises:
        FacetError: the model cannot be converted, is too large for one file (2 GB), or gives other probabilities.
    """
    images = example_images(config, EXAMPLES)
    logging.disable(logging.WARNING)  # of the converter, about each layer that it does not simplify
    try:
        converted = torch.onnx.export(
            traced, (images,), dynamo=True, input_names=list(images), output_names=["probabilities"], verbose=False
        )
        assert converted is not None
        proto = converted.model_proto
        proto.doc_string = describe_program(config)
        data: bytes = proto.SerializeToString()
        compare_onnx(data, traced, config)
        return data
    except FacetError:
        raise
    except Exception as error:  # PyTorch, protobuf and ONNX Runtime raise many kinds
        name = config.tower.name
        raise FacetError(f"--onnx: {name} cannot be converted ({first_line(error)}); leave it out") from error
    finally:
        logging.disable(logging.NOTSET)


def compare_onnx(data: bytes, traced: ExportedProgram, config: RunConfig) -> None:
    """Compare the probabilities of ONNX Runtime with those of PyTorch, on random images.

    Raises:
        FacetError: they differ by more than ONNX_TOLERANCE.
    """
    session = import_module("onnxruntime").InferenceSession(data, providers=["CPUExecutionProvider"])
    program, generator = traced.module(), torch.Generator().manual_seed(0)
    for num in (1, EXAMPLES + 1):
        images = {
            name: torch.randint(np.iinfo(MODALITIES[name].dtype).max + 1, image.shape, generator=generator).to(
                image.dtype
            )
            for name, image in example_images(config, num).items()
        }
        with torch.no_grad():
            wanted = program(images).numpy()
        (found,) = session.run(None, {name: value.numpy() for name, value in images.items()})
        if not (difference := float(np.abs(found - wanted).max())) <= ONNX_TOLERANCE:
            raise FacetError(
                f"--onnx: ONNX Runtime gives probabilities that differ by {difference:.2g}, and {ONNX_TOLERANCE:g} is allowed; "
                "leave it out"
            )
