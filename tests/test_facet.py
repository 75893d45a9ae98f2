"""The whole model: at step 0 it is CLIP; what is masked or switched off is really so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from test_image_tower import TOWERS, save_clip

from train.model.batch import Batch
from train.model.facet import Facet, FacetConfig, subtract_reference
from train.model.image_tower import build_tower, load_tower


def images_of(batch: Batch) -> torch.Tensor:
    assert batch.images is not None
    return batch.images


SIZE = 32
PROMPTS = (
    ("an angry face", "anger"),
    ("a photo of a happy person", "someone who smiles"),
    ("surprise", "a surprised face"),
)


def make_batch(b: int = 4, t: int = 1, m: int = 2, v: int = 3, *, seed: int = 0, missing: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    present = torch.ones(b, t, m, dtype=torch.bool)
    if missing:
        present[1:3, :, 0] = False
    return Batch(
        images=torch.randn(b, t, m, v, 3, SIZE, SIZE, generator=generator),
        present=present,
        cameras=torch.randn(b, v, 2, generator=generator),
        complete=bool(present.all()),
    )


def make_model(tower: str = "vit", seed: int = 0, trained: bool = True, **options: Any) -> Facet:
    torch.manual_seed(seed)
    vision = {**TOWERS[tower], "image_size": SIZE}
    text = np.random.default_rng(seed).normal(size=(3, 24)).astype(np.float32) / 5
    config = FacetConfig(**{"tower_dim": 24, "num_modalities": 2, **options})
    model = Facet(build_tower({"embed_dim": 24, "vision_cfg": vision}), text, 10.0, config)
    if trained:  # nothing is zero any more
        for parameter in model.parameters():
            parameter.data = parameter.data + 0.05 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fusion": "mean"},
        {"head": "cosine"},
        {"class_vectors": "residual"},
        {"fusion": "concat", "num_views": 3},
        {"fusion": "concat", "num_views": 3, "head": "cosine"},
        {"losses": {"con": 0.1, "vt": 0.5, "margin": 0.1, "cross-correlation": 0.1}},
        {"num_frames": 4},
        {"patch_channels": 32},
        {"num_frames": 4, "patch_channels": 32},
    ],
)
def test_step_0_is_clip_zero_shot_over_averaged_views(tmp_path: Path, options: dict[str, Any]) -> None:
    """Against open_clip's own encode_image and encode_text and a few lines of NumPy."""
    clip = save_clip(tmp_path, TOWERS["vit"])
    encode: dict[str, Callable[..., torch.Tensor]] = {"image": clip.encode_image, "text": clip.encode_text}  # type: ignore[dict-item]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    tower, _ = load_tower(f"local-dir:{tmp_path}", "local", seed=0)
    batch = make_batch(t=options.get("num_frames", 1))
    with torch.no_grad():
        text = np.stack([encode["text"](tokenizer(list(prompts))).numpy() for prompts in PROMPTS])  # (C, K, d)
        images = encode["image"](images_of(batch).flatten(0, 3)).numpy()
    scale = float(clip.logit_scale.detach().exp())  # type: ignore[operator, union-attr]

    text /= np.linalg.norm(text, axis=2, keepdims=True)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    frames = images.reshape(*images_of(batch).shape[:2], -1, images.shape[1]).mean(2)
    frames /= np.linalg.norm(frames, axis=2, keepdims=True)
    face = frames.mean(1)
    face /= np.linalg.norm(face, axis=1, keepdims=True)
    wanted = scale * np.einsum("bd,ckd->bck", face, text).mean(2)

    model = Facet(tower, text.mean(1), scale, FacetConfig(tower_dim=24, num_modalities=2, **options)).eval()
    with torch.no_grad():
        output = model(batch)
    np.testing.assert_allclose(output.logits.numpy(), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.face.numpy(), face, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
@torch.no_grad()
def test_pixels_of_a_missing_modality_do_not_matter(tower: str) -> None:
    model = make_model(tower)
    batch = make_batch(missing=True)
    model.train(tower == "resnet")  # not even through batch statistics
    before = model(batch)
    images = images_of(batch).clone()
    images[1:3, :, 0] = 1e3
    after = model(Batch(images, batch.present, batch.cameras, complete=False))
    torch.testing.assert_close(after.logits, before.logits)
    torch.testing.assert_close(after.alpha, before.alpha)
    assert (before.alpha[1, :3] == 0).all()
    images[0] = 1e3  # the test would notice
    changed = model(Batch(images, batch.present, batch.cameras, complete=False))
    assert not torch.allclose(changed.logits[0], before.logits[0], atol=1e-3)


@torch.no_grad()
def test_gathering_present_images_equals_encoding_all() -> None:
    model, batch = make_model(), make_batch()
    torch.testing.assert_close(
        model(Batch(images_of(batch), batch.present, batch.cameras, complete=False)).logits, model(batch).logits
    )


@pytest.mark.parametrize("missing", [False, True])
@torch.no_grad()
def test_features_stand_for_the_images_they_were_made_of(missing: bool) -> None:
    """What stands in the place of a missing one does not matter either."""
    model, batch = make_model(num_frames=2), make_batch(t=2, missing=missing)
    features = model.tower(images_of(batch).flatten(0, 3)).unflatten(0, images_of(batch).shape[:4])
    features[~batch.present] = 1e3
    wanted, found = model(batch), model(replace(batch, images=None, features=features))
    for name in vars(wanted):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tower_dim", [16, 40])
@torch.no_grad()
def test_a_tower_of_other_dimensions_than_the_words(tower_dim: int) -> None:
    """It starts with a projection that turns: angles are kept as far as dimensions allow."""
    vision = {**TOWERS["vit"], "image_size": SIZE}
    tower = build_tower({"embed_dim": tower_dim, "vision_cfg": vision})
    model = Facet(tower, np.eye(3, 24, dtype=np.float32), 10.0, FacetConfig(tower_dim=tower_dim, num_modalities=2))
    weight = model.projection.weight
    assert weight.shape == (24, tower_dim)
    small = weight.T @ weight if tower_dim < 24 else weight @ weight.T
    torch.testing.assert_close(small, torch.eye(len(small)), atol=1e-5, rtol=0)
    assert model(make_batch()).logits.isfinite().all()


@torch.no_grad()
def test_order_and_number_of_views_are_free() -> None:
    model, batch = make_model(), make_batch()
    order = [2, 0, 1]
    turned = Batch(images_of(batch)[:, :, :, order], batch.present, batch.cameras[:, order], complete=True)
    torch.testing.assert_close(model(turned).logits, model(batch).logits, atol=1e-5, rtol=1e-4)
    one = Batch(images_of(batch)[:, :, :, :1], batch.present, batch.cameras[:, :1], complete=True)
    assert model(one).logits.shape == (4, 3)
    assert not torch.allclose(model(one).logits, model(batch).logits, atol=1e-4)


@torch.no_grad()
def test_samples_do_not_see_each_other() -> None:
    for frames in (1, 3):
        model, batch = make_model(num_frames=frames), make_batch(t=frames)
        alone = Batch(images_of(batch)[1:2], batch.present[1:2], batch.cameras[1:2], complete=True)
        torch.testing.assert_close(model(alone).logits[0], model(batch).logits[1], atol=1e-5, rtol=1e-4)


def test_what_is_switched_off_is_not_built() -> None:
    def count(**options: Any) -> int:
        return sum(p.numel() for p in make_model(**options).parameters())

    plain = count(fusion="mean", head="cosine", losses={})
    tower = sum(p.numel() for p in make_model().tower.parameters())
    assert plain == tower + 24 * 24 + 1  # W and the scale
    assert count(fusion="mean", head="cosine") == plain + 24 * 24 + 24  # h
    assert count(head="cosine", losses={}) > plain
    assert count(fusion="mean", losses={}) > plain
    assert count(num_frames=4) > count()
    fresh, tokens = make_model(trained=False), torch.randn(5, 24)
    assert fresh.view_to_face is not None
    assert torch.equal(fresh.view_to_face(tokens), tokens)  # h starts as what it is given


def test_frozen_tower_gets_no_gradient_and_keeps_its_statistics() -> None:
    model = make_model("resnet", freeze_tower=True).train()
    before = {key: value.clone() for key, value in model.tower.state_dict().items()}
    model(make_batch()).logits.sum().backward()
    assert all(p.grad is None for p in model.tower.parameters())
    assert model.projection.weight.grad is not None
    assert all(torch.equal(value, before[key]) for key, value in model.tower.state_dict().items())
    model = make_model("resnet").train()  # one that is not frozen does not
    model(make_batch())
    assert not all(torch.equal(value, before[key]) for key, value in model.tower.state_dict().items())


@pytest.mark.parametrize("patch_channels", [0, 32])
def test_every_parameter_learns(patch_channels: int) -> None:
    """One step from the start, then all of the model is reached by gradients: nothing was built in vain."""
    model = make_model(trained=False, num_frames=2, losses={}, patch_channels=patch_channels).train()
    batch = make_batch(t=2)
    for _ in range(2):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(batch).logits, torch.tensor([0, 1, 2, 0])).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.1 * parameter.grad)
    unmoved = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert unmoved == []


def test_scale_stays_at_100_or_below() -> None:
    model = make_model()
    model.log_scale.data.fill_(9.0)
    model.clamp_scale()
    assert model.scale.item() == pytest.approx(100, rel=1e-5)
    assert make_model(trained=False).scale.item() == pytest.approx(10)
    assert math.isfinite(model.scale.item())


def with_reference(batch: Batch, has: list[bool]) -> Batch:
    return replace(batch, has_reference=torch.tensor(has))


def test_a_reference_is_taken_away_from_the_others() -> None:
    """Against the same faces seen without reference, in NumPy: what z and each view's token changed by, shortened softly."""
    model = make_model(num_frames=3)
    batch = make_batch(t=4)
    plain = make_model(num_frames=4)
    plain.load_state_dict(model.state_dict())
    alone = plain(batch)
    output = model(with_reference(batch, [True, False, True, True]))
    views, frames = (x.detach().numpy().reshape(4, 4, *x.shape[1:]) for x in (alone.views, alone.frames))
    assert output.views.shape == (12, 6, 24)  # the reference itself is no sample of the losses
    np.testing.assert_allclose(output.views.detach().numpy().reshape(4, 3, 6, 24), views[:, 1:], atol=1e-5)
    np.testing.assert_allclose(output.frames.detach().numpy().reshape(4, 3, 24), frames[:, 1:], atol=1e-5)
    difference = views[:, 1:] - views[:, :1]
    wanted = difference / np.sqrt((difference**2).sum(-1, keepdims=True) + 0.01)
    wanted[1] = views[1, 1:]
    np.testing.assert_allclose(output.changes.detach().numpy().reshape(4, 3, 6, 24), wanted, atol=1e-5)


def test_what_is_taken_away_from_views_tokens_and_faces() -> None:
    """Against loops in NumPy; sample 1 has no reference, sample 2's reference lacks a view."""
    generator = torch.Generator().manual_seed(0)
    views, tokens = (torch.randn(3 * 4, 5, 8, generator=generator) for _ in range(2))
    frames = torch.randn(3 * 4, 8, generator=generator)
    mask = torch.ones(12, 5, dtype=torch.bool)
    mask[2 * 4, 3] = False
    found = subtract_reference(views, mask, tokens, frames, torch.tensor([True, False, True]))
    wanted: tuple[list[np.ndarray], ...] = ([], [], [])
    e, x, z = (array.numpy() for array in (views, tokens, frames))
    for b, t in ((b, t) for b in range(3) for t in range(1, 4)):
        rest, now = 4 * b, 4 * b + t
        if b == 1:
            for side, value in zip(wanted, (e, x, z), strict=True):
                side.append(value[now])
            continue
        each = np.stack([e[now, n] - (e[rest, n] if mask[rest, n] else z[rest]) for n in range(5)])
        wanted[0].append(each / np.sqrt((each**2).sum(1, keepdims=True) + 0.01))
        wanted[1].append(x[now] - z[rest])
        face = z[now] - z[rest]
        wanted[2].append(face / np.sqrt((face**2).sum() + 0.01))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.numpy(), np.stack(other), atol=1e-5)


def fit_direction(num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Trains on four sequences (class 0) and the same ones in reverse (class 1), which differ in nothing but the order.

    Args:
        num_frames: of the model; 1: it has no attention over time.
    Returns:
        Logits (8, 3) before and after 30 steps.
    """
    forward = torch.randn(4, 3, 1, 2, 24, generator=torch.Generator().manual_seed(0))
    batch = Batch(
        images=None,
        present=torch.ones(8, 3, 1, dtype=torch.bool),
        cameras=torch.zeros(8, 2, 2),
        complete=True,
        features=torch.cat([forward, forward.flip(1)]),
    )
    labels = torch.tensor([0, 1]).repeat_interleave(4)
    model = make_model(trained=False, num_modalities=1, num_frames=num_frames, losses={})
    before = model(batch).logits.detach()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(batch).logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return before, model(batch).logits.detach()


def test_a_sequence_and_its_reverse_are_told_apart() -> None:
    before, after = fit_direction(num_frames=3)
    torch.testing.assert_close(before[:4], before[4:], atol=1e-5, rtol=1e-5)  # untrained: the mean over frames
    assert after.argmax(1).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (after[:4] - after[4:]).abs().max() > 3
    _, without = fit_direction(num_frames=1)  # no attention over time, no order
    torch.testing.assert_close(without[:4], without[4:], atol=1e-5, rtol=1e-5)


def test_where_nobody_has_a_reference_it_plays_no_part() -> None:
    model, batch = make_model(num_frames=2), make_batch(t=3)
    other = replace(batch, images=images_of(batch).clone())
    images_of(other)[:, 0] = 9.0
    has_not = [False] * 4
    logits = model(with_reference(batch, has_not)).logits
    torch.testing.assert_close(model(with_reference(other, has_not)).logits, logits)
    rest = replace(batch, images=images_of(batch)[:, 1:], present=batch.present[:, 1:])
    torch.testing.assert_close(logits, model(rest).logits)
    assert not torch.allclose(model(with_reference(other, [True] * 4)).logits, logits, atol=1e-3)


def test_a_face_compared_with_itself_breaks_nothing() -> None:
    model, batch = make_model(), make_batch(t=2)
    batch = replace(batch, images=images_of(batch)[:, :1].expand(-1, 2, -1, -1, -1, -1, -1).contiguous())
    output = model(with_reference(batch, [True] * 4))
    assert output.changes.abs().max() < 1e-4
    output.logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_missing_views_of_the_reference_are_replaced_by_its_face() -> None:
    model, batch = make_model(), make_batch(t=2)
    batch.present[0, 0, 0] = False
    batch = with_reference(replace(batch, complete=False), [True] * 4)
    output = model(batch)
    assert output.logits.isfinite().all()
    images_of(batch)[0, 0, 0] = 5.0  # not there: what the image holds is not looked at
    torch.testing.assert_close(model(batch).logits, output.logits)


def test_the_class_bias_shifts_scores_alone() -> None:
    model, batch = make_model(multilabel=True), make_batch()
    assert model.class_bias is not None
    before = model(batch).logits
    with torch.no_grad():
        model.class_bias.add_(torch.tensor([1.0, -2.0, 0.5]))
    torch.testing.assert_close(model(batch).logits - before, torch.tensor([[1.0, -2.0, 0.5]]).expand(4, -1))
    assert make_model().class_bias is None
