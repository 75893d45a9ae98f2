"""What decided a run, and on what it was trained: the last tables of its part of the HTML report."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from train.config import Recipe, RunConfig, option_name
from train.reporting.html.page import Cell, folded, format_table
from train.runs.export import without_folders
from train.runs.recorded import RecordedRun


def list_settings(config: RunConfig) -> dict[str, str]:
    """Everything that decides a run, as text, the user's own options first. Names no folder of this machine."""
    config = without_folders(config)
    found = {option_name(f.name): format_setting(getattr(config.recipe, f.name)) for f in dataclasses.fields(Recipe)}
    render, tower = config.render, config.tower
    found |= {
        "data set": config.dataset,
        "content of the cache": config.content_hash[:16],
        "views": f"{render.views_text()}, {render.size_px} px",
        "image tower": f"{tower.name}, {tower.image_size} px",
        "its initial weights": f"{tower.pretrained} {tower.weights_hash[:16]}".strip(),
        "prompt embeddings": config.text_hash[:16],
    }
    if config.test_dataset:
        found["data set tested"] = f"{config.test_dataset}, content {config.test_content_hash[:16]}"
    return found


def format_setting(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_settings(config: RunConfig) -> str:
    """`list_settings` as a table that a click unfolds."""
    rows: list[list[Cell]] = [[name, text or "–"] for name, text in list_settings(config).items()]
    return folded("Configuration", format_table(["setting", "value"], rows, name="settings"))


def format_environment(run: RecordedRun) -> str:
    """On what it was trained, how long that took and how fast it went."""
    found: dict[str, dict[str, None]] = {}
    for fold in run.folds:
        for name, text in fold.environment.items():
            found.setdefault(name, {})[text] = None
    rows: list[list[Cell]] = [[name, "; ".join(texts)] for name, texts in found.items()]
    seconds = [result.seconds for result in run.results if result.seconds is not None]
    if seconds:
        rows.append(["time of training and testing", f"{sum(seconds):,.0f} s"])
    rows += _measure_log([line for fold in run.folds for line in fold.log])
    if not found:
        rows.append(["versions and machine", "not recorded by the version that trained it"])
    return folded("Environment", format_table(["what", "value"], rows, name="environment"))


def _measure_log(lines: Sequence[dict[str, float]]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for field, title, form in (
        ("samples_per_second", "samples a second, median", "{:,.1f}"),
        ("wait_share", "share of time spent waiting for data, median", "{:.1%}"),
        ("mfu", "part of the GPU's peak used (MFU), median", "{:.1%}"),
    ):
        values = [line[field] for line in lines if field in line]
        if values:
            rows.append([title, form.format(statistics.median(values))])
    memory = [line["memory_bytes"] for line in lines if "memory_bytes" in line]
    if memory:
        rows.append(["memory, at most", f"{max(memory) / 1e9:,.2f} GB"])
    return rows
