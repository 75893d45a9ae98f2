"""Small real caches and models for every test: written through the contract's own writers, learnable, patterned by class."""

from __future__ import annotations

import json
import os
import signal
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

# Before NumPy and torch start their threads: on small arrays two threads wait for each other longer than they compute,
# and sums come out in the same order whatever the machine. Commands that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

# A job in the background of a script ignores Ctrl-C, and so would the commands that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
from hypothesis import settings
from scipy.spatial.transform import Rotation

from shared.cache import (
    FAILURES_CSV,
    SAMPLES_CSV,
    SEQUENCES_CSV,
    Failure,
    num_shards,
    record_path,
    write_info,
    write_record,
)
from shared.csv_tables import encode_table
from shared.modalities import DEPTH_ZERO
from shared.schema import SHARD_ROWS, CacheInfo, RenderSettings, Sample, ShardRecord, View, fingerprint, text_file_name
from shared.schema import Sequence as SequenceRow
from shared.store.storage import encode_metadata, encode_shard, hash_file, write_file
from shared.text import TextEmbeddings, write_text_embeddings

if TYPE_CHECKING:
    from browser import Watched

    from preprocess.viewer.site import Site

# Examples are not timed: a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# No test cuts the power, and a run writes dozens of files: each would wait 7 ms for the disk.
pytest.MonkeyPatch().setattr(os, "fsync", lambda file: None)

TINY_CLIP: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
CLASSES = ("anger", "happiness", "surprise")
VIEWS = (View(0), View(20), View(-20))
SEEN = ("from the front", "from the left", "from the right")  # the words of VIEWS
UNITS = ("AU1", "AU4", "AU12")


class MakeCache(Protocol):
    """See `write_tiny_cache`; the path is chosen."""

    def __call__(self, **options: Any) -> Path: ...


@pytest.fixture
def tiny_cache(tmp_path: Path, tiny_model: str) -> MakeCache:
    """A factory of small caches: `tiny_cache(name="a", num_subjects=3, store="hdf5")` → its folder."""

    def make(**options: Any) -> Path:
        path = tmp_path / str(options.pop("name", "cache"))
        write_tiny_cache(path, **{"model": tiny_model, **options})
        return path

    return make


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`local-dir:` name of a very small CLIP without weights: for --pretrained none."""
    folder = tmp_path_factory.mktemp("tiny-clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CLIP}))
    return f"local-dir:{folder}"


# What a module with a `site` of its own needs to look at it as a visitor does. The viewer is imported by these modules alone.


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[str]:
    """Where the module's site is served."""
    from browser import find_chromium, served

    find_chromium()
    with served(site) as address:
        yield address


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Watched]:
    from browser import browsed, find_chromium

    with browsed(find_chromium()) as watched:
        yield watched


@pytest.fixture
def visit(browser: Watched, address: str) -> Iterator[Watched]:
    """A browser. Whatever a test does, nothing may be complained of or asked for elsewhere."""
    browser.complaints.clear()
    browser.requests.clear()
    yield browser
    assert not browser.complaints
    assert not [url for url in browser.requests if not url.startswith((address + "/", "data:", "blob:"))]


def write_tiny_cache(
    path: Path,
    *,
    model: str,
    num_subjects: int = 4,
    scans_per_class: int = 2,
    class_names: Sequence[str] = CLASSES,
    views: Sequence[View] = VIEWS,
    size_px: int = 32,
    modalities: Sequence[str] = ("texture", "normal"),
    store: str = "zarr",
    num_frames: int = 0,
    without_texture: Sequence[int] = (),
    invalid: Sequence[int] = (),
    unlabelled: Sequence[int] = (),
    same_scan: Sequence[int] = (),
    relabel: Mapping[str, Sequence[str]] | None = None,
    apex: int | None = None,
    intensities: Sequence[str] = ("01",),
    units: str = "",
    num_landmarks: int = 0,
    turn_deg: float = 0.0,
    with_text: bool = True,
    text_dim: int = 32,
    text_views: Sequence[str] = (),
    dataset: str = "tiny",
    seed: int = 0,
) -> None:
    """Writes a finished cache.

    Each subject S0, S1 … shows each class scans_per_class times; a bright spot's place tells the class, skin tone and noise
    tell the subject; no two surfaces are alike. With num_frames, each scan is a sequence of so many rows, whose spot grows and
    fades. Row numbers in without_texture, invalid and unlabelled are treated so; those in same_scan have one hash. relabel:
    subject → what the tables call its classes, in turn. apex: of
    every sequence. intensities: of a class's scans in turn. units: "aus" or "targets": what each row shows of UNITS, three yes
    or no that follow from its class; row 0 is unknown. num_landmarks: random points;
    the last is not known. turn_deg: the cache is stabilised, and in each frame the head is turned so much further to its left.
    Prompt embeddings are random unit vectors, marked random; text_views: as in `random_text`.
    """
    rng = np.random.default_rng(seed)
    settings = RenderSettings(
        views=tuple(views), size_px=size_px, modalities=tuple(modalities), stabilised=bool(turn_deg)
    )
    samples: list[Sample] = []
    images: list[dict[str, np.ndarray]] = []
    for subject in range(num_subjects):
        skin = rng.uniform(0.3, 0.7, 3)
        for label, class_name in enumerate(class_names):
            given = (relabel or {}).get(f"S{subject}", class_names)[label]
            for scan in range(scans_per_class):
                name = f"S{subject}/{class_name}{scan}"
                for frame in range(max(num_frames, 1)):
                    row = len(samples)
                    strength = np.sin(np.pi * (frame + 0.5) / num_frames) if num_frames else 1.0
                    has = [m for m in modalities if m != "texture" or row not in without_texture]
                    samples.append(
                        Sample(
                            sample_id=f"{name}/{frame:03d}" if num_frames else name,
                            subject=f"S{subject}",
                            sequence=name if num_frames else "",
                            frame=frame if num_frames else None,
                            label="" if row in unlabelled else given,
                            intensity=intensities[scan % len(intensities)],
                            task="",
                            source=f"{name}.obj",
                            source_hash=fingerprint("same" if row in same_scan else [dataset, seed, name, frame]),
                            valid=row not in invalid,
                            reason="no surface" if row in invalid else "",
                            modalities="" if row in invalid else "+".join(has),
                            alignment="geometry",
                        )
                    )
                    height = (
                        1.2 * label / (len(class_names) - 1) - 0.6
                    )  # on the middle line: a mirrored face keeps its class
                    surface = [zlib.crc32(dataset.encode()), seed, row]
                    images.append(_draw(settings, skin, height, float(strength), rng, surface))
    info = CacheInfo(
        dataset=dataset,
        licence="drawn by the tests; free",
        class_names=tuple(class_names),
        settings=settings,
        store=store,
        au_names=(*UNITS, "AU12_intensity") if units == "aus" else (),
        target_names=UNITS if units == "targets" else (),
        num_samples=len(samples),
        num_valid=sum(s.valid for s in samples),
        num_subjects=num_subjects,
        num_shards=num_shards(len(samples)),
        num_landmarks=num_landmarks,
        settings_fingerprint=fingerprint(settings),
        complete=True,
    )
    digests = []
    for shard in range(info.num_shards):
        rows = slice(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, len(samples)))
        arrays = {m: np.stack([image[m] for image in images[rows]]) for m in modalities}
        arrays["scan_to_face"] = np.tile(np.eye(4, dtype=np.float32), (len(samples[rows]), 1, 1))
        turned = np.array([[-turn_deg * (s.frame or 0)] for s in samples[rows]])  # back to the front
        arrays["scan_to_face"][:, :3, :3] = Rotation.from_euler("y", turned, degrees=True).as_matrix()
        present = {m: np.array([s.has(m) for s in samples[rows]]) for m in modalities}
        present["scan_to_face"] = np.array([s.valid for s in samples[rows]])
        if num_landmarks:
            points = np.random.default_rng([seed, shard]).normal(0, 30, (len(samples[rows]), num_landmarks, 3))
            points[:, -1] = np.nan
            arrays["landmarks"], present["landmarks"] = points.astype(np.float32), present["scan_to_face"]
        if units:
            shown = [show_units(class_names.index(s.source.split("/")[1][:-5])) for s in samples[rows]]
            values = np.array(shown, np.int8)[:, : len(info.au_names) or len(info.target_names)]
            values[: 1 - min(shard, 1)] = -1
            arrays[units], present[units] = values, np.ones(len(values), bool)
        files = {
            name: write_file(path / name, data) for name, data in encode_shard(info, shard, arrays, present).items()
        }
        record = ShardRecord(shard, rows.start, tuple(samples[rows]), fingerprint([seed, shard]), files)
        write_record(path, record)
        digests.append(hash_file(record_path(path, shard)))
    sequences = []
    if num_frames:
        for first in range(0, len(samples), num_frames):
            s = samples[first]
            sequences.append(SequenceRow(s.sequence, s.subject, first, num_frames, 25.0, s.label, apex=apex))
    failures = [failure for sample in samples if (failure := Failure.of(sample))]
    tables = {
        SAMPLES_CSV: encode_table(Sample, samples),
        SEQUENCES_CSV: encode_table(SequenceRow, sequences),
        FAILURES_CSV: encode_table(Failure, failures),
        **encode_metadata(info),
    }
    hashes = {name: write_file(path / name, data) for name, data in tables.items()}
    content = fingerprint({"tables": [hashes[SAMPLES_CSV], hashes[SEQUENCES_CSV]], "records": digests})
    write_info(path, replace(info, num_sequences=len(sequences), file_hashes=hashes, content_hash=content))
    if with_text:
        text = random_text((*class_names, *(UNITS if units else ())), text_dim, model, views=text_views)
        write_text_embeddings(path / "text" / text_file_name(model), text)


def show_units(label: int) -> tuple[int, ...]:
    """What a face of a class shows of UNITS, and how intense the last is."""
    return int(label <= 1), int(label >= 1), int(label == 2), 3 * int(label == 2)


def random_text(
    class_names: Sequence[str], dim: int, model: str, num_prompts: int = 2, views: Sequence[str] = ()
) -> TextEmbeddings:
    """Unit vectors with a large part in common, as a text tower with random weights gives them.

    views: one prompt of each, in the words of `describe_view`, instead of num_prompts.
    """
    num_prompts = len(views) or num_prompts
    rng = np.random.default_rng(len(class_names))
    vectors = rng.normal(size=(len(class_names), num_prompts, dim)) + 2 * rng.normal(size=dim)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return TextEmbeddings(
        class_names=tuple(class_names),
        prompts=tuple(tuple(f"{name} {k}" for k in range(num_prompts)) for name in class_names),
        embeddings=vectors.astype(np.float32),
        mask=np.ones(vectors.shape[:2], bool),
        model=model,
        pretrained="none",
        weights_hash="0" * 64,
        image_tower_hash="0" * 64,
        logit_scale=14.285714,
        random_weights=True,
        views=(tuple(views),) * len(class_names) if views else (),
    )


def _draw(
    settings: RenderSettings,
    skin: np.ndarray,
    height: float,
    strength: float,
    rng: np.random.Generator,
    surface: list[int],
) -> dict[str, np.ndarray]:
    """Images (V, S, S, …) of a disc with a spot at a height; the spot moves sideways with the camera's yaw.

    Args:
        rng: noise of the texture. surface: seed of the surface's roughness in each view, whatever other views there are.
    """
    size = settings.size_px
    place = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = place[None, :], -place[:, None]
    face = x**2 + y**2 < 0.81
    found: dict[str, list[np.ndarray]] = {m: [] for m in settings.modalities}
    for view in settings.views:
        moved = -np.sin(np.radians(view.yaw_deg)) * 0.5
        spot = strength * np.exp(-((x - moved) ** 2 + (y - height) ** 2) / 0.05)
        noise = rng.normal(0, 0.03, (size, size, 3))
        texture = (np.clip(skin + 0.5 * spot[..., None] + noise, 0, 1) * 254 + 1) * face[..., None]
        normal = np.stack([x + 0 * y, y + 0 * x, 0.5 + spot], axis=-1)
        generator = np.random.default_rng([*surface, round(abs(view.yaw_deg)), round(view.pitch_deg) + 90])
        rough = generator.normal(0, 1, (size, size, 4))
        if view.yaw_deg <= 0:  # a face mirrored is the face from the mirrored camera
            mirrored = rough[:, ::-1] * (-1, 1, 1, 1)
            rough = mirrored if view.yaw_deg else (rough + mirrored) / np.sqrt(2)
        normal += 0.05 * rough[..., :3]
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        depth = np.round((20 * spot - 30 * (x**2 + y**2) + 0.4 * rough[..., 3]) / 0.02) + DEPTH_ZERO
        drawn = {
            "texture": texture.astype(np.uint8),
            "normal": ((np.round(127 * normal) + 128) * face[..., None]).astype(np.uint8),
            "depth": (depth * face).astype(np.uint16),
        }
        for modality in settings.modalities:
            found[modality].append(drawn[modality])
    return {modality: np.stack(images) for modality, images in found.items()}
