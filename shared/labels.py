"""Expression vocabularies, in the field's own words, and the maps between data sets."""

from __future__ import annotations

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
