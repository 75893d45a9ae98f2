"""BP4D+ (MMSE): 140 subjects, ten tasks each, at 25 frames per second; action units of four tasks.

Zhang et al. 2016, "Multimodal spontaneous emotion corpus for human behavior analysis"; layout after public readers. Guessed:
the order of the 83 landmarks (as in BP4D, and checked), what T2 to T5, T9 and T10 were to evoke, and the numbers of the frames.
"""

from __future__ import annotations

from preprocess.datasets.bp4d_edition import Edition
from preprocess.datasets.bp4d_sequences import make_reader
from shared.labels import BP4DPLUS_EMOTIONS, BP4DPLUS_TASKS

EDITION = Edition(
    name="bp4dplus",
    title="BP4D+",
    expected="2D+3D/F001/T1/0000.obj",
    tasks=BP4DPLUS_TASKS,
    num_subjects=140,
    units=(1, 2, 4, 5, 6, 7, 9, *range(10, 21), 22, 23, 24, *range(27, 40)),
    coded_tasks=("T1", "T6", "T7", "T8"),
    landmark_suffix=".bndplus",
    is_order_known=False,
)
BP4DPLUS = make_reader(EDITION, BP4DPLUS_EMOTIONS)
