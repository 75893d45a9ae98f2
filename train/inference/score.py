"""Compute the scores of a trained model for the items of a cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from shared.attention_file import write_attention
from shared.cache import Cache
from shared.errors import FacetError
from shared.text import TextEmbeddings
from train.config import RunConfig
from train.data.batch_transform import BatchTransform
from train.inference.attention_records import AttentionTable, record_attention
from train.model.facet import Facet
from train.tasks.criterion import mean_cosine_between_faces
from train.tasks.item import Item
from train.tasks.task import find_task


@dataclass(frozen=True)
class Scores:
    """Scores of n items in their order.

    probabilities, logits: f32 (n, C); the probabilities of a row add up to 1, or are each a yes, for several classes at once.
    view_weights: "modality yaw" → mean weight α of that view in the face. face_cosine: mean cosine between different items'
    face vectors (near 1 = collapsed). frames: probabilities f32 (n, T, C) of each frame alone; None: not computed.
    at_rest: as `score_at_rest`; None: not needed.
    """

    items: Sequence[Item]
    probabilities: np.ndarray
    logits: np.ndarray
    view_weights: dict[str, float]
    face_cosine: float
    frames: np.ndarray | None = None
    at_rest: np.ndarray | None = None


@torch.inference_mode()
def score_items(
    model: Facet,
    cache: Cache,
    items: Sequence[Item],
    transform: BatchTransform,
    config: RunConfig,
    table: AttentionTable | None = None,
    *,
    neutral: Sequence[Item] = (),
    each_frame: bool = False,
) -> Scores:
    """Score every item, without augmentation, in the given order.

    Args:
        table: takes the attention weights of these passes.
        neutral: neutral scans of the items' subjects and others, as `find_neutral`; scored for `at_rest`.
        each_frame: also score each frame of a sequence alone.
    """
    model.eval()
    recipe, task = config.recipe, find_task(config.recipe.task)
    batches = [items[i : i + recipe.batch_size] for i in range(0, len(items), recipe.batch_size)]
    all_logits, probabilities, frames, faces, alphas, counts = [], [], [], [], [], []
    with (
        tqdm(total=len(items), desc="score", unit="sample", dynamic_ncols=True, leave=False, disable=None) as bar,
        nullcontext() if table is None else record_attention(model) as recording,
    ):
        references = recipe.reference != "none"
        prompts = None if table is None else table.prompt_tensor(transform.device)
        for raw in transform.stream(cache, batches, recipe.frames, references=references):
            batch = transform.prepare(raw)
            encoded = model.encode(batch)
            output = model.fuse(batch, *encoded)
            if table is not None and recording is not None:
                table.add(recording.take(batch, output, prompts))
            if each_frame:
                frames.append(task.compute_probabilities(model.score_frames(batch, *encoded)).cpu())
            all_logits.append(output.logits.cpu())
            probabilities.append(task.compute_probabilities(output.logits).cpu())
            faces.append(output.face.cpu())
            alphas.append(output.alpha.sum(0).cpu())
            counts.append(output.mask.sum(0).cpu())
            bar.update(len(raw.items))
    cache.check_unchanged()
    if not bool(torch.cat(probabilities).isfinite().all()):
        odd = int(torch.cat(probabilities).isfinite().all(1).logical_not().nonzero()[0])
        raise FacetError(
            f"{items[odd].name}: the model's scores are not finite (NaN); its weights are broken, fit again"
        )
    weights = torch.stack(alphas).sum(0) / torch.stack(counts).sum(0).clamp(min=1)
    names = [f"{modality} {view}" for modality in transform.modalities for view in transform.views]
    return Scores(
        items=items,
        logits=torch.cat(all_logits).numpy(),
        probabilities=torch.cat(probabilities).numpy(),
        frames=torch.cat(frames).numpy() if frames else None,
        at_rest=score_at_rest(model, cache, items, neutral, transform, config) if neutral else None,
        view_weights=dict(zip(names, weights.tolist(), strict=True)),
        face_cosine=mean_cosine_between_faces(torch.cat(faces)).item(),
    )


def score_at_rest(
    model: Facet,
    cache: Cache,
    items: Sequence[Item],
    neutral: Sequence[Item],
    transform: BatchTransform,
    config: RunConfig,
) -> np.ndarray:
    """Return the mean logits of the neutral scans of each item's subject, f32 (n, C); NaN if the subject has none."""
    own = np.array([cache.samples[item.rows[0]].subject for item in items])  # an item may have a prefix in its name
    neutral = [item for item in neutral if item.subject in own]
    logits = np.full((len(items), len(config.recipe.classes)), np.nan, np.float32)
    if neutral:
        images = replace(transform, embeddings=None)  # there are none of scans that are no samples
        found = score_items(model, cache, neutral, images, config).logits
        subjects = np.array([item.subject for item in neutral])
        for subject in set(subjects):
            logits[own == subject] = found[subjects == subject].mean(0)
    return logits


def score_and_write_attention(
    path: Path,
    model: Facet,
    cache: Cache,
    items: Sequence[Item],
    transform: BatchTransform,
    config: RunConfig,
    text: TextEmbeddings | None,
    *,
    neutral: Sequence[Item] = (),
    each_frame: bool = False,
) -> Scores:
    """Score items, and write the attention weights of the same passes."""
    table = AttentionTable(items, config.recipe.frames, text if model.has_text_scores else None)
    scores = score_items(model, cache, items, transform, config, table, neutral=neutral, each_frame=each_frame)
    write_attention(path, table.finish(config.recipe.classes, transform.modalities, cache.info.settings.views))
    return scores
