"""The HTML report of a search: one file that shows every result."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from forclip.search.labels import Relevance
from forclip.search.output import describe_answer, describe_confidence, describe_empty
from forclip.search.report import write_search_report
from forclip.search.request import Cutoff, LabelledList, SearchAnswer, SearchRequest, run_search
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


def test_labels_are_shown_at_each_image_and_summed_up(searcher: Searcher, tmp_path: Path) -> None:
    answer = run_search(searcher, SearchRequest(text="cat", k=3))
    relevance = Relevance(images=7, precision_at_10=20.0, average_precision=12.5, missed=())
    labelled = LabelledList("cat", "base", relevance, (True, False, None))
    html = write(replace(answer, labels=labelled), tmp_path)
    shown = re.findall(r'<span class="(?:right|wrong|by)">([^<]*)</span>', html)
    assert shown == ["right", "wrong", "?"]
    assert "AP@50 12.5 %" in html


def test_an_empty_list_says_why(searcher: Searcher) -> None:
    """And what to change: the filter, the lowest score or the cut-off."""
    calibrated = Searcher(searcher.index, replace(searcher.model, calibration=CALIBRATION))
    best = searcher.search("cat", 1)[0]
    high = run_search(searcher, SearchRequest(text="cat", min_score=0.999))
    assert "0.999" in describe_empty(high)
    assert f"{best.score:.3f}" in describe_empty(high)
    assert "'half = 7'" in describe_empty(run_search(searcher, SearchRequest(text="cat", where="half = 7")))
    cut = run_search(calibrated, SearchRequest(text="cat", cutoff=Cutoff("precision", 1.0)))
    assert not cut.results
    assert cut.confidence is not None
    assert f"{100 * cut.confidence.probabilities[0]:.0f} %" in describe_empty(cut)
    assert describe_answer(cut) == [describe_empty(cut)]


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
