"""What the model is given: the stored pixels, normalised, beside the cameras that took them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from conftest import VIEWS, MakeCache
from test_augment import make_changes

from shared.cache import Cache, open_cache
from train.config import TowerConfig
from train.data.batch_transform import BatchTransform
from train.data.items import find_items
from train.data.stream import RawBatch, stream_batches
from train.model.batch import Batch

MODALITIES = ("texture", "normal", "depth")
TOWER = TowerConfig("x", "none", {}, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "", True)
TRANSFORM = BatchTransform(MODALITIES, VIEWS, TOWER, torch.device("cpu"))


def images_of(batch: Batch) -> torch.Tensor:
    assert batch.images is not None
    return batch.images


def read_batch(cache: Cache) -> RawBatch:
    modalities = cache.info.settings.modalities
    return next(stream_batches(cache, [find_items(cache, modalities)[:3]], modalities, 1))


def test_pixels_and_cameras(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(modalities=MODALITIES, without_texture=(1,)))
    raw = read_batch(cache)
    batch = TRANSFORM.prepare(raw)
    assert images_of(batch).shape == (3, 1, 3, 3, 3, 32, 32)
    assert images_of(batch).dtype == torch.float32
    assert batch.present[:, 0].tolist() == [[True] * 3, [False, True, True], [True] * 3]
    assert not batch.complete
    np.testing.assert_allclose(np.degrees(batch.cameras[2].numpy()), [[0, 0], [20, 0], [-20, 0]], atol=1e-5)
    stored = cache.arrays.read("normal", [2])[0]  # (V, H, W, 3)
    wanted = (stored[1, :, :, 2] / 255 - 0.3) / 0.4
    np.testing.assert_allclose(images_of(batch)[2, 0, 1, 1, 2].numpy(), wanted, atol=1e-5)


def test_another_tower_size_resizes(tiny_cache: MakeCache) -> None:
    raw = read_batch(open_cache(tiny_cache(modalities=MODALITIES)))
    small = replace(TRANSFORM, tower=replace(TOWER, image_size=16)).prepare(raw)
    assert images_of(small).shape == (3, 1, 3, 3, 3, 16, 16)
    same = TRANSFORM.prepare(raw)
    torch.testing.assert_close(images_of(small).mean((-1, -2)), images_of(same).mean((-1, -2)), atol=0.02, rtol=0)


def test_the_background_fills_what_is_empty_shifted_in_and_erased(tiny_cache: MakeCache) -> None:
    cache = open_cache(tiny_cache(modalities=MODALITIES))
    raw = read_batch(cache)
    grey = replace(TRANSFORM, tower=TOWER.with_background("mean"))
    empty = torch.from_numpy(~cache.arrays.read("texture", range(3)).any(-1))[:, None, :, None].expand(
        3, 1, 3, 3, 32, 32
    )
    plain, filled = images_of(TRANSFORM.prepare(raw)), images_of(grey.prepare(raw))
    assert empty.any() and filled[:, :, 0][empty].abs().max() < 1e-6  # the mean is 0 after normalisation
    assert torch.equal(filled[:, :, 0][~empty], plain[:, :, 0][~empty])
    assert torch.equal(filled[:, :, 1:], plain[:, :, 1:])
    changes = make_changes({"shift": (0.25, 0)}, {"erase": (0.25, 0.25, 0.75, 0.75)}, {"gain": (0.5, 1, 1)})
    plain, filled = images_of(TRANSFORM.prepare(raw, changes)), images_of(grey.prepare(raw, changes))
    assert torch.equal(filled[:, :, 1:], plain[:, :, 1:])
    assert filled[0, :, 0, ..., :8].abs().max() < 1e-5 and filled[1, :, 0, ..., 8:24, 8:24].abs().max() < 1e-5
    torch.testing.assert_close(filled[2, :, 0][~empty[2]], plain[2, :, 0][~empty[2]])
    halved = torch.tensor([-0.25 / 0.2, 0, 0]).view(3, 1, 1).expand(1, 3, 3, 32, 32)  # with the colours of the face
    torch.testing.assert_close(filled[2, :, 0][empty[2]], halved[empty[2]])


def test_a_flip_is_the_mirrored_face_from_mirrored_cameras(tiny_cache: MakeCache) -> None:
    """The patterns of the cache are symmetric but for the spot that moves with the yaw, so that the mirrored view +20 looks
    as view −20 does; the camera says −20."""
    raw = read_batch(open_cache(tiny_cache(modalities=("normal", "depth"))))
    transform = replace(TRANSFORM, modalities=("normal", "depth"))
    plain = transform.prepare(raw)
    flipped = transform.prepare(raw, make_changes({"flip": (1,)}, {}, {}))
    order = [0, 2, 1]
    np.testing.assert_allclose(flipped.cameras[0].numpy(), plain.cameras[0, order].numpy(), atol=1e-7)
    assert torch.equal(flipped.cameras[1], plain.cameras[1])
    # one step of the 8-bit encoding, over the standard deviation: where a half was rounded to the other side
    torch.testing.assert_close(images_of(flipped)[0], images_of(plain)[0][:, :, order], atol=1.01 / 255 / 0.2, rtol=0)
    torch.testing.assert_close(images_of(flipped)[1], images_of(plain)[1], atol=1e-5, rtol=0)
    assert not torch.allclose(images_of(flipped)[0], images_of(plain)[0], atol=0.1)


def test_chosen_views_are_those_of_the_whole_batch(tiny_cache: MakeCache) -> None:
    raw = read_batch(open_cache(tiny_cache(modalities=MODALITIES)))
    changes = make_changes({"flip": (1,)}, {}, {})
    whole, views = TRANSFORM.prepare(raw, changes), np.array([[2, 0], [1, 2], [0, 1]])
    some = TRANSFORM.prepare(raw, changes, views)
    for sample, chosen in enumerate(views):
        torch.testing.assert_close(images_of(some)[sample], images_of(whole)[sample][:, :, chosen])
        torch.testing.assert_close(some.cameras[sample], whole.cameras[sample][chosen])
