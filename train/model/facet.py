"""FACET-VLM: images of one face from several views → a score per class. The definition is ours; see the README."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.schema import View
from train.model.attention import TemporalAttention, soften, unit
from train.model.batch import Batch, Output
from train.model.fusion import Fusion, Sizes, average_scores
from train.model.head import Head
from train.model.patch_tokens import PatchEncoder, PatchTokens
from train.model.view_text import ViewText, average_text
from train.model.view_towers import ViewTowers
from train.parts import FUSIONS, HEADS, LOSSES, find_part

MAX_LOG_SCALE = math.log(100)  # CLIP's own limit (Radford et al. 2021, section 2.5)


@dataclass(frozen=True, kw_only=True)
class FacetConfig:
    """Architecture of the model around its image tower. Names of parts are those of `train/parts.py`."""

    tower_dim: int  # features of the tower
    num_modalities: int
    num_views: int = 1
    num_frames: int = 1
    fusion: str = "cvsa"
    head: str = "mtgf"
    class_vectors: str = "text"  # or "residual": text plus a learned residual; "learned": random vectors, no text
    losses: Mapping[str, float] = field(default_factory=lambda: {"con": 0.1, "vt": 0.5})  # name → weight; 0: not built
    multilabel: bool = False  # several classes may hold at once; each class's score has a bias
    patch_channels: int = 0  # channels of the tower's last feature map, whose patches MTGF attends to; 0: views only
    tower_per_view: bool = False  # each view has its own tower; all start alike
    freeze_tower: bool = False
    autocast: bool = False  # run the tower in bfloat16; all that follows is small and stays in float32
    text_views: tuple[View, ...] = ()  # with class texts of their own; (): all views have the same


class Facet(nn.Module):
    """The whole model. At step 0 with text vectors it is CLIP zero-shot over averaged views.

    With --fusion max it starts from the largest value of each feature instead, with late from averaged probabilities.
    """

    def __init__(self, tower: nn.Module, text: np.ndarray, logit_scale: float, config: FacetConfig) -> None:
        """
        Args:
            tower: images (n, 3, S, S) → features (n, tower_dim).
            text: f32 (C, d), the mean over each class's unit-length prompt embeddings. It is not normalised: a dot product
                with it is the mean of the cosines with the prompts. With text_views (W, C, d), for each of them.
            logit_scale: CLIP's s, as a factor.
        Raises:
            FacetError: no part of this name.
        """
        super().__init__()
        text_mean = by_view = torch.as_tensor(text, dtype=torch.float32)
        if config.text_views:
            text_mean = by_view.mean(0)
        num_classes, dim = text_mean.shape
        sizes = Sizes(dim, num_classes, config.num_modalities, config.num_views)
        losses = {name: weight for name, weight in config.losses.items() if weight > 0}
        self.tower = ViewTowers(tower, config.num_views) if config.tower_per_view else tower
        self.autocast = config.autocast
        self.projection = nn.Linear(config.tower_dim, dim, bias=False)
        self.fusion: Fusion = find_part(FUSIONS, config.fusion).load().build(sizes)
        self.temporal = TemporalAttention(dim) if config.num_frames > 1 else None
        self.head: Head = find_part(HEADS, config.head).load().build(sizes)
        self.view_to_face = nn.Linear(dim, dim) if "con" in losses else None  # h of the consistency loss
        self.log_scale = nn.Parameter(torch.tensor(math.log(logit_scale)).clamp(max=MAX_LOG_SCALE))
        self.multilabel = config.multilabel
        has_bias = config.multilabel or self.head.has_bias
        self.class_bias = nn.Parameter(torch.zeros(num_classes)) if has_bias else None
        self.has_text = config.class_vectors == "text" and not self.head.has_own_vectors
        self.text_mean: Tensor
        if config.class_vectors == "learned":
            learned = nn.Parameter(F.normalize(torch.randn(num_classes, dim), dim=-1))
            self.register_parameter("text_mean", learned)
        else:
            self.register_buffer("text_mean", text_mean)
        uses_text = config.class_vectors != "learned" and not self.head.has_own_vectors
        self.view_text = ViewText(by_view, config.text_views) if config.text_views and uses_text else None
        # Zero at first; weight decay draws it back to the text (TaskRes: Yu et al. 2023, "Task residual for tuning
        # vision-language models").
        has_residual = config.class_vectors == "residual"
        self.text_residual = nn.Parameter(torch.zeros(num_classes, dim)) if has_residual else None
        for layer in (self.projection, self.view_to_face):
            if layer is not None:
                _start_as_identity(layer)
        # Built last: the random initial weights of all other parts do not depend on them.
        has_patches = config.patch_channels > 0 and self.head.attends_to_tokens
        self.patch_encoder = PatchEncoder(config.patch_channels, dim) if has_patches else None
        self.patch_tokens = PatchTokens(dim, config.num_modalities) if has_patches else None
        self.loss_terms = nn.ModuleDict({name: find_part(LOSSES, name).load().build(sizes) for name in losses})
        for name, weight in losses.items():
            self.loss_terms[name].weight = weight  # type: ignore[assignment]
        if config.freeze_tower:
            self.tower.requires_grad_(False)

    @property
    def scale(self) -> Tensor:
        """Return s as a factor (it is trained as a logarithm)."""
        return self.log_scale.exp()

    @property
    def class_vectors(self) -> Tensor:
        """Return t_c (C, d), which the head compares faces with."""
        residual = self.text_residual
        return self.head.class_vectors(self.text_mean if residual is None else self.text_mean + residual)

    @property
    def class_parameters(self) -> frozenset[str]:
        """Return the names of the weights that hold, in a row for each class, what was learned of it."""
        names = [f"head.{name}" for name in self.head.class_parameters]
        names += ["text_mean"] * isinstance(self.text_mean, nn.Parameter) + ["text_residual"] * (
            self.text_residual is not None
        )
        names += ["class_bias"] * (self.class_bias is not None and not self.multilabel)  # else from rates of labels
        return frozenset(names)

    @property
    def has_text_scores(self) -> bool:
        """Whether a score is the scaled mean cosine of one f_c with the prompts of its class."""
        return self.has_text and not self.fusion.scores_each_view and self.view_text is None

    def train(self, mode: bool = True) -> Facet:
        """Set the mode; frozen parts of the tower stay in evaluation mode, because batch statistics are weights too."""
        super().train(mode)
        for module in self.tower.modules():
            trains = [p.requires_grad for p in module.parameters()]
            if trains and not any(trains):
                module.eval()
        return self

    def compile_tower(self, *, dynamic: bool | None) -> None:
        """Compile the part that runs on every image, at its first call."""
        towers = self.tower.towers if isinstance(self.tower, ViewTowers) else [self.tower]
        for module in towers if self.patch_encoder is None else [self.patch_encoder]:
            module.compile(dynamic=dynamic)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return tokens e (B·T, N, d), their mask (B·T, N), and patches (B·T, N, H, W, d), None if nothing attends to them.

        Tokens and patches have unit length; missing ones are zero."""
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
        if not batch.complete:  # a missing image must not enter batch statistics either
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
            tokens = _scatter(tokens, mask)
            patches = None if patches is None else _scatter(patches, mask)
        patches = None if patches is None else patches.view(b * t, m * v, *patches.shape[1:])
        return tokens.view(b * t, m * v, -1), mask.reshape(b * t, m * v), patches

    def forward(self, batch: Batch) -> Output:
        return self.fuse(batch, *self.encode(batch))

    def score_frames(self, batch: Batch, views: Tensor, mask: Tensor, patches: Tensor | None) -> Tensor:
        """Return the logits (B, T, C) of each frame alone, as of a sequence that shows only this frame.

        Args:
            views, mask, patches: as `encode` returns them of the batch; no image is encoded again.
        """
        b, t, *_ = batch.dims
        compared = int(batch.has_reference is not None)
        num = t - compared  # frames without the reference
        rows = torch.arange(compared, t, device=mask.device)[:, None].expand(num, num)
        if compared:
            rows = torch.cat([rows.new_zeros(num, 1), rows], dim=1)
        repeated = [
            None if x is None else x.unflatten(0, (b, t))[:, rows].flatten(0, 2) for x in (views, mask, patches)
        ]
        stills = Batch(
            images=None,
            present=batch.present[:, rows].flatten(0, 1),
            cameras=batch.cameras.repeat_interleave(num, 0),
            complete=batch.complete,
            has_reference=None if batch.has_reference is None else batch.has_reference.repeat_interleave(num),
        )
        return self.fuse(stills, *repeated).logits.unflatten(0, (b, num))  # type: ignore[arg-type]

    def fuse(self, batch: Batch, views: Tensor, mask: Tensor, patches: Tensor | None) -> Output:
        """Return the output for what `encode` returned of a batch."""
        b, t, m, v = batch.dims
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
        own_text = None if self.view_text is None else self.view_text(changes, batch.cameras)
        if self.fusion.scores_each_view:
            face, logits = self._score_each_view(changes, mask, b, own_text)
            return Output(logits, views, mask, frames, face, alpha, changes, own_text)
        if self.temporal is None:
            face, frame_weights = unit(faces.view(b, t, -1).mean(1)), faces.new_full((b, t), 1 / t)
        else:
            face, frame_weights = self.temporal(faces.view(b, t, -1))
            tokens = (tokens.view(b, t, m * v, -1) + self.temporal.positions(t, tokens)[:, None]).flatten(0, 1)
        face_text = None
        if own_text is not None:
            weights = frame_weights[..., None] * alpha.unflatten(0, (b, t))
            face_text = average_text(*(x.reshape(b, t * m * v, -1) for x in (own_text, changes, weights)))
        tokens, is_token = tokens.reshape(b, t * m * v, -1), mask.reshape(b, t * m * v)
        if self.patch_tokens is not None and patches is not None:
            patches, cameras = (x.unflatten(0, all_views.shape[:2]) for x in (patches, cameras))
            more, is_patch = self.patch_tokens(
                patches, all_views, frame_weights, cameras[:, 0], modalities, batch.has_reference
            )
            tokens, is_token = torch.cat([tokens, more], dim=1), torch.cat([is_token, is_patch], dim=1)
        logits = self._score(face, tokens, is_token, face_text)
        return Output(logits, views, mask, frames, face, alpha, changes, own_text)

    def _score(self, face: Tensor, tokens: Tensor, mask: Tensor, face_text: Tensor | None) -> Tensor:
        """Return logits (B, C).

        Args:
            face: z (B, d).
            tokens: (B, N, d), which the head may attend to.
            mask: bool (B, N).
            face_text: (B, C), added to the cosines with the class vectors.
        """
        vectors = self.class_vectors
        seen = self.head(F.normalize(vectors, dim=-1), face, tokens, mask)
        cosines = (seen * vectors).sum(-1)
        logits = self.scale * (cosines if face_text is None else cosines + face_text)
        return logits if self.class_bias is None else logits + self.class_bias

    def _score_each_view(
        self, tokens: Tensor, mask: Tensor, num: int, own_text: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Fuse each view over time and score it alone.

        Args:
            tokens: (B·T, N, d).
            mask: bool (B·T, N).
            num: B.
            own_text: (B·T, N, C).
        Returns:
            The mean face (B, d), unit length; logits (B, C) whose probabilities are the mean of the views' probabilities.
        """
        tokens, mask = (x.unflatten(0, (num, -1)).transpose(1, 2) for x in (tokens, mask))  # (B, N, T, …)
        seen = mask.any(2)
        num_views = mask.shape[1]
        # a view that is missing in all frames has no weight, but must not become NaN
        there = (mask | ~seen[..., None]).flatten(0, 1)
        alone, face_text = tokens.flatten(0, 1), None
        if self.temporal is None:
            weights = there.to(alone.dtype)
            face = unit((alone * weights[..., None]).sum(1))
        else:
            face, weights = self.temporal(alone, there)
        if own_text is not None:
            by_time = own_text.unflatten(0, (num, -1)).transpose(1, 2).flatten(0, 1)  # (B·N, T, C)
            face_text = average_text(by_time, alone, weights[..., None])
        if self.temporal is not None:
            alone = alone + self.temporal.positions(alone.shape[1], alone)
        logits = self._score(face, alone, there, face_text).unflatten(0, (num, num_views))
        mean = unit((face.unflatten(0, (num, num_views)) * seen[..., None]).sum(1))
        return mean, average_scores(logits, seen, multilabel=self.multilabel)

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Limit s to 100, after every step, as CLIP does."""
        self.log_scale.clamp_(max=MAX_LOG_SCALE)


def run_tower(tower: Callable[[Tensor], Any], images: Tensor, *, autocast: bool = False) -> Tensor:
    """Return features f32 (n, d) of normalised images f32 (n, 3, S, S). autocast: compute in bfloat16."""
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
    """Subtract frame 0 of each sample, the person's face at rest, from the other frames. Short differences stay short.

    Args:
        views, tokens: (B·T, N, d).
        mask: bool (B·T, N).
        frames: z (B·T, d).
        has_reference: bool (B,). Samples without reference only lose frame 0.
    Returns:
        changes (B·(T−1), N, d): each view minus the same view of the reference, or minus its z if that view is missing;
        tokens (B·(T−1), N, d) minus the reference's z;
        faces (B·(T−1), d) minus the reference's z.
    """
    b = has_reference.shape[0]  # len() would fix it in a traced program
    there = has_reference.view(b, 1, 1, 1)
    each_view, each_token, each_face = (x.unflatten(0, (b, -1)) for x in (views, tokens, frames))
    rest = each_face[:, :1, None] * there  # (B, 1, 1, d)
    rest_views = torch.where(mask.unflatten(0, (b, -1))[:, :1, :, None], each_view[:, :1], rest) * there
    changes = torch.where(there, soften(each_view[:, 1:] - rest_views), each_view[:, 1:])
    faces = torch.where(there[..., 0], soften(each_face[:, 1:] - rest[:, :, 0]), each_face[:, 1:])
    return changes.flatten(0, 1), (each_token[:, 1:] - rest).flatten(0, 1), faces.flatten(0, 1)


def _scatter(found: Tensor, mask: Tensor) -> Tensor:
    """Return (N, …): the n rows of found where the mask, of N elements, is True; zeros elsewhere."""
    where = mask.reshape(-1, *[1] * (found.ndim - 1))
    return found.new_zeros(where.shape[0], *found.shape[1:]).masked_scatter(where, found)


def _start_as_identity(layer: nn.Linear) -> None:
    """Initialise as the identity if dimensions are equal, else orthogonal, which keeps lengths."""
    if layer.in_features == layer.out_features:
        nn.init.eye_(layer.weight)
    else:
        nn.init.orthogonal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
