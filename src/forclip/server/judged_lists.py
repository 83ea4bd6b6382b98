"""Texts' ranked lists and what is believed of them, kept for a while."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from forclip.calibration.model import Confidence
from forclip.index.ranking import Ranking
from forclip.index.view import View
from forclip.server.recent import Recent
from forclip.types import Floats

if TYPE_CHECKING:
    from forclip.search.searcher import Searcher  # handed in: the service itself knows no model

KEPT_DEPTH = 1200  # longer lists are too long to keep many of
_STEP = 60  # images on a page


@dataclass(frozen=True)
class Asked:
    """depth: how many of the best are needed at least."""

    where: str | None
    exact: bool
    depth: int

    @property
    def in_pages(self) -> "Asked":
        """Pages of one list are parts of it: what is searched is rounded up."""
        return replace(self, depth=-(-self.depth // _STEP) * _STEP)


_JUDGED = 240  # of the best images; as many as are kept where the cut-off may lie further down
_KEPT = 1_000


@dataclass(frozen=True)
class JudgedList:
    """confidence: None without a calibration, or in too small a gallery."""

    best: Ranking
    confidence: Confidence | None


_Wanted = tuple[str, Asked]


class JudgedLists:
    """At least the best `depth` images where there are so many; with a calibration deep enough to judge them. Raises
    ValueError for a filter that is wrong. vectors_of: texts' vectors, unit [dim] each."""

    def __init__(self, searcher: "Searcher", vectors_of: Callable[[Sequence[str]], Sequence[Floats]]) -> None:
        self.searcher, self.vectors_of = searcher, vectors_of
        self._recent: Recent[JudgedList] = Recent(_KEPT)

    def of(self, text: str, asked: Asked) -> JudgedList:
        """A text's list."""
        wanted, view = self._wanted(text, asked), self.searcher.index.view()
        return self._recent.get(wanted, lambda: self._found([wanted], view)[0], of=view)

    def learn(self, texts: Iterable[tuple[str, Asked]]) -> None:
        """Has lists at hand that are to be asked for next: those that are not are searched together."""
        view = self.searcher.index.view()
        alike: dict[Asked, list[_Wanted]] = defaultdict(list)
        for wanted in dict.fromkeys(self._wanted(text, asked) for text, asked in texts):
            if not self._recent.has(wanted, of=view):
                alike[wanted[1]].append(wanted)
        for some in alike.values():
            for wanted, found in zip(some, self._found(some, view), strict=True):
                self._recent.put(wanted, found, of=view)

    def _wanted(self, text: str, asked: Asked) -> _Wanted:
        if self.searcher.model.calibration is not None:
            asked = replace(asked, depth=max(asked.depth, _JUDGED))
        return text, asked.in_pages

    def _found(self, wanted: Sequence[_Wanted], view: View) -> list[JudgedList]:
        """wanted: all asked for in the same way."""
        asked = wanted[0][1]
        vectors = np.stack(self.vectors_of([text for text, _ in wanted]))
        judged = self.searcher.judgings(vectors, asked.where, view=view)
        best = self._rankings(vectors, asked, view)
        lists = [JudgedList(b, judge(b.scores)) for b, judge in zip(best, judged, strict=True)]
        deeper = [n for n, found in enumerate(lists) if _may_go_on(found)]
        if deeper:
            longer = self._rankings(vectors[deeper], replace(asked, depth=KEPT_DEPTH), view)
            for n, ranking in zip(deeper, longer, strict=True):
                lists[n] = JudgedList(ranking, judged[n](ranking.scores))
        return lists

    def _rankings(self, vectors: Floats, asked: Asked, view: View) -> list[Ranking]:
        return self.searcher.index.rankings(vectors, asked.depth, asked.where, asked.exact, view)


def _may_go_on(found: JudgedList) -> bool:
    """Whether the cut-off may lie beyond what was found."""
    return found.confidence is not None and found.confidence.cutoff == len(found.best) < KEPT_DEPTH
