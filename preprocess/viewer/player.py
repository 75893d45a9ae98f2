"""The player of a sequence, with curves of its labels and of the probabilities of its frames."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from dash import html
from dash.development.base_component import Component

from preprocess.sequences.head_motion import SAME_POSE, HeadMotion
from preprocess.viewer.address import Address
from preprocess.viewer.labels import INTENSITY, MAX_INTENSITY
from preprocess.viewer.motion import can_draw_unstabilised, find_motion, list_tracks
from preprocess.viewer.parts import Cell, key_link, sample_address, scripted, view_title
from preprocess.viewer.pictures import choose_kind, has_picture
from preprocess.viewer.run_records import RunRecords
from preprocess.viewer.site import Site
from shared.pictures import centre_shift, order_views
from shared.runs import Prediction

DEFAULT_RATE = 25.0  # frames per second, where the data set gives none
RATES = (1, 5, 10, 25, 50)


def player_page(site: Site, address: Address) -> list[Component]:
    """Play the valid frames of the sequence that a row belongs to."""
    samples, row = site.cache.samples, address.row
    name = samples[row].sequence
    links = html.Nav([key_link("↑ sample", sample_address(row, address), "Escape")], className="pages")
    if not name:
        return [links, html.H1(samples[row].sample_id), html.P("A single scan: nothing to play.", className="notice")]
    rows = site.cache.frames(name)
    playable = [r for r in rows if choose_kind(samples[r], "texture")]
    kinds = [kind for kind in site.kinds() if any(has_picture(samples[r], kind) for r in rows)]
    sequence = next((s for s in site.cache.sequences if s.sequence == name), None)
    rate = (sequence.frames_per_second if sequence else None) or DEFAULT_RATE
    marks = {mark: getattr(sequence, mark, None) for mark in ("onset", "apex", "offset")}
    marks = {mark: frame for mark, frame in marks.items() if frame is not None}
    text = f"{len(playable)} frames"
    text += f", {len(rows) - len(playable)} not valid" if len(playable) < len(rows) else ""
    text += f"; {rate:g} per second" if sequence and sequence.frames_per_second else "; frame rate not known"
    text += f"; {', '.join(marks)}: {sequence.marks}" if sequence and marks and sequence.marks else ""
    motion = find_motion(site, playable)
    tags, views = site.tags.by_sample(), site.cache.info.settings.views
    film: dict[str, Any] = {
        "rows": playable,
        "frames": [samples[r].frame for r in playable],
        "start": playable.index(row) if row in playable else 0,
        "kinds": kinds,
        "kind": address.show if address.show in kinds else next(iter(kinds), ""),
        "views": [[view, view_title(views[view])] for view in order_views(views)],
        "shifts": [[f"{part:.2%}" for part in centre_shift(view)] for view in views],
        "view": site.view(address),
        "rate": rate,
        "rates": sorted({*RATES, round(rate, 3)}),
        "marks": {str(frame): mark for mark, frame in marks.items()},
        "tags": [tags.get(samples[r].sample_id, ()) for r in playable],
        **_curves(site, playable),
        "motion": list_tracks(site, playable, motion) if motion else [],
        "before": motion is not None and can_draw_unstabilised(site),
    }
    if site.faces and playable:
        screen = scripted("player", json.dumps(film), "player")
    else:
        screen = html.P("No faces are shown." if playable else "No frame is valid.", className="notice")
    return [links, html.H1(name), _headline(site, row), screen, html.P(text), html.P(_describe_poses(site, motion))]


def _describe_poses(site: Site, motion: HeadMotion | None) -> str:
    """Say whether the frames were stabilised, and what that changed."""
    if site.cache.info.settings.dynamic:
        return ""
    if motion is None:
        return f"Not stabilised: {SAME_POSE}."
    drawn = "" if can_draw_unstabilised(site) else " Frames are not shown as they were before: that takes depth."
    return (
        f"Stabilised: each frame has a pose of its own, by forehead and nose bridge. The head {motion.describe()}, against "
        f"the first frame.{drawn}"
    )


def _headline(site: Site, row: int) -> Component:
    """Show the label, and what each run predicted for the whole sequence."""
    sample = site.cache.samples[row]
    parts: list[Cell] = [html.Strong(sample.label or "no label")]
    parts += [f" · subject {sample.subject}"] if sample.subject else []
    for run in site.runs:
        one = run.predictions.get(row)
        if one and one.name == sample.sequence:
            style = "wrong" if run.count_errors(one) else "right"
            parts += [f" · {run.name} ", html.Span(f"→ {run.summarise(one)}", className=style)]
            parts += [] if run.several else [f" {run.probability(one):.2f}"]
    return html.P(parts, className="headline")


def _curves(site: Site, rows: list[int]) -> dict[str, Any]:
    """Return the curves of a sequence's frames for player.js.

    Returns:
        runs: names of the runs with predictions of single frames. tracks: name, bars and lines; bars: a number of 0…1 a frame,
        for labels 1 where present, or its intensity / 5; lines: probabilities, a line per run. None: not known. quiet: labels
        that are known, absent in every frame, and predicted in none.
    """
    samples, labels = site.cache.samples, site.labels
    values = labels.read(rows) if labels.names else np.empty((len(rows), 0), np.int8)
    runs = [run for run in site.runs if any(_of_frame(site, run, row) for row in rows)]
    names = dict.fromkeys([*labels.shown, *(name for run in runs for name in run.class_names)])
    tracks, quiet = [], []
    for name in names:
        bars: list[float | None]
        if name in labels.shown:
            level = name + INTENSITY if name + INTENSITY in labels.names else name
            known = zip(
                values[:, labels.names.index(name)].tolist(), values[:, labels.names.index(level)].tolist(), strict=True
            )
            bars = [
                None if a < 0 else (b / MAX_INTENSITY if level != name and b > 0 else 1) if a else 0 for a, b in known
            ]
        else:
            bars = [None if not samples[row].label else float(samples[row].label == name) for row in rows]
        lines = []
        for run in runs:
            predictions = [_of_frame(site, run, row) if name in run.class_names else None for row in rows]
            lines.append(
                [round(one.probabilities[run.class_names.index(name)], 3) if one else None for one in predictions]
            )
        if any(bars) or any(value and value >= 0.5 for line in lines for value in line):
            tracks.append({"name": name, "bars": bars, "lines": lines})
        elif any(value is not None for value in (*bars, *(value for line in lines for value in line))):
            quiet.append(name)
    for run in site.runs:
        record = run.find_attention(rows[0], samples[rows[0]]) if rows else None
        if record and record.fold.attention.rows.shape[1] > 1:
            weights = record.weigh_frames()
            largest = max(weights.values()) or 1.0
            bars = [weights.get(row, 0.0) / largest for row in rows]
            tracks.append({"name": f"frame weight, {run.name}", "bars": bars, "lines": []})
    return {"runs": [run.name for run in runs], "tracks": tracks, "quiet": quiet}


def _of_frame(site: Site, run: RunRecords, row: int) -> Prediction | None:
    """Return the prediction of a single frame; None if there is none, or one for its whole sequence."""
    one = run.predictions.get(row)
    return one if one and one.name == site.cache.samples[row].sample_id else None
