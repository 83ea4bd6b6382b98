"""The page that a search writes: it needs nothing else, and says what the terminal says."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from forclip.search.output import how_sure
from forclip.search.report import write_search_report
from forclip.search.request import Answer, Cutoff, SearchRequest, answer
from forclip.search.searcher import Searcher
from forclip.types import SearchResult
from tests.search.test_search_request import CALIBRATION


def written(found: Answer, folder: Path) -> str:
    write_search_report(folder / "out" / "found.html", found, "photos.store")
    return (folder / "out" / "found.html").read_text()


def test_every_image_is_shown_with_its_place_and_worth(searcher: Searcher, tmp_path: Path) -> None:
    sure = Searcher(searcher.index, replace(searcher.model, calibration=CALIBRATION))
    found = answer(sure, SearchRequest("cat", k=12, where="half < 2", cutoff=Cutoff("precision", 0.1)))
    html = written(found, tmp_path)
    assert found.results
    assert found.confidence is not None
    assert html.count("<li>") == html.count('class="place"') == len(found.results)
    for result, probability in zip(found.results, found.probabilities, strict=True):
        assert result.uri in html
        assert f"{probability:.0%} ({result.score:.3f})" in html
    assert how_sure(found) in html
    assert "where half &lt; 2" in html
    assert "Expected precision down the list" in html
    assert not re.search(r"https?://|<script|<link", html)


def test_without_a_cutoff_nothing_is_said_of_how_sure(searcher: Searcher, tmp_path: Path) -> None:
    html = written(answer(searcher, SearchRequest("cat", k=3)), tmp_path)
    assert "xpected" not in html
    assert html.count("<li>") == 3


def test_several_texts_say_which_decided(searcher: Searcher, tmp_path: Path) -> None:
    found = answer(searcher, SearchRequest("cat", any_of=("dog",), k=5))
    html = written(found, tmp_path)
    assert "cat or dog" in html
    assert html.count('class="by"') == html.count(">normalised_score ") == 5


@pytest.mark.parametrize("name", ["<script>alert(1)</script>.jpg", 'a"b&c.jpg', "snow\udce9.jpg"])
def test_hostile_and_missing_pictures(name: str, tmp_path: Path) -> None:
    results = [SearchResult(1, name, str(tmp_path / name), 0.5, (0.1, 0.1, 0.5, 0.5), 0)]
    html = written(Answer(SearchRequest("<b>bold</b>"), results), tmp_path)
    assert "no picture" in html
    assert "<script" not in html
    assert "<b>" not in html


def test_nothing_found_is_said(tmp_path: Path) -> None:
    assert "No image is left." in written(Answer(SearchRequest("cat"), []), tmp_path)
