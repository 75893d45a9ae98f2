"""The map page: the fused face embeddings of a test in two dimensions, coloured by label, prediction, error and others."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from dash import dcc, html
from dash.development.base_component import Component

from preprocess.inspection.sheet import spread
from preprocess.viewer.address import COLOURS, KINDS, LAYOUTS, PEOPLE, Address
from preprocess.viewer.labels import ABSENT, PRESENT
from preprocess.viewer.parts import key_link, page_links, scripted
from preprocess.viewer.pictures import choose_kind
from preprocess.viewer.run_records import Fold
from preprocess.viewer.site import Site
from shared.runs import Prediction

NEIGHBOURS, PCA = LAYOUTS
SUBTRACTED, KEPT = PEOPLE
MAX_POINTS = {PCA: 50_000, NEIGHBOURS: 2_000}  # that a browser draws without delay; that are placed within 20 s
MIN_NEIGHBOURS = 8  # fewer faces are placed by their principal components
PERPLEXITY = 30
MAX_COMPONENTS = 50  # that neighbours are searched in
STEPS = 20_000  # positions along an axis; each axis is stretched to its points
_UMAP = find_spec("umap")
HAS_UMAP = _UMAP is not None and _UMAP.origin is not None  # not a folder of that name
METHOD = "UMAP (McInnes et al. 2018)" if HAS_UMAP else "t-SNE (van der Maaten & Hinton 2008)"
ABOUT = {
    NEIGHBOURS: f"placed by {METHOD}: near faces are alike; distances between groups, and axes, mean nothing.",
    PCA: "along the two principal components, the directions in which they differ most; faces that are near here may be far "
    "apart in other directions.",
}
MEANS = {
    SUBTRACTED: "The mean of each subject's faces is subtracted, so that expressions show and not people.",
    KEPT: "Faces of one subject are often near each other: subtract each subject's mean to see expressions.",
}
_placing = threading.Lock()  # a placement is computed once, however often it is asked for


def map_page(site: Site, address: Address) -> list[Component]:
    """Show one fold's map: every fold has its own model, so their embeddings cannot be compared."""
    head, folds = html.H1(f"Map of {site.run.name}"), site.run.folds
    notes = [html.P(note, className="notice") for note in site.run.notes]
    if not folds:
        return [head, *(notes or [html.P("The run recorded no embeddings.", className="notice")])]
    address = dataclasses.replace(address, fold=min(address.fold, len(folds) - 1))
    if address.colour not in (*COLOURS, *_class_colours(site)):
        address = dataclasses.replace(address, colour=COLOURS[0])
    num_faces, most = len(folds[address.fold].items), MAX_POINTS[address.layout]
    some = f" {most:,} of them are shown, evenly spread." if num_faces > most else ""
    apart = " Each fold has a model of its own, so faces of two folds cannot be on one map." if len(folds) > 1 else ""
    where = f"{folds[address.fold].name} ({address.fold + 1} of {len(folds)})"
    points = Address(run=address.run, layout=address.layout, people=address.people, colour=address.colour)
    settings = {
        "points": f"/points/{address.fold}.json{points.query()}",
        "colour": address.colour,
        "query": Address(show=address.show, view=address.view, run=address.run).query(),
        "picture": f"/{site.view(address)}.png" if site.faces else "",
    }
    keys = {name: str(index + 1) for index, name in enumerate(COLOURS)}
    classes = _class_colours(site)
    layouts = {NEIGHBOURS: METHOD.split()[0], PCA: "principal components"}
    return [
        head,
        html.P(
            f"{num_faces:,} faces of {folds[address.fold].name}: their fused embeddings, {ABOUT[address.layout]}{some} "
            f"{MEANS[address.people]}{apart}"
        ),
        html.Div(
            [
                _choices("layout", address, "layout", layouts, {NEIGHBOURS: "u", PCA: "u"}),
                _choices("subject means", address, "people", _same(PEOPLE), dict.fromkeys(PEOPLE, "m")),
                _choices("colour", address, "colour", _same(COLOURS), keys),
            ],
            className="choices",
        ),
        *([_choices("one class", address, "colour", _same(classes), {})] if classes else []),
        *([page_links("/map", address, len(folds), field="fold", where=where)] if len(folds) > 1 else []),
        scripted("map", json.dumps(settings), "map"),
        html.P(
            "Click or Enter opens a face; arrows go from point to point; wheel, + and − zoom, drag moves, 0 shows all; "
            "1 to 4 colour, u changes the layout, m the subtraction.",
            className="faint",
        ),
        *notes,
    ]


def _class_colours(site: Site) -> tuple[str, ...]:
    """Return the classes that can colour the map one at a time: those predicted together, and those of the cache."""
    return tuple(dict.fromkeys([*site.labels.shown, *(site.run.class_names if site.run.several else ())]))


def _same(values: Sequence[str]) -> dict[str, str]:
    return dict(zip(values, values, strict=True))


def _choices(title: str, address: Address, field: str, texts: dict[str, str], keys: dict[str, str]) -> Component:
    """Link to the values of a field of the address. keys: value → key that leads to it."""
    links: list[Component | str] = [html.Span(f"{title}:", className="faint")]
    for value, text in texts.items():
        href = "/map" + dataclasses.replace(address, **{field: value}).query()  # type: ignore[arg-type]
        if value == getattr(address, field):
            links.append(html.B(text))
        else:
            links.append(key_link(text, href, keys[value]) if value in keys else dcc.Link(text, href=href))
    return html.Nav(links, className="pages")


def points_json(site: Site, fold: int, address: Address) -> bytes | None:
    """Return the points of a fold for map.js; None if there is no such fold."""
    if fold >= len(site.run.folds):
        return None
    return json.dumps(describe_points(site, site.run.folds[fold], address), separators=(",", ":")).encode()


@lru_cache(maxsize=4)
def _place(site: Site, fold: Fold, layout: str, people: str) -> Placement:
    """Return where a fold's faces lie on the map."""
    items = spread(fold.items, MAX_POINTS[layout])
    faces = fold.attention.faces[items].astype(np.float64)
    subjects = [site.cache.samples[fold.row_of(item)].subject for item in items]
    if people == SUBTRACTED:
        faces = subtract_means(faces, subjects)
    labels = [_describe(site, fold, item)["label"] for item in items]
    some = spread(range(len(items)), MAX_POINTS[NEIGHBOURS])
    nearest = {
        name: share_of_nearest(faces[some], [words[i] for i in some])
        for name, words in (("label", labels), ("subject", subjects))
    }
    if layout == PCA or len(items) < MIN_NEIGHBOURS:
        return Placement(items, *project(faces), nearest)
    return Placement(items, place_neighbours(faces), None, nearest)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Positions of some items of a fold."""

    items: list[int]
    positions: np.ndarray  # f64 (n, 2)
    fractions: tuple[float, float] | None  # of the variance along each axis; None: axes mean nothing
    nearest: dict[str, float | None]  # "label", "subject": how often a face and the nearest other face have the same


def subtract_means(faces: np.ndarray, subjects: Sequence[str]) -> np.ndarray:
    """Subtract the mean of each subject's faces (n, d); from faces of subjects with one face, the mean of all."""
    centred = faces - faces.mean(0)
    _, index, counts = np.unique(np.array(subjects, str), return_inverse=True, return_counts=True)
    for subject in np.flatnonzero(counts > 1):
        own = index == subject
        centred[own] = faces[own] - faces[own].mean(0)
    return centred


def place_neighbours(faces: np.ndarray) -> np.ndarray:
    """Place faces (n, d) by UMAP if `umap-learn` is installed, else by t-SNE; the same faces give the same map.

    Returns:
        Positions f64 (n, 2).
    """
    centred = faces - faces.mean(0)
    if centred.shape[1] > MAX_COMPONENTS:
        _, vectors = np.linalg.eigh(centred.T @ centred)
        centred = centred @ vectors[:, -MAX_COMPONENTS:]
    num = min(PERPLEXITY, (len(faces) - 1) // 3)
    if HAS_UMAP:
        umap = import_module("umap").UMAP
        return np.asarray(umap(n_neighbors=max(num, 2), random_state=0, n_jobs=1).fit_transform(centred), float)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads that wait for a core in use take forty times as long
        return np.asarray(TSNE(perplexity=num, init="pca", max_iter=500, random_state=0).fit_transform(centred), float)


def share_of_nearest(faces: np.ndarray, words: Sequence[str]) -> float | None:
    """Return how often a face's nearest other face has the same word; None if there is no other word. faces: (n, d)."""
    if len(set(words)) < 2:
        return None
    squares = (faces**2).sum(1)
    distances = squares[:, None] + squares - 2 * faces @ faces.T
    np.fill_diagonal(distances, np.inf)
    return float(np.mean([words[a] == words[b] for a, b in enumerate(distances.argmin(1).tolist())]))


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


def describe_points(site: Site, fold: Fold, address: Address) -> dict[str, object]:
    """Describe each point: x, y (0…STEPS), row, probability; and its values by name, as words and indices into them."""
    empty: dict[str, object] = {"x": [], "y": [], "rows": [], "fractions": [0, 0], "words": {}, "codes": {}, "sure": []}
    if not fold.items:
        return {"num": 0, "nearest": {}, **empty}
    with _placing:
        placed = _place(site, fold, address.layout, address.people)
    positions = placed.positions - placed.positions.min(0)
    positions *= STEPS / np.maximum(positions.max(0), 1e-12)
    x, y = positions.round().astype(int).T.tolist()
    rows = [fold.row_of(item) for item in placed.items]
    described = [_describe(site, fold, item) for item in placed.items]
    if address.colour in _class_colours(site):
        for one, word in zip(described, _describe_class(site, fold, placed.items, address.colour), strict=True):
            one[address.colour] = word
    words = {name: sorted({one[name] for one in described}) for name in described[0]}
    index = {name: {word: i for i, word in enumerate(some)} for name, some in words.items()}
    codes = {name: [index[name][one[name]] for one in described] for name in words}
    predictions = [fold.predictions.get(fold.attention.names[item]) for item in placed.items]
    sure = [round(site.run.confidence(one), 3) if one else 0 for one in predictions]
    return {
        "num": len(fold.items), "x": x, "y": y, "rows": rows, "fractions": placed.fractions, "nearest": placed.nearest,
        "words": words, "codes": codes, "sure": sure,
    }  # fmt: skip


def _describe_class(site: Site, fold: Fold, items: Sequence[int], name: str) -> list[str]:
    """Return TP, FN, FP or TN of a class that is predicted, else whether the label says that it is present."""
    if site.run.several and name in site.run.class_names:
        predictions = [fold.predictions.get(fold.attention.names[item]) for item in items]
        return [site.run.decide(one).get(name, "not known") if one else "not known" for one in predictions]
    values = site.labels.read([fold.row_of(item) for item in items])[:, site.labels.names.index(name)]
    return [{0: ABSENT, 1: PRESENT}.get(value, "not known") for value in values.tolist()]


def _describe(site: Site, fold: Fold, item: int) -> dict[str, str]:
    """Return the words of one point, for its card and its colour."""
    run, sample = site.run, site.cache.samples[fold.row_of(item)]
    prediction: Prediction | None = fold.predictions.get(fold.attention.names[item])
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
