"""`python -m train pretrain`: train an image tower and its text tower on captioned caches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from shared.command_line import print_next
from shared.errors import FacetError, first_line
from shared.option_file import format_table
from shared.runs import CONFIG_TOML, PRETRAIN_JSON, record_hashes
from shared.store.lock import hold_lock
from shared.store.storage import make_folder, write_file
from shared.weights.model_config import MODEL_CONFIG
from shared.weights.models import LOCAL_DIR
from train.config import TowerConfig
from train.data.preload import preload_images
from train.data.stream import ImageSource, StoredImages
from train.model.clip import MODEL_WEIGHTS, open_clip_model, ship_weights, tokenize, write_model_folder
from train.model.factory import choose_device
from train.pretraining.known_prompts import read_known_prompts
from train.pretraining.loop import train
from train.pretraining.options import PretrainOptions
from train.pretraining.record import describe_run, read_record, write_record
from train.pretraining.rows import CaptionedRows, CaptionTable, read_captioned, split_subjects
from train.pretraining.step import Pretraining
from train.pretraining.text_tower import freeze_text
from train.trackers.open import check_trackers, open_trackers, show_result
from train.training.checkpoint import sweep_partials

_MAX_WORDS_BYTES = 1 << 24


def pretrain(
    caches: Sequence[Path],
    out: Path,
    options: PretrainOptions,
    *,
    device: str = "auto",
    preload: str = "none",
    log: Sequence[str] = (),
    ship: Path | None = None,
    ship_words: Path | None = None,
) -> int:
    """Train the towers of a CLIP model on captioned caches, and write them to a folder; continue an interrupted run.

    Args:
        caches: with captions of one model.
        preload: none, ram or gpu. log: programs that also show the run, of `train.trackers`.
        ship: also write the weights to this file, small enough to ship.
        ship_words: a text file whose words are kept in it, too, beside those of captions and prompts.
    Returns:
        0.
    Raises:
        FacetError, CacheError: anything the user can correct.
    """
    check_trackers(log)
    where = choose_device(device)
    sources, table = read_captioned(caches, options.model, options.modalities)
    train_rows, held_rows, held_out = split_subjects(sources, options.validate, options.seed)
    options = dataclasses.replace(
        options, model=options.model or table.model, pretrained=options.pretrained or table.pretrained
    )
    known = read_known_prompts(sources, table.model)
    record = describe_run(options, sources, held_out, table.model)
    earlier = read_record(out, record)
    if not (earlier or {}).get("complete"):
        make_folder(out, like=caches[0])
        with hold_lock(out / ".lock", FacetError(f"{out}: another process is training here; wait until it has ended")):
            sweep_partials(out)
            clip, tower = _build(options, table, where)
            images = [_open_images(source, preload, where) for source in sources]
            run = Pretraining(
                options, sources, table, known, train_rows, held_rows, images, clip, tower, where,
                text_is_frozen=options.tune_text == "frozen",
            )  # fmt: skip
            _announce(run)
            how = {
                "cache": [cache.absolute() for cache in caches],
                **vars(options),
                "device": device,
                "preload": preload,
                "log": tuple(log) or None,
            }
            write_file(out / CONFIG_TOML, format_table("pretrain", how).encode())
            record["epochs"] = (earlier or record)["epochs"]
            settings = vars(options) | {"datasets": ", ".join(source.cache.info.dataset for source in sources)}
            with open_trackers(out, log, settings) as trackers:
                train(out, run, record, trackers)
                show_result(trackers, out, None)
                for tracker in trackers:
                    print(f"{tracker.option}: {tracker.describe()}")
            write_model_folder(out, clip, tower)
            write_record(out, record | {"complete": True})
            record_hashes(out, (MODEL_CONFIG, MODEL_WEIGHTS, PRETRAIN_JSON))
    print(f"both towers, as --model {LOCAL_DIR}{out}: {out / MODEL_WEIGHTS}")
    if ship is not None:
        tokens = [table.tokens.flatten(), *([] if known is None else [known.tokens.flatten()])]
        if ship_words is not None:
            tokens.append(tokenize(table.model, _read_lines(ship_words)).flatten())
        num_rows = ship_weights(out, ship, torch.cat(tokens))
        print(f"weights to ship, {ship.stat().st_size / 1e6:.1f} MB, {num_rows} tokens: {ship}")
    print_next("preprocess", "prompts", "--cache", caches[0], "--model", f"{LOCAL_DIR}{out}")
    return 0


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a text file.

    Raises:
        FacetError: no such file, too large, or not UTF-8.
    """
    try:
        if path.stat().st_size > _MAX_WORDS_BYTES:
            raise FacetError(f"--ship-words {path}: over {_MAX_WORDS_BYTES / 1e6:.0f} MB; give fewer words")
        return path.read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise FacetError(f"--ship-words {path}: cannot be read as UTF-8 text ({first_line(error)})") from error


def _build(options: PretrainOptions, table: CaptionTable, device: torch.device) -> tuple[Any, TowerConfig]:
    assert options.model is not None and options.pretrained is not None
    clip, tower = open_clip_model(options.model, options.pretrained, seed=options.seed)
    if options.tune_text == "frozen":
        if tower.weights_hash != table.weights_hash:
            raise FacetError(
                f"--tune-text frozen: the captions were embedded by {table.model} with weights {table.pretrained!r}, not by "
                f"those of --pretrained {options.pretrained} (random weights: --seed 0); embed them again with "
                "`python -m preprocess prompts --captions`"
            )
        freeze_text(clip)
    clip.visual.to(memory_format=torch.channels_last)
    return clip.to(device), tower.with_background(options.background)


def _open_images(source: CaptionedRows, preload: str, device: torch.device) -> ImageSource:
    items = [source.items[row] for row in source.rows]
    return preload_images(source.cache, items, source.modalities, preload, device) or StoredImages(source.cache)


def _announce(run: Pretraining) -> None:
    for source, trained, held in zip(run.sources, run.train_rows, run.held_rows, strict=True):
        print(
            f"{source.cache.path}: {len(trained)} rows to train on, {len(held)} of other subjects to validate; "
            f"{', '.join(source.modalities)} at views {source.cache.info.settings.views_text()}"
        )
    millions = sum(p.numel() for p in run.clip.parameters() if p.requires_grad) / 1e6
    text = "its text tower" if run.options.tune_text == "full" else "the text tower frozen"
    print(
        f"{run.tower.name}, weights {run.tower.pretrained}, {text}: {millions:.1f} M trained parameters, "
        f"{len(run.table.tokens)} captions, on {run.device}"
    )
