"""Pretraining: images and captions of a step, the loss, resuming, and the model folder and file that come out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from conftest import TINY_CLIP, MakeCache
from safetensors.torch import load_file, save_file
from test_trackers import read_tensorboard
from test_train_cli import call, fails
from tiny_training import TIMING_FIELDS, TOWER

from preprocess.caption_words import NUM_VARIANTS
from preprocess.captions import encode_captions
from preprocess.prompts import DEFAULT_PROMPTS, encode_prompts, read_prompts
from shared.cache import open_cache
from shared.captions import write_captions
from shared.errors import FacetError
from shared.runs import LOG_JSONL
from shared.schema import captions_file_name, text_file_name
from shared.text import write_text_embeddings
from shared.weights import models
from shared.weights.identity import hash_arrays
from train.data.stream import StoredImages
from train.model.clip import encode_text
from train.model.image_tower import load_tower
from train.pretraining import rows as pretraining_rows
from train.pretraining.loss import CaptionLoss
from train.pretraining.options import PretrainOptions
from train.pretraining.pretrain import pretrain
from train.pretraining.record import describe_run
from train.training import checkpoint

PROMPTS = read_prompts(DEFAULT_PROMPTS)
CPU = torch.device("cpu")


@pytest.fixture
def captioned(tiny_cache: MakeCache, tiny_model: str) -> Any:
    """A factory of small caches with prompts and captions by the tiny model with random weights."""

    def make(**options: Any) -> Path:
        num_wordings = options.pop("num_wordings", NUM_VARIANTS)
        path = tiny_cache(**{"with_text": False, **options})
        cache = open_cache(path)
        used = {name: PROMPTS[name] for name in cache.info.class_names}
        captions = encode_captions(cache, PROMPTS, model=tiny_model, pretrained="none", num_wordings=num_wordings)
        write_captions(path / "text" / captions_file_name(tiny_model), captions)
        name = captions_file_name(tiny_model).replace(".captions", "")
        write_text_embeddings(path / "text" / name, encode_prompts(used, model=tiny_model, pretrained="none"))
        return path

    return make


def read_record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "pretrain.json").read_text())
    return found


def read_log(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / LOG_JSONL).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING_FIELDS} for line in lines]


def test_all_captions_of_an_image_are_positives() -> None:
    """Against the definition, pair by pair; and where each image has one caption of its own, open_clip's own loss."""
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(6, 8, generator=generator), dim=1) for _ in range(2))
    captions = torch.tensor([3, 1, 3, 0, 1, 7])
    described_by = torch.tensor([[3, 7], [1, -1], [3, 5], [0, 1], [1, 9], [8, 7]])
    texts, scale = texts[captions % 6], torch.tensor(10.0)
    positive = [[captions[k] in described_by[row] for k in range(6)] for row in range(6)]
    assert sum(map(sum, positive)) == 3 + 2 + 2 + 3 + 2 + 1
    expected = 0.0
    for logits, matrix in (
        (scale * images @ texts.T, positive),
        (scale * texts @ images.T, list(zip(*positive, strict=True))),
    ):
        for row in range(6):
            log_shares = logits[row] - logits[row].exp().sum().log()
            right = [log_shares[k].item() for k in range(6) if matrix[row][k]]
            expected -= sum(right) / len(right) / 12
    assert CaptionLoss()(images, texts, scale, captions, described_by).item() == pytest.approx(expected, rel=1e-5)
    alone = torch.arange(6)
    clip_loss = open_clip.loss.ClipLoss()(images, texts, scale)
    assert CaptionLoss()(images, texts, scale, alone, alone[:, None]).item() == pytest.approx(
        clip_loss.item(), rel=1e-6
    )


def test_texts_end_where_the_last_one_ends(tiny_model: str) -> None:
    clip = open_clip.create_model(tiny_model, load_weights=False).eval()
    tokens = open_clip.get_tokenizer(tiny_model)(["a face", "a face with raised brows and a dropped jaw"])
    with torch.no_grad():
        torch.testing.assert_close(encode_text(clip, tokens), clip.encode_text(tokens, normalize=True))


def test_images_of_a_step_are_those_drawn(captioned: Any) -> None:
    """Two caches with other modalities; a row without texture; each row once an epoch, in proportion."""
    one = captioned(name="one", num_subjects=3, modalities=("texture", "normal", "depth"), without_texture=(5,))
    two = captioned(name="two", num_subjects=6, modalities=("normal",), dataset="other", num_wordings=1)
    sources, table = pretraining_rows.read_captioned([one, two], None, None)
    train, held, names = pretraining_rows.split_subjects(sources, 0.25, seed=0)
    assert len(names) == 2 and sum(map(len, held)) == 12 and sum(map(len, train)) == 42
    for source, of_train, of_held in zip(sources, train, held, strict=True):
        people = [{source.cache.samples[row].subject for row in rows} for rows in (of_train, of_held)]
        assert not people[0] & people[1] and set(of_train) | set(of_held) == set(source.rows)
    steps = pretraining_rows.order_rows(train, 5, seed=1, epoch=3)
    for number, rows in enumerate(train):
        assert sorted(np.concatenate([step[number] for step in steps])) == sorted(rows)
        sizes = [len(step[number]) for step in steps]
        assert max(sizes) - min(sizes) <= 1

    chosen = [pretraining_rows.draw_images(source, 2, 1, 3) for source in sources]
    captions = [pretraining_rows.draw_captions(source, 1, 3) for source in sources]
    images = [StoredImages(source.cache) for source in sources]
    assert all(0 <= image < 9 for row in chosen[0] for image in row) and not (chosen[0][5] < 3).any()
    assert all(len(set(row)) == 2 for row in chosen[0].tolist())
    num_seen, tower = 0, TOWER.with_background("mean")
    for step in pretraining_rows.stream_steps(sources, images, steps, chosen):
        for source, raw in step:
            found, rows, modality = pretraining_rows.prepare_images(source, raw, chosen[source.number], tower, CPU)
            num_seen += len(found)
            for image, row, number in zip(found, rows, modality, strict=True):
                assert captions[source.number][row] in source.captions[row]
                if (name := source.modalities[number]) == "depth":
                    continue
                views = [k % 3 for k in chosen[source.number][row] if k // 3 == number]
                stored = source.cache.arrays.read(name, [row])[0][views].astype(np.float32) / 255
                if name == "texture":
                    stored[~stored.any(-1)] = 0.5
                wanted = [(torch.from_numpy(one).movedim(-1, 0) - 0.5) / 0.25 for one in stored]
                assert any(torch.allclose(image, one, atol=1e-6) for one in wanted)
    assert num_seen == 2 * 42
    assert len(table.tokens) == len({*np.unique(np.concatenate([s.captions for s in sources]))} - {-1})


def test_it_learns_and_the_folder_is_open_clips(
    captioned: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run = captioned(num_subjects=8), tmp_path / "run"
    words = ["pretrain", "--cache", cache, "--out", run, "--epochs", 40, "--batch-size", 12, "--validate", "0.25"]
    words += ["--augment", "none", "--device", "cpu", "--modalities", "normal", "--images-per-row", 3]
    assert call(*words, "--lr", "3e-3") == 0
    printed = capsys.readouterr().out
    record = read_record(run)
    assert record["complete"] and len(record["epochs"]) == 40 and len(record["validation_subjects"]) == 2
    assert record["epochs"][-1]["validation_loss"] < record["epochs"][0]["validation_loss"] - 0.4
    assert record["epochs"][-1]["zero_shot"]["normal"] > 0.5, printed  # people never seen, one image; chance 0.33
    assert f"next: python -m preprocess prompts --cache {cache} --model local-dir:{run}" in printed

    clip, _, _ = open_clip.create_model_and_transforms(f"local-dir:{run}")
    state = load_file(run / "open_clip_model.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in clip.state_dict().items())
    used = {name: PROMPTS[name] for name in open_cache(cache).info.class_names}
    text = encode_prompts(used, model=f"local-dir:{run}", pretrained="its own")
    _, config = load_tower(f"local-dir:{run}", "its own", seed=0)
    assert config.weights_hash == text.image_tower_hash and not text.random_weights
    assert call("verify", run) == 0

    # whom it was trained on must not be tested with it
    held_out = [name.removeprefix("tiny/") for name in record["validation_subjects"]]
    assert len(record["trained_subjects"]) == 6 and not {f"tiny:{name}" for name in held_out} & {
        *record["trained_subjects"]
    }
    sources, _ = pretraining_rows.read_captioned([cache], None, None)
    longer = describe_run(PretrainOptions(), sources, [f"tiny/S{k}" for k in range(7)], f"local-dir:{run}")
    assert {*longer["trained_subjects"]} == {
        *record["trained_subjects"],
        "tiny:S7",
    }  # S7, and those of the first training
    write_text_embeddings(cache / "text" / text_file_name(f"local-dir:{run}"), text)
    fit = ["fit", "--cache", cache, "--epochs", 0, "--device", "cpu", "--batch-size", 6, "--model", f"local-dir:{run}"]
    message = fails(capsys, *fit, "--folds", 2, "--out", tmp_path / "fit")
    assert f"local-dir:{run}: its tower was trained on" in message and "that fold-00 tests" in message
    assert call(*fit, "--test-subjects", ",".join(held_out), "--out", tmp_path / "fit") == 0
    zero_shot = ["predict", "--zero-shot", "--cache", cache, "--model", f"local-dir:{run}", "--out", tmp_path / "zero"]
    capsys.readouterr()
    assert call(*zero_shot) == 0
    assert "the tower was trained on 6 of the 8 subjects" in capsys.readouterr().err

    assert call(*words, "--lr", "3e-3") == 0  # finished: nothing is trained again
    assert call("pretrain", "--config", run / "config.toml", "--out", run) == 0  # the same settings
    assert "--lr" in fails(capsys, *words, "--lr", "1e-4")
    assert "is not empty" in fails(capsys, "pretrain", "--cache", cache, "--out", cache)


def test_resuming_equals_an_uninterrupted_run(captioned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = [captioned(num_subjects=3), captioned(name="b", num_subjects=2, modalities=("normal",), dataset="other")]
    options = PretrainOptions(epochs=2, batch_size=12, seed=4, validate=0.3, augment="standard", flip_epochs=1)
    pretrain(caches, tmp_path / "whole", options, device="cpu")
    written = checkpoint.write_checkpoint

    def stop(run: Path, *values: Any) -> None:
        written(run, *values)
        raise KeyboardInterrupt

    monkeypatch.setattr("train.pretraining.loop.write_checkpoint", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pretrain(caches, tmp_path / "parts", options, device="cpu")
    monkeypatch.setattr("train.pretraining.loop.write_checkpoint", written)
    pretrain(caches, tmp_path / "parts", options, device="cpu", preload="ram", log=["tensorboard"])
    whole, parts = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    log = read_log(tmp_path / "whole")
    assert log == read_log(tmp_path / "parts")
    shown = read_tensorboard(tmp_path / "parts")  # begun after two epochs, it has those before
    for name in ("loss", "lr", "validation_loss"):
        assert shown[name] == {line["step"]: pytest.approx(line[name], rel=1e-6) for line in log if name in line}
    records = [read_record(tmp_path / name) for name in ("whole", "parts")]
    for record in records:
        record.pop("hours")
        for line in record["epochs"]:
            line.pop("seconds")
    assert records[0] == records[1]


def test_last_epochs_mirror_alone(captioned: Any, tmp_path: Path) -> None:
    cache = captioned(num_subjects=2)
    losses: dict[str, list[float]] = {}
    runs: dict[str, dict[str, Any]] = {
        "flip": {"augment": "flip"},
        "standard": {"augment": "standard"},
        "all": {"augment": "standard", "flip_epochs": 2},
        "last": {"augment": "standard", "flip_epochs": 1},
    }
    for name, chosen in runs.items():
        options = PretrainOptions(epochs=2, batch_size=12, validate=0, **chosen)
        pretrain([cache], tmp_path / name, options, device="cpu")
        losses[name] = [epoch["loss"] for epoch in read_record(tmp_path / name)["epochs"]]
    assert losses["all"] == losses["flip"]
    assert losses["last"][0] == losses["standard"][0] != losses["flip"][0]
    assert losses["last"][1] != losses["standard"][1]
    with pytest.raises(FacetError, match="--flip-epochs"):
        PretrainOptions(epochs=2, flip_epochs=3)
    with pytest.raises(FacetError, match="--flip-epochs"):
        PretrainOptions(augment="none", flip_epochs=1)


def test_a_frozen_text_tower_stays(captioned: Any, tmp_path: Path, tiny_model: str) -> None:
    options = PretrainOptions(epochs=1, batch_size=8, tune_text="frozen", images_per_row=1)
    cache = captioned(num_subjects=3)
    pretrain([cache], tmp_path / "run", options, device="cpu")
    torch.manual_seed(0)
    before = open_clip.create_model(tiny_model, load_weights=False).state_dict()
    after = load_file(tmp_path / "run" / "open_clip_model.safetensors")
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed and all(name.startswith("visual.") or name == "logit_scale" for name in changed)
    other = PretrainOptions(epochs=1, tune_text="frozen", seed=1)  # other random weights than the captions'
    with pytest.raises(FacetError, match="were embedded by"):
        pretrain([cache], tmp_path / "other", other, device="cpu")


def test_shipped_weights(captioned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag like open_clip's: half precision, and only the words that were trained."""
    cache, run, file = (
        captioned(num_subjects=2),
        tmp_path / "run",
        tmp_path / "towers" / "tiny-clip.faces-1.safetensors",
    )
    towers = file.parent
    towers.mkdir()
    (towers / "tiny-clip.json").write_text(json.dumps(TINY_CLIP))
    options = PretrainOptions(epochs=1, batch_size=8)
    pretrain([cache], run, options, device="cpu", ship=file)
    pretrain([cache], run, options, device="cpu", ship=file)  # from a finished run
    assert file.stat().st_size < 200_000 < (run / "open_clip_model.safetensors").stat().st_size
    monkeypatch.setattr(models, "TOWERS", towers)

    whole, shipped = ("local-dir:" + str(run), "its own"), ("tiny-clip", "faces-1")
    few = {name: PROMPTS[name] for name in ("anger", "happiness", "surprise")}
    expected, found = (encode_prompts(few, model=m, pretrained=p) for m, p in (whole, shipped))
    assert found.embeddings == pytest.approx(expected.embeddings, abs=5e-3)
    assert not found.random_weights
    tower, config = load_tower(*shipped, seed=0)
    assert config.weights_hash == found.image_tower_hash
    assert config.weights_hash == hash_arrays({key: value.numpy() for key, value in tower.state_dict().items()})
    with pytest.raises(FacetError, match=r"know no elephant, grumpy: they hold only the words"):
        encode_prompts({"anger": ["a grumpy elephant"]}, model="tiny-clip", pretrained="faces-1")
    with pytest.raises(FacetError, match=r"its tags: faces-1"):
        encode_prompts(few, model="tiny-clip", pretrained="faces-2")

    tensors = load_file(file)
    assert tensors["token_rows"].dtype == torch.int32 and tensors["token_rows_weight"].dtype == torch.float16
    for name, bad in (
        ("token_rows", tensors["token_rows"] + 49408),
        ("token_rows", -tensors["token_rows"]),
        ("token_rows", tensors["token_rows"][1:]),
        ("token_rows_weight", tensors["token_rows_weight"][:, 1:]),
    ):
        save_file({**tensors, name: bad.contiguous()}, tmp_path / "bad.safetensors")
        with pytest.raises(FacetError, match=r"bad\.safetensors: weights of another model"):
            encode_prompts(few, model="tiny-clip", pretrained=str(tmp_path / "bad.safetensors"))
    del tensors["token_rows_weight"]
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(FacetError, match=r"bad\.safetensors: weights of another model"):
        encode_prompts(few, model="tiny-clip", pretrained=str(tmp_path / "bad.safetensors"))


def test_bad_input_gets_one_line(
    captioned: Any, tiny_cache: MakeCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, out = captioned(num_subjects=2), ["--out", tmp_path / "run"]
    plain = tiny_cache(name="plain")
    assert "no captions" in fails(capsys, "pretrain", "--cache", cache, "--cache", plain, *out)
    assert "of 2 subjects" in fails(capsys, "pretrain", "--cache", cache, *out, "--validate", "0.9")
    assert "holds none of them" in fails(capsys, "pretrain", "--cache", cache, *out, "--modalities", "depth")
    assert "--log x: expected some of tensorboard" in fails(capsys, "pretrain", "--cache", cache, *out, "--log", "x")
    assert "--epochs: expected" in fails(capsys, "pretrain", "--cache", cache, *out, "--epochs", "0")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pretrain.json").write_text("{}")
    assert "pretrain.json: damaged" in fails(capsys, "pretrain", "--cache", cache, *out)
    shutil.rmtree(tmp_path / "run")
