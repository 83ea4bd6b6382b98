"""From what was found in each segment to one ranked list, whose results are made when someone looks at them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forclip.index.image_scores import Found
from forclip.index.segment import Segment
from forclip.types import Ints, SearchResult

_Shown = tuple[Sequence[str], Sequence[str], Sequence[tuple[float, float, float, float]], Sequence[int]]


@dataclass(frozen=True, eq=False)
class Ranking(Sequence[SearchResult]):
    """A ranked list in columns, [k] each, best first: of a long one few images are looked at. A part of it is a ranking
    with the same ranks.

    segments: where the images are; parts: the position of each one's segment; images: places in that segment's keys;
    rows: of the vectors that scored best; scores: cosines; first: the first image's rank.
    """

    segments: tuple[Segment, ...]
    parts: Ints
    images: Ints
    rows: Ints
    scores: NDArray[np.float64]
    first: int = 1

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, at: int) -> SearchResult: ...
    @overload
    def __getitem__(self, at: slice) -> "Ranking": ...
    def __getitem__(self, at: int | slice) -> "SearchResult | Ranking":
        if isinstance(at, int):
            place = range(len(self))[at]  # counts from the end, and raises IndexError
            return next(iter(self[place : place + 1]))
        ranks = range(self.first, self.first + len(self))[at]
        if ranks.step != 1:
            raise ValueError(f"the ranks of a part must follow each other, not skip by {ranks.step}")
        return self.taken(at, ranks.start)

    def taken(self, at: slice | Ints, first: int = 1) -> "Ranking":
        """The images at these places, in this order."""
        columns = self.parts[at], self.images[at], self.rows[at]
        return Ranking(self.segments, *columns, self.scores[at], first)

    def __iter__(self) -> Iterator[SearchResult]:
        ids, uris, boxes, keys = self._shown()
        ranks = range(self.first, self.first + len(self))
        return map(SearchResult, ranks, ids, uris, self.scores.tolist(), boxes, keys)

    def _shown(self) -> _Shown:
        """Ids, uris, the winning vectors' boxes, and keys."""
        if len(self.segments) == 1:
            return _shown(self.segments[0], self.images, self.rows)
        every: dict[int, tuple[str, str, tuple[float, float, float, float], int]] = {}
        for part, segment in enumerate(self.segments):
            places = np.flatnonzero(self.parts == part)
            columns = _shown(segment, self.images[places], self.rows[places])
            every |= zip(places.tolist(), zip(*columns, strict=True), strict=True)
        found = [every[place] for place in range(len(self))]
        return [f[0] for f in found], [f[1] for f in found], [f[2] for f in found], [f[3] for f in found]


def ranked(found: Sequence[tuple[Segment, Found]], k: int) -> Ranking:
    """The best k images, best first, ties by id."""
    segments = tuple(segment for segment, _ in found)
    parts = np.repeat(np.arange(len(found)), np.array([len(f.scores) for _, f in found], np.int64))
    images, rows = (
        np.concatenate([np.empty(0, np.int64), *columns])
        for columns in ([f.images for _, f in found], [f.rows for _, f in found])
    )
    scores = np.concatenate([np.empty(0), *(f.scores for _, f in found)])
    order = np.argsort(-scores, kind="stable")
    if len(order) > k:
        order = order[: np.searchsorted(-scores[order], -scores[order[k - 1]], "right")]
    best = Ranking(segments, parts, images, rows, scores).taken(order)
    tied = np.flatnonzero(np.diff(best.scores) == 0)
    return (_ties_by_id(best, np.union1d(tied, tied + 1)) if len(tied) else best)[:k]


def without(results: Sequence[SearchResult], left_out: Collection[str]) -> list[SearchResult]:
    """Those of other images than these ids, ranked anew."""
    kept = [r for r in results if r.image_id not in left_out]
    return [replace(r, rank=rank) for rank, r in enumerate(kept, start=1)]


def _ties_by_id(ranking: Ranking, tied: Ints) -> Ranking:
    """tied: the places of all images that are as good as a neighbour, ascending."""
    ids: dict[int, str] = {}
    for part, segment in enumerate(ranking.segments):
        here = tied[ranking.parts[tied] == part]
        ids |= zip(here.tolist(), segment.ids.take(pa.array(ranking.images[here])).to_pylist(), strict=True)
    scores = ranking.scores
    order = np.arange(len(ranking))
    order[tied] = sorted(tied.tolist(), key=lambda place: (-scores[place], ids[place]))
    return ranking.taken(order)


def _shown(segment: Segment, images: Ints, rows: Ints) -> _Shown:
    places = pa.array(images)
    ids, uris = (column.take(places).to_pylist() for column in (segment.ids, segment.uris))
    boxes = [(x0, y0, x1, y1) for x0, y0, x1, y1 in segment.boxes[rows].astype(float).tolist()]
    return ids, uris, boxes, segment.keys[images].tolist()
