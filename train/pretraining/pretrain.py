"""`python -m train pretrain`: train an image tower and its text tower on captioned caches."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from shared.command_line import print_next
from shared.errors import FacetError, first_line
from shared.option_file import format_table
from shared.runs import CONFIG_TOML, LOG_JSONL, record_hashes
from shared.schema import canonical_json
from shared.store.lock import hold_lock
from shared.store.storage import make_folder, write_file
from shared.weights.model_config import MODEL_CONFIG
from shared.weights.models import LOCAL_DIR
from train.config import TowerConfig
from train.data.preload import preload_images
from train.data.stream import ImageSource, RawBatch, StoredImages
from train.model.clip import (
    MODEL_WEIGHTS,
    encode_text,
    open_clip_model,
    ship_weights,
    tokenize,
    write_model_folder,
)
from train.model.facet import MAX_LOG_SCALE
from train.model.factory import choose_device
from train.option_values import option_name
from train.pretraining.known_prompts import TEXT_RATE, KnownPrompts, is_text, read_known_prompts, teach_text
from train.pretraining.loss import CaptionLoss, PromptLoss
from train.pretraining.options import PretrainOptions
from train.pretraining.rows import (
    CaptionedRows,
    CaptionTable,
    choose_front_images,
    draw_captions,
    draw_images,
    order_rows,
    prepare_images,
    read_captioned,
    split_subjects,
    stream_steps,
)
from train.runs.out_folder import check_same_settings, check_unused
from train.trackers.open import check_trackers, open_trackers, show_result
from train.trackers.tracker import Tracker
from train.training.checkpoint import read_checkpoint, sweep_partials, write_checkpoint
from train.training.optimizer import build_adamw, rate_at, set_rate
from train.training.progress import LOG_EVERY, open_progress
from train.training.step import MAX_GRAD_NORM, StepResult
from train.training.timing import describe_environment

PRETRAIN_JSON = "pretrain.json"
CAPTIONS_WEIGHT = 0.1  # of the loss of captions beside that of prompts: at 1, a small tower learns much more slowly
_MAX_JSON_BYTES, _MAX_WORDS_BYTES = 1 << 26, 1 << 24


@dataclass(frozen=True)
class Pretraining:
    """What a pretraining works on.

    images: of each source, where its images come from. known: None without prompts.
    """

    options: PretrainOptions
    sources: list[CaptionedRows]
    table: CaptionTable
    images: list[ImageSource]
    known: KnownPrompts | None
    clip: Any
    tower: TowerConfig
    device: torch.device
    text_is_frozen: bool

    @property
    def teaches_text(self) -> bool:
        """Whether the text tower is random: it learns alone, before the image tower, and then stays as it is."""
        return self.tower.random_weights and self.options.tune_text == "full" and self.known is not None

    @torch.no_grad()
    def with_frozen_text(self) -> Pretraining:
        """Return the same with the text tower frozen as it is now: all texts are embedded once."""

        def embed(tokens: Tensor) -> Tensor:
            parts = tqdm(tokens.split(256), desc="embed texts", unit="batch", delay=2)
            return torch.cat([self.embed_texts(part).cpu() for part in parts])

        for name, parameter in self.clip.named_parameters():
            parameter.requires_grad_(not is_text(name))
        return dataclasses.replace(
            self,
            table=dataclasses.replace(self.table, embeddings=embed(self.table.tokens)),
            known=self.known and dataclasses.replace(self.known, embeddings=embed(self.known.tokens)),
            text_is_frozen=True,
        )

    def embed_texts(self, tokens: Tensor) -> Tensor:
        return encode_text(self.clip, tokens.to(self.device))

    def embed_captions(self, numbers: Tensor) -> Tensor:
        """Return the unit-length embeddings of captions, f32 (n, d). numbers: i64 (n,), in the table."""
        if self.text_is_frozen:
            return self.table.embeddings[numbers].to(self.device)
        return self.embed_texts(self.table.tokens[numbers])

    def embed_prompts(self, known: KnownPrompts, chosen: Tensor) -> Tensor:
        """Return the unit-length embeddings of some prompts, f32 (n, d). chosen: i64 (n,)."""
        if self.text_is_frozen:
            return known.embeddings[chosen].to(self.device)
        return self.embed_texts(known.tokens[chosen])

    def embed_names(self, known: KnownPrompts) -> Tensor:
        """Return the mean embedding of the prompts of each class and action unit, f32 (G, d)."""
        embeddings = self.embed_prompts(known, torch.arange(len(known.groups)))
        return torch.stack([embeddings[known.groups == index].mean(0) for index in range(len(known.names))])

    def embed_step(
        self,
        step: Sequence[tuple[CaptionedRows, RawBatch]],
        chosen: Sequence[np.ndarray],
        epoch: int,
        augmentation: str,
    ) -> tuple[Tensor, list[np.ndarray], list[np.ndarray]]:
        """Return unit-length features f32 (P, d) of a step's images, the sources' one after the other.

        Returns also, of each source: each image's row in its cache, and the modality's place in `modalities`.
        """
        prepared = [
            prepare_images(
                source, raw, chosen[source.number], self.tower, self.device,
                augmentation=augmentation, seed=self.options.seed, epoch=epoch,
            )
            for source, raw in step
        ]  # fmt: skip
        images = torch.cat([images for images, _, _ in prepared]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            features = self.clip.encode_image(images, normalize=True)
        rows = [
            np.array([raw.items[place].rows[0] for place in owner])
            for (_, raw), (_, owner, _) in zip(step, prepared, strict=True)
        ]
        return features.float(), rows, [modality for _, _, modality in prepared]


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
    record = _describe(options, sources, held_out)
    earlier = _read_record(out, record)
    if not (earlier or {}).get("complete"):
        make_folder(out, like=caches[0])
        with hold_lock(out / ".lock", FacetError(f"{out}: another process is training here; wait until it has ended")):
            sweep_partials(out)
            clip, tower = _build(options, table, where)
            images = [_open_images(source, preload, where) for source in sources]
            run = Pretraining(options, sources, table, images, known, clip, tower, where, options.tune_text == "frozen")
            _announce(run, train_rows, held_rows)
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
                _train(out, run, train_rows, held_rows, record, trackers)
                show_result(trackers, out, None)
                for tracker in trackers:
                    print(f"{tracker.option}: {tracker.describe()}")
            write_model_folder(out, clip, tower)
            _write_record(out, record | {"complete": True})
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
        for name, parameter in clip.named_parameters():
            parameter.requires_grad_(not is_text(name))
    clip.visual.to(memory_format=torch.channels_last)
    return clip.to(device), tower.with_background(options.background)


def _open_images(source: CaptionedRows, preload: str, device: torch.device) -> ImageSource:
    items = [source.items[row] for row in source.rows]
    return preload_images(source.cache, items, source.modalities, preload, device) or StoredImages(source.cache)


def _announce(run: Pretraining, train_rows: Sequence[np.ndarray], held_rows: Sequence[np.ndarray]) -> None:
    for source, train, held in zip(run.sources, train_rows, held_rows, strict=True):
        modalities = f"{', '.join(source.modalities)} at views {source.cache.info.settings.views_text()}"
        print(
            f"{source.cache.path}: {len(train)} rows to train on, {len(held)} of other subjects to validate; {modalities}"
        )
    millions = sum(p.numel() for p in run.clip.parameters() if p.requires_grad) / 1e6
    text = "its text tower" if run.options.tune_text == "full" else "the text tower frozen"
    print(
        f"{run.tower.name}, weights {run.tower.pretrained}, {text}: {millions:.1f} M trained parameters, "
        f"{len(run.table.tokens)} captions, on {run.device}"
    )


# --- training ---


def build_optimizer(trained: nn.Module, options: PretrainOptions) -> torch.optim.Optimizer:
    """Build AdamW. Biases, norms, scales and embeddings have no weight decay; the text tower has a lower learning rate.

    At the image tower's rate, a small text tower soon gives one vector for all texts, and training stops.
    """
    chosen = []
    for name, parameter in trained.named_parameters():
        decays = parameter.ndim >= 2 and "embedding" not in name
        of_text = name.startswith("clip.") and is_text(name.removeprefix("clip."))
        chosen.append((parameter, TEXT_RATE if of_text else options.lr, options.weight_decay if decays else 0.0))
    return build_adamw(chosen)


def _train(
    out: Path,
    run: Pretraining,
    train_rows: Sequence[np.ndarray],
    held_rows: Sequence[np.ndarray],
    record: dict[str, Any],
    trackers: Sequence[Tracker],
) -> None:
    """Train from the last checkpoint, or from the start, to the last epoch. Write log.jsonl, and a checkpoint an epoch."""
    options, clip, known = run.options, run.clip, run.known
    loss = CaptionLoss()
    prompt_loss = None if known is None else PromptLoss(known.is_unit).to(run.device)
    trained: nn.Module = nn.ModuleDict({"clip": clip} | ({} if prompt_loss is None else {"prompts": prompt_loss}))
    optimizer = build_optimizer(trained, options)
    steps_per_epoch = -(-sum(map(len, train_rows)) // options.batch_size)
    num_steps, step = options.epochs * steps_per_epoch, 0
    if (checkpoint := read_checkpoint(out)) is not None:
        trained.load_state_dict(checkpoint.model)
        optimizer.load_state_dict(checkpoint.optimizer)
        step = checkpoint.step
    elif run.teaches_text:
        assert known is not None
        teach_text(clip, known, options.seed)
    if run.teaches_text:
        run = run.with_frozen_text()
        known = run.known
    record["epochs"] = record["epochs"][: step // steps_per_epoch]
    with open_progress(out, step, num_steps, run.device, trackers=trackers) as progress:
        for epoch in range(step // steps_per_epoch, options.epochs):
            started, losses = time.monotonic(), []
            clip.train()
            for source_steps, chosen, captions in progress.waiting_for(
                _stream_epoch(run, train_rows, steps_per_epoch, epoch)
            ):
                rate = rate_at(step, num_steps, options.warmup)
                set_rate(optimizer, rate)
                features, rows, _ = run.embed_step(source_steps, chosen, epoch, options.augment)
                numbers, described_by = gather_captions(source_steps, rows, captions)
                unique, inverse = numbers.unique(return_inverse=True)
                texts = run.embed_captions(unique)[inverse]
                value = loss(
                    features, texts, clip.logit_scale.exp(), numbers.to(run.device), described_by.to(run.device)
                )
                if known is not None and prompt_loss is not None:
                    numbered = zip(source_steps, rows, strict=True)
                    truth = torch.cat([known.truth[source.number][of_source] for (source, _), of_source in numbered])
                    vectors = run.embed_prompts(known, known.draw(options.seed, step))
                    value = CAPTIONS_WEIGHT * value + prompt_loss(features, vectors, truth.to(run.device))
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                norm = nn.utils.clip_grad_norm_(trained.parameters(), MAX_GRAD_NORM)
                optimizer.step()
                with torch.no_grad():
                    clip.logit_scale.clamp_(0, MAX_LOG_SCALE)
                step += 1
                features, texts = features.detach(), texts.detach()
                result = StepResult({"loss": value.detach(), "grad_norm": norm.detach()}, features @ texts.T, features)
                progress.add(step - 1, result, sum(len(raw.items) for _, raw in source_steps))
                losses.append(value.detach())
                if step % LOG_EVERY == 0 or step % steps_per_epoch == 0:
                    values = progress.read(out, f"--lr (now {options.lr:g})")
                    best = numbers[result.logits.argmax(1).cpu()]
                    progress.write(
                        {"step": step, "epoch": epoch, **values, "accuracy": (best == numbers).float().mean().item(),
                         "scale": clip.logit_scale.exp().item(), "lr": options.lr * rate}
                    )  # fmt: skip
            validation = validate(run, held_rows)
            line = {"epoch": epoch + 1, "loss": torch.stack(losses).mean().item(), **validation}
            line["seconds"] = round(time.monotonic() - started, 1)
            for source in run.sources:
                source.cache.check_unchanged()
            if validation:
                each = {f"zero_shot/{name}": value for name, value in validation.pop("zero_shot", {}).items()}
                shown = validation | each
                progress.write_validation(step, epoch, shown)
            record["epochs"].append(line)
            _write_record(out, record)
            write_checkpoint(out, step, trained, optimizer)
            tqdm.write(_describe_epoch(line, options.epochs))


def _stream_epoch(
    run: Pretraining, rows: Sequence[np.ndarray], num_steps: int, epoch: int
) -> Iterator[tuple[list[tuple[CaptionedRows, RawBatch]], list[np.ndarray], list[np.ndarray]]]:
    """Yield the stored images of each step of an epoch, with the epoch's choice of images and of captions."""
    seed = run.options.seed
    chosen = [draw_images(source, run.options.images_per_row, seed, epoch) for source in run.sources]
    captions = [draw_captions(source, seed, epoch) for source in run.sources]
    steps = order_rows(rows, num_steps, seed, epoch)
    for step in stream_steps(run.sources, run.images, steps, chosen):
        yield step, chosen, captions


def gather_captions(
    step: Sequence[tuple[CaptionedRows, RawBatch]], rows: Sequence[np.ndarray], drawn: Sequence[np.ndarray]
) -> tuple[Tensor, Tensor]:
    """Return the caption drawn for each image of a step, i64 (P,), and all captions of its row, i64 (P, K), −1 = none.

    Args:
        rows: of each source in the step, its images' rows. drawn: of each source, as `draw_captions`.
    """
    num_wordings = max(source.captions.shape[1] for source, _ in step)
    captions, of_rows = [], []
    for (source, _), of_images in zip(step, rows, strict=True):
        captions.append(drawn[source.number][of_images])
        of_row = np.full((len(of_images), num_wordings), -1)
        of_row[:, : source.captions.shape[1]] = source.captions[of_images]
        of_rows.append(of_row)
    return torch.from_numpy(np.concatenate(captions)), torch.from_numpy(np.concatenate(of_rows))


# --- validation ---


@torch.no_grad()
def validate(run: Pretraining, rows: Sequence[np.ndarray]) -> dict[str, Any]:
    """Measure the loss on held-out subjects, and zero-shot accuracy by the prompts of their classes except neutral.

    Each row counts with its image nearest to the front in every modality, and with its first caption. Zero-shot accuracy is
    that of single images, of single scans with a label.

    Returns:
        `validation_loss`, and `validation_guess`, what it is where all images look alike; `zero_shot`, modality → accuracy.
        What cannot be measured is absent.
    """
    num = sum(map(len, rows))
    if not num:
        return {}
    run.clip.eval()
    classes = [[] if run.known is None else run.known.find_classes(source) for source in run.sources]
    vectors = None if run.known is None else run.embed_names(run.known)
    chosen = [choose_front_images(source) for source in run.sources]
    captions = [source.captions[:, 0] for source in run.sources]
    steps = order_rows(rows, -(-num // run.options.batch_size), run.options.seed, 0)
    loss, total, guesses, num_images, scale = CaptionLoss(), 0.0, 0.0, 0, run.clip.logit_scale.exp()
    right: dict[str, list[bool]] = {}
    for step in stream_steps(run.sources, run.images, steps, chosen):
        features, of_rows, modalities = run.embed_step(step, chosen, 0, "none")
        numbers, described_by = gather_captions(step, of_rows, captions)
        unique, inverse = numbers.unique(return_inverse=True)
        texts = run.embed_captions(unique)[inverse]
        value = loss(features, texts, scale, numbers.to(run.device), described_by.to(run.device))
        total += len(numbers) * value.item()
        guesses += len(numbers) * math.log(len(numbers))
        num_images += len(numbers)
        split = features.split([len(of_source) for of_source in of_rows])
        for (source, _), part, of_source, modality in zip(step, split, of_rows, modalities, strict=True):
            among = classes[source.number]
            if vectors is None or run.known is None or len(among) < 2:
                continue
            names = [run.known.names[index] for index in among]
            predicted = (part @ vectors[among].T).argmax(1).tolist()
            for row, place, number in zip(of_source, modality, predicted, strict=True):
                sample = source.cache.samples[row]
                if sample.label in names and not sample.sequence:
                    right.setdefault(source.modalities[place], []).append(names[number] == sample.label)
    measured: dict[str, Any] = {"validation_loss": total / num_images, "validation_guess": guesses / num_images}
    if right:
        measured["zero_shot"] = {name: sum(found) / len(found) for name, found in right.items()}
    return measured


def _describe_epoch(line: dict[str, Any], num_epochs: int) -> str:
    parts = [f"loss {line['loss']:.3f}"]
    if "validation_loss" in line:
        parts.append(
            f"of captions of held-out subjects {line['validation_loss']:.3f} (guessing: {line['validation_guess']:.3f})"
        )
    if "zero_shot" in line:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in line["zero_shot"].items())
        parts.append(f"zero-shot accuracy of single images there: {shares}")
    return f"epoch {line['epoch']} of {num_epochs}: {', '.join(parts)}"


# --- pretrain.json ---


def _describe(options: PretrainOptions, sources: Sequence[CaptionedRows], held_out: Sequence[str]) -> dict[str, Any]:
    """Return pretrain.json of a run that has not begun."""
    caches = [
        {
            "name": source.cache.name,
            "dataset": source.cache.info.dataset,
            "licence": source.cache.info.licence,
            "content_hash": source.cache.info.content_hash,
            "modalities": list(source.modalities),
            "rows": len(source.rows),
            "captions": len(np.unique(source.captions[source.captions >= 0])),
        }
        for source in sources
    ]
    settings = {
        name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(options).items()
    }
    return {
        "complete": False,
        "settings": settings,
        "caches": caches,
        "validation_subjects": list(held_out),
        "epochs": [],
    }


def _write_record(out: Path, record: dict[str, Any]) -> None:
    hours = sum(line["seconds"] for line in record["epochs"]) / 3600
    value = {**record, "hours": round(hours, 3), "environment": describe_environment()}
    write_file(out / PRETRAIN_JSON, canonical_json(value).encode())


def _read_record(out: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """Read pretrain.json of an interrupted or finished run with the same settings; None in a new folder.

    Raises:
        FacetError: it is damaged, has other settings, or the folder holds something else.
    """
    path = out / PRETRAIN_JSON
    if not path.is_file():
        check_unused(out, "pretraining", PRETRAIN_JSON, (LOG_JSONL, CONFIG_TOML))
        return None
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError("too large")
        found: dict[str, Any] = json.loads(path.read_bytes())
        settings = {"background": "black", **found["settings"]}  # once the only one
        names = [option_name(n) for n, value in record["settings"].items() if settings.get(n) != value]
        if [cache["content_hash"] for cache in found["caches"]] != [c["content_hash"] for c in record["caches"]]:
            names.append("the caches or their content")
        epochs = [{**line, "seconds": float(line["seconds"])} for line in found["epochs"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FacetError(f"{path}: damaged ({first_line(error)}); choose another --out") from error
    check_same_settings(out, "a pretraining", names)
    return {**found, "epochs": epochs}
