"""Class texts that differ by view: an image is compared with the texts of the view that it shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared.schema import View
from train.model.attention import MIN_LENGTH


class ViewText(nn.Module):
    """What a view v adds to its cosine with the class vector t_c, the mean over views: e_v · (t_cv − t_c).

    So all that knows one vector per class stays as it is, and step 0 is still CLIP zero-shot: the mean over views of
    e_v · t_cv, divided by the length of their mean, as z has unit length.
    """

    def __init__(self, texts: Tensor, views: Sequence[View]) -> None:
        """
        Args:
            texts: t_cv (W, C, d), of the W views.
        """
        super().__init__()
        angles = torch.tensor([[view.yaw_deg, view.pitch_deg] for view in views])
        self.differences: Tensor  # t_cv − t_c (W, C, d)
        self.cameras: Tensor  # (W, 2)
        self.register_buffer("differences", texts - texts.mean(0))
        self.register_buffer("cameras", angles.deg2rad(), persistent=False)

    def forward(self, views: Tensor, cameras: Tensor) -> Tensor:
        """Return e_v · (t_cv − t_c), (B·T, N, C), with the texts of the nearest camera.

        Args:
            views: e_v (B·T, N, d), N = M·V.
            cameras: (B, V, 2), yaw and pitch in radians; of a mirrored image with negated yaw.
        """
        num, num_views, _ = cameras.shape
        nearest = (cameras[:, :, None] - self.cameras).square().sum(-1).argmin(-1)
        by_view = views.unflatten(1, (-1, num_views)).unflatten(0, (num, -1))  # (B, T, M, V, d)
        return torch.einsum("btmvd,bvcd->btmvc", by_view, self.differences[nearest]).flatten(2, 3).flatten(0, 1)


def average_text(own_text: Tensor, views: Tensor, weights: Tensor) -> Tensor:
    """Return what the texts of single views add to the cosines of z, the views' mean at unit length, (B, C).

    Args:
        own_text: of `ViewText` (B, K, C). views: (B, K, d). weights: of the views in z (B, K, 1).
    """
    length = (weights * views).sum(1).norm(dim=-1, keepdim=True)
    return (weights * own_text).sum(1) / length.clamp(min=MIN_LENGTH)
