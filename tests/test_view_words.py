"""Words for views: whose left, every angle, mirrored images, and the place of the words in prompts."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SEEN, VIEWS

from preprocess.rendering.cameras import build_cameras
from preprocess.text_tower import open_text_model
from shared.schema import View
from shared.view_words import VIEW_WORDS, describe_view, with_mirrored, word_views


def test_left_is_the_subjects_own() -> None:
    """By the renderer's own camera: it stands on the subject's left (+x), and the nose points to the left of the image."""
    camera = build_cameras((View(30),)).world_to_view[0][:3, :3]
    assert describe_view(View(30)) == "from the left"
    assert camera[2] @ [1, 0, 0] > 0  # toward the viewer
    assert (camera @ [0, 0, 20])[0] < 0


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (View(9.9, -9), "from the front"),
        (View(-10), "from the right"),
        (View(60), "in profile from the left"),
        (View(-180), "from behind"),
        (View(5, 10), "from above"),
        (View(-35, -20), "from the right and below"),
        (View(90, 45), "in profile from the left and above"),
    ],
)
def test_words(view: View, words: str) -> None:
    assert describe_view(view) == words


def test_every_angle_has_words_and_its_mirrored_image_the_mirrored_ones() -> None:
    exchange = {"left": "right", "right": "left"}
    for view in (View(yaw, pitch) for yaw in np.arange(-180, 181, 7.5) for pitch in np.arange(-90, 91, 7.5)):
        words, mirrored = describe_view(view), describe_view(with_mirrored([view])[-1])
        assert words in VIEW_WORDS
        assert mirrored.split() == [exchange.get(word, word) for word in words.split()]
    assert tuple(map(describe_view, VIEWS)) == SEEN
    assert with_mirrored(VIEWS) == VIEWS
    assert with_mirrored([View(0), View(20, 5)]) == (View(0), View(20, 5), View(-20, 5))


def test_prompts_of_views() -> None:
    prompts = {"anger": ["an angry face", "anger {view}, {view}"], "from the right": ["at right", "right"]}
    assert word_views(prompts, [View(20)]) == {
        "anger": [
            ("an angry face", ""),
            ("anger from the left, from the left", "from the left"),
            ("anger at right, at right", "from the right"),
            ("anger right, right", "from the right"),
        ]
    }
    assert len(word_views(prompts)["anger"]) == 1 + len(VIEW_WORDS) + 1


def test_the_shipped_tower_knows_the_words() -> None:
    open_text_model("facet-tiny", "synthetic-2").tokenize([f"an angry face, seen {words}" for words in VIEW_WORDS])
