"""What keeps numbers from being results, in lines that stand beside them."""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import count, name_some
from train.config import RunConfig
from train.reporting.summary import CrossvalAbout, CrossvalSummary
from train.runs.results import FoldResult, TestInfo

SUBTRACTED = {
    "neutral": "half of the scores of each subject's neutral scan was subtracted",
    "subject": "the mean over each subject's scans was subtracted (no labels used)",
    "all": "the mean over all scans was subtracted (no labels used)",
}


def find_limits(config: RunConfig) -> list[str]:
    """Return what keeps a model's predictions from being results, a line each."""
    recipe = config.recipe
    info = TestInfo(
        random_weights=config.is_random, shuffled_labels=recipe.shuffle_labels, centred_scores=recipe.centre_scores
    )
    return list_limits(info, of_sequences=recipe.frames > 1)


def list_limits(*tests: TestInfo, of_sequences: bool = False) -> list[str]:
    """Return why tests are no results, one line each."""
    lines = []
    if any(test.random_weights for test in tests):
        lines.append("RANDOM WEIGHTS: model or prompts were not pretrained; no result to compare with published ones")
    if any(test.shuffled_labels for test in tests):
        lines.append("CONTROL: training labels were shuffled, so scores should be near chance")
    for by in sorted({test.centred_scores for test in tests} - {"none"}):
        lines.append(
            f"CENTRED SCORES: {SUBTRACTED[by]}; say so beside the number"
            + "; there are no votes of frames, which are not centred" * of_sequences
        )
    return lines


def list_warnings(summary: CrossvalSummary, results: Sequence[FoldResult], about: CrossvalAbout) -> list[str]:
    """Return what keeps these numbers from being the protocol's result, one line each; [] where nothing does."""
    lines = []
    if summary.num_folds < about.num_folds:
        lines.append(
            f"PARTIAL: {summary.num_folds:,} of {about.num_folds:,} folds are finished"
            + (f"; missing: {name_some(about.missing_folds, 8)}" if about.missing_folds else "")
        )
    if about.num_rounds < about.num_rounds_published:
        lines.append(f"FEWER ROUNDS: {about.num_rounds:,}, where the protocol has {about.num_rounds_published:,}")
    if summary.num_rounds_left_out:
        rounds = count(summary.num_rounds_left_out, "unfinished round")
        lines.append(f"{rounds} left out of mean ± std over rounds")
    return lines + list_limits(*(result.info for result in results), of_sequences=about.unit == "sequence")
