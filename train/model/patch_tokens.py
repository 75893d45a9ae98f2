"""The patches of every picture as tokens that a class's words may look at (MTGF), beside one token a picture."""

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
    """An image tower's features as it always gives them, and a unit-length token of each patch of its last feature map.

    The map is taken where the tower's own pooling takes it, so that it costs no second pass; its norm and projection into
    R^d are new, since towers differ in what follows there, and some have nothing.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, dim, bias=False)
        nn.init.orthogonal_(self.projection.weight)

    def forward(self, tower: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, 3, S, S) → features (n, tower_dim), patches (n, H, W, d), not yet of unit length."""
        features, last_map = _run_tower(tower, images)
        return features, self.projection(self.norm(last_map.permute(0, 2, 3, 1)))

    def run(self, tower: nn.Module, images: Tensor, *, autocast: bool) -> tuple[Tensor, Tensor]:
        """As `facet.run_tower`: features f32 (n, tower_dim), and patches f32 (n, H, W, d), unit length."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            features, patches = self(tower, images)
        return features.float(), unit(patches.float())


class PatchTokens(nn.Module):
    """Patches of all frames → one token for each place in each picture, that knows where it is.

    Frames are weighted as they are for z: what MTGF looks at does not grow with their number, and faces are aligned, so that
    a place shows the same part of the face in all of them. When something happened is told by the tokens of the views.
    A place is x and y, in half a turn each, so that opposite edges differ and any grid has its places: maps of convolutions
    know none, and in a transformer's last one what was added first has faded. All embeddings start at zero.
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
        """
        Args:
            patches: (B, T, N, H, W, d), unit length, of N = M·V pictures a frame; mask: bool (B, T, N), True = there.
            frame_weights: (B, T), sum to 1, without the reference. cameras: (B, N, 2) yaw, pitch, radians. modalities: i64
            (N,). has_reference: bool (B,): what changed since frame 0, the reference, where True; frame 0 is nothing else.
        Returns:
            tokens (B, N·H·W, d); mask bool (B, N·H·W): of pictures that are there in a frame, and in the reference.
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
        tokens = tokens + about[:, :, None, None] + self.position(_places(height, width, tokens))
        return tokens.flatten(1, 3), there.repeat_interleave(height * width, dim=1)


def _run_tower(tower: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (n, tower_dim), and the last feature map before they are pooled (n, c, H, W): open_clip's own way to both."""
    found = tower.forward_intermediates(images, indices=1, output_fmt="NCHW")  # type: ignore[operator]
    return found["image_features"], found["image_intermediates"][-1]


def weigh_frames(mask: Tensor, frame_weights: Tensor) -> Tensor:
    """(B, T, N): what each frame counts in a picture's patches, 0 where it lacks the picture; sums to 1 over frames, or is 0.

    mask: bool (B, T, N); frame_weights: (B, T)."""
    weights = frame_weights[..., None] * mask
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-12)


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """(H, W, 2): x and y of the patches' centres, from −π/2 at an edge of the picture to π/2 at the other."""
    x, y = (
        (torch.arange(num, device=like.device, dtype=like.dtype) + 0.5) * (math.pi / num) - math.pi / 2
        for num in (width, height)
    )
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def count_channels(config: Mapping[str, Any]) -> int:
    """Channels of the last feature map that an image tower of an open_clip model config has, found without its weights.

    Raises:
        FacetError: it has none, or not all of it while it trains.
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
    if len(shapes) > 1:  # it drops patches in training, and what is left has no place any more
        raise FacetError(refusal)
    return int(shapes.pop()[1])
