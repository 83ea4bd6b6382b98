"""A search as a user asks for it: what is refused, what is cut, what is said of how sure it is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from forclip.calibration.model import Calibration
from forclip.search.combined import CombinedQuery, CombinedResult, search_combined
from forclip.search.output import answer_json, answer_table, how_sure
from forclip.search.request import Cutoff, SearchRequest, answer, parse_cutoff
from forclip.search.searcher import Searcher

CALIBRATION = Calibration(-3.0, 0.5, 1.5, 0.0, 0.9, 0.2, 0.05, 10, 60, {})


@pytest.fixture(scope="module")
def sure(searcher: Searcher) -> Searcher:
    return Searcher(searcher.index, replace(searcher.model, calibration=CALIBRATION))


@pytest.mark.parametrize(
    ("said", "cutoff"),
    [
        ("auto", Cutoff("precision", 0.5)),
        ("80%", Cutoff("precision", 0.8)),
        ("0.31", Cutoff("score", 0.31)),
        (".3", Cutoff("score", 0.3)),
        ("-0.1", Cutoff("score", -0.1)),
    ],
)
def test_cutoffs(said: str, cutoff: Cutoff) -> None:
    assert parse_cutoff(said) == cutoff


@pytest.mark.parametrize("said", ["", "much", "31", "120%", "-5%", "nan", "0.3.1"])
def test_no_cutoffs(said: str) -> None:
    with pytest.raises(ValueError, match="auto, a cosine") as told:
        parse_cutoff(said)
    assert repr(said) in str(told.value)


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="not both: 'cat'"):
        SearchRequest("cat", Path("a.jpg"))
    with pytest.raises(ValueError, match="nothing is wanted"):
        SearchRequest(none_of=("cat",))
    for refused in ({"cutoff": Cutoff("score", 0.3)}, {"min_score": 0.2}):
        with pytest.raises(ValueError, match="of one text"):
            SearchRequest("cat", any_of=("dog",), **refused)
    with pytest.raises(ValueError, match=r"of a text, not of a picture like a\.jpg"):
        SearchRequest(like=Path("a.jpg"), cutoff=Cutoff("precision", 0.5))


def test_what_is_looked_for_in_words() -> None:
    request = SearchRequest("cat", any_of=("dog",), all_of=("ball", "tree"), none_of=("car",))
    assert request.label == "cat or dog and ball and tree not car"
    assert SearchRequest(all_of=("ball",)).label == "ball"
    assert SearchRequest(like=Path("x/cat.jpg")).label == "like cat.jpg"


def test_one_text(searcher: Searcher) -> None:
    found = answer(searcher, SearchRequest("cat", k=7))
    assert found.results == searcher.search("cat", 7)
    assert found.probabilities == []
    assert answer_json(found) == [vars(r) for r in found.results]


def test_a_picture_finds_itself(searcher: Searcher) -> None:
    path = Path(searcher.search("cat", 30)[-1].uri)
    assert answer(searcher, SearchRequest(like=path, k=3)).results[0].uri == str(path)
    with pytest.raises(ValueError, match="nothing"):
        answer(searcher, SearchRequest(like=Path("nothing.jpg")))


def test_several_texts(searcher: Searcher) -> None:
    cat, dog, car = (searcher.encode_text(text)[None] for text in ("cat", "dog", "car"))
    request = SearchRequest("cat", any_of=("dog",), none_of=("car",), k=9)
    found = answer(searcher, request)
    nothing = np.zeros((0, searcher.model.dim), np.float32)
    expected = search_combined(searcher.index, CombinedQuery(np.concatenate([cat, dog]), nothing, car), 9)
    assert found.results == expected
    told = answer_json(found)
    assert isinstance(told, list)
    first = found.results[0]
    assert isinstance(first, CombinedResult)
    assert told[0]["decided_by"] == ("cat", "dog")[first.decided_by]
    assert json.loads(json.dumps(told))[0]["normalised_score"] == first.normalised_score
    assert [c.header for c in answer_table(found).columns][:4] == ["rank", "normalised_score", "score", "decided by"]


def test_how_sure(sure: Searcher) -> None:
    never_absent = replace(sure.model, calibration=replace(CALIBRATION, absent_below=0.0))
    found = answer(Searcher(sure.index, never_absent), SearchRequest("cat", k=20, cutoff=parse_cutoff("20%")))
    judged = found.confidence
    assert judged is not None
    assert len(found.results) == judged.cutoff == len(found.probabilities)
    assert found.probabilities == judged.probabilities[: judged.cutoff].tolist()
    told = answer_json(found)
    assert isinstance(told, dict)
    assert (told["images"], told["wanted_precision"], told["recommended_cutoff"]) == (60, 0.2, judged.cutoff)
    assert [r["probability"] for r in told["results"]] == found.probabilities
    assert 0 < judged.cutoff < 20
    assert f"after rank {judged.cutoff} (20% expected precision)" in how_sure(found)
    assert f"about {judged.expected_images:.0f} of 60 images" in how_sure(found)


def test_a_cutoff_by_score_is_judged_as_well(sure: Searcher) -> None:
    everything = sure.search("cat", 20)
    found = answer(sure, SearchRequest("cat", k=20, cutoff=Cutoff("score", everything[4].score)))
    assert found.results == everything[:5]
    assert len(found.probabilities) == 5
    assert [c.header for c in answer_table(found).columns][:3] == ["rank", "score", "probability"]


def test_probably_none(sure: Searcher) -> None:
    unlikely = replace(CALIBRATION, ceiling=0.1)
    doubting = Searcher(sure.index, replace(sure.model, calibration=unlikely))
    found = answer(doubting, SearchRequest("cat", cutoff=parse_cutoff("auto")))
    assert found.results == []
    assert how_sure(found).startswith("Probably none here.")
    assert "before the first" in how_sure(found)
    told = answer_json(found)
    assert isinstance(told, dict)
    assert told["nothing_here"] is True


def test_the_filter_is_the_gallery(sure: Searcher) -> None:
    found = answer(sure, SearchRequest("cat", where="half = 1", cutoff=parse_cutoff("auto")))
    assert found.gallery == 30
    assert found.confidence is None
    assert how_sure(found).startswith("Nothing is said of how sure this is: 30 images are too few")
    assert len(found.results) == 30


def test_without_a_calibration(searcher: Searcher) -> None:
    with pytest.raises(ValueError, match="forclip-mini: this model has no calibration"):
        answer(searcher, SearchRequest("cat", cutoff=parse_cutoff("auto")))
    found = answer(searcher, SearchRequest("cat", cutoff=Cutoff("score", -1)))
    assert "no calibration" in how_sure(found)
    Console(quiet=True).print(answer_table(found))
