"""Recall and precision at a ladder of ranks, averaged over the classes of a group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forclip.types import Bools

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
