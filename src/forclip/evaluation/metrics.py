"""How good a ranking is. NumPy only; fractions in [0, 1], not percentages.

Rows are images in the order of their ids: that is the order in which ties are broken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forclip.types import Bools, Floats, Ints

Denominator = Literal["min(k,R)", "R", "hits"]
DENOMINATORS: tuple[Denominator, ...] = ("min(k,R)", "R", "hits")
_BLOCK_PRODUCTS = 1 << 20  # similarities, or numbers of vectors, held at once by max_sim: 4 MiB stay in a cache
_BLOCK_SCORES = 1 << 20  # scores sorted at once by column_rankings: 4 MiB, and 8 MiB of ranks


def max_sim(vectors: NDArray[np.floating], offsets: Ints, texts: NDArray[np.floating]) -> Floats:
    """Each image's score for each text: the largest dot product over the image's vectors.

    vectors: [total, D]; offsets: [I + 1], image i owns vectors[offsets[i]:offsets[i + 1]]; texts: [C, D].
    Returns [I, C] float32. Raises ValueError for an image with no vector.
    """
    empty = np.flatnonzero(np.diff(offsets) <= 0)
    if len(empty):
        raise ValueError(f"the image of row {empty[0]} has no vector")
    num_images = len(offsets) - 1
    columns = np.ascontiguousarray(texts.T, np.float32)
    scores = np.empty((num_images, len(texts)), np.float32)
    start = 0
    while start < num_images:
        stop = _block_end(offsets, start, _BLOCK_PRODUCTS // max(1, *texts.shape))
        first, last = offsets[start], offsets[stop]
        products = vectors[first:last].astype(np.float32, copy=False) @ columns
        scores[start:stop] = _largest(products, offsets[start : stop + 1] - first)
        start = stop
    return scores


def ranking(scores: NDArray[np.floating]) -> Ints:
    """scores: [I]. Returns the rows [I], best first, equal scores in row order. Raises ValueError for a NaN."""
    wrong = np.flatnonzero(np.isnan(scores))
    if len(wrong):
        raise ValueError(f"the score of row {wrong[0]} is NaN")
    return np.argsort(-scores, kind="stable").astype(np.int64, copy=False)


def column_rankings(scores: NDArray[np.floating], columns: Sequence[int]) -> Iterator[tuple[int, Ints]]:
    """Each of the columns with its ranking, as `ranking` gives it. scores: [I, C], no NaN among them.

    Sorted in blocks of columns: a block is copied to lie in order, as reading one column of many skips through memory.
    """
    size = max(1, _BLOCK_SCORES // max(1, len(scores)))
    for start in range(0, len(columns), size):
        block = list(columns[start : start + size])
        order = np.argsort(-np.ascontiguousarray(scores[:, block].T), axis=1, kind="stable")
        yield from zip(block, order.astype(np.int64, copy=False), strict=True)


def average_precision_at(
    scores: NDArray[np.floating], relevant: Bools, k: int, denominator: Denominator = "min(k,R)"
) -> float:
    """AP@k = sum over r <= k of P(r) rel(r), divided by min(k, R), by R, or by the hits found within k.

    scores, relevant: [I]; R: how many are relevant. Raises ValueError where R is 0, k below 1 or a score NaN.
    """
    return ranked_average_precision(relevant[ranking(scores)], k, denominator)


def ranked_average_precision(ranked: Bools, k: int, denominator: Denominator = "min(k,R)") -> float:
    """The same, of ranked [I]: whether the image at each rank is relevant, the whole list, best first."""
    total = _num_relevant(ranked, k)
    top = ranked[:k]
    precision = np.cumsum(top) / np.arange(1, len(top) + 1)
    gained = float((precision * top).sum())
    match denominator:
        case "min(k,R)":
            return gained / min(k, total)
        case "R":
            return gained / total
        case "hits":
            return gained / max(1, int(top.sum()))


def precision_at(scores: NDArray[np.floating], relevant: Bools, k: int) -> float:
    """Share of the first k places that hold a relevant image; places beyond the last image count as misses."""
    return ranked_precision(relevant[ranking(scores)], k)


def ranked_precision(ranked: Bools, k: int) -> float:
    """The same, of ranked [I], best first."""
    _num_relevant(ranked, k)
    return int(ranked[:k].sum()) / k


def recall_at(scores: NDArray[np.floating], relevant: Bools, k: int) -> float:
    """Share of the relevant images found within the first k places."""
    return ranked_recall(relevant[ranking(scores)], k)


def ranked_recall(ranked: Bools, k: int) -> float:
    """The same, of ranked [I], best first."""
    return int(ranked[:k].sum()) / _num_relevant(ranked, k)


def _largest(products: Floats, offsets: Ints) -> Floats:
    """products: [total, C]. Returns [images, C], the largest of each image's rows."""
    counts = np.diff(offsets)
    if (counts == counts[0]).all():  # several times as fast as reduceat
        largest: Floats = products.reshape(len(counts), counts[0], -1).max(axis=1)
        return largest
    return np.maximum.reduceat(products, offsets[:-1], axis=0)


def _num_relevant(ranked: Bools, k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    total = int(ranked.sum())
    if total == 0:
        raise ValueError("no image is relevant, so that neither precision nor recall says anything")
    return total


def _block_end(offsets: Ints, start: int, max_vectors: int) -> int:
    """The image after the last one that still fits in a block of max_vectors; at least one image."""
    end = int(np.searchsorted(offsets, offsets[start] + max_vectors, side="right")) - 1
    return max(start + 1, end)


LADDER = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

Line = tuple[float, ...]


@dataclass(frozen=True)
class RankCurves:
    """ks: the ranks, none beyond the gallery; recall, precision: percent at each, by group, None for an empty group."""

    ks: tuple[int, ...]
    recall: Mapping[str, Line | None]
    precision: Mapping[str, Line | None]

    def to_json(self) -> dict[str, Any]:
        return {"k": list(self.ks), "recall": _plain(self.recall), "precision": _plain(self.precision)}


def rank_curves(ranked: Mapping[str, Bools], members: Mapping[str, Sequence[str]], num_images: int) -> RankCurves:
    """ranked: by class, whether the image at each rank is relevant, the whole list, best first; members: by group.

    Places beyond a class's last image count as misses, as in precision_at.
    """
    ks = tuple(k for k in LADDER if k <= num_images)
    found = {name: _hits_within(of_class, ks) for name, of_class in ranked.items()}
    recall = {name: hits / ranked[name].sum() for name, hits in found.items()}
    precision = {name: hits / np.array(ks) for name, hits in found.items()}
    return RankCurves(
        ks,
        {group: _mean_line(recall, names) for group, names in members.items()},
        {group: _mean_line(precision, names) for group, names in members.items()},
    )


def mean_curves(curves: Sequence[RankCurves]) -> RankCurves:
    """Over seeds, up to the last rank that all of them have; a seed without a group does not enter its mean."""
    ks = min((c.ks for c in curves), key=len)
    return RankCurves(
        ks,
        {group: _mean_of([c.recall[group] for c in curves], len(ks)) for group in curves[0].recall},
        {group: _mean_of([c.precision[group] for c in curves], len(ks)) for group in curves[0].precision},
    )


def _hits_within(ranked: Bools, ks: Sequence[int]) -> NDArray[np.float64]:
    """ranked: [I]. Returns [len(ks)], how many of the first k are relevant."""
    found = np.concatenate([[0], np.cumsum(ranked[: max(ks, default=0)])])
    hits: NDArray[np.float64] = found[np.minimum(ks, len(found) - 1).astype(np.int64)].astype(np.float64)
    return hits


def _mean_line(lines: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> Line | None:
    if not names:
        return None
    return tuple(100 * float(value) for value in np.mean([lines[name] for name in names], axis=0))


def _mean_of(lines: Sequence[Line | None], length: int) -> Line | None:
    there = [line[:length] for line in lines if line is not None]
    return tuple(float(value) for value in np.mean(there, axis=0)) if there else None


def _plain(lines: Mapping[str, Line | None]) -> dict[str, list[float] | None]:
    return {str(group): None if line is None else list(line) for group, line in lines.items()}
