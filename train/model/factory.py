"""Build a run's model: from its configuration, or from its folder with the trained weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from shared.errors import FacetError
from shared.runs import CONFIG_JSON
from train.config import RunConfig, read_config
from train.model.facet import Facet, FacetConfig
from train.model.image_tower import build_tower
from train.model.patch_tokens import count_channels
from train.model.weights import load_weights, weights_size
from train.tasks.task import find_task


def choose_device(name: str) -> torch.device:
    """Return the device of --device; auto is the GPU if there is one.

    Raises:
        FacetError: no such device here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.ones(1, device=device).item()  # refuses a device that computes nothing ("meta")
    except (RuntimeError, AssertionError) as error:  # torch asserts if it was built without CUDA
        raise FacetError(f"--device {name}: not available here; try auto or cpu") from error
    if device.type == "cuda":
        os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton's default; it warns if the variable is unset
    return device


def build_facet(
    config: RunConfig, device: torch.device, tower: nn.Module, text: np.ndarray, logit_scale: float
) -> Facet:
    """Build the model of a run on its device, with float32 parameters and initial weights drawn from the run's seed.

    Args:
        tower, text, logit_scale: as in `Facet`.
    """
    recipe = config.recipe
    facet_config = FacetConfig(
        tower_dim=int(config.tower.config["embed_dim"]),
        num_modalities=len(recipe.modalities),
        num_views=len(config.render.views),
        num_frames=recipe.frames,
        fusion=recipe.fusion,
        head=recipe.head,
        class_vectors=recipe.class_vectors,
        losses=recipe.loss_weights,
        multilabel=find_task(recipe.task).several,
        patch_channels=count_channels(config.tower.config) if recipe.mtgf_tokens == "patches" else 0,
        tower_per_view=recipe.towers == "view",
        freeze_tower=recipe.tune == "frozen",
        autocast=device.type == "cuda",
        text_views=config.text_views,
    )
    torch.manual_seed(recipe.seed)
    return Facet(tower, text, logit_scale, facet_config).to(device)


def load_run(run: Path, device: torch.device) -> tuple[RunConfig, Facet]:
    """Load a trained model from its run folder alone: neither pretrained weights, prompts nor training data are needed.

    Raises:
        FacetError: no run here, training not finished, or damaged.
    """
    config = read_config(run)
    most_bytes = weights_size(run)
    try:
        config.check_sizes()
        tower = build_tower(config.tower.config, most_bytes=most_bytes)
    except FacetError as error:
        raise FacetError(f"{run / CONFIG_JSON}: {error}; copy the run again, or fit again") from error
    shape = (*[len(config.text_views)] * config.text_per_view, len(config.recipe.classes), config.text_dim)
    model = build_facet(config, device, tower, np.zeros(shape, np.float32), logit_scale=1.0)  # read with the weights
    load_weights(run, model)
    return config, model
