"""Patches of every image as tokens that MTGF attends to, beside one token per image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import FacetError, first_line
from train.model.attention import FourierEmbedding, soften, unit
from train.model.image_tower import build_tower


class PatchEncoder(nn.Module):
    """An image tower's features, and a unit-length token for each patch of its last feature map.

    The map is the input of the tower's pooling, so it costs no second pass. Norm and projection into R^d are new, because
    towers differ in the layers that follow.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, dim, bias=False)
        nn.init.orthogonal_(self.projection.weight)

    def forward(self, tower: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (n, tower_dim) and patches (n, H, W, d), not normalised, of images (n, 3, S, S)."""
        features, last_map = _run_tower(tower, images)
        return features, self.projection(self.norm(last_map.permute(0, 2, 3, 1)))

    def run(self, tower: nn.Module, images: Tensor, *, autocast: bool) -> tuple[Tensor, Tensor]:
        """Return features f32 (n, tower_dim) as `facet.run_tower`, and patches f32 (n, H, W, d), unit length."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            features, patches = self(tower, images)
        return features.float(), unit(patches.float())


class PatchTokens(nn.Module):
    """One token for each patch position of each image, averaged over frames, with position embeddings.

    Frames are weighted as for z: the number of tokens does not grow with the frames, and faces are aligned, so a position
    shows the same part of the face in all of them. Time is encoded by the tokens of the views. A position is x and y, half a
    turn each, so that opposite edges differ and any grid size works: feature maps of convolutions contain no position, and
    in the last layer of a transformer its position embedding has faded. All embeddings start at zero.
    """

    def __init__(self, dim: int, num_modalities: int) -> None:
        super().__init__()
        self.position = FourierEmbedding(2, dim)
        self.camera = FourierEmbedding(2, dim)
        self.modality = nn.Parameter(torch.zeros(num_modalities, dim))

    def forward(
        self,
        patches: Tensor,
        mask: Tensor,
        frame_weights: Tensor,
        cameras: Tensor,
        modalities: Tensor,
        has_reference: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Average the patches over frames and add embeddings.

        Args:
            patches: (B, T, N, H, W, d), unit length, of N = M·V images per frame.
            mask: bool (B, T, N), True = present.
            frame_weights: (B, T), sum to 1, without the reference.
            cameras: (B, N, 2), yaw and pitch in radians.
            modalities: i64 (N,).
            has_reference: bool (B,): subtract frame 0, the reference, where True; None: there are no references.
        Returns:
            tokens (B, N·H·W, d); mask bool (B, N·H·W), True for images present in a frame, and in the reference.
        """
        reference, seen = patches[:, 0], mask[:, 0]
        if has_reference is not None:
            patches, mask = patches[:, 1:], mask[:, 1:]
        there = mask.any(1)
        tokens = patches[:, 0]
        if patches.shape[1] > 1:
            tokens = unit(torch.einsum("btn,btnhwd->bnhwd", weigh_frames(mask, frame_weights), patches))
        if has_reference is not None:
            compared = has_reference[:, None]
            tokens = torch.where(compared[..., None, None, None], soften(tokens - reference), tokens)
            there = there & (seen | ~compared)
        height, width = tokens.shape[2:4]
        about = self.camera(cameras) + self.modality[modalities]
        tokens = tokens + about[:, :, None, None] + self.position(_positions(height, width, tokens))
        return tokens.flatten(1, 3), there.repeat_interleave(height * width, dim=1)


def _run_tower(tower: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (n, tower_dim) and the last feature map before pooling (n, c, H, W)."""
    found = tower.forward_intermediates(images, indices=1, output_fmt="NCHW")  # type: ignore[operator]
    return found["image_features"], found["image_intermediates"][-1]


def weigh_frames(mask: Tensor, frame_weights: Tensor) -> Tensor:
    """Return each frame's weight in an image's patches, (B, T, N); 0 if missing; sums to 1 over frames, or is 0.

    Args:
        mask: bool (B, T, N), True = present.
        frame_weights: (B, T).
    """
    weights = frame_weights[..., None] * mask
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-12)


def _positions(height: int, width: int, like: Tensor) -> Tensor:
    """Return x and y of the patch centres, (H, W, 2), from −π/2 at one edge of the image to π/2 at the other."""
    x, y = (
        (torch.arange(num, device=like.device, dtype=like.dtype) + 0.5) * (math.pi / num) - math.pi / 2
        for num in (width, height)
    )
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def count_channels(config: Mapping[str, Any]) -> int:
    """Return the channels of the last feature map of an image tower, from its open_clip model config alone.

    Raises:
        FacetError: it has none, or drops patches in training.
    """
    refusal = (
        "--mtgf-tokens patches: this image tower gives no patch tokens; use --mtgf-tokens views, or another --model"
    )
    with torch.device("meta"):
        tower = build_tower(config)
        size = getattr(tower, "image_size", 224)
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        try:
            shapes = {
                _run_tower(tower.train(mode), torch.empty(2, 3, height, width))[1].shape for mode in (True, False)
            }
        except (AttributeError, AssertionError, NotImplementedError, TypeError, RuntimeError, LookupError) as error:
            raise FacetError(f"{refusal} ({first_line(error)})") from error
    if len(shapes) > 1:  # it drops patches in training
        raise FacetError(refusal)
    return int(shapes.pop()[1])
