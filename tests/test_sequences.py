"""Frames in time order."""

from __future__ import annotations

from types import SimpleNamespace

from shared.sequences import group_frames


def test_frames_are_grouped_in_time_order() -> None:
    names = [("b", 2), ("", None), ("a", 7), ("b", 1), ("a", None), ("b", 1)]
    frames = [SimpleNamespace(sequence=sequence, frame=frame) for sequence, frame in names]
    assert group_frames([*frames, None]) == {"b": [3, 5, 0], "a": [4, 2]}
    assert list(group_frames(frames)) == ["b", "a"]  # by their first positions
