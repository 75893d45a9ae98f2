"""The player of a sequence."""

from __future__ import annotations

import json

from dash import html
from dash.development.base_component import Component

from preprocess.viewer.address import Address
from preprocess.viewer.parts import key_link, sample_address, scripted, view_title
from preprocess.viewer.pictures import choose_kind, has_picture
from preprocess.viewer.site import Site

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
    film = {
        "rows": playable,
        "frames": [samples[r].frame for r in playable],
        "start": playable.index(row) if row in playable else 0,
        "kinds": kinds,
        "kind": address.show if address.show in kinds else next(iter(kinds), ""),
        "views": [view_title(view) for view in site.cache.info.settings.views],
        "view": site.view(address),
        "rate": rate,
        "rates": sorted({*RATES, round(rate, 3)}),
        "marks": {str(frame): mark for mark, frame in marks.items()},
    }
    if site.faces and playable:
        screen = scripted("player", json.dumps(film), "player")
    else:
        screen = html.P("No faces are shown." if playable else "No frame is valid.", className="notice")
    return [links, html.H1(name), screen, html.P(text)]
