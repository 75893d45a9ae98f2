"""BP4D-Spontaneous: 41 subjects, eight tasks each, 328 sequences of 368,036 frames at 25 frames per second.

Zhang et al. 2014, "BP4D-Spontaneous: a high-resolution spontaneous 3D dynamic facial expression database"; layout after the
data set's user guide.
"""

from __future__ import annotations

from preprocess.datasets.bp4d_edition import Edition
from preprocess.datasets.bp4d_sequences import make_reader
from shared.labels import BP4D_EMOTIONS, BP4D_TASKS

EDITION = Edition(
    name="bp4d",
    title="BP4D-Spontaneous",
    expected="Sequences(2D+3D)/F001/T1/0000.obj",
    tasks=BP4D_TASKS,
    num_subjects=41,
    num_frames=368_036,
    # What the occurrence files code; the other columns hold 9 throughout.
    units=(1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 27, 28, 30, 32, 38, 39),
    landmark_suffix=".tbnd",
)
BP4D = make_reader(EDITION, BP4D_EMOTIONS)
