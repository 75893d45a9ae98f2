"""`synth`: write synthetic people in the layout of a data set."""

from __future__ import annotations

import argparse

from preprocess.synth.layouts import LAYOUTS
from preprocess.synth.population import write_population
from shared.command_line import print_next


def run(arguments: argparse.Namespace) -> int:
    num_scans = write_population(
        LAYOUTS[arguments.name],
        arguments.out,
        num_subjects=arguments.subjects,
        num_frames=arguments.frames,
        seed=arguments.seed,
    )
    print(f"{num_scans} scans of {arguments.subjects} synthetic subjects in {arguments.out}")
    cache = f"data_cache/{arguments.name}-synth"
    print_next("preprocess", "build", arguments.name, "--root", arguments.out, "--cache", cache)
    return 0
