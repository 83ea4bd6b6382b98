"""The cached searcher returns the plain searcher's results, computes each once, and follows changes of the store."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any

import numpy as np
import pytest

from forclip.calibration.model import Calibration
from forclip.search.searcher import ListOptions, RankedText, Searcher
from forclip.server import cached_searcher
from forclip.server.cache import StoreCache
from forclip.server.cached_searcher import CachedSearcher
from forclip.types import Floats
from tests.server.conftest import PICTURES

TEXTS = ["snail", "anchor", "drum", "two dogs"]


def columns(ranked: RankedText) -> tuple[list[float], list[str], Any]:
    return ranked.results.scores.tolist(), [r.image_id for r in ranked.results], ranked.confidence


@pytest.mark.parametrize("depth", [1, 60, 61, 5000])
def test_texts_ranked_together_equal_texts_ranked_alone(served: Searcher, depth: int) -> None:
    options, searcher = ListOptions(depth=depth), CachedSearcher(served)
    for text in TEXTS:
        searcher.encode_text(text)  # alone: vectors of texts encoded together differ by rounding
    together = searcher.rank_texts(TEXTS, options)
    for text, ranked in zip(TEXTS, together, strict=True):
        scores = columns(ranked)[0]
        assert columns(ranked) == columns(CachedSearcher(served).rank_texts([text], options)[0])
        assert scores == [r.score for r in served.search(text, len(scores))]
        assert len(scores) >= min(depth, PICTURES)


def test_missing_lists_are_ranked_once_in_one_pass(served: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    rankings = served.index.rankings

    def record(queries: Floats, k: int, *others: Any) -> Any:
        calls.append((len(queries), k))
        return rankings(queries, k, *others)

    monkeypatch.setattr(served.index, "rankings", record)
    searcher = CachedSearcher(served)
    searcher.rank_texts(TEXTS, ListOptions(depth=20))
    searcher.rank_texts(TEXTS, ListOptions(depth=60))
    assert calls == [(len(TEXTS), 60)], "all pages share one list"
    searcher.rank_texts(["snail"], ListOptions(depth=60))
    searcher.rank_texts(["kite", "snail"], ListOptions(depth=61))
    assert calls[1:] == [(2, 120)]
    searcher.rank_texts(["kite", "drum"], ListOptions(depth=7))
    assert calls[2:] == [(1, 60)], "only the list that is missing"


def test_a_deleted_image_leaves_the_lists_at_once(served: Searcher) -> None:
    searcher, options = CachedSearcher(served), ListOptions(depth=60)
    first = searcher.rank_texts(["snail"], options)[0].results[0]
    vector = searcher.encode_text("snail")
    assert searcher.rank(vector, options)[0].image_id == first.image_id
    served.index.delete_ids([first.image_id])
    for results in (searcher.rank_texts(["snail"], options)[0].results, searcher.rank(vector, options)):
        assert first.image_id not in [r.image_id for r in results]


@pytest.mark.parametrize(("intercept", "depth"), [(50.0, PICTURES), (-50.0, 10)])
def test_a_list_continues_while_its_cutoff_may_lie_further_down(
    served: Searcher, monkeypatch: pytest.MonkeyPatch, intercept: float, depth: int
) -> None:
    """The list holds every image if all are probably right, and only the first page if none is."""
    monkeypatch.setattr(cached_searcher, "_CONFIDENCE_DEPTH", 5)
    monkeypatch.setattr(cached_searcher, "_PAGE", 10)
    calibration = Calibration(intercept, 0.0, 0.0, 0.0, 0.95, 0.0, 0.02, 10, PICTURES, {})
    searcher = Searcher(served.index, replace(served.model, calibration=calibration))
    for where in (None, "width > 0"):
        options = ListOptions(where=where, depth=3, precision=0.5)
        (ranked,) = CachedSearcher(searcher).rank_texts(["snail"], options)
        assert len(ranked.results) == depth
        assert ranked.confidence is not None
        assert ranked.confidence.cutoff == (PICTURES if intercept > 0 else 0)


def test_the_model_is_locked_while_it_encodes(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    cached, locked = CachedSearcher(searcher), []
    encode = searcher.encode_texts

    def record(texts: Sequence[str]) -> Floats:
        locked.append(cached._model_lock.locked())
        return encode(texts)

    monkeypatch.setattr(searcher, "encode_texts", record)
    cached.encode_text("snail")
    cached.rank_texts(["anchor"], ListOptions())
    assert locked == [True, True]
    assert not cached._model_lock.locked()


def test_texts_encoded_together_equal_texts_encoded_alone(searcher: Searcher) -> None:
    texts = ["snail", "a small red umbrella beside a snail", " drum "]
    for encoder in (searcher, CachedSearcher(searcher)):
        together = encoder.encode_texts(texts)
        np.testing.assert_allclose(together, [searcher.encode_text(text) for text in texts], atol=1e-5)
        with pytest.raises(ValueError, match="empty"):
            encoder.encode_texts(["snail", " "])


def value(cache: StoreCache[str, int], key: str, computed: int, version: object = None) -> int:
    return cache.get(key, lambda: computed, version)


def test_the_cache_keeps_the_most_recently_used_values() -> None:
    cache: StoreCache[str, int] = StoreCache(2)
    value(cache, "a", 1)
    value(cache, "b", 2)
    value(cache, "a", 0)
    value(cache, "c", 3)
    assert [value(cache, key, -1) for key in "ac"] == [1, 3]
    assert value(cache, "b", -1) == -1


def test_the_cache_drops_values_of_another_version() -> None:
    cache: StoreCache[str, int] = StoreCache(9)
    first, second = [0], [0]  # equal, but two objects
    assert value(cache, "a", 1, first) == 1
    assert value(cache, "a", 2, first) == 1
    assert value(cache, "a", 3, second) == 3


def test_a_value_of_an_outdated_version_is_returned_but_not_kept() -> None:
    cache: StoreCache[str, int] = StoreCache(9)
    first, second = object(), object()

    def slow() -> int:
        value(cache, "b", 2, second)
        return 1

    assert cache.get("a", slow, first) == 1
    assert value(cache, "a", 5, second) == 5
    assert value(cache, "b", 6, second) == 2


def test_the_cache_computes_missing_values_together_and_bounds_their_size() -> None:
    cache: StoreCache[int, bytes] = StoreCache(10, len)
    calls: list[list[int]] = []

    def compute(keys: list[int]) -> list[bytes]:
        calls.append(keys)
        return [b"x" * key for key in keys]

    assert cache.get_many([2, 3, 2], compute) == [b"xx", b"xxx", b"xx"]
    assert cache.get_many([3, 11], compute) == [b"xxx", b"x" * 11]
    assert cache.get_many([11], compute) == [b"x" * 11], "too large to be kept"
    assert calls == [[2, 3], [11], [11]]


def test_the_cache_is_safe_between_threads() -> None:
    cache: StoreCache[int, int] = StoreCache(8)
    versions, wrong = [object(), object()], []

    def compute(expected: int, keys: list[int]) -> list[int]:
        return [expected]

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for key, version in random.integers(0, (20, 2), (2000, 2)).tolist():
            expected = 2 * key + version
            if cache.get_many([key], partial(compute, expected), versions[version]) != [expected]:
                wrong.append((key, version))

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
