"""Read the weights of a CLIP model from files of several formats without running code."""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import FacetError, first_line
from shared.weights.layout import find_state, is_tensor, name_weights
from shared.weights.torchscript import check_values, read_torchscript

INDEX_SUFFIX = ".index.json"  # of weights in several files: `weight_map` maps tensors to files
_PART = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.")
MAX_INDEX_BYTES = 64 << 20
MAX_SHARING = 8  # elements a byte of the file; more is a tensor of no content that would fill the memory
_HEAD_BYTES = 4096
_DAMAGED = "cut short or damaged; download it again and compare its size"
_KNOWN = "expected a torch checkpoint (.pt, .pth, .bin), safetensors, or a TorchScript archive of OpenAI's"


@dataclass(frozen=True)
class Weights:
    """arrays: by open_clip's names; floating point ones f32. quick_gelu: the activation, None where the file lacks it."""

    arrays: dict[str, np.ndarray]
    quick_gelu: bool | None = None
    notes: tuple[str, ...] = ()


def read_weights(path: Path, load: Callable[[Path], object]) -> Weights:
    """Read a checkpoint of open_clip, transformers' CLIPModel or OpenAI (TorchScript) without running code.

    Args:
        path: a file, or the index of several (model.safetensors.index.json).
        load: torch.load with weights_only=True onto the CPU. This package never imports torch.
    Raises:
        FacetError: what the file is instead, and what to do.
    """
    try:
        return _read(path, load)
    except FacetError as error:
        raise FacetError(f"{path}: {error}") from error


def _read(path: Path, load: Callable[[Path], object]) -> Weights:
    if path.is_dir():
        inside = sorted(one.name for one in path.iterdir() if one.suffix in (".safetensors", ".bin", ".pt", ".pth"))
        raise FacetError("is a folder; give the file in it" + (f": {', '.join(inside[:4])}" if inside else ""))
    if _PART.search(path.name):
        raise FacetError(f"is one of several parts; give their index, which ends in {INDEX_SUFFIX}")
    quick_gelu, note, is_archive = None, "", _is_torchscript(path)
    if path.name.endswith(INDEX_SUFFIX):
        tensors = _read_parts(path, load)
    elif is_archive:
        try:
            tensors, is_quick = read_torchscript(path)
        except (ValueError, KeyError, TypeError, EOFError, AttributeError, IndexError, pickle.UnpicklingError) as error:
            raise FacetError(f"its TorchScript archive is {_DAMAGED} ({first_line(error)})") from error
        quick_gelu = True if is_quick else None
    else:
        tensors, note = find_state(_read_tensors(path, load))
    if not tensors:
        raise FacetError("holds no tensors; give a checkpoint of a whole CLIP model")
    arrays, of_transformers = name_weights(_to_arrays(tensors, _size_of(path)))
    notes = [note] if note else []
    if of_transformers:
        quick_gelu = _read_activation(path)
    if quick_gelu is None and (of_transformers or is_archive):  # open_clip's own have long been --model NAME's
        beside = " (no config.json of CLIP beside it)" if of_transformers else ""
        notes.append(f"does not name its activation{beside}; for weights of OpenAI's take --model NAME-quickgelu")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not name.endswith("attn_mask") and not np.isfinite(array).all():
            raise FacetError(
                f"{name[:80]} holds values that are no numbers (NaN or infinite); take an earlier checkpoint"
            )
    return Weights(arrays, quick_gelu, tuple(f"{path}: {one}" for one in notes))


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _read_tensors(path: Path, load: Callable[[Path], object]) -> object:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[5:9] == b"\0\0\0{":  # eight bytes of the header's length, then the header, which is JSON
        return _read_safetensors(path)
    _refuse_others(head)
    if head[:2] == b"PK":
        _check_zip(path)
    elif head[:1] != b"\x80":
        raise FacetError(f"begins with {head[:12]!r}, which is no format of weights; {_KNOWN}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that are then refused in our words
            return load(path)
    except Exception as error:  # torch, pickle and zipfile raise many kinds on a file that is no checkpoint
        if isinstance(error, pickle.UnpicklingError):
            asked = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = (
                f"it asks for {asked[1][:80]}, which may run code" if asked else "a pickle of other things, or damaged"
            )
            raise FacetError(
                f"not a checkpoint of tensors alone, and refused: {what}; where it comes from, save its tensors with "
                "torch.save(model.state_dict(), FILE)"
            ) from error
        if isinstance(error, MemoryError):
            raise
        raise FacetError(f"not a checkpoint that torch can read: {_DAMAGED} ({first_line(error)})") from error


def _refuse_others(head: bytes) -> None:
    """Raise FacetError for what a failed download leaves: nothing, zeros, a web page, JSON or a Git LFS pointer."""
    if not head:
        raise FacetError("is empty (0 bytes); download it again")
    if head.startswith(b"version https://git-lfs"):
        raise FacetError("is a Git LFS pointer, not the weights; run `git lfs pull` there")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise FacetError("is a web page or an XML answer; correct the link (…/resolve/… on the hub) and download again")
    if not head.strip(b"\0"):
        raise FacetError(f"begins with {len(head)} zero bytes: {_DAMAGED}")
    if head[:1] in (b"{", b"["):
        raise FacetError(f"is JSON text, not weights; {_KNOWN}, or its index *{INDEX_SUFFIX}")


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            check_values(archive, path.stat().st_size)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise FacetError(
            f"not a checkpoint: a zip archive, as torch writes, {_DAMAGED} ({first_line(error)})"
        ) from error
    if not any(name.endswith("data.pkl") for name in names):
        raise FacetError(
            f"is a zip archive of other files ({', '.join(names[:2])[:80]}); unpack it and give the weights"
        )


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
    if header_bytes > num_bytes:
        raise FacetError(
            f"not a checkpoint: its header announces {header_bytes} bytes, the file has {num_bytes}: {_DAMAGED}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise FacetError(f"not a checkpoint: safetensors, {_DAMAGED} ({first_line(error)})") from error


def _read_parts(path: Path, load: Callable[[Path], object]) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for part in _part_names(path):
        file = path.with_name(part)
        if not file.is_file():
            raise FacetError(f"names {part}, which is not beside it; download every part")
        try:
            tensors |= find_state(_read_tensors(file, load))[0]
        except FacetError as error:
            raise FacetError(f"its part {part} {error}") from error
    return tensors


def _part_names(path: Path) -> list[str]:
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise FacetError("is too large for an index of weights")
    try:
        names = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FacetError(f"not an index of weights, which has a weight_map ({first_line(error)})") from error
    for name in names:
        if not isinstance(name, str) or name != Path(name).name or "\\" in name:
            raise FacetError(f"names {str(name)[:80]!r}, which is not a file beside it")
    return names


def _size_of(path: Path) -> int:
    if path.name.endswith(INDEX_SUFFIX):
        return sum(path.with_name(part).stat().st_size for part in _part_names(path))
    return path.stat().st_size


def _to_arrays(tensors: Mapping[str, Any], num_bytes: int) -> dict[str, np.ndarray]:
    if sum(one.numel() if is_tensor(one) else one.size for one in tensors.values()) > MAX_SHARING * num_bytes:
        raise FacetError("its tensors claim more values than the file holds")
    arrays = {}
    for name, tensor in tensors.items():
        try:
            array = _to_array(tensor)
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            raise FacetError(f"{name[:80]} is not a plain tensor ({first_line(error)})") from error
        if array.dtype.kind != "f" and name.endswith(("weight", "bias")):
            raise FacetError(f"{name[:80]} is of {array.dtype}: quantised weights; take the ones that are not")
        arrays[name] = array
    return arrays


def _to_array(tensor: Any) -> np.ndarray:
    if is_tensor(tensor):
        tensor = tensor.detach()
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.asarray(tensor, np.float32 if tensor.dtype.kind == "f" else None)


def _read_activation(path: Path) -> bool | None:
    """Return whether the config.json beside transformers' weights sets QuickGELU, its CLIP's default."""
    config = path.with_name("config.json")
    try:
        if not config.is_file() or config.stat().st_size > MAX_INDEX_BYTES:
            return None
        found = json.loads(config.read_bytes())
        if found.get("model_type") != "clip":
            return None
        kinds = {(found.get(part) or {}).get("hidden_act", "quick_gelu") for part in ("vision_config", "text_config")}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return None
    if not kinds <= {"quick_gelu", "gelu"} or len(kinds) > 1:
        raise FacetError(
            f"its config.json asks for the activation {' and '.join(map(str, kinds))[:60]}; expected gelu or quick_gelu"
        )
    return kinds == {"quick_gelu"}
