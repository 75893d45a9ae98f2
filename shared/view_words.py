"""Words for where a face is seen from, in prompts that differ by view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.schema import View

VIEW = "{view}"  # its place in a prompt
SIDE_DEG, PROFILE_DEG, BEHIND_DEG = 10.0, 60.0, 120.0  # least |yaw| of "from the left", "in profile" and "from behind"
HEIGHT_DEG = 10.0  # least |pitch| of "above" and "below"


def describe_view(view: View) -> str:
    """Return where a camera sees a face from, such as "from the left and above".

    Left is the subject's own, as in "left profile": +yaw, the face looks to the left of the image.
    """
    side, turn = "left" if view.yaw_deg > 0 else "right", abs(view.yaw_deg)
    height = "" if abs(view.pitch_deg) < HEIGHT_DEG else "above" if view.pitch_deg > 0 else "below"
    if turn < SIDE_DEG:
        return f"from {height or 'the front'}"
    where = f"from the {side}" if turn < PROFILE_DEG else f"in profile from the {side}"
    where = where if turn < BEHIND_DEG else "from behind"
    return f"{where} and {height}" if height else where


VIEW_WORDS = tuple(
    dict.fromkeys(describe_view(View(yaw, pitch)) for pitch in (0, 45, -45) for yaw in (0, 45, -45, 90, -90, 180))
)


def with_mirrored(views: Sequence[View]) -> tuple[View, ...]:
    """Return the views, then those of their mirrored images that are others: training mirrors images."""
    return tuple(dict.fromkeys((*views, *(View(-view.yaw_deg, view.pitch_deg) for view in views))))


def word_views(prompts: Mapping[str, Sequence[str]], views: Sequence[View] = ()) -> dict[str, list[tuple[str, str]]]:
    """Replace {view} by the words of each view.

    Args:
        prompts: class name → its prompts. A name among VIEW_WORDS is no class: its texts are the words of that view.
        views: the views to word, with their mirrored images; (): all of VIEW_WORDS.
    Returns:
        Class name → its texts, each with the view that it is for, as `describe_view` names it; "": any.
    """
    names = dict.fromkeys(map(describe_view, with_mirrored(views))) or VIEW_WORDS
    worded: dict[str, list[tuple[str, str]]] = {}
    for class_name, texts in prompts.items():
        if class_name in VIEW_WORDS:
            continue
        worded[class_name] = [
            (text.replace(VIEW, words), name)
            for text in texts
            for name in (names if VIEW in text else ("",))
            for words in (prompts.get(name, (name,)) if name else ("",))
        ]
    return worded
