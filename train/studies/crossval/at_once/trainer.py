"""All folds and rounds of a protocol at once: heads on embeddings, trained as one batched model, each a run of its own.

What a fold is trained on, in which order, at which rate, is what `training.fit` would do; only sums are taken in another order.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from shared.errors import FacetError, first_line
from shared.store.lock import hold_lock
from train.config import CONFIG_JSON, RunConfig, write_config
from train.data.embeddings import Embeddings
from train.data.memory import free_ram_bytes
from train.data.prompts import mean_prompts
from train.experiment import Experiment
from train.inference.calibrate import start_class_bias
from train.model.facet import Facet
from train.model.image_tower import load_tower
from train.protocols.folds import write_split
from train.runs.evaluate import build_facet, build_preparer, choose_device
from train.studies.crossval.at_once.batches import Batches
from train.studies.crossval.at_once.model import Stack, stacked_model_bytes
from train.studies.crossval.at_once.state import (
    CHECKPOINT_AT_ONCE,
    CheckpointClock,
    Facts,
    FoldRun,
    note_step,
    read_checkpoint,
    write_checkpoint,
    write_logs,
)
from train.studies.crossval.workers import Job, Outcome
from train.training.build_embeddings import open_embeddings
from train.training.checkpoint import CHECKPOINT, sweep_partials, write_weights
from train.training.fit import (
    LOCK,
    check_same,
    check_towers_match,
    describe_run,
    evaluate_fold,
    label_training,
    read_earlier,
)
from train.training.loop import TrainingSet, build_criterion
from train.training.progress import LOG_EVERY, truncate_log, write_tensorboard
from train.training.progress_lines import ProgressLines
from train.training.signals import catch_signals
from train.training.timing import Clock, add_seconds

MOST_ON_CPU, MOST_ON_GPU = 16, 512  # models at once: more save no time on a CPU; each keeps a file open
MEMORY_SHARE = 0.7  # of what is free: the rest is for tests of folds that are trained, and for everybody else


def can_train_at_once(job: Job) -> bool:
    """Whether a recipe is one that stacked models train by: heads on embeddings, each batch whole."""
    return job.embeddings is not None and job.recipe.accumulate == 1


def run_at_once(job: Job, experiment: Experiment, numbers: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    """As `workers.run_jobs`: trains folds, as many at once as there is memory for; each is given back as it ends.

    After SIGINT or SIGTERM the last thing given back is the exit code; a checkpoint of the folds in training is written.

    Raises:
        FacetError: the checkpoint is damaged, or no fold can be trained.
    """
    assert job.embeddings is not None
    device = choose_device(job.device)
    recipe = experiment.recipe
    tower, tower_config = load_tower(recipe.model, recipe.pretrained, seed=recipe.seed)
    check_towers_match(experiment, tower_config)
    config = describe_run(experiment, tower_config)
    tables = open_embeddings(job.embeddings, experiment, config, tower, device)
    trainer = _Trainer(job, experiment, config, tower, tables, device)
    saved = read_checkpoint(job.out)
    waiting = list(numbers)
    names = [experiment.fold(number).name for number in waiting]
    if saved is not None:  # the folds that were in training go first, together, as their weights lie
        together = [waiting[names.index(name)] for name in saved["folds"] if name in names]
        if together:
            waiting = [number for number in waiting if number not in together]
            code = yield from trainer.train(together, saved)
            if code:
                return
        (job.out / CHECKPOINT_AT_ONCE).unlink(missing_ok=True)
    most = trainer.count_fitting()
    # folds that take equally many steps stay together: a stack goes on as long as its longest
    waiting.sort(key=lambda number: (-trainer.num_steps(number), number))
    for first in range(0, len(waiting), most):
        if (yield from trainer.train(waiting[first : first + most], None)):
            return


@dataclass
class _Trainer:
    job: Job
    experiment: Experiment
    config: RunConfig
    tower: nn.Module
    tables: tuple[Embeddings, Embeddings]
    device: torch.device

    def num_steps(self, number: int) -> int:
        recipe = self.config.recipe
        items = self.experiment.items_of(self.experiment.fold(number))[0]
        return recipe.epochs * -(-len(items) // recipe.batch_size)

    def count_fitting(self) -> int:
        """How many models there is memory for."""
        recipe, features = self.config.recipe, self.tables[0].features
        model = self._build(nn.Identity())
        num_bytes = stacked_model_bytes(
            sum(p.numel() for p in model.parameters()),
            averaged=bool(recipe.ema),
            batch_size=recipe.batch_size,
            num_frames=recipe.frames,
            has_reference=recipe.relative != "none",
            num_views=features.shape[2] * features.shape[3],
            num_classes=len(recipe.classes),
            dim=self.config.text_dim,
            tower_dim=features.shape[4],
            num_scored=features.shape[2] * features.shape[3] if model.fusion.scores_each_view else 1,
        )
        cuda = self.device.type == "cuda"
        free = torch.cuda.mem_get_info(self.device)[0] if cuda else free_ram_bytes()
        return max(1, min(MOST_ON_GPU if cuda else MOST_ON_CPU, int(free * MEMORY_SHARE / num_bytes)))

    def _build(self, tower: nn.Module) -> Facet:
        text = self.experiment.text
        return build_facet(self.config, self.device, tower, mean_prompts(text), text.logit_scale)

    def _open(self, number: int) -> FoldRun:
        """Makes a fold's folder, or checks that it is of this fold."""
        recipe = dataclasses.replace(self.config.recipe, fold=number)
        config = dataclasses.replace(self.config, recipe=recipe)
        fold = self.experiment.fold(number)
        run = self.job.out / fold.name
        if old := read_earlier(run):
            check_same(run, old, config, fold)
        items = self.experiment.items_of(fold)[0]
        training = TrainingSet(items, label_training(items, recipe))
        return FoldRun(number, fold, run, config, training, self.num_steps(number))

    def train(self, numbers: Sequence[int], saved: dict[str, Any] | None) -> Generator[tuple[int, Outcome], None, int]:
        """Trains some folds together, from a checkpoint or from step 0, then tests one after the other.

        Returns (of the iterator): the exit code, not 0 after a signal.
        """
        clock = Clock()
        with ExitStack() as locks:
            folds: list[FoldRun] = []
            for number in numbers:
                try:
                    one = self._open(number)
                    refusal = FacetError(f"{one.run}: another process is training this run; wait until it has ended")
                    locks.enter_context(hold_lock(one.run / LOCK, refusal))
                    sweep_partials(one.run)
                except FacetError as error:
                    yield number, (0, str(error))
                    continue
                if not (one.run / CONFIG_JSON).is_file():
                    write_split(one.run, one.fold)
                    write_config(one.run, one.config)
                folds.append(one)
            if not folds:
                return 0
            sweep_partials(self.job.out, f"{CHECKPOINT_AT_ONCE}*")
            stack, broken, number_caught = self._train_stack(folds, saved)
            for one in folds:
                add_seconds(one.run, clock, len(folds))
            if number_caught:
                yield folds[0].number, (128 + number_caught, "")
                return 128 + number_caught
            model = self._build(self.tower)
            for index, one in enumerate(folds):
                yield one.number, self._finish(one, model, stack.trained(index), int(broken[index]))
            (self.job.out / CHECKPOINT_AT_ONCE).unlink(missing_ok=True)
        return 0

    def _train_stack(self, folds: Sequence[FoldRun], saved: dict[str, Any] | None) -> tuple[Stack, list[int], int]:
        """Trains to the last step, or to a signal.

        Returns:
            The stack; for each model the step at which its loss was not finite any more, −1: always; the signal's number or 0.
        """
        recipe, device = self.config.recipe, self.device
        facet = self._build(nn.Identity())
        stack = Stack([self._start(facet, one) for one in folds], facet, recipe, [one.num_steps for one in folds])
        goals = [build_criterion(recipe, one.training.labels, device) for one in folds]
        weights = [criterion.class_weight for criterion in goals if criterion.class_weight is not None]
        class_weight = torch.stack(weights) if weights else None
        broken = torch.full((len(folds),), -1, device=device)
        step = 0
        if saved is not None:
            step = self._restore(stack, broken, folds, saved)
        for one in folds:
            truncate_log(one.run, step)
        views = self.experiment.train.info.settings.views
        batches = Batches([one.training for one in folds], self.tables[0], views, recipe)
        num_steps = max(one.num_steps for one in folds)
        clock = CheckpointClock(self.job.checkpoint_every)
        started, num_samples = time.monotonic(), 0
        title = f"{len(folds)} folds at once"
        lines = ProgressLines(f"{self.job.out}: {title}", step, num_steps, "step", silent=False)
        with (
            catch_signals() as caught,
            tqdm(
                total=num_steps, initial=step, desc=title, unit="step", dynamic_ncols=True,
                leave=False, disable=None,
            ) as bar,
        ):  # fmt: skip
            while step < num_steps:
                num = stack.num_active(step)
                batch = batches.at(step, num)
                result = stack.step(step, batch, class_weight)
                finite = torch.stack(list(result.terms.values())).isfinite().all(0)
                broken[:num] = torch.where((broken[:num] < 0) & ~finite, step, broken[:num])
                num_samples += batch.kept.shape[1]
                step += 1
                ending = [i for i in range(num) if folds[i].num_steps == step]
                if step % LOG_EVERY == 0 or ending:
                    which = range(num) if step % LOG_EVERY == 0 else ending
                    speed = num_samples / (time.monotonic() - started)
                    facts = Facts(step, [batches.epoch(i, step - 1) for i in range(num)], speed)
                    told = note_step(folds, which, stack, result, (batch.target, batch.kept), facts)
                    lines.tell(step, facts.epochs[0], lambda told=told: told)  # type: ignore[misc]
                bar.update()
                if caught or step == num_steps or clock.is_due(step):
                    with clock.writing():
                        self.experiment.train.check_unchanged()
                        write_logs(folds)
                        write_checkpoint(self.job.out, folds, stack, broken, step)
                if caught:
                    number = signal.Signals(caught[0])
                    print(f"\nstopped by {number.name} after step {step} of {len(folds)} folds", file=sys.stderr)
                    return stack, broken.tolist(), int(number)
        return stack, broken.tolist(), 0

    def _start(self, facet: Facet, one: FoldRun) -> dict[str, torch.Tensor]:
        """A fold's weights before its first step."""
        if facet.class_bias is not None and one.config.recipe.is_multilabel:
            experiment = self.experiment
            transform = build_preparer(experiment.train, one.config, facet, self.tables[0])
            facet.class_bias.data.zero_()
            training = one.training
            start_class_bias(facet, experiment.train, training.items, training.labels, transform, one.config.recipe)
        return {name: p.detach().clone() for name, p in facet.named_parameters()}

    def _restore(self, stack: Stack, broken: torch.Tensor, folds: Sequence[FoldRun], saved: dict[str, Any]) -> int:
        path = self.job.out / CHECKPOINT_AT_ONCE
        try:
            models = [saved["folds"].index(one.fold.name) for one in folds]
            stack.load(saved["stack"], models, saved["step"])
            broken.copy_(saved["broken"][models])
            return int(saved["step"])
        except (KeyError, IndexError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise FacetError(
                f"{path}: is of other folds ({first_line(error)}); remove it to train them again"
            ) from error

    def _finish(self, one: FoldRun, model: Facet, weights: dict[str, torch.Tensor], broken_step: int) -> Outcome:
        """Tests a trained fold and writes what `train.training.fit` would."""
        if broken_step >= 0:
            rate = f"--lr (now {one.config.recipe.lr:g})"
            return 0, f"training broke at step {broken_step} (its loss is not finite); train anew with a lower {rate}"
        clock = Clock()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        try:
            if self.job.keep_weights:
                write_weights(one.run, model)
            if self.job.tensorboard:
                write_tensorboard(one.run)
            evaluate_fold(one.run, model, self.experiment, one.fold, one.config, self.tables)
        except FacetError as error:
            return 0, str(error)
        (one.run / CHECKPOINT).unlink(missing_ok=True)  # of an earlier attempt, one by one
        add_seconds(one.run, clock)
        return 0, ""
