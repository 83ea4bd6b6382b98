"""Texts and pictures to ranked lists with what they are worth: each encoded once, each list searched once a version."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from forclip.combined_queries import CombinedQuery, search_combined
from forclip.confidence import Judgement
from forclip.feedback import refined_query
from forclip.index.late_interaction import particular
from forclip.looking import Look, look_at
from forclip.server.gallery import gone
from forclip.server.recent import Recent
from forclip.server.refusals import Refused, told
from forclip.server.text_batches import TextBatches
from forclip.types import Floats, SearchResult

if TYPE_CHECKING:
    from forclip.heatmap import Heatmap
    from forclip.search import Searcher  # handed in: the service itself knows no model

_JUDGED, _JUDGED_AT_MOST = 240, 1200  # of the best images; more of them where the cut-off may lie further down
_STEP = 60  # images on a page
_TEXTS, _LISTS, _JUDGEMENTS, _REFINED = 10_000, 64, 1_000, 64


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
        self._lists: Recent[list[SearchResult]] = Recent(_LISTS)
        self._refined: Recent[Floats] = Recent(_REFINED)
        self._judgements: Recent[Judgement | None] = Recent(_JUDGEMENTS)

    def text_vector(self, text: str) -> Floats:
        """Unit [dim]."""
        return self._texts.get(text, lambda: self._encoding.vector(text))

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
        key = (vector.tobytes(), *right, "", *wrong, where, index.store.version)
        try:
            return self._refined.get(key, lambda: refined_query(index, vector, right, wrong, where))
        except ValueError:
            raise Refused(404, "there is no image with one of these keys") from None

    def ranked(self, query: Floats, asked: Asked) -> list[SearchResult]:
        """At least the best `depth` images where there are so many. query: unit, a text's [dim], or all vectors of a
        picture, [N, dim]. Raises Refused, 400, for a filter that is wrong."""
        depth = _rounded(asked.depth)
        return self._listed((query.shape, query.tobytes()), asked, depth, lambda: self._search(query, asked, depth))

    def combined(self, query: CombinedQuery, asked: Asked) -> list[SearchResult]:
        """As `ranked`, for several texts."""
        depth = _rounded(asked.depth)
        index, where, exact = self.searcher.index, asked.where, asked.exact
        key = tuple(part.tobytes() for part in (query.any_of, query.all_of, query.none_of))
        return self._listed(
            key, asked, depth, lambda: [*search_combined(index, query, depth, where, exact, self.calibration)]
        )

    def judged(self, vector: Floats, asked: Asked) -> tuple[list[SearchResult], Judgement | None]:
        """A text's list as `ranked` gives it, and what is believed of it: None without a calibration, or in too small
        a gallery."""
        if self.calibration is None:
            return self.ranked(vector, asked), None
        best = self.ranked(vector, replace(asked, depth=max(asked.depth, _JUDGED)))
        judgement = self._judged(vector, best, asked.where)
        if judgement is not None and judgement.cutoff == len(best) < _JUDGED_AT_MOST:
            best = self.ranked(vector, replace(asked, depth=_JUDGED_AT_MOST))
            judgement = self._judged(vector, best, asked.where)
        return best, judgement

    def _judged(self, vector: Floats, best: Sequence[SearchResult], where: str | None) -> Judgement | None:
        key = (vector.tobytes(), where, len(best), self.searcher.index.store.version)
        return self._judgements.get(key, lambda: self.searcher.judge(vector, best, where))

    def _search(self, query: Floats, asked: Asked, depth: int) -> list[SearchResult]:
        index = self.searcher.index
        search = index.search if query.ndim == 1 else index.search_picture
        return search(query, depth, asked.where, asked.exact)

    def _listed(
        self, query: Hashable, asked: Asked, depth: int, search: Callable[[], list[SearchResult]]
    ) -> list[SearchResult]:
        with self._telling(asked.where):
            if depth > _JUDGED_AT_MOST:  # too long to keep many of
                return search()
            version = self.searcher.index.store.version
            return self._lists.get((query, asked.where, asked.exact, depth, version), search)

    @contextmanager
    def _telling(self, where: str | None) -> Iterator[None]:
        """What a filter is refused for, to the one who wrote it."""
        try:
            yield
        except ValueError as error:
            if where is None:
                raise
            raise Refused(400, told(error, self.searcher.index.store.folder)) from None


def _rounded(depth: int) -> int:
    """Pages of one list are parts of it: what is searched is rounded up."""
    return -(-depth // _STEP) * _STEP
