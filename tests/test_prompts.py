"""Prompts: the text format and its refusals; embeddings against open_clip called directly on a small random model.

No pretrained weights can be had in tests: a small random CLIP is saved as a checkpoint file and as a model folder, and
loaded the way a user loads real weights.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from conftest import MakeCache

from preprocess.__main__ import main
from preprocess.build.verify import verify_cache
from preprocess.datasets import DATASETS
from preprocess.prompts import (
    DEFAULT_PROMPTS,
    choose_prompts,
    count_names,
    encode_prompts,
    occurrence_names,
    read_prompts,
)
from shared.cache import read_info, write_info
from shared.errors import FacetError, run_command_line
from shared.labels import EXPRESSIONS
from shared.text import read_text_embeddings
from shared.view_words import VIEW_WORDS
from shared.weights.identity import hash_arrays
from shared.weights.models import TOWERS

PROMPTS = {"anger": ["an angry face", "a furious person"], "fear": ["a fearful face"]}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A random facet-tiny: its checkpoint, a folder that holds it as `local-dir:` wants it, and the model itself."""
    folder = tmp_path_factory.mktemp("clip")
    open_clip.add_model_config(TOWERS)
    torch.manual_seed(7)
    model = open_clip.create_model("facet-tiny").eval()
    checkpoint = folder / "weights.pt"
    torch.save(model.state_dict(), checkpoint)
    local = folder / "local"
    local.mkdir()
    torch.save(model.state_dict(), local / "open_clip_pytorch_model.bin")
    config = json.loads((TOWERS / "facet-tiny.json").read_text())
    (local / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return checkpoint, local, model


@pytest.mark.parametrize("way", ["file", "local-dir"])
def test_embeddings_are_open_clips_own(saved_model: tuple[Path, Path, Any], way: str) -> None:
    checkpoint, local, model = saved_model
    if way == "file":
        text = encode_prompts(PROMPTS, model="facet-tiny", pretrained=str(checkpoint))
    else:
        text = encode_prompts(PROMPTS, model=f"local-dir:{local}", pretrained="its own")
    tokens = open_clip.get_tokenizer("facet-tiny")([*PROMPTS["anger"], *PROMPTS["fear"]])
    with torch.no_grad():
        expected = model.encode_text(tokens, normalize=True).numpy()
    assert text.embeddings[text.mask] == pytest.approx(expected, abs=1e-5)
    assert text.mask.tolist() == [[True, True], [True, False]]
    assert (text.embeddings[1, 1] == 0).all()
    assert text.prompts == (tuple(PROMPTS["anger"]), tuple(PROMPTS["fear"]))
    assert not text.random_weights
    assert text.logit_scale == pytest.approx(model.logit_scale.exp().item())
    tower = {key: value.numpy() for key, value in model.visual.state_dict().items()}
    assert text.image_tower_hash == hash_arrays(tower)


def test_random_weights_are_marked_and_repeatable() -> None:
    first, second = (encode_prompts(PROMPTS, model="facet-tiny", pretrained="none") for _ in range(2))
    assert first.random_weights
    assert (first.embeddings == second.embeddings).all()
    assert first.weights_hash == second.weights_hash
    assert np.linalg.norm(first.embeddings[first.mask], axis=1) == pytest.approx(1, abs=1e-5)


def test_unknown_models_and_weights_get_one_line(tmp_path: Path, saved_model: tuple[Path, Path, Any]) -> None:
    with pytest.raises(FacetError, match="knows no such model"):
        encode_prompts(PROMPTS, model="ViT-Z-99", pretrained="none")
    with pytest.raises(FacetError, match=r"neither a file nor a tag of ViT-B-16 \(its tags: openai"):
        encode_prompts(PROMPTS, model="ViT-B-16", pretrained="nope")
    with pytest.raises(FacetError, match=r"no open_clip_config\.json"):
        encode_prompts(PROMPTS, model=f"local-dir:{tmp_path}", pretrained="none")
    garbage = tmp_path / "weights.pt"
    garbage.write_bytes(b"not a checkpoint")
    with pytest.raises(FacetError, match=r"weights\.pt: begins with b'not a checkp'"):
        encode_prompts(PROMPTS, model="facet-tiny", pretrained=str(garbage))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "open_clip_config.json").write_text((saved_model[1] / "open_clip_config.json").read_text())
    with pytest.raises(FacetError, match="no weights"):
        encode_prompts(PROMPTS, model=f"local-dir:{empty}", pretrained="its own")


def test_default_prompts_cover_every_expression_several_times() -> None:
    prompts = read_prompts(DEFAULT_PROMPTS)
    assert all(len(prompts[name]) >= 3 for name in EXPRESSIONS)
    everything = [text for texts in prompts.values() for text in texts]
    assert len(set(everything)) == len(everything)


def test_prompts_of_views_by_the_command(
    tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, file = tmp_path / "all.h5", tmp_path / "prompts.txt"
    file.write_text("anger: an angry face\nfear: fear {view}\nfrom above: seen by a drone")
    command = ["prompts", "--model", "facet-tiny", "--pretrained", "none", "--prompts", str(file)]
    assert main([*command, "--out", str(path)]) == 0
    text = read_text_embeddings(path)
    assert text.class_names == ("anger", "fear")
    assert text.prompts[0] == ("an angry face",) and text.views[0] == ("",)
    assert dict(zip(text.views[1], text.prompts[1], strict=True))["from above"] == "fear seen by a drone"
    assert set(text.views[1]) == set(VIEW_WORDS)
    assert main([*command, "--out", str(path), "--per-view"]) == 0
    assert "an angry face, seen in profile from the left" in read_text_embeddings(path).prompts[0]
    assert "fear from behind" in read_text_embeddings(path).prompts[1]

    cache = tiny_cache(class_names=("anger", "fear", "surprise"), with_text=False)
    assert run_command_line(lambda: main([*command, "--cache", str(cache), "--captions"])) == 2
    assert "--captions: describe a face as all its views show it" in capsys.readouterr().err
    file.write_text("anger: angry\nfrom ABOVE: from the ceiling")
    assert run_command_line(lambda: main([*command, "--out", str(path)])) == 2
    assert "has words for from above, but no prompt with {view}" in capsys.readouterr().err
    for line in ("fear: a {views} of fear", "fear: {view", "from above: {view}"):
        file.write_text(line)
        with pytest.raises(FacetError, match=r"line 1: braces are only for \{view\}"):
            read_prompts(file)
    file.write_text("from above: from the ceiling")
    with pytest.raises(FacetError, match="holds no prompts"):
        read_prompts(file)


def test_prompts_are_mended_by_ftfy(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(
        "\ufeff# mine\r\n\r\nanger: a person\u2019s   angry face\r\nanger: she said â€œnoâ€\x9d\r\n".encode()
    )
    assert read_prompts(path) == {"anger": ["a person's angry face", 'she said "no"']}
    path.write_bytes(b"anger: caf\xe9 brawl\nanger: caf\xe9 brawl\n")  # Latin-1, and given twice
    assert read_prompts(path) == {"anger": ["café brawl"]}
    path.write_text("Anger: one\nanger: two\nfear: two\n")
    assert read_prompts(path) == {"Anger": ["one", "two"], "fear": ["two"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"anger an angry face\n", "line 1: expected `class name: prompt`"),
        (b"# only\nanger:\n", "line 2: expected"),
        (b"# nothing\n", "holds no prompts"),
        (b"\0\1\2", "not a prompts file"),
        (b"a: x\na: y\nb: y\nb: x\n", "a and b have the same prompts"),
    ],
)
def test_bad_prompt_files_name_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(FacetError, match=message):
        read_prompts(path)


def test_a_class_without_prompts_is_named(tmp_path: Path) -> None:
    with pytest.raises(FacetError, match="no such prompts file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(FacetError, match="no prompt for class wonder"):
        choose_prompts(PROMPTS, ["fear", "wonder"], [], Path("prompts.txt"))
    chosen, without, borrowed = choose_prompts(PROMPTS, ["fear", "anger"], [], Path("p"))
    assert (list(chosen), without, borrowed) == (["fear", "anger"], [], [])


@pytest.mark.parametrize("word", ["Surprise", "SURPRISE", "surprised", "Surprise\u00a0"])
def test_a_class_is_known_in_any_case_and_by_its_synonyms(word: str) -> None:
    prompts = read_prompts(DEFAULT_PROMPTS)
    chosen, _, borrowed = choose_prompts(prompts, [word, "anger"], [], DEFAULT_PROMPTS)
    assert list(chosen) == [word, "anger"]
    assert chosen[word] == prompts["surprise"]
    assert len(borrowed) == 1 and word in borrowed[0] and "surprise" in borrowed[0]
    own = {word: ["a face of mine"], "surprise": ["another"]}
    assert choose_prompts(own, [word], [], Path("p"))[0] == {word: ["a face of mine"]}


def test_classes_that_cannot_be_told_apart_or_are_not_known_lead_to_the_label_map() -> None:
    prompts = read_prompts(DEFAULT_PROMPTS)
    with pytest.raises(FacetError, match=r"Happy and happiness would have the same prompts.*--label-map"):
        choose_prompts(prompts, ["Happy", "happiness"], [], Path("p"))
    with pytest.raises(FacetError, match=r"Agry; did you mean anger for Agry.*--label-map.*Agry,anger"):
        choose_prompts(prompts, ["Agry"], [], Path("p"))
    with pytest.raises(FacetError, match=r"Freude; If Freude is another word.*--label-map.*--prompts"):
        choose_prompts(prompts, ["Freude", "anger"], [], Path("p"))


def test_action_units_follow_the_classes_and_may_be_missing() -> None:
    prompts = {**PROMPTS, "AU12": ["a smile"], "AU4": ["a frown"], "AU99": ["no such unit"]}
    units = occurrence_names(["AU4", "AU12", "AU17", "AU12_intensity"])
    assert units == ["AU4", "AU12", "AU17"]
    chosen, without, left = choose_prompts(prompts, ["fear", "anger"], units, Path("p"))
    assert list(chosen) == ["fear", "anger", "AU4", "AU12"]
    assert without == ["AU17"] and left == ["p: of no class or unit of this cache, and not used: AU99"]
    assert count_names(list(chosen)) == "2 classes and 2 action units"
    assert count_names(["fear", "AUDACITY"]) == "2 classes"


def test_default_prompts_cover_every_action_unit_of_the_data_sets() -> None:
    prompts = read_prompts(DEFAULT_PROMPTS)
    units = {name for dataset in DATASETS.values() for name in occurrence_names(dataset.au_names)}
    assert len(units) == 58
    for name in units:
        assert 2 <= len(prompts[name]) <= 4, name
    assert {name for name in prompts if name.startswith("AU")} == units


@pytest.mark.parametrize("own_file", [False, True])
def test_one_file_serves_classes_and_action_units(
    own_file: bool,
    tiny_cache: MakeCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tiny_cache(num_subjects=1, with_text=False)
    info = read_info(path)
    write_info(path, dataclasses.replace(info, au_names=("AU1", "AU12", "AU6_intensity")))
    arguments = ["prompts", "--cache", str(path), "--model", "facet-tiny", "--pretrained", "none"]
    if own_file:
        own = tmp_path / "own.txt"
        own.write_text("".join(f"{name}: a face of {name}\n" for name in info.class_names))
        arguments += ["--prompts", str(own)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    text = read_text_embeddings(path / "text" / "facet-tiny.h5")
    if own_file:
        assert text.class_names == info.class_names
        assert "holds no prompts for 2 of the cache's action units (expressions only)" in said
        return
    assert text.class_names == (*info.class_names, "AU1", "AU12")
    assert "for 3 classes and 2 action units" in said
    units = text.select(["AU12", "AU1"])
    assert units.class_names == ("AU12", "AU1")
    alone = encode_prompts({"AU12": list(units.prompts[0])}, model="facet-tiny", pretrained="none")
    assert units.embeddings[0][units.mask[0]] == pytest.approx(alone.embeddings[0], abs=1e-5)
    assert verify_cache(path) == []
