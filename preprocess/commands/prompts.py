"""`prompts`: encode the prompts of class names; with `--captions` also a caption of each row."""

from __future__ import annotations

import argparse

from preprocess.arguments import DEFAULT_MODEL, DEFAULT_PRETRAINED, DEFAULT_WORDINGS
from preprocess.captions import encode_captions
from preprocess.commands.next_steps import print_next_fit
from preprocess.prompts import (
    DEFAULT_PROMPTS,
    add_views,
    choose_prompts,
    count_names,
    encode_prompts,
    occurrence_names,
    read_prompts,
)
from shared.cache import open_cache, read_info
from shared.captions import write_captions
from shared.command_line import print_next
from shared.errors import FacetError
from shared.schema import View, captions_file_name, text_file_name
from shared.text import write_text_embeddings
from shared.view_words import VIEW, VIEW_WORDS

MOST_LISTED = 8  # directions that are named


def run(arguments: argparse.Namespace) -> int:
    if arguments.cache is None and arguments.captions:
        raise FacetError("--captions: describe the rows of a cache; give --cache DIR")
    if arguments.wordings and not arguments.captions:
        raise FacetError("--wordings: is the number of captions of a row; add --captions")
    source = arguments.prompts or DEFAULT_PROMPTS
    prompts, views = read_prompts(source), tuple[View, ...]()
    if arguments.per_view:
        prompts = add_views(prompts)
    says_view = any(VIEW in text for texts in prompts.values() for text in texts)
    if not says_view and (unused := [name for name in prompts if name in VIEW_WORDS]):
        raise FacetError(
            f"{source}: has words for {', '.join(unused)}, but no prompt with {VIEW}; add it, or --per-view"
        )
    if arguments.captions and says_view:
        raise FacetError(
            f"--captions: describe a face as all its views show it; use prompts without {VIEW} or --per-view"
        )
    if arguments.cache is not None:
        info = read_info(arguments.cache)
        views = info.settings.views
        units = occurrence_names(info.au_names)
        prompts, without, lines = choose_prompts(prompts, info.class_names, units, source)
        print(*lines, sep="\n", end="\n" if lines else "")
        path = arguments.cache / "text" / text_file_name(arguments.model)
        if without:
            which = "expressions only" if len(without) == len(units) else f"not for {', '.join(without)}"
            print(f"{source}: holds no prompts for {len(without)} of the cache's action units ({which})")
    else:
        path = arguments.out
        if path.suffix != ".h5":
            raise FacetError(f"--out {path}: expected a name that ends in .h5")
    pretrained = arguments.pretrained
    if pretrained is None:
        if arguments.model != DEFAULT_MODEL and ":" not in arguments.model:
            raise FacetError(
                f"--model {arguments.model}: choose its weights with --pretrained TAG, FILE or none (random)"
            )
        pretrained = DEFAULT_PRETRAINED if ":" not in arguments.model else "its own"
    text = encode_prompts(prompts, model=arguments.model, pretrained=pretrained, views=views)
    write_text_embeddings(path, text)
    mark = " (RANDOM WEIGHTS: to try the program, not for results)" if text.random_weights else ""
    seen = list(dict.fromkeys(view for row in text.views for view in row if view))
    listed = ", ".join(seen) if len(seen) <= MOST_LISTED else f"from {len(seen)} directions"
    words = f", of faces seen {listed}," * bool(seen)
    num = int(text.mask.sum())
    print(f"{num} prompts for {count_names(text.class_names)}{words} by {arguments.model}{mark}: {path}")
    if arguments.captions:
        _caption(arguments, prompts, pretrained)
    elif arguments.cache is not None:
        print_next_fit(arguments.cache, "runs/first")
    return 0


def _caption(arguments: argparse.Namespace, prompts: dict[str, list[str]], pretrained: str) -> None:
    cache, model = open_cache(arguments.cache), arguments.model
    num_wordings = arguments.wordings or DEFAULT_WORDINGS
    captions = encode_captions(cache, prompts, model=model, pretrained=pretrained, num_wordings=num_wordings)
    path = cache.path / "text" / captions_file_name(model)
    write_captions(path, captions)
    num_rows = int((captions.index[:, 0] >= 0).sum())
    print(
        f"{len(captions.texts)} captions of {num_rows} of {len(cache.samples)} rows, such as {captions.texts[0]!r}: {path}"
    )
    print_next("train", "pretrain", "--cache", cache.path, "--out", "runs/pretrained", "--model", model)
