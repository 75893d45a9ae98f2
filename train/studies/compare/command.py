"""`python -m train compare`: methods side by side, as in a paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from shared.errors import FacetError, describe_os_error
from shared.schema import canonical_json
from shared.store.storage import make_folder, write_file
from train.studies.compare.comparison import compare_methods
from train.studies.compare.figure import draw_comparison
from train.studies.compare.runs import Method, read_methods
from train.studies.compare.tables import format_comparison, format_comparison_csv, format_comparison_latex


def compare(
    paths: Sequence[Path], out: Path | None, *, names: Sequence[tuple[str, Path]] = (), baseline: str | None = None
) -> int:
    """Compare runs of `fit` or `crossval` that were tested on the same samples; runs that differ in the seed are one method.

    Args:
        out: folder of the files; None: one beside the first run.
        names: of methods, each with one of its runs.
        baseline: name of the method that the others are compared with, or one of its runs; None: that of the first run.
    Returns:
        0.
    Raises:
        FacetError: the runs cannot be compared; see read_methods.
    """
    out = out or paths[0].resolve().parent / f"compare-{paths[0].resolve().name}"
    if out.exists() and not out.is_dir():
        raise FacetError(f"--out {out}: is a file; give the name of a folder")
    methods = read_methods(paths, names)
    if baseline is not None:
        first = _find_baseline(methods, baseline)
        methods = [first, *(method for method in methods if method is not first)]
    comparison = compare_methods(methods)
    print(format_comparison(comparison))
    try:
        make_folder(out, like=paths[0])
        for name, data in (
            ("compare.csv", format_comparison_csv(comparison).encode()),
            ("compare.tex", format_comparison_latex(comparison).encode()),
            ("compare.png", draw_comparison(comparison)),
            ("compare.pdf", draw_comparison(comparison, "pdf")),
            ("compare.json", canonical_json(dataclasses.asdict(comparison)).encode()),
        ):
            write_file(out / name, data)
    except OSError as error:
        raise FacetError(f"--out {describe_os_error(error)}") from error
    print(f"tables    {out}/compare.json, .csv; for a paper {out}/compare.tex")
    print(f"figure    {out}/compare.png, .pdf")
    return 0


def _find_baseline(methods: Sequence[Method], wanted: str) -> Method:
    path = Path(wanted).resolve()
    for method in methods:
        if method.name == wanted or path in [run.path.resolve() for run in method.runs]:
            return method
    known = ", ".join(repr(method.name) for method in methods)
    raise FacetError(f"--baseline {wanted}: is none of the methods ({known}), and none of their runs")
