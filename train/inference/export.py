"""`python -m train export`: copy a finished run to a self-contained folder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from shared.errors import FacetError, name_some
from shared.runs import CONFIG_JSON, HASHES_JSON, SPLIT_JSON, THRESHOLDS_JSON, WEIGHTS, record_hashes
from shared.store.paths import is_litter
from shared.store.storage import make_folder, write_file
from shared.weights.model_config import MODEL_CONFIG
from train.config import without_folders, write_config
from train.inference.model_card import write_card
from train.inference.open_clip_model import OpenClipModel, join_text_tower
from train.inference.predict import print_next_predict
from train.inference.program import (
    ONNX,
    PROGRAM,
    describe_program,
    encode_onnx,
    encode_program,
    find_onnx,
    trace_program,
)
from train.inference.thresholds import read_thresholds, write_thresholds
from train.model.clip import MODEL_WEIGHTS, write_model_folder
from train.model.factory import load_run
from train.model.weights import replace_file
from train.protocols.folds import read_split, write_split
from train.reporting.limits import find_limits
from train.runs.results import read_fold_result

README_MD = "README.md"
_FILES = (
    WEIGHTS, SPLIT_JSON, THRESHOLDS_JSON, MODEL_CONFIG, MODEL_WEIGHTS, PROGRAM, ONNX, README_MD, CONFIG_JSON, HASHES_JSON,
)  # fmt: skip


def export(run: Path, out: Path, *, program: bool = False, onnx: bool = False) -> int:
    """Write a folder that `predict` and `evaluate` accept as a run, and at last its config.json: a folder without it is not
    finished.

    It holds model.safetensors, split.json, README.md (a model card), thresholds.json of tasks that have them, and, where the
    text tower is at hand, a model of open_clip. Paths of this machine are left out. Subject names stay, because `evaluate` must
    not test on training subjects.

    Args:
        program: also write model.pt2, which needs only PyTorch. onnx: also write model.onnx.
    Raises:
        FacetError: the run is not finished, or the folder is not empty; the model cannot be traced or converted.
    """
    config, model = load_run(run, torch.device("cpu"))
    split, result = read_split(run), read_fold_result(run)
    thresholds = read_thresholds(run, config.recipe)
    if out.exists() and not out.is_dir():
        raise FacetError(f"--out {out}: is a file; give a new folder")
    if (out / CONFIG_JSON).exists() or (
        out.is_dir() and any(p.name not in _FILES and not is_litter(p.name) for p in out.iterdir())
    ):
        raise FacetError(f"--out {out}: is not empty; give a new folder")
    if onnx:
        find_onnx()
    traced = trace_program(config, model) if program or onnx else None
    extra = {PROGRAM: encode_program(traced, config)} if traced is not None and program else {}
    extra |= {ONNX: encode_onnx(traced, config)} if traced is not None and onnx else {}
    clip: OpenClipModel | str
    try:
        clip = join_text_tower(config, model)
    except FacetError as error:
        clip = str(error)
        print(f"note: no model for open_clip in the folder: {error}")
    make_folder(out, like=run)
    for name in _FILES:  # of an export that was interrupted
        (out / name).unlink(missing_ok=True)
    cache, config = config.cache, without_folders(config)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    replace_file(out / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    write_split(out, split)
    if thresholds is not None:
        write_thresholds(out, thresholds)
    if isinstance(clip, OpenClipModel):
        write_model_folder(out, clip.clip, clip.description)
    for name, data in extra.items():
        write_file(out / name, data)
    num_weights, num_subjects = sum(value.numel() for value in tensors.values()), len(split.train_subjects)
    card = write_card(config, num_weights, num_subjects, result=result, clip=clip, program=program, onnx=onnx)
    write_file(out / README_MD, card.encode())
    write_config(out, config)
    record_hashes(out, [name for name in _FILES if name != HASHES_JSON])
    also = "".join(f", {name}" for name in (MODEL_WEIGHTS, PROGRAM, ONNX) if (out / name).is_file())
    print(f"{len(tensors)} tensors, configuration{also} and {README_MD}: {out}")
    for line in find_limits(config):
        print(line)
    subjects = name_some(sorted({*split.train_subjects, *split.test_subjects}))
    print(f"note: {SPLIT_JSON} names the subjects as the data set does ({subjects}); pass on no names of people")
    if extra:
        print(f"{', '.join(extra)}: {describe_program(config)}")
    if cache:
        print_next_predict(out, cache)
    return 0
