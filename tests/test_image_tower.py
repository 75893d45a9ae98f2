"""The image tower alone gives what open_clip's whole model gives, for every family of towers, without the text tower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from preprocess.prompts import encode_prompts
from shared.errors import FacetError
from shared.weights.identity import hash_arrays
from train.config import TowerConfig
from train.model.image_tower import build_tower, hash_state, load_tower, read_model_config

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
TOWERS: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    "timm": {"timm_model_name": "test_convnext", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
}


def save_clip(folder: Path, vision: dict[str, Any], *, quick_gelu: bool = False) -> nn.Module:
    """A whole CLIP model with random weights, saved as open_clip saves one."""
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": quick_gelu}
    if "timm_model_name" in vision:
        config["custom_text"] = True
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    torch.manual_seed(5)
    model: nn.Module = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return model


@pytest.mark.parametrize("kind", TOWERS)
def test_features_are_those_of_the_whole_model(tmp_path: Path, kind: str) -> None:
    model = save_clip(tmp_path, TOWERS[kind], quick_gelu=kind == "vit")
    tower, config = load_tower(f"local-dir:{tmp_path}", "local", seed=0)
    tower.eval()
    images = torch.randn(2, 3, config.image_size, config.image_size)
    with torch.no_grad():
        assert torch.equal(tower(images), model.encode_image(images))  # type: ignore[operator]
    assert (config.mean, config.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert not config.random_weights
    visual = {k: v.numpy() for k, v in model.visual.state_dict().items()}  # type: ignore[union-attr]
    assert config.weights_hash == hash_arrays(visual)
    assert len(tower.state_dict()) == len(visual)


def test_weights_of_a_tag_are_run_with_the_activation_they_were_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip gives OpenAI's weights under ViT-B-16 too, whose configuration has another activation, and only warns."""
    model = save_clip(tmp_path, TOWERS["vit"], quick_gelu=True)
    config = {"embed_dim": 24, "vision_cfg": TOWERS["vit"], "text_cfg": TEXT}  # without quick_gelu
    (tmp_path / "tiny-tagged.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-tagged.json")
    monkeypatch.setenv("HOME", str(tmp_path))  # open_clip downloads to ~/.cache/clip
    weights = (tmp_path / "open_clip_model.safetensors").as_uri()
    tag = {"url": weights, "quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-tagged", {"own": tag, "plain": {"url": weights}})
    images, prompts = torch.randn(2, 3, 32, 32), {"fear": ["a fearful face"]}
    tower, described = load_tower("tiny-tagged", "own", seed=0)
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("tiny-tagged")(prompts["fear"])
        seen = model.encode_image(images)  # type: ignore[operator]
        said = model.encode_text(tokens, normalize=True)  # type: ignore[operator]
        assert torch.equal(tower.eval()(images), seen)
        assert torch.equal(rebuild(described, tower)(images), seen)  # what a run does with its config.json
        plain, described = load_tower("tiny-tagged", "plain", seed=0)
        assert not torch.allclose(plain.eval()(images), seen, atol=1e-3)
    assert described.config["quick_gelu"] is False
    text = encode_prompts(prompts, model="tiny-tagged", pretrained="own")
    assert text.embeddings[0] == pytest.approx(said.numpy(), abs=1e-6)


def rebuild(config: TowerConfig, tower: nn.Module) -> nn.Module:
    again = build_tower(config.config)
    again.load_state_dict(tower.state_dict())
    return again.eval()


def test_weights_from_a_file_and_in_half_precision(tmp_path: Path) -> None:
    save_clip(tmp_path, TOWERS["vit"])
    state = {k: v.half() for k, v in load_file(tmp_path / "open_clip_model.safetensors").items()}
    torch.save(state, tmp_path / "half.pth")
    (tmp_path / "open_clip_model.safetensors").unlink()
    _, config = load_tower(f"local-dir:{tmp_path}", "local", seed=0)  # finds the other file
    halves = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    assert config.weights_hash == hash_state(halves)  # loaded as f32, the same values


def test_random_weights_follow_the_seed_and_ship_as_facet_tiny() -> None:
    tower, config = load_tower("facet-tiny", "none", seed=3)
    assert config.random_weights
    assert config.weights_hash == load_tower("facet-tiny", "none", seed=3)[1].weights_hash
    assert config.weights_hash != load_tower("facet-tiny", "none", seed=4)[1].weights_hash
    again = build_tower(config.config)
    again.load_state_dict(tower.state_dict())  # the description is enough to build it again


def test_text_tower_is_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a text tower was built")

    monkeypatch.setattr(open_clip.model, "_build_text_tower", refuse)
    load_tower("ViT-S-32-alt", "none", seed=0)


def test_what_a_user_gets_wrong(tmp_path: Path) -> None:
    with pytest.raises(FacetError, match="open_clip knows no such model"):
        load_tower("ViT-Z-99", "none", seed=0)
    with pytest.raises(FacetError, match=r"neither a file nor a tag of ViT-B-32 .*laion2b_s34b_b79k.*local-dir:DIR"):
        load_tower("ViT-B-32", "laion9000b", seed=0)
    with pytest.raises(FacetError, match=r"no .*open_clip_config\.json"):
        load_tower(f"local-dir:{tmp_path}", "none", seed=0)
    path = tmp_path / "open_clip_config.json"
    path.write_text("{not json")
    with pytest.raises(FacetError, match="not valid JSON"):
        read_model_config(f"local-dir:{tmp_path}")
    path.write_text('{"model_cfg": {"embed_dim": 8}}')
    with pytest.raises(FacetError, match="vision_cfg"):
        read_model_config(f"local-dir:{tmp_path}")
    save_clip(tmp_path, TOWERS["vit"])
    weights = tmp_path / "open_clip_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FacetError, match="not a checkpoint"):
        load_tower(f"local-dir:{tmp_path}", "local", seed=0)
    save_file({"visual.conv1.weight": torch.zeros(3, 3)}, weights)
    with pytest.raises(FacetError, match="weights of another model"):
        load_tower(f"local-dir:{tmp_path}", "local", seed=0)
    save_file({"text.weight": torch.zeros(3, 3)}, weights)
    with pytest.raises(FacetError, match="holds no image tower"):
        load_tower(f"local-dir:{tmp_path}", "local", seed=0)
    weights.unlink()
    with pytest.raises(FacetError, match="no weights"):
        load_tower(f"local-dir:{tmp_path}", "local", seed=0)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    """A pickle that calls a function is refused, not obeyed."""
    save_clip(tmp_path, TOWERS["vit"])
    (tmp_path / "open_clip_model.safetensors").unlink()
    mark = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (mark,))

    torch.save({"visual.conv1.weight": Payload()}, tmp_path / "model.pth")
    with pytest.raises(FacetError, match="not a checkpoint"):
        load_tower(f"local-dir:{tmp_path}", "local", seed=0)
    assert not mark.exists()


def test_hash_of_weights_is_what_the_contract_says() -> None:
    import hashlib

    a, b = np.array([[1.5, -2]], np.float16), np.float32(3)
    digest = hashlib.sha256(b"a\n1,2\n" + a.astype("<f4").tobytes() + b"b\n\n" + b.astype("<f4").tobytes())
    assert hash_arrays({"b": np.asarray(b), "a": a}) == digest.hexdigest()
    assert hash_arrays({"a": a.T, "b": np.asarray(b)}) != digest.hexdigest()
