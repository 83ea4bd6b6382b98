"""Lists that are searched together are those that are searched alone, and are of the store as it is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from forclip.calibration.model import Calibration
from forclip.search.searcher import Searcher
from forclip.server.judged_lists import Asked, JudgedLists
from forclip.types import Floats
from tests.server.conftest import PICTURES

TEXTS = ["snail", "anchor", "drum", "two dogs"]


def lists_of(searcher: Searcher) -> JudgedLists:
    def vectors(texts: Sequence[str]) -> list[Floats]:
        return [searcher.encode_text(text) for text in texts]

    return JudgedLists(searcher, vectors)


def told(found: Any) -> Any:
    return found.best.scores.tolist(), [r.image_id for r in found.best], found.confidence


@pytest.mark.parametrize("depth", [1, 60, 61, 5000])
def test_what_is_learnt_together_is_what_is_found_alone(served: Searcher, depth: int) -> None:
    together, asked = lists_of(served), Asked(None, False, depth)
    together.learn((text, asked) for text in TEXTS)
    for text in TEXTS:
        mine = told(together.of(text, asked))
        assert mine == told(lists_of(served).of(text, asked))
        assert mine[0] == [r.score for r in served.search(text, len(mine[0]))]


def test_lists_are_searched_in_one_go_and_once(served: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[tuple[int, int]] = []
    rankings = served.index.rankings

    def noted(queries: Floats, k: int, *others: Any) -> Any:
        asked_for.append((len(queries), k))
        return rankings(queries, k, *others)

    monkeypatch.setattr(served.index, "rankings", noted)
    lists = lists_of(served)
    lists.learn([(text, Asked(None, False, depth)) for text in TEXTS for depth in (20, 60)])
    assert asked_for == [(len(TEXTS), 60)], "pages of one list are parts of it"
    lists.learn([("snail", Asked(None, False, 60)), ("kite", Asked(None, False, 61))])
    assert asked_for[1:] == [(1, 120)]
    lists.of("snail", Asked(None, False, 7))
    assert len(asked_for) == 2


def test_lists_are_of_the_store_as_it_is(served: Searcher) -> None:
    lists, asked = lists_of(served), Asked(None, False, 60)
    lists.learn([("snail", asked)])
    first = lists.of("snail", asked).best[0]
    served.index.delete_ids([first.image_id])
    assert first.image_id not in [r.image_id for r in lists.of("snail", asked).best]


@pytest.mark.parametrize(("intercept", "found"), [(50.0, PICTURES), (-50.0, 10)])
def test_a_list_goes_on_while_its_cut_off_may_lie_further_down(
    served: Searcher, monkeypatch: pytest.MonkeyPatch, intercept: float, found: int
) -> None:
    """Where every image is believed to be right the whole store is found, else no more than is looked at first."""
    monkeypatch.setattr("forclip.server.judged_lists._JUDGED", 5)
    monkeypatch.setattr("forclip.server.judged_lists._STEP", 10)
    sure = Calibration(intercept, 0.0, 0.0, 0.0, 0.95, 0.0, 0.02, 10, PICTURES, {})
    searcher = Searcher(served.index, replace(served.model, calibration=sure))
    for asked in (Asked(None, False, 3), Asked("width > 0", False, 3)):
        judged = lists_of(searcher).of("snail", asked)
        assert len(judged.best) == found
        assert judged.confidence is not None
        assert judged.confidence.cutoff == (PICTURES if intercept > 0 else 0)
