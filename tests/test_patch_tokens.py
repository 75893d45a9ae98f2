"""Patches of a picture as tokens: which they are, what MTGF sees of them, and that they are nothing where they are off."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeCache
from recipes import make_recipe
from test_facet import images_of, make_batch, make_model, with_reference
from test_image_tower import TOWERS
from test_resume import finish
from test_train_cli import QUICK, call, fails
from tiny_training import RECIPE, TRANSFORM, assert_same
from torch import nn

from shared.attention_file import ATTENTION_FILE, read_attention, read_class_patches
from shared.cache import open_cache
from shared.errors import FacetError
from train.inference.attention_records import record_attention
from train.model.batch import Batch
from train.model.facet import Facet
from train.model.image_tower import build_tower
from train.model.patch_tokens import PatchEncoder, PatchTokens, count_channels
from train.model.tuning import checkpoint_activations, tune_tower
from train.options import Recipe
from train.tasks.criterion import CrossEntropy
from train.training.step import accumulate_gradients

TIMM_VIT = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 160}
COCA = TOWERS["vit"] | {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 3}
# A tower → the modules the last of which gives its last map, before the pooling, and how many tokens precede the patches.
MAPS: dict[str, tuple[dict[str, Any], str, int]] = {
    "class token": (TOWERS["vit"], "transformer.resblocks", 1),
    "mean": (TOWERS["vit"] | {"pool_type": "avg", "final_ln_after_pool": True}, "transformer.resblocks", 1),
    "CoCa": (COCA, "transformer.resblocks", 1),
    "CLIP's resnet": (TOWERS["resnet"], "layer4", 0),
    "timm vit": (TIMM_VIT, "trunk.blocks", 1),
    "timm convnext": (TOWERS["timm"], "trunk.stages", 0),
}


def make_looking(**options: Any) -> Facet:
    return make_model(**{"patch_channels": 32, **options})


@pytest.mark.parametrize("kind", MAPS)
@torch.no_grad()
def test_patches_are_those_that_the_tower_pools(kind: str) -> None:
    vision, last, num_prefix = MAPS[kind]
    config = {"embed_dim": 24, "vision_cfg": vision}
    torch.manual_seed(0)
    tower, channels = build_tower(config).eval(), count_channels(config)
    size, seen = vision["image_size"], []
    images = torch.randn(2, 3, size, size)
    plain = tower(images)
    blocks = tower.get_submodule(last)
    assert isinstance(blocks, nn.Sequential | nn.ModuleList)
    handle = blocks[-1].register_forward_hook(lambda _, __, out: seen.append(out))
    encoder = PatchEncoder(channels, 8)
    features, patches = encoder.run(tower, images, autocast=False)
    handle.remove()
    assert len(seen) == 1  # one pass
    torch.testing.assert_close(features, plain[0] if isinstance(plain, tuple) else plain)
    maps = seen[0] if seen[0].ndim == 4 else seen[0][:, num_prefix:].mT.unflatten(2, patches.shape[1:3])
    assert maps.shape == (2, channels, *patches.shape[1:3]) and maps.shape[2] == maps.shape[3]
    wanted = encoder.projection(encoder.norm(maps.permute(0, 2, 3, 1)))
    torch.testing.assert_close(patches, wanted / wanted.norm(dim=-1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_towers_that_drop_patches_have_none() -> None:
    with pytest.raises(FacetError, match="gives no patch tokens; use --mtgf-tokens views"):
        count_channels({"embed_dim": 24, "vision_cfg": TOWERS["vit"] | {"patch_dropout": 0.5}})


@pytest.mark.parametrize("compared", [None, (True, False)])
@torch.no_grad()
def test_tokens_are_the_definition(compared: tuple[bool, bool] | None) -> None:
    """Sample by sample, picture by picture, place by place, in NumPy."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.nn.functional.normalize(torch.randn(2, 4, 3, 2, 5, 8, generator=generator), dim=-1)
    mask = torch.ones(2, 4, 3, dtype=torch.bool)
    mask[0, 2, 1] = mask[1, 1, 0] = mask[0, 0, 2] = False  # the last one in the reference, where there is one
    mask[1, :, 2] = False
    patches = patches * mask[..., None, None, None]
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])[:, compared is not None :]
    weights = weights / weights.sum(1, keepdim=True)
    cameras, modalities = torch.randn(2, 3, 2, generator=generator), torch.tensor([0, 0, 1])
    module = PatchTokens(8, 2)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    has_reference = None if compared is None else torch.tensor(compared)
    tokens, there = module(patches, mask, weights, cameras, modalities, has_reference)
    assert tokens.shape == (2, 30, 8) and there.shape == (2, 30)

    first = int(compared is not None)
    for b in range(2):
        against = compared is not None and compared[b]
        for n in range(3):
            frames = [t for t in range(first, 4) if mask[b, t, n]]
            assert (
                bool(there[b, n * 10]) == bool(there[b, n * 10 + 9]) == bool(frames and (mask[b, 0, n] or not against))
            )
            if not there[b, n * 10]:
                continue
            for y in range(2):
                for x in range(5):
                    mean = sum(weights[b, t - first] * patches[b, t, n, y, x] for t in frames)
                    assert isinstance(mean, torch.Tensor)
                    wanted = mean / mean.norm()
                    if against:
                        wanted = wanted - patches[b, 0, n, y, x]
                        wanted = wanted / (wanted.square().sum() + 0.1**2).sqrt()
                    place = torch.tensor([(x + 0.5) / 5 - 0.5, (y + 0.5) / 2 - 0.5]) * math.pi
                    wanted = wanted + module.position(place) + module.camera(cameras[b, n])
                    wanted = wanted + module.modality[modalities[n]]
                    torch.testing.assert_close(tokens[b, n * 10 + y * 5 + x], wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_text_looks_at_views_and_patches_by_one_softmax() -> None:
    """The head's attention against a plain softmax in float64; how many tokens it has does not grow with frames twice over."""
    model, batch = make_looking(num_frames=3), make_batch(b=2, t=3, missing=True)
    caught: list[Any] = []
    model.head.attention.register_forward_hook(lambda _, inputs, out: caught.append((*inputs, out)))  # type: ignore[union-attr, operator]
    model(batch)
    text, tokens, mask, found = caught[0]
    assert tokens.shape == (2, 3 * 6 + 6 * 16, 24)
    attention = model.head.attention
    q = attention.to_queries(attention.norm_queries(text)).double().numpy()[0]  # type: ignore[union-attr, operator]
    k, v = attention.to_keys_values(attention.norm_tokens(tokens)).double().chunk(2, dim=-1)  # type: ignore[union-attr, operator]
    for b in range(2):
        scores = np.exp(q @ k[b].numpy().T / math.sqrt(24)) * mask[b].numpy()
        looked = scores / scores.sum(1, keepdims=True) @ v[b].numpy()
        wanted = attention.to_out(torch.from_numpy(looked).float()) / math.sqrt(24)  # type: ignore[union-attr, operator]
        torch.testing.assert_close(found[b], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
@torch.no_grad()
def test_patches_of_a_missing_picture_do_not_matter(tower: str) -> None:
    model = make_looking(tower=tower, patch_channels={"vit": 32, "resnet": 256}[tower])
    batch = make_batch(missing=True)
    model.train(tower == "resnet")  # not even through batch statistics
    before = model(batch)
    images = images_of(batch).clone()
    images[1:3, :, 0] = 1e3
    torch.testing.assert_close(model(replace(batch, images=images)).logits, before.logits)
    images[0, :, 1] *= -1  # the test would notice
    assert not torch.allclose(model(replace(batch, images=images)).logits[0], before.logits[0], atol=1e-3)


@torch.no_grad()
def test_order_of_views_and_company_are_free() -> None:
    model, batch = make_looking(), make_batch()
    logits, order = model(batch).logits, [2, 0, 1]
    turned = replace(batch, images=images_of(batch)[:, :, :, order], cameras=batch.cameras[:, order])
    torch.testing.assert_close(model(turned).logits, logits, atol=1e-5, rtol=1e-4)
    swapped = replace(batch, images=images_of(batch)[:, :, :, order])  # pictures without their cameras
    assert not torch.allclose(model(swapped).logits, logits, atol=1e-4)
    alone = Batch(images_of(batch)[1:2], batch.present[1:2], batch.cameras[1:2], complete=True)
    torch.testing.assert_close(model(alone).logits[0], logits[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model(replace(batch, complete=False)).logits, logits)


@torch.no_grad()
def test_where_nobody_has_a_reference_it_plays_no_part() -> None:
    model, batch = make_looking(num_frames=2), make_batch(t=3)
    rest = replace(batch, images=images_of(batch)[:, 1:], present=batch.present[:, 1:])
    logits = model(rest).logits
    torch.testing.assert_close(model(with_reference(batch, [False] * 4)).logits, logits)
    assert not torch.allclose(model(with_reference(batch, [True] * 4)).logits, logits, atol=1e-3)


def test_off_there_is_nothing_of_it() -> None:
    off, on = make_model(trained=False), make_looking(trained=False)
    assert {name for name in on.state_dict() if name.startswith("patch_")} == {
        name for name in on.state_dict() if name not in off.state_dict()
    }
    assert off.patch_encoder is None and off.patch_tokens is None
    assert_same(
        off.state_dict(), {name: on.state_dict()[name] for name in off.state_dict()}
    )  # all else starts the same
    assert make_looking(head="cosine").patch_encoder is None


@pytest.mark.parametrize("tune", ["full", "last-1", "lora-2"])
def test_gradients_in_less_memory_are_the_same(tune: str) -> None:
    labels = torch.tensor([0, 2, 1, 2])

    def gradients(recipe: Recipe, *, checkpointed: bool = False) -> dict[str, torch.Tensor]:
        model = make_looking(losses={}).train()
        torch.manual_seed(1)
        tune_tower(model, tune)
        if checkpointed:
            checkpoint_activations(model.tower)
        accumulate_gradients(
            model, make_batch(missing=True), labels, CrossEntropy(), accumulate=recipe.gradient_accumulation
        )
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain = make_recipe(lambda_con=0.0, lambda_vt=0.0)
    whole = gradients(plain)
    assert whole["patch_encoder.projection.weight"].abs().sum() > 0
    assert any(name.startswith("tower.") for name in whole)
    for other in (gradients(replace(plain, gradient_accumulation=3)), gradients(plain, checkpointed=True)):
        assert set(other) == set(whole)
        for name, gradient in whole.items():
            torch.testing.assert_close(other[name], gradient, atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_compiled_as_one_graph() -> None:
    model, batch = make_looking(), make_batch()
    wanted = model(batch).logits
    assert model.patch_encoder is not None
    model.patch_encoder.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(model(batch).logits, wanted)


@torch.no_grad()
def test_what_each_class_looked_at_is_recorded() -> None:
    model, batch = make_looking(num_frames=2), make_batch(b=3, t=3, missing=True)
    batch = with_reference(batch, [True, False, True])
    caught: list[torch.Tensor] = []
    attention = model.head.attention
    attention.register_forward_pre_hook(lambda module, inputs: caught.append(module.weights(*inputs)))  # type: ignore[union-attr, operator]
    with record_attention(model) as recording:
        found = recording.take(batch, model(batch), None)
    views, places = caught[0][..., :12], caught[0][..., 12:]
    torch.testing.assert_close(found["class_patches"], places.unflatten(-1, (6, 4, 4)))
    assert (found["class_patches"][1, :, :3] == 0).all() and (found["class_patches"][0] > 0).all()
    by_picture = found["class_attention"].sum(2)
    wanted = views.unflatten(-1, (2, 6)).sum(2) + places.unflatten(-1, (6, 16)).sum(-1)
    torch.testing.assert_close(by_picture, wanted)
    torch.testing.assert_close(by_picture.sum(-1), torch.ones(3, 3))


def test_stopped_and_begun_again(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=2, num_frames=4, without_texture=(1,)))
    recipe = replace(RECIPE, frames=2, mtgf_tokens="patches", tune="lora-2")
    whole = finish(tmp_path / "whole", cache, recipe, TRANSFORM)
    parts = finish(tmp_path / "parts", cache, recipe, TRANSFORM, stops=(4,))
    assert_same(whole.state_dict(), parts.state_dict())


def test_what_cannot_be_is_one_line(tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, run = tiny_cache(), tmp_path / "run"
    command = ["--cache", cache, "--out", run, *QUICK]
    patches = ["--mtgf-tokens", "patches"]
    for name in ("fit", "crossval"):
        assert "add --embeddings off" in fails(capsys, name, *command, *patches, "--tune", "frozen")
    with_patches = ["--variants", "with-patches"]
    assert "hold no patches" in fails(capsys, "ablate", *command, "--tune", "frozen", *with_patches)
    assert "--head cosine uses no tokens" in fails(capsys, "fit", *command, *patches, "--head", "cosine")
    dropping = tmp_path / "model"
    dropping.mkdir()
    vision = '{"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "patch_dropout": 0.5}'
    (dropping / "open_clip_config.json").write_text(f'{{"model_cfg": {{"embed_dim": 32, "vision_cfg": {vision}}}}}')
    command[1] = tiny_cache(name="other", model=f"local-dir:{dropping}")
    for name, more in {"fit": patches, "crossval": patches, "ablate": with_patches}.items():
        assert "gives no patch tokens; use --mtgf-tokens views" in fails(capsys, name, *command, *more)
    assert not run.exists()


def test_a_frozen_tower_that_runs_in_every_step(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """From images to an exported model, with what was looked at on the way."""
    cache, run, out = tiny_cache(num_subjects=3), tmp_path / "run", tmp_path / "out"
    options = ["--mtgf-tokens", "patches", "--tune", "frozen", "--embeddings", "off", "--lr", 1e-2]
    assert call("fit", "--cache", cache, "--out", run, *QUICK, *options) == 0
    assert not (tmp_path / "embeddings").exists()
    found = read_attention(run / ATTENTION_FILE)
    maps = read_class_patches(run / ATTENTION_FILE, found, 0)
    assert maps is not None and maps.shape == (3, 6, 4, 4) and found.class_attention is not None
    np.testing.assert_allclose(found.class_attention.astype(float).sum((2, 3)), 1, atol=2e-3)
    assert call("export", run, "--out", out) == 0
    for folder, name in ((run, "a.csv"), (out, "b.csv")):
        assert call("predict", folder, "--cache", cache, "--out", tmp_path / name) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
