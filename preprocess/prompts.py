"""Text prompts for each class and action unit, and their embeddings by an open_clip text tower."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from preprocess.text_tower import open_text_model
from shared.errors import FacetError, name_some
from shared.labels import EXPRESSION_WORDS, find_expression, is_action_unit, plain_word
from shared.schema import View
from shared.text import TextEmbeddings
from shared.view_words import VIEW, VIEW_WORDS

DEFAULT_PROMPTS = Path(__file__).with_name("prompts_default.txt")
MAX_FILE_BYTES = 1 << 20


def read_prompts(path: Path) -> dict[str, list[str]]:
    """Prompts by class, from a text file: a line each, `class name: prompt`; # starts a comment line.

    A name among VIEW_WORDS is no class: its texts are words for {view}, see `word_views`. Names that differ in case or
    composition are one, as first written. Texts are mended by ftfy (mis-decoded characters, odd quotes and spaces) and a prompt
    given twice counts once.

    Raises:
        FacetError: no such file, not text, a line without a colon, an empty prompt, other braces than {view}, or two classes
            with the same prompts.
    """
    import ftfy

    if not path.is_file():
        raise FacetError(f"{path}: no such prompts file; lines are `class name: prompt`, see {DEFAULT_PROMPTS}")
    data = path.read_bytes()
    if len(data) > MAX_FILE_BYTES or b"\0" in data:
        raise FacetError(f"{path}: not a prompts file (expected lines of text, at most 1 MiB)")
    text = ftfy.fix_text(ftfy.guess_bytes(data)[0] if not _is_utf8(data) else data.decode("utf-8-sig"))
    prompts: dict[str, list[str]] = {}
    spelled: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = " ".join(line.split())
        if not line or line.startswith("#"):
            continue
        class_name, colon, prompt = (part.strip() for part in line.partition(":"))
        if not colon or not class_name or not prompt:
            raise FacetError(f"{path}, line {number}: expected `class name: prompt`, found {line[:60]!r}")
        if class_name.casefold() in VIEW_WORDS:
            class_name = class_name.casefold()
        if {"{", "}"} & {*prompt.replace(VIEW, "")} or (class_name in VIEW_WORDS and VIEW in prompt):
            raise FacetError(f"{path}, line {number}: braces are only for {VIEW} in a prompt, found {prompt[:60]!r}")
        known = prompts.setdefault(spelled.setdefault(plain_word(class_name), class_name), [])
        if prompt not in known:
            known.append(prompt)
    if not prompts.keys() - {*VIEW_WORDS}:
        raise FacetError(f"{path}: holds no prompts; lines are `class name: prompt`")
    same: dict[tuple[str, ...], str] = {}
    for name, texts in prompts.items():
        if name not in VIEW_WORDS and (other := same.setdefault(tuple(sorted(texts)), name)) != name:
            raise FacetError(
                f"{path}: {other} and {name} have the same prompts, so no model can tell them apart; change one"
            )
    return prompts


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return True


def occurrence_names(au_names: Sequence[str]) -> list[str]:
    """The action units among a cache's au_names that are present or not: AU12, but not AU12_intensity or AU12_side."""
    return [name for name in au_names if "_" not in name]


def count_names(names: Sequence[str]) -> str:
    """ "7 classes and 27 action units", for people to read; AU and a number is an action unit."""
    num_units = sum(map(is_action_unit, names))
    num_classes = len(names) - num_units
    return f"{num_classes} classes" + (f" and {num_units} action units" if num_units else "")


def choose_prompts(
    prompts: dict[str, list[str]], class_names: Sequence[str], au_names: Sequence[str], source: Path
) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """The prompts of a cache's classes and then of its action units, each in the cache's order.

    A class or unit without prompts of its own takes those of its name in another case, or of the expression that it means.

    Returns:
        The prompts, and the words of views; the action units without any: a file about expressions alone is good enough; a
        line on each class that takes the prompts of another name, and one on prompts that no class takes.
    Raises:
        FacetError: a class has no prompt, or two classes would have the same.
    """
    names = {name: _find_prompted(name, prompts) for name in class_names}
    missing = [name for name, found in names.items() if found is None]
    if missing:
        raise FacetError(f"{source}: no prompt for class {', '.join(missing)}; {_advise(missing, prompts)}")
    by_prompts: dict[str | None, str] = {}
    for name, found in names.items():
        if (other := by_prompts.setdefault(found, name)) != name:
            raise FacetError(
                f"{source}: classes {other} and {name} would have the same prompts, those of {found}; are they one class? "
                f"Then build the cache again with --label-map FILE.csv, a line {name},{other}; else give each its own prompts"
            )
    chosen = {name: prompts[found] for name, found in names.items() if found is not None}
    units = {name: _find_prompted(name, prompts) for name in au_names}
    chosen |= {name: prompts[found] for name, found in units.items() if found is not None}
    chosen |= {name: prompts[name] for name in VIEW_WORDS if name in prompts}
    lines = [f"class {name} takes the prompts of {found}" for name, found in names.items() if found != name]
    left = [name for name in prompts if name not in {*names.values(), *units.values(), *VIEW_WORDS}]
    if left and source != DEFAULT_PROMPTS:
        lines.append(f"{source}: of no class or unit of this cache, and not used: {name_some(left)}")
    return chosen, [name for name, found in units.items() if found is None], lines


def _find_prompted(name: str, prompts: dict[str, list[str]]) -> str | None:
    """The name under which a class has its prompts."""
    if name in prompts:
        return name
    plain = {plain_word(other): other for other in reversed(prompts)}  # of two alike, the first
    meant = find_expression(name)
    return plain.get(plain_word(name)) or (plain.get(plain_word(meant)) if meant else None)


def _advise(missing: Sequence[str], prompts: dict[str, list[str]]) -> str:
    words = {word: meant for word, meant in EXPRESSION_WORDS.items() if meant in prompts and len(word) > 2}
    words |= {plain_word(other): other for other in prompts}
    meant = {n: words[close[0]] for n in missing if (close := difflib.get_close_matches(plain_word(n), words, 1, 0.75))}
    slips = ", ".join(f"{word} for {name}" for name, word in meant.items())
    name = next(iter(meant), missing[0])
    return (
        (f"did you mean {slips}? " if slips else "")
        + f"If {name} is another word for a class that has prompts, build the cache again with --label-map FILE.csv, a line "
        f"`{name},{meant.get(name, 'happiness')}`; else add lines `{name}: a photo of …` to a prompts file and give it with "
        "--prompts FILE"
    )


def add_views(prompts: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the prompts with the words of the view at the end of each that does not have them elsewhere."""
    return {
        name: texts if name in VIEW_WORDS else [text if VIEW in text else f"{text}, seen {VIEW}" for text in texts]
        for name, texts in prompts.items()
    }


def encode_prompts(
    prompts: dict[str, list[str]], *, model: str, pretrained: str, views: Sequence[View] = ()
) -> TextEmbeddings:
    """Embeds prompts with an open_clip model's own tokenizer and text tower, on the CPU.

    Args:
        prompts: class name → its prompts.
        views: to word {view} by; (): all that there are words for.
        model: an open_clip model name, `local-dir:DIR`, or a configuration that ships (shared/towers).
        pretrained: a weights tag of open_clip, a checkpoint file, or "none" for random weights (seed 0).
    Raises:
        FacetError: no such model or weights.
    """
    return open_text_model(model, pretrained).embed_prompts(prompts, views)
