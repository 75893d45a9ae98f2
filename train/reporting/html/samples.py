"""The samples that a run told worst: who, what was true, what was said, and pictures where the cache is still there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from shared.cache import Cache
from shared.errors import FacetError
from train.protocols.folds import list_some
from train.reporting.html.judged import JudgedSample, find_worst
from train.reporting.html.page import heading, paragraph, picture
from train.reporting.html.sample_pictures import draw_sample, encode_png_uri, find_rows, open_tested_cache
from train.runs.recorded import RecordedRun

MOST_CLASSES_TOLD = 3


def format_worst_samples(run: RecordedRun, most: int, *, faces: bool, moved: Mapping[str, Cache]) -> tuple[str, int]:
    """HTML, and the number of samples that are shown as pictures; what keeps pictures out is added to run.missing.

    Args:
        moved: as `open_tested_cache`.
    """
    predictions = [one for fold in run.folds for one in fold.predictions]
    if not predictions:
        return "", 0
    class_names = run.results[0].class_names
    several = run.config.recipe.is_multilabel
    worst = find_worst(predictions, class_names, most, multilabel=several)
    if not worst:
        return heading("Worst samples") + paragraph("None: every sample was told right."), 0
    uris = _draw(run, worst, moved) if faces else {}
    parts = []
    for one in worst:
        image = picture(uris[one.name], f"{one.name}, every view", "") if one.name in uris else ""
        parts.append(f"<figure>{image}<figcaption>{_caption(one, class_names)}</figcaption></figure>\n")
    what = "the least mean probability of what is true" if several else "the least probability of the true class"
    text = f"{len(worst)} that were told wrong, with {what} first. "
    if uris:
        text += "A line a modality, a column a view; of a sequence its middle frame. "
        if not run.config.render.dynamic and "normal" in run.config.recipe.modalities:
            text += "Normals are shown as relief, as a lamp would light the surface. "
        text += " ".join(run.licences)
    return (
        heading("Worst samples") + paragraph(text, "note") + f'<div class="samples">\n{"".join(parts)}</div>\n',
        len(uris),
    )


def _draw(run: RecordedRun, worst: Sequence[JudgedSample], moved: Mapping[str, Cache]) -> dict[str, str]:
    """name → data URI of those whose pictures can be had."""
    cache, reason = open_tested_cache(run.config, moved)
    if cache is None:
        run.missing.append(f"no pictures of samples: {reason}")
        return {}
    rows = find_rows(cache, [one.name for one in worst])
    if lost := [one.name for one in worst if one.name not in rows]:
        run.missing.append(f"no picture of {list_some(lost)}: not in {cache.path}")
    uris = {}
    for name, row in rows.items():
        try:
            uris[name] = encode_png_uri(draw_sample(cache, row, run.config.recipe.modalities))
        except FacetError as error:
            run.missing.append(f"no picture of {name}: {error}")
    try:
        cache.check_unchanged()
    except FacetError as error:
        run.missing.append(f"no pictures of samples: {error}")
        return {}
    return uris


def _caption(one: JudgedSample, class_names: Sequence[str]) -> str:
    true, said = ("+".join(names) or "none" for names in (one.labels, one.predicted))
    ranked = sorted(zip(one.probabilities, class_names, strict=True), reverse=True)[:MOST_CLASSES_TOLD]
    beliefs = ", ".join(f"{name} {100 * p:.0f} %" for p, name in ranked)
    return (
        f"<strong>{escape(one.name)}</strong> of {escape(one.subject)}: {escape(true)}, called {escape(said)} "
        f'(<data value="{one.belief!r}">{100 * one.belief:.1f} %</data> for the truth; {escape(beliefs)})'
    )
