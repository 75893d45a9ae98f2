"""On a sample's page: what a run looked at, drawn on the pictures it saw, and what its prompts said."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from dash import dcc, html
from dash.development.base_component import Component
from PIL import Image

from preprocess.viewer.address import KINDS, Address
from preprocess.viewer.attention_records import AttentionRecord
from preprocess.viewer.catalogue import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from preprocess.viewer.pictures import MODALITY_OF, has_picture
from preprocess.viewer.site import Site, picture, sample_address, scripted, table
from shared.attention import Attention
from shared.modalities import get_modality

HEAT_PX = 224
EVEN_STEPS = 4  # a patch is drawn at its brightest from so many times its even share
NO_ATTENTION = " This model has no attention between pictures."
CAVEAT = (
    "Attention tells how pictures were weighed, not why a class was chosen: what had little weight may have decided, and "
    "what had much may not have mattered."
)
KIND_OF = {MODALITY_OF[kind]: kind for kind in KINDS}  # how a modality is drawn


def attention_section(site: Site, row: int, address: Address) -> list[Component]:
    """Nothing where the run has not seen the row."""
    if not site.run or row not in site.catalogue.predictions:
        return []
    look = site.looks.find(row)
    head = html.H2(f"Attention of {site.run}")
    if look is None:
        return [head, *[html.P(note, className="notice") for note in site.looks.notes]] if site.looks.notes else []
    parts: list[Component] = [head, html.P(CAVEAT, className="faint")]
    if look.test.attention.rows.shape[1] > 1:
        parts.append(_frames(site, look, address))
    if look.frame is not None:
        parts += _pictures(site, row, look)
    return [*parts, *_classes(site, row, look)]


def draw_heat(weights: np.ndarray, largest: float) -> bytes:
    """A map (G, G) as a PNG with alpha, HEAT_PX a side: clear where nothing was looked at, bright and opaque at `largest`."""
    level = np.clip(weights.astype(np.float32) / max(largest, 1e-12), 0, 1)
    smooth = Image.fromarray(level).resize((HEAT_PX, HEAT_PX), Image.Resampling.BICUBIC)
    steps = np.clip(np.asarray(smooth) * 255, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([_colours()[steps], steps])).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@cache
def _colours() -> np.ndarray:
    """u8 (256, 3)"""
    from matplotlib import colormaps

    table: np.ndarray = (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    return table


def heat_png(site: Site, row: int, place: int) -> bytes | None:
    """The map of one of a row's pictures, bright where most was looked at of all of them; None where there is none.

    Raises:
        FacetError: the file of maps is damaged.
    """
    look = site.looks.find(row) if 0 <= row < len(site.cache.samples) else None
    maps = None if look is None else look.patches()
    if maps is None or not 0 <= place < len(maps):
        return None
    even = 1 / maps[0].size  # attention that is spread evenly must not look like attention to something
    return draw_heat(maps[place], max(float(maps.max()), EVEN_STEPS * even))


def class_heat_png(site: Site, row: int, c: int, place: int) -> bytes | None:
    """As `heat_png`, of what the words of a class looked at: bright where they looked most of all its pictures."""
    look = site.looks.find(row) if 0 <= row < len(site.cache.samples) else None
    maps = None if look is None else look.class_patches()
    if maps is None or not 0 <= c < len(maps) or not 0 <= place < maps.shape[1]:
        return None
    weights = maps[c].astype(np.float32)
    return draw_heat(weights[place], max(float(weights.max()), EVEN_STEPS * float(weights.mean())))


def _frames(site: Site, look: AttentionRecord, address: Address) -> Component:
    """Which frames of a sequence were looked at, and how much each counts."""
    attention = look.test.attention
    links: list[Component | str] = []
    seen = zip(attention.rows[look.item].tolist(), attention.frame_weights[look.item].tolist(), strict=True)
    weights: dict[int, float] = {}
    for row, weight in seen:
        weights[row] = weights.get(row, 0.0) + weight  # short sequences repeat frames
    for place, (row, weight) in enumerate(weights.items()):
        here = look.frame is not None and row == attention.rows[look.item, look.frame]
        text = f"frame {site.cache.samples[row].frame} ({weight:.0%})"
        links += [" · " if place else " ", html.B(text) if here else dcc.Link(text, href=sample_address(row, address))]
    lead = "Of this sequence it looked at" if look.frame is not None else "It did not look at this frame, but at"
    return html.P([lead, *links], id="looked-frames")


def _pictures(site: Site, row: int, look: AttentionRecord) -> list[Component]:
    attention, sample = look.test.attention, site.cache.samples[row]
    assert look.frame is not None
    weights = attention.view_weights[look.item, look.frame].tolist()
    mixed = None if attention.view_attention is None else attention.view_attention[look.item, look.frame].tolist()
    has_maps = site.faces and look.patches() is not None
    views = attention.views
    rows: list[list[Component | str]] = []
    for number, modality in enumerate(attention.modalities):
        cells: list[Component | str] = [get_modality(modality).title(dynamic=bool(site.cache.info.settings.dynamic))]
        for view, angle in enumerate(views):
            place = number * len(views) + view
            shown: list[Component] = []
            if site.faces:
                alt = f"{modality} of {sample.sample_id} at {angle}°"
                shown = [picture(site, row, KIND_OF[modality], look.test.views[view], alt)]
            if has_maps and has_picture(sample, KIND_OF[modality]):
                shown.append(html.Img(src=f"/attention/{row}/{place}.png", alt="where it looked", className="heat"))
            told = f"{weights[place]:.1%}"
            below: list[Component] = [_bar(weights[place]), html.Span(told, className="number")]
            if mixed is not None:
                below.append(html.Span(f"attention {mixed[place]:.1%}", className="faint"))
            cells.append(html.Div([html.Div(shown, className="screen") if shown else "", *below], className="look"))
        rows.append(cells)
    note = (
        "Bars: each picture's weight in the fused face."
        + (" Below: its part of the attention between pictures." if mixed is not None else NO_ATTENTION)
        + (_tell_maps(attention, look, has_maps) if site.faces else "")
    )
    control = [scripted("overlay", "on", "light")] if has_maps or _has_class_maps(site, look) else []
    return [html.P(note), *control, table(["", *[f"{view}°" for view in views]], rows, class_name="views looks")]


def _tell_maps(attention: Attention, look: AttentionRecord, has_maps: bool) -> str:
    if has_maps:
        return " Colours: where the last attention of the image tower went, the more the brighter; key a."
    if attention.patch_place is None or attention.patch_place[look.item] >= 0:
        return (
            " This run kept no map of that: its tower has no attention over patches, or it was trained from embeddings."
        )
    return " Maps are kept of some faces of a large test alone, and this is none of them."


def _classes(site: Site, row: int, look: AttentionRecord) -> list[Component]:
    """Classes, the likeliest first: how probable, how their words looked, what their prompts said."""
    attention, said = look.test.attention, site.catalogue.predictions[row]
    if said.class_names != attention.class_names:
        return []
    order = sorted(range(len(said.class_names)), key=lambda c: -said.probabilities[c])
    heads = ["class", "probability"]
    heads += ["share of attention"] * (attention.class_share is not None)
    heads += ["prompts, cosine with the face"] * bool(attention.prompts)
    decisions = dict(said.decisions)
    label = site.cache.samples[row].label
    rows: list[list[Component | str]] = []
    for c in order:
        name = said.class_names[c]
        mark = decisions.get(name, "label" if name == label and not said.several else "")
        cells: list[Component | str] = [
            html.Span([name, *([html.Span(f" {mark}", className=_style(mark))] if mark else [])]),
            html.Div([_bar(said.probabilities[c]), f"{said.probabilities[c]:.3f}"]),
        ]
        if attention.class_share is not None:
            cells.append(f"{float(attention.class_share[look.item, c]):.0%}")
        if attention.prompts:
            cells.append(_prompts(attention, look.item, c, c in order[:2] or name == label))
        rows.append(cells)
    told = "No cosines with prompts were recorded: this model's scores do not follow from them, or its prompts are not known."
    if attention.prompts:
        told = "A class's score is the mean cosine of its prompts, scaled alike for all"
        told += ", plus a number of its own." if said.several else "."
    if attention.class_share is not None:
        told += (
            " Share of attention: the part of the class's own face vector that its words took from the pictures; the rest is "
            "the fused face."
        )
    parts: list[Component] = [html.H3("Prompts"), html.P(told), table(heads, rows, class_name="prompts")]
    if attention.class_attention is not None:
        parts += _class_attention(site, row, look, order)
    return parts


def _style(mark: str) -> str:
    return {FALSE_NEGATIVE: "wrong", FALSE_POSITIVE: "wrong", TRUE_POSITIVE: "right"}.get(mark, "faint")


def _prompts(attention: Attention, item: int, c: int, is_open: bool) -> Component:
    assert attention.prompt_cosines is not None
    cosines = attention.prompt_cosines[item, c, : len(attention.prompts[c])].astype(np.float32)
    words = html.Ul(
        [html.Li([f"“{words}” ", html.Span(f"{cosine:.3f}", className="number")])
         for words, cosine in zip(attention.prompts[c], cosines.tolist(), strict=True)]
    )  # fmt: skip
    return html.Details([html.Summary(f"mean {cosines.mean():.3f}"), words], open=is_open)


def _has_class_maps(site: Site, look: AttentionRecord) -> bool:
    return site.faces and look.class_patches() is not None


def _class_attention(site: Site, row: int, look: AttentionRecord, order: list[int]) -> list[Component]:
    """How much each class's words looked at each picture, over all frames, and where in it, if they looked at patches."""
    attention, sample = look.test.attention, site.cache.samples[row]
    assert attention.class_attention is not None
    weights = attention.class_attention[look.item].astype(np.float32).sum(1)
    names = [f"{m} {view}°" for m in attention.modalities for view in attention.views]
    largest = float(weights.max()) or 1.0
    has_maps, num_views = _has_class_maps(site, look), len(attention.views)

    def cell(c: int, place: int) -> Component:
        told = _shade(float(weights[c, place]), largest)
        modality, view = attention.modalities[place // num_views], place % num_views
        if not has_maps or not has_picture(sample, KIND_OF[modality]):
            return told
        alt = f"{modality} of {sample.sample_id} at {attention.views[view]}°"
        shown = picture(site, row, KIND_OF[modality], look.test.views[view], alt)
        heat = html.Img(
            src=f"/attention/{row}/{c}/{place}.png", alt=f"where {attention.class_names[c]} looked", className="heat"
        )
        return html.Div([html.Div([shown, heat], className="screen"), told], className="look small")

    rows: list[list[Component | str]] = [
        [attention.class_names[c], *[cell(c, place) for place in range(len(names))]] for c in order
    ]
    over = ", over all frames" if attention.rows.shape[1] > 1 else ""
    return [
        html.H3("Which picture each class's words looked at"),
        html.P(
            f"Each line adds up to 100 %{over}."
            + (" Colours: where in it, the brightest where a class's words looked most; key a." if has_maps else "")
        ),
        table(["", *names], rows, class_name="counts"),
    ]


def _shade(weight: float, largest: float) -> Component:
    share = f"{60 * weight / largest:.0f}%"
    style = {"background": f"color-mix(in srgb, var(--accent) {share}, transparent)"}
    return html.Span(f"{weight:.0%}", className="shade", style=style)


def _bar(part: float) -> Component:
    return html.Div(html.Div(style={"width": f"{min(max(part, 0), 1):.1%}"}), className="part")
