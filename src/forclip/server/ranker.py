"""Texts and pictures to ranked lists with what they are worth: each encoded once, each list searched once a version."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from forclip.index.in_memory import most_distinct_vector
from forclip.index.ranking import Ranking
from forclip.index.view import View
from forclip.search.combined import CombinedQuery, search_combined
from forclip.search.feedback import refined_query
from forclip.search.look import Look, look_at
from forclip.server.batches import Batches
from forclip.server.errors import Refused, told
from forclip.server.gallery import gone
from forclip.server.judged_lists import KEPT_DEPTH, Asked, JudgedList, JudgedLists
from forclip.server.recent import Recent
from forclip.types import Floats, SearchResult

if TYPE_CHECKING:
    from forclip.embedding.heatmap import Heatmap
    from forclip.search.searcher import Searcher  # handed in: the service itself knows no model

V = TypeVar("V")

_TEXTS, _RANKINGS, _LISTS, _REFINED = 10_000, 64, 64, 64


class Ranker:
    """A searcher for many threads at once: the model runs the texts that wait together, or one picture."""

    def __init__(self, searcher: "Searcher") -> None:
        self.searcher = searcher
        self.calibration = searcher.model.calibration
        self._model = Lock()
        self._encoding: Batches[str, Floats] = Batches(self._encode, "texts")
        self._texts: Recent[Floats] = Recent(_TEXTS)
        self._rankings: Recent[Ranking] = Recent(_RANKINGS)
        self._lists: Recent[list[SearchResult]] = Recent(_LISTS)
        self._refined: Recent[Floats] = Recent(_REFINED)
        self._judged = JudgedLists(searcher, self._vectors)

    def text_vector(self, text: str) -> Floats:
        """Unit [dim]."""
        return self._texts.get(text, lambda: self._encoding.get(text))

    async def learn_texts(self, texts: Sequence[str]) -> None:
        """Has the vectors of texts at hand, encoded with what others ask for meanwhile."""
        for text in texts:
            if not self._texts.has(text):
                self._texts.put(text, await self._encoding.awaited(text))

    def learn_lists(self, texts: Iterable[tuple[str, Asked]]) -> None:
        """Has texts' judged lists at hand, searched together. Without filters."""
        self._judged.learn(texts)

    def _vectors(self, texts: Sequence[str]) -> list[Floats]:
        """Those that are not known encoded together."""
        unknown = [text for text in texts if not self._texts.has(text)]
        for text, vector in zip(unknown, self._encode(unknown) if unknown else (), strict=True):
            self._texts.put(text, vector)
        return [self.text_vector(text) for text in texts]

    def _encode(self, texts: Sequence[str]) -> list[Floats]:
        with self._model:
            return list(self.searcher.encode_texts(texts))

    def picture_vectors(self, picture: Image.Image) -> Floats:
        """Unit [N, dim]."""
        with self._model:
            return self.searcher.encode_image(picture)

    def heatmap(self, picture: Image.Image, vector: Floats) -> "Heatmap":
        """As Searcher.heatmap."""
        with self._model:
            return self.searcher.heatmap(picture, vector)

    def looked(self, key: int, query: CombinedQuery, where: str | None) -> Look:
        """An image as a search for these texts sees it. Raises Refused: 404 where it is gone, 400 for a filter that is
        wrong."""
        with self._telling(where):
            look = look_at(self.searcher.index, key, query, where, self.calibration)
        if look is None:
            raise gone()
        return look

    def query(self, any_of: Sequence[str], all_of: Sequence[str], none_of: Sequence[str] = ()) -> CombinedQuery:
        """Texts as vectors. One of the first two must hold a text."""
        none = np.zeros((0, self.searcher.model.dim), np.float32)
        parts = (any_of, all_of, none_of)
        return CombinedQuery(*(np.stack([self.text_vector(t) for t in texts]) if texts else none for texts in parts))

    def refined(self, query: Floats, right: Sequence[str], wrong: Sequence[str], where: str | None) -> Floats:
        """Unit [dim]: what is asked for, moved by images judged to be right or wrong, by id. query: as `ranked` takes
        it. Raises Refused: 400 for a filter that is wrong, 404 for an image that is gone."""
        index, vector = self.searcher.index, most_distinct_vector(query) if query.ndim > 1 else query
        with self._telling(where):
            if where is not None:
                index.store.keys(where)
        key = (vector.tobytes(), *right, "", *wrong, where)
        try:
            return self._refined.get(key, lambda: refined_query(index, vector, right, wrong, where), of=index.view())
        except ValueError:
            raise Refused(404, "there is no image with one of these keys") from None

    def ranked(self, query: Floats, asked: Asked) -> Sequence[SearchResult]:
        """At least the best `depth` images where there are so many. query: unit, a text's [dim], or all vectors of a
        picture, [N, dim]. Raises Refused, 400, for a filter that is wrong."""
        if query.ndim == 1:
            return self._kept(self._rankings, query.tobytes(), asked, partial(self._ranking, query))
        search = partial(self.searcher.index.search_picture, query)
        key = (query.shape, query.tobytes())
        return self._kept(self._lists, key, asked, lambda a, _: search(a.depth, a.where, a.exact))

    def _ranking(self, vector: Floats, asked: Asked, view: View) -> Ranking:
        return self.searcher.index.rankings(vector[None], asked.depth, asked.where, asked.exact, view)[0]

    def combined(self, query: CombinedQuery, asked: Asked) -> Sequence[SearchResult]:
        """As `ranked`, for several texts."""
        key = tuple(part.tobytes() for part in (query.any_of, query.all_of, query.none_of))
        search = partial(search_combined, self.searcher.index, query)
        return self._kept(self._lists, key, asked, lambda a, _: [*search(a.depth, a.where, a.exact, self.calibration)])

    def judged(self, text: str, asked: Asked) -> JudgedList:
        """A text's list, at least as deep as `ranked` gives it. Raises Refused as that does."""
        with self._telling(asked.where):
            return self._judged.of(text, asked)

    def _kept(self, values: Recent[V], query: Hashable, asked: Asked, find: Callable[[Asked, View], V]) -> V:
        asked, view = asked.in_pages, self.searcher.index.view()
        with self._telling(asked.where):
            if asked.depth > KEPT_DEPTH:
                return find(asked, view)
            return values.get((query, asked), lambda: find(asked, view), of=view)

    @contextmanager
    def _telling(self, where: str | None) -> Iterator[None]:
        """What a filter is refused for, to the one who wrote it."""
        try:
            yield
        except ValueError as error:
            if where is None:
                raise
            raise Refused(400, told(error, self.searcher.index.store.folder)) from None
