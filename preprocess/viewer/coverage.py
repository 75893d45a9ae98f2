"""The coverage page: who shows what, what failed and why, what stands out, what is mirrored or there twice."""

from __future__ import annotations

import dataclasses
from collections import Counter

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.inspection.summary import describe_sizes, group_failures
from preprocess.viewer.address import NONE, Address
from preprocess.viewer.likeness import find_same_sources
from preprocess.viewer.measures import Outlier
from preprocess.viewer.site import Site, page_links, sample_address, table, tile
from preprocess.viewer.statistics import MOST_PAIRS, Statistics
from shared.labels import NEUTRAL
from shared.likeness import HASH_SIDE

MAX_SHOWN = 60  # lines
MAX_TILES = 24
PAGE_SUBJECTS = 60
MAX_NAMED = 20
MAX_REASONS = 10
MEASURED = {
    "covered": ("covered", "{:.0%}"),
    "brightness": ("brightness", "{:.0f} of 255"),
    "contrast": ("contrast", "{:.0f} of 255"),
    "tilt": ("turned by", "{:.1f}°"),
    "depth_mm": ("depth", "{:.1f} mm"),
}
LOOK_AGAIN_SECONDS = 3


def coverage_page(site: Site, address: Address) -> list[Component]:
    """What the tables tell, at once; what images tell comes after it (`outliers_and_likenesses`)."""
    return [
        html.H1("Coverage"),
        *_subjects(site, address),
        *[html.P(line.strip()) for line in describe_sizes([s for s in site.cache.samples if s.valid])],
        *_failures(site, address),
        *_same_sources(site, address),
        html.Div(
            html.P("Reading the pictures …", className="notice"),
            id="statistics",
        ),
        dcc.Interval(id="look-again", interval=LOOK_AGAIN_SECONDS * 1000),
    ]


def outliers_and_likenesses(site: Site, address: Address, found: Statistics) -> list[Component]:
    """What the images looked at so far tell."""
    num_seen = len(found.rows) + len(found.damaged)
    looked = (
        f"{'Looked' if found.finished else 'Looking'} at {num_seen:,} of {site.cache.info.num_valid:,} valid samples"
    )
    if found.num_wanted < site.cache.info.num_valid:
        looked += (
            ", evenly over the cache" if found.finished else f"; in the end at {found.num_wanted:,}, evenly over it"
        )
    apart: dict[int, list[str]] = {}  # by row, the farthest first
    for outlier in found.outliers:
        apart.setdefault(outlier.row, []).append(_far(outlier))
    outliers = [tile(site, row, address, caption="; ".join(why)) for row, why in list(apart.items())[:MAX_TILES]]
    mirrored = [
        tile(site, row, address, caption=_tell_mirrored(bits, back)) for row, bits, back in found.mirrored[:MAX_TILES]
    ]
    damaged: list[list[Component | str]] = [
        [dcc.Link(site.cache.samples[row].sample_id, href=sample_address(row, address)), reason]
        for row, reason in found.damaged[:MAX_SHOWN]
    ]
    alike = [
        html.Div(
            [_named(site, row, address) for row in (a, b)] + [html.Span(_told(site, a, b, bits))], className="pair"
        )
        for a, b, bits in sorted(found.alike, key=lambda pair: _subjects_are_one(site, pair))[:MAX_TILES]
    ]
    return [
        html.H2("Pictures"),
        html.P(looked),
        *([html.H2(f"Damaged ({len(found.damaged):,})"), table(["sample", "reason"], damaged)] if damaged else []),
        html.H2(f"Outliers ({len(apart):,})"),
        html.P(
            "Far from the others in how much of the picture is covered, brightness, contrast, direction or depth: black "
            "frames, poor crops, wrong axes. Each caption gives the value and the median over all."
        ),
        html.Div(outliers, className="wall strip") if outliers else html.P("None.", className="notice"),
        html.H2(f"Perhaps mirrored ({len(found.mirrored):,})"),
        html.P(
            "More like the other scans of its subject once left and right are exchanged: a mirrored scan, or somebody else's."
        ),
        html.Div(mirrored, className="wall strip") if mirrored else html.P("None.", className="notice"),
        html.H2(f"One face twice ({len(found.alike):,}{' or more' if len(found.alike) == MOST_PAIRS else ''})"),
        html.P(
            "Pictures that are nearly the same, however the scans were saved. Under two subjects, first: correct the names or "
            "remove a copy; a training is refused where one stands in train and the other in test. Then one subject's scan "
            "twice; frames of one subject's recordings are not compared with each other."
        ),
        html.Div(alike, className="pairs") if alike else html.P("None.", className="notice"),
    ]


def _far(outlier: Outlier) -> str:
    name, form = MEASURED[outlier.measure]
    return f"{name} {form.format(outlier.value)}, median {form.format(outlier.median)}"


def _subjects_are_one(site: Site, pair: tuple[int, int, int]) -> bool:
    return site.cache.samples[pair[0]].subject == site.cache.samples[pair[1]].subject


def _named(site: Site, row: int, address: Address) -> Component:
    sample = site.cache.samples[row]
    return tile(site, row, address, caption=f"{sample.subject} · {sample.label or 'no label'}")


def _told(site: Site, a: int, b: int, bits: int) -> str:
    same = _subjects_are_one(site, (a, b, bits))
    alike = f"{1 - bits / HASH_SIDE**2:.0%} alike"
    return f"one subject, {alike}" if same else f"two subjects, {alike}"


def _tell_mirrored(bits: int, back: int) -> str:
    own, mirrored = bits / HASH_SIDE**2, back / HASH_SIDE**2
    return f"unlike the subject's other scans in {own:.0%} of the picture; mirrored, in {mirrored:.0%}"


def _subjects(site: Site, address: Address) -> list[Component]:
    counts = Counter((s.subject, s.label) for s in site.cache.samples if s.valid)
    subjects = [s for s in site.catalogue.columns["subject"].values if s]
    unlabelled = [""] if any(not label for _, label in counts) else []
    classes = [*site.cache.info.class_names, *unlabelled]
    num_pages = max(-(-len(subjects) // PAGE_SUBJECTS), 1)
    here = dataclasses.replace(address, page=min(address.page, num_pages - 1))
    rows: list[list[Component | str]] = []
    for subject in subjects[here.page * PAGE_SUBJECTS : (here.page + 1) * PAGE_SUBJECTS]:
        cells: list[Component | str] = [dcc.Link(subject, href="/" + address.filtered_by(subject=subject).query())]
        for label in classes:
            there = address.filtered_by(subject=subject, label=label or NONE)
            number = counts[subject, label]
            cells.append(
                dcc.Link(f"{number:,}", href="/" + there.query()) if number else html.Span("·", className="off")
            )
        rows.append(cells)
    total: list[Component | str] = ["all"]
    total += [f"{sum(counts[s, label] for s in subjects):,}" for label in classes]
    class_names = site.cache.info.class_names
    wanted = [name for name in class_names if name != NEUTRAL] or list(class_names)
    apart = [s for s in subjects if counts[s, NEUTRAL] and not any(counts[s, label] for label in (*wanted, ""))]
    asked = [s for s in subjects if s not in set(apart)]
    lacking = [s for s in asked if not all(counts[s, label] for label in wanted)]
    named = [
        part
        for s in lacking[:MAX_NAMED]
        for part in (" ", dcc.Link(s, href="/" + address.filtered_by(subject=s).query()))
    ]
    return [
        html.P(
            [
                f"{len(asked) - len(lacking):,} of {len(asked):,} subjects show every class"
                + (" but neutral" if len(wanted) < len(class_names) else "")
                + (f"; {len(apart):,} more show{'s' * (len(apart) == 1)} neutral alone." if apart else "."),
                *([" The others:", *named, " …" if len(lacking) > MAX_NAMED else ""] if lacking else []),
            ]
        ),
        *([page_links("/coverage", here, num_pages)] if num_pages > 1 else []),
        table(["subject", *[c or "no label" for c in classes]], [total, *rows], class_name="counts"),
    ]


def _failures(site: Site, address: Address) -> list[Component]:
    failed = [(row, s) for row, s in enumerate(site.cache.samples) if not s.valid or s.reason]
    groups = group_failures([s for _, s in failed])
    shown: list[list[Component | str]] = [
        [dcc.Link(s.source, href=sample_address(row, address)), "warning" if s.valid else "failed", s.reason]
        for row, s in failed[:MAX_SHOWN]
    ]
    more = len(failed) - len(shown)
    return [
        html.H2(f"Failures and warnings ({len(failed):,})"),
        *(
            [
                html.Ul(
                    [html.Li(f"{len(group):,} × {group[0].reason}") for group in groups[:MAX_REASONS]],
                    className="reasons",
                )
            ]
            if len(groups) > 1
            else []
        ),
        table(["source", "", "reason"], shown, class_name="failures") if shown else html.P("None.", className="notice"),
        *([html.P([f"and {more:,} more: ", dcc.Link("all", href="/?validity=invalid")])] if more > 0 else []),
    ]


def _same_sources(site: Site, address: Address) -> list[Component]:
    groups = find_same_sources(site.cache.samples)
    items = [
        html.Li(
            [
                part
                for row in rows[:8]
                for part in (dcc.Link(site.cache.samples[row].sample_id, href=sample_address(row, address)), " ")
            ]
        )
        for rows in groups[:MAX_SHOWN]
    ]
    return [
        html.H2(f"Identical files ({len(groups):,})"),
        html.Ul(items) if items else html.P("None among all rows.", className="notice"),
    ]
