"""A run's attention on a sample's page: weights of the images, heat maps over them, and cosines with the prompts."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from dash import dcc, html
from dash.development.base_component import Component
from PIL import Image

from preprocess.viewer.address import KINDS, Address
from preprocess.viewer.parts import Cell, bar, centred, picture, run_query, sample_address, table
from preprocess.viewer.pictures import MODALITY_OF, has_picture
from preprocess.viewer.run_records import AttentionRecord
from preprocess.viewer.site import Site
from shared.pictures import order_views

HEAT_PX = 224
EVEN_STEPS = 4  # a patch with this multiple of the mean attention, or more, may be drawn at full brightness
CAVEAT = (
    "Attention shows how images were weighted, not why a class was chosen: an image with little weight may have decided, and "
    "one with much may not have mattered."
)
KIND_OF = {MODALITY_OF[kind]: kind for kind in KINDS}  # modality → how it is drawn


def find_record(site: Site, row: int) -> AttentionRecord | None:
    """Return what the run recorded about a row, if the row was tested."""
    return site.run.find_attention(row, site.cache.samples[row]) if row in site.run.predictions else None


def attention_notes(site: Site, row: int, record: AttentionRecord | None, address: Address) -> list[Component]:
    """Explain bars and colours of the pictures, and list the tested frames; nothing if the row was not tested."""
    if row not in site.run.predictions:
        return []
    if record is None:
        return [html.P(note, className="notice") for note in site.run.notes]
    attention = record.fold.attention
    frames = _frames(site, record, address) if attention.rows.shape[1] > 1 else []
    if record.frame is None:
        return frames
    between = (
        "beside it its part of CVSA's attention"
        if attention.view_attention is not None
        else "this model has no attention"
    )
    heat = ""
    if site.faces and has_maps(site, record):
        heat = " Colours: the last attention of the image tower, brighter where higher."
    elif site.faces and (attention.patch_place is None or attention.patch_place[record.item] >= 0):
        heat = " No heat map: the tower has no attention over patches, or the run was trained from embeddings."
    elif site.faces:
        heat = " No heat map: in large tests they are recorded for some faces only."
    text = f"Attention of {site.run.name}. Bar: weight of an image in the fused face, {between} between images.{heat} {CAVEAT}"
    return [*frames, html.P(text, className="faint")]


def attention_details(site: Site, row: int, record: AttentionRecord | None) -> list[Component]:
    """Show the similarity to each prompt, and the attention of each class; closed at first."""
    if record is None or site.run.class_names != record.fold.attention.class_names:
        return []
    attention, prediction = record.fold.attention, site.run.predictions[row]
    order = sorted(range(len(site.run.class_names)), key=lambda c: -prediction.probabilities[c])
    parts: list[Component] = []
    if attention.prompts or attention.class_share is not None:
        parts.append(html.Details([html.Summary("Prompts"), *_classes(site, row, record, order)]))
    if attention.class_attention is not None:
        head = html.Summary("Attention of each class to each image")
        parts.append(html.Details([head, *_class_attention(site, row, record, order)]))
    return parts


def compare_attention(site: Site, row: int) -> list[Component]:
    """Show what each run attended to, side by side; nothing unless two of them recorded it."""
    shown = []
    for run in site.runs:
        one = site.choose(run.name)
        record = find_record(one, row)
        if record is None or record.frame is None:
            continue
        stored, modalities = site.cache.info.settings.views, record.fold.attention.modalities
        views = [view for view in order_views(stored) if view in record.fold.views]
        rows = [[KIND_OF[m], *[_small(one, row, record, KIND_OF[m], view) for view in views]] for m in modalities]
        shown.append(html.Div([html.H3(run.name), table(["", *[f"{stored[view]}°" for view in views]], rows)]))
    return [html.H2("Attention of each run"), html.Div(shown, className="abreast")] if len(shown) > 1 else []


def _small(site: Site, row: int, record: AttentionRecord, kind: str, view: int) -> Component:
    parts = [picture(site, row, kind, view)] if site.faces else []
    return html.Div(attended(site, row, record, kind, view, parts), className="attended small")


def attended(
    site: Site, row: int, record: AttentionRecord | None, kind: str, view: int, parts: list[Component]
) -> list[Component]:
    """Lay the heat map of a tested image over its picture, with its weight below; only the picture if it was not tested.

    Args:
        parts: the picture, and what else lies over it.
    """
    index = None if record is None else record.find_image(MODALITY_OF[kind], view)
    if record is None or index is None:
        return [centred(site, view, parts, "screen")]
    attention = record.fold.attention
    weight = float(attention.view_weights[record.item, record.frame, index])
    heat = f"/attention/{row}/{index}.png{run_query(site)}" if has_maps(site, record) else ""
    screen = _screen(site, row, kind, view, parts, heat)
    numbers: list[Component] = [html.Span(f"{weight:.1%}", className="number")]
    if attention.view_attention is not None:
        mixed = float(attention.view_attention[record.item, record.frame, index])
        numbers.append(html.Span(f"attention {mixed:.1%}", className="faint"))
    return [screen, bar(weight), html.Div(numbers, className="weights")]


def has_maps(site: Site, record: AttentionRecord | None, class_index: int | None = None) -> bool:
    """Tell whether pictures of attention are shown: the image tower's, or a class's."""
    return site.faces and record is not None and record.read_maps(class_index) is not None


def heat_png(site: Site, row: int, image: int, class_index: int | None = None) -> bytes | None:
    """Draw an attention map of one image of a row, bright where attention is highest in all of the row's images.

    Args:
        image: index into the images, modality by modality and view by view.
        class_index: MTGF's attention of this class; None: the attention of the image tower.
    Returns:
        A PNG; None if nothing is recorded.
    Raises:
        FacetError: the file of maps is damaged.
    """
    samples = site.cache.samples
    record = site.run.find_attention(row, samples[row]) if row < len(samples) else None
    if record is None:
        return None
    maps = record.read_maps(class_index)
    if maps is None or image >= len(maps):
        return None
    maps = maps.astype(np.float32)
    return draw_heat(maps[image], max(float(maps.max()), EVEN_STEPS * float(maps.mean())))


def draw_heat(weights: np.ndarray, largest: float) -> bytes:
    """Draw a map (G, G) as a PNG with alpha, HEAT_PX wide: transparent at 0, bright and opaque at `largest`."""
    level = np.clip(weights.astype(np.float32) / max(largest, 1e-12), 0, 1)
    smooth = Image.fromarray(level).resize((HEAT_PX, HEAT_PX), Image.Resampling.BICUBIC)
    steps = np.clip(np.asarray(smooth) * 255, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([_colours()[steps], steps])).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@cache
def _colours() -> np.ndarray:
    """Return Matplotlib's colour map inferno, u8 (256, 3)."""
    from matplotlib import colormaps

    colours: np.ndarray = (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    return colours


def _frames(site: Site, record: AttentionRecord, address: Address) -> list[Component]:
    """List the frames of the sequence that were tested, with their weights."""
    attention = record.fold.attention
    shown = None if record.frame is None else int(attention.rows[record.item, record.frame])
    links: list[Cell] = []
    for row, weight in record.weigh_frames().items():
        text = f"frame {site.cache.samples[row].frame} ({weight:.0%})"
        links += [" · ", html.B(text) if row == shown else dcc.Link(text, href=sample_address(row, address))]
    lead = "Tested frames of this sequence: " if shown is not None else "This frame was not tested, but "
    return [html.P([lead, *links[1:]], id="tested-frames")]


def _screen(site: Site, row: int, kind: str, view: int, parts: list[Component], heat: str) -> Component:
    """Lay the heat map at the address `heat` over a picture; "": none."""
    if heat and has_picture(site.cache.samples[row], kind):
        parts = [*parts, html.Img(src=heat, alt="attention", className="heat")]
    return centred(site, view, parts, "screen")


def _classes(site: Site, row: int, record: AttentionRecord, order: list[int]) -> list[Component]:
    """List the classes, the most probable first, with their cosines to the prompts and their attention."""
    run, attention, prediction = site.run, record.fold.attention, site.run.predictions[row]
    shares, rows = attention.class_share, []
    for c in order:
        cells: list[Cell] = [f"{run.class_names[c]} {prediction.probabilities[c]:.3f}"]
        cells += [] if shares is None else [f"{float(shares[record.item, c]):.0%}"]
        cells += [_prompts(record, c, is_open=c in order[:2])] if attention.prompts else []
        rows.append(cells)
    heads = ["class", *["fraction from attention"] * (shares is not None)]
    heads += ["prompts, cosine with the face"] * bool(attention.prompts)
    text = "No cosines with prompts are recorded: the scores of this model do not follow from them."
    if attention.prompts:
        text = "The score of a class is the mean cosine of its prompts, scaled alike for all"
        text += ", plus a bias of the class." if run.several else "."
    if shares is not None:
        text += (
            " Fraction from attention: the part of a class's feature that MTGF attended to; the rest is the fused face."
        )
    return [html.P(text, className="faint"), table(heads, rows, "prompts")]


def _prompts(record: AttentionRecord, c: int, *, is_open: bool) -> Component:
    attention = record.fold.attention
    assert attention.prompt_cosines is not None
    cosines = attention.prompt_cosines[record.item, c, : len(attention.prompts[c])].astype(np.float32)
    prompts = zip(attention.prompts[c], cosines.tolist(), strict=True)
    items = [html.Li([f"“{prompt}” ", html.Span(f"{cosine:.3f}", className="number")]) for prompt, cosine in prompts]
    return html.Details([html.Summary(f"mean {cosines.mean():.3f}"), html.Ul(items)], open=is_open)


def _class_attention(site: Site, row: int, record: AttentionRecord, order: list[int]) -> list[Component]:
    """Show the attention of each class to each image over all frames, with heat maps if it attended to patches."""
    attention = record.fold.attention
    assert attention.class_attention is not None
    weights = attention.class_attention[record.item].astype(np.float32).sum(1)
    largest, drawn = float(weights.max()) or 1.0, has_maps(site, record, 0)

    def cell(c: int, index: int) -> Component:
        strength = f"{60 * float(weights[c, index]) / largest:.0f}%"
        style = {"background": f"color-mix(in srgb, var(--accent) {strength}, transparent)"}
        number = html.Span(f"{float(weights[c, index]):.0%}", className="shade", style=style)
        if not drawn:
            return number
        modality, place = divmod(index, len(attention.views))
        kind, view = KIND_OF[attention.modalities[modality]], record.fold.views[place]
        heat = f"/attention/{row}/{c}/{index}.png{run_query(site)}"
        screen = _screen(site, row, kind, view, [picture(site, row, kind, view)], heat)
        return html.Div([screen, number], className="attended small")

    views = order_views([site.cache.info.settings.views[view] for view in record.fold.views])
    images = [line * len(views) + view for line in range(len(attention.modalities)) for view in views]
    heads = [f"{modality} {attention.views[view]}°" for modality in attention.modalities for view in views]
    rows = [[attention.class_names[c], *[cell(c, index) for index in images]] for c in order]
    text = f"Each line adds up to 100 %{', over all frames' if attention.rows.shape[1] > 1 else ''}."
    text += " Colours: where in the image, brightest where the class attended most; key a." if drawn else ""
    return [html.P(text, className="faint"), table(["", *heads], rows, "counts")]
