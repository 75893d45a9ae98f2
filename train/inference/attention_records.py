"""Record attention weights in the forward passes of a test. Training does not use this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.attention_file import MAPS, Attention
from shared.schema import View
from shared.text import TextEmbeddings
from train.data.stream import choose_rows
from train.model.attention import TokenAttention
from train.model.batch import Batch, Output
from train.model.facet import Facet
from train.model.patch_tokens import weigh_frames
from train.model.tower_attention import find_patch_attention, fold_maps
from train.tasks.item import Item

MAX_PATCH_BYTES = 64 << 20  # of patch maps in a file; above it, only evenly spread items are recorded


class Recording:
    """Tensors that hooks recorded of the last batch."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def store(self, name: str, value: Tensor) -> None:
        self._tensors[name] = value

    def pop(self, name: str) -> Tensor:
        return self._tensors.pop(name)

    def take(self, batch: Batch, output: Output, prompts: Tensor | None) -> dict[str, Tensor]:
        """Return the arrays of `Attention` for a batch, (B, …), by name, and clear the recording.

        Args:
            prompts: f32 (C, K, d), unit length.
        """
        tensors, self._tensors = self._tensors, {}
        num, frames, modalities, views = batch.dims
        compared = int(batch.has_reference is not None)  # the reference is no frame of the item
        num_frames, num_tokens = frames - compared, modalities * views
        alpha = output.alpha.view(num, num_frames, num_tokens)
        found = {"faces": output.face, "view_weights": alpha}
        even = alpha.new_full((num, num_frames), 1 / num_frames)
        found["frame_weights"] = tensors.get("frames", even)
        if "views" in tensors:
            between = tensors["views"].view(num, frames, num_tokens, num_tokens)[:, compared:]
            found["view_attention"] = (alpha[..., None, :] @ between)[..., 0, :]
        if "classes" in tensors:
            found |= _split_class_attention(tensors, num_frames, num_tokens)
            found["class_share"] = tensors["class_fraction"]
        if prompts is not None:
            found["prompt_cosines"] = torch.einsum("bcd,ckd->bck", tensors["class_features"], prompts)
        if "patches" in tensors:
            found["patches"] = self._scatter_patches(tensors["patches"], batch)[:, compared:]
        return found

    def _scatter_patches(self, maps: Tensor, batch: Batch) -> Tensor:
        """Return (B, T, N, G, G), zeros for absent images, which the tower did not encode."""
        num, frames, modalities, views = batch.dims
        if not batch.complete:
            mask = batch.present[..., None].expand(num, frames, modalities, views).flatten()
            scattered = maps.new_zeros(len(mask), *maps.shape[1:])
            scattered[mask] = maps
            maps = scattered
        return maps.view(num, frames, modalities * views, *maps.shape[1:])


def _split_class_attention(tensors: dict[str, Tensor], num_frames: int, num_tokens: int) -> dict[str, Tensor]:
    """Return class_attention (B, C, T, N), and class_patches (B, C, N, G, G) if text attends to patches, too.

    Attention to a patch is added to that of its image, split over frames by frame weight.
    """
    views, patches = tensors["classes"].tensor_split([num_frames * num_tokens], dim=-1)
    attended = views.unflatten(-1, (num_frames, num_tokens))
    if "patch_frames" not in tensors:
        return {"class_attention": attended}
    patches = patches.unflatten(-1, (num_tokens, -1))
    attended = attended + tensors["patch_frames"][:, None] * patches.sum(-1)[:, :, None]
    found = {"class_attention": attended}
    if (maps := fold_maps(patches.flatten(0, 2))) is not None:
        found["class_patches"] = maps.unflatten(0, patches.shape[:3])
    return found


@contextmanager
def record_attention(model: Facet) -> Iterator[Recording]:
    """Record the attention weights of every forward pass within the block; the outputs do not change.

    Fusions that score each view alone record only α. Compiled towers run uncompiled, because they would not call the hooks.
    """
    recording = Recording()
    handles = []

    def watch(name: str, module: TokenAttention) -> None:
        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            recording.store(name, module.weights(*inputs))  # type: ignore[operator]

        handles.append(module.register_forward_pre_hook(before))

    def after_head(module: nn.Module, inputs: tuple[Any, ...], class_features: Tensor) -> None:
        recording.store("class_features", class_features)
        if model.head.recorded_attention is not None:
            fraction = model.head.measure_attended_fraction(inputs[0], inputs[1], recording.pop("attended"))
            recording.store("class_fraction", fraction)

    if (attention := model.fusion.recorded_attention) is not None:
        watch("views", attention)
    together = not model.fusion.scores_each_view  # else each view passes through the head alone
    if together and (attention := model.head.recorded_attention) is not None:
        watch("classes", attention)
        handles.append(attention.register_forward_hook(lambda _, __, out: recording.store("attended", out)))
    if together:
        handles.append(model.head.register_forward_hook(after_head))
    if model.patch_tokens is not None:

        def before_patch_tokens(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            _, mask, frame_weights, _, _, has_reference = inputs
            mask = mask if has_reference is None else mask[:, 1:]
            recording.store("patch_frames", weigh_frames(mask, frame_weights))

        handles.append(model.patch_tokens.register_forward_pre_hook(before_patch_tokens))
    if together and model.temporal is not None:
        handles.append(model.temporal.pool.register_forward_hook(lambda _, __, out: recording.store("frames", out[1])))
    if (found := find_patch_attention(model.tower)) is not None:
        module, weigh = found

        def before_patches(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if (maps := fold_maps(weigh(module, inputs))) is not None:
                recording.store("patches", maps)

        handles.append(module.register_forward_pre_hook(before_patches))
    try:
        with torch.compiler.set_stance("force_eager"):
            yield recording
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class AttentionTable:
    """Recorded batches of all items, in float16. text: the classes' prompts, if known."""

    items: Sequence[Item]
    num_frames: int
    text: TextEmbeddings | None
    _arrays: dict[str, np.ndarray] = field(default_factory=dict)
    _map_index: np.ndarray | None = None  # i32 (items,): index of an item's patch maps, -1 if not recorded
    _filled: int = 0

    def prompt_tensor(self, device: torch.device) -> Tensor | None:
        return None if self.text is None else torch.from_numpy(self.text.embeddings).to(device)

    def add(self, found: dict[str, Tensor]) -> None:
        """Add the next items' arrays of `Recording.take`."""
        num = len(found["faces"])
        where = slice(self._filled, self._filled + num)
        for name, tensor in found.items():
            if name in MAPS:
                continue
            array = tensor.detach().float().cpu().numpy().astype(np.float16)
            if name not in self._arrays:
                self._arrays[name] = np.zeros((len(self.items), *array.shape[1:]), np.float16)
            self._arrays[name][where] = array
        if maps := {name: found[name] for name in MAPS if name in found}:
            self._add_maps(maps, where)
        self._filled += num

    def _add_maps(self, maps: dict[str, Tensor], where: slice) -> None:
        if self._map_index is None:
            num = len(self.items)
            most = min(num, MAX_PATCH_BYTES // (2 * sum(int(np.prod(values.shape[1:])) for values in maps.values())))
            self._map_index = np.full(num, -1, np.int32)
            self._map_index[np.arange(most) * num // max(most, 1)] = np.arange(most)
            self._arrays |= {name: np.zeros((most, *values.shape[1:]), np.float16) for name, values in maps.items()}
        index = self._map_index[where]
        for name, values in maps.items():
            recorded = values.detach()[torch.from_numpy(index >= 0).to(values.device)]
            self._arrays[name][index[index >= 0]] = recorded.float().cpu().numpy().astype(np.float16)

    def finish(self, class_names: Sequence[str], modalities: Sequence[str], views: Sequence[View]) -> Attention:
        assert self._filled == len(self.items)
        rows = np.array([choose_rows(item, self.num_frames, None, False) for item in self.items], np.int32)
        arrays = dict(self._arrays)
        if self._map_index is not None:
            arrays["patch_place"] = self._map_index
        prompts: tuple[tuple[str, ...], ...] = ()
        if self.text is not None:
            arrays["prompt_cosines"] = np.where(self.text.mask, arrays["prompt_cosines"], np.float16(np.nan))
            prompts = self.text.prompts
        return Attention(
            tuple(item.name for item in self.items),
            tuple(class_names),
            tuple(modalities),
            tuple(str(view) for view in views),
            rows,
            prompts=prompts,
            **arrays,
        )
