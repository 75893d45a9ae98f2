"""The prompts page: what a text tower was told of each class, and how far apart it keeps the classes."""

from __future__ import annotations

import numpy as np
from dash import html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.site import Site, table
from shared.text import TextEmbeddings, read_text_embeddings

NEARLY_THE_SAME = 0.98  # cosine of two classes' mean embeddings


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


def find_confusable(text: TextEmbeddings) -> list[str]:
    """One line for each two classes whose prompts are nearly the same to this tower, or share a text."""
    cosines = class_similarity(text)
    lines = []
    for a, first in enumerate(text.class_names):
        for b in range(a + 1, len(text.class_names)):
            second = text.class_names[b]
            shared = sorted({p for p in text.prompts[a] if p} & {p for p in text.prompts[b] if p})
            if shared:
                lines.append(f"{first} and {second} share the prompt “{shared[0]}”")
            if cosines[a, b] >= NEARLY_THE_SAME:
                lines.append(f"{first} and {second} are nearly the same: cosine {cosines[a, b]:.3f}")
    return lines


def _model(text: TextEmbeddings) -> list[Component]:
    cosines = class_similarity(text)
    rows: list[list[Component | str]] = [
        [name, *[_cell(float(value), a == b) for b, value in enumerate(cosines[a])]]
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


def _cell(value: float, itself: bool) -> Component:
    near = value >= NEARLY_THE_SAME and not itself
    return html.Span(f"{value:.3f}", className="wrong" if near else "off" if itself else "")
