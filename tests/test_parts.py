"""Every fusion, head and loss term that can be named: what it computes, and that it needs nothing it does not say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_cvsa import random_module, random_tokens
from test_facet import images_of, make_batch, make_model
from torch.nn import functional as F

from shared.errors import FacetError
from train.losses.cross_correlation import MIN_VARIANCE, OFF_DIAGONAL, cross_correlation_loss
from train.losses.margin import margin_loss
from train.losses.terms import LossTerm
from train.model.batch import Batch
from train.model.facet import Facet
from train.model.fusion import Fusion, Sizes, average_scores
from train.model.head import Head
from train.model.view_towers import ViewTowers
from train.options import Options
from train.parts import FUSIONS, HEADS, LOSSES, find_part, list_extra_losses
from train.resolve import check_options
from train.tasks.criterion import BinaryCrossEntropy, CrossEntropy
from train.training.step import accumulate_gradients

SIZES = Sizes(dim=64, num_classes=3, num_modalities=3, num_views=2)
LABELS = torch.tensor([0, 2, 1, 2])
TARGETS = torch.tensor([[1, 0, -1], [0, 0, 1], [1, 1, 0], [0, -1, 1]], dtype=torch.int8)


def build_fusion(name: str) -> Fusion:
    fusion = random_module(FUSIONS[name].load().build(SIZES))
    assert isinstance(fusion, Fusion)
    return fusion


def one_view(batch: Batch, view: int) -> Batch:
    return replace(batch, images=images_of(batch)[:, :, :, view : view + 1], cameras=batch.cameras[:, view : view + 1])


# --- names ---


def test_every_name_is_a_part() -> None:
    for table, kind in ((FUSIONS, Fusion), (HEADS, Head), (LOSSES, LossTerm)):
        for name in table:
            assert isinstance(find_part(table, name).load().build(SIZES), kind)
        with pytest.raises(FacetError, match="'softmax' is not among"):
            find_part(table, "softmax")


def test_names_are_told_without_torch() -> None:
    subprocess.run([sys.executable, "-c", "import train.parts, sys; assert 'torch' not in sys.modules"], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "median"}, "--fusion: expected cvsa or mean or max"),
        ({"head": "svm"}, "--head: expected mtgf or cosine or linear"),
        ({"extra_losses": ("triplet=1",)}, "expected NAME=WEIGHT, once each of margin, cross-correlation"),
        ({"extra_losses": ("margin",)}, "expected a weight above 0"),
        ({"extra_losses": ("margin=nan",)}, "expected a weight above 0"),
        ({"extra_losses": ("margin=0",)}, "expected a weight above 0"),
        ({"extra_losses": ("margin=1", "margin=2")}, "once each"),
        ({"extra_losses": ("con=1",)}, "use --lambda-con"),
        ({"head": "linear", "class_vectors": "learned"}, "--head linear has vectors of its own"),
        ({"head": "linear", "class_vectors": "residual"}, "--head linear has vectors of its own"),
        ({"fusion": "late", "mtgf_tokens": "patches"}, "--fusion late scores each view alone"),
        ({"towers": "view", "mtgf_tokens": "patches"}, "needs one tower"),
        ({"towers": "view", "tune": "last-2"}, "expected --tune full"),
        ({"task": "aus", "frames": 3}, "with --task aus every frame is a sample"),
        ({"task": "au-intensity", "frame_sampling": "apex"}, "with --task au-intensity every frame is a sample"),
        ({"frame_window": 5}, "--frame-window: is around the apex"),
    ],
)
def test_what_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FacetError, match=message):
        check_options(Options(**options))


# --- fusions ---


@pytest.mark.parametrize("name", ["cvsa", "mean", "max", "late"])
def test_order_of_views_does_not_matter(name: str) -> None:
    fusion, order = build_fusion(name), [3, 0, 5, 1, 4, 2]
    e, mask, cameras, kinds = random_tokens(4, 6, 0)
    _, z, alpha = fusion(e, mask, cameras, kinds)
    _, z_2, alpha_2 = fusion(e[:, order], mask[:, order], cameras[:, order], kinds[order])
    torch.testing.assert_close(z_2, z, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alpha_2, alpha[:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FUSIONS)
def test_missing_views_are_ignored_and_weights_add_up(name: str) -> None:
    fusion = build_fusion(name)
    e, mask, cameras, kinds = random_tokens(5, 6, 1)
    other = torch.where(mask[..., None], e, 7.0)
    _, z, alpha = fusion(e, mask, cameras, kinds)
    _, z_2, alpha_2 = fusion(other, mask, cameras, kinds)
    assert torch.equal(z, z_2) and torch.equal(alpha, alpha_2)
    assert (alpha[~mask] == 0).all()
    torch.testing.assert_close(alpha.sum(1), torch.ones(5))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(5))


def test_max_is_the_largest_of_the_views_that_are_there() -> None:
    e, mask, cameras, kinds = random_tokens(5, 6, 2)
    _, z, alpha = build_fusion("max")(e, mask, cameras, kinds)
    for row in range(5):
        seen = e[row, mask[row]]
        torch.testing.assert_close(z[row], F.normalize(torch.amax(seen, dim=0), dim=0))
        wins = torch.bincount(seen.argmax(0), minlength=len(seen)) / e.shape[2]
        torch.testing.assert_close(alpha[row, mask[row]], wins)


def test_concat_is_a_linear_layer_on_all_views_and_starts_as_their_mean() -> None:
    e, mask, cameras, kinds = random_tokens(5, 6, 3)
    fusion = FUSIONS["concat"].load().build(SIZES)
    torch.testing.assert_close(fusion(e, mask, cameras, kinds)[1], build_fusion("mean")(e, mask, cameras, kinds)[1])
    fusion = build_fusion("concat")
    weight = dict(fusion.named_parameters())["projection.weight"].detach().numpy()
    flat = (e * mask[..., None]).numpy().reshape(5, -1)
    wanted = flat @ weight.T
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(fusion(e, mask, cameras, kinds)[1].detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    order = [1, 0, 2, 3, 4, 5]  # each view has weights of its own
    assert not torch.allclose(
        fusion(e[:, order], mask[:, order], cameras, kinds)[1], torch.from_numpy(wanted), atol=1e-2
    )


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_late_is_the_mean_of_single_views_probabilities(head: str, multilabel: bool) -> None:
    """Each view in a batch of its own, through the same model."""
    model = make_model(fusion="late", head=head, multilabel=multilabel, num_modalities=1, num_frames=2)
    batch = make_batch(t=2, m=1)

    def probabilities(batch: Batch) -> np.ndarray:
        logits = model(batch).logits.double().numpy()
        if multilabel:
            return np.asarray(1 / (1 + np.exp(-logits)))
        return np.asarray(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))

    wanted = np.mean([probabilities(one_view(batch, view)) for view in range(3)], 0)
    np.testing.assert_allclose(probabilities(batch), wanted, rtol=1e-4, atol=1e-6)
    order = [2, 0, 1]
    turned = replace(batch, images=images_of(batch)[:, :, :, order], cameras=batch.cameras[:, order])
    np.testing.assert_allclose(probabilities(turned), wanted, rtol=1e-4, atol=1e-6)


def test_averaged_scores_are_stable_and_blind_to_what_is_missing() -> None:
    logits = torch.tensor([[[90.0, -90, 0], [-95, 95, 0], [1, 2, 3]]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    for multilabel, squash in ((False, lambda x: x.softmax(-1)), (True, torch.sigmoid)):
        found = average_scores(logits, mask, multilabel=multilabel)
        torch.testing.assert_close(squash(found), squash(logits[:, :2]).mean(1))
        (grad,) = torch.autograd.grad(found.sum(), logits)
        assert grad.isfinite().all() and (grad[:, 2] == 0).all()


@pytest.mark.parametrize("options", [{"fusion": f} for f in FUSIONS] + [{"head": h} for h in HEADS])
@pytest.mark.parametrize("num_frames", [1, 2])
@torch.no_grad()
def test_pixels_of_a_missing_modality_do_not_matter(options: dict[str, Any], num_frames: int) -> None:
    model = make_model(num_frames=num_frames, num_views=3, **options)
    batch = make_batch(t=num_frames, missing=True)
    before = model(batch)
    images = images_of(batch).clone()
    images[1:3, :, 0] = 1e3
    after = model(replace(batch, images=images))
    assert before.logits.isfinite().all()
    torch.testing.assert_close(after.logits, before.logits)
    torch.testing.assert_close(after.alpha, before.alpha)


# --- heads ---


def test_the_linear_head_is_a_linear_layer_on_the_face() -> None:
    model = make_model(head="linear")
    output = model(make_batch())
    weight, bias = dict(model.head.named_parameters())["weight"], model.class_bias
    assert bias is not None
    torch.testing.assert_close(output.logits, F.linear(model.scale * output.face, weight, bias))
    fresh = make_model(head="linear", trained=False)
    assert fresh(make_batch()).logits.abs().max() < 1  # no class is preferred at first
    assert not fresh.has_text and make_model().has_text


def test_learned_vectors_stand_for_the_text() -> None:
    for head in ("mtgf", "cosine"):
        model = make_model(head=head, class_vectors="learned", trained=False)
        assert not model.has_text
        assert dict(model.named_parameters())["text_mean"].requires_grad
        torch.testing.assert_close(model.text_mean.norm(dim=1), torch.ones(3))
        model(make_batch()).logits[:, 0].sum().backward()
        assert model.text_mean.grad is not None and model.text_mean.grad[0].abs().sum() > 0
    model = make_model(class_vectors="learned", head="cosine")
    output = model(make_batch())
    torch.testing.assert_close(output.logits, model.scale * output.face @ model.text_mean.T)


def test_a_residual_is_learned_on_top_of_the_text() -> None:
    model = make_model(class_vectors="residual", trained=False)
    residual = dict(model.named_parameters())["text_residual"]
    assert not residual.any() and not model.text_mean.requires_grad and not model.has_text
    model(make_batch()).logits[:, 0].sum().backward()
    assert residual.grad is not None and residual.grad[0].abs().sum() > 0
    model = make_model(class_vectors="residual", head="cosine")
    vectors = model.text_mean + model.get_parameter("text_residual")
    output = model(make_batch())
    torch.testing.assert_close(output.logits, model.scale * output.face @ vectors.T)


def count(**options: Any) -> int:
    return sum(p.numel() for p in make_model(**{"num_views": 3, "losses": {}, **options}).parameters())


def test_each_part_costs_its_own_parameters_alone() -> None:
    plain = count(fusion="mean", head="cosine")
    assert count(fusion="max", head="cosine") == count(fusion="late", head="cosine") == plain
    assert count(fusion="concat", head="cosine") == plain + 24 * 6 * 24
    assert count(fusion="mean", head="linear") == plain + 3 * 24 + 3
    assert count(fusion="mean", head="cosine", class_vectors="learned") == plain + 3 * 24
    assert count(fusion="mean", head="cosine", class_vectors="residual") == plain + 3 * 24
    assert count(fusion="mean", head="cosine", losses={"cross-correlation": 0.1}) == plain
    assert count(fusion="mean", head="cosine", losses={"margin": 0.1}) == plain + 1


# --- a tower a view ---


@pytest.mark.parametrize("missing", [False, True])
@torch.no_grad()
def test_each_view_has_its_own_tower(missing: bool) -> None:
    model = make_model(tower_per_view=True, num_views=3, fusion="mean", head="cosine")
    assert isinstance(model.tower, ViewTowers)
    batch = make_batch(missing=missing)
    for view, tower in enumerate(model.tower.towers):
        alone = make_model(fusion="mean", head="cosine")
        alone.load_state_dict({k: v for k, v in model.state_dict().items() if "tower" not in k}, strict=False)
        alone.tower = tower
        torch.testing.assert_close(
            model(batch).views.unflatten(1, (2, 3))[:, :, view],
            alone(one_view(batch, view)).views,
            atol=1e-5,
            rtol=1e-4,
        )
    shared, own = (make_model(trained=False, tower_per_view=own, num_views=3) for own in (False, True))
    torch.testing.assert_close(own(batch).logits, shared(batch).logits, atol=1e-5, rtol=1e-4)  # all start alike


# --- losses ---


def random_views(num: int = 5, views: int = 3, dim: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(num, views, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = False
    return F.normalize(torch.randn(num, views, dim, generator=generator), dim=-1), mask


@pytest.mark.parametrize("frames_each", [1, 2])
def test_the_margin_loss_is_a_sum_over_pairs(frames_each: int) -> None:
    views, mask = random_views(num=6)
    same, different = [], []
    places = mask.nonzero().tolist()
    for a, (i, v) in enumerate(places):
        for j, w in places[:a]:
            cosine = float(views[i, v] @ views[j, w])
            if i == j:
                same.append(1 - cosine)
            elif i // frames_each != j // frames_each:
                different.append(max(0.0, cosine - 0.1))
    found = margin_loss(views, mask, torch.tensor(0.1), frames_each)
    assert found.item() == pytest.approx(np.mean(same) + np.mean(different), rel=1e-5)


def test_cross_correlation_is_that_of_numpy() -> None:
    views, mask = random_views(num=9)
    total = []
    for v, w in ((0, 1), (0, 2), (1, 2)):
        both = (mask[:, v] & mask[:, w]).numpy()
        a, b = views[both, v].double().numpy(), views[both, w].double().numpy()
        a, b = ((x - x.mean(0)) / np.sqrt(x.var(0) + MIN_VARIANCE) for x in (a, b))
        loss = 0.0
        for i in range(8):
            for j in range(8):
                c = float((a[:, i] * b[:, j]).mean())
                loss += (1 - c) ** 2 if i == j else OFF_DIAGONAL * c**2
        total.append(loss / 8)
    assert cross_correlation_loss(views, mask).item() == pytest.approx(np.mean(total), rel=1e-4)


@pytest.mark.parametrize("name", list_extra_losses())
def test_extra_terms_are_blind_to_missing_views_and_to_order(name: str) -> None:
    views, mask = random_views()
    other, order = torch.where(mask[..., None], views, -3.0), [2, 0, 1]

    def measure(views: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if name == "margin":
            return margin_loss(views, mask, torch.tensor(0.1))
        return cross_correlation_loss(views, mask)

    torch.testing.assert_close(measure(other, mask), measure(views, mask))
    torch.testing.assert_close(measure(views[:, order], mask[:, order]), measure(views, mask))
    assert measure(views[:1], mask[:1]).isfinite()  # nobody to compare with
    assert measure(views[:, :1], mask[:, :1]).isfinite()


@pytest.mark.parametrize("name", ["con", "vt", "margin", "cross-correlation"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_term_weighs_the_same_however_a_batch_is_computed(name: str, accumulate: int) -> None:
    """Also where the batch is computed in parts, of which each is weighed by what its terms say."""
    model = make_model(losses={name: 0.25})
    terms = accumulate_gradients(model, make_batch(), LABELS, CrossEntropy(), accumulate=accumulate).terms
    assert set(terms) == {"ce", name, "loss", "grad_norm"}
    torch.testing.assert_close(terms["loss"], terms["ce"] + 0.25 * terms[name])


def test_the_margin_is_learned() -> None:
    model = make_model(losses={"margin": 1.0})
    accumulate_gradients(model, make_batch(), LABELS, CrossEntropy())
    grad = dict(model.named_parameters())["loss_terms.margin.margin"].grad
    assert grad is not None and grad < 0  # faces more alike than the margin: it rises


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("multilabel", [False, True])
def test_every_head_learns_from_every_fusion(fusion: str, head: str, multilabel: bool) -> None:
    """All terms of the loss at once, some images missing: every parameter is reached, nothing is NaN."""
    losses = dict.fromkeys(LOSSES, 0.1)
    model: Facet = make_model(fusion=fusion, head=head, num_views=3, multilabel=multilabel, losses=losses).train()
    target = TARGETS if multilabel else LABELS
    accumulate_gradients(
        model, make_batch(missing=True), target, (BinaryCrossEntropy() if multilabel else CrossEntropy())
    )
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
