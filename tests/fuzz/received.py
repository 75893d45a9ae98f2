"""Caches and runs that somebody sent, damaged at random: prompts, cache.json, records, settings, weights and attention.

Checksums are made to fit again, half of the time: a stranger's would.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conftest import TINY_CLIP, random_text, write_tiny_cache
from fuzz import containers, mutations
from fuzz.targets import Target
from tiny_training import RECIPE, TOWER, make_model

from shared.attention_file import read_attention
from shared.cache import open_cache, read_record
from shared.captions import Captions, read_captions, write_captions
from shared.runs import CONFIG_JSON, WEIGHTS, record_hashes
from shared.schema import RenderSettings, canonical_json, fingerprint
from shared.text import read_text_embeddings, write_text_embeddings
from train.config import RunConfig, write_config
from train.model.factory import load_run
from train.model.weights import write_weights
from train.protocols.folds import Fold, write_split

_TEXT, _CAPTIONS, _CACHE, _RUN = "text.h5", "tiny.captions.h5", "cache", "run"


def received_targets() -> list[Target]:
    """Each part of a cache or run that is read before anything else vouches for it."""
    torch.set_num_threads(1)
    whole = Path(tempfile.mkdtemp(prefix="facet-received-"))
    model = whole / "model"
    model.mkdir()
    (model / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CLIP}))
    write_text_embeddings(whole / _TEXT, random_text(RECIPE.classes, 32, "tiny"))
    write_captions(whole / _CAPTIONS, _caption())
    for name in (_TEXT, _CAPTIONS):
        (whole / f"{name}.sha256").unlink()
    write_tiny_cache(whole / _CACHE, model=f"local-dir:{model}", num_subjects=2, scans_per_class=1, num_frames=2)
    _write_run(whole / _RUN)
    return [
        _target("text HDF5", whole, _TEXT, mutations.mutate_binary, lambda folder: read_text_embeddings(folder / _TEXT)),
        _target("captions", whole, _CAPTIONS, mutations.mutate_binary, lambda folder: read_captions(folder / _CAPTIONS)),
        _target("cache.json", whole, f"{_CACHE}/cache.json", _mutate_signed, lambda folder: open_cache(folder / _CACHE)),
        _target(
            "shard record", whole, f"{_CACHE}/records/00000.json", _mutate_signed,
            lambda folder: read_record(folder / _CACHE, 0),
        ),
        _target("run settings", whole, f"{_RUN}/{CONFIG_JSON}", containers.mutate_json, _load_run, native=True),
        _target("weights", whole, f"{_RUN}/{WEIGHTS}", mutations.mutate_binary, _load_run, native=True),
        _target(
            "attention", whole, f"{_RUN}/attention.safetensors", mutations.mutate_binary,
            lambda folder: read_attention(folder / _RUN / "attention.safetensors"),
        ),
    ]  # fmt: skip


def _caption() -> Captions:
    index, tokens = np.array([[0, 1], [1, -1], [-1, -1]], np.int32), np.array([[5, 9, 0], [6, 7, 9]], np.int32)
    embeddings = np.array([[0.6, 0.8], [1, 0]], np.float32)
    return Captions(("a sad face", "a face"), index, tokens, embeddings, "tiny", "none", "0" * 64, True, "0" * 64)


def _write_run(run: Path) -> None:
    from shared.attention_file import Attention, write_attention

    run.mkdir()
    text = random_text(RECIPE.classes, 32, "tiny")
    config = RunConfig(
        RECIPE, TOWER, "tiny", "free", "0" * 64, RenderSettings(size_px=32), "0" * 64, text.embeddings.shape[2], True, ""
    )  # fmt: skip
    write_config(run, config)
    write_split(run, Fold("fold-00", ("S0",), ("S1",)))
    write_weights(run, make_model())
    items, pictures = 2, 6
    weights = np.full((items, 1, pictures), 1 / pictures, np.float16)
    write_attention(
        run / "attention.safetensors",
        Attention(
            ("a", "b"), RECIPE.classes, ("texture", "normal"), ("0", "20", "-20"), np.zeros((items, 1), np.int32),
            np.zeros((items, 32), np.float16), np.ones((items, 1), np.float16), weights, weights,
        ),
    )  # fmt: skip


def _load_run(folder: Path) -> None:
    load_run(folder / _RUN, torch.device("cpu"))


def _mutate_signed(rng: random.Random, data: bytes) -> bytes:
    data = containers.mutate_json(rng, data)
    if rng.random() < 0.7:
        try:
            value = json.loads(data)
            value.pop("checksum", None)
            data = canonical_json({**value, "checksum": fingerprint(value)}).encode()
        except (ValueError, AttributeError, TypeError, RecursionError):  # no document any more
            pass
    return data


def _target(
    name: str,
    whole: Path,
    file: str,
    mutate: mutations.Mutator,
    read: Callable[[Path], object],
    *,
    native: bool = False,
) -> Target:
    def prepare(rng: random.Random, case: int, folder: Path) -> Path:
        if not folder.exists():
            shutil.copytree(whole, folder)
        path = folder / file
        path.write_bytes(mutate(rng, (whole / file).read_bytes()) if case else b"")
        if file.startswith(_RUN):
            record_hashes(path.parent, (path.name,))
        return folder

    def warm_up(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # the last case's
        shutil.copytree(whole, folder)
        read(folder)

    def discard(folder: Path) -> None:  # what is read is checked where it is read, and no mesh
        read(folder)

    return Target(name, 10, prepare, discard, warm_up=warm_up, native=native)
