"""Weights as several programs write them are read into both stages alike; other files are named; nothing in them runs."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from preprocess.prompts import encode_prompts
from shared.errors import FacetError
from shared.weights.identity import hash_arrays
from shared.weights.torchscript import read_torchscript
from train.model.image_tower import load_tower

MODEL = "tiny-vit"
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
PROMPTS = {"fear": ["a fearful face"]}
State = dict[str, Tensor]


@pytest.fixture(scope="module", autouse=True)
def clip(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """A small random CLIP of open_clip's own ViT layout."""
    path = tmp_path_factory.mktemp("config") / f"{MODEL}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    torch.manual_seed(5)
    model: nn.Module = open_clip.create_model(MODEL).eval()
    for parameter in model.parameters():  # biases and norms start alike: none may be mistaken for another
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def state(clip: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in clip.state_dict().items()}


def image_hash(state: State) -> str:
    return hash_arrays(
        {k.removeprefix("visual."): v.float().numpy() for k, v in state.items() if k.startswith("visual.")}
    )


def read_both(path: Path) -> tuple[str, str, Any]:
    """What each stage makes of a file: hashes of the image tower; the configuration of the trained one."""
    text = encode_prompts(PROMPTS, model=MODEL, pretrained=str(path))
    _, config = load_tower(MODEL, str(path), seed=0)
    return text.image_tower_hash, config.weights_hash, config


def refusal(path: Path) -> str:
    """What both stages say of a file: one line that names it."""
    said = []
    for read in (
        lambda: encode_prompts(PROMPTS, model=MODEL, pretrained=str(path)),
        lambda: load_tower(MODEL, str(path), seed=0),
    ):
        with pytest.raises(FacetError) as caught:
            read()
        said.append(str(caught.value))
        assert said[-1].startswith(f"{path}: ")
        assert "\n" not in said[-1] and "--pretrained FILE" not in said[-1]
    return " | ".join(said)


def wrap(prefix: str, state: State) -> State:
    return {prefix + name: tensor.contiguous() for name, tensor in state.items()}


def as_transformers(state: State) -> State:
    """transformers' CLIPModel layout (modeling_clip.py): its names, q, k and v apart, projections transposed."""
    names = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "logit_scale": "logit_scale",
    }
    words = (("visual.ln_pre", "vision_model.pre_layrnorm"), ("visual.ln_post", "vision_model.post_layernorm"),
             ("ln_final", "text_model.final_layer_norm"), ("visual.transformer.resblocks", "vision_model.encoder.layers"),
             ("transformer.resblocks", "text_model.encoder.layers"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
             ("c_fc", "fc1"), ("c_proj", "fc2"), ("attn.", "self_attn."))  # fmt: skip
    theirs = {
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
        "text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    for name, tensor in state.items():
        if name in ("visual.proj", "text_projection"):
            theirs["visual_projection.weight" if "visual" in name else "text_projection.weight"] = tensor.T.contiguous()
            continue
        new = names.get(name, name)
        for ours, word in words:
            new = new.replace(ours, word) if name not in names else new
        if "in_proj_" in new:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                theirs[new.replace("in_proj_", f"{letter}_proj.")] = part.contiguous()
        else:
            theirs[new] = tensor
    return theirs


def save_archive(path: Path, state: State, *, class_name: str = "N") -> None:
    """A TorchScript archive with a model's parameters in OpenAI's layout: a tree of modules, three numbers beside it."""
    kind = type(class_name, (nn.Module,), {})
    root = kind()
    for name, tensor in state.items():
        module = root
        *places, last = name.split(".")
        for place in places:
            if not hasattr(module, place):
                module.add_module(place, kind())
            module = getattr(module, place)
        module.register_parameter(last, nn.Parameter(tensor.clone(), requires_grad=False))
    for name, number in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
        root.register_buffer(name, torch.tensor(number))
    torch.jit.save(torch.jit.script(root), path)


def save_parts(folder: Path, state: State) -> Path:
    weight_map = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(state)}
    for part in set(weight_map.values()):
        save_file({name: state[name].contiguous() for name, held in weight_map.items() if held == part}, folder / part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder / "model.safetensors.index.json"


WAYS: dict[str, Callable[[Path, State], object]] = {
    "plain": lambda path, state: torch.save(state, path),
    "old format": lambda path, state: torch.save(state, path, _use_new_zipfile_serialization=False),
    "trained in parallel": lambda path, state: torch.save({"epoch": 3, "state_dict": wrap("module.", state)}, path),
    "compiled": lambda path, state: torch.save(wrap("_orig_mod.", state), path),
    "nested": lambda path, state: torch.save({"model": state, "optimizer": {"state": {0: {"a": torch.ones(2)}}}}, path),
    "deeply": lambda path, state: torch.save({"a": {"b": wrap("model.clip.", state)}}, path),
    "safetensors by another name": lambda path, state: save_file(wrap("", state), path, {"a": "b"}),
    "transformers": lambda path, state: torch.save(as_transformers(state), path),
    "OpenAI": lambda path, state: save_archive(path, state),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
def test_weights_of_many_makers_are_read_alike(way: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    WAYS[way](path, state)
    wanted = image_hash(state)
    assert read_both(path)[:2] == (wanted, wanted)
    if way == "transformers":  # the text tower too
        torch.save(state, tmp_path / "ours.pt")
        one, two = (encode_prompts(PROMPTS, model=MODEL, pretrained=str(p)) for p in (path, tmp_path / "ours.pt"))
        assert one.weights_hash == two.weights_hash


def test_parts_with_an_index_are_joined_and_stay_in_their_folder(state: State, tmp_path: Path) -> None:
    index = save_parts(tmp_path, state)
    assert read_both(index)[:2] == (image_hash(state),) * 2
    assert "one of several parts" in refusal(tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "names model-00002-of-00002.safetensors, which is not beside it" in refusal(index)
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.bin"}}))
    assert "not a file beside it" in refusal(index)
    index.write_text("[]")
    assert "not an index" in refusal(index)


def test_the_library_that_defines_the_layout_agrees(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    config = transformers.CLIPConfig(
        text_config={**sizes, "vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 64, "patch_size": 8}
    text = {**CONFIG["text_cfg"], "width": 64, "layers": 2}  # type: ignore[dict-item]
    (tmp_path / "tiny-theirs.json").write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "tiny-theirs.json")
    tower, described = load_tower("tiny-theirs", str(tmp_path / "model.safetensors"), seed=0)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs = model.get_image_features(images)
        theirs = theirs if isinstance(theirs, Tensor) else theirs.pooler_output
        assert torch.allclose(tower.eval()(images), theirs, atol=1e-5)
    assert described.config["quick_gelu"] is True  # config.json's default


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_the_activation_is_the_one_that_the_file_or_its_config_names(
    state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, config = tmp_path / "pytorch_model.bin", tmp_path / "config.json"
    torch.save(as_transformers(state), path)
    assert read_both(path)[2].config["quick_gelu"] is False
    assert capsys.readouterr().out.count("does not name its activation") == 2
    config.write_text(json.dumps({"model_type": "clip"}))
    assert read_both(path)[2].config["quick_gelu"] is True
    quick = encode_prompts(PROMPTS, model=MODEL, pretrained=str(path)).embeddings
    config.write_text(
        json.dumps(
            {"model_type": "clip", "text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "gelu"}}
        )
    )
    assert read_both(path)[2].config["quick_gelu"] is False
    assert not np.allclose(quick, encode_prompts(PROMPTS, model=MODEL, pretrained=str(path)).embeddings, atol=1e-4)
    config.write_text(json.dumps({"model_type": "clip", "vision_config": {"hidden_act": "relu"}}))
    assert "activation" in refusal(path)
    archive = tmp_path / "archive.pt"
    save_archive(archive, state, class_name="QuickGELU")
    assert read_both(archive)[2].config["quick_gelu"] is True
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
)
def test_an_archives_tensors_are_those_torch_reads(dtype: torch.dtype, tmp_path: Path) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            values = (torch.randn(4, 6) * 3).to(dtype)
            self.register_buffer("whole", values)
            self.register_buffer("turned", values.T[1:3])  # strides and an offset into the same storage
            self.register_buffer("number", values[0, 0].clone())

        def forward(self, x: Tensor) -> Tensor:
            return x

    path = tmp_path / "archive.pt"
    torch.jit.save(torch.jit.script(Holder()), path)
    found, is_quick = read_torchscript(path)
    wanted = torch.jit.load(path).state_dict()
    assert not is_quick and set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert np.array_equal(found[name], tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()), (
            name
        )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_nothing_in_a_file_runs(state: State, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (mark,))

    path = tmp_path / "weights.pt"
    torch.save({**state, "visual.proj": Payload()}, path)
    assert "may run code" in refusal(path)
    path.write_bytes(pickle.dumps({"a": Payload()}))
    refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"visual.proj": Payload()}))
        archive.writestr("a/constants.pkl", b"")
    refusal(path)
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, path)
    assert "argparse.Namespace" in refusal(path)

    class Writes(nn.Module):
        """torch.jit.load runs an archive's __setstate__; ours must not."""

        def __init__(self) -> None:
            super().__init__()
            self.training = False

        @torch.jit.export
        def __getstate__(self) -> tuple[Tensor, bool]:
            return torch.zeros(1), self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[Tensor, bool]) -> None:
            self.training = state[1]
            print("ran")

        def forward(self, x: Tensor) -> Tensor:
            return x

    torch.jit.save(torch.jit.script(Writes()), path)
    assert read_torchscript(path) == ({}, False)
    assert not mark.exists()


def hostile(name: str, state: State) -> object:
    values: dict[str, object] = {
        "NaN": {**state, "visual.proj": torch.full_like(state["visual.proj"], torch.nan)},
        "infinite": {**state, "visual.proj": torch.full_like(state["visual.proj"], torch.inf)},
        "quantised": {k: v.to(torch.int8) if v.ndim > 1 else v for k, v in state.items()},
        "of no content": {"visual.proj": torch.zeros(1, dtype=torch.half).expand(10**6, 10**6)},
        "another size": {**state, "visual.conv1.weight": torch.zeros(8, 3, 16, 16)},
        "more blocks": {**state, "visual.transformer.resblocks.2.ln_1.weight": torch.zeros(32)},
        "half": {k: v for k, v in state.items() if "resblocks.1" not in k},
        "text alone": {k: v for k, v in state.items() if not k.startswith("visual.")},
        "image alone": {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")},
        "LoRA": {"base_model.model.visual.transformer.resblocks.0.attn.lora_A.weight": torch.zeros(4, 4)},
        "a run": wrap("tower.", state),
        "nothing": {},
        "one tensor": torch.zeros(3),
    }
    return values[name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NaN", "visual.proj holds values that are no numbers"),
        ("infinite", "visual.proj holds values that are no numbers"),
        ("quantised", "int8: quantised"),
        ("of no content", "more values than the file holds"),
        ("another size", f"visual.conv1.weight is 8x3x16x16, in {MODEL} 32x3x8x8"),
        ("more blocks", f"has visual.transformer.resblocks.2.ln_1.weight, which {MODEL} has not"),
        ("half", "lacks "),
        ("text alone", "no image tower"),
        ("image alone", "an image tower alone"),
        ("LoRA", "LoRA adapters; merge"),
        ("a run", "FACET run"),
        ("nothing", "no tensors"),
        ("one tensor", "no tensors"),
    ],
)
def test_weights_that_do_not_fit_say_why(name: str, said: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(hostile(name, state), path)
    assert said in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b'{"error": "not found"}', "JSON text"),
        (b"\0" * 5000, "zero bytes"),
        (b"\xff\xff\xff\xff\xff\0\0\0{", "announces"),
        (b"GGUF\3\0\0\0", "begins with b'GGUF"),
        (b"once upon a time", "begins with b'once upon a '"),
    ],
)
def test_what_is_no_weights_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    assert said in refusal(path)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("way", ["plain", "old format", "safetensors by another name", "OpenAI"])
def test_a_file_cut_anywhere_is_said_to_be_cut(way: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    WAYS[way](path, state)
    whole = path.read_bytes()
    for length in (100, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        assert "cut short or damaged" in refusal(path) or length == 100


@pytest.mark.parametrize("name", ["nowhere.pt", "folder/weights", "model.safetensors.index.json"])
def test_a_file_that_is_not_there_is_not_taken_for_a_tag(name: str) -> None:
    for read in (
        lambda: encode_prompts(PROMPTS, model=MODEL, pretrained=name),
        lambda: load_tower(MODEL, name, seed=0),
    ):
        with pytest.raises(FacetError, match=r"no such file; check the path"):
            read()


def test_a_file_cannot_unpack_to_more_than_it_is(state: State, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "weights.pt"
    torch.save({"visual.proj": torch.zeros(1 << 20)}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert path.stat().st_size < 1 << 14
    assert "compressed, which torch never does" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:  # a place in the memo for which 16 GiB would be made room
        archive.writestr("a/data.pkl", b"\x80\x02}r\xff\xff\xff\x7f.")
        archive.writestr("a/constants.pkl", b"")
    assert "damaged" in refusal(path)


def test_folders_and_one_stages_half(state: State, tmp_path: Path) -> None:
    torch.save({k: v for k, v in state.items() if k.startswith("visual.")}, tmp_path / "visual.pt")
    assert "give the file in it: visual.pt" in refusal(tmp_path)
    load_tower(MODEL, str(tmp_path / "visual.pt"), seed=0)  # all that training needs
    with pytest.raises(FacetError, match="prompts need the text tower"):
        encode_prompts(PROMPTS, model=MODEL, pretrained=str(tmp_path / "visual.pt"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FacetError, match="a folder of transformers"):
        encode_prompts(PROMPTS, model=f"local-dir:{tmp_path}", pretrained="its own")


def test_position_embeddings_of_another_size_are_resized_with_a_note(
    state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pt"
    torch.save({**state, "visual.positional_embedding": torch.randn(37, 32)}, path)  # of 48 pixels
    read_both(path)
    assert capsys.readouterr().out.count("are resized (visual.positional_embedding is 37x32") == 2
