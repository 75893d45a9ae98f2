"""FACET-VLM: images of one face from several views → a score per class. Our definition; see the README."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.model.cvsa import TemporalAttention, soften, unit
from train.model.fusion import Fusion, Sizes, average_scores
from train.model.head import Head
from train.model.patch_tokens import PatchEncoder, PatchTokens
from train.model.view_towers import ViewTowers
from train.parts import FUSIONS, HEADS, LOSSES, WITH_OPTION, find_part

MAX_LOG_SCALE = math.log(100)  # CLIP's own limit (Radford et al. 2021, section 2.5)


@dataclass(frozen=True)
class Batch:
    """What the model sees of B samples with T frames, V views and M modalities, on the device.

    images f32 (B, T, M, V, 3, S, S), normalised, or the features that a frozen tower made of them, f32 (B, T, M, V, d); present
    bool (B, T, M), at least one a frame; cameras f32 (B, V, 2), yaw and pitch in radians. has_reference bool (B,): frame 0 is
    a face that the T − 1 others are compared with, where True.
    """

    images: Tensor | None
    present: Tensor
    cameras: Tensor
    complete: bool  # every image is present (known without asking the device)
    has_reference: Tensor | None = None
    features: Tensor | None = None

    @property
    def dims(self) -> tuple[int, int, int, int]:
        """B, T, M, V."""
        return (*self.present.shape, self.cameras.shape[1])  # type: ignore[return-value]

    def split(self, num_parts: int) -> list[Batch]:
        """Parts of nearly equal size, in order; as many as there are samples where more are asked for."""
        num_parts = min(num_parts, len(self.present))
        values = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        pieces = {name: value.tensor_split(num_parts) for name, value in values.items()}
        return [replace(self, **{name: parts[i] for name, parts in pieces.items()}) for i in range(num_parts)]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Output:
    """logits (B, C); views e (B·T, N, d), unit length, N = M·V, modality by modality; mask bool (B·T, N); frames: z of each
    frame (B·T, d); face: z (B, d), both unit length; alpha (B·T, N), the weight of each view in its frame's z; changes
    (B·T, N, d): each view against the reference's same view, `views` itself where nothing is compared. T without reference."""

    logits: Tensor
    views: Tensor
    mask: Tensor
    frames: Tensor
    face: Tensor
    alpha: Tensor
    changes: Tensor


class Facet(nn.Module):
    """The whole model. At step 0 it is CLIP zero-shot over averaged views, whatever is switched on of what keeps to text;
    with --fusion max over the largest values instead, with late over averaged probabilities."""

    def __init__(
        self,
        tower: nn.Module,
        tower_dim: int,
        text_mean: np.ndarray,
        logit_scale: float,
        *,
        num_modalities: int,
        num_views: int = 1,
        num_frames: int = 1,
        fusion: str = "cvsa",
        head: str = "mtgf",
        consistency: bool = True,
        freeze_tower: bool = False,
        autocast: bool = False,
        class_bias: bool = False,
        patch_channels: int = 0,
        class_vectors: str = "text",
        losses: Sequence[str] = WITH_OPTION,
        tower_a_view: bool = False,
    ) -> None:
        """
        Args:
            tower: images (B, 3, S, S) → features (B, tower_dim).
            text_mean: f32 (C, d), the mean over each class's unit-length prompt embeddings (not normalised again, since
                the mean of cosines with the prompts is the dot product with their mean).
            logit_scale: CLIP's s, as a factor.
            consistency: build h, the projection that only the consistency loss uses.
            autocast: run the tower in bfloat16; everything after it is small and stays in float32.
            class_bias: add a bias to each class's score, for several classes at once, each yes or no.
            patch_channels: of the tower's last feature map, whose patches MTGF looks at, too; 0: it does not.
            fusion, head, losses: names of `train/parts.py`. class_vectors: text, or learned in its place, from random ones.
            tower_a_view: each view has a tower of its own; all start alike.
        Raises:
            FacetError: no part of this name.
        """
        super().__init__()
        dim = text_mean.shape[1]
        sizes = Sizes(dim, len(text_mean), num_modalities, num_views)
        self.tower = ViewTowers(tower, num_views) if tower_a_view else tower
        self.autocast = autocast
        self.projection = nn.Linear(tower_dim, dim, bias=False)
        self.fusion: Fusion = find_part(FUSIONS, fusion).load().build(sizes)
        self.temporal = TemporalAttention(dim) if num_frames > 1 else None
        self.head: Head = find_part(HEADS, head).load().build(sizes)
        self.view_to_face = nn.Linear(dim, dim) if consistency else None
        self.log_scale = nn.Parameter(torch.tensor(math.log(logit_scale)).clamp(max=MAX_LOG_SCALE))
        self.multilabel = class_bias
        has_bias = class_bias or self.head.has_bias
        self.class_bias = nn.Parameter(torch.zeros(len(text_mean))) if has_bias else None
        self.has_text = class_vectors == "text" and not self.head.has_own_vectors
        self.text_mean: Tensor
        if class_vectors == "text":
            self.register_buffer("text_mean", torch.as_tensor(text_mean, dtype=torch.float32))
        else:
            learned = nn.Parameter(F.normalize(torch.randn(len(text_mean), dim), dim=-1))
            self.register_parameter("text_mean", learned)
        for layer in (self.projection, self.view_to_face):
            if layer is not None:
                _start_as_identity(layer)
        has_patches = patch_channels > 0 and self.head.looks_at_tokens  # made last: all else starts as it would without
        self.patch_encoder = PatchEncoder(patch_channels, dim) if has_patches else None
        self.patch_tokens = PatchTokens(dim, num_modalities) if has_patches else None
        self.loss_terms = nn.ModuleDict({name: find_part(LOSSES, name).load().build(sizes) for name in losses})
        if freeze_tower:
            self.tower.requires_grad_(False)

    @property
    def scale(self) -> Tensor:
        """s, as a factor."""
        return self.log_scale.exp()

    @property
    def class_vectors(self) -> Tensor:
        """t_c (C, d), which the head compares faces with."""
        return self.head.class_vectors(self.text_mean)

    @property
    def has_text_scores(self) -> bool:
        """Whether scores follow from the cosines of one f_c with the prompts of its class."""
        return self.has_text and not self.fusion.scores_each_view

    def train(self, mode: bool = True) -> Facet:
        """What is frozen of the tower stays in evaluation mode: its batch statistics are weights too."""
        super().train(mode)
        for module in self.tower.modules():
            trains = [p.requires_grad for p in module.parameters()]
            if trains and not any(trains):
                module.eval()
        return self

    def compile_tower(self, *, dynamic: bool | None) -> None:
        """Compiles what runs on every picture; it is compiled in its first call."""
        towers = self.tower.towers if isinstance(self.tower, ViewTowers) else [self.tower]
        for module in towers if self.patch_encoder is None else [self.patch_encoder]:
            module.compile(dynamic=dynamic)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Unit-length tokens e (B·T, N, d), zero where missing; their mask (B·T, N); patches (B·T, N, H, W, d), unit length and
        zero where missing, too, None where nothing looks at them."""
        b, t, m, v = batch.dims
        mask = batch.present[..., None].expand(b, t, m, v)
        if batch.features is not None:
            tokens = F.normalize(self.projection(batch.features.flatten(0, 3)), dim=-1)
            if not batch.complete:
                tokens = tokens * mask.reshape(-1, 1)
            assert self.patch_encoder is None
            return tokens.view(b * t, m * v, -1), mask.reshape(b * t, m * v), None
        assert batch.images is not None
        images = batch.images.flatten(0, 3)
        if not batch.complete:  # an image that is not there must not enter batch statistics either
            images = images[mask.flatten()]
        patches = None
        if self.patch_encoder is None:
            tower: Callable[[Tensor], Any] = self.tower
            if isinstance(tower, ViewTowers) and not batch.complete:
                which = torch.arange(v, device=images.device).expand(b, t, m, v)
                tower = partial(tower, views=which[mask])
            features = run_tower(tower, images, autocast=self.autocast)
        else:
            features, patches = self.patch_encoder.run(self.tower, images, autocast=self.autocast)
        tokens = F.normalize(self.projection(features), dim=-1)
        if not batch.complete:
            tokens = _place(tokens, mask)
            patches = None if patches is None else _place(patches, mask)
        patches = None if patches is None else patches.view(b * t, m * v, *patches.shape[1:])
        return tokens.view(b * t, m * v, -1), mask.reshape(b * t, m * v), patches

    def forward(self, batch: Batch) -> Output:
        b, t, m, v = batch.dims
        views, mask, patches = self.encode(batch)
        all_views = mask.unflatten(0, (b, t))
        cameras = batch.cameras[:, None, None].expand(b, t, m, v, 2).reshape(b * t, m * v, 2)
        modalities = torch.arange(m, device=cameras.device).repeat_interleave(v)
        tokens, frames, alpha = self.fusion(views, mask, cameras, modalities)
        changes, faces = views, frames
        if batch.has_reference is not None:
            changes, tokens, faces = subtract_reference(views, mask, tokens, frames, batch.has_reference)
            views, mask, frames, alpha = (
                x.unflatten(0, (b, t))[:, 1:].flatten(0, 1) for x in (views, mask, frames, alpha)
            )
            t -= 1
        if self.fusion.scores_each_view:
            face, logits = self._score_each_view(changes, mask, b)
            return Output(logits, views, mask, frames, face, alpha, changes)
        if self.temporal is None:
            face, frame_weights = unit(faces.view(b, t, -1).mean(1)), faces.new_full((b, t), 1 / t)
        else:
            face, frame_weights = self.temporal(faces.view(b, t, -1))
            tokens = (tokens.view(b, t, m * v, -1) + self.temporal.positions(t, tokens)[:, None]).flatten(0, 1)
        tokens, is_token = tokens.reshape(b, t * m * v, -1), mask.reshape(b, t * m * v)
        if self.patch_tokens is not None and patches is not None:
            patches, cameras = (x.unflatten(0, all_views.shape[:2]) for x in (patches, cameras))
            more, is_patch = self.patch_tokens(
                patches, all_views, frame_weights, cameras[:, 0], modalities, batch.has_reference
            )
            tokens, is_token = torch.cat([tokens, more], dim=1), torch.cat([is_token, is_patch], dim=1)
        return Output(self._score(face, tokens, is_token), views, mask, frames, face, alpha, changes)

    def _score(self, face: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """z (B, d) and what the head may look at, (B, N, d), (B, N) → logits (B, C)."""
        vectors = self.class_vectors
        seen = self.head(F.normalize(vectors, dim=-1), face, tokens, mask)
        logits = self.scale * (seen * vectors).sum(-1)
        return logits if self.class_bias is None else logits + self.class_bias

    def _score_each_view(self, tokens: Tensor, mask: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """Tokens (B·T, N, d) and their mask (B·T, N) of B samples: each view, in all its frames, is fused over time and scored
        alone. The mean face (B, d), unit length; logits (B, C) whose probabilities are the views' mean."""
        tokens, mask = (x.unflatten(0, (num, -1)).transpose(1, 2) for x in (tokens, mask))  # (B, N, T, …)
        seen = mask.any(2)
        num_views = mask.shape[1]
        # a view that is nowhere there counts for nothing, but must not become NaN
        there = (mask | ~seen[..., None]).flatten(0, 1)
        alone = tokens.flatten(0, 1)
        if self.temporal is None:
            face = unit((alone * there[..., None]).sum(1))
        else:
            face = self.temporal(alone, there)[0]
            alone = alone + self.temporal.positions(alone.shape[1], alone)
        logits = self._score(face, alone, there).unflatten(0, (num, num_views))
        mean = unit((face.unflatten(0, (num, num_views)) * seen[..., None]).sum(1))
        return mean, average_scores(logits, seen, multilabel=self.multilabel)

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keeps s at 100 or below; called after every step, as CLIP does."""
        self.log_scale.clamp_(max=MAX_LOG_SCALE)


def run_tower(tower: Callable[[Tensor], Any], images: Tensor, *, autocast: bool = False) -> Tensor:
    """Images f32 (n, 3, S, S), normalised → features f32 (n, d). autocast: compute in bfloat16."""
    images = images.contiguous(memory_format=torch.channels_last)  # oneDNN's and cuDNN's convolutions are faster so
    with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
        features = tower(images)
    if isinstance(features, (tuple, list)):  # towers that also give patch tokens
        features = features[0]
    found: Tensor = features.float()
    return found


def subtract_reference(
    views: Tensor, mask: Tensor, tokens: Tensor, frames: Tensor, has_reference: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What changed against frame 0 of each sample: what stays of a person when their face at rest is taken away.

    Differences are short where little changed and stay so (`soften`).

    Args:
        views, tokens: (B·T, N, d); mask: bool (B·T, N); frames: z (B·T, d); has_reference: bool (B,).
    Returns:
        changes (B·(T−1), N, d) of each view against the reference's same view (against its z where that view is missing),
        tokens (B·(T−1), N, d) minus the reference's z, faces (B·(T−1), d). As they were where there is no reference.
    """
    b = has_reference.shape[0]  # len() would fix it in a traced program
    there = has_reference.view(b, 1, 1, 1)
    each_view, each_token, each_face = (x.unflatten(0, (b, -1)) for x in (views, tokens, frames))
    rest = each_face[:, :1, None] * there  # (B, 1, 1, d)
    rest_views = torch.where(mask.unflatten(0, (b, -1))[:, :1, :, None], each_view[:, :1], rest) * there
    changes = torch.where(there, soften(each_view[:, 1:] - rest_views), each_view[:, 1:])
    faces = torch.where(there[..., 0], soften(each_face[:, 1:] - rest[:, :, 0]), each_face[:, 1:])
    return changes.flatten(0, 1), (each_token[:, 1:] - rest).flatten(0, 1), faces.flatten(0, 1)


def _place(found: Tensor, mask: Tensor) -> Tensor:
    """(n, …) of the pictures that are there → (N, …) of all, by their mask of N elements; zeros where there is none."""
    where = mask.reshape(-1, *[1] * (found.ndim - 1))
    return found.new_zeros(where.shape[0], *found.shape[1:]).masked_scatter(where, found)


def _start_as_identity(layer: nn.Linear) -> None:
    """AugmentParameters nothing where dimensions are equal, and keeps lengths where they are not."""
    if layer.in_features == layer.out_features:
        nn.init.eye_(layer.weight)
    else:
        nn.init.orthogonal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
