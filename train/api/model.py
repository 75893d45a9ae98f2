"""A trained model, or a CLIP model by its name, for use in Python."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.cache import Cache, open_cache
from shared.errors import FacetError
from shared.modalities import MODALITIES
from shared.runs import tabulate_predictions
from shared.schema import View
from shared.text_model import TextModel, open_text_model
from shared.weights.models import HUB, LOCAL_DIR, RANDOM, find_shipped, skip_unreachable_hub
from train.config import TowerConfig
from train.data.batch_transform import cameras_rad
from train.data.pixels import normalise, resize, to_device, to_unit
from train.inference.predictor import Predictor, choose_usable, find_lacking
from train.model.batch import Batch, Output
from train.model.facet import Facet, FacetConfig
from train.model.factory import choose_device
from train.model.image_tower import load_tower
from train.options import Options
from train.resolve import find_text
from train.studies.zero_shot import score_zero_shot

Images = Mapping[str, np.ndarray | Tensor]


class Model(nn.Module):
    """A trained model with everything between a cache's images and probabilities.

    facet: the network itself. classes, modalities, views: what it was trained with; views () = any.
    """

    def __init__(
        self,
        facet: Facet,
        tower: TowerConfig,
        classes: tuple[str, ...],
        modalities: tuple[str, ...],
        views: tuple[View, ...],
        *,
        has_time: bool = False,
        dynamic: bool = False,
        predictor: Predictor | None = None,
    ) -> None:
        """
        Args:
            has_time: images have a frame axis. dynamic: they are dynamic images. predictor: of the run.
        """
        super().__init__()
        self.facet, self.tower_config = facet, tower
        self.classes, self.modalities, self.views = classes, modalities, views
        self.has_time, self.dynamic, self._predictor = has_time, dynamic, predictor
        self._text_model: TextModel | None = None
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.facet.log_scale.device

    def forward(self, images: Images) -> Tensor:
        """Return the logits f32 (…, C) of faces; images: as in `encode`.

        Raises:
            FacetError: as `encode`; or it is a CLIP model, which has no classes of its own.
        """
        if not self.classes:
            raise FacetError("a CLIP model has no classes: use predict, or compare encode with encode_text")
        batch, leading = self._prepare(images)
        output: Output = self.facet(batch)
        return output.logits.unflatten(0, leading) if leading else output.logits[0]

    def encode(self, images: Images) -> Tensor:
        """Return face vectors f32 (…, D) of unit length. Gradients flow; use torch.no_grad() where none are needed.

        Args:
            images: modality → stored values, u8 (…, V, S, S, 3) or for depth u16 (…, V, S, S): a row `cache[i]`, several
                stacked, or `preprocess.render(…).images`. Missing modalities are masked; other keys are ignored. A model of
                sequences takes frames before V: (…, T, V, …), after a reference if it was trained with one. Or a batch of a
                CacheDataset with the same options: `images` f32 (B, T, M, V, 3, S, S), `present`, `has_reference`.
        Raises:
            FacetError: none of the model's modalities is there, or the views are others.
        """
        batch, leading = self._prepare(images)
        output: Output = self.facet(batch)
        return output.face.unflatten(0, leading) if leading else output.face[0]

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return embeddings f32 (N, D) of unit length, by the text tower that the initial weights belong to.

        Raises:
            FacetError: the weights are not here, or hold no text tower or no such words.
        """
        return torch.from_numpy(self.text_model.encode(texts)[1]).to(self.device)

    @property
    def text_model(self) -> TextModel:
        """Return the text tower; it is loaded when it is first needed."""
        if self._text_model is None:
            skip_unreachable_hub()
            import open_clip

            self._text_model = open_text_model(open_clip, torch, self.tower_config.name, self.tower_config.pretrained)
        return self._text_model

    def predict(self, cache: Cache | Path | str) -> dict[str, list[Any]]:
        """Return a table with a row per usable scan or sequence of a cache: column → values, as predictions.csv.

        `pandas.DataFrame(model.predict(cache))` has the columns sample_id, subject, label (empty: unlabelled), predicted,
        p_CLASS for each class, and lacks: the modalities that the sample lacks.

        Raises:
            CacheError: no finished cache, other view settings, or no usable sample.
        """
        assert self._predictor is not None
        inference = self._predictor.open(cache)
        _warn([*choose_usable(inference.cache, self.modalities)[1], *inference.describe_decisions()])
        predictions = inference.predict()
        lacks = find_lacking(inference.cache, inference.items, self.modalities)
        return tabulate_predictions(predictions, {"lacks": lacks})

    def _prepare(self, images: Images) -> tuple[Batch, tuple[int, ...]]:
        """Return the network's input, and the leading dimensions of `images`."""
        if "images" in images:
            units = torch.as_tensor(images["images"], device=self.device)
            if units.ndim != 7 or units.shape[2] != len(self.modalities):
                raise FacetError(
                    f"images {tuple(units.shape)}: expected (B, T, {len(self.modalities)}, V, 3, S, S) of a CacheDataset with "
                    f"modalities={','.join(self.modalities)}"
                )
            present = torch.as_tensor(images.get("present", torch.ones(units.shape[:3], dtype=torch.bool)))
            leading: tuple[int, ...] = (len(units),)
        else:
            units, present, leading = self._stack(images)
        num_views = units.shape[3]
        if self.views and num_views != len(self.views):
            raise FacetError(f"{num_views} views, this model has {len(self.views)}: {','.join(map(str, self.views))}")
        views = self.views or (View(0),) * num_views  # which a mean over views does not see
        units = normalise(resize(units, self.tower_config.image_size), self.tower_config.mean, self.tower_config.std)
        present = present.to(self.device)
        has_reference = None
        if self._predictor is not None and self._predictor.config.recipe.reference != "none":
            has_reference = torch.as_tensor(images.get("has_reference", present.new_ones(len(units)))).to(self.device)
        batch = Batch(
            images=units,
            present=present,
            cameras=cameras_rad(views, len(units), self.device),
            complete=bool(present.all()),
            has_reference=has_reference,
        )
        return batch, leading

    def _stack(self, images: Images) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Return images (B, T, M, V, 3, S, S) in 0…1, where they are present (B, T, M), and the leading dimensions."""
        found = {name: images[name] for name in self.modalities if name in images}
        if not found:
            raise FacetError(f"no {' or '.join(self.modalities)} among {', '.join(map(str, images)) or 'no images'}")
        parts: dict[str, Tensor] = {}
        for name, array in found.items():
            kind = MODALITIES[name]
            if array.ndim < 3 + len(kind.channels) + self.has_time or str(array.dtype).split(".")[-1] != kind.dtype:
                raise FacetError(
                    f"{name} {array.dtype} {tuple(array.shape)}: expected {kind.dtype} (…, {'T, ' * self.has_time}V, S, S"
                    f"{', 3' * len(kind.channels)}) as a cache stores it"
                )
            array = array if isinstance(array, np.ndarray) else array.numpy(force=True)
            pixels = to_device(np.ascontiguousarray(array), self.device)
            parts[name] = to_unit(pixels, name, dynamic=self.dynamic, background=self.tower_config.background)
        first = next(iter(parts.values()))  # (…, [T,] V, 3, S, S)
        if any(part.shape != first.shape for part in parts.values()):
            raise FacetError(f"images of different shapes: {', '.join(str(tuple(a.shape)) for a in found.values())}")
        leading = tuple(first.shape[: -4 - self.has_time])
        stacked = torch.stack([parts.get(name, torch.zeros_like(first)) for name in self.modalities], dim=-5)
        stacked = stacked.reshape(-1, *([1] * (not self.has_time)), *stacked.shape[len(leading) :])
        is_there = torch.tensor([name in parts for name in self.modalities])
        return stacked, is_there.expand(*stacked.shape[:2], -1), leading

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_text_model": None}


class ZeroShotModel(Model):
    """A CLIP model as it is: a face vector is the mean of its images' embeddings, a class is given by its prompts."""

    def predict(
        self,
        cache: Cache | Path | str,
        prompts: Mapping[str, Sequence[str]] | None = None,
        *,
        adapt: bool = True,
        centre: str | None = None,
    ) -> dict[str, list[Any]]:
        """Return a table as `Model.predict`, as `python -m train predict --zero-shot` computes it.

        Args:
            prompts: class → texts, with {view} where they say where a face is seen from; None: those in the cache.
            adapt: estimate batch statistics of the image tower on this cache's images first, without labels.
            centre: none; neutral: half of the scores of the subject's neutral scan is subtracted; subject or all: the mean
                over these scans, without labels; None: subject for BU-3DFE and BU-4DFE, else none.
        Raises:
            CacheError: no finished cache, no usable sample, or no prompts of this model.
            FacetError: fewer than two classes.
        """
        opened = cache if isinstance(cache, Cache) else open_cache(cache)
        name, pretrained = self.tower_config.name, self.tower_config.pretrained
        options = Options(model=name, pretrained=pretrained)
        if prompts is None:
            text = find_text(options, None, [opened], None)
        else:
            text = self.text_model.embed_prompts(prompts, opened.info.settings.views)
        tower = copy.deepcopy(self.facet.tower) if adapt else self.facet.tower
        found = score_zero_shot(
            options, opened, text, tower, self.tower_config, self.device, adapt=adapt, centre=centre
        )
        _warn(found.notes)
        return tabulate_predictions(found.predictions, {"lacks": found.lacks})


def load_model(source: Path | str, *, pretrained: str | None = None, device: str = "auto") -> Model:
    """Load a model.

    Args:
        source: a run folder of `fit`, a fold of `crossval`, an export, or a CLIP model: "facet-tiny", a name of open_clip,
            local-dir:DIR or hf-hub:ORG/NAME. Nothing in a folder is run as code.
        pretrained: weights of a CLIP model as `--pretrained`; None: those that ship or lie beside its configuration.
        device: auto, cpu, cuda, cuda:1 …
    Returns:
        In evaluation mode; a ZeroShotModel for a CLIP model.
    Raises:
        FacetError: no finished run, a damaged one, no such model or weights, no such device.
    """
    name = str(source)
    is_folder = Path(source).is_dir() or ("/" in name and not name.startswith((LOCAL_DIR, HUB)))
    if is_folder:
        if pretrained is not None:
            raise FacetError("pretrained: is for a CLIP model; a run has its own weights")
        predictor = Predictor.load(Path(source), device)
        config, recipe = predictor.config, predictor.config.recipe
        return Model(
            predictor.model,
            config.tower,
            recipe.classes,
            recipe.modalities,
            config.render.views,
            has_time=recipe.frames > 1 or recipe.reference != "none",
            dynamic=bool(config.render.dynamic),
            predictor=predictor,
        )
    if pretrained is None:
        pretrained = "its own" if ":" in name else next(iter(find_shipped(name)), None)
    if pretrained is None:
        raise FacetError(
            f"{name}: no folder of a run; for a CLIP model, give pretrained=TAG, a file, or {RANDOM!r} (random)"
        )
    where = choose_device(device)
    tower, tower_config = load_tower(name, pretrained, seed=0)
    dim = int(tower_config.config["embed_dim"])
    mean = FacetConfig(tower_dim=dim, num_modalities=len(MODALITIES), fusion="mean", head="cosine", losses={})
    facet = Facet(tower, np.zeros((0, dim), np.float32), 1.0, mean).to(where)
    return ZeroShotModel(facet, tower_config, (), tuple(MODALITIES), ())


def _warn(notes: Sequence[str]) -> None:
    for note in notes:
        warnings.warn(note, stacklevel=3)
