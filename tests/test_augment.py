"""Augmentation: known changes by hand, the same for all views, a function of (seed, epoch, sample) alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from train.augment import MAX_NOISE, Change, augment, draw_change, jitter_colour, shift_and_scale

STILL = Change(
    flip=False, scale=1, shift=(0, 0), gain=(1, 1, 1), gamma=1, noise=0, noise_seed=0, erase=(0.0, 0.0, 0.0, 0.0)
)


def make_images(b: int = 2, size: int = 20) -> torch.Tensor:
    return torch.rand(b, 1, 2, 3, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_no_change_changes_nothing() -> None:
    images = make_images()
    torch.testing.assert_close(augment(images, [STILL, STILL], texture=0), images)


def test_shift_moves_right_and_down_by_whole_pixels() -> None:
    images = make_images(1)
    moved = shift_and_scale(images, [replace(STILL, shift=(3 / 20, 1 / 20))])
    torch.testing.assert_close(moved[..., 1:, 3:], images[..., :-1, :-3], atol=1e-5, rtol=0)
    assert moved[..., :3].abs().max() < 1e-5  # nothing comes in from outside
    assert moved[..., :1, :].abs().max() < 1e-5


def test_scale_enlarges_about_the_centre() -> None:
    place = (torch.arange(20) + 0.5) / 20 * 2 - 1
    image = (place[:, None] ** 2 + place[None] ** 2 < 0.25).float().expand(1, 1, 1, 1, 3, 20, 20)
    bigger = shift_and_scale(image, [replace(STILL, scale=1.5)])
    assert bigger.sum() / image.sum() == pytest.approx(1.5**2, rel=0.05)
    torch.testing.assert_close(bigger, bigger.flip(-1), atol=1e-5, rtol=0)


def test_colour_changes_texture_alone_and_keeps_the_background() -> None:
    images = make_images(1)
    images[..., :5, :] = 0
    change = replace(STILL, gain=(0.5, 1, 2), gamma=2)
    found = augment(images.clone(), [change], texture=1)
    torch.testing.assert_close(found[:, :, 0], images[:, :, 0])
    wanted = (images[:, :, 1] ** 2 * torch.tensor([0.5, 1, 2]).view(3, 1, 1)).clamp(0, 1)
    torch.testing.assert_close(found[:, :, 1], wanted)
    assert jitter_colour(images[:, :, 1], [change])[..., :5, :].abs().max() == 0


def test_erasing_hits_the_same_place_in_every_view_and_modality() -> None:
    images = make_images(2) + 0.1
    found = augment(images.clone(), [replace(STILL, erase=(0.25, 0.5, 0.5, 0.6)), STILL], texture=None)
    erased = found == 0
    assert erased[0, ..., 10:12, 5:10].all()
    assert erased.sum() == 2 * 3 * 3 * 2 * 5
    assert not erased[1].any()


def test_a_sample_is_changed_the_same_in_any_company() -> None:
    images = make_images(3)
    changes = [draw_change(7, 2, sample) for sample in (4, 9, 1)]
    together = augment(images.clone(), changes, texture=0)
    alone = augment(images[1:2].clone(), changes[1:2], texture=0)
    torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=0)
    assert draw_change(7, 2, 9) == changes[1]
    assert len({draw_change(s, e, i) for s in (0, 1) for e in (0, 1) for i in (0, 1)}) == 8
    assert not torch.equal(together, images)


def test_draws_stay_in_their_ranges_and_use_them() -> None:
    changes = [draw_change(0, 0, sample) for sample in range(400)]
    assert 0.4 < sum(c.flip for c in changes) / 400 < 0.6
    assert 0.15 < sum(c.erase != STILL.erase for c in changes) / 400 < 0.35
    for c in changes:
        assert abs(c.shift[0]) <= 0.06
        assert 0.92 <= c.scale <= 1.08
        assert 0 <= c.noise <= MAX_NOISE
        left, top, right, bottom = c.erase
        assert 0 <= left <= right <= 1
        assert 0 <= top <= bottom <= 1
        assert all(0.5 < g < 1.5 for g in c.gain)
    assert max(c.scale for c in changes) > 1.07


def test_noise_is_as_strong_as_it_says() -> None:
    images = torch.full((1, 1, 1, 1, 3, 64, 64), 0.5)
    found = augment(images.clone(), [replace(STILL, noise=0.02, noise_seed=3)], texture=None)
    assert found.std().item() == pytest.approx(0.02, rel=0.05)


def test_noise_is_the_same_in_every_frame() -> None:
    """A micro-expression changes a pixel by less than the noise does: it must stay what differs between frames."""
    images = make_images(1).expand(-1, 3, -1, -1, -1, -1, -1).clone()
    images[:, 1] += 0.01
    found = augment(images.clone(), [replace(STILL, noise=0.03, noise_seed=5)], texture=None)
    assert (found - images).std().item() == pytest.approx(0.03, rel=0.1)
    torch.testing.assert_close(found - found[:, :1], images - images[:, :1], atol=1e-6, rtol=0)
    assert (found[0, 0, 0, 0] - found[0, 0, 0, 1]).std() > 0.03  # other noise in every view
