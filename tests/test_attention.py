"""What is recorded is what the model's own forward pass weighed by: against its queries and keys, and against its scores."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, VIEWS, MakeCache, random_text
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cvsa import random_module
from test_facet import make_batch, make_model
from test_train_cli import QUICK, call
from torch.nn import functional as F

import train.inference.attention_records
from shared.attention_file import ATTENTION_FILE, read_attention, read_patches
from shared.cache import open_cache
from train.data.items import find_items
from train.data.stream import sample_rows
from train.inference.attention_records import AttentionTable, record_attention
from train.model.attention import TokenAttention
from train.model.image_tower import build_tower
from train.model.mtgf import TextGuidedFusion
from train.model.tower_attention import MAX_GRID, find_patch_attention, fold_maps
from train.tasks.item import Item


@contextmanager
def spied_attention(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """The weights of every fused attention that is run: softmax of what it was given, heads apart, (…, heads, Q, L)."""
    found: list[torch.Tensor] = []
    fused: Callable[..., torch.Tensor] = F.scaled_dot_product_attention

    def spy(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any = None, *more: Any, **named: Any
    ) -> torch.Tensor:
        mask = named.pop("attn_mask", mask)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        found.append((scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1).detach())
        out = fused(q, k, v, mask, *more, **named)
        torch.testing.assert_close(found[-1] @ v, out, atol=1e-5, rtol=1e-4)
        return out

    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", spy)
        yield found


@settings(max_examples=20, deadline=None)
@given(num_queries=st.integers(1, 4), num_tokens=st.integers(1, 6), seed=st.integers(0, 100))
def test_weights_are_those_of_the_fused_kernel(num_queries: int, num_tokens: int, seed: int) -> None:
    """With the values e_1 … e_N, attention gives its own weights: those must be ours."""
    generator = torch.Generator().manual_seed(seed)
    attention = random_module(TokenAttention(24), seed)
    assert isinstance(attention, TokenAttention) and attention.num_heads == 1
    queries, tokens = (torch.randn(2, n, 24, generator=generator) for n in (num_queries, num_tokens))
    mask = torch.rand(2, num_tokens, generator=generator) < 0.6
    mask[:, 0] = True
    found = attention.weights(queries, tokens, mask)
    with pytest.MonkeyPatch.context() as monkeypatch, spied_attention(monkeypatch) as seen:
        attention(queries, tokens, mask)
    torch.testing.assert_close(found, seen[0][:, 0])
    torch.testing.assert_close(found.sum(-1), torch.ones(2, num_queries))
    assert (found.masked_select(~mask[:, None].expand_as(found)) == 0).all()


@pytest.mark.parametrize(("num_frames", "compared", "missing"), [(1, False, True), (3, False, False), (3, True, True)])
def test_a_pass_is_recorded_as_it_was(
    monkeypatch: pytest.MonkeyPatch, num_frames: int, compared: bool, missing: bool
) -> None:
    model = make_model(num_frames=num_frames)
    batch = make_batch(b=3, t=num_frames + compared, missing=missing)
    if compared:
        batch = replace(batch, has_reference=torch.tensor([True, False, True]))
    plain = model(batch)
    prompts = torch.from_numpy(random_text(CLASSES, 24, "tiny").embeddings)
    with record_attention(model) as recording, spied_attention(monkeypatch) as seen:
        output = model(batch)
        found = recording.take(batch, output, prompts)
    assert torch.equal(output.logits, plain.logits)  # to look changes nothing
    *tower, views, classes = [w for w in seen if w.shape[-2:] != (num_frames, num_frames) or num_frames == 1]
    n = 3 * (num_frames + compared)
    between = views.mean(1).view(3, n // 3, 6, 6)[:, compared:]
    alpha = plain.alpha.view(3, num_frames, 6)
    assert torch.equal(found["view_weights"], alpha)
    torch.testing.assert_close(found["view_attention"], torch.einsum("btv,btvn->btn", alpha, between))
    torch.testing.assert_close(found["class_attention"], classes.mean(1).unflatten(-1, (num_frames, 6)))
    for name, axes in (
        ("frame_weights", -1),
        ("view_weights", -1),
        ("view_attention", -1),
        ("class_attention", (2, 3)),
    ):
        assert torch.allclose(found[name].sum(axes), torch.ones(()), atol=1e-5), name
    looked = tower[-1].mean(1)[:, 0, 1:].unflatten(1, (4, 4))  # the class token's row of the last block
    there = batch.present[..., None].expand(*batch.present.shape, 3).flatten()
    wanted = torch.zeros(len(there), 4, 4)
    wanted[there] = looked
    torch.testing.assert_close(found["patches"], wanted.view(3, -1, 6, 4, 4)[:, compared:])
    # the scores follow from what is kept of prompts: s · mean cosine, were the model's own prompts these
    mean = prompts.mean(1)
    assert found["prompt_cosines"].abs().max() <= 1 + 1e-5
    torch.testing.assert_close(
        found["prompt_cosines"].mean(2) @ torch.ones(3, 1), (recorded_faces(model, batch) * mean).sum(-1).sum(1, True)
    )
    after = model(batch)
    assert torch.equal(after.logits, plain.logits) and not any(m._forward_pre_hooks for m in model.modules())


def recorded_faces(model: Any, batch: Any) -> torch.Tensor:
    """f (B, C, d), caught on its way out of the head."""
    caught: list[torch.Tensor] = []
    handle = model.head.register_forward_hook(lambda _, __, out: caught.append(out))
    model(batch)
    handle.remove()
    return caught[0]


def test_compiled_towers_are_recorded_too() -> None:
    """Compiled code has no hooks in it."""
    model, batch = make_model(), make_batch(b=2)
    with torch.inference_mode(), record_attention(model) as recording:
        wanted = recording.take(batch, model(batch), None)["patches"]
    model.tower.compile(backend="eager")
    with torch.inference_mode():
        model(batch)
        with record_attention(model) as recording:
            found = recording.take(batch, model(batch), None)["patches"]
    torch.testing.assert_close(found, wanted)


def test_the_share_of_looking_is_that_of_the_gate() -> None:
    model = make_model()
    batch = make_batch(b=2)
    with record_attention(model) as recording:
        share = recording.take(batch, model(batch), None)["class_share"]
    assert ((share > 0) & (share < 1)).all()
    assert isinstance(model.head, TextGuidedFusion)
    torch.nn.init.zeros_(model.head.attention.to_out.weight)
    torch.nn.init.zeros_(model.head.attention.to_out.bias)
    with record_attention(model) as recording:  # words that find nothing have no part
        assert (recording.take(batch, model(batch), None)["class_share"] == 0).all()


@pytest.mark.parametrize(
    "vision",
    [
        {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "pool_type": "avg"},
        {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
        {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 160},
        {"timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear", "image_size": 160},
        {"timm_model_name": "test_vit2", "timm_pool": "map", "timm_proj": "none", "image_size": 64},
    ],
)
def test_patches_of_other_towers(monkeypatch: pytest.MonkeyPatch, vision: dict[str, Any]) -> None:
    torch.manual_seed(0)
    tower = build_tower({"embed_dim": 64, "vision_cfg": vision}).eval()
    for parameter in tower.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    found = find_patch_attention(tower)
    assert found is not None
    maps: list[torch.Tensor] = []
    found[0].register_forward_pre_hook(lambda module, inputs: maps.append(found[1](module, inputs)))
    with spied_attention(monkeypatch) as seen:
        tower(torch.randn(2, 3, vision["image_size"], vision["image_size"]))
    weights = seen[-1].mean(1)
    num = maps[0].shape[1]
    prefix = weights.shape[2] - num
    pooled = vision.get("pool_type") == "avg" or vision.get("timm_pool") == "avg"
    rows = weights[:, prefix:] if pooled else weights[:, :1]
    torch.testing.assert_close(maps[0], rows.mean(1)[:, prefix:])
    assert prefix or torch.allclose(maps[0].sum(1), torch.ones(2))


def test_towers_without_patches_have_none() -> None:
    vision = {"timm_model_name": "test_convnext", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64}
    assert find_patch_attention(build_tower({"embed_dim": 24, "vision_cfg": vision})) is None
    assert fold_maps(torch.ones(1, 15)) is None


def test_large_maps_are_made_smaller_with_their_sums() -> None:
    weights = torch.rand(2, 24 * 24)
    folded = fold_maps(weights)
    assert folded is not None and folded.shape == (2, MAX_GRID, MAX_GRID)
    torch.testing.assert_close(folded.sum((1, 2)), weights.sum(1))
    hot = torch.zeros(1, 24 * 24)
    hot[0, 3 * 24 + 20] = 1  # row 3, column 20
    folded = fold_maps(hot)
    assert folded is not None and divmod(int(folded.argmax()), MAX_GRID) in {(2, 13), (1, 13), (2, 12), (1, 12)}


def test_what_is_kept_of_many_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.inference.attention_records, "MAX_PATCH_BYTES", 3 * 2 * 6 * 16 + 5)
    items = [Item(str(i), "S0", "", (i,), i) for i in range(10)]
    table = AttentionTable(items, 1, None)
    maps = torch.rand(10, 1, 6, 4, 4)
    for part in range(0, 10, 4):
        num = min(4, 10 - part)
        even = torch.full((num, 1, 6), 1 / 6)
        table.add(
            {"faces": torch.ones(num, 2), "frame_weights": torch.ones(num, 1), "view_weights": even}
            | {"patches": maps[part : part + num]}
        )
    found = table.finish(CLASSES, ("texture", "normal"), VIEWS)
    assert found.patches is not None and found.patch_place is not None
    kept = [0, 3, 6]
    assert np.flatnonzero(found.patch_place >= 0).tolist() == kept
    assert np.array_equal(found.patches[found.patch_place[kept]], maps[kept].numpy().astype(np.float16))


def test_a_fit_tells_what_it_looked_at(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache, run = tiny_cache(num_frames=5, num_subjects=3, without_texture=tuple(range(5))), tmp_path / "run"
    options = ["--frames", 3, "--modalities", "texture,normal", "--test-subjects", "S0"]
    assert call("fit", "--cache", cache, "--out", run, *QUICK, *options) == 0
    found = read_attention(run / ATTENTION_FILE)
    with (run / "predictions.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    opened = open_cache(cache)
    assert found.names == tuple(row["sample_id"] for row in predictions) and found.modalities == ("texture", "normal")
    assert found.views == tuple(str(view) for view in VIEWS)
    rows = {item.name: sample_rows(item.rows, 3) for item in find_items(opened, ("texture", "normal"))}
    assert found.rows.tolist() == [rows[name] for name in found.names]
    assert found.prompts == (("anger 0", "anger 1"), ("happiness 0", "happiness 1"), ("surprise 0", "surprise 1"))
    np.testing.assert_allclose(np.linalg.norm(found.faces.astype(float), axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(found.view_weights.astype(float).sum(-1), 1, atol=2e-3)
    assert (found.view_weights[0, :, :3] == 0).all()  # the first sequence has no texture
    patches = read_patches(run / ATTENTION_FILE, found, 0)
    assert patches is not None and patches.shape == (3, 6, 4, 4)
    assert (patches[:, :3] == 0).all() and (patches[:, 3:] > 0).all()
    # what the file says of prompts gives the very probabilities: softmax(s · mean cosine)
    assert found.prompt_cosines is not None
    scale = math.exp(torch.load(run / "checkpoint.pt", weights_only=True)["model"]["log_scale"])
    scores = np.exp(scale * found.prompt_cosines.astype(float).mean(2))
    said = np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in predictions])
    np.testing.assert_allclose(scores / scores.sum(1, keepdims=True), said, atol=5e-3)
    before = (run / ATTENTION_FILE).read_bytes()
    (run / ATTENTION_FILE).unlink()
    assert call("evaluate", run) == 0
    assert (run / ATTENTION_FILE).read_bytes() == before
    assert call("predict", run, "--cache", cache) == 0
    assert len(read_attention(run / "attention-cache.safetensors").names) == 18


def test_heads_on_embeddings_know_views_and_prompts_alone(tiny_cache: MakeCache, tmp_path: Path) -> None:
    out = tmp_path / "folds"
    assert call("crossval", "--cache", tiny_cache(), "--out", out, *QUICK, "--tune", "frozen", "--jobs", 1) == 0
    files = sorted(out.glob(f"*/{ATTENTION_FILE}"))
    assert len(files) == 3
    for path in files:
        found = read_attention(path)
        assert read_patches(path, found, 0) is None
        assert found.class_attention is not None and found.prompt_cosines is not None
        np.testing.assert_allclose(found.class_attention.astype(float).sum((2, 3)), 1, atol=2e-3)
