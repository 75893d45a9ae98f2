"""The README.md of an exported model: a model card as the Hugging Face Hub reads it, and how to use the files."""

from __future__ import annotations

from typing import Any

from shared.errors import count
from shared.modalities import MODALITIES
from train.config import RunConfig
from train.inference.open_clip_model import OpenClipModel
from train.inference.program import ONNX, PROGRAM, describe_program, example_images
from train.model.image_tower import find_hub_name
from train.options import Recipe
from train.reporting.limits import SUBTRACTED, find_limits
from train.reporting.scores import format_score
from train.runs.results import FoldResult
from train.tasks.task import find_task

_METRICS = {"macro_f1": "f1", "micro_f1": "f1", "uar": "recall"}  # names of the Hub; others are the same there
PAPER = (
    "Facial Emotion Learning with Text-Guided Multiview Fusion via Vision-Language Model for 3D/4D Facial Expression "
    "Recognition"
)


def write_card(
    config: RunConfig,
    num_weights: int,
    num_subjects: int,
    *,
    result: FoldResult | None = None,
    clip: OpenClipModel | str = "",
    program: bool = False,
    onnx: bool = False,
) -> str:
    """Return the card.

    Args:
        num_subjects: whom the model was trained on. result: of its test, if there was one.
        clip: the open_clip model in the folder, or why there is none. program, onnx: whether these files are there.
    """
    recipe, tower = config.recipe, config.tower
    weights = "random initial weights" if config.is_random else f"initial weights {tower.pretrained}"
    limits = "".join(f"\n\n**{line}.**" for line in find_limits(config))
    task = find_task(recipe.task)
    sections = [
        f"# FACET-VLM: {', '.join(recipe.classes)}{limits}",
        f"Predicts {task.noun} from rendered views of a 3D scan of a face: {', '.join(recipe.modalities)} at {_views(config)}. "
        f"{tower.name}, {weights}; {num_weights / 1e6:.1f} M numbers.",
        f"""## Intended use

Research on facial expressions in 3D scans and 4D sequences, on adults who agreed to it. Not intended to identify people, nor to
judge anybody's feelings, character, health or honesty: the model recognises shapes of the face as the data set labels them, and
what a person feels does not follow from them.

## Limits

- Scans of other sensors, poses, ages or groups of people than the training data's may be predicted wrongly. Test it on your own
  data first.
- It always answers with its classes, whatever a scan shows. Images must be drawn as described in `config.json`.
- Posed expressions are stronger than spontaneous ones. Probabilities may be too certain.

## Training data

{config.dataset}, {count(num_subjects, "subject")}. {config.licence}. These files hold no faces. Whether the weights may
be passed on, and for what use, depends on the licence of the data set: ask those who provide it.""",
        _describe_result(result),
        f"## Files\n\n{_describe_files(config, clip, program=program, onnx=onnx)}",
        f"""## Use

The whole model, on a scan, or on scans that `python -m preprocess build` has drawn; no prompts or training data are needed:

    python -m preprocess predict THIS_FOLDER face.obj --out picture.png
    python -m train predict THIS_FOLDER --cache CACHE
    python -m train evaluate THIS_FOLDER --cache CACHE

Its image tower in a program of your own, in this folder:

{_describe_tower_code(config, clip)}
RGB in 0 to 1, of one channel three times the same:
{_describe_units(config)}""",
        *([_describe_program(config)] if program else []),
        *([_describe_onnx(config)] if onnx else []),
        f"""## Citation

The method is the paper's; this implementation is independent of it. Cite the data set as its licence asks.

```bibtex
@misc{{facetvlm2025,
  title = {{{PAPER}}},
  year = {{2025}},
  note = {{arXiv preprint; authors as listed there}}
}}
```""",
    ]
    return f"---\n{_describe_metadata(config, result, clip)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _describe_metadata(config: RunConfig, result: FoldResult | None, clip: OpenClipModel | str) -> str:
    """Return the YAML that the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    centred = " of centred scores" * (result is not None and result.info.centred_scores != "none")
    found = [] if result is None else [(score, result.metrics[score.name]) for score in result.task.scores]
    scores = [
        EvalResult(
            task_type="image-classification",
            task_name="facial expressions of people who were not in training",
            dataset_type=config.test_dataset or config.dataset,
            dataset_name=config.test_dataset or config.dataset,
            dataset_split="test subjects",
            metric_type=_METRICS.get(score.name, score.name),
            metric_name=score.short_title + centred,
            metric_value=round(value, 4),
        )
        for score, value in found
        if value is not None
    ]
    card = ModelCardData(
        language="en",
        license="other",
        license_name="licence-of-the-training-data",
        license_link="README.md",
        library_name="pytorch" if isinstance(clip, str) else "open_clip",
        pipeline_tag="image-classification" if isinstance(clip, str) else "zero-shot-image-classification",
        base_model=find_hub_name(config.tower),
        tags=["facial-expression-recognition", "3d-face", "multiview", "clip", "facet-vlm"],
        metrics=list(dict.fromkeys(score.metric_type for score in scores)) or None,
        model_name="FACET-VLM" if scores else None,
        eval_results=scores or None,
    )
    text: str = card.to_yaml()
    return text


def _views(config: RunConfig) -> str:
    return "(yaw, pitch) " + ", ".join(f"({v.yaw_deg:g}, {v.pitch_deg:g})" for v in config.render.views) + " degrees"


def _describe_result(result: FoldResult | None) -> str:
    if result is None:
        return "## Evaluation\n\nNot tested."
    info, metrics = result.info, result.metrics
    rows = "\n".join(
        f"| {score.title} | {format_score(score, metrics[score.name])}{' %' * (score.kind == 'percent')} |"
        for score in (*result.task.scores, *result.task.references)
    )
    interval = ""
    if metrics.interval_95 is not None:
        low, high = metrics.interval_95
        interval = f"; 95 % interval of the {result.task.primary.short_title}: {100 * low:.1f} to {100 * high:.1f} %"
    subjects = count(info.num_test_subjects or 0, "subject")
    centred = "" if info.centred_scores == "none" else f"\n{_describe_centred(info.centred_scores)}"
    return f"""## Evaluation

On {subjects} of {info.dataset} not in training ({count(metrics.num_samples, "sample")}{interval}).
This is one split of the data set, not a cross-validation.{centred}

| score | value |
| --- | --- |
{rows}"""


def _describe_centred(centred_scores: str) -> str:
    """Return what the scores of a test with centred scores are, and are not."""
    return (
        f"They are of centred scores (`--centre-scores {centred_scores}`): {SUBTRACTED[centred_scores]}. `train predict` does "
        "the same with the scans of a cache. A scan that is predicted alone is not centred, and this table does not say how "
        "well that does."
    )


def _describe_files(config: RunConfig, clip: OpenClipModel | str, *, program: bool, onnx: bool) -> str:
    recipe = config.recipe
    lines = [
        f"`model.safetensors`: every weight, f32. {_describe_tower(recipe)}; `text_mean` (classes, {config.text_dim}) holds "
        f"{_describe_vectors(config)}, in the order above; the rest fuses views and scores classes.",
        "`config.json`: the recipe (`recipe.classes`, `recipe.modalities`), the tower's open_clip configuration "
        "(`tower.config`), the side of its images in pixels (`tower.image_size`), `tower.mean` and `tower.std` of RGB in 0 to "
        "1, and how faces are drawn (`render`).",
        "`split.json`: which subjects trained and which are for testing, named as in the data set.",
        "`hashes.json`: the sha256 of each file; `python -m train verify THIS_FOLDER` compares them.",
    ]
    if isinstance(clip, str):
        lines.append(f"No model for open_clip with a text tower: {clip}.")
    else:
        tokens = "the view tokens of this model" if clip.projects else "tokens before `projection.weight` of this model"
        known = f" It knows only the {clip.num_known:,} tokens of the prompts." if clip.num_known is not None else ""
        lines.append(
            "`open_clip_config.json`, `open_clip_model.safetensors`: the trained image tower and the text tower of its "
            f"prompts, as a model of open_clip, without what fuses views. Its image features are {tokens}.{known}"
        )
    lines += [f"`{PROGRAM}`: the whole model for PyTorch alone."] * program
    lines += [f"`{ONNX}`: the whole model for ONNX Runtime."] * onnx
    return "\n".join(f"- {line}" for line in lines)


def _describe_tower_code(config: RunConfig, clip: OpenClipModel | str) -> str:
    size = config.tower.image_size
    if not isinstance(clip, str):
        return f"""```python
import open_clip
import torch

model = open_clip.create_model("local-dir:.").eval()
tokenizer = open_clip.get_tokenizer("local-dir:.")
images = torch.zeros(2, 3, {size}, {size})  # (RGB in 0 to 1 - mean) / std, as in open_clip_config.json
with torch.no_grad():
    views = model.encode_image(images, normalize=True)
    texts = model.encode_text(tokenizer(["a happy face", "an angry face"]), normalize=True)
print(views @ texts.T)  # cosines
```
"""
    prefix = "tower.towers.0." if config.recipe.towers == "view" else "tower."
    return f"""```python
import json

import open_clip
from safetensors.torch import load_file

config = json.load(open("config.json"))["tower"]["config"]
vision = {{**config["vision_cfg"], "timm_model_pretrained": False}}
text = {{"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}}  # open_clip wants one; it is not used
tower = open_clip.CLIP(config["embed_dim"], vision, text, quick_gelu=config["quick_gelu"]).visual
weights = load_file("model.safetensors")
tower.load_state_dict({{k.removeprefix("{prefix}"): v for k, v in weights.items() if k.startswith("{prefix}")}})
tower.eval()  # images f32 (n, 3, {size}, {size}), (RGB in 0 to 1 - mean) / std -> features (n, d)
```
"""


def _describe_tower(recipe: Recipe) -> str:
    if recipe.towers == "view":
        return "`tower.towers.0.*`, … are open_clip image towers, one for each view in the order above"
    return "`tower.*` is an open_clip image tower"


def _describe_vectors(config: RunConfig) -> str:
    recipe = config.recipe
    if recipe.head == "linear":
        return "the mean prompt embedding of each class, of which the linear classifier `head.weight` makes no use"
    if recipe.class_vectors == "learned":
        return "each class's learned vector"
    residual = recipe.class_vectors == "residual"
    views = ", ".join(map(str, config.text_views))
    return (
        "the mean prompt embedding of each class"
        + ", to which the learned `text_residual` is added" * residual
        + f", and `view_text.differences` what is added for images of the views {views}" * bool(views)
    )


def _describe_units(config: RunConfig) -> str:
    """Return a line per modality: stored values as the tower sees them."""
    dynamic, background = bool(config.render.dynamic), config.tower.background
    filled = f", and {', '.join(f'{value:.4g}' for value in background)} where the value is 0,0,0" * any(background)
    return "\n".join(
        f"- {name} = {kind.describe_unit(dynamic=dynamic)}{filled * kind.is_colour}"
        for name, kind in MODALITIES.items()
    )


def _describe_inputs(config: RunConfig) -> str:
    first = ", after the reference" if config.recipe.reference != "none" else ""
    shapes = "\n".join(
        f"#   {name}: {str(image.dtype).removeprefix('torch.')} (B, {', '.join(map(str, image.shape[1:]))})"
        for name, image in example_images(config, 1).items()
    )
    return (
        f"# images, by modality, for B samples of {config.recipe.frames} frame(s){first}, {len(config.render.views)} view(s) "
        f"each:\n{shapes}"
    )


def _describe_output(config: RunConfig) -> str:
    kind = "independent of each other" if find_task(config.recipe.task).several else "which add up to 1"
    centred = "; not centred, see above" * (config.recipe.centre_scores != "none")
    return f"f32 (B, {len(config.recipe.classes)}): probabilities of the classes, {kind}{centred}"


def _describe_program(config: RunConfig) -> str:
    return f"""The whole model with PyTorch alone, on rows as a cache holds them, without missing images. Opening a
`{PROGRAM}` can run code: open only one that you made, or that you trust. `model.safetensors` holds only numbers; opening it
runs no code.

{describe_program(config)}

```python
import torch

program = torch.export.load("{PROGRAM}").module()
{_describe_inputs(config)}
# program(images) -> {_describe_output(config)}
```"""


def _describe_onnx(config: RunConfig) -> str:
    names: Any = ", ".join(f'"{name}": {name}' for name in config.recipe.modalities)
    return f"""The same with ONNX Runtime alone, on NumPy arrays. {describe_program(config)}

```python
import onnxruntime

session = onnxruntime.InferenceSession("{ONNX}")
{_describe_inputs(config)}
# session.run(None, {{{names}}})[0] -> {_describe_output(config)}
```"""
