"""Synthetic faces: human in size, not mirrored, each expression moving what it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from written_layouts import LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE

from preprocess.synth.action_units import INTENSITY_STRENGTH, PROTOTYPES, Activation, draw_activation
from preprocess.synth.head import Person
from preprocess.synth.identity import draw_identity
from preprocess.synth.landmarks import landmark_vertices
from preprocess.synth.sheet import grid_shape

OUTER_LIPS, INNER_LIPS, CONTOUR = range(48, 60), range(60, 68), range(68, 83)


@pytest.fixture(scope="module")
def people() -> list[Person]:
    return [Person(draw_identity(np.random.default_rng([3, k]), female=k % 2 == 0)) for k in range(4)]


def full(expression: str) -> Activation:
    """The prototype itself, without chance."""
    return Activation({unit: (share, share) for unit, share in PROTOTYPES[expression].items()})


def moved(people: list[Person], expression: str) -> np.ndarray:
    """Mean displacement of the 83 landmarks from neutral, (83, 3) mm."""
    return np.mean([landmarks(p, full(expression)) - landmarks(p, full("neutral")) for p in people], axis=0)


def landmarks(person: Person, activation: Activation) -> np.ndarray:
    points = person.scan(activation).landmarks_mm
    assert points is not None
    return points


def test_another_seed_shows_other_people(people: list[Person]) -> None:
    shapes = [landmarks(person, full("neutral")) for person in people]
    other = landmarks(Person(draw_identity(np.random.default_rng([4, 0]), female=True)), full("neutral"))
    assert all(np.abs(other - shape).max() > 2.0 for shape in shapes)


def test_no_face_is_mirrored_or_inside_out(people: list[Person]) -> None:
    for person in people:
        mesh = person.scan(full("neutral"))
        points = mesh.landmarks_mm
        assert points is not None
        for left, right in ((LEFT_EYE, RIGHT_EYE), (LEFT_BROW, RIGHT_BROW)):
            assert points[left, 0].min() > 5
            assert points[right, 0].max() < -5
        a, b, c = (mesh.vertices_mm[mesh.triangles[:, k]] for k in range(3))
        front = np.cross(b - a, c - a)[:, 2]
        assert (front > 0).mean() > 0.95  # counter-clockwise from the front; nostrils and the jaw's underside turn away


def test_faces_have_human_sizes_and_a_nose_that_sticks_out(people: list[Person]) -> None:
    for person in people:
        mesh = person.scan(full("neutral"))
        extent = np.ptp(mesh.vertices_mm, axis=0)
        assert 115 < extent[0] < 175
        assert 150 < extent[1] < 220
        tip = mesh.vertices_mm[mesh.vertices_mm[:, 2].argmax()]
        assert np.abs(tip[:2]).max() < 10
        points = mesh.landmarks_mm
        assert points is not None
        assert points[CONTOUR].mean(0)[1] < points[OUTER_LIPS].mean(0)[1] < tip[1] < points[LEFT_EYE].mean(0)[1]
        assert points[LEFT_EYE].mean(0)[1] < points[LEFT_BROW].mean(0)[1]


@pytest.mark.parametrize("expression", ["neutral", "fear"])
def test_no_crease_runs_down_the_midline(expression: str) -> None:
    """The forehead bends at the midline no more than beside it, in lopsided faces, too."""
    lopsided = Activation({unit: (1.2 * share, 0.8 * share) for unit, share in PROTOTYPES[expression].items()})
    for k in range(4):
        identity = draw_identity(np.random.default_rng([3, k]), female=k % 2 == 0)
        bumpy = replace(identity, bumps=identity.bumps * (1, 1, 1, 3.5, 1))
        depth = Person(bumpy).scan(lopsided).vertices_mm[:, 2].reshape(grid_shape())[:12]
        bends = np.abs(np.diff(depth, 2, axis=1)).max(0)
        middle = len(bends) // 2
        beside = np.concatenate([bends[middle - 12 : middle - 4], bends[middle + 5 : middle + 13]])
        assert bends[middle] < 1.3 * beside.max()


def test_every_landmark_is_a_vertex_of_its_own() -> None:
    index = landmark_vertices()
    assert index.shape == (83,)
    assert len(set(index[:36].tolist())) == 36
    assert len(set(index[48:].tolist())) == 35


def corners(move: np.ndarray) -> np.ndarray:
    return move[[OUTER_LIPS[0], OUTER_LIPS[6]]]


def inner_brow(move: np.ndarray) -> float:
    return float(move[[16, 25, 26, 35], 1].mean())


def test_happiness_lifts_and_widens_the_corners_of_the_mouth(people: list[Person]) -> None:
    rest = landmarks(people[0], full("neutral"))[[OUTER_LIPS[0], OUTER_LIPS[6]], 0]
    happy = corners(moved(people, "happiness"))
    assert happy[:, 1].min() > 3
    assert (happy[:, 0] * np.sign(rest)).min() > 2


def test_sadness_lifts_the_inner_brow_and_drops_the_corners_of_the_mouth(people: list[Person]) -> None:
    sad = moved(people, "sadness")
    assert inner_brow(sad) > 1.5
    assert inner_brow(sad) > sad[[20, 21, 30, 31], 1].mean() + 1
    assert corners(sad)[:, 1].max() < -2


def test_surprise_drops_the_jaw_and_lifts_the_brows(people: list[Person]) -> None:
    surprised = moved(people, "surprise")
    assert surprised[75, 1] < -10  # the chin, in the middle of the contour
    assert surprised[[*LEFT_BROW, *RIGHT_BROW], 1].mean() > 3
    points = landmarks(people[0], full("surprise"))[INNER_LIPS]
    assert np.ptp(points[:, 1]) > np.ptp(landmarks(people[0], full("neutral"))[INNER_LIPS, 1]) + 8


def test_fear_opens_the_eyes_and_stretches_the_mouth(people: list[Person]) -> None:
    afraid = moved(people, "fear")
    assert afraid[2, 1] - afraid[6, 1] > 1  # upper against lower lid
    rest = landmarks(people[0], full("neutral"))[[OUTER_LIPS[0], OUTER_LIPS[6]], 0]
    assert (corners(afraid)[:, 0] * np.sign(rest)).min() > 3


def test_anger_lowers_the_brows_and_draws_them_together(people: list[Person]) -> None:
    angry = moved(people, "anger")
    assert inner_brow(angry) < -3
    assert angry[16, 0] < -1 < 1 < angry[26, 0]


def test_disgust_lifts_the_upper_lip_and_the_wings_of_the_nose(people: list[Person]) -> None:
    disgusted = moved(people, "disgust")
    assert disgusted[51, 1] > 2  # middle of the upper lip
    assert disgusted[[39, 44], 1].min() > 1.5


def test_stronger_intensities_move_the_face_further(people: list[Person]) -> None:
    rng = np.random.default_rng(0)
    sizes = []
    for strength in INTENSITY_STRENGTH.values():
        moves = [
            np.linalg.norm(
                landmarks(person, draw_activation(expression, strength, rng)) - landmarks(person, full("neutral")),
                axis=1,
            ).mean()
            for person in people
            for expression in PROTOTYPES
            if expression != "neutral"
        ]
        sizes.append(float(np.mean(moves)))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.5 * sizes[0]


def test_one_expression_is_never_shown_twice_alike() -> None:
    rng = np.random.default_rng(1)
    shown = [draw_activation("happiness", 1.0, rng).sides[12] for _ in range(50)]
    left, right = np.array(shown).T
    assert 0.1 < left.std() < 0.5
    assert 0.02 < np.abs(left - right).mean() < 0.4
