"""Labels in users' own words: which words are one class, and notes on what was merged or looks misspelled."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from preprocess.datasets.csv_rows import read_csv_rows
from shared.errors import FacetError, name_some
from shared.labels import EXPRESSION_WORDS, clean_word, find_class, find_expression, plain_word
from shared.pairs import group_pairs

LabelMap = Mapping[str, str]  # a word as it is written → its class; "": such scans have no label
MAP_COLUMNS = ("word", "class")
MAP_ADVICE = "--label-map FILE.csv, lines word,class"
NOT_KNOWN = {
    "n/a", "na", "nan", "none", "null", "unknown", "?", "-", "unlabelled", "unlabeled", "no label", "undefined",
}  # fmt: skip
_COMPARED = [word for word in EXPRESSION_WORDS if len(word) > 2]  # two letters are close to anything
_CLOSE = 0.8  # difflib's ratio: Agry and angry have 0.89
_CLOSE_PAIR = 0.9  # between two classes of the user's own, of which many are alike by intent
_MOST_COMPARED = 100  # classes; every pair is looked at
_SHORTEST_COMPARED = 6
_MOST_NAMED = 12  # classes in one line


@dataclass(frozen=True)
class Spelling:
    """classes: each word of the manifest → its class. notes: what was merged and what perhaps should be, a line each."""

    classes: dict[str, str]
    notes: list[str]


def read_label_map(path: Path) -> dict[str, str]:
    """Read a file of lines `word,class`; a header with these words is skipped. An empty class means no label.

    Raises:
        FacetError: no such file, not CSV, not two fields a line, or a word that is given two classes; names the line.
    """
    if not path.is_file():
        raise FacetError(f"--label-map {path}: no such file; write lines word,class such as `joy,happiness`")
    classes: dict[str, str] = {}
    for line, row in read_csv_rows(path, "label map"):
        fields = [clean_word(field) for field in row]
        if not any(fields) or (not classes and tuple(field.lower() for field in fields) == MAP_COLUMNS):
            continue
        if len(fields) != 2 or not fields[0]:
            raise FacetError(f"{path}, line {line}: expected word,class, found {','.join(row)[:60]!r}")
        word, name = fields[0], find_class(fields[1]) or fields[1]
        if not name.isprintable():
            raise FacetError(f"{path}, line {line}: class {name[:40]!r} holds a control character; remove it")
        if classes.setdefault(word, name) != name:
            others = f"{classes[word][:40]!r} and {name[:40]!r}"
            raise FacetError(f"{path}, line {line}: {word[:40]!r} is given two classes, {others}; keep one")
    if not classes:
        raise FacetError(f"{path}: maps no word; write lines word,class such as `joy,happiness`")
    return classes


def unify_labels(labels: Sequence[str], label_map: LabelMap | None = None) -> Spelling:
    """Return the class of each word: by the map, else a built-in class, else the word itself, ignoring case and blanks.

    The map holds for a word in any case; an entry of exactly the same spelling goes first.

    Args:
        labels: a word a scan, "" for none; blanks trimmed.
    """
    counts = Counter(label for label in labels if label)
    exact = dict(label_map or {})
    plain = {plain_word(word): name for word, name in exact.items()}
    classes = unify_values(labels)
    for word in counts:
        mapped = exact.get(clean_word(word), plain.get(plain_word(word)))
        name = find_expression(word) if mapped is None else mapped
        classes[word] = classes[word] if name is None else name
    by_class = group_pairs((classes[word], word) for word in sorted(counts))
    merged = [_describe(name, words, counts) for name, words in sorted(by_class.items()) if words != [name]]
    merged[_MOST_NAMED:] = [f"and {len(merged) - _MOST_NAMED:,} classes more"] if len(merged) > _MOST_NAMED else []
    notes = [f"labels taken as one class: {'; '.join(merged)}; for other classes give {MAP_ADVICE}"] if merged else []
    there = {plain_word(word) for word in counts}
    unused = [word for word in exact if plain_word(word) not in there]
    if unused:
        notes.append(f"--label-map: no scan is labelled {name_some(sorted(unused))}")
    left = sorted({classes[word] for word in counts} - {""} - {*exact.values()})
    notes += _find_doubtful(left, sorted({*classes.values()} - {""}), Counter(classes[word] for word in labels if word))
    return Spelling(classes, notes)


def unify_values(values: Sequence[str]) -> dict[str, str]:
    """Return each value → its most frequent spelling, ignoring case, Unicode form and blanks."""
    counts = Counter(value for value in values if value)
    alike = group_pairs((plain_word(value) or value, value) for value in counts)
    usual = {key: clean_word(min(words, key=lambda word: (-counts[word], word))) for key, words in alike.items()}
    return {value: usual[key] for key, words in alike.items() for value in words}


def describe_values(column: str, values: Sequence[str]) -> list[str]:
    """Describe which spellings of a column `unify_values` merges, and which numbers it does not merge."""
    by_value = group_pairs((usual, value) for value, usual in unify_values(values).items())
    merged = [
        f"{name_some(sorted(words))} are taken as {usual}"
        for usual, words in sorted(by_value.items())
        if len(words) > 1
    ]
    notes = [f"column {column}: {'; '.join(merged[:4])}"] if merged else []
    equal: dict[float, list[str]] = {}
    for usual in by_value:
        with suppress(ValueError):
            equal.setdefault(float(usual), []).append(usual)
    if apart := [" and ".join(sorted(words)) for words in equal.values() if len(words) > 1]:
        notes.append(f"column {column}: {name_some(apart)} are kept apart; if they are one number, spell them alike")
    return notes


def _describe(name: str, words: Sequence[str], counts: Counter[str]) -> str:
    alike = Counter(clean_word(word) for word in words)
    shown = [ascii(word) if alike[clean_word(word)] > 1 else word for word in words]  # escapes where two look alike
    counted = [f"{text} ({counts[word]:,})" for text, word in zip(shown, words, strict=True)]
    return f"{name_some(counted)} as {name or 'no label'}"


def _find_doubtful(words: Sequence[str], classes: Sequence[str], counts: Counter[str]) -> list[str]:
    """Describe classes that may be misspellings of another class."""
    strange = [word for word in words if find_expression(word) is None][:_MOST_COMPARED]
    notes: list[str] = []
    for word in strange:
        if plain_word(word) in NOT_KNOWN:
            notes.append(f"label {word} ({counts[word]:,}) is a class of its own; leave the field empty for no label")
        elif close := difflib.get_close_matches(plain_word(word)[:40], _COMPARED, 1, _CLOSE):
            name = EXPRESSION_WORDS[close[0]]
            notes.append(
                f"label {word} ({counts[word]:,}) is a class of its own; did you mean {name}? "
                f"Mend it, or give {MAP_ADVICE}: {word},{name}"
            )
    if numbers := [word for word in strange if word.lstrip("+-").isdecimal()]:
        notes.append(
            f"labels are numbers ({name_some(numbers)}); give the classes' words with {MAP_ADVICE}: {numbers[0]},anger"
        )
    plain = {word: plain_word(word) for word in classes[:_MOST_COMPARED]}
    for index, one in enumerate(plain):
        for other in list(plain)[index + 1 :]:
            if {one, other} & {*strange} and _alike(plain[one], plain[other]):
                notes.append(
                    f"classes {one} and {other} are kept apart; if they are one, give {MAP_ADVICE}: {other},{one}"
                )
    return notes


def _alike(one: str, other: str) -> bool:
    if min(len(one), len(other)) < _SHORTEST_COMPARED or any(c.isdigit() for c in one + other):
        return _bare(one) == _bare(other)
    return _bare(one) == _bare(other) or difflib.SequenceMatcher(None, one[:40], other[:40]).ratio() >= _CLOSE_PAIR


def _bare(word: str) -> str:
    """Return the word without accents."""
    return "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")
