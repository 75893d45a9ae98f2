"""The coverage page: scans per subject and class, failures, outliers, mirrored scans, one face under two names."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from dash import dcc, html
from dash.development.base_component import Component

from preprocess.inspection.summary import describe_sizes, group_failures
from preprocess.viewer.address import NONE, Address
from preprocess.viewer.image_checks import MAX_PAIRS, MEASURES, Findings, Outlier, find_same_sources
from preprocess.viewer.labels import ABSENT, PRESENT
from preprocess.viewer.parts import Cell, number_link, page_links, sample_address, table, tile
from preprocess.viewer.site import Site
from shared.labels import NEUTRAL
from shared.likeness import HASH_SIDE
from shared.pairs import group_pairs

MAX_LINES = 60
MAX_TILES = 24
PAGE_SUBJECTS = 60
MAX_NAMED = 20
MAX_REASONS = 10
POLL_SECONDS = 3


def coverage_page(site: Site, address: Address) -> list[Component]:
    """Show the tables at once; `show_findings` of the images follow when the page asks for them."""
    return [
        html.H1("Coverage"),
        *_subjects(site, address),
        *[html.P(line.strip()) for line in describe_sizes([s for s in site.cache.samples if s.valid])],
        *_labels(site, address),
        *_failures(site, address),
        *_same_sources(site, address),
        html.Div(html.P("Reading the images …", className="notice"), id="findings"),
        dcc.Interval(id="poll-findings", interval=POLL_SECONDS * 1000),
    ]


def show_findings(site: Site, address: Address, found: Findings) -> list[Component]:
    """Show what the images checked so far look like."""
    samples, num_valid = site.cache.samples, site.cache.info.num_valid
    num_checked = len(found.rows) + len(found.damaged)
    progress = f"{num_checked:,} of {num_valid:,} valid samples checked"
    if found.num_wanted < num_valid:
        progress += "" if found.finished else f"; {found.num_wanted:,} will be"
        progress += ", chosen evenly over the cache"
    damaged = [[_sample_link(site, row, address), reason] for row, reason in found.damaged[:MAX_LINES]]
    reasons = group_pairs((outlier.row, _describe_outlier(outlier)) for outlier in found.outliers)  # the farthest first
    outliers = [
        tile(site, row, address, caption="; ".join(why), with_prediction=False)
        for row, why in [*reasons.items()][:MAX_TILES]
    ]
    mirrored = []
    for row, own, back in found.mirrored[:MAX_TILES]:
        caption = f"differs from the subject's other scans in {own / HASH_SIDE**2:.0%} of the bits; "
        caption += f"mirrored, in {back / HASH_SIDE**2:.0%}"
        mirrored.append(tile(site, row, address, caption=caption, with_prediction=False))

    def is_one_subject(pair: tuple[int, int, int]) -> bool:
        return samples[pair[0]].subject == samples[pair[1]].subject

    alike = []
    for pair in sorted(found.alike, key=is_one_subject)[:MAX_TILES]:
        text = f"{'one subject' if is_one_subject(pair) else 'two subjects'}, {1 - pair[2] / HASH_SIDE**2:.0%} alike"
        captions = {row: f"{samples[row].subject} · {samples[row].label or 'no label'}" for row in pair[:2]}
        tiles = [tile(site, row, address, caption=caption, with_prediction=False) for row, caption in captions.items()]
        alike.append(html.Div([*tiles, html.Span(text)], className="pair"))
    more = " or more" if len(found.alike) == MAX_PAIRS else ""

    def section(title: str, text: str, shown: Sequence[Component], style: str = "wall strip") -> list[Component]:
        content = html.Div([*shown], className=style) if shown else html.P("None.", className="notice")
        return [html.H2(title), html.P(text), content]

    return [
        html.H2("Images"),
        html.P(progress),
        *([html.H2(f"Damaged ({len(found.damaged):,})"), table(["sample", "reason"], damaged)] if damaged else []),
        *section(
            f"Outliers ({len(reasons):,})",
            "Far from the others in covered area, brightness, contrast, direction or depth: black images, poor crops, wrong "
            "axes. Each caption gives the value and the median.",
            outliers,
        ),
        *section(
            f"Perhaps mirrored ({len(found.mirrored):,})",
            "More like the subject's other scans after left and right are swapped: mirrored, or another person's scan.",
            mirrored,
        ),
        *section(
            f"One face twice ({len(found.alike):,}{more})",
            "Nearly the same image, whatever the file format. First: under two subjects. Correct the names or remove a copy; "
            "training is refused if one is in the training set and the other in the test set. Then: two scans of one subject; "
            "the frames of one subject are not compared with each other.",
            alike,
            "pairs",
        ),
    ]


def _describe_outlier(outlier: Outlier) -> str:
    title, form, _ = MEASURES[outlier.measure]
    return f"{title} {form.format(outlier.value)}, median {form.format(outlier.median)}"


def _sample_link(site: Site, row: int, address: Address, text: str = "") -> Component:
    return dcc.Link(text or site.cache.samples[row].sample_id, href=sample_address(row, address))


def _subjects(site: Site, address: Address) -> list[Component]:
    """Count the scans of each subject and class, and name subjects that lack a class."""
    counts = Counter((s.subject, s.label) for s in site.cache.samples if s.valid)
    subjects = sorted({s.subject for s in site.cache.samples} - {""})
    class_names = site.cache.info.class_names
    labels = [*class_names, *([""] if any(not label for _, label in counts) else [])]
    num_pages = max(-(-len(subjects) // PAGE_SUBJECTS), 1)
    here = dataclasses.replace(address, page=min(address.page, num_pages - 1))

    def link(subject: str) -> Component:
        return dcc.Link(subject, href="/" + address.with_filters(subject=subject).query())

    rows: list[list[Cell]] = [["all", *[f"{sum(counts[s, label] for s in subjects):,}" for label in labels]]]
    for s in subjects[here.page * PAGE_SUBJECTS :][:PAGE_SUBJECTS]:
        wall = {label: address.with_filters(subject=s, label=label or NONE) for label in labels}
        rows.append([link(s), *[number_link(counts[s, label], wall[label]) for label in labels]])
    wanted = [name for name in class_names if name != NEUTRAL] or list(class_names)
    neutral = [s for s in subjects if counts[s, NEUTRAL] and not any(counts[s, label] for label in (*wanted, ""))]
    others = [s for s in subjects if s not in {*neutral}]
    lacking = [s for s in others if not all(counts[s, label] for label in wanted)]
    text = f"{len(others) - len(lacking):,} of {len(others):,} subjects have scans of every class"
    text += " except neutral" if len(wanted) < len(class_names) else ""
    text += f"; {len(neutral):,} more {'has' if len(neutral) == 1 else 'have'} neutral scans only." if neutral else "."
    named = [part for s in lacking[:MAX_NAMED] for part in (" ", link(s))]
    if lacking:
        named = [" The others:", *named, " …" if len(lacking) > MAX_NAMED else ""]
    return [
        html.P([text, *named]),
        *([page_links("/coverage", here, num_pages)] if num_pages > 1 else []),
        table(["subject", *[label or "no label" for label in labels]], rows, "counts"),
    ]


def _labels(site: Site, address: Address) -> list[Component]:
    """Count the rows and subjects that show each action unit or emotion."""
    names = site.labels.shown
    if not names:
        return []
    rows = range(len(site.cache.samples))
    subjects = np.array([site.cache.samples[row].subject for row in rows], str)
    lines: list[list[Cell]] = []
    for name in names:
        present, absent = (site.labels.rows(f"{name} {word}") for word in (PRESENT, ABSENT))
        links = [
            number_link(len(found), address.with_filters(au=f"{name} {word}"))
            for found, word in ((present, PRESENT), (absent, ABSENT))
        ]
        unknown = site.cache.info.num_valid - len(present) - len(absent)
        lines.append([name, *links, f"{unknown:,}", f"{len(np.unique(subjects[present])):,}"])
    return [
        html.H2("Action units and emotions"),
        table(["", PRESENT, ABSENT, "not known", "subjects with it"], lines, "counts"),
    ]


def _failures(site: Site, address: Address) -> list[Component]:
    failed = [(row, s) for row, s in enumerate(site.cache.samples) if not s.valid or s.reason]
    groups = group_failures([s for _, s in failed])
    reasons = [html.Li(f"{len(group):,} × {group[0].reason}") for group in groups[:MAX_REASONS]]
    rows = [
        [_sample_link(site, row, address, s.source), "warning" if s.valid else "failed", s.reason]
        for row, s in failed[:MAX_LINES]
    ]
    more: list[Cell] = [f"and {len(failed) - MAX_LINES:,} more: ", dcc.Link("all", href="/?validity=invalid")]
    return [
        html.H2(f"Failures and warnings ({len(failed):,})"),
        *([html.Ul(reasons, className="reasons")] if len(groups) > 1 else []),
        table(["source", "", "reason"], rows, "failures") if rows else html.P("None.", className="notice"),
        *([html.P(more)] if len(failed) > MAX_LINES else []),
    ]


def _same_sources(site: Site, address: Address) -> list[Component]:
    groups = find_same_sources(site.cache.samples)

    def links(rows: Sequence[int]) -> list[Cell]:
        return [part for row in rows[:8] for part in (_sample_link(site, row, address), " ")]

    items = [html.Li(links(rows)) for rows in groups[:MAX_LINES]]
    return [
        html.H2(f"Identical files ({len(groups):,})"),
        html.Ul(items) if items else html.P("None.", className="notice"),
    ]
