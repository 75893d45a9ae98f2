"""Losses against loops; the stop-gradient; and the collapse it prevents."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import MakeCache
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from test_facet import make_batch, make_model
from tiny_training import RECIPE, TRANSFORM, make_training
from tiny_training import make_model as make_tiny_model
from torch.nn import functional as F

from shared.cache import open_cache
from train.losses.consistency import ETA, consistency_loss
from train.losses.terms import LossInputs, LossTerm, compute_losses
from train.losses.view_text import view_text_loss
from train.model.batch import Batch
from train.model.facet import Facet
from train.tasks.criterion import BinaryCrossEntropy, CrossEntropy, mean_cosine_between_faces
from train.tasks.multi_label import ActionUnits
from train.tasks.single_label import SingleLabel


def make_tokens(b: int = 4, n: int = 3, d: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    views = F.normalize(torch.randn(b, n, d, generator=generator), dim=-1)
    fused = F.normalize(torch.randn(b, d, generator=generator), dim=-1)
    projected = torch.randn(b, n, d, generator=generator)
    return projected, views, fused, torch.ones(b, n, dtype=torch.bool)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_consistency_is_the_definition() -> None:
    projected, views, fused, mask = make_tokens()
    h, e, z = projected.numpy(), views.numpy(), fused.numpy()
    b, n = h.shape[:2]
    alignment = np.mean([1 - cosine(h[i, v], z[i]) for i in range(b) for v in range(n)])
    alike = np.array([[[cosine(e[i, v], e[j, v]) for j in range(b)] for i in range(b)] for v in range(n)])
    structure = np.mean([np.linalg.norm(s - alike.mean(0), "fro") ** 2 / b**2 for s in alike])
    assert consistency_loss(projected, views, fused, mask).item() == pytest.approx(
        alignment + ETA * structure, rel=1e-4
    )


def test_masked_views_do_not_count() -> None:
    projected, views, fused, mask = make_tokens()
    mask[1, 2] = mask[3, 0] = False
    before = consistency_loss(projected, views, fused, mask)
    labels, text = torch.tensor([0, 1, 2, 1]), torch.randn(3, 8)
    text_before = view_text_loss(views, mask, labels, text, torch.tensor(5.0), CrossEntropy())
    for tokens in (projected, views):
        tokens[1, 2] = tokens[3, 0] = -7.0
    torch.testing.assert_close(consistency_loss(projected, views, fused, mask), before)
    torch.testing.assert_close(
        view_text_loss(views, mask, labels, text, torch.tensor(5.0), CrossEntropy()), text_before
    )
    each = [F.cross_entropy(5 * views[i, v] @ text.T, labels[i]) for i, v in mask.nonzero().tolist()]
    torch.testing.assert_close(text_before, torch.stack(each).mean())


def test_the_fused_face_gets_no_gradient() -> None:
    projected, views, fused, mask = make_tokens()
    fused.requires_grad_()
    views.requires_grad_()
    consistency_loss(projected.requires_grad_(), views, fused, mask).backward()
    assert fused.grad is None
    assert projected.grad is not None
    assert projected.grad.abs().sum() > 0


def fit_consistency(stop_gradient: bool) -> float:
    """Minimises consistency alone over 16 faces' three views; the mean cosine between different faces at the end."""
    torch.manual_seed(0)
    faces = torch.randn(16, 1, 12) + 0.5 * torch.randn(16, 3, 12)
    encoder = torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    h = torch.nn.Linear(8, 8)
    optimizer = torch.optim.Adam([*encoder.parameters(), *h.parameters()], lr=1e-2)
    mask = torch.ones(16, 3, dtype=torch.bool)
    for _ in range(400):
        views = F.normalize(encoder(faces), dim=-1)
        fused = F.normalize(views.mean(1), dim=-1)
        if stop_gradient:
            loss = consistency_loss(h(views), views, fused, mask)
        else:
            loss = (1 - F.cosine_similarity(h(views), fused[:, None], dim=-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return mean_cosine_between_faces(fused).item()


def test_consistency_alone_does_not_collapse_all_faces_into_one() -> None:
    assert fit_consistency(stop_gradient=True) < 0.7  # 0.52 when this was written
    assert fit_consistency(stop_gradient=False) > 0.95  # the same term without sg: 1.00


class WithoutStopGradient(LossTerm):
    """The alignment of views with the face, through which the face moves, too."""

    def forward(self, inputs: LossInputs) -> torch.Tensor:
        assert inputs.model.view_to_face is not None
        views, face = inputs.model.view_to_face(inputs.output.views), inputs.output.frames[:, None]
        return (1 - F.cosine_similarity(views, face, dim=-1)).mean()


def take_steps(model: Facet, batch: Batch, labels: torch.Tensor, tower_rate: float) -> float:
    """Trains 30 steps; the mean cosine between different faces at the end."""
    new = [value for name, value in model.named_parameters() if not name.startswith("tower.")]
    tower = list(model.tower.parameters())
    optimizer = torch.optim.Adam([{"params": new, "lr": 3e-3}, {"params": tower, "lr": tower_rate}])
    for _ in range(30):
        loss = compute_losses(model, model(batch), labels, CrossEntropy())["loss"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return mean_cosine_between_faces(model(batch).face).item()


def test_a_weight_of_ten_does_not_collapse_a_trained_model(tiny_cache: MakeCache) -> None:
    """Six scans are learned first; then λ = 10, and the tower at a tenth of the rate of the new layers, as in fine-tuning.

    Without stop-gradient, all faces become alike. (A random tower at the full rate comes near that with stop-gradient, too.)
    """
    cache = open_cache(tiny_cache(num_subjects=2, scans_per_class=1))
    training = make_training(cache)
    (raw,) = TRANSFORM.stream(cache, [training.items], 1)
    batch, labels = TRANSFORM.prepare(raw), torch.from_numpy(training.labels)
    model = make_tiny_model(replace(RECIPE, lambda_con=10.0, lambda_vt=0.0, seed=1))
    model.loss_terms["con"].weight = 0.0  # type: ignore[assignment]
    assert take_steps(model, batch, labels, tower_rate=3e-3) < 0.5
    without = copy.deepcopy(model)
    without.loss_terms["con"] = WithoutStopGradient()
    for one in (model, without):
        one.loss_terms["con"].weight = 10.0  # type: ignore[assignment]
    assert take_steps(model, batch, labels, tower_rate=3e-4) < 0.5
    assert take_steps(without, batch, labels, tower_rate=3e-4) > 0.8


def test_mean_cosine_between_faces() -> None:
    faces = F.normalize(torch.randn(6, 5), dim=-1)
    wanted = np.mean([faces[i] @ faces[j] for i in range(6) for j in range(6) if i != j])
    assert mean_cosine_between_faces(faces).item() == pytest.approx(wanted, abs=1e-5)
    assert mean_cosine_between_faces(faces[:2]).item() == pytest.approx(float(faces[0] @ faces[1]), abs=1e-5)
    assert mean_cosine_between_faces(faces[:1].expand(4, -1)).item() == pytest.approx(1, abs=1e-5)
    assert mean_cosine_between_faces(faces[:1]).item() == 0


def test_terms_that_are_off_are_not_computed_and_the_sum_is_weighted() -> None:
    batch, labels = make_batch(), torch.tensor([0, 1, 2, 1])
    plain = make_model(losses={"con": 0, "vt": 0})
    assert set(compute_losses(plain, plain(batch), labels, CrossEntropy())) == {"ce", "loss"}
    model = make_model(losses={"con": 0.3, "vt": 0.7})
    output = model(batch)
    terms = compute_losses(model, output, labels, CrossEntropy())
    torch.testing.assert_close(terms["loss"], terms["ce"] + 0.3 * terms["con"] + 0.7 * terms["vt"])
    torch.testing.assert_close(terms["ce"], F.cross_entropy(output.logits, labels))
    assert model.view_to_face is not None
    con = consistency_loss(model.view_to_face(output.views), output.views, output.frames, output.mask)
    torch.testing.assert_close(terms["con"], con)


def test_frames_share_the_label_of_their_sequence() -> None:
    model, batch, labels = make_model(num_frames=2), make_batch(t=2), torch.tensor([0, 1, 2, 1])
    output = model(batch)
    terms = compute_losses(model, output, labels, CrossEntropy())
    views = output.views.view(4, -1, 24)
    each = [
        F.cross_entropy(model.scale * views[i] @ model.text_mean.T, labels[i].expand(views.shape[1])) for i in range(4)
    ]
    torch.testing.assert_close(terms["vt"], torch.stack(each).mean())


@given(seed=st.integers(0, 999), num=st.integers(1, 8))
def test_several_classes_at_once_against_a_loop(seed: int, num: int) -> None:
    """Unknown targets count for nothing, whatever their logits."""
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 3, (num, 4)), rng.integers(-1, 2, (num, 4))
    targets[0, 0] = 1
    weight = rng.uniform(0.5, 3, 4)
    parts = []
    for row, column in zip(*np.nonzero(targets >= 0), strict=True):
        p = 1 / (1 + np.exp(-logits[row, column]))
        parts.append(-weight[column] * np.log(p) if targets[row, column] == 1 else -np.log(1 - p))
    criterion = BinaryCrossEntropy(class_weight=torch.tensor(weight))
    found = criterion.mean_loss(torch.tensor(logits), torch.tensor(targets, dtype=torch.int8))
    assert found.item() == pytest.approx(np.mean(parts), rel=1e-5, abs=1e-6)


def test_unknown_classes_count_for_nothing() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([2, -1, 0, 0, -1])
    weight = torch.tensor([0.5, 1.0, 3.0])
    for criterion in (CrossEntropy(), CrossEntropy(class_weight=weight)):
        wanted = F.cross_entropy(logits, labels, weight=criterion.class_weight, ignore_index=-1)
        torch.testing.assert_close(criterion.mean_loss(logits, labels), wanted)


def test_a_batch_of_which_nothing_is_known_moves_nothing() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    loss = BinaryCrossEntropy().mean_loss(logits, torch.full((3, 2), -1, dtype=torch.int8))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@given(labels=st.lists(st.integers(0, 3), min_size=4, max_size=60))
def test_balanced_weights_are_scikit_learns(labels: list[int]) -> None:
    labels = [0, 1, 2, 3, *labels]
    wanted = compute_class_weight("balanced", classes=np.arange(4), y=np.array(labels))
    weight = SingleLabel().balance_classes(np.array(labels), 4)
    np.testing.assert_allclose(weight, wanted, rtol=1e-6)
    logits = torch.randn(len(labels), 4)
    torch.testing.assert_close(
        CrossEntropy(class_weight=torch.from_numpy(weight)).mean_loss(logits, torch.tensor(labels)),
        F.cross_entropy(logits, torch.tensor(labels), weight=torch.from_numpy(weight)),
    )


def test_balanced_weights_of_several_classes_at_once() -> None:
    targets = np.array([[1, 1, -1, 0], [0, 1, -1, 0], [0, 1, -1, 1], [0, -1, -1, 0]] * 30, np.int8)
    targets[1:, 3] = 0
    weight = ActionUnits().balance_classes(targets, 4)
    assert weight.tolist() == pytest.approx([3, 0.05, 1, 1])  # never over 20 times, up or down; 1 where nothing shows
