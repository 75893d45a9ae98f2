"""Embeddings of the text prompts of each class: write and read text/<model>.h5."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import CacheError, first_line
from shared.schema import FORMAT_VERSION, TEXT_DATASETS, View
from shared.store.hdf5_tables import MAX_TABLE_BYTES, encode_hdf5_tables, read_hdf5_tables
from shared.store.paths import file_size, is_file, read_bytes
from shared.store.storage import write_file
from shared.view_words import describe_view, with_mirrored

_ATTRIBUTES = {
    **dict.fromkeys(("model", "pretrained", "weights_hash", "image_tower_hash"), str),
    "logit_scale": float,
    "random_weights": bool,
}
_MAX_SIDE_BYTES = 4096  # of the .sha256 beside the file


@dataclass(frozen=True)
class TextEmbeddings:
    """Unit-length prompt embeddings of one text tower.

    embeddings f32 (C, K, d); mask bool (C, K), True where a prompt exists; prompts: C lists of K texts; views: of each prompt,
    where its face is seen from, as `describe_view` says, or "" for anywhere; () if all prompts are for any view.
    """

    class_names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    embeddings: np.ndarray
    mask: np.ndarray
    model: str
    pretrained: str  # the tag or file the weights came from; "none" = random weights
    weights_hash: str  # sha256 of the whole model's weights
    image_tower_hash: str  # sha256 of the image tower's weights: shows a trainer that the two towers belong together
    logit_scale: float  # CLIP's learned scale s, as a factor (not its logarithm)
    random_weights: bool
    views: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        c, k = len(self.class_names), max((len(p) for p in self.prompts), default=0)
        if self.embeddings.dtype != np.float32 or self.embeddings.ndim != 3 or self.embeddings.shape[:2] != (c, k):
            raise CacheError(
                f"embeddings must be float32 ({c}, {k}, d), found {self.embeddings.dtype} {self.embeddings.shape}"
            )
        if self.mask.dtype != bool or self.mask.shape != (c, k):
            raise CacheError(f"mask must be bool ({c}, {k}), found {self.mask.dtype} {self.mask.shape}")
        if self.views and [len(row) for row in self.views] != [len(row) for row in self.prompts]:
            raise CacheError("views are not one for each prompt; run `python -m preprocess prompts` again")
        if not self.mask.any(axis=1).all():
            without = [n for n, row in zip(self.class_names, self.mask, strict=True) if not row.any()]
            raise CacheError(f"no prompt for class {', '.join(without)}; add one to the prompts file")
        if not np.isfinite(self.embeddings).all():
            raise CacheError("embeddings are not finite; run `python -m preprocess prompts` again")
        with np.errstate(over="ignore"):  # infinite is not of unit length either
            norms = np.linalg.norm(self.embeddings, axis=2)
        if not math.isfinite(self.logit_scale):
            raise CacheError("the logit scale is not finite; run `python -m preprocess prompts` again")
        if not np.allclose(norms[self.mask], 1, atol=1e-3):  # also refuses NaN
            raise CacheError("embeddings are not of unit length; run `python -m preprocess prompts` again")

    def select(self, class_names: Sequence[str] | None) -> TextEmbeddings:
        """Return the embeddings of some classes, in the given order; None: all."""
        if class_names is None:
            return self
        missing = [name for name in class_names if name not in self.class_names]
        if missing:
            raise CacheError(
                f"no prompts for class {', '.join(missing)} (there are some for {', '.join(self.class_names)}); "
                "add them to a prompts file and run `python -m preprocess prompts --prompts FILE`"
            )
        index = [self.class_names.index(name) for name in class_names]
        prompts = tuple(self.prompts[i] for i in index)
        # Fewer than before where the class with the most prompts is left out.
        k = max((len(p) for p in prompts), default=0)
        return dataclasses.replace(
            self,
            class_names=tuple(class_names),
            prompts=prompts,
            embeddings=self.embeddings[index, :k],
            mask=self.mask[index, :k],
            views=tuple(self.views[i] for i in index) if self.views else (),
        )

    def of_view(self, view: View) -> TextEmbeddings:
        """Return the prompts with those of other views masked.

        Raises:
            CacheError: there are prompts of other views, and none of this one.
        """
        if not self.views:
            return self
        name, known = describe_view(view), sorted({name for row in self.views for name in row if name})
        if name not in known:
            raise CacheError(
                f"no prompts of a face seen {name}, as in view {view} (there are some of faces seen {', '.join(known)}); "
                "run `python -m preprocess prompts` again: with --cache for the views of this cache, with --out for all"
            )
        k = self.mask.shape[1]
        chosen = [[*(one in ("", name) for one in row), *[False] * (k - len(row))] for row in self.views]
        return dataclasses.replace(self, mask=self.mask & np.array(chosen))

    def check_views(self, views: Sequence[View]) -> TextEmbeddings:
        """Return the embeddings, if they have prompts for all views and their mirrored images.

        Raises:
            CacheError: as `of_view`.
        """
        for view in with_mirrored(views):
            self.of_view(view)
        return self


def write_text_embeddings(path: Path, text: TextEmbeddings) -> None:
    """Write text/<model>.h5, as `write_hashed_tables` does."""

    def pad(rows: tuple[tuple[str, ...], ...]) -> np.ndarray:
        return np.array([[*row, *[""] * (text.mask.shape[1] - len(row))] for row in rows])

    tables = {
        "embeddings": text.embeddings,
        "mask": text.mask,
        "prompts": pad(text.prompts),
        "class_names": np.array(text.class_names),
    } | ({"views": pad(text.views)} if text.views else {})
    write_hashed_tables(path, tables, {name: getattr(text, name) for name in _ATTRIBUTES})


def write_hashed_tables(path: Path, tables: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write a file of text/ with the format version, and its sha256 beside it, in the layout of `sha256sum`."""
    digest = write_file(path, encode_hdf5_tables(tables, {**attributes, "format_version": FORMAT_VERSION}))
    write_file(path.with_name(path.name + ".sha256"), f"{digest}  {path.name}\n".encode())


def read_text_embeddings(path: Path) -> TextEmbeddings:
    """Read an HDF5 file that `python -m preprocess prompts` wrote.

    Raises:
        CacheError: missing, damaged, of another version, or not such a file.
    """
    tables, attributes = read_hashed_tables(path, "prompt embeddings", tables=TEXT_DATASETS, attributes=_ATTRIBUTES)
    try:
        return TextEmbeddings(
            class_names=tuple(str(name) for name in tables["class_names"]),
            prompts=tuple(tuple(str(p) for p in row if p) for row in tables["prompts"]),
            embeddings=tables["embeddings"],
            mask=tables["mask"].astype(bool),
            views=_read_views(tables) if "views" in tables else (),
            **{name: kind(attributes[name]) for name, kind in _ATTRIBUTES.items()},
        )
    except (TypeError, ValueError) as error:
        raise CacheError(
            f"{path}: holds other values than prompt embeddings ({first_line(error)}); run prompts again"
        ) from error
    except KeyError as error:
        raise CacheError(f"{path}: lacks {error} (expected {', '.join(TEXT_DATASETS)}); run prompts again") from error
    except CacheError as error:
        raise CacheError(f"{path}: {error}") from error


def _read_views(tables: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], ...]:
    rows = zip(tables["prompts"], tables["views"], strict=True)
    return tuple(tuple(str(view) for p, view in zip(*row, strict=True) if p) for row in rows)


def read_hashed_tables(
    path: Path, what: str, *, tables: Collection[str], attributes: Collection[str], most_bytes: int = MAX_TABLE_BYTES
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file that `write_hashed_tables` wrote.

    Args:
        what: what it holds, in the plural, for messages.
        tables, attributes: names to read where they exist.
        most_bytes: a larger file is refused.
    Raises:
        CacheError: missing, damaged, too large, of another version, or not such a file.
    """
    if not is_file(path):
        raise CacheError(f"{path}: no {what} here; make them with `python -m preprocess prompts`")
    side = path.with_name(path.name + ".sha256")
    for file, most in ((path, most_bytes), (side, _MAX_SIDE_BYTES)):
        if (size := file_size(file)) is not None and size > most:
            raise CacheError(f"{file}: {size / 1e6:.0f} MB, {what} take at most {most / 1e6:g}; run prompts again")
    data = read_bytes(path)
    if is_file(side) and read_bytes(side) != f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode():
        raise CacheError(f"{path}: does not match {side.name}; run `python -m preprocess prompts` again")
    found, values = read_hdf5_tables(data, path, tables=tables, attributes=(*attributes, "format_version"))
    if (version := values.get("format_version")) != FORMAT_VERSION:
        raise CacheError(f"{path}: {what} of format {version}, expected {FORMAT_VERSION}; run prompts again")
    return found, values
