"""An average adult face, as far as alignment needs one: four points and a surface, in the face frame.

Widths and heights are rounded means of men and women from Farkas, "Anthropometry of the Head and Face" (2nd ed., 1994):
inner and outer eye corners 33 and 90 mm apart, nasion to subnasale 53 mm, subnasale to mouth slit 21 mm, mouth 52 mm wide,
nasal tip protrusion 20 mm. Depths, which he does not give from the tip of the nose, are our own,
fitted to three freely licensed scans.
"""

from __future__ import annotations

import numpy as np

# Centres of the landmark groups, mm. Weights: the mouth moves with the jaw, so that it must not turn the head.
CANONICAL_POINTS_MM = {
    "left_eye": (32.0, 35.0, -40.0),
    "right_eye": (-32.0, 35.0, -40.0),
    "nose": (0.0, 3.0, -14.0),
    "mouth": (0.0, -33.0, -22.0),
}
POINT_WEIGHTS = {"left_eye": 1.0, "right_eye": 1.0, "nose": 1.0, "mouth": 0.1}


def canonical_depth_mm(x_mm: np.ndarray, y_mm: np.ndarray) -> np.ndarray:
    """z of the average face's surface over the face frame's x and y: an ellipsoid with brow, eyes, nose, lips and chin.

    Within 2 mm of real faces on average where (x / 60)² + (y / 75)² < 1; symmetric in x.
    """
    x, y = np.abs(np.asarray(x_mm, np.float64)), np.asarray(y_mm, np.float64)

    def bump(center_x: float, center_y: float, width_x: float, width_y: float) -> np.ndarray:
        return np.asarray(np.exp(-(((x - center_x) / width_x) ** 2) - ((y - center_y) / width_y) ** 2))

    head = -25 - 58 * (1 - np.sqrt(1 - np.clip((x / 68.5) ** 2 + ((y - 14) / 211) ** 2, 0, 0.999)))
    ridge = np.where(y > 0, 26 * np.clip(1 - y / 49, 0, 1), 26 * np.exp(-((y / 11.3) ** 2)))
    nose = ridge * np.exp(-((x / 13) ** 4))
    sockets = 14 * bump(21, 29, 27, 18)
    brow = 7.5 * bump(0, 53, 58, 12)
    lips = 8.3 * bump(0, -27, 30, 12)
    chin = 11.4 * bump(0, -67, 23, 22)
    return np.asarray(head + nose - sockets + brow + lips + chin)
