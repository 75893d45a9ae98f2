"""`dynamic`: pool the frames of each sequence into a dynamic image."""

from __future__ import annotations

import argparse

from preprocess.build.dynamic import build_dynamic_cache
from preprocess.commands.next_steps import PROMPTS_OFFLINE, print_next_fit
from shared.cache import FAILURES_CSV, find_text_files
from shared.command_line import print_next
from shared.errors import name_some
from shared.store.paths import is_file, read_bytes


def run(arguments: argparse.Namespace) -> int:
    report = build_dynamic_cache(arguments.cache, arguments.out)
    out, info = arguments.out, report.info
    if not report.num_pooled:
        print("nothing to do: every shard is finished, and no sequence has changed")
    if report.failures:
        print(f"failures and their reasons: {out / FAILURES_CSV}")
    texts = [(path, arguments.cache / "text" / path.name) for path in find_text_files(out)]
    if kept := [one.name for one, source in texts if is_file(source) and read_bytes(one) != read_bytes(source)]:
        print(f"{out}: keeps its prompts ({name_some(kept)}), which are others than those of {arguments.cache} by now")
    if not texts:
        print_next("preprocess", "prompts", "--cache", out, about=PROMPTS_OFFLINE)
    print_next_fit(out, "runs/dynamic")
    print(
        f"{out}: dynamic images of {info.num_valid} sequences of {info.num_subjects} subjects; "
        f"{len(report.failures) or 'none'} failed"
    )
    return 1 if report.failures else 0
