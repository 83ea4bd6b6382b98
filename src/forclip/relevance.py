"""What labels say of a ranked list whose text names a class: who is right, how good the list is, what it misses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from forclip.evaluation.metrics import ranked_average_precision, ranked_precision
from forclip.index.image_index import Index
from forclip.store_labels import StoreLabels
from forclip.types import Floats, SearchResult

DEPTH = 50  # ranks that count
Mistakes = Literal["wrong", "missed"]


@dataclass(frozen=True)
class Relevance:
    """class_name: the one that the text names; shown: by image id, of those checked for it, whether it shows the class.

    relevant: of the images searched, how many show it (R). precision_at_10, average_precision: in percent, of the list
    without unchecked images, AP@50 over min(50, R); None where no image shows it. missed: those that show it and are
    not among the first 50 of the whole list, best first.
    """

    class_name: str
    shown: Mapping[str, bool]
    relevant: int
    precision_at_10: float | None
    average_precision: float | None
    missed: tuple[SearchResult, ...]


def judge_by_labels(
    index: Index, labels: StoreLabels, column: int, query: Floats, where: str | None = None, exact: bool = False
) -> Relevance:
    """query: unit [dim], the text's; column: the class that it names; where, exact: as Index.search takes them."""
    ids, shows = labels.verdicts(column)
    shown = dict(zip(ids, shows.tolist(), strict=True))
    right = index.search_among([i for i in ids if shown[i]], query, where=where)
    first = {r.image_id for r in index.search(query, DEPTH, where, exact)}
    missed = [r for r in right if r.image_id not in first]
    precision, average = None, None
    if right:
        best = np.array([shown[r.image_id] for r in index.search_among(ids, query, DEPTH, where)])
        # Both count all that are relevant, so those beyond the depth are put behind; the store may change meanwhile.
        ranked = np.concatenate([best, np.ones(max(0, len(right) - int(best.sum())), bool)])
        precision = 100 * ranked_precision(ranked, 10)
        average = 100 * ranked_average_precision(ranked, DEPTH)
    return Relevance(
        labels.images.class_names[column], shown, len(right), precision, average, _placed(index, query, missed, where)
    )


def wrong_images(index: Index, relevance: Relevance, query: Floats, k: int, where: str | None) -> list[SearchResult]:
    """The best k images that were checked and don't show the class, with their rank in the whole list."""
    wrong = [image_id for image_id, shows in relevance.shown.items() if not shows]
    return list(_placed(index, query, index.search_among(wrong, query, k, where), where))


def _placed(
    index: Index, query: Floats, results: Sequence[SearchResult], where: str | None
) -> tuple[SearchResult, ...]:
    """Ranked as in the whole list. Of equal scores these come first."""
    if not results:
        return ()
    every = np.sort(index.scores(query, where=where))
    better = len(every) - np.searchsorted(every, np.array([r.score for r in results], np.float32), "right")
    # Each of its own, so that a rank names one image.
    ranks = np.maximum.accumulate(better - np.arange(len(results))) + np.arange(len(results)) + 1
    return tuple(replace(r, rank=int(rank)) for r, rank in zip(results, ranks, strict=True))
