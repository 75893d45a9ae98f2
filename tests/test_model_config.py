"""Model folders and runs that a stranger sent: their configs run no code, ask no network and take no more than they hold."""

from __future__ import annotations

import copy
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_CLIP

from shared.errors import FacetError
from shared.weights.model_config import MODEL_CONFIG, read_model_config
from train.model.image_tower import build_tower, load_tower


def change(**parts: dict[str, Any]) -> dict[str, Any]:
    config = copy.deepcopy(TINY_CLIP)
    for name, values in parts.items():
        config[name] = {**config.get(name, {}), **values}
    return config


HOSTILE = {
    "trust_remote_code": change(text_cfg={"tokenizer_kwargs": {"trust_remote_code": True}, "hf_tokenizer_name": "x/y"}),
    "tokenizer_file": change(text_cfg={"tokenizer_kwargs": {"tokenizer_file": "/etc/passwd"}}),
    "no mapping": change(text_cfg={"tokenizer_kwargs": ["trust_remote_code"]}),
    "text tower": change(text_cfg={"hf_model_name": "somebody/model"}),
    "timm hub": change(vision_cfg={"timm_model_name": "hf-hub:somebody/model"}),
    "timm folder": change(vision_cfg={"timm_model_name": "local-dir:/tmp"}),
    "width": change(vision_cfg={"width": 10**9}),
    "layers": change(vision_cfg={"layers": 10**9}),
    "layers of a ResNet": change(vision_cfg={"layers": [1, 10**6, 1, 1]}),
    "infinite": change(vision_cfg={"mlp_ratio": float("inf")}),
    "many": change(vision_cfg={"layers": [1] * 1000}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_folder_is_refused_by_both_stages(tmp_path: Path, name: str) -> None:
    from preprocess.text_tower import open_text_model

    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": HOSTILE[name]}))
    for read in (
        lambda: read_model_config(tmp_path / MODEL_CONFIG, from_hub=False),
        lambda: load_tower(f"local-dir:{tmp_path}", "none", seed=0),
        lambda: open_text_model(f"local-dir:{tmp_path}", "none"),
    ):
        with pytest.raises(FacetError):
            read()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"model_cfg": 1}', b"[" * 100_000, b"\xff"])
def test_what_is_no_config(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "open_clip_config.json").write_bytes(data)
    with pytest.raises(FacetError, match=r"open_clip_config\.json"):
        read_model_config(tmp_path / MODEL_CONFIG, from_hub=False)


def test_a_harmless_folder_is_read(tmp_path: Path) -> None:
    config = change(text_cfg={"tokenizer_kwargs": {"clean": "lower", "strip_sep_token": True}})
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    assert read_model_config(tmp_path / MODEL_CONFIG, from_hub=False)["model_cfg"] == config


def test_a_tower_larger_than_its_weights_is_not_built() -> None:
    config = change(vision_cfg={"width": 8192, "layers": 100, "head_width": 64})
    tracemalloc.start()
    with pytest.raises(FacetError, match="its image tower needs"):
        build_tower(config, most_bytes=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
    build_tower(TINY_CLIP, most_bytes=1 << 24)
