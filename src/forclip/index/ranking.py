"""Rank the images found in each segment as one list, whose results are created when they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import overload

import numpy as np
from numpy.typing import NDArray

from forclip.index.exact_search import ScoredImages
from forclip.index.roots import Roots
from forclip.index.segment import Segment
from forclip.types import Ints, SearchResult


@dataclass(frozen=True, eq=False)
class Ranking(Sequence[SearchResult]):
    """A ranked list of images, best first, kept in columns because few results of a long list are read.

    A slice is a Ranking whose images keep their ranks. segments: where the images are; the columns [k]: parts, the
    position of each image's segment in `segments`; images, positions in that segment; rows, of the vectors that scored
    best; scores, cosines. roots: of the store. first: the rank of the first image.
    """

    segments: tuple[Segment, ...]
    parts: Ints
    images: Ints
    rows: Ints
    scores: NDArray[np.float64]
    roots: Roots = field(default_factory=Roots)
    first: int = 1

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, at: int) -> SearchResult: ...
    @overload
    def __getitem__(self, at: slice) -> "Ranking": ...
    def __getitem__(self, at: int | slice) -> "SearchResult | Ranking":
        if isinstance(at, int):
            position = range(len(self))[at]  # counts from the end, and raises IndexError
            return next(iter(self[position : position + 1]))
        ranks = range(self.first, self.first + len(self))[at]
        if ranks.step != 1:
            raise ValueError(f"a slice of a ranking must keep every image, not skip by {ranks.step}")
        return self.take(at, ranks.start)

    def take(self, at: slice | Ints, first: int = 1) -> "Ranking":
        """Return the images at these positions, in this order."""
        columns = self.parts[at], self.images[at], self.rows[at], self.scores[at]
        return Ranking(self.segments, *columns, self.roots, first)

    def __iter__(self) -> Iterator[SearchResult]:
        results: list[SearchResult] = []
        for part, segment in enumerate(self.segments):
            at = np.flatnonzero(self.parts == part)
            images, scores = self.images[at], self.scores[at].tolist()
            ids, uris = segment.ids.take(images), segment.uris.take(images)
            boxes = map(tuple, segment.boxes[self.rows[at]].astype(float).tolist())
            ranks, keys = (at + self.first).tolist(), segment.keys[images].tolist()
            results += map(SearchResult, ranks, ids, map(self.roots.resolve, uris), scores, boxes, keys)
        return iter(sorted(results, key=attrgetter("rank")))


def rank_images(found: Sequence[tuple[Segment, ScoredImages]], k: int, roots: Roots) -> Ranking:
    """Return the best k images of all segments, ties by id."""
    segments = tuple(segment for segment, _ in found)
    parts = np.repeat(np.arange(len(found)), np.array([len(f.scores) for _, f in found], np.int64))
    images = np.concatenate([np.empty(0, np.int64), *(f.images for _, f in found)])
    rows = np.concatenate([np.empty(0, np.int64), *(f.rows for _, f in found)])
    scores = np.concatenate([np.empty(0), *(f.scores for _, f in found)])
    order = np.argsort(-scores, kind="stable")
    if len(order) > k:
        order = order[: np.searchsorted(-scores[order], -scores[order[k - 1]], "right")]
    best = Ranking(segments, parts, images, rows, scores, roots).take(order)
    same = np.flatnonzero(np.diff(best.scores) == 0)
    if not len(same):
        return best[:k]
    tied = np.union1d(same, same + 1)
    ids: dict[int, str] = {}
    for part, segment in enumerate(segments):
        at = tied[best.parts[tied] == part]
        ids |= zip(at.tolist(), segment.ids.take(best.images[at]), strict=True)
    order = np.arange(len(best))
    order[tied] = sorted(tied.tolist(), key=lambda position: (-best.scores[position], ids[position]))
    return best.take(order)[:k]
