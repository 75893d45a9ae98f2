"""Augmentation: known changes by hand, the same for all views, a function of (seed, epoch, sample) alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.data.augment import (
    MAX_NOISE,
    AugmentParameters,
    add_noise,
    augment,
    draw_parameters,
    draw_views,
    jitter_colour,
    shift_and_scale,
)

STILL = {"flip": (0,), "scale": (1,), "shift": (0, 0), "gain": (1, 1, 1), "gamma": (1,), "noise": (0,), "noise_offset": (0,),
         "erase": (0, 0, 0, 0)}  # fmt: skip


def make_changes(*samples: Mapping[str, tuple[float, ...]]) -> AugmentParameters:
    """What is not given stays as it is."""
    return AugmentParameters(
        torch.tensor([[float(x) for v in {**STILL, **sample}.values() for x in v] for sample in samples])
    )


def make_images(b: int = 2, size: int = 20) -> torch.Tensor:
    return torch.rand(b, 1, 2, 3, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_no_change_changes_nothing() -> None:
    images = make_images()
    torch.testing.assert_close(augment(images.clone(), make_changes({}, {}), colour=[0]), images)


def test_shift_moves_right_and_down_by_whole_pixels() -> None:
    images = make_images(1)
    moved = shift_and_scale(images, make_changes({"shift": (3 / 20, 1 / 20)}))
    torch.testing.assert_close(moved[..., 1:, 3:], images[..., :-1, :-3], atol=1e-5, rtol=0)
    assert moved[..., :3].abs().max() < 1e-5  # nothing comes in from outside
    assert moved[..., :1, :].abs().max() < 1e-5


def test_scale_enlarges_about_the_centre() -> None:
    place = (torch.arange(20) + 0.5) / 20 * 2 - 1
    image = (place[:, None] ** 2 + place[None] ** 2 < 0.25).float().expand(1, 1, 1, 1, 3, 20, 20)
    bigger = shift_and_scale(image, make_changes({"scale": (1.5,)}))
    assert bigger.sum() / image.sum() == pytest.approx(1.5**2, rel=0.05)
    torch.testing.assert_close(bigger, bigger.flip(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("scale", "right", "down"), [(1.3, 0.0, 0.0), (1.0, 0.06, -0.04), (1.3, 0.06, -0.04), (0.8, -0.05, 0.1)]
)
def test_what_augments_enlarges_first_and_moves_then(scale: float, right: float, down: float) -> None:
    """A spot at p from the centre comes to scale · p + shift, and is as much larger; in every image of the sample alike."""
    size, x, y = 64, 9.5, -6.5
    place = torch.arange(size) + 0.5 - size / 2
    spot = torch.exp(-((place - x) ** 2 + (place[:, None] - y) ** 2) / 18)
    changes = make_changes({"scale": (scale,), "shift": (right, down)}, {})
    found = augment(spot.expand(2, 2, 2, 3, 3, size, size).clone(), changes, colour=[0])
    torch.testing.assert_close(found[1], spot.expand_as(found[1]))
    for image in found[0].flatten(0, 3):
        total = image.sum()
        assert (image.sum(0) @ place / total).item() == pytest.approx(scale * x + right * size, abs=0.05)
        assert (image.sum(1) @ place / total).item() == pytest.approx(scale * y + down * size, abs=0.05)
        assert (total / spot.sum()).item() == pytest.approx(scale**2, rel=0.01)


def test_colour_changes_texture_alone_and_keeps_the_background() -> None:
    images = make_images(1)
    images[..., :5, :] = 0
    change = make_changes({"gain": (0.5, 1, 2), "gamma": (2,)})
    found = augment(images.clone(), change, colour=[1])
    torch.testing.assert_close(found[:, :, 0], images[:, :, 0])
    wanted = (images[:, :, 1] ** 2 * torch.tensor([0.5, 1, 2]).view(3, 1, 1)).clamp(0, 1)
    torch.testing.assert_close(found[:, :, 1], wanted)
    assert jitter_colour(images[:, :, 1].clone(), change)[..., :5, :].abs().max() == 0


def test_erasing_hits_the_same_place_in_every_view_and_modality() -> None:
    images = make_images(2) + 0.1
    found = augment(images.clone(), make_changes({"erase": (0.25, 0.5, 0.5, 0.6)}, {}))
    erased = found == 0
    assert erased[0, ..., 10:12, 5:10].all()
    assert erased.sum() == 2 * 3 * 3 * 2 * 5
    assert not erased[1].any()


def test_a_sample_is_changed_the_same_in_any_company() -> None:
    images = make_images(3)
    changes = draw_parameters(7, 2, (4, 9, 1))
    together = augment(images.clone(), changes, colour=[0])
    alone = augment(images[1:2].clone(), draw_parameters(7, 2, (9,)), colour=[0])
    torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=0)
    assert torch.equal(draw_parameters(7, 2, (9,)).table, changes.table[1:2])
    assert torch.equal(augment(images.clone(), changes, colour=[0]), together)  # bit for bit
    assert not torch.equal(together, images)


@given(st.lists(st.tuples(*[st.integers(0, 2**32 - 1)] * 3), min_size=2, max_size=8, unique=True))
def test_every_seed_epoch_and_sample_changes_otherwise(places: list[tuple[int, int, int]]) -> None:
    tables = [draw_parameters(seed, epoch, (sample,)).table for seed, epoch, sample in places]
    assert len({tuple(table[0].tolist()) for table in tables}) == len(places)


def test_a_sample_that_is_drawn_again_is_changed_otherwise() -> None:
    """Whatever company it is in; the first time as if it were drawn once."""
    changes = draw_parameters(7, 2, (4, 9, 4, 4), (0, 0, 1, 2)).table
    assert torch.equal(changes[:2], draw_parameters(7, 2, (4, 9)).table)
    assert torch.equal(changes[3:], draw_parameters(7, 2, (4,), (2,)).table)
    flips = draw_parameters(0, 0, [5] * 2000, range(2000)).flip.float()
    assert 0.45 < flips.mean() < 0.55
    assert torch.corrcoef(torch.stack([flips[:-1], flips[1:]]))[0, 1].abs() < 0.1


def test_draws_stay_in_their_ranges_and_use_them() -> None:
    changes = draw_parameters(0, 0, range(4000))
    assert 0.47 < changes.flip.float().mean() < 0.53
    erases = changes.erase.any(1)
    assert 0.22 < erases.float().mean() < 0.28
    assert changes.shift.abs().amax(0).tolist() == pytest.approx([0.06, 0.06], rel=0.01)
    assert (changes.scale.min().item(), changes.scale.max().item()) == pytest.approx((0.92, 1.08), abs=1e-3)
    assert (changes.gamma.log().min().item(), changes.gamma.log().max().item()) == pytest.approx(
        (-0.25, 0.25), abs=1e-3
    )
    assert 0 <= changes.noise.min() < changes.noise.max() <= MAX_NOISE
    assert changes.noise.mean().item() == pytest.approx(MAX_NOISE / 2, rel=0.05)
    left, top, right, bottom = changes.erase[erases].unbind(1)
    for near, far in ((left, right), (top, bottom)):
        assert near.min() >= 0
        assert far.max() <= 1
        assert (far - near).min() + 1e-6 >= 0.1
        assert (far - near).max() <= 0.3 + 1e-6
    assert 0.63 <= changes.gain.min() < 0.75 < 1.3 < changes.gain.max() <= 1.43
    assert 0 <= changes.noise_offset.min() < 0.01 < 0.99 < changes.noise_offset.max() < 1


def test_draws_are_independent_of_each_other() -> None:
    """Columns, neighbouring samples and neighbouring epochs: no correlation beyond what 4000 draws show by chance."""
    first, second = (draw_parameters(3, epoch, range(4000)).table for epoch in (0, 1))
    chosen = [0, 1, 2, 3, 7, 8, 9]  # flip, scale, shift, gamma, noise and its place; gains share their brightness
    together = torch.cat([first[:-1, chosen], first[1:, chosen], second[:-1, chosen]], dim=1)
    correlation = torch.corrcoef(together.T) - torch.eye(together.shape[1])
    assert correlation.abs().max() < 0.07  # 4.4 standard deviations
    with_gain = torch.corrcoef(first[:, [*chosen, 4, 5, 6]].T)[: len(chosen), len(chosen) :]
    assert with_gain.abs().max() < 0.07
    left, top, right, bottom = draw_parameters(3, 0, range(16_000)).erase.double().unbind(1)
    width, height = right - left, bottom - top
    parts = torch.stack([width, height, left / (1 - width), top / (1 - height)])[:, right > 0]
    assert (torch.corrcoef(parts) - torch.eye(4)).abs().max() < 0.07


def test_noise_is_as_strong_as_it_says() -> None:
    images = torch.full((1, 1, 1, 1, 3, 64, 64), 0.5)
    found = augment(images.clone(), make_changes({"noise": (0.02,), "noise_offset": (0.3,)}))
    assert found.std().item() == pytest.approx(0.02, rel=0.05)


def test_noise_is_the_same_in_every_frame() -> None:
    """A micro-expression changes a pixel by less than the noise does: it must stay what differs between frames."""
    images = make_images(1).expand(-1, 3, -1, -1, -1, -1, -1).clone()
    images[:, 1] += 0.01
    found = augment(images.clone(), make_changes({"noise": (0.03,), "noise_offset": (0.5,)}))
    assert (found - images).std().item() == pytest.approx(0.03, rel=0.1)
    torch.testing.assert_close(found - found[:, :1], images - images[:, :1], atol=1e-6, rtol=0)
    assert (found[0, 0, 0, 0] - found[0, 0, 0, 1]).std() > 0.03  # other noise in every view


def test_noise_of_one_sample_says_nothing_of_another() -> None:
    """Neither do its own views and modalities of each other; the table ends after the last place there is."""
    places = (0.0, 0.37, 0.61, 1 - 2**-24)
    changes = make_changes(*({"noise": (1.0,), "noise_offset": (place,)} for place in places))
    noise = add_noise(torch.zeros(4, 1, 2, 3, 3, 40, 40), changes)
    correlation = torch.corrcoef(noise.flatten(4).flatten(0, 3)) - torch.eye(24)
    assert correlation.abs().max() < 0.07  # of 4800 numbers each
    assert noise.mean().abs() < 0.02
    assert noise.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("num_views", "num"), [(3, 1), (3, 2), (5, 2), (40, 7)])
def test_views_are_drawn_for_each_sample_alone_and_come_round(num_views: int, num: int) -> None:
    samples, repeats = list(range(50)), [0] * 50
    period = num_views // num
    drawn = [draw_views(4, epoch, samples, repeats, num_views, num) for epoch in range(2 * period)]
    for views in drawn:
        assert views.shape == (50, num) and views.min() >= 0 and views.max() < num_views
        assert all(len(set(row)) == num for row in views.tolist())  # none twice
    together = np.concatenate(drawn[:period], axis=1).tolist()  # and in a round of epochs none twice, either
    assert all(len(set(row)) == period * num for row in together)
    assert (drawn[0] != drawn[period]).any() and len({tuple(row) for row in drawn[0].tolist()}) > 1
    some = [31, 7, 12]
    assert (draw_views(4, 1, some, [0] * 3, num_views, num) == drawn[1][some]).all()
    shown = [draw_views(4, epoch, samples, repeats, num_views, num) for epoch in range(60)]
    counts = np.bincount(np.concatenate(shown).ravel())
    assert counts.min() > 0.7 * counts.mean()  # no view is preferred
