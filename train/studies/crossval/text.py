"""The report of a cross-validation for a console, and what must be said wherever its numbers stand."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from train.reporting.report import format_groups, head_columns, join_cells
from train.runs.results import FoldResult
from train.studies.crossval.summary import ClassSummary, CrossvalAbout, CrossvalSummary, Spread, sort_folds
from train.tasks.metrics import Metrics

SCORE_TITLES = {
    "accuracy": "accuracy",
    "uar": "UAR (balanced accuracy)",
    "macro_f1": "macro-F1 (UF1)",
    "micro_f1": "micro-F1",
}
LINE_LENGTH = 120
MOST_FOLDS_LISTED = 50  # all of them are in folds.csv
MOST_CLASSES_IN_MATRIX = 12


def format_crossval_report(summary: CrossvalSummary, results: Sequence[FoldResult], about: CrossvalAbout) -> str:
    """The whole report as text, scores in percent; ends without a line feed."""
    results = sort_folds(results)
    lines = [_join(f"{about['title']} ({about['protocol']})")]
    lines += [_label("!", line) for line in list_warnings(summary, results, about)]
    lines.append(_label("follows", about["source"]))
    lines.append(_label("data", f"{', '.join(about['datasets'])}; {about['licence']}"))
    lines.append(_label("model", describe_model(about)))
    if about["label_map"] is not None:
        lines.append(_label("labels", ", ".join(f"{one} → {other}" for one, other in about["label_map"].items())))
    lines += ["", *_format_scores(summary, about), "", *_format_classes(summary)]
    if isinstance(summary.pooled, Metrics) and len(summary.class_names) <= MOST_CLASSES_IN_MATRIX:
        lines += ["", *_format_confusion(summary.pooled, summary.class_names)]
    if len(results) <= MOST_FOLDS_LISTED:
        lines += ["", *_format_folds(summary, results)]
    if summary.groups:
        lines += ["", "groups of people or scans, pooled, in %", *format_groups(summary.groups)]
    lines.append("")
    for line in (*list_conventions(summary, about), *about["notes"]):
        lines += textwrap.wrap(_join(line), LINE_LENGTH, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(lines)


def list_warnings(summary: CrossvalSummary, results: Sequence[FoldResult], about: CrossvalAbout) -> list[str]:
    """What keeps these numbers from being the protocol's result, a line each; empty where nothing does."""
    lines = []
    if summary.num_folds < about["num_folds"]:
        missing = about["missing_folds"]
        names = ", ".join(missing[:8]) + (f" and {len(missing) - 8:,} more" if len(missing) > 8 else "")
        lines.append(
            f"PARTIAL: {summary.num_folds:,} of {about['num_folds']:,} folds are finished"
            + (f"; missing: {names}" if missing else "")
        )
    if about["num_rounds"] < about["num_rounds_published"]:
        lines.append(f"FEWER ROUNDS: {about['num_rounds']:,}, where the protocol has {about['num_rounds_published']:,}")
    if summary.num_rounds_left_out:
        rounds = _count(summary.num_rounds_left_out, "unfinished round")
        lines.append(f"{rounds} left out of mean ± std over rounds")
    if about["random_weights"] or any(result.metrics.get("random_weights") for result in results):
        lines.append("RANDOM WEIGHTS: model or prompts were not pretrained; no result to compare with published ones")
    if any(result.metrics.get("shuffled_labels") for result in results):
        lines.append("CONTROL: training labels were shuffled, so scores should be near chance")
    return lines


def list_conventions(summary: CrossvalSummary, about: CrossvalAbout) -> list[str]:
    """How the numbers were taken, a line each."""
    unit, repeated = about["unit"], bool(summary.over_rounds)
    lines = [
        f"One sample is one {unit}, and counts once{' in each round' if repeated else ''}; no subject stands in both train "
        "and test.",
        f"Each fold was tested once, after its last epoch ({about['epochs']}); no choice was made on test data"
        + (", and thresholds were chosen on training subjects." if summary.multilabel else "."),
    ]
    if summary.num_folds == 1:
        lines.append("One fold only, so there is no standard deviation: it stands as –.")
    else:
        lines.append(
            "mean ± std is over folds, with the sample standard deviation (n - 1); for a class, over the folds where it occurs."
        )
    if summary.multilabel:
        lines.append(
            "Pooled F1 comes from counts summed over all folds (Forman & Scholz 2010); unknown targets count nowhere; UAR is "
            "the mean of the classes' balanced accuracies."
        )
    else:
        lines.append(
            "Pooled scores come from counts summed over all folds; UAR and UF1 so as MEGC 2019 defines them (See et al. 2019)."
        )
    if summary.num_folds_lacking_a_class:
        lines.append(
            f"{summary.num_folds_lacking_a_class:,} of {summary.num_folds:,} folds lack a class: their own UAR leaves it out "
            "and their macro-F1 counts it as 0, so quote the pooled values."
        )
    if summary.multilabel:
        lines.append("'always yes' is the F1 of naming the class every time, 2p / (1 + p): what an F1 must exceed.")
    else:
        lines.append(
            f"The 95 % interval (Wilson) takes {unit}s as independent"
            + (", those of one round counted once" if repeated else "")
            + "; those of one subject are not, so it is narrow."
        )
    return lines


def _join(text: str) -> str:
    """Text from a file as one line."""
    return " ".join(text.split())


def _label(label: str, text: str) -> str:
    lines = textwrap.wrap(_join(text), LINE_LENGTH, initial_indent=f"{label:<11}", subsequent_indent=" " * 11)
    return "\n".join(lines) or label


def _count(num: int, noun: str) -> str:
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def describe_model(about: CrossvalAbout) -> str:
    return (
        f"{about['model']} ({about['pretrained']}); {', '.join(about['modalities'])}; views {about['views']}; "
        f"{about['epochs']} epochs; seed {about['seed']}"
    )


def count_folds(summary: CrossvalSummary, about: CrossvalAbout) -> str:
    """How many folds a mean is over, and of how many where some are not finished."""
    whole = about["num_folds"]
    return f"{summary.num_folds:,}" + (f" of {whole:,}" if whole > summary.num_folds else "")


def format_percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def format_spread(spread: Spread) -> str:
    return "–" if spread.mean is None else f"{format_percent(spread.mean)} ± {format_percent(spread.std)}"


def _format_scores(summary: CrossvalSummary, about: CrossvalAbout) -> list[str]:
    folds = f"mean ± std, {_count(summary.num_folds, 'fold')}"
    rounds = f"mean ± std, {_count(summary.num_rounds - summary.num_rounds_left_out, 'round')}"
    lines = [f"{'scores in %':<25}{folds:>24}" + f"{rounds:>26}" * bool(summary.over_rounds) + f"{'pooled':>10}"]
    for name in summary.score_names:
        line = f"{SCORE_TITLES[name]:<25}{format_spread(summary.over_folds[name]):>24}"
        if summary.over_rounds:
            line += f"{format_spread(summary.over_rounds[name]):>26}"
        line += f"{format_percent(getattr(summary.pooled, name)):>10}"
        if name == "accuracy" and isinstance(summary.pooled, Metrics):
            low, high = summary.pooled.accuracy_95
            line += f"  (95 %: {format_percent(low)} to {format_percent(high)})"
        lines.append(line)
    pooled = summary.pooled
    tested = f"{_count(pooled.num_samples, about['unit'])} tested"
    if summary.over_rounds:
        tested = f"{pooled.num_samples:,} tests of one {about['unit']} in {_count(summary.num_rounds, 'round')}"
    if isinstance(pooled, Metrics):
        majority = format_percent(pooled.majority)
        lines.append(f"{tested}; chance {format_percent(pooled.chance)}, always the most frequent class {majority}")
    else:
        always = [c.always_yes_f1 for c in summary.classes if c.always_yes_f1 is not None]
        lines.append(f"{tested}; macro-F1 of always saying yes {format_percent(sum(always) / max(len(always), 1))}")
    title = SCORE_TITLES[summary.score_names[0]]
    (worst, low), (best, high) = summary.worst_fold, summary.best_fold
    if summary.num_folds > 1:
        lines.append(
            f"{title} of the worst fold {format_percent(low)} ({worst}), of the best {format_percent(high)} ({best})"
        )
    if summary.seconds.mean is not None:
        total = summary.seconds.mean * summary.seconds.num
        lines.append(f"{summary.seconds.mean:,.1f} s a fold, {total:,.0f} s for {_count(summary.seconds.num, 'fold')}")
    return lines


def _format_classes(summary: CrossvalSummary) -> list[str]:
    """A row a class. Recall is what the field's tables call the accuracy of a class."""
    width = max(8, *(len(name) for name in summary.class_names))
    if summary.multilabel:
        columns = ["known", "positive", "F1", "always yes", "F1 over folds", "precision", "recall", "AUC over folds"]
    else:
        columns = ["samples", "recall", "recall over folds", "precision", "F1", "F1 over folds"]
    widths = [max(len(column), 8) + 2 for column in columns]
    lines = [f"{'class':<{width}}" + "".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))]
    for one in summary.classes:
        cells = _class_cells(one, summary.multilabel)
        lines.append(f"{one.class_name:<{width}}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)))
    return lines


def _class_cells(one: ClassSummary, multilabel: bool) -> list[str]:
    recall, precision, f1 = format_percent(one.recall), format_percent(one.precision), format_percent(one.f1)
    if multilabel:
        prevalence, always_yes = format_percent(one.prevalence), format_percent(one.always_yes_f1)
        f1_spread, auc_spread = format_spread(one.f1_over_folds), format_spread(one.auc_over_folds)
        return [f"{one.num_known:,}", prevalence, f1, always_yes, f1_spread, precision, recall, auc_spread]
    recall_spread = format_spread(one.recall_over_folds)
    return [f"{one.support:,}", recall, recall_spread, precision, f1, format_spread(one.f1_over_folds)]


def _format_confusion(pooled: Metrics, class_names: Sequence[str]) -> list[str]:
    corner = "true / predicted, pooled"
    names, heads, widths = head_columns(class_names, pooled.confusion)
    width = max(len(corner), *(len(name) for name in names))
    lines = [f"{corner:<{width}}" + join_cells(heads, widths)]
    lines += [f"{name:<{width}}" + join_cells(row, widths) for name, row in zip(names, pooled.confusion, strict=True)]
    return lines


def _format_folds(summary: CrossvalSummary, results: Sequence[FoldResult]) -> list[str]:
    width = max(8, *(len(result.name) for result in results)) + 2
    titles = [SCORE_TITLES[name].split(" (")[0] for name in summary.score_names]
    lines = [f"{'fold':<{width}}{'samples':>9}" + "".join(f"{title:>10}" for title in titles)]
    for result in results:
        scores = "".join(f"{format_percent(result.metrics[name]):>10}" for name in summary.score_names)
        lines.append(f"{result.name:<{width}}{result.metrics['num_samples']:>9,}{scores}")
    return lines
