"""The notebook runs from its first cell to its last, on fewer people, and its stored pictures are those of a run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs/first_hour.ipynb"
SMALL = {"NUM_SUBJECTS": 2, "SIZE_PX": 32, "FOLDS": 2, "EPOCHS": 1}
MOST_BYTES = 500_000


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(NOTEBOOK, 4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    names = [line.partition(" = ")[0] for line in parameters.source.splitlines()]
    assert names == list(SMALL)
    parameters.source = "\n".join(f"{name} = {value}" for name, value in SMALL.items())
    resources = {"metadata": {"path": str(tmp_path)}}
    kernel = {"kernel_name": "python3", "resources": resources, "timeout": 300}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:1])  # so that the kernel does all in its own process
    try:
        client(notebook, **kernel).execute()
    finally:
        os.sched_setaffinity(0, cores)
    assert f"{SMALL['NUM_SUBJECTS'] * 25} scans" in json.dumps(notebook.cells)
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert written == {"first_hour"}
    now, stored = (count_pictures(cells) for cells in (notebook.cells, nbformat.read(NOTEBOOK, 4).cells))
    assert now == stored and stored >= 5


def count_pictures(cells: list) -> int:
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return sum(any(kind.startswith("image/") for kind in output.get("data", ())) for output in outputs)


def test_the_stored_notebook_is_small_and_whole() -> None:
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))  # run once, from top to bottom
    assert str(ROOT) not in json.dumps(cells) and "\\r" not in json.dumps(cells)
