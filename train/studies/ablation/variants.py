"""The variants of a model that an ablation compares, as options. Imports nothing heavy, for --help."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from shared.command_line import join_angles
from shared.errors import FacetError
from train.option_parser import add_option
from train.option_values import option_name
from train.options import OPTIONS, Options

FULL, FULL_LABEL = "full", "Full model"


class Change(NamedTuple):
    """A ready-made variant. label: its name in a paper's table."""

    options: str  # that change the full model
    about: str  # what is left
    label: str


PARTS = {
    "no-cvsa": Change("--fusion mean", "views are averaged; none attends to another", "w/o CVSA"),
    "no-mtgf": Change(
        "--head cosine --mtgf-tokens views", "the fused face is compared with the prompts as it is", "w/o MTGF"
    ),
    "no-consistency": Change(
        "--lambda-con 0", "no loss between single views and the fused face", "w/o consistency loss"
    ),
    "no-view-text": Change("--lambda-vt 0", "views are not compared with the prompts one by one", "w/o view–text loss"),
    "plain-clip": Change(
        "--fusion mean --head cosine --mtgf-tokens views --lambda-con 0 --lambda-vt 0",
        "none of the four: CLIP's own score of averaged views, trained",
        "w/o all four",
    ),
}
# For what is added; trained only if named.
ADDITIONS = {
    "with-patches": Change(
        "--mtgf-tokens patches", "MTGF's text also attends to the patch tokens of the image tower", "with patch tokens"
    ),
    "with-residual": Change(
        "--class-vectors residual",
        "a learned residual is added to the text embedding of each class",
        "with learned residuals",
    ),
}
# Neither MTGF's patches nor a loss beside that of the scores.
_PLAIN = "--mtgf-tokens views --lambda-con 0 --lambda-vt 0"
# As ADDITIONS: simple baselines. `--variants obvious` names them all.
OBVIOUS = {
    "zero-shot": Change(
        f"--epochs 0 --fusion mean --head cosine {_PLAIN}", "CLIP as it is, nothing trained", "CLIP, zero-shot"
    ),
    "linear": Change(
        f"--fusion mean --head linear {_PLAIN}", "a linear classifier on averaged views, no text", "Linear classifier"
    ),
    "frontal": Change(
        f"--views 0 --fusion mean --head linear {_PLAIN}", "the same of the frontal view alone", "Frontal view only"
    ),
    "max": Change(
        f"--fusion max --head linear {_PLAIN}",
        "on the largest values over views (MVCNN, Su et al. 2015)",
        "Max over views",
    ),
    "concat": Change(f"--fusion concat --head linear {_PLAIN}", "on all views side by side", "Concatenated views"),
    "late": Change(
        f"--fusion late --head linear {_PLAIN}",
        "on each view; the views' probabilities are averaged",
        "Averaged scores",
    ),
    "mit": Change(
        f"--towers view --fusion late --head linear {_PLAIN}",
        "and each view has a tower of its own (MiT)",
        "A tower per view",
    ),
    "learned-vectors": Change(
        "--class-vectors learned", "learned class vectors instead of prompts", "Learned class vectors"
    ),
    "margin": Change(
        "--lambda-con 0 --extra-losses margin=0.1", "AffectVLM's pair loss instead of consistency", "Margin loss"
    ),
    "cross-correlation": Change(
        "--lambda-con 0 --extra-losses cross-correlation=0.1",
        "SMILE-VLM's loss instead of consistency",
        "Cross-correlation loss",
    ),
}
GROUPS = {"obvious": (*OBVIOUS, "plain-clip")}
ONLY = "only-"  # only-texture: one modality of several
_WIDTH = max(len(name) for name in (*PARTS, *ADDITIONS, *OBVIOUS)) + 2


def _list(variants: dict[str, Change]) -> str:
    return "\n".join(f"  {name:<{_WIDTH}}{one.options}\n  {'':<{_WIDTH}}{one.about}" for name, one in variants.items())


ABLATE_EXAMPLES = f"""Trains and tests every fold of a protocol for the full model (the options as given), and for variants
with one part switched off, all else equal: the same folds for all variants and seeds. Each is a run of
crossval, in RUN/VARIANT (further seeds in RUN/VARIANT-seedN). Interrupted? The same command goes on; more seeds and
variants may be added later. RUN/ablation.csv and ablation.tex: a row per variant, scores pooled over folds, mean ± std over
seeds, the difference to the full model with the p of `compare`'s paired test, Holm-corrected over variants where all folds
are finished, and parameters, time and memory.

variants:
  {FULL:<{_WIDTH}}the options as given
{_list(PARTS)}
  {ONLY + "MODALITY":<{_WIDTH}}--modalities MODALITY
  {"":<{_WIDTH}}one for each, if the full model uses several
only where --variants names it:
{_list(ADDITIONS)}
and the obvious networks; --variants obvious names all of these and plain-clip:
{_list(OBVIOUS)}
One whose settings are the full model's, or another variant's, is left out, with a note.

examples:
  python -m train ablate --cache data_cache/bu3dfe --protocol bu3dfe-subset1 --out runs/ablation
  python -m train ablate --cache data_cache/bu4dfe --protocol bu4dfe --variants no-cvsa,no-mtgf --seeds 3 --out runs/parts
  python -m train ablate --cache data_cache/bu3dfe --tune frozen --discard-weights --seeds 5 --out runs/frozen
  python -m train ablate --cache data_cache/bu3dfe --variants obvious --seeds 3 --jobs 1 --out runs/obvious
  python -m train ablate --cache data_cache/bu3dfe --variants full --variant frontal='--views 0' --out runs/frontal
"""
# Options that all variants share, so that they can be compared.
COMMON = ("protocol", "folds", "rounds", "fold", "test_subjects", "task", "classes", "seed", "fold_seed")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,59}")
_SEED = re.compile(r"-seed\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class Variant:
    """One row of the table: options added to those of the full model, as they are typed."""

    name: str
    options: str = ""
    label: str = ""  # in a paper's table; empty: the name

    @property
    def title(self) -> str:
        return self.label or self.name


@dataclass(frozen=True)
class Chosen:
    """The variants that a user names; None: all. own: variants of `--variant`."""

    names: tuple[str, ...] | None = None
    own: tuple[Variant, ...] = ()


def read_chosen(names: str | None, own: Sequence[str]) -> Chosen:
    """Parse `--variants LIST` and each `--variant NAME=OPTIONS`.

    Raises:
        FacetError: a name that cannot be a folder's, or one given twice.
    """
    variants: list[Variant] = []
    taken = {name.casefold() for name in (FULL, *PARTS, *ADDITIONS, *OBVIOUS, *GROUPS)}
    for text in own:
        name, equals, options = text.partition("=")
        if not equals or not options.strip():
            raise FacetError(f"--variant {text}: expected NAME='OPTIONS', such as mean-only='--fusion mean'")
        if not _NAME.fullmatch(name) or _SEED.search(name) or name.casefold().startswith(ONLY):
            raise FacetError(
                f"--variant {name}: expected a name of letters, digits, hyphens, that does not begin with {ONLY} or end "
                "with -seed and a number"
            )
        if name.casefold() in taken:
            raise FacetError(f"--variant {name}: is the name of another variant; choose another")
        taken.add(name.casefold())
        variants.append(Variant(name, options.strip()))
    chosen = None if names is None else tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    return Chosen(chosen, tuple(variants))


def list_variants(chosen: Chosen, modalities: Sequence[str]) -> list[Variant]:
    """Return the full model, then the variants to compare with it in the order of their names.

    Args:
        modalities: of the full model.
    Raises:
        FacetError: an unknown name.
    """
    parts = [Variant(name, one.options, one.label) for name, one in PARTS.items()]
    if len(modalities) > 1:
        parts += [Variant(ONLY + m, f"--modalities {m}", f"{m.capitalize()} only") for m in modalities]
    names = [part.name for part in parts] if chosen.names is None else chosen.names
    names = [one for name in names for one in GROUPS.get(name, (name,))]
    parts += [Variant(name, one.options, one.label) for name, one in (ADDITIONS | OBVIOUS).items()]
    there = {part.name: part for part in (Variant(FULL, label=FULL_LABEL), *parts)}
    if unknown := [name for name in names if name not in there]:
        known = ", ".join((*there, *GROUPS))
        raise FacetError(
            f"--variants: {', '.join(repr(name) for name in unknown)} not among {known}; "
            "--variant NAME='OPTIONS' makes one of your own"
        )
    return [*(there[name] for name in dict.fromkeys((FULL, *names))), *chosen.own]


def change_options(options: Options, variant: Variant) -> Options:
    """Return the full model's options with a variant's changes.

    Raises:
        FacetError: no such option or value, an option that is common to all variants, or values that no recipe may have.
    """
    try:
        return dataclasses.replace(options, **_read_changes(variant.options))
    except FacetError as error:
        raise FacetError(f"--variant {variant.name}: {error}") from error


def _read_changes(text: str) -> dict[str, Any]:
    """Parse a variant's options; return the changed fields of Options."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise FacetError(message)

    parser = Parser(add_help=False, allow_abbrev=False)
    for name, option in OPTIONS.items():
        if name not in COMMON:
            add_option(parser, option)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise FacetError(f"{text}: {error}") from error
    changes, rest = parser.parse_known_args(join_angles(words))
    if rest:
        is_common = rest[0].split("=")[0] in map(option_name, COMMON)
        what = (
            "is the same for all variants; give it to ablate itself"
            if is_common
            else "is no option that changes a model or its training"
        )
        raise FacetError(f"{rest[0]} {what}")
    return vars(changes)


def run_name(variant: str, seed: int, first_seed: int) -> str:
    """Return the folder name of a variant's run: the variant's name, followed by the seed unless it is the first."""
    return variant if seed == first_seed else f"{variant}-seed{seed}"
