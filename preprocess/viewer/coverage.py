"""The coverage page: who shows what, what failed and why, what stands out, what is there twice."""

from __future__ import annotations

from collections import Counter

from dash import dcc, html
from dash.development.base_component import Component

from preprocess.viewer.address import NONE, Address
from preprocess.viewer.site import Site, sample_address, table, tile
from preprocess.viewer.statistics import NUM_LOOKED_AT, find_same_sources

MAX_SHOWN = 60


def coverage_page(site: Site, address: Address) -> list[Component]:
    """What the tables tell, at once; what images tell comes after it (`outliers_and_likenesses`)."""
    return [
        html.H1("Coverage"),
        *_subjects(site, address),
        *_failures(site, address),
        *_same_sources(site, address),
        html.Div(
            html.P(f"Looking at {min(NUM_LOOKED_AT, site.cache.info.num_valid)} samples …", className="notice"),
            id="statistics",
        ),
    ]


def outliers_and_likenesses(site: Site, address: Address) -> list[Component]:
    """Reads images the first time. Raises CacheError where one is damaged."""
    found = site.statistician.statistics()
    looked = f"{len(found.rows)} of {site.cache.info.num_valid:,} valid samples, evenly over the cache"
    outliers = [
        tile(site, o.row, address, caption=f"{o.measure} {o.value:.3g}, median {o.median:.3g}")
        for o in found.outliers[:MAX_SHOWN]
    ]
    alike = [
        html.Div([tile(site, row, address) for row in (a, b)] + [html.Span(f"{bits} bits apart")], className="pair")
        for a, b, bits in found.alike[:MAX_SHOWN]
    ]
    return [
        html.H2(f"Outliers ({len(found.outliers)})"),
        html.P(f"Far from the others in how much is covered, brightness, contrast, tilt or depth; among {looked}."),
        html.Div(outliers, className="wall strip") if outliers else html.P("None.", className="notice"),
        html.H2(f"Nearly the same ({len(found.alike)})"),
        html.P(
            f"Pictures from the front that agree once downscaled, frames of one subject's recordings aside; among {looked}."
        ),
        html.Div(alike, className="pairs") if alike else html.P("None.", className="notice"),
    ]


def _subjects(site: Site, address: Address) -> list[Component]:
    counts = Counter((s.subject, s.label) for s in site.cache.samples if s.valid)
    subjects = [s for s in site.catalogue.columns["subject"].values if s]
    unlabelled = [""] if any(not label for _, label in counts) else []
    classes = [*site.cache.info.class_names, *unlabelled]
    rows: list[list[Component | str]] = []
    for subject in subjects:
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
    complete = sum(all(counts[s, label] for label in site.cache.info.class_names) for s in subjects)
    return [
        html.P(f"{complete} of {len(subjects)} subjects show every class."),
        table(["subject", *[c or "no label" for c in classes]], [total, *rows], class_name="counts"),
    ]


def _failures(site: Site, address: Address) -> list[Component]:
    failed = [(row, s) for row, s in enumerate(site.cache.samples) if not s.valid]
    reasons = Counter(s.reason for _, s in failed)
    shown: list[list[Component | str]] = [
        [dcc.Link(s.source, href=sample_address(row, address)), s.reason] for row, s in failed[:MAX_SHOWN]
    ]
    more = len(failed) - len(shown)
    return [
        html.H2(f"Failures ({len(failed):,})"),
        *(
            [html.Ul([html.Li(f"{n:,} × {reason}") for reason, n in reasons.most_common(10)])]
            if len(reasons) > 1
            else []
        ),
        table(["source", "reason"], shown, class_name="facts") if shown else html.P("None.", className="notice"),
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
        html.H2(f"The very same files ({len(groups):,})"),
        html.Ul(items) if items else html.P("None among all rows.", className="notice"),
    ]
