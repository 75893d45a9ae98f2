"""Words of captions: facial action units, expressions and intensities.

Action units are worded after the FACS manual (Ekman, Friesen & Hager 2002), expressions as in `prompts_default.txt`.
"""

from __future__ import annotations

NUM_VARIANTS = 16  # captions of the same labels: bounds how many texts a large cache has

# Unit → what a face with it has. {} is the place of an intensity.
UNIT_PHRASES: dict[int, tuple[str, ...]] = {
    1: ("{}raised inner brows", "the inner corners of the eyebrows {}raised", "inner eyebrows {}pulled up"),
    2: ("{}raised outer brows", "the outer corners of the eyebrows {}raised", "{}arched outer eyebrows"),
    4: ("{}lowered brows", "eyebrows {}lowered and drawn together", "a {}frowning brow", "{}knitted eyebrows"),
    5: ("{}raised upper eyelids", "{}widened eyes", "eyes {}opened wide"),
    6: ("{}raised cheeks", "cheeks {}lifted toward the eyes", "crow's feet beside {}squeezed eyes"),
    7: ("{}tightened eyelids", "{}narrowed eyes", "lower lids {}raised"),
    8: ("lips {}drawn toward each other",),
    9: ("a {}wrinkled nose", "the skin of the nose {}wrinkled"),
    10: ("a {}raised upper lip", "the upper lip {}lifted", "the upper lip {}drawn up"),
    11: ("{}deepened nasolabial furrows", "furrows beside the nose {}deepened"),
    12: ("lip corners {}pulled up", "a {}smiling mouth", "the corners of the mouth {}drawn back and up"),
    13: ("lip corners {}pulled up sharply", "cheeks {}puffed above tight lip corners"),
    14: ("{}dimpled lip corners", "the corners of the mouth {}tightened and dimpled", "lip corners {}pulled inward"),
    15: ("lip corners {}pulled down", "a {}downturned mouth", "the corners of the mouth {}lowered"),
    16: ("a {}lowered lower lip", "the lower lip {}pulled down"),
    17: ("a {}raised chin", "the chin {}pushed upward", "a {}wrinkled chin that lifts the lower lip"),
    18: ("{}puckered lips", "lips {}pushed forward and drawn together"),
    19: ("a tongue {}shown between the lips", "the tongue {}put out"),
    20: ("lips {}stretched sideways", "{}stretched lips", "a {}flattened, widened mouth"),
    21: ("a {}tightened neck",),
    22: ("lips {}funneled outward", "lips {}opened to a funnel"),
    23: ("{}tightened lips", "lips {}narrowed and rolled in", "{}tensed lips"),
    24: ("lips {}pressed together", "{}pressed lips", "a closed mouth with {}flattened lips"),
    25: ("{}parted lips", "lips {}parted", "a {}opened mouth"),
    26: ("a {}dropped jaw", "the jaw {}dropped", "a mouth {}opened by a relaxed jaw"),
    27: ("a mouth {}stretched wide open", "the jaw {}pulled far down"),
    28: ("lips {}sucked into the mouth", "lips {}rolled in over the teeth"),
    29: ("a {}thrust jaw", "the chin {}pushed forward"),
    30: ("the jaw {}moved to one side", "a {}shifted jaw"),
    31: ("a {}clenched jaw",),
    32: ("a {}bitten lip", "a lip {}held between the teeth"),
    33: ("cheeks {}puffed while air leaves the lips",),
    34: ("{}puffed cheeks", "cheeks {}filled with air"),
    35: ("cheeks {}sucked in", "{}hollowed cheeks"),
    36: ("a cheek {}bulged by the tongue",),
    37: ("lips {}wiped by the tongue",),
    38: ("{}flared nostrils", "{}widened nostrils"),
    39: ("{}narrowed nostrils", "nostrils {}pinched"),
    41: ("{}drooping upper eyelids", "upper eyelids {}lowered"),
    42: ("eyes {}opened to slits",),
    43: ("{}closed eyes", "eyes {}shut", "{}lowered upper eyelids"),
    44: ("{}squinting eyes",),
    45: ("{}blinking eyes", "eyes {}shut in a blink"),
    46: ("one eye {}closed in a wink",),
}

# Class → its adjectives and nouns; another class has its own name as its only noun.
EXPRESSION_FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "anger": (("angry",), ("anger",)),
    "disgust": (("disgusted",), ("disgust",)),
    "fear": (("fearful", "frightened", "scared"), ("fear",)),
    "happiness": (("happy", "joyful", "smiling"), ("happiness", "joy")),
    "sadness": (("sad", "unhappy"), ("sadness",)),
    "surprise": (("surprised", "astonished"), ("surprise",)),
    "embarrassment": (("embarrassed",), ("embarrassment",)),
    "startle": (("startled",), ("a startled expression",)),
    "skepticism": (("doubtful",), ("doubt",)),
    "positive": ((), ("a positive emotion",)),
    "negative": ((), ("a negative emotion",)),
    "repression": ((), ("a repressed emotion",)),
    "others": ((), ("no clear emotion",)),
}
NEUTRAL_CAPTIONS = (
    "a neutral face",
    "a face with a neutral expression",
    "a face without any expression",
    "a relaxed face at rest",
    "a 3D scan of a neutral face",
)

# Level 1 to 4 of an expression (BU-3DFE's 01 to 04) → adverbs and adjectives; every word ends in a blank, or is empty.
EXPRESSION_DEGREES: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {
    1: (("slightly ", "a little "), ("slight ", "weak ", "subtle ")),
    2: (("moderately ", "somewhat "), ("moderate ", "mild ")),
    3: (("clearly ", "visibly "), ("clear ", "marked ")),
    4: (("very ", "extremely "), ("strong ", "intense ", "extreme ")),
}
# Intensity of a unit, A to E of FACS as 1 to 5 → adverbs.
UNIT_DEGREES: dict[int, tuple[str, ...]] = {
    1: ("barely ", "slightly "),
    2: ("slightly ", "weakly "),
    3: ("clearly ", "markedly "),
    4: ("strongly ", "very strongly "),
    5: ("extremely ", "strongly "),
}

# {adjective} has its degree before it.
ADJECTIVE_TEMPLATES = (
    "a photo of a {adjective} face",
    "a {adjective} face",
    "a {adjective} person",
    "a person with a {adjective} expression",
    "a 3D scan of a {adjective} face",
)
NOUN_TEMPLATES = (
    "a face showing {degree}{noun}",
    "a {degree}expression of {noun}",
    "a person with a {degree}expression of {noun}",
    "a 3D scan of a face showing {degree}{noun}",
)
UNIT_TEMPLATES = ("a face with {units}", "a person with {units}", "a photo of a face with {units}", "{units}",
                  "a 3D scan of a face with {units}")  # fmt: skip
