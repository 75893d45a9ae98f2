"""Define the expression classes of each data set and the maps between them; normalise class and subject names."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence

# Ekman's six basic expressions (Ekman & Friesen 1971) in BU-3DFE's order, then neutral.
BASIC_EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
NEUTRAL = "neutral"
EXPRESSIONS = (*BASIC_EXPRESSIONS, NEUTRAL)

# BU-3DFE file names: two letters (Yin et al. 2006, "A 3D facial expression database for facial behavior research").
BU3DFE_CODES = {
    "AN": "anger",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happiness",
    "SA": "sadness",
    "SU": "surprise",
    "NE": "neutral",
}

# BU-4DFE folder names (Yin et al. 2008, "A high-resolution 3D dynamic facial expression database").
BU4DFE_FOLDERS = {
    "Angry": "anger",
    "Disgust": "disgust",
    "Fear": "fear",
    "Happy": "happiness",
    "Sad": "sadness",
    "Surprise": "surprise",
}

# Bosphorus file names, the code and word after the subject (Savran et al. 2008, "Bosphorus database for 3D face analysis");
# all its other scans show action units, head rotations or occlusions, and have no expression.
BOSPHORUS_CODES = {
    "E_ANGER": "anger",
    "E_DISGUST": "disgust",
    "E_FEAR": "fear",
    "E_HAPPY": "happiness",
    "E_SADNESS": "sadness",
    "E_SURPRISE": "surprise",
    "N_N": "neutral",
}

# BP4D-Spontaneous tasks, by the emotion each was made to evoke (Zhang et al. 2014, "BP4D-Spontaneous: a high-resolution
# spontaneous 3D dynamic facial expression database"). What a subject felt is not known.
EMBARRASSMENT, PAIN = "embarrassment", "pain"
BP4D_EMOTIONS = (*BASIC_EXPRESSIONS, EMBARRASSMENT, PAIN)
BP4D_TASKS = {
    "T1": "happiness",
    "T2": "sadness",
    "T3": "surprise",
    "T4": EMBARRASSMENT,
    "T5": "fear",
    "T6": PAIN,
    "T7": "anger",
    "T8": "disgust",
}

# BP4D+ (Zhang et al. 2016, "Multimodal spontaneous emotion corpus for human behavior analysis"), likewise. T1, T6, T7 and T8
# are seen in public code, the others are general knowledge.
BP4DPLUS_EMOTIONS = (*BP4D_EMOTIONS, "startle", "skepticism")
BP4DPLUS_TASKS = {
    "T1": "happiness",
    "T2": "surprise",
    "T3": "sadness",
    "T4": "startle",
    "T5": "skepticism",
    "T6": EMBARRASSMENT,
    "T7": "fear",
    "T8": PAIN,
    "T9": "anger",
    "T10": "disgust",
}

# 4DME (Li et al. 2022, "4DME: a spontaneous 4D micro-expression dataset with multimodalities"); a clip may show several.
FOURDME_EMOTIONS = ("positive", "negative", "surprise", "repression", "others")

# The common coarsening of emotions for micro-expressions (See et al. 2019, "MEGC 2019"): the sign of the emotion, and
# surprise, which has none. Nothing in other data sets answers to repression or others.
_COARSE_EMOTIONS = {
    "happiness": "positive",
    "anger": "negative",
    "disgust": "negative",
    "fear": "negative",
    "sadness": "negative",
    "surprise": "surprise",
}

# Data set → its classes, in their order.
CLASS_NAMES = {
    "bu3dfe": EXPRESSIONS,
    "bosphorus": EXPRESSIONS,
    "bu4dfe": BASIC_EXPRESSIONS,
    "bp4d": BP4D_EMOTIONS,
    "bp4dplus": BP4DPLUS_EMOTIONS,
    "4dme": FOURDME_EMOTIONS,
}


# What people call these classes in files of their own: adjectives, and words that the field uses for the same expression.
_SYNONYMS = {
    "anger": ("angry",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid", "scared", "frightened"),
    "happiness": ("happy", "joy", "joyful", "enjoyment"),
    "sadness": ("sad",),
    "surprise": ("surprised",),
    NEUTRAL: ("neutral face", "neutral expression", "no expression"),
    EMBARRASSMENT: ("embarrassed",),
    "startle": ("startled",),
    "skepticism": ("skeptical", "sceptical", "scepticism"),
}
_CLASSES = tuple(dict.fromkeys(name for names in CLASS_NAMES.values() for name in names))


@functools.lru_cache(maxsize=1 << 14)
def clean_word(word: str) -> str:
    """Return a name as it is displayed: composed (NFC), single blanks between words, without invisible characters."""
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFC", word) if unicodedata.category(c) != "Cf")
    return " ".join(word.split())


@functools.lru_cache(maxsize=1 << 14)
def plain_word(word: str) -> str:
    """Return a class's word without differences of case, composition (NFC, NFD), blanks, _ and -.

    Characters that show nothing, such as a zero-width space, are dropped; "Very_Happy" is "very happy".
    """
    shown = clean_word(re.sub(r"(?<=\w)[_-]+(?=\w)", " ", unicodedata.normalize("NFKC", word)))
    return unicodedata.normalize("NFKC", shown.casefold())


# Plain word → class, for the classes' own names, their synonyms, and the words of BU-3DFE's and BU-4DFE's file names.
_PLAIN_CLASSES = {plain_word(name): name for name in _CLASSES}
EXPRESSION_WORDS = {
    **{plain_word(code): name for code, name in (*BU3DFE_CODES.items(), *BU4DFE_FOLDERS.items())},
    **{word: name for name, words in _SYNONYMS.items() for word in words},
    **_PLAIN_CLASSES,
}


def find_class(word: str) -> str | None:
    """Return the built-in class of this name, in any case or composition; None where there is none."""
    return _PLAIN_CLASSES.get(plain_word(word))


def find_expression(word: str) -> str | None:
    """Return the built-in class that a word means: "Happy", "joy" and "HA" are happiness; None where it means none."""
    return EXPRESSION_WORDS.get(plain_word(word))


def map_class_names(source: Sequence[str], target: Sequence[str]) -> dict[str, str]:
    """Map the classes of one data set to those of another, for training on one and testing on the other.

    Args:
        source, target: class names, such as CLASS_NAMES["bu4dfe"] and CLASS_NAMES["bp4d"].
    Returns:
        Source class → target class, in source's order; classes that the target has no word for are left out. A class of the
        same word is itself; otherwise an expression becomes positive, negative or surprise where the target knows those.
    """
    mapped = {}
    for name in source:
        for word in (name, _COARSE_EMOTIONS.get(name)):
            if word is not None and word in target:
                mapped[name] = word
                break
    return mapped


def plain_subject(name: str) -> str:
    """Return f1 for `F001 `: names that differ only in case, white space, composition or leading zeros are one subject, and so
    are 7 and 7.0, as pandas writes a column with gaps."""
    plain = "".join(clean_word(name).split()).casefold()
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"^(\d+)\.0+$", r"\1", plain))


def plain_person(name: str) -> str:
    """Return a subject's name as it is compared in notes: also without accents; words of a full name in any order.

    "Müller, Anna", "anna muller" and "Müller Anna" are one.
    """
    letters = "".join(one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    words = re.findall(r"[\w']+", letters.casefold())
    is_full_name = sum(word.isalpha() and len(word) > 1 for word in words) > 1
    return plain_subject(" ".join(sorted(words)) if is_full_name else letters)


def is_action_unit(name: str) -> bool:
    """Return whether the name of a class or column is that of an action unit's occurrence: AU12, but not AU12_intensity."""
    return name.startswith("AU") and name[2:].isdecimal()
