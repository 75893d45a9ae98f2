"""The folder that `--out` names: a new one, or that of the same run, to continue it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from shared.errors import FacetError
from shared.store.paths import is_litter


def check_unused(out: Path, what: str, name: str, beside: Collection[str]) -> None:
    """Check that a folder without the file of a run's settings holds nothing of others.

    Args:
        what: whose settings are looked for, such as "run". name: their file, which is not there.
        beside: files that may be there before the settings are.
    Raises:
        FacetError: it holds other files.
    """
    if out.is_dir() and any(
        path.name not in beside and path.name[:1] != "." and not is_litter(path.name) for path in out.iterdir()
    ):
        raise FacetError(f"{out}: is not empty and holds no {what} (no {name}); choose another --out")


def check_same_settings(out: Path, what: str, differences: Sequence[str]) -> None:
    """Check that the run in a folder has the settings that are asked for.

    Args:
        what: it, such as "a run". differences: names of the settings that differ.
    Raises:
        FacetError: there are some; names them.
    """
    if differences:
        raise FacetError(
            f"{out}: holds {what} with other settings (different: {', '.join(differences)}); choose another --out, or give "
            "the same settings to continue it"
        )
