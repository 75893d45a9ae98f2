"""The prompts page: what a text tower was told of each class, and how far apart it keeps the classes."""

from __future__ import annotations

import numpy as np
from dash import html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.site import Site, table
from shared.text import TextEmbeddings, read_text_embeddings

# Two classes are one to a tower where s·‖a − b‖, the most by which their logits can differ whatever the face, is below this:
# their odds then differ by less than a factor e. CLIP's s is near 100, so that cosines above 0.99995 count.
SAME_LOGITS = 1.0
# Two classes are unusually close where ln(1 − cosine) lies this far below that of the cache's other pairs, as a modified
# z-score. Of 400 simulated sets of 5 to 27 classes that differ in a few common directions and a little at random, 0 to 5 % had
# such a pair; of sets where one class was worded as another but for a tenth, 96 to 100 %, a fifth 74 to 91 %, half 3 to 13 %.
# What cosines a trained tower gives differs by tower, so that no fixed cosine would do.
CLOSE_SCORE = 5.0
MIN_PAIRS = 10


def prompts_page(site: Site, address: Address) -> list[Component]:
    """Raises CacheError where a file of prompt embeddings is damaged."""
    files = site.cache.text_files()
    if not files:
        advice = f"python -m preprocess prompts --cache {site.cache.path} --model NAME"
        return [html.H1("Prompts"), html.P(["No prompts yet: ", html.Code(advice)], className="notice")]
    return [html.H1("Prompts"), *[part for path in files for part in _model(read_text_embeddings(path))]]


def class_similarity(text: TextEmbeddings) -> np.ndarray:
    """Cosines (C, C) between the classes' mean prompt embeddings; a mean of length 0 gives NaN."""
    means = (text.embeddings * text.mask[..., None]).sum(1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines: np.ndarray = means @ means.T
    return cosines


def find_close(cosines: np.ndarray) -> np.ndarray:
    """bool (C, C): pairs of classes much closer than the others are; none among fewer than MIN_PAIRS."""
    upper = np.triu(np.ones(cosines.shape, bool), 1) & np.isfinite(cosines)
    if upper.sum() < MIN_PAIRS:
        return np.zeros(cosines.shape, bool)
    nearness = -np.log(np.maximum(1 - cosines, 1e-9))
    median = np.median(nearness[upper])
    spread = np.median(np.abs(nearness[upper] - median)) / 0.6745
    close: np.ndarray = upper & (nearness - median > CLOSE_SCORE * max(spread, 1e-6))
    return close | close.T


def find_confusable(text: TextEmbeddings) -> list[str]:
    """One line for each two classes that share a prompt, or that this tower hardly tells apart."""
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
                lines.append(f"{first} and {second} are the same to this tower: cosine {cosines[a, b]:.3f}")
            elif close[a, b]:
                lines.append(
                    f"{first} and {second} are much closer than other classes: cosine {cosines[a, b]:.3f}, median {usual:.3f}"
                )
    return lines


def _model(text: TextEmbeddings) -> list[Component]:
    cosines = class_similarity(text)
    close = find_close(cosines) & (not text.random_weights)
    rows: list[list[Component | str]] = [
        [name, *[_cell(float(value), a == b, bool(close[a, b])) for b, value in enumerate(cosines[a])]]
        for a, name in enumerate(text.class_names)
    ]
    told: list[list[Component | str]] = [
        [name, html.Ul([html.Li(prompt) for prompt in prompts if prompt])]
        for name, prompts in zip(text.class_names, text.prompts, strict=True)
    ]
    weights = "random weights: similarities mean nothing" if text.random_weights else f"weights {text.pretrained}"
    return [
        html.H2(f"{text.model}, {weights}"),
        *[html.P(line, className="warning") for line in find_confusable(text)],
        html.P("Cosines between the classes' mean embeddings:"),
        table(["", *text.class_names], rows, class_name="counts"),
        table(["class", "prompts"], told, class_name="facts"),
    ]


def _cell(value: float, itself: bool, close: bool) -> Component:
    return html.Span(f"{value:.3f}", className="wrong" if close else "off" if itself else "")
