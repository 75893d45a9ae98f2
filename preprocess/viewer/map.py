"""The map page: the fused face embeddings of a test in two dimensions, coloured by label, prediction, subject or error."""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache

import numpy as np
from dash import html
from dash.development.base_component import Component

from preprocess.inspection.sheet import spread
from preprocess.viewer.address import COLOURS, KINDS, Address
from preprocess.viewer.parts import key_link, page_links, scripted
from preprocess.viewer.pictures import choose_kind
from preprocess.viewer.run_records import Fold
from preprocess.viewer.site import Site
from shared.runs import Prediction

MAX_POINTS = 50_000  # a browser still draws and searches these without delay
STEPS = 20_000  # positions along an axis; each axis is stretched to its points


def map_page(site: Site, address: Address) -> list[Component]:
    """Show one fold's map: every fold has its own model, so their embeddings cannot be compared."""
    head, folds = html.H1(f"Map of {site.run.name}"), site.run.folds
    notes = [html.P(note, className="notice") for note in site.run.notes]
    if not folds:
        return [head, *(notes or [html.P("The run recorded no embeddings.", className="notice")])]
    address = dataclasses.replace(address, fold=min(address.fold, len(folds) - 1))
    num_faces = len(folds[address.fold].items)
    some = f" {MAX_POINTS:,} of them are shown, evenly spread." if num_faces > MAX_POINTS else ""
    colours: list[Component | str] = ["colour: "]
    for index, name in enumerate(COLOURS):
        href = "/map" + dataclasses.replace(address, colour=name).query()
        colours.append(html.B(name) if name == address.colour else key_link(name, href, str(index + 1)))
    where = f"{folds[address.fold].name} ({address.fold + 1} of {len(folds)})"
    settings = {
        "points": f"/points/{address.fold}.json",
        "colour": address.colour,
        "query": Address(show=address.show, view=address.view).query(),
        "picture": f"/{site.view(address)}.png" if site.faces else "",
    }
    return [
        head,
        html.P(
            f"{num_faces:,} faces of {folds[address.fold].name}: their fused embeddings along the two principal components, "
            f"the directions in which they differ most.{some} Each axis is stretched to fill the page. Faces that are near "
            "here may be far apart in other directions."
        ),
        html.Nav(colours, className="pages"),
        *([page_links("/map", address, len(folds), field="fold", where=where)] if len(folds) > 1 else []),
        scripted("map", json.dumps(settings), "map"),
        html.P(
            "Click or Enter opens a face; arrows go from point to point; wheel, + and − zoom, drag moves, 0 shows all.",
            className="faint",
        ),
        *notes,
    ]


@lru_cache(maxsize=1)
def points_json(site: Site, fold: int) -> bytes | None:
    """Return the points of a fold for map.js; None if there is no such fold."""
    if fold >= len(site.run.folds):
        return None
    return json.dumps(describe_points(site, site.run.folds[fold]), separators=(",", ":")).encode()


def project(faces: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Compute principal components (Pearson 1901) of embeddings (n, d).

    Returns:
        Positions f64 (n, 2), and the fraction of the variance along each axis. An axis's largest weight is positive, so that
        the same embeddings give the same map.
    """
    centred = faces.astype(np.float64)
    centred -= centred.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = np.zeros((faces.shape[1], 2))
    found = vectors[:, ::-1][:, :2]
    axes[:, : found.shape[1]] = found * np.sign(found[np.abs(found).argmax(0), np.arange(found.shape[1])])
    fractions = np.append(values[::-1].clip(0) / max(float(values.sum()), 1e-12), 0)
    return centred @ axes, (float(fractions[0]), float(fractions[1]))


def describe_points(site: Site, fold: Fold) -> dict[str, object]:
    """Describe each point: x, y (0…STEPS), row, probability; and its values by name, as words and indices into them."""
    items = spread(fold.items, MAX_POINTS)
    empty: dict[str, object] = {"x": [], "y": [], "rows": [], "shares": [0, 0], "words": {}, "codes": {}}
    if not items:
        return {"num": 0, **empty}
    positions, shares = project(fold.attention.faces[items])
    positions -= positions.min(0)
    positions *= STEPS / np.maximum(positions.max(0), 1e-12)
    x, y = positions.round().astype(int).T.tolist()
    predictions = [fold.predictions.get(fold.attention.names[item]) for item in items]
    rows = [fold.row_of(item) for item in items]
    described = [_describe(site, row, one) for row, one in zip(rows, predictions, strict=True)]
    words = {name: sorted({one[name] for one in described}) for name in described[0]}
    index = {name: {word: i for i, word in enumerate(some)} for name, some in words.items()}
    codes = {name: [index[name][one[name]] for one in described] for name in words}
    sure = [round(site.run.probability(one), 3) if one else 0 for one in predictions]
    return {
        "num": len(fold.items), "x": x, "y": y, "rows": rows, "shares": shares, "words": words, "codes": codes, "sure": sure,
    }  # fmt: skip


def _describe(site: Site, row: int, prediction: Prediction | None) -> dict[str, str]:
    """Return the words of one point, for its card and its colour."""
    run, sample = site.run, site.cache.samples[row]
    label = sample.label
    if prediction and run.several:
        known = run.decide(prediction)
        label = "+".join(name for name in prediction.labels if name in known) or "none" if known else ""
    return {
        "label": label or "no label",
        "predicted": "+".join(prediction.predicted) or "none" if prediction else "no prediction",
        "subject": sample.subject,
        "picture": choose_kind(sample, KINDS[0]) or "",
        "error": run.describe_error(prediction) if prediction else "not known",
    }
