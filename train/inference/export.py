"""`python -m train export`: copy a finished run to a self-contained folder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from shared.errors import FacetError
from shared.modalities import MODALITIES
from shared.runs import CONFIG_JSON, HASHES_JSON, SPLIT_JSON, THRESHOLDS_JSON, WEIGHTS, record_hashes
from shared.store.paths import is_litter
from shared.store.storage import make_folder, write_file
from train.config import Recipe, RunConfig, without_folders, write_config
from train.inference.evaluate import print_next_predict
from train.inference.program import PROGRAM, example_images, write_program
from train.inference.thresholds import read_thresholds, write_thresholds
from train.model.factory import load_run
from train.model.weights import replace_file
from train.protocols.folds import read_split, write_split
from train.tasks.task import find_task

README_MD = "README.md"
_FILES = (WEIGHTS, SPLIT_JSON, THRESHOLDS_JSON, PROGRAM, README_MD, CONFIG_JSON, HASHES_JSON)


def export(run: Path, out: Path, *, program: bool = False) -> int:
    """Write a folder that `predict` and `evaluate` accept as a run: model.safetensors, split.json, README.md, thresholds.json
    of multi-label tasks, and at last config.json: a folder without it is not finished.

    Paths of this machine are left out. Subject names stay, because `evaluate` must not test on training subjects.

    Args:
        program: also write model.pt2, which needs only PyTorch.
    Raises:
        FacetError: the run is not finished, or the folder is not empty.
    """
    config, model = load_run(run, torch.device("cpu"))
    split = read_split(run)
    thresholds = (
        read_thresholds(run, len(config.recipe.classes)) if find_task(config.recipe.task).has_thresholds else None
    )
    if out.exists() and not out.is_dir():
        raise FacetError(f"--out {out}: is a file; give a new folder")
    if (out / CONFIG_JSON).exists() or (
        out.is_dir() and any(p.name not in _FILES and not is_litter(p.name) for p in out.iterdir())
    ):
        raise FacetError(f"--out {out}: is not empty; give a new folder")
    make_folder(out, like=run)
    cache, config = config.cache, without_folders(config)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    replace_file(out / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    write_split(out, split)
    if thresholds is not None:
        write_thresholds(out, thresholds)
    if program:
        write_program(out / PROGRAM, config, model)
    num_weights = sum(value.numel() for value in tensors.values())
    write_file(out / README_MD, describe_export(config, num_weights, program=program).encode())
    write_config(out, config)
    record_hashes(out, [name for name in _FILES if name != HASHES_JSON])
    also = f", {PROGRAM}" if program else ""
    print(f"{len(tensors)} tensors, configuration{also} and {README_MD}: {out}")
    if cache:
        print_next_predict(out, cache)
    return 0


def describe_export(config: RunConfig, num_weights: int, *, program: bool = False) -> str:
    """Return the README.md of an exported model: a description, and Python that loads its tower, or the whole model, without
    this program."""
    recipe, tower = config.recipe, config.tower
    weights = "random initial weights" if config.is_random else f"initial weights {tower.pretrained}"
    prefix = "tower.towers.0." if recipe.towers == "view" else "tower."
    views = ", ".join(f"({view.yaw_deg:g}, {view.pitch_deg:g})" for view in config.render.views)
    return f"""# FACET-VLM: {", ".join(recipe.classes)}

Trained on {config.dataset} ({config.licence}); {tower.name}, {weights}; {num_weights / 1e6:.1f} M numbers.

- `model.safetensors`: every weight, f32. {_describe_tower(recipe)}; `text_mean` (classes, {config.text_dim}) holds
  {_describe_vectors(recipe)}, in the order above; the rest fuses views and scores classes.
- `config.json`: the recipe (`recipe.classes`, `recipe.modalities`), the tower's open_clip configuration (`tower.config`), the
  side of its images in pixels (`tower.image_size`), `tower.mean` and `tower.std` of RGB in 0 to 1, and how faces are drawn
  (`render`): {", ".join(recipe.modalities)} at (yaw, pitch) {views} degrees.
- `split.json`: which subjects trained and which are for testing.
- `hashes.json`: the sha256 of each file; `python -m train verify THIS_FOLDER` compares them.

The whole model, on scans that `python -m preprocess build` has drawn; no prompts or training data are needed:

    python -m train predict THIS_FOLDER --cache CACHE
    python -m train evaluate THIS_FOLDER --cache CACHE

Its image tower in a program of your own, in this folder:

```python
import json

from open_clip.model import CLIPVisionCfg, _build_vision_tower
from safetensors.torch import load_file

config = json.load(open("config.json"))["tower"]
vision = {{**config["config"]["vision_cfg"], "timm_model_pretrained": False}}
tower = _build_vision_tower(config["config"]["embed_dim"], CLIPVisionCfg(**vision), config["config"]["quick_gelu"])
weights = load_file("model.safetensors")
tower.load_state_dict({{k.removeprefix("{prefix}"): v for k, v in weights.items() if k.startswith("{prefix}")}})
tower.eval()  # images f32 (n, 3, S, S), (RGB in 0 to 1 - mean) / std -> features (n, d)
```

RGB in 0 to 1, of one channel three times the same:
{_describe_units(config)}
""" + (_describe_program(config) if program else "")


def _describe_tower(recipe: Recipe) -> str:
    if recipe.towers == "view":
        return "`tower.towers.0.*`, … are open_clip image towers, one for each view in the order below"
    return "`tower.*` is an open_clip image tower"


def _describe_vectors(recipe: Recipe) -> str:
    if recipe.head == "linear":
        return "the mean prompt embedding of each class, of which the linear classifier `head.weight` makes no use"
    if recipe.class_vectors == "learned":
        return "each class's learned vector"
    residual = recipe.class_vectors == "residual"
    return "the mean prompt embedding of each class" + ", to which the learned `text_residual` is added" * residual


def _describe_units(config: RunConfig) -> str:
    """Return a line per modality: stored values as the tower sees them."""
    dynamic = bool(config.render.dynamic)
    return "\n".join(f"- {name} = {m.describe_unit(dynamic=dynamic)}" for name, m in MODALITIES.items())


def _describe_program(config: RunConfig) -> str:
    shapes = "\n".join(
        f"#   {name}: {str(image.dtype).removeprefix('torch.')} (B, {', '.join(map(str, image.shape[1:]))})"
        for name, image in example_images(config, 1).items()
    )
    kind = "independent of each other" if find_task(config.recipe.task).several else "which add up to 1"
    first = ", after the reference" if config.recipe.reference != "none" else ""
    return f"""
The whole model with PyTorch alone, on rows as a cache holds them, without missing images. Opening a `{PROGRAM}` can run code:
open only one that you made, or that you trust. `model.safetensors` holds only numbers; opening it runs no code.

```python
import torch

program = torch.export.load("{PROGRAM}").module()
# images, by modality, for B samples of {config.recipe.frames} frame(s){first}, {len(config.render.views)} view(s) each:
{shapes}
# program(images) -> f32 (B, {len(config.recipe.classes)}): probabilities of the classes, {kind}
```
"""
