"""What goes into the model, and what comes out of it: the tensors and their shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Inputs of B samples with T frames, M modalities and V views, on the device. Either images or features are given."""

    images: Tensor | None  # f32 (B, T, M, V, 3, S, S), normalised
    present: Tensor  # bool (B, T, M), at least one modality per frame
    cameras: Tensor  # f32 (B, V, 2), yaw and pitch in radians
    complete: bool  # every image is present (known without asking the device)
    has_reference: Tensor | None = None  # bool (B,): frame 0 is a reference that is subtracted from the others
    features: Tensor | None = None  # f32 (B, T, M, V, d) of a frozen tower

    @property
    def dims(self) -> tuple[int, int, int, int]:
        """Return B, T, M, V."""
        return (*self.present.shape, self.cameras.shape[1])  # type: ignore[return-value]

    def split(self, num_parts: int) -> list[Batch]:
        """Split into num_parts of nearly equal size, in order; into single samples if there are fewer."""
        num_parts = min(num_parts, len(self.present))
        values = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        pieces = {name: value.tensor_split(num_parts) for name, value in values.items()}
        return [replace(self, **{name: parts[i] for name, parts in pieces.items()}) for i in range(num_parts)]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Output:
    """The model's output. N = M·V tokens, modality by modality; T frames, not counting a reference."""

    logits: Tensor  # (B, C)
    views: Tensor  # e (B·T, N, d), unit length
    mask: Tensor  # bool (B·T, N), True = present
    frames: Tensor  # z of each frame (B·T, d), unit length
    face: Tensor  # z (B, d), unit length
    alpha: Tensor  # (B·T, N), the weight of each view in its frame's z
    changes: Tensor  # (B·T, N, d), each view minus the same view of the reference; `views` without reference
    own_text: Tensor | None  # (B·T, N, C), what `ViewText` adds to cosines of `changes`; None: nothing
