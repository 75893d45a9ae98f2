"""Coverage, prompts and a run's predictions: what these pages say is what the tables and images hold."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, MakeCache, random_text
from dash import html
from dash.development.base_component import Component
from viewer_pages import components_text, page_text, tiles

from preprocess.viewer.address import Address
from preprocess.viewer.confusion import count_confusions
from preprocess.viewer.coverage import show_findings
from preprocess.viewer.pages import PAGES, Page, list_links
from preprocess.viewer.prompts import class_similarity, find_close, find_confusable
from preprocess.viewer.run_records import read_run
from preprocess.viewer.site import Site, open_site
from shared.cache import open_cache
from shared.errors import FacetError


@pytest.fixture
def site(tiny_cache: MakeCache) -> Site:
    """Two subjects, twelve scans, every other page of a viewer beside them; rows 2 and 9 are one file, row 5 is invalid."""
    return open_site(
        tiny_cache(num_subjects=2, modalities=("texture", "normal", "depth"), invalid=(5,), same_scan=(2, 9))
    )


def test_a_cache_without_a_valid_row_has_pages(tiny_cache: MakeCache) -> None:
    site = open_site(tiny_cache(num_subjects=1, scans_per_class=1, invalid=(0, 1, 2), with_text=False))
    found = site.checker.findings(wait_seconds=60)
    assert "0 of 0 valid samples" in components_text(show_findings(site, Address(), found))
    assert "No prompts yet" in page_text(site, "/prompts")
    assert "no surface" in page_text(site, "/")


def test_a_new_page_is_a_function_and_a_line_of_the_table(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes_page(site: Site, address: Address) -> list[Component]:
        return [html.H1(f"{len(site.cache.samples)} rows, {address.show}")]

    monkeypatch.setitem(PAGES, "sizes", Page("sizes", sizes_page))
    assert "12 rows, depth" in page_text(site, "/sizes", "?show=depth")
    assert "/sizes" in components_text(list_links(site))
    assert "No such page" in page_text(site, "/sizes/3")


def test_similarities_of_classes() -> None:
    text = random_text(CLASSES, 32, "tower")
    means = [np.mean(text.embeddings[c], axis=0) for c in range(3)]
    truth = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    assert class_similarity(text)[0, 1] == pytest.approx(truth, abs=1e-6)
    assert find_confusable(text) == []
    embeddings = text.embeddings.copy()
    embeddings[2] = embeddings[0]
    same = dataclasses.replace(text, embeddings=embeddings)
    assert find_confusable(same) == ["this tower cannot distinguish anger and surprise: cosine 1.000"]
    prompts = (text.prompts[0], text.prompts[0], text.prompts[2])
    assert find_confusable(dataclasses.replace(text, prompts=prompts)) == [
        "anger and happiness share the prompt “anger 0”"
    ]


def test_classes_closer_than_others_are_told() -> None:
    names = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    text = dataclasses.replace(random_text(names, 64, "tower"), random_weights=False, logit_scale=100.0)
    assert find_confusable(text) == []
    embeddings = text.embeddings + 3 * text.embeddings[0, 0]  # as prompts about faces are: all alike to a degree
    embeddings[5] = embeddings[2] + 0.1 * (embeddings[5] - embeddings[2])
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    (line,) = find_confusable(dataclasses.replace(text, embeddings=embeddings))
    assert line.startswith("fear and surprise are much closer than other classes")
    assert find_confusable(dataclasses.replace(text, embeddings=embeddings, random_weights=True)) == []
    assert not find_close(class_similarity(text.select(names[2:]))).any()  # too few to compare


def test_the_prompts_page_shows_texts_and_what_they_are_worth(site: Site) -> None:
    page = page_text(site, "/prompts")
    assert "happiness 1" in page and "random weights: similarities mean nothing" in page


def write_run(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(parents=True)
    head = "sample_id,subject,label,predicted," + ",".join(f"p_{name}" for name in CLASSES)
    (folder / "predictions.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


def test_predictions_stand_beside_labels(site: Site, tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        [
            "S0/anger0,S0,anger,surprise,0.2,0.1,0.7",
            "S0/anger1,S0,anger,anger,0.6,0.2,0.2",
            "gone,S9,anger,anger,1,0,0",
        ],
    )
    found = read_run(run, site.cache)
    said = {row: (one.predicted, found.probability(one)) for row, one in found.predictions.items()}
    assert said == {0: (("surprise",), 0.7), 1: (("anger",), 0.6)}
    shown = open_site(site.cache.path, run)
    assert count_confusions(shown.run) == {("anger", "surprise"): 1, ("anger", "anger"): 1}
    assert tiles(shown, "?label=anger&predicted=surprise") == [0]
    assert '"/?label=anger&predicted=surprise"' in page_text(shown, "/confusion")
    assert "→ surprise" in page_text(shown, "/") and '"0.700"' in page_text(shown, "/sample/0")
    for page in ("/confusion", "/map"):  # without a run
        assert "start the viewer with --run RUN" in page_text(site, page)


def test_folds_and_sequences(tiny_cache: MakeCache, tmp_path: Path) -> None:
    cache = open_cache(tiny_cache(num_subjects=2, num_frames=3))
    write_run(tmp_path / "folds" / "fold-0", ["S0/anger0,S0,anger,anger,1,0,0"])
    write_run(tmp_path / "folds" / "fold-1", ["S1/anger0,S1,anger,happiness,0,1,0"])
    said = read_run(tmp_path / "folds", cache).predictions
    assert {row: one.predicted for row, one in said.items()} == {
        **dict.fromkeys((0, 1, 2), ("anger",)),
        **dict.fromkeys((18, 19, 20), ("happiness",)),
    }


def test_the_confusion_matrix_counts_what_the_report_counts(tiny_cache: MakeCache, tmp_path: Path) -> None:
    """A sequence once, in each round that tested it; the run's classes alone."""
    cache = open_cache(tiny_cache(num_subjects=2, num_frames=3, class_names=(*CLASSES, "neutral")))
    for name, said in (("round-000", "anger"), ("round-001", "surprise")):
        write_run(
            tmp_path / "folds" / name / "fold-0",
            [
                f"S0/anger0,S0,anger,{said},1,0,0",
                "S1/happiness1,S1,happiness,happiness,0,1,0",
                "gone,S7,anger,anger,1,0,0",
            ],
        )
    site = open_site(cache.path, tmp_path / "folds")
    truth = {("anger", "anger"): 1, ("anger", "surprise"): 1, ("happiness", "happiness"): 2}
    assert count_confusions(site.run) == truth
    page = page_text(site, "/confusion")
    assert (
        "3 of 4 sequences (each counts once, as in the run's report) are predicted correctly (accuracy 75.0 %)" in page
        and "neutral" not in page
    )
    texts = [re.findall(r'"children": "([^"]*)"', line) for line in page.split('"type": "Tr"')]
    assert ["all", "1", "2", "1", "4", ""] in texts  # by predicted class
    assert ["precision, %", "100.0", "100.0", "0.0", "", "75.0"] in texts
    assert [line[-2:] for line in texts if line[:1] == ["anger"] and len(line) > 2] == [["2", "50.0"]]  # all, recall


def test_what_no_class_of_the_run_is_counts_nowhere(site: Site, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ["S0/anger0,S0,neutral,anger,1,0,0", "S0/anger1,S0,,anger,1,0,0"])
    shown = open_site(site.cache.path, run)
    assert not count_confusions(shown.run) and "2 more have no label" in page_text(shown, "/confusion")


def test_a_table_of_predict_says_what_scans_lack(site: Site, tmp_path: Path) -> None:
    """The last column is for people: it is no class."""
    (tmp_path / "predictions.csv").write_text(
        "sample_id,subject,label,predicted,p_anger,p_fear,lacks\nS0/anger0,S0,anger,fear,0.2,0.8,texture\n"
    )
    found = read_run(tmp_path, site.cache)
    (said,) = found.predictions.values()
    assert (found.class_names, said.probabilities, found.several) == (("anger", "fear"), (0.2, 0.8), False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n", "expected columns"),
        ("sample_id,subject,label,predicted,p_anger\nx,S0,anger,joy,1\n", "damaged"),
        ("sample_id,subject,label,predicted,p_anger\nS0/anger0,S0,anger,anger,much\n", "damaged"),
        ("sample_id,subject,label,predicted,p_anger\nelse,S0,anger,anger,1\n", "none of its 1 predictions"),
        ("sample_id,subject,label,predicted,p_anger,unknown\nx,S0,anger,joy,1,\n", "'joy' is no class of the run"),
        ("sample_id,subject,label,predicted,p_anger\nx,S0,anger,anger,7\n", "no probabilities"),
        (None, "no predictions.csv there"),
    ],
)
def test_a_run_that_cannot_be_shown(site: Site, tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(FacetError, match=words):
        read_run(tmp_path, site.cache)
