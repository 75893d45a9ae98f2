"""The prompts page: the prompts of each class, and how far apart their embeddings keep the classes."""

from __future__ import annotations

import json

import numpy as np
from dash import html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.image_checks import score_values
from preprocess.viewer.parts import scripted, table
from preprocess.viewer.site import Site
from shared.cache import find_text_files
from shared.text import TextEmbeddings, read_text_embeddings

# A tower cannot tell two classes apart if s·‖a − b‖, the largest possible difference of their logits, is below this: then
# their odds differ by less than a factor e, whatever the face. CLIP's s is near 100, so this means cosines above 0.99995.
SAME_LOGITS = 1.0
# Two classes are unusually close if ln(1 − cosine) is this far below that of the other pairs, as a modified z-score. Of 400
# simulated sets of 5 to 27 classes, 0 to 5 % had such a pair; of sets where one class was worded as another but for a tenth,
# 96 to 100 %; a fifth: 74 to 91 %; half: 3 to 13 %. Usual cosines differ by tower, so no fixed cosine would do.
CLOSE_SCORE = 5.0
MIN_PAIRS = 10
NUM_CLOSEST = 8  # pairs of classes that are listed


def prompts_page(site: Site, address: Address) -> list[Component]:
    """Show every file of prompt embeddings.

    Raises:
        CacheError: a file is damaged.
    """
    files = find_text_files(site.cache.path)
    command = html.Code(f"python -m preprocess prompts --cache {site.cache.path} --model NAME")
    parts = [part for path in files for part in _show_model(read_text_embeddings(path))]
    return [html.H1("Prompts"), *(parts or [html.P(["No prompts yet: ", command], className="notice")])]


def class_similarity(text: TextEmbeddings) -> np.ndarray:
    """Return the cosines (C, C) between the classes' mean prompt embeddings; NaN where a mean has length 0."""
    means = (text.embeddings * text.mask[..., None]).sum(1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines: np.ndarray = means @ means.T
    return cosines


def find_close(cosines: np.ndarray) -> np.ndarray:
    """Return bool (C, C): pairs of classes that are much closer than the others; none among fewer than MIN_PAIRS."""
    upper = np.triu(np.ones(cosines.shape, bool), 1) & np.isfinite(cosines)
    if upper.sum() < MIN_PAIRS:
        return np.zeros(cosines.shape, bool)
    close = np.zeros(cosines.shape, bool)
    close[upper] = score_values(-np.log(np.maximum(1 - cosines[upper], 1e-9)))[1] > CLOSE_SCORE
    return close | close.T


def find_confusable(text: TextEmbeddings) -> list[str]:
    """Return a line for each two classes that share a prompt, or that this tower hardly distinguishes."""
    cosines = class_similarity(text)
    close = find_close(cosines) & (not text.random_weights)
    usual = np.median(cosines[np.triu_indices(len(cosines), 1)]) if len(cosines) > 1 else 0
    lines = []
    for a, first in enumerate(text.class_names):
        for b in range(a + 1, len(text.class_names)):
            second = text.class_names[b]
            shared = sorted({p for p in text.prompts[a] if p} & {p for p in text.prompts[b] if p})
            if shared:
                lines.append(f"{first} and {second} share the prompt “{shared[0]}”")
            if text.logit_scale * np.sqrt(max(2 - 2 * cosines[a, b], 0)) < SAME_LOGITS:
                lines.append(f"this tower cannot distinguish {first} and {second}: cosine {cosines[a, b]:.3f}")
            elif close[a, b]:
                lines.append(
                    f"{first} and {second} are much closer than other classes: cosine {cosines[a, b]:.3f}, median {usual:.3f}"
                )
    return lines


def _show_model(text: TextEmbeddings) -> list[Component]:
    cosines = class_similarity(text)
    close = find_close(cosines) & (not text.random_weights)

    upper = np.triu_indices(len(cosines), 1)
    order = np.argsort(-np.nan_to_num(cosines[upper], nan=-1))[:NUM_CLOSEST]
    pairs = [(int(upper[0][i]), int(upper[1][i])) for i in order]
    closest = "; ".join(f"{text.class_names[a]}, {text.class_names[b]} {cosines[a, b]:.3f}" for a, b in pairs)
    about = {
        "names": text.class_names,
        "values": [[round(float(v), 3) if np.isfinite(v) else None for v in row] for row in cosines],
        "marked": np.argwhere(close).tolist(),
    }
    prompts = [
        [name, html.Ul([html.Li(prompt) for prompt in some if prompt])]
        for name, some in zip(text.class_names, text.prompts, strict=True)
    ]
    weights = "random weights: similarities mean nothing" if text.random_weights else f"weights {text.pretrained}"
    return [
        html.H2(f"{text.model}, {weights}"),
        *[html.P(line, className="warning") for line in find_confusable(text)],
        html.P(
            "Cosines between the classes' mean embeddings; the stronger the colour, the higher. "
            "Point at a number for three digits."
        ),
        scripted("matrix", json.dumps(about), "scrolls"),
        *([html.P(f"The closest: {closest}.")] if pairs else []),
        table(["class", "prompts"], prompts, "facts"),
    ]
