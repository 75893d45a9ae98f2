"""Texts of views: at step 0 each view is compared with its own; equal texts change nothing; mirrored images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from recipes import make_recipe
from test_facet import images_of, make_batch, make_model

from shared.schema import View
from train.losses.terms import compute_losses
from train.model.batch import Batch
from train.model.facet import Facet, FacetConfig
from train.model.initial import copy_weights
from train.tasks.criterion import CrossEntropy

VIEWS = (View(0), View(20), View(-20))
KINDS: list[dict[str, Any]] = [
    {"fusion": "mean", "head": "cosine"},
    {},
    {"class_vectors": "residual", "patch_channels": 32},
    {"num_frames": 3},
    {"fusion": "late", "num_frames": 3},
    {"fusion": "late", "head": "cosine"},
]


def random_texts(num_views: int = 3) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(num_views, 3, 24)).astype(np.float32) / 5


def build(texts: np.ndarray, **options: Any) -> Facet:
    """The model of `make_model`, at step 0."""
    tower = make_model(trained=False).tower
    config = FacetConfig(tower_dim=24, num_modalities=2, num_views=3, **options)
    return Facet(tower, texts, 10.0, config).eval()


def make_views(**options: Any) -> Batch:
    """Random images; the views are in another order in the second half of the samples, as in training."""
    batch = make_batch(**options)
    cameras = torch.tensor([[view.yaw_deg, view.pitch_deg] for view in VIEWS]).deg2rad().repeat(4, 1, 1)
    cameras[2:] = cameras[2:, [2, 0, 1]]
    return replace(batch, cameras=cameras)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("options", KINDS)
@torch.no_grad()
def test_each_view_is_compared_with_its_own_text(options: dict[str, Any], missing: bool) -> None:
    """At step 0: s · the mean over images of e · t of its view, divided by the length of the images' mean."""
    frames = options.get("num_frames", 1)
    texts, batch = random_texts(), make_views(t=frames, missing=missing)
    model = build(texts, text_views=VIEWS, **options)
    e = model.tower(images_of(batch).flatten(0, 3)).unflatten(0, (4, frames, 2, 3)).numpy().astype(np.float64)
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    shown = np.array([[0, 1, 2], [0, 1, 2], [2, 0, 1], [2, 0, 1]])
    for b in range(4):
        there = [(t, m, v) for t in range(frames) for m in np.flatnonzero(batch.present[b, 0]) for v in range(3)]
        groups = [there]
        if options.get("fusion") == "late":  # each image direction alone, then the mean of probabilities
            groups = [[one for one in there if one[1:] == own] for own in {one[1:] for one in there}]
        wanted = []
        for group in groups:
            own = texts.mean(0)
            exact = [e[b][one] @ (texts[shown[b, one[2]]] - own).T for one in group]
            frame_means = [np.mean([e[b][one] for one in group if one[0] == t], axis=0) for t in range(frames)]
            face = np.mean([one / np.linalg.norm(one) for one in frame_means], axis=0)
            length = np.linalg.norm(np.mean([e[b][one] for one in group], axis=0))
            scores = 10 * (own @ face / np.linalg.norm(face) + np.mean(exact, axis=0) / length)
            wanted.append(np.exp(scores) / np.exp(scores).sum())
            if frames == 1:  # in full: nothing but each image's cosine with its own view's text
                alone = 10 * np.mean([e[b][one] @ texts[shown[b, one[2]]].T for one in group], axis=0) / length
                np.testing.assert_allclose(scores, alone, rtol=1e-6)
        np.testing.assert_allclose(model(batch).logits[b].softmax(-1).numpy(), np.mean(wanted, axis=0), rtol=1e-3)


@pytest.mark.parametrize("options", KINDS)
def test_equal_texts_change_nothing(options: dict[str, Any]) -> None:
    """Neither scores nor terms of the loss nor gradients: against the model without views' texts."""
    text = random_texts(1)
    plain = build(text[0], **options)
    equal = build(np.repeat(text, 3, axis=0), text_views=VIEWS, **options)
    equal.load_state_dict(plain.state_dict(), strict=False)
    batch, labels = make_views(t=options.get("num_frames", 1), missing=True), torch.tensor([0, 1, 2, 0])
    losses = [compute_losses(model, model(batch), labels, CrossEntropy()) for model in (plain, equal)]
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value)
        assert name != "vt" or value > 0
    for loss in losses:
        loss["loss"].backward()
    for (name, one), two in zip(plain.named_parameters(), equal.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None), name
        torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize("options", KINDS)
@torch.no_grad()
def test_a_mirrored_image_shows_the_other_side(options: dict[str, Any]) -> None:
    """Mirrored images with negated yaw, as training makes them, are those of the mirrored face in the other order; with left
    and right exchanged in the texts, too, the scores are others."""
    texts = random_texts()
    model = build(texts, text_views=VIEWS, **options)
    batch = replace(make_views(t=options.get("num_frames", 1)), cameras=make_views().cameras[:1].repeat(4, 1, 1))
    mirrored = replace(batch, images=images_of(batch).flip(-1), cameras=batch.cameras * torch.tensor([-1.0, 1.0]))
    other_face = replace(batch, images=images_of(batch).flip(-1)[:, :, :, [0, 2, 1]])
    torch.testing.assert_close(model(mirrored).logits, model(other_face).logits, atol=1e-4, rtol=1e-4)
    exchanged = build(texts[[0, 2, 1]], text_views=VIEWS, **options)
    assert not torch.allclose(exchanged(mirrored).logits, model(mirrored).logits, atol=1e-3)
    unmirrored = replace(mirrored, cameras=batch.cameras)
    torch.testing.assert_close(exchanged(unmirrored).logits, model(mirrored).logits, atol=1e-4, rtol=1e-4)


def test_the_loss_of_single_views_uses_their_own_texts() -> None:
    texts, batch, labels = random_texts(), make_views(missing=True), torch.tensor([0, 1, 2, 0])
    model = build(texts, text_views=VIEWS)
    output = model(batch)
    shown = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2 + [[2, 0, 1, 2, 0, 1]] * 2)
    logits = 10 * torch.einsum("bnd,bncd->bnc", output.views, torch.from_numpy(texts)[shown])
    picked = -logits.log_softmax(-1)[torch.arange(4), :, labels]
    wanted = picked[output.mask].mean()
    torch.testing.assert_close(compute_losses(model, output, labels, CrossEntropy())["vt"], wanted)


def test_learned_vectors_use_no_text_and_texts_are_no_weights_to_copy() -> None:
    for options in ({"class_vectors": "learned"}, {"head": "linear"}):
        assert build(random_texts(), text_views=VIEWS, **options).view_text is None
    plain, by_view = build(random_texts()[0]), build(random_texts(), text_views=VIEWS)
    recipe = make_recipe(
        classes=("anger", "fear", "sadness"), modalities=("texture", "normal"), views=("0", "20", "-20")
    )
    before = by_view.view_text.differences.clone() if by_view.view_text else None
    for model, source in ((plain, by_view), (by_view, plain)):
        lines = copy_weights(model, recipe, source, recipe)
        assert len(lines) == 1 and "weights are copied" in lines[0]
    assert by_view.view_text and before is not None and torch.equal(by_view.view_text.differences, before)
