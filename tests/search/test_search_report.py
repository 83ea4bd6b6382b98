"""The HTML report of a search: one file that shows every result."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from forclip.search.output import describe_confidence
from forclip.search.report import write_search_report
from forclip.search.request import Cutoff, SearchAnswer, SearchRequest, run_search
from forclip.search.searcher import Searcher
from forclip.types import SearchResult
from tests.search.test_request import CALIBRATION


def write(answer: SearchAnswer, folder: Path) -> str:
    write_search_report(folder / "out" / "report.html", answer, "photos.store")
    return (folder / "out" / "report.html").read_text()


def test_every_image_is_shown_with_its_region_and_probability(searcher: Searcher, tmp_path: Path) -> None:
    calibrated = Searcher(searcher.index, replace(searcher.model, calibration=CALIBRATION))
    request = SearchRequest(text="cat", k=12, where="half < 2", cutoff=Cutoff("precision", 0.1))
    answer = run_search(calibrated, request)
    html = write(answer, tmp_path)
    assert answer.results
    assert html.count("<li>") == html.count('class="place"') == len(answer.results)
    for result in answer.results:
        assert result.uri in html
        assert f"{answer.probability(result):.0%} ({result.score:.3f})" in html
    assert describe_confidence(answer) in html
    assert "half &lt; 2" in html
    assert not re.search(r"https?://|<script|<link", html)


def test_without_a_cutoff_there_is_no_confidence(searcher: Searcher, tmp_path: Path) -> None:
    html = write(run_search(searcher, SearchRequest(text="cat", k=3)), tmp_path)
    assert "xpected" not in html
    assert html.count("<li>") == 3


def test_several_texts_show_the_deciding_one(searcher: Searcher, tmp_path: Path) -> None:
    html = write(run_search(searcher, SearchRequest(text="cat", any_of=("dog",), k=5)), tmp_path)
    assert "cat or dog" in html
    assert html.count('class="by"') == 5


@pytest.mark.parametrize("name", ["<script>alert(1)</script>.jpg", 'a"b&c.jpg', "snow\udce9.jpg"])
def test_hostile_names_are_escaped_and_missing_images_reported(name: str, tmp_path: Path) -> None:
    results = [SearchResult(1, name, str(tmp_path / name), 0.5, (0.1, 0.1, 0.5, 0.5), 0)]
    html = write(SearchAnswer(SearchRequest(text="<b>bold</b>"), results), tmp_path)
    assert "not readable" in html
    assert "<script" not in html
    assert "<b>" not in html


def test_an_empty_list_has_no_tiles(tmp_path: Path) -> None:
    html = write(SearchAnswer(SearchRequest(text="cat"), []), tmp_path)
    assert "<li>" not in html
    assert "cat" in html
