"""Write and read the attention weights of a test: attention.safetensors beside its predictions.

Reading safetensors runs no code, and no array can be larger than the file. Weights are float16: they are only drawn.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from shared.errors import FacetError, first_line
from shared.schema import canonical_json
from shared.store.storage import write_file
from shared.typed_json import make

ATTENTION_FILE = "attention.safetensors"
FORMAT = "facet attention 1"
_MAX_VALUES = 1 << 28  # of all arrays but the maps: 512 MB. A file may have holes, and be of any size
_ADVICE = "`python -m train evaluate RUN` writes it anew"
# Dimensions of each array, as in `Attention`.
_DIMS = {
    "rows": "nT",
    "faces": "nd",
    "frame_weights": "nT",
    "view_weights": "nTN",
    "view_attention": "nTN",
    "class_attention": "nCTN",
    "class_share": "nC",
    "prompt_cosines": "nCK",
    "patches": "pTNGG",
    "class_patches": "pCNHH",
    "patch_place": "n",
}
_INTEGERS = ("rows", "patch_place")
MAPS = ("patches", "class_patches")  # most of the file: read one item at a time, when they are asked for
_OPTIONAL = ("view_attention", "class_attention", "class_share", "prompt_cosines", "patch_place", *MAPS)


@dataclass(frozen=True)
class Attention:
    """Attention weights of the forward pass that gave a test's predictions, for n items.

    T frames, N = M·V images per frame (modality by modality), C classes, K prompts, p items with maps. Weights add up to 1 over
    frames, over a frame's images, over all images, and (with the class token's) over patches.
    """

    names: tuple[str, ...]  # as in predictions.csv
    class_names: tuple[str, ...]
    modalities: tuple[str, ...]
    views: tuple[str, ...]  # the cameras of each modality, as `schema.View` writes them
    rows: np.ndarray  # i32 (n, T): rows of the cache
    faces: np.ndarray  # (n, d): face vector z, unit length
    frame_weights: np.ndarray  # (n, T): each frame's part in z
    view_weights: np.ndarray  # (n, T, N): each image's part in its frame, CVSA's α
    view_attention: np.ndarray | None = None  # (n, T, N): CVSA's attention to each image, weighted by α
    # (n, C, T, N): MTGF's attention of a class's text to each image or its patches
    class_attention: np.ndarray | None = None
    class_share: np.ndarray | None = None  # (n, C), 0…1: part of the class feature that comes from MTGF; the rest is z
    # (n, C, K): cosine with each prompt, NaN for none; the score is their mean
    prompt_cosines: np.ndarray | None = None
    # (p, T, N, G, G): last attention of the image tower, row 0 on top; see read_patches
    patches: np.ndarray | None = None
    class_patches: np.ndarray | None = None  # (p, C, N, H, H): class_attention over patches; see read_class_patches
    patch_place: np.ndarray | None = None  # i32 (n,): an item's index in the maps, -1 for none
    prompts: tuple[tuple[str, ...], ...] = ()  # of each class

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: value for name in _DIMS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class _Header:
    """The JSON text in the file's metadata; fields as in `Attention`."""

    format: str
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    modalities: tuple[str, ...]
    views: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]


def write_attention(path: Path, attention: Attention) -> None:
    """Write the whole file or nothing."""
    import safetensors.numpy

    header = _Header(
        FORMAT, attention.names, attention.class_names, attention.modalities, attention.views, attention.prompts
    )
    arrays = {name: np.ascontiguousarray(value) for name, value in attention.arrays().items()}
    # one entry alone: their order in the file is random, and equal tests should give equal bytes
    write_file(path, safetensors.numpy.save(arrays, {"about": canonical_json(asdict(header))}))


def read_attention(path: Path) -> Attention:
    """Read and check everything but the maps.

    Raises:
        FacetError: no such file, damaged, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = make(_Header, json.loads((file.metadata() or {})["about"]))
            if header.format != FORMAT:
                raise ValueError(f"format {header.format!r}, expected {FORMAT!r}")
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            for name, some in slices.items():
                if some.get_dtype() != ("I32" if name in _INTEGERS else "F16"):
                    raise ValueError(f"{name} is {some.get_dtype()}")
            shapes = {name: tuple(some.get_shape()) for name, some in slices.items()}
            if (size := sum(math.prod(shape) for name, shape in shapes.items() if name not in MAPS)) > _MAX_VALUES:
                raise ValueError(f"{size} values, expected at most {_MAX_VALUES}")
            arrays = {name: file.get_tensor(name) for name in shapes if name not in MAPS}
        return _check(header, arrays, {name: shape for name, shape in shapes.items() if name in MAPS})
    except FileNotFoundError as error:
        raise FacetError(f"{path}: missing; {_ADVICE}") from error
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise FacetError(f"{path}: cannot be read ({first_line(error)}); {_ADVICE}") from error


def read_patches(path: Path, attention: Attention, item: int) -> np.ndarray | None:
    """Read the maps (T, N, G, G) of one item; None without maps.

    Raises:
        FacetError: the file has changed since `attention` was read.
    """
    return _read_maps(path, attention, item, "patches", attention.view_weights.shape[1:])


def read_class_patches(path: Path, attention: Attention, item: int) -> np.ndarray | None:
    """Read the maps (C, N, H, H) of one item; None without maps.

    Raises:
        FacetError: the file has changed since `attention` was read.
    """
    expected = len(attention.class_names), attention.view_weights.shape[2]
    return _read_maps(path, attention, item, "class_patches", expected)


def _read_maps(path: Path, attention: Attention, item: int, name: str, expected: tuple[int, ...]) -> np.ndarray | None:
    if attention.patch_place is None or (index := int(attention.patch_place[item])) < 0:
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if name not in file.keys():  # noqa: SIM118  # no mapping
                return None
            found: np.ndarray = file.get_slice(name)[index : index + 1]
        if (
            found.dtype != np.float16
            or found.shape[:3] != (1, *expected)
            or not found.size
            or not np.isfinite(found).all()
        ):
            raise ValueError("its maps are not what they were")
    except (OSError, SafetensorError, ValueError, IndexError) as error:
        raise FacetError(f"{path}: cannot be read ({first_line(error)}); {_ADVICE}") from error
    return found[0]


def _check(header: _Header, arrays: dict[str, np.ndarray], maps: dict[str, tuple[int, ...]]) -> Attention:
    prompts = header.prompts
    sizes = {"n": len(header.names), "C": len(header.class_names), "N": len(header.modalities) * len(header.views)}
    shapes = {name: array.shape for name, array in arrays.items()} | maps
    for name, dims in _DIMS.items():
        if name not in shapes:
            if name not in _OPTIONAL:
                raise KeyError(name)
            continue
        if len(shapes[name]) != len(dims):
            raise ValueError(f"{name} has {shapes[name]}")
        for dim, size in zip(dims, shapes[name], strict=True):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"{name} has {shapes[name]}, expected {sizes[dim]} for {dim}")
    for name, array in arrays.items():
        if name not in _DIMS:
            raise ValueError(f"unknown array {name}")
        if name != "prompt_cosines" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
    if empty := [dim for dim in "TNdCGH" if not sizes.get(dim, 1)]:
        raise ValueError(f"holds no {', '.join(empty)}")
    if bool(maps) != ("patch_place" in arrays):
        raise ValueError("patches and patch_place go together")
    if maps and not ((arrays["patch_place"] >= -1) & (arrays["patch_place"] < sizes["p"])).all():
        raise ValueError(f"patch_place holds numbers outside -1…{sizes['p'] - 1}")
    lengths_fit = not prompts or [0 < len(p) <= sizes.get("K", 0) for p in prompts] == [True] * sizes["C"]
    if bool(prompts) != ("prompt_cosines" in arrays) or not lengths_fit:
        raise ValueError("prompts and their cosines do not go together")
    return Attention(header.names, header.class_names, header.modalities, header.views, prompts=prompts, **arrays)
