"""A searcher for many threads: texts are encoded in batches, and lists are kept while the store does not change."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from forclip.embedding.regions import Heatmap
from forclip.index.protocol import SearchIndex
from forclip.location import Location
from forclip.search.combined import CombinedQuery, CombinedResult
from forclip.search.labels import Relevance, StoreLabels
from forclip.search.searcher import AnySearcher, ListOptions, RankedText, Searcher
from forclip.server.batches import Batches
from forclip.server.cache import StoreCache
from forclip.types import Floats, SearchResult

Value = TypeVar("Value")

KEPT_DEPTH = 1200  # longer lists are not kept
_PAGE = 60  # images on a page; list depths are rounded up to pages, so that all pages share one list
_CONFIDENCE_DEPTH = 240  # images at least from which a list's confidence is estimated
_KEPT_TEXTS, _KEPT_LISTS, _KEPT_OTHERS = 10_000, 1_000, 128


class CachedSearcher(Searcher[SearchIndex]):
    """Searcher that caches and batches. Returns what a Searcher returns; lists may be deeper than requested."""

    def __init__(self, searcher: AnySearcher) -> None:
        super().__init__(searcher.index, searcher.model)
        self._searcher = searcher
        self._model_lock = Lock()
        self._encoder: Batches[str, Floats] = Batches(self._encode, "texts")
        self._texts: StoreCache[str, Floats] = StoreCache(_KEPT_TEXTS)
        self._text_lists: StoreCache[tuple[str, ListOptions], RankedText] = StoreCache(
            _KEPT_LISTS * KEPT_DEPTH, lambda ranked: 1 + len(ranked.results)
        )
        self._others: StoreCache[tuple[object, ...], Any] = StoreCache(_KEPT_OTHERS)  # all but single texts' lists

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """As Searcher.encode_texts; texts of concurrent requests are encoded together, each once."""
        return np.stack(self._texts.get_many(texts, self._encoder.get_many))

    def _encode(self, texts: Sequence[str]) -> list[Floats]:
        with self._model_lock:
            return list(self._searcher.encode_texts(texts))

    def encode_image(self, image: Image.Image | Location | str) -> Floats:
        with self._model_lock:
            return self._searcher.encode_image(image)

    def heatmap(self, picture: Image.Image | Location | str, vector: Floats) -> Heatmap:
        with self._model_lock:
            return self._searcher.heatmap(picture, vector)

    def warm_up(self) -> None:
        self._searcher.warm_up()

    def rank_texts(self, texts: Sequence[str], options: ListOptions, view: Any = None) -> list[RankedText]:
        """As Searcher.rank_texts; lists extend beyond the recommended cut-off, or to KEPT_DEPTH images."""
        options, view = _in_pages(options), self.index.view() if view is None else view
        if options.precision is not None and self.model.calibration is not None:
            options = replace(options, depth=max(options.depth, _CONFIDENCE_DEPTH))
        rank, deepest = super().rank_texts, replace(options, depth=KEPT_DEPTH)

        def compute(keys: list[tuple[str, ListOptions]]) -> list[RankedText]:
            missing = [text for text, _ in keys]
            lists = rank(missing, options, view)
            cutoffs = [ranked.confidence and ranked.confidence.cutoff for ranked in lists]
            # The recommended cut-off of these may lie beyond the list.
            longer = [n for n, cutoff in enumerate(cutoffs) if cutoff == len(lists[n].results) < KEPT_DEPTH]
            if longer:
                for n, ranked in zip(longer, rank([missing[n] for n in longer], deepest, view), strict=True):
                    lists[n] = ranked
            return lists

        return self._text_lists.get_many([(text, options) for text in texts], compute, view)

    def rank(self, query: Floats, options: ListOptions) -> Sequence[SearchResult]:
        options, key = _in_pages(options), ("rank", query.tobytes(), query.ndim)
        return self._keep(key, lambda: Searcher.rank(self, query, options), options)

    def rank_combined(self, query: CombinedQuery, options: ListOptions) -> Sequence[CombinedResult]:
        options, texts = _in_pages(options), (query.any_of, query.all_of, query.none_of)
        key = ("combined", *(vectors.tobytes() for vectors in texts))
        return self._keep(key, lambda: Searcher.rank_combined(self, query, options), options)

    def refine(self, query: Floats, right: Sequence[str], wrong: Sequence[str], where: str | None) -> Floats:
        key = ("refine", query.tobytes(), tuple(right), tuple(wrong), where)
        return self._keep(key, lambda: Searcher.refine(self, query, right, wrong, where))

    def evaluate_list(self, labels: StoreLabels, column: int, vector: Floats, options: ListOptions) -> Relevance:
        key = ("evaluate", vector.tobytes(), column, options.where, options.exact)
        return self._keep(key, lambda: Searcher.evaluate_list(self, labels, column, vector, options))

    def _keep(self, key: tuple[object, ...], compute: Callable[[], Value], options: ListOptions | None = None) -> Value:
        """Compute a value unless it is kept. options: those of a ranked list."""
        if options is not None and options.depth > KEPT_DEPTH:
            return compute()
        value: Value = self._others.get((*key, options), compute, self.index.view())
        return value


def _in_pages(options: ListOptions) -> ListOptions:
    return replace(options, depth=-(-options.depth // _PAGE) * _PAGE)
