"""What labels say of a ranked list whose text names a class: who is right, how good the list is, what it misses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from forclip.evaluation.metrics import ranked_average_precision, ranked_precision
from forclip.index.image_index import Index
from forclip.store_labels import StoreLabels
from forclip.types import Floats, SearchResult

DEPTH = 50  # ranks that count


@dataclass(frozen=True)
class Relevance:
    """column: of the class that the text names; relevant: of the images searched, how many show it (R).

    precision_at_10, average_precision: in percent, of the list without the images that nobody has checked, AP@50 over
    min(50, R); None where no image shows the class. missed: ids of those that show it and are not among the first 50 of
    the whole list, best first.
    """

    column: int
    relevant: int
    precision_at_10: float | None
    average_precision: float | None
    missed: tuple[str, ...]


def judge_by_labels(
    index: Index, labels: StoreLabels, column: int, query: Floats, where: str | None = None, exact: bool = False
) -> Relevance:
    """query: unit [dim], the text's; where, exact: as Index.search takes them."""
    ids, shows = labels.verdicts(column)
    right = index.search_among([i for i, s in zip(ids, shows, strict=True) if s], query, where=where)
    first = {r.image_id for r in index.search(query, DEPTH, where, exact)}
    missed = tuple(r.image_id for r in right if r.image_id not in first)
    if not right:
        return Relevance(column, 0, None, None, missed)
    checked = index.search_among(ids, query, DEPTH, where)
    best = np.array([labels.shows(r.image_id, column) for r in checked], bool)
    # Both count all that are relevant, so those beyond the depth are put behind; the store may change meanwhile.
    ranked = np.concatenate([best, np.ones(max(0, len(right) - int(best.sum())), bool)])
    precision, average = ranked_precision(ranked, 10), ranked_average_precision(ranked, DEPTH)
    return Relevance(column, len(right), 100 * precision, 100 * average, missed)


def missed_images(index: Index, relevance: Relevance, query: Floats, where: str | None = None) -> list[SearchResult]:
    """Those, with their rank in the whole list."""
    return _placed(index, query, index.search_among(relevance.missed, query, where=where), where)


def wrong_images(
    index: Index, labels: StoreLabels, column: int, query: Floats, k: int, where: str | None = None
) -> list[SearchResult]:
    """The best k images that were checked and don't show the class, with their rank in the whole list."""
    ids, shows = labels.verdicts(column)
    wrong = [i for i, s in zip(ids, shows, strict=True) if not s]
    return _placed(index, query, index.search_among(wrong, query, k, where), where)


def _placed(index: Index, query: Floats, results: Sequence[SearchResult], where: str | None) -> list[SearchResult]:
    """Ranked as in the whole list. Of equal scores these come first."""
    if not results:
        return []
    every = np.sort(index.scores(query, where=where))
    better = len(every) - np.searchsorted(every, np.array([r.score for r in results], np.float32), "right")
    # Each of its own, so that a rank names one image.
    ranks = np.maximum.accumulate(better - np.arange(len(results))) + np.arange(len(results)) + 1
    return [replace(r, rank=int(rank)) for r, rank in zip(results, ranks, strict=True)]
