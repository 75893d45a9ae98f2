"""What of the tower is trained: the order of layers, its last blocks, low-rank changes; the same gradient in less memory."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from recipes import make_recipe
from test_facet import make_batch, make_model
from test_image_tower import TOWERS
from torch import nn

from shared.errors import FacetError
from train.model.facet import Facet
from train.model.image_tower import build_tower
from train.model.tuning import checkpoint_activations, layer_depths, merge_low_rank, tune_tower
from train.tasks.criterion import CrossEntropy
from train.training.optimizer import build_optimizer
from train.training.step import accumulate_gradients, train_step

LABELS = torch.tensor([0, 2, 1, 2])
RECIPE = make_recipe(lr=1e-2, tower_lr=1e-2)
TIMM_VIT = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}


def test_depths_of_open_clips_transformer() -> None:
    depths = layer_depths(build_tower({"embed_dim": 24, "vision_cfg": TOWERS["vit"]}))
    wanted = {"conv1.weight": 0, "class_embedding": 0, "positional_embedding": 0, "ln_pre.bias": 0}
    wanted |= {"transformer.resblocks.0.attn.in_proj_weight": 1, "transformer.resblocks.1.mlp.c_proj.bias": 2}
    wanted |= {"ln_post.weight": 3, "proj": 3}
    assert {name: depths[name] for name in wanted} == wanted


def test_depths_of_open_clips_resnet() -> None:
    depths = layer_depths(build_tower({"embed_dim": 24, "vision_cfg": TOWERS["resnet"]}))
    wanted = {"conv1.weight": 0, "bn3.bias": 0, "layer1.0.conv1.weight": 1, "layer4.0.bn3.bias": 4}
    wanted |= {"attnpool.c_proj.weight": 5}
    assert {name: depths[name] for name in wanted} == wanted


@pytest.mark.parametrize("vision", [TIMM_VIT, TOWERS["timm"]], ids=["vit", "convnext"])
def test_depths_of_timms_towers_are_timms_own(vision: dict[str, object]) -> None:
    """The rates timm's own optimiser factory gives, layer for layer."""
    from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

    tower = build_tower({"embed_dim": 24, "vision_cfg": vision})
    depths = layer_depths(tower)
    trunk = tower.trunk
    assert isinstance(trunk, nn.Module)
    names = {id(p): f"trunk.{name}" for name, p in trunk.named_parameters()}
    groups = param_groups_layer_decay(trunk, layer_decay=0.5)
    scales = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    num_groups = round(1 - math.log2(min(scales.values())))
    for name, scale in scales.items():
        if "norm" not in name or "blocks" in name:  # what follows the last block has a depth of its own here
            assert depths[name] == num_groups - 1 + math.log2(scale), name
    last = max(depths.values())
    assert len(set(depths.values())) > 3
    ends = {name for name, depth in depths.items() if depth == last}
    assert "head.proj.weight" in ends
    assert not any("blocks" in name for name in ends)
    assert any("blocks" in name for name, depth in depths.items() if depth == last - 1)


def test_rates_fall_from_the_last_layer_to_the_first() -> None:
    model = make_model()
    optimizer = build_optimizer(model, replace(RECIPE, lr=1.0, tower_lr=0.4, layer_decay=0.5))
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert set(rates) == set(names.values())
    assert rates["projection.weight"] == 1.0
    assert rates["tower.proj"] == rates["tower.ln_post.bias"] == 0.4
    assert rates["tower.transformer.resblocks.1.ln_1.weight"] == 0.2
    assert rates["tower.transformer.resblocks.0.attn.in_proj_weight"] == pytest.approx(0.1)
    assert rates["tower.conv1.weight"] == pytest.approx(0.05)


def train_two_steps(model: Facet) -> set[str]:
    """Names of what two steps changed of the tower, buffers included."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = build_optimizer(model, RECIPE)
    model.train()
    for _ in range(2):
        train_step(model, optimizer, make_batch(), LABELS, CrossEntropy(), torch.zeros(()))
    return {n for n, v in model.state_dict().items() if n.startswith("tower.") and not torch.equal(v, before[n])}


@pytest.mark.parametrize(
    ("tower", "tune", "moving"),
    [
        ("vit", "frozen", ()),
        ("vit", "last-0", ("ln_post", "proj")),
        ("vit", "last-1", ("transformer.resblocks.1", "ln_post", "proj")),
        ("resnet", "frozen", ()),
        ("resnet", "last-1", ("layer4", "attnpool")),
        ("vit", "last-99", ("",)),
        ("vit", "full", ("",)),
        ("timm", "last-1", ("trunk.stages.3.blocks.1", "trunk.head", "head")),
    ],
)
def test_only_what_is_tuned_moves(tower: str, tune: str, moving: tuple[str, ...]) -> None:
    """And all of it; running statistics of frozen batch norms stand still too."""
    model = make_model(tower)
    tune_tower(model, tune)
    wanted = {
        name
        for name in model.state_dict()
        if name.startswith("tower.") and name.removeprefix("tower.").startswith(moving)
    }
    still = {
        "tower.attnpool.k_proj.bias"
    }  # a shift of all keys changes no softmax: its gradient is nothing but rounding
    assert train_two_steps(model) - still == wanted - still


@pytest.mark.parametrize("vision", [TOWERS["vit"], {**TIMM_VIT, "image_size": 32}], ids=["open_clip", "timm"])
def test_low_rank_changes_train_and_merge(vision: dict[str, object]) -> None:
    model = make_model()
    if vision is not TOWERS["vit"]:
        tower = build_tower({"embed_dim": 24, "vision_cfg": {**vision, "image_size": 160}})
        tower.trunk.set_input_size((32, 32))  # type: ignore[union-attr, operator]
        model.tower = tower
    model.eval()
    batch = make_batch()
    plain = {name: value.clone() for name, value in model.tower.state_dict().items()}
    with torch.no_grad():
        before = model(batch).logits
        tune_tower(model, "lora-3")
        torch.testing.assert_close(model(batch).logits, before)  # B starts at zero
    moved = train_two_steps(model)
    names = {name.removeprefix("tower.") for name in moved}
    assert all("parametrizations" in name and name.rsplit(".", 1)[1] in "ab" for name in names)
    num_blocks = 1 + max(int(name.split("blocks.")[1].split(".")[0]) for name in plain if "blocks." in name)
    assert len(names) == num_blocks * 4 * 2  # attention in and out, MLP in and out; A and B
    assert all(tuple(model.state_dict()[name].shape)[name.endswith("b")] == 3 for name in moved)

    model.eval()
    with torch.no_grad():
        trained = model(batch).logits
        merge_low_rank(model)
        torch.testing.assert_close(model(batch).logits, trained, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(trained, before, atol=1e-2)
    merged = model.tower.state_dict()
    assert {name: v.shape for name, v in merged.items()} == {name: v.shape for name, v in plain.items()}
    changes = {name: merged[name] - value for name, value in plain.items() if not torch.equal(merged[name], value)}
    assert len(changes) == num_blocks * 4
    assert all(torch.linalg.matrix_rank(change, rtol=1e-4) <= 3 for change in changes.values())


def test_low_rank_changes_learn_as_new_layers_do() -> None:
    model = make_model()
    tune_tower(model, "lora")
    optimizer = build_optimizer(model, replace(RECIPE, lr=1.0, tower_lr=0.1, layer_decay=0.5))
    assert {group["peak_lr"] for group in optimizer.param_groups} == {1.0}


def test_a_tower_without_linear_blocks_has_no_low_rank_changes() -> None:
    with pytest.raises(FacetError, match="--tune lora: this image tower is not a transformer"):
        tune_tower(make_model("resnet"), "lora")


def test_a_tower_of_unknown_order() -> None:
    model = make_model()
    model.tower = nn.Linear(2, 24)
    with pytest.raises(FacetError, match="use --tune full"):
        tune_tower(model, "last-2")


@pytest.mark.parametrize("tower", ["vit", "timm"])
def test_activations_computed_again_give_the_same_gradient(tower: str) -> None:
    found = []
    for checkpointed in (False, True):
        model = make_model(tower)
        calls: list[int] = []
        blocks = [m for m in model.tower.modules() if type(m).__name__ in ("ResidualAttentionBlock", "ConvNeXtBlock")]
        blocks[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        if checkpointed:
            checkpoint_activations(model.tower)
        model.train()
        accumulate_gradients(model, make_batch(), LABELS, CrossEntropy())
        assert len(calls) == 1 + checkpointed  # once more in the backward pass
        found.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


def test_a_tower_that_cannot_compute_activations_again_says_so() -> None:
    with pytest.raises(FacetError, match="--gradient-checkpointing: this image tower does not support it"):
        checkpoint_activations(make_model("resnet").tower)
