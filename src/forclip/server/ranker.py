"""Texts and pictures to ranked lists with what they are worth: each encoded once, each list searched once a version."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from forclip.combined_queries import CombinedQuery, search_combined
from forclip.confidence import Judgement
from forclip.feedback import refined_query
from forclip.index.late_interaction import particular
from forclip.index.ranking import Ranking
from forclip.index.view import View
from forclip.looking import Look, look_at
from forclip.server.gallery import gone
from forclip.server.recent import Recent
from forclip.server.refusals import Refused, told
from forclip.server.text_batches import TextBatches
from forclip.types import Floats, SearchResult

if TYPE_CHECKING:
    from forclip.heatmap import Heatmap
    from forclip.search import Searcher  # handed in: the service itself knows no model

V = TypeVar("V")

_JUDGED, _JUDGED_AT_MOST = 240, 1200  # of the best images; more of them where the cut-off may lie further down
_STEP = 60  # images on a page
_TEXTS, _RANKINGS, _LISTS, _REFINED = 10_000, 1_000, 64, 64


@dataclass(frozen=True)
class Asked:
    """Where and how to look. depth: how many of the best are needed at least."""

    where: str | None
    exact: bool
    depth: int


class Ranker:
    """A searcher for many threads at once: the model runs the texts that wait together, or one picture."""

    def __init__(self, searcher: "Searcher") -> None:
        self.searcher = searcher
        self.calibration = searcher.model.calibration
        self._model = Lock()
        self._encoding = TextBatches(searcher.encode_texts, self._model)
        self._texts: Recent[Floats] = Recent(_TEXTS)
        self._rankings: Recent[Ranking] = Recent(_RANKINGS)
        self._lists: Recent[list[SearchResult]] = Recent(_LISTS)
        self._refined: Recent[Floats] = Recent(_REFINED)
        self._judged: Recent[tuple[Ranking, Judgement | None]] = Recent(_RANKINGS)

    def text_vector(self, text: str) -> Floats:
        """Unit [dim]."""
        return self._texts.get(text, lambda: self._encoding.vector(text))

    async def learn(self, texts: Sequence[str]) -> None:
        """Encodes those that are not known, with what others ask for meanwhile: text_vector then has them at hand."""
        for text in texts:
            if text not in self._texts:
                self._texts.put(text, await self._encoding.awaited(text))

    def picture_vectors(self, picture: Image.Image) -> Floats:
        """Unit [N, dim]."""
        with self._model:
            return self.searcher.encode_picture(picture)

    def heatmap(self, picture: Image.Image, vector: Floats) -> "Heatmap":
        """As Searcher.heatmap."""
        with self._model:
            return self.searcher.heatmap(picture, vector)

    def looked(self, number: int, query: CombinedQuery, where: str | None) -> Look:
        """An image as a search for these texts sees it. Raises Refused: 404 where it is gone, 400 for a filter that is
        wrong."""
        with self._telling(where):
            look = look_at(self.searcher.index, number, query, where, self.calibration)
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
        index, vector = self.searcher.index, particular(query) if query.ndim > 1 else query
        with self._telling(where):
            if where is not None:
                index.store.numbers(where)
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

    def combined(self, query: CombinedQuery, asked: Asked) -> Sequence[SearchResult]:
        """As `ranked`, for several texts."""
        key = tuple(part.tobytes() for part in (query.any_of, query.all_of, query.none_of))
        search = partial(search_combined, self.searcher.index, query)
        return self._kept(self._lists, key, asked, lambda a, _: [*search(a.depth, a.where, a.exact, self.calibration)])

    def judged(self, vector: Floats, asked: Asked) -> tuple[Sequence[SearchResult], Judgement | None]:
        """A text's list as `ranked` gives it, and what is believed of it: None without a calibration, or in too small
        a gallery."""
        if self.calibration is None:
            return self.ranked(vector, asked), None
        deeper = replace(asked, depth=max(asked.depth, _JUDGED))
        return self._kept(self._judged, vector.tobytes(), deeper, partial(self._judge, vector))

    def _judge(self, vector: Floats, asked: Asked, view: View) -> tuple[Ranking, Judgement | None]:
        best, judged = self._ranking(vector, asked, view), self.searcher.judging(vector, asked.where, view=view)
        judgement = judged(best.scores)
        if judgement is not None and judgement.cutoff == len(best) < _JUDGED_AT_MOST:
            best = self._ranking(vector, replace(asked, depth=_JUDGED_AT_MOST), view)
            judgement = judged(best.scores)
        return best, judgement

    def _ranking(self, vector: Floats, asked: Asked, view: View) -> Ranking:
        return self.searcher.index.ranking(vector, asked.depth, asked.where, asked.exact, view)

    def _kept(self, values: Recent[V], query: Hashable, asked: Asked, find: Callable[[Asked, View], V]) -> V:
        """Pages of one list are parts of it: what is searched is rounded up."""
        rounded = replace(asked, depth=-(-asked.depth // _STEP) * _STEP)
        view = self.searcher.index.view()
        with self._telling(asked.where):
            if rounded.depth > _JUDGED_AT_MOST:  # too long to keep many of
                return find(rounded, view)
            return values.get((query, rounded), lambda: find(rounded, view), of=view)

    @contextmanager
    def _telling(self, where: str | None) -> Iterator[None]:
        """What a filter is refused for, to the one who wrote it."""
        try:
            yield
        except ValueError as error:
            if where is None:
                raise
            raise Refused(400, told(error, self.searcher.index.store.folder)) from None
