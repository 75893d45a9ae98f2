"""An average adult face, as far as alignment needs one: named points and a surface, in the face frame.

Widths and heights are rounded means of men and women from Farkas, "Anthropometry of the Head and Face" (2nd ed., 1994):
inner and outer eye corners 33 and 90 mm apart, nasion to subnasale 53 mm, subnasale to mouth slit 21 mm, mouth 52 mm wide,
nasal tip protrusion 20 mm. Depths, which he does not give from the tip of the nose, are our own, fitted to three freely
licensed scans.
"""

from __future__ import annotations

import numpy as np

# Where landmarks lie, mm. left_eye, right_eye: the middle between the eye's corners. nose: the centroid of points all over the
# nose, from bridge to wings, 14 mm behind its tip. nose_tip: pronasale. nose_bridge: the nasal root, sellion. mouth: the middle
# between the corners.
CANONICAL_POINTS_MM = {
    "left_eye": (32.0, 35.0, -40.0),
    "right_eye": (-32.0, 35.0, -40.0),
    "nose": (0.0, 3.0, -14.0),
    "mouth": (0.0, -33.0, -22.0),
    "nose_tip": (0.0, 0.0, 0.0),
    "nose_bridge": (0.0, 40.0, -26.0),
}
# The mouth moves with the jaw, so that it must not turn the head.
POINT_WEIGHTS = {"mouth": 0.1}

FITTED_SCALES = (0.55, 1.7)  # of a face to the average adult's: what a fit allows
EYE_DISTANCE_MM = 64.0  # between left_eye and right_eye of the average face
# Dodgson 2004, "Variation and extrema of human interpupillary distance": nearly all adults 50 to 75 mm, mean 63; all 45 to 80;
# children from five years on not below 40.
ADULT_EYE_DISTANCE_MM = (50.0, 75.0)
PERSON_EYE_DISTANCE_MM = (40.0, 80.0)

# How much faces differ in what the surface below is made of, one standard deviation each, our own: mm, but `slope` mm/mm.
SHAPE_DEVIATIONS = {
    "half_width": 6.0,
    "roundness": 25.0,
    "nose": 3.0,
    "nose_y": 2.0,
    "bridge_y": 3.0,
    "brow": 2.0,
    "brow_y": 3.0,
    "socket": 3.0,
    "slope": 0.08,
}


def canonical_depth_mm(x_mm: np.ndarray, y_mm: np.ndarray, **by: float) -> np.ndarray:
    """Return z of the average face's surface at x, y of the face frame: an ellipsoid with brow, eyes, nose, lips and chin.

    Within 2 mm of real faces on average where (x / 60)² + (y / 75)² < 1; symmetric in x.

    Args:
        by: how much another face differs from the average in a proportion of SHAPE_DEVIATIONS: the half width of the head,
            its vertical radius, how far nose and brow stand out and how high they are, how deep the eyes lie, how far the
            forehead slopes back.
    """
    x, y = np.abs(np.asarray(x_mm, np.float64)), np.asarray(y_mm, np.float64)
    more = dict.fromkeys(SHAPE_DEVIATIONS, 0.0) | by

    def bump(center_x: float, center_y: float, width_x: float, width_y: float) -> np.ndarray:
        return np.asarray(np.exp(-(((x - center_x) / width_x) ** 2) - ((y - center_y) / width_y) ** 2))

    off_axis = (x / (68.5 + more["half_width"])) ** 2 + ((y - 14) / (211 + more["roundness"])) ** 2
    head = -25 - 58 * (1 - np.sqrt(1 - np.clip(off_axis, 0, 0.999))) + more["slope"] * np.minimum(50 - y, 0)
    height, above = 25 + more["nose"], y + 0.6 - more["nose_y"]
    bridge = np.clip(1 - above / (49 + more["bridge_y"]), 0, 1)
    nose = height * np.where(above > 0, bridge, np.exp(-((above / 11.3) ** 2))) * np.exp(-((x / 13) ** 4))
    sockets = (12.5 + more["socket"]) * bump(21, 29, 27, 18)
    brow = (6.7 + more["brow"]) * bump(0, 53 + more["brow_y"], 58, 12)
    lips = 8.3 * bump(0, -27, 30, 12)
    chin = 11.4 * bump(0, -67, 23, 22)
    return np.asarray(head + nose - sockets + brow + lips + chin)
