"""Metrics of rankings, and bootstrap intervals of their means. NumPy only; fractions in [0, 1], not percentages.

Rows are images in the order of their ids, which is the order that breaks ties.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forclip.types import Bools, Doubles, Floats, Ints

Denominator = Literal["min(k,R)", "R", "hits"]
DENOMINATORS: tuple[Denominator, ...] = ("min(k,R)", "R", "hits")
AP_DEPTH = 50  # ranks that count, unless stated otherwise
RANKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # of the recall and precision curves
_BLOCK_PRODUCTS = 1 << 20  # similarities, or numbers of vectors, that max_sim holds at once: 4 MiB fit in a cache
_BLOCK_SCORES = 1 << 20  # scores that column_rankings sorts at once: 4 MiB, and 8 MiB of ranks


def max_sim(vectors: NDArray[np.floating], offsets: Ints, texts: NDArray[np.floating]) -> Floats:
    """Score each image for each text: the largest dot product over the image's vectors.

    vectors: [total, D]; offsets: [I + 1], image i owns vectors[offsets[i]:offsets[i + 1]]; texts: [C, D].
    Returns [I, C] float32. Raises ValueError for an image without a vector.
    """
    empty = np.flatnonzero(np.diff(offsets) <= 0)
    if len(empty):
        raise ValueError(f"the image of row {empty[0]} has no vector")
    num_images = len(offsets) - 1
    columns = np.ascontiguousarray(texts.T, np.float32)
    scores = np.empty((num_images, len(texts)), np.float32)
    block_vectors = _BLOCK_PRODUCTS // max(1, *texts.shape)
    start = 0
    while start < num_images:
        # As many images as fit in a block, at least one.
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + block_vectors, side="right")) - 1)
        first, last = offsets[start], offsets[stop]
        products = vectors[first:last].astype(np.float32, copy=False) @ columns
        counts = np.diff(offsets[start : stop + 1])
        if (counts == counts[0]).all():  # several times as fast as reduceat
            scores[start:stop] = products.reshape(len(counts), counts[0], -1).max(axis=1)
        else:
            scores[start:stop] = np.maximum.reduceat(products, offsets[start:stop] - first, axis=0)
        start = stop
    return scores


def ranking(scores: NDArray[np.floating]) -> Ints:
    """Rank [I] scores: the rows, best first, equal scores in row order. Raises ValueError for a NaN."""
    wrong = np.flatnonzero(np.isnan(scores))
    if len(wrong):
        raise ValueError(f"the score of row {wrong[0]} is NaN")
    return np.argsort(-scores, kind="stable").astype(np.int64, copy=False)


def column_rankings(scores: NDArray[np.floating], columns: Sequence[int]) -> Iterator[tuple[int, Ints]]:
    """Yield each column with its ranking, as `ranking` returns it. scores: [I, C] without NaN.

    Sorts blocks of columns, each copied to be contiguous: reading one column of many skips through memory.
    """
    size = max(1, _BLOCK_SCORES // max(1, len(scores)))
    for start in range(0, len(columns), size):
        block = list(columns[start : start + size])
        order = np.argsort(-np.ascontiguousarray(scores[:, block].T), axis=1, kind="stable")
        yield from zip(block, order.astype(np.int64, copy=False), strict=True)


def average_precision_at(
    scores: NDArray[np.floating], relevant: Bools, k: int, denominator: Denominator = "min(k,R)"
) -> float:
    """AP@k: the sum over r <= k of P(r) rel(r), divided by min(k, R), by R, or by the hits within k.

    scores, relevant: [I]; R: the number of relevant images. Raises ValueError if R is 0, k below 1 or a score NaN.
    """
    return ranked_average_precision(relevant[ranking(scores)], k, denominator)


def ranked_average_precision(ranked: Bools, k: int, denominator: Denominator = "min(k,R)") -> float:
    """AP@k of a ranking. ranked: [I], whether the image at each rank is relevant, for all images, best first."""
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


def ranked_precision(ranked: Bools, k: int) -> float:
    """The share of relevant images among the first k ranks; ranks beyond the last image count as misses."""
    _num_relevant(ranked, k)
    return int(ranked[:k].sum()) / k


def ranked_recall(ranked: Bools, k: int) -> float:
    """The share of the relevant images that are within the first k ranks."""
    return int(ranked[:k].sum()) / _num_relevant(ranked, k)


def _num_relevant(ranked: Bools, k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    total = int(ranked.sum())
    if total == 0:
        raise ValueError("no image is relevant, so precision and recall are undefined")
    return total


Line = list[float]


@dataclass(frozen=True)
class RankCurves:
    """Recall and precision at several ranks, in percent, averaged over the classes of each group.

    k: the ranks, up to the number of images. recall, precision: by group; None for a group without a class.
    """

    k: list[int]
    recall: Mapping[str, Line | None]
    precision: Mapping[str, Line | None]


def rank_curves(ranked: Mapping[str, Bools], members: Mapping[str, Sequence[str]], num_images: int) -> RankCurves:
    """Compute the curves of a method.

    ranked: by class, [I], whether the image at each rank is relevant, best first. members: class names by group. Ranks
    beyond a class's last image count as misses, as in ranked_precision.
    """
    ks = [k for k in RANKS if k <= num_images]
    hits: dict[str, Doubles] = {}  # by class, [len(ks)], how many of the first k are relevant
    for name, of_class in ranked.items():
        within = np.concatenate([[0], np.cumsum(of_class[: max(ks, default=0)])])
        hits[name] = within[np.minimum(ks, len(within) - 1).astype(np.int64)].astype(np.float64)

    recall = {name: hits[name] / of_class.sum() for name, of_class in ranked.items()}
    precision = {name: of_class / np.array(ks) for name, of_class in hits.items()}

    def mean_lines(lines: Mapping[str, Doubles]) -> dict[str, Line | None]:
        return {group: _mean_line([lines[name] for name in names], 100) for group, names in members.items()}

    return RankCurves(ks, mean_lines(recall), mean_lines(precision))


def mean_curves(curves: Sequence[RankCurves]) -> RankCurves:
    """Average over seeds, up to the last rank that all have; a seed without a group doesn't enter the group's mean."""
    ks = min((c.k for c in curves), key=len)

    def mean_lines(lines: Sequence[Mapping[str, Line | None]]) -> dict[str, Line | None]:
        return {
            group: _mean_line([line[: len(ks)] for by_group in lines if (line := by_group[group]) is not None])
            for group in lines[0]
        }

    return RankCurves(ks, mean_lines([c.recall for c in curves]), mean_lines([c.precision for c in curves]))


def _mean_line(lines: Sequence[Doubles | Line], factor: int = 1) -> Line | None:
    return [factor * float(value) for value in np.mean(np.array(lines), axis=0)] if lines else None


Interval = tuple[float, float]

RESAMPLES, LEVEL, SEED = 10_000, 0.95, 0
_BLOCK_DRAWS = 1 << 20  # draws held at once: 8 MiB

DESCRIPTION: dict[str, Any] = {
    "method": "percentile bootstrap",
    "over": "classes",
    "level": LEVEL,
    "resamples": RESAMPLES,
    "seed": SEED,
}


def mean_interval(values: Doubles, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """The interval that holds the mean in 95 % of the resamples; None for fewer than two classes.

    values: [S, C], a row per training seed and a column per class, NaN if a seed lacks the class. A resample draws the
    same classes for every seed. The mean is over seeds, of each seed's mean over its classes.
    """
    assert values.ndim == 2
    if values.shape[1] < 2:
        return None
    means = np.nanmean(resampled_means(values, resamples, seed), axis=1)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def resampled_means(values: Doubles, resamples: int = RESAMPLES, seed: int = SEED) -> Doubles:
    """[S, C] values to [resamples, S]: each seed's mean over the drawn classes, NaN if the seed has none of them."""
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    num_classes = values.shape[1]
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK_DRAWS // num_classes)
    blocks = []
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = rng.integers(0, num_classes, (rows, num_classes))
        drawn += num_classes * np.arange(rows)[:, None]  # so that one count serves all rows
        counts = np.bincount(drawn.ravel(), minlength=rows * num_classes).reshape(rows, num_classes).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a seed without any of the drawn classes
            blocks.append((counts @ filled.T) / (counts @ present.T.astype(np.float64)))
    return np.concatenate(blocks)


def gain_with_bound(precisions: Floats, reference: Floats) -> tuple[float, float]:
    """The mean gain over classes, and the same less one standard error, which chance is unlikely to give.

    precisions, reference: [C], the same classes. Both results are 0 for fewer than two comparable classes.
    """
    gains = precisions - reference
    gains = gains[~np.isnan(gains)]
    if len(gains) < 2:
        return 0.0, 0.0
    mean = float(gains.mean())
    return mean, mean - float(gains.std(ddof=1)) / len(gains) ** 0.5
