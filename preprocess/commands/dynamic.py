"""`dynamic`: pool the frames of each sequence into a dynamic image."""

from __future__ import annotations

import argparse

from preprocess.build.dynamic import build_dynamic_cache
from preprocess.commands.next_steps import PROMPTS_OFFLINE, print_next_fit
from shared.cache import FAILURES_CSV, find_text_files
from shared.command_line import print_next


def run(arguments: argparse.Namespace) -> int:
    report = build_dynamic_cache(arguments.cache, arguments.out)
    out, info = arguments.out, report.info
    if not report.num_pooled:
        print("nothing to do: every shard is finished, and no sequence has changed")
    if report.failures:
        print(f"failures and their reasons: {out / FAILURES_CSV}")
    if not find_text_files(out):
        print_next("preprocess", "prompts", "--cache", out, about=PROMPTS_OFFLINE)
    print_next_fit(out, "runs/dynamic")
    print(
        f"{out}: dynamic images of {info.num_valid} sequences of {info.num_subjects} subjects; "
        f"{len(report.failures) or 'none'} failed"
    )
    return 1 if report.failures else 0
