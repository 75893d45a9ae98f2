"""All defaults that depend on the data, and all rules between options. Imports nothing heavy unless an option needs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from shared.cache import Cache
from shared.errors import CacheError, FacetError
from shared.labels import NEUTRAL
from shared.schema import RenderSettings, parse_views
from shared.text import TextEmbeddings
from shared.weights.model_config import MODEL_CONFIG
from shared.weights.models import LOCAL_DIR, RANDOM
from train.data.prompts import read_prompts
from train.options import Options, Recipe, RunOptions
from train.protocols.named import DEFAULT_PROTOCOL, Protocol
from train.tasks.task import find_task

# The tower's learning rate as a fraction of --lr: pretrained features are to be adapted, not overwritten.
PRETRAINED_TOWER_RATE = 0.01
_SMALL_TOWERS = ("test_resnet",)  # timm's names; so few weights have to learn at --lr, pretrained or not
TRAIN_VIEWS = 2  # of each sample, in a training step


def check_options(options: Options) -> None:
    """Check the rules between options that need no data.

    Raises:
        FacetError: two options exclude each other; names both.
    """
    if options.mtgf_tokens == "patches":
        if options.head != "mtgf":
            raise FacetError(f"--mtgf-tokens patches: --head {options.head} uses no tokens; leave one of them out")
        if options.fusion == "late":
            raise FacetError("--mtgf-tokens patches: --fusion late scores each view alone; leave one of them out")
        if options.towers == "view":
            raise FacetError("--mtgf-tokens patches: needs one tower; leave out --towers view")
    if options.patience is not None and not options.validate:
        raise FacetError("--patience: needs validation subjects; add --validate 0.1")
    if options.class_vectors != "text" and options.head == "linear":
        raise FacetError(
            f"--class-vectors {options.class_vectors}: --head linear has vectors of its own; leave one of them out"
        )
    if options.towers == "view" and options.tune not in ("full", "frozen"):
        raise FacetError(f"--towers view: expected --tune full, found {options.tune}")
    if options.class_weights == "balanced" and find_task(options.task).has_values:
        raise FacetError(f"--class-weights balanced: is for yes or no, not for --task {options.task}; leave it out")
    if options.centre_scores != "none" and find_task(options.task).several:
        raise FacetError(f"--centre-scores: is for one of several classes, not for --task {options.task}; leave it out")
    if find_task(options.task).every_frame and _is_about_sequences(options):
        raise FacetError(
            f"--frames, --frame-sampling, --frame-window: are for sequences, and with --task {options.task} every frame is a "
            "sample; leave them out (--frame-stride trains on fewer frames)"
        )
    if options.frame_window and options.frame_sampling != "apex":
        raise FacetError("--frame-window: is around the apex; add --frame-sampling apex, or leave it out")
    if options.sampler == "balanced" and find_task(options.task).several:
        raise FacetError(
            f"--sampler balanced: a sample of --task {options.task} has several classes"
            + ("; use --class-weights balanced" if not find_task(options.task).has_values else "; leave it out")
        )


def _is_about_sequences(options: Options) -> bool:
    return (options.frames or 1) > 1 or bool(options.frame_window) or options.frame_sampling == "apex"


def resolve_embeddings(options: Options, run: RunOptions, out: Path) -> tuple[Options, RunOptions, list[str]]:
    """Decide whether a frozen tower's stored embeddings are used, and in which folder.

    Args:
        out: the run's folder, beside which --embeddings auto puts them.
    Returns:
        The options, with the augmentation that embeddings allow; the run's options, with the folder; notes.
    Raises:
        FacetError: embeddings are asked for with a tower that is trained, or with patch tokens.
    """
    if options.tune != "frozen" and run.embeddings not in ("auto", "off"):
        raise FacetError("--embeddings: need a tower that is not trained; add --tune frozen")
    if options.tune != "frozen" or run.embeddings == "off":
        return options, run, []
    if options.mtgf_tokens == "patches":
        raise FacetError(
            "--mtgf-tokens patches: stored embeddings of a frozen tower hold no patches; add --embeddings off to run the tower "
            "in every step, or train some of it (--tune lora)"
        )
    folder = out.absolute().parent / "embeddings" if run.embeddings == "auto" else Path(run.embeddings).absolute()
    run = dataclasses.replace(run, embeddings=str(folder))
    if options.augment != "standard":
        return options, run, []
    note = "training from embeddings of images and their mirror images: --augment flip; see --embeddings"
    return dataclasses.replace(options, augment="flip"), run, [note]


def split_off_fold(options: Options) -> tuple[Options, int | None]:
    """Return the options that all folds of a cross-validation share, and the only fold to train; None: all.

    Raises:
        FacetError: --test-subjects makes one test, not several folds.
    """
    if options.test_subjects:
        raise FacetError(
            "--test-subjects: is for one training, not for folds; use `python -m train fit`, or a file of folds as --protocol"
        )
    return dataclasses.replace(options, fold=None), options.fold


def resolve_task(protocol: Protocol, options: Options) -> str:
    """Return the task of a run, and check the options that depend on it.

    Raises:
        FacetError: the protocol is about another task, or an option is for other tasks.
    """
    task = options.task or protocol.task
    if task != protocol.task and protocol.datasets:
        raise FacetError(
            f"--task {task}: {protocol.name} is about {protocol.task}; leave --task out, or use --protocol {DEFAULT_PROTOCOL}"
        )
    if options.frame_stride > 1 and not find_task(task).every_frame:
        raise FacetError(
            "--frame-stride: is for action units, where every frame is a sample; --frames sets the frames per sequence"
        )
    check_options(dataclasses.replace(options, task=task))
    return task


def check_sequences(cache: Cache, options: Options) -> None:
    """Check that options for sequences are used only with a cache of sequences.

    Raises:
        FacetError: options of sequences for a cache of single scans.
    """
    if not cache.sequences and _is_about_sequences(options):
        raise FacetError(f"{cache.path}: holds no sequences; leave --frames, --frame-sampling and --frame-window out")


def check_reference(options: Options, classes: Sequence[str]) -> None:
    """Check that neutral scans are compared with once, and are no class themselves.

    Raises:
        FacetError: neutral scans are both a class and what faces are compared with, or are subtracted twice.
    """
    used = [f"--{name} neutral" for name in ("reference", "centre-scores")
            if getattr(options, name.replace("-", "_")) == NEUTRAL]  # fmt: skip
    if used and NEUTRAL in classes:
        raise FacetError(f"{used[0]}: a neutral scan would be compared with itself; leave neutral out of --classes")
    if len(used) > 1:
        raise FacetError(f"{' and '.join(used)}: both subtract the neutral scan; leave one of them out")


def resolve_views(cache: Cache, views: Sequence[str] | None) -> Cache:
    """Return the cache with the chosen views alone, in the cache's order; None: all.

    Raises:
        FacetError, CacheError: not angles, or the cache does not hold one of them.
    """
    if views is None:
        return cache
    stored = cache.info.settings.views
    wanted = {str(view): view for view in parse_views(",".join(views))}  # as text: a cache's may have more digits
    if len(wanted) < len(views):
        raise FacetError(f"--views: {','.join(views)!r} names one twice")
    if lacking := [text for text in wanted if text not in map(str, stored)]:
        cache.with_views([wanted[text] for text in lacking])  # raises
    return cache.with_views(tuple(view for view in stored if str(view) in wanted))


def take_views(cache: Cache, wanted: RenderSettings, modalities: Sequence[str], *, whose: str) -> Cache:
    """Return the cache with the views that a model is trained on.

    Raises:
        CacheError: the cache lacks them, or its images were rendered with other settings; names the first difference.
    """
    found = cache.info.settings
    for name in ("views", "size_px", "crop_radius_mm", "supersampling", "revision", "dynamic"):
        same = {*wanted.views} <= {*found.views} if name == "views" else getattr(found, name) == getattr(wanted, name)
        if not same:
            here, there = (one.views_text() if name == "views" else getattr(one, name) for one in (found, wanted))
            raise CacheError(
                f"{cache.path}: {name} {here}, but {whose} has {name} {there}; build a cache with the same view settings"
                + (f" (--{name.removesuffix('_px')} {there})" if name in ("views", "size_px") else "")
            )
    if missing := [m for m in modalities if m not in found.modalities]:
        raise CacheError(f"{cache.path}: holds no {', '.join(missing)}, which {whose} uses; build it with them")
    return cache.with_views(wanted.views)


def find_text(
    options: Options, classes: Sequence[str] | None, caches: Sequence[Cache], prompts: Path | None
) -> TextEmbeddings:
    """Read the prompt embeddings of the classes from a file, or from the first cache that has them all.

    Args:
        classes: None: all that the file, or the first cache with prompts, has. caches: all with the views of the first.
    Raises:
        FacetError, CacheError: there are none, or they are of another model than --model, or of other views.
    """
    views = caches[0].info.settings.views
    if prompts is not None:
        return read_prompts(prompts, options.model or "", classes, views)
    errors = []
    for cache in caches:
        try:
            return cache.read_text(options.model).select(classes).check_views(views)
        except CacheError as error:
            errors.append(error)
    raise errors[-1]


def default_tower_rate(lr: float, model: str, pretrained: str) -> float:
    """Return the tower's peak learning rate if --tower-lr is not given."""
    return lr if pretrained == RANDOM or is_small_tower(model) else PRETRAINED_TOWER_RATE * lr


def is_small_tower(model: str) -> bool:
    """Return whether a model is facet-tiny, or in a folder (local-dir:DIR) with a tower like that of facet-tiny."""
    folder = Path(model.removeprefix(LOCAL_DIR))
    if not model.startswith(LOCAL_DIR) or not (folder / MODEL_CONFIG).is_file():  # the folder of an export may be gone
        return model == "facet-tiny"
    from train.model.image_tower import read_model_config

    return read_model_config(model)["vision_cfg"].get("timm_model_name") in _SMALL_TOWERS


def _resolve_train_views(options: Options) -> int:
    assert options.views is not None
    has_towers = options.towers == "view" and options.tune != "frozen"
    if options.fusion == "concat" or has_towers:  # these know a view by its place among all
        return len(options.views)
    return min(options.train_views or TRAIN_VIEWS, len(options.views))


def resolve_model(options: Options, text: TextEmbeddings, initial: Recipe | None = None) -> Recipe:
    """Fill in the defaults that depend on the prompts; the recipe is complete.

    Args:
        options: with everything that depends on the data filled in.
        initial: of the model that the run starts from; its tower began with the same weights.
    Raises:
        FacetError: the image tower has no patch tokens, which --mtgf-tokens patches needs; or --init-from has another one.
    """
    model, pretrained = options.model or text.model, options.pretrained or text.pretrained
    if initial is not None:
        if options.pretrained is not None:
            raise FacetError("--pretrained: the initial weights are those of --init-from; leave one of them out")
        names = [name.removeprefix(LOCAL_DIR) for name in (model, initial.model)]
        if Path(names[0]).name != Path(names[1]).name:  # an exported model names no folder
            raise FacetError(
                f"--init-from {options.init_from}: its image tower is {names[1]}, the prompts are of {names[0]}; write prompts "
                f"with `python -m preprocess prompts --model {names[1]}`, or choose them with --model"
            )
        pretrained = initial.pretrained
    tower_lr = default_tower_rate(options.lr, model, pretrained) if options.tower_lr is None else options.tower_lr
    values = vars(options) | {
        "model": model,
        "pretrained": pretrained,
        "tower_lr": tower_lr,
        "towers": "shared" if options.tune == "frozen" else options.towers,  # equal towers stay equal
        "train_views": _resolve_train_views(options),
    }
    recipe = Recipe(**values)
    if recipe.mtgf_tokens == "patches":
        from train.model.image_tower import read_model_config
        from train.model.patch_tokens import count_channels

        count_channels(read_model_config(recipe.model))
    return recipe
