"""Late fusion: each view is scored alone, and the scores are averaged."""

from __future__ import annotations

from train.model.cvsa import MeanFusion


class LateFusion(MeanFusion):
    """Every view goes through attention over time and the head as if it were the only one; the probabilities of a face are the
    mean of its views' (the sum rule of Kittler et al. 1998, "On combining classifiers"). With `--towers view` this is MiT's
    scoring (IEEE Signal Processing Letters 2021), which tests by the plain mean over views.

    z, which is not scored, is the mean of the views. Has no parameters.
    """

    scores_each_view = True
