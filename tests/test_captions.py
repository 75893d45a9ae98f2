"""Captions: what they say of a row's labels, their file, and the command that writes it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from conftest import MakeCache

from preprocess.__main__ import main
from preprocess.build.verify import verify_cache
from preprocess.caption_words import NUM_VARIANTS, UNIT_PHRASES
from preprocess.captions import Shown, compose_captions, encode_captions, read_shown
from preprocess.prompts import DEFAULT_PROMPTS, read_prompts
from shared.cache import find_text_files, open_cache
from shared.captions import Captions, read_cache_captions, read_captions, write_captions
from shared.errors import CacheError, FacetError
from shared.labels import CLASS_NAMES

PROMPTS = read_prompts(DEFAULT_PROMPTS)


def caption(shown: Shown, num: int = NUM_VARIANTS) -> list[str]:
    texts, index = compose_captions([shown], ["row"], PROMPTS, num)
    return [texts[place] for place in index[0] if place >= 0]


def test_a_caption_says_what_the_labels_say() -> None:
    units = caption(Shown(units=((1, 5), (15, 0)), coded=True))
    words = " | ".join(units)
    assert len(units) == NUM_VARIANTS and "brow" in words and re.search("corners|downturned", words)
    assert re.search("strongly|extremely", words) and "slight" not in words  # AU1 at E, AU15 without a level
    assert not re.search("sad|angry|eyelid|chin|jaw", words)

    weak, strong = (" | ".join(caption(Shown(("sadness",), level))) for level in (1, 4))
    assert set(PROMPTS["sadness"]) <= set(caption(Shown(("sadness",), 1)))
    assert re.search("slight|weak|subtle|a little", weak) and not re.search("very|strong|intense|extreme", weak)
    assert re.search("very|strong|intense|extreme", strong) and not re.search("slight|weak|subtle|a little", strong)

    both = caption(Shown(("fear",), 0, ((5, 3), (20, 3)), True))
    assert any(re.search("fear|scared|frightened", text) and re.search("eye|lip", text) for text in both)
    assert set(PROMPTS["AU12"]) <= set(caption(Shown(units=((12, 2),), coded=True)))
    assert all("neutral" in t or re.search("rest|emotion|expression", t) for t in caption(Shown(coded=True)))
    assert caption(Shown(("neutral",))) and not caption(Shown())
    assert all(caption(Shown((name,))) for names in CLASS_NAMES.values() for name in names)
    assert any(
        "a contempt" in text or "contempt" in text for text in caption(Shown(("contempt",)))
    )  # a class of one's own


def test_phrases_are_grammatical() -> None:
    for unit, phrases in UNIT_PHRASES.items():
        assert len(set(phrases)) == len(phrases) and all(text.count("{}") == 1 for text in phrases), unit
    for level in range(1, 5):
        for name in ("anger", "sadness", "surprise", "happiness"):
            for text in caption(Shown((name,), level, ((4, 1), (25, 5)), True)):
                assert not re.search(r"\ba [aeiou]|\ban [^aeiou\s]|  |\{|a a\b", text), text


def test_captions_depend_on_labels_and_names_alone() -> None:
    shown = [Shown(("anger",), 2), Shown(), Shown(("anger",), 2), Shown(("anger",), 2)]
    texts, index = compose_captions(shown, ["a", "b", "c", "d"], PROMPTS, 4)
    assert list(texts) == sorted(set(texts)) and index.shape == (4, 4) and index.dtype == np.int32
    assert (index[1] == -1).all() and (index[[0, 2, 3]] >= 0).all()
    assert len({tuple(sorted(row)) for row in index[[0, 2, 3]].tolist()}) > 1  # of one pool, other wordings
    again, same = compose_captions(shown[::-1], ["d", "c", "b", "a"], PROMPTS, 4)
    assert again == texts and (same == index[::-1]).all()
    assert (
        len(compose_captions([Shown(("anger",), 2)] * 500, list(map(str, range(500))), PROMPTS, 4)[0]) == NUM_VARIANTS
    )


def test_labels_of_a_cache(tiny_cache: MakeCache) -> None:
    scans = open_cache(tiny_cache(units="aus", unlabelled=(2,), invalid=(4,)))
    shown = read_shown(scans)
    # conftest.show_units: anger AU1; happiness AU1+AU4; surprise AU4+AU12, its intensity 3; row 0's units are unknown
    assert shown[0] == Shown(("anger",), 1) and shown[1] == Shown(("anger",), 1, ((1, 0),), True)
    assert shown[2] == Shown((), 0, ((1, 0), (4, 0)), True) and shown[4] == Shown()
    assert shown[5] == Shown(("surprise",), 1, ((4, 0), (12, 3)), True)

    frames = open_cache(tiny_cache(name="frames", num_frames=8, apex=1))
    labelled = [bool(one.classes) for one in read_shown(frames)[:8]]
    assert labelled == [True] * 4 + [False] * 4  # half of the frames, those around the apex
    coded = read_shown(open_cache(tiny_cache(name="coded", num_frames=8, units="aus", num_subjects=1)))
    assert {one.classes for one in coded[:8]} == {()}  # row 0 is unknown, so units differ from frame to frame
    assert coded[8:12] == [Shown()] * 2 + [Shown(("anger",), 1, ((1, 0),), True)] * 2


def test_the_file_holds_open_clips_own_tokens_and_embeddings(
    tiny_cache: MakeCache, tiny_model: str, tmp_path: Path
) -> None:
    cache = open_cache(tiny_cache(num_subjects=2))
    captions = encode_captions(cache, PROMPTS, model=tiny_model, pretrained="none", num_wordings=3)
    tokens = open_clip.get_tokenizer(tiny_model)(list(captions.texts))
    torch.manual_seed(0)
    with torch.no_grad():
        expected = open_clip.create_model(tiny_model, load_weights=False).eval().encode_text(tokens, normalize=True)
    assert (captions.tokens == tokens.numpy()).all()
    assert captions.embeddings == pytest.approx(expected.numpy(), abs=1e-5)

    path = tmp_path / "a.captions.h5"
    write_captions(path, captions)
    found = read_captions(path)
    for name in Captions.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(captions, name))
    first = path.read_bytes()
    write_captions(path, captions)
    assert path.read_bytes() == first
    path.write_bytes(first.replace(b"face", b"fate", 1))
    with pytest.raises(CacheError, match="does not match"):
        read_captions(path)


def test_odd_files_are_refused(tiny_cache: MakeCache, tiny_model: str, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=1))
    good = encode_captions(cache, PROMPTS, model=tiny_model, pretrained="none", num_wordings=2)
    for change in (
        {"index": good.index + len(good.texts)},
        {"index": good.index[:, ::-1] * 0 - 1 + np.array([[0, 1]], np.int32)},
        {"tokens": good.tokens[1:]},
        {"tokens": -good.tokens},
        {"embeddings": good.embeddings * 2},
        {"embeddings": good.embeddings * np.float32("nan")},
        {"texts": ("same",) * len(good.texts)},
    ):
        with pytest.raises(CacheError):
            replace(good, **change)  # type: ignore[arg-type]
    with pytest.raises(CacheError, match=r"no captions .*--captions"):
        read_cache_captions(cache, None)
    (cache.path / "text").mkdir(exist_ok=True)
    path = cache.path / "text" / "x.captions.h5"
    write_captions(path, replace(good, content_hash="of another content"))
    with pytest.raises(CacheError, match="before its last build"):
        read_cache_captions(cache, None)
    path.write_bytes(path.read_bytes()[:500])
    path.with_name(path.name + ".sha256").unlink()
    with pytest.raises(CacheError, match=r"x\.captions\.h5: not a readable"):
        read_captions(path)
    assert any("x.captions.h5" in problem for problem in verify_cache(cache.path))


def test_the_command(
    tiny_cache: MakeCache, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_cache(with_text=False, unlabelled=(0,))
    words = ["prompts", "--cache", str(path), "--model", tiny_model, "--pretrained", "none"]
    assert main([*words, "--captions", "--wordings", "2"]) == 0
    assert "of 23 of 24 rows" in capsys.readouterr().out
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("--out runs/first --folds 4\n")  # 4 subjects; fit's default is 10
    cache = open_cache(path)
    captions = read_cache_captions(cache, tiny_model)
    assert captions.index.shape == (24, 2) and captions.content_hash == cache.info.content_hash
    assert len(find_text_files(cache.path)) == 1 and cache.read_text(tiny_model).class_names == cache.info.class_names
    assert verify_cache(path) == []
    for wrong in (["prompts", "--out", "x.h5", "--captions"], [*words, "--wordings", "2"]):
        with pytest.raises(FacetError, match="--captions"):
            main(wrong)
    nothing = open_cache(tiny_cache(name="nothing", num_subjects=1, unlabelled=range(6)))
    with pytest.raises(FacetError, match="no row has a label"):
        encode_captions(nothing, PROMPTS, model=tiny_model, pretrained="none", num_wordings=1)
