"""`predict`: predict scans with a trained model."""

from __future__ import annotations

import argparse
import signal
import sys

from preprocess.datasets.manifest import parse_columns
from preprocess.predict import ScanFiles, predict_scans
from shared.command_line import print_next


def run(arguments: argparse.Namespace) -> int:
    files = ScanFiles(
        arguments.scans,
        textures=arguments.textures,
        landmarks=arguments.landmarks,
        columns=parse_columns(arguments.columns) if arguments.columns else {},
        neutral=arguments.neutral,
        is_sequence=arguments.is_sequence,
    )
    trained, picture = arguments.run, arguments.picture
    # A signal would leave pictures of faces in the folder for temporary files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    code = predict_scans(trained, files, picture=picture, table=arguments.table, device=arguments.device)
    if picture is None:
        about = "the views, and what the prediction depends on"
        print_next("preprocess", "predict", trained, arguments.scans[0], "--out", "picture.png", about=about)
    return code
