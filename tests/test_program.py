"""The exported programs: PyTorch or ONNX Runtime, and the cache's own arrays alone, give the probabilities of `predict`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import SEEN, MakeCache
from test_build_embeddings import read_probabilities
from test_train_cli import QUICK, call, fails

from shared.cache import open_cache
from shared.errors import FacetError
from train.config import read_config
from train.inference.program import compare_onnx

MODALITIES = ("texture", "normal", "depth")
STRANGER = """
import sys, numpy, torch
program = torch.export.load(sys.argv[1]).module()
for path in sys.argv[2:]:
    images = {name: torch.from_numpy(array) for name, array in numpy.load(path).items()}
    numpy.save(path + ".npy", program(images).detach().numpy())
assert not {"train", "shared", "open_clip", "timm"} & set(sys.modules)
"""
KINDS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "classes": ({}, ["--background", "30,120,250", "--centre-scores", "subject"]),
    "targets of compared sequences, by patches and prompts of views": (
        {"units": "targets", "num_frames": 5, "scans_per_class": 1, "text_views": SEEN},
        ["--task", "targets", "--frames", 3, "--reference", "onset", "--mtgf-tokens", "patches"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_gives_what_predict_writes(
    tiny_cache: MakeCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    cache_options, options = KINDS[kind]
    has_onnx = kind == "classes"  # once: it takes seconds
    path, run, out = tiny_cache(modalities=MODALITIES, **cache_options), tmp_path / "run", tmp_path / "out"
    command = ["fit", "--cache", path, "--out", run, *QUICK, "--modalities", ",".join(MODALITIES), "--lr", 1e-2]
    assert call(*command, *options) == 0
    capsys.readouterr()
    assert call("export", run, "--out", out, "--program", *["--onnx"] * has_onnx) == 0
    printed, is_centred = capsys.readouterr().out, kind == "classes"
    alone = ["--centre-scores", "none"] if is_centred else []
    assert call("predict", out, "--cache", path, "--out", tmp_path / "wanted.csv", *alone) == 0
    wanted = read_probabilities(tmp_path / "wanted.csv")

    cache = open_cache(path)
    if "num_frames" in cache_options:  # the onset, then the middles of three thirds of 5 frames
        rows = {s.sequence: [s.first_row + k for k in (0, 0, 2, 4)] for s in cache.sequences}
    else:
        rows = {sample.sample_id: [row] for row, sample in enumerate(cache.samples)}
    found: dict[str, np.ndarray] = {}
    names = list(rows)
    batches = {str(tmp_path / "one.npz"): names[:1], str(tmp_path / "others.npz"): names[1:]}  # any number of samples
    for file, batch in batches.items():
        images = {m: np.stack([cache.arrays.read(m, rows[name]) for name in batch]) for m in MODALITIES}
        images["depth"] = images["depth"].astype(np.int32)
        np.savez(file, **images)  # type: ignore[arg-type]
    if has_onnx:
        stranger = [sys.executable, "-I", "-c", STRANGER, str(out / "model.pt2"), *batches]
        subprocess.run(stranger, cwd=tmp_path, check=True, timeout=120)
    else:
        program = torch.export.load(out / "model.pt2").module()
        for file in batches:
            tensors = {name: torch.from_numpy(array) for name, array in np.load(file).items()}
            np.save(file + ".npy", program(tensors).detach().numpy())
    for file, batch in batches.items():
        found |= dict(zip(batch, np.load(file + ".npy"), strict=True))
    assert set(found) == set(wanted)
    for name, probabilities in wanted.items():
        np.testing.assert_allclose(found[name], probabilities, atol=2e-5)
    assert torch.tensor(list(wanted.values())).std(0).max() > 1e-3  # they differ from face to face

    text, inside = (out / "README.md").read_text(), {"about": ""}
    torch.export.load(out / "model.pt2", extra_files=inside)
    about = str(inside["about"])
    assert f"model.pt2{', model.onnx' * has_onnx}: {about}" in printed and about in text
    assert ("NOT CENTRED" in about) == is_centred == ("CENTRED SCORES" in printed) == ("accuracy of centred" in text)
    assert 'torch.export.load("model.pt2")' in text
    assert "depth: int32 (B, 4, 3, 32, 32)" in text if cache_options else "depth: int32 (B, 1, 3, 32, 32)" in text
    if has_onnx:
        assert 'onnxruntime.InferenceSession("model.onnx")' in text
        data, traced = (out / "model.onnx").read_bytes(), torch.export.load(out / "model.pt2")
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        assert session.get_modelmeta().description == about
        for file, batch in batches.items():
            (probabilities,) = session.run(None, dict(np.load(file)))
            np.testing.assert_allclose(probabilities, [wanted[name] for name in batch], atol=2e-5)
        monkeypatch.setattr("train.inference.program.ONNX_TOLERANCE", -1.0)
        with pytest.raises(FacetError, match=r"differ by .* leave it out"):
            compare_onnx(data, traced, read_config(run))
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        assert "pip install onnx" in fails(capsys, "export", run, "--out", tmp_path / "none", "--onnx")
        assert not (tmp_path / "none").exists()
