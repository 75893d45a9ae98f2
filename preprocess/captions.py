"""Captions of a cache's rows, made from their labels: expression, intensity and facial action units."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from preprocess.caption_words import (
    ADJECTIVE_TEMPLATES,
    EXPRESSION_DEGREES,
    EXPRESSION_FORMS,
    NEUTRAL_CAPTIONS,
    NOUN_TEMPLATES,
    NUM_VARIANTS,
    UNIT_DEGREES,
    UNIT_PHRASES,
    UNIT_TEMPLATES,
)
from preprocess.text_tower import open_text_model
from shared.cache import Cache
from shared.captions import Captions
from shared.errors import FacetError
from shared.labels import NEUTRAL

MAX_UNITS = 4  # named in one caption
LABEL_SHARE = 0.5  # of a sequence's frames, those around its apex, that are captioned by its label


@dataclass(frozen=True)
class Shown:
    """What the labels of a row say.

    classes: expressions, or emotions of which several may hold. level: of the expression, 1 to 4; 0 = unknown. units: unit
    and its intensity 1 to 5, 0 = unknown, of those that are present. coded: whether units were coded at all.
    """

    classes: tuple[str, ...] = ()
    level: int = 0
    units: tuple[tuple[int, int], ...] = ()
    coded: bool = False

    @property
    def is_neutral(self) -> bool:
        return self.classes == (NEUTRAL,) or (self.coded and not self.units and not self.classes)


def read_shown(cache: Cache) -> list[Shown]:
    """Return what the labels of each row say; nothing for a row that is not valid or has no labels.

    What a sequence has as a whole (its label, emotions, and units that are the same in all frames) is used only for
    the frames around its apex, or its middle. Where units were coded frame by frame, they are used and the sequence's label
    is not: in BP4D that is what a task was to evoke.
    """
    units = [_decode_units(cache.info.au_names, values) for values in _read_array(cache, "aus")]
    targets = _read_array(cache, "targets")
    found = []
    for row, sample in enumerate(cache.samples):
        emotions = tuple(n for n, value in zip(cache.info.target_names, targets[row], strict=True) if value == 1)
        classes = (sample.label,) if sample.label else emotions
        level = int(sample.intensity) if re.fullmatch("0?[1-4]", sample.intensity) else 0
        found.append(Shown(classes, level if classes else 0, *units[row]) if sample.valid else Shown())
    for sequence in cache.sequences:
        rows = cache.frames(sequence.sequence)
        if len({units[row] for row in rows}) > 1:
            for row in rows:
                found[row] = Shown((), 0, found[row].units, found[row].coded)
            continue
        numbers = [cache.samples[row].frame or 0 for row in rows]
        middle = (numbers[0] + numbers[-1]) / 2 if sequence.apex is None else sequence.apex
        nearest = sorted(range(len(rows)), key=lambda index: (abs(numbers[index] - middle), index))
        for index in nearest[max(round(LABEL_SHARE * len(rows)), 1) :]:
            found[rows[index]] = Shown()
    return found


def _read_array(cache: Cache, name: str) -> np.ndarray:
    num = len(cache.samples)
    return cache.arrays.read(name, np.arange(num)) if name in cache.info.arrays() else np.empty((num, 0), np.int8)


def _decode_units(names: Sequence[str], values: np.ndarray) -> tuple[tuple[tuple[int, int], ...], bool]:
    """Return the units that are present, with their intensities, and whether any was coded."""
    known = {name: value for name, value in zip(names, values.tolist(), strict=True) if value >= 0}
    intensity = {name.removesuffix("_intensity"): v for name, v in known.items() if name.endswith("_intensity")}
    occurrence = {name: value for name, value in known.items() if "_" not in name}
    present = {name for name, value in (*occurrence.items(), *intensity.items()) if value > 0}
    units = sorted((int(name.removeprefix("AU")), min(max(intensity.get(name, 0), 0), 5)) for name in present)
    return tuple(units), bool(occurrence or intensity)


def compose_captions(
    shown: Sequence[Shown], sample_ids: Sequence[str], prompts: Mapping[str, Sequence[str]], num_wordings: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """Compose the captions of all rows: a function of their labels, names and prompts alone.

    Args:
        prompts: class, or unit such as AU12 → texts that are captions as they are.
        num_wordings: of a row, 1 to NUM_VARIANTS.
    Returns:
        The distinct captions, sorted; their index of each row, i32 (N, num_wordings), −1 where it has no further one.
    """
    of_labels = {labels: _compose_all(labels, prompts) for labels in set(shown)}
    chosen = []
    for labels, name in zip(shown, sample_ids, strict=True):
        variants = of_labels[labels]
        chosen.append(_random(name).sample(variants, min(num_wordings, len(variants))))
    texts = sorted({text for captions in chosen for text in captions})
    places = {text: place for place, text in enumerate(texts)}
    index = np.full((len(shown), num_wordings), -1, np.int32)
    for row, captions in enumerate(chosen):
        index[row, : len(captions)] = [places[text] for text in captions]
    return tuple(texts), index


def _compose_all(shown: Shown, prompts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return up to NUM_VARIANTS distinct captions of the same labels, all of the prompts that fit among them."""
    if shown.is_neutral:
        return list(dict.fromkeys((*prompts.get(NEUTRAL, ()), *NEUTRAL_CAPTIONS)))[:NUM_VARIANTS]
    names = [*shown.classes, *(f"AU{unit}" for unit, _ in shown.units if len(shown.units) == 1 and not shown.classes)]
    found = dict.fromkeys(text for name in names for text in prompts.get(name, ()))
    units = [unit for unit in shown.units if unit[0] in UNIT_PHRASES]
    for number in range(4 * NUM_VARIANTS if shown.classes or units else 0):
        found[_compose(shown.classes, shown.level, units, _random(f"{shown}{number}"))] = None
    return list(found)[:NUM_VARIANTS]


def _compose(classes: Sequence[str], level: int, units: Sequence[tuple[int, int]], draw: random.Random) -> str:
    """Compose one caption: of an expression, of units, or of both."""
    says_units = bool(units) and (not classes or draw.random() < 0.7)
    listed = _list_units(units, draw) if says_units else ""
    if not classes or (listed and draw.random() < 0.4):
        return _correct_articles(draw.choice(UNIT_TEMPLATES).format(units=listed))
    expression = _name_expression(draw.choice(classes), level, draw)
    return _correct_articles(f"{expression}{draw.choice((' with ', ', '))}{listed}" if listed else expression)


def _name_expression(name: str, level: int, draw: random.Random) -> str:
    adjectives, nouns = EXPRESSION_FORMS.get(name, ((), (name,)))
    adverbs, degrees = EXPRESSION_DEGREES.get(level, (("",), ("",)))
    if draw.random() < 0.3:
        adverbs, degrees = ("",), ("",)
    template = draw.choice((*(ADJECTIVE_TEMPLATES if adjectives else ()), *NOUN_TEMPLATES))
    if "{adjective}" in template:
        return template.format(adjective=draw.choice(adverbs) + draw.choice(adjectives))
    noun = draw.choice(nouns)
    return template.format(noun=noun, degree="" if noun.startswith(("a ", "no ")) else draw.choice(degrees))


def _list_units(units: Sequence[tuple[int, int]], draw: random.Random) -> str:
    """List up to MAX_UNITS units: the most intense ones, in random order."""
    order = sorted(units, key=lambda unit: (-unit[1], draw.random()))[: draw.randint(1, MAX_UNITS)]
    draw.shuffle(order)
    says_degree = draw.random() < 0.6
    phrases = []
    for unit, intensity in order:
        degrees = UNIT_DEGREES.get(intensity, ("",)) if says_degree else ("",)
        phrases.append(draw.choice(UNIT_PHRASES[unit]).format(draw.choice(degrees)))
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))


def _correct_articles(text: str) -> str:
    text = re.sub(r"\ba a little\b", "a slightly", text)
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def _random(text: str) -> random.Random:
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def encode_captions(
    cache: Cache, prompts: Mapping[str, Sequence[str]], *, model: str, pretrained: str, num_wordings: int
) -> Captions:
    """Caption the rows of a cache, and embed the captions with an open_clip model's own tokenizer and text tower.

    Args:
        prompts, num_wordings: as in `compose_captions`. model, pretrained: as `encode_prompts`.
    Raises:
        FacetError: no row has labels; no such model or weights.
    """
    shown = read_shown(cache)
    texts, index = compose_captions(shown, [sample.sample_id for sample in cache.samples], prompts, num_wordings)
    if not texts:
        raise FacetError(f"{cache.path}: --captions: no row has a label or coded action units, so none has a caption")
    text_model = open_text_model(model, pretrained)
    tokens, embeddings = text_model.encode(texts)
    return Captions(
        texts=texts,
        index=index,
        tokens=tokens.astype(np.int32),
        embeddings=embeddings,
        model=model,
        pretrained=pretrained,
        weights_hash=text_model.hash_weights()[0],
        random_weights=pretrained == "none",
        content_hash=cache.info.content_hash,
    )
