"""Near-duplicate pictures, found from the stored vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa

from forclip.index.image_index import Index
from forclip.index.protocol import SearchIndex
from forclip.index.segment import Segment
from forclip.progress import Advance, silent
from forclip.types import Floats, Ints, SearchResult

SIMILARITY = 0.95  # re-encoded, resized and slightly cropped pictures are above it
_MARGIN = 3.0  # times the distance from 1 that the mean vectors of near duplicates may have
_MOST_CANDIDATES = 16  # images that one is compared with by all vectors
_IMAGES_AT_ONCE = 256


@dataclass(frozen=True)
class Duplicate:
    """An image of a group. similarity: with the group's first image, from `similarity`."""

    image_id: str
    uri: str
    similarity: float


def similarity(first: Floats, second: Floats) -> float:
    """Compare two images by their unit vectors, [N, dim] and [M, dim]: symmetric, 1 for equal sets.

    Every vector has a cosine with its nearest vector of the other image. The similarity is the mean of these over the
    image whose mean is lower, so that each image must be found in the other.
    """
    cosines = first @ second.T
    return float(min(cosines.max(1).mean(), cosines.max(0).mean()))


def check_threshold(threshold: float) -> None:
    """Raise ValueError for a threshold outside (0, 1]."""
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold must be a cosine above 0 and at most 1, not {threshold}")


def find_duplicates(
    index: Index, threshold: float = SIMILARITY, where: str | None = None, advance: Advance = silent
) -> list[list[Duplicate]]:
    """Group near-duplicate images; the largest groups first, each in the order in which its images were added.

    An image joins the group whose first image is most similar to it, from the threshold on, else it starts a group. So
    all images of a group are near duplicates of its first one, and pictures that change step by step, such as video
    frames, do not become one group. Groups of one image are left out.

    Mean vectors choose the images that are compared by all vectors. Takes 4 bytes per dimension and image of memory,
    and time that grows with the square of the number of groups: some minutes for 100,000 images.

    where: an SQL expression that limits the images. advance: is called with the number of images done. Raises
    ValueError for a threshold outside (0, 1], or bad SQL.
    """
    check_threshold(threshold)
    images, lowest = _Images(index, where), 1 - _MARGIN * (1 - threshold)
    means = images.means()
    firsts: list[int] = []  # the first image of each group
    members: dict[int, list[tuple[int, float]]] = {}
    first_means = np.empty_like(means)
    for start in range(0, len(means), _IMAGES_AT_ONCE):
        block = means[start : start + _IMAGES_AT_ONCE]
        known = len(firsts)
        alike = block @ first_means[:known].T
        alike_inside = block @ block.T
        for row, image in enumerate(range(start, start + len(block))):
            inside = [n for n in range(known, len(firsts)) if alike_inside[row, firsts[n] - start] >= lowest]
            groups = _best(alike[row], lowest) + inside
            vectors = images.vectors(image) if groups else None
            scores = [similarity(vectors, images.vectors(firsts[n])) for n in groups] if vectors is not None else []
            if scores and max(scores) >= threshold - 1e-6:
                members.setdefault(groups[int(np.argmax(scores))], []).append((image, max(scores)))
            else:
                first_means[len(firsts)] = means[image]
                firsts.append(image)
        advance(len(block))
    groups_found = [[(firsts[n], 1.0), *others] for n, others in members.items()]
    groups_found.sort(key=lambda group: (-len(group), group[0][0]))
    return [[images.duplicate(image, score) for image, score in group] for group in groups_found]


def collapse_duplicates(
    index: SearchIndex, results: Sequence[SearchResult], threshold: float = SIMILARITY, count: int | None = None
) -> list[SearchResult]:
    """Return the first `count` results (None: all) of a list that are no near duplicate of a result before them.

    The others are left out; ranks stay those of the whole list. Results that were deleted meanwhile stay.
    """
    vectors = index.image_vectors([result.image_id for result in results])
    kept: list[SearchResult] = []
    compared: list[Floats] = []
    for result in results:
        own = vectors.get(result.image_id)
        if own is not None:
            if any(similarity(own, other) >= threshold for other in compared):
                continue
            compared.append(own)
        kept.append(result)
        if len(kept) == count:
            break
    return kept


def _best(alike: Floats, lowest: float) -> list[int]:
    """Return the positions of the highest values from `lowest` on."""
    found = np.flatnonzero(alike >= lowest)
    if len(found) > _MOST_CANDIDATES:
        found = found[np.argpartition(-alike[found], _MOST_CANDIDATES)[:_MOST_CANDIDATES]]
    ordered: list[int] = sorted(found.tolist())
    return ordered


class _Images:
    """Images of a view in the order in which they were added, by number from 0."""

    def __init__(self, index: Index, where: str | None) -> None:
        self._store, self._view = index.store, index.view()
        view = self._view
        selected = [np.flatnonzero(part.selected(where, view.matching)) for part in view.parts]
        keys = [part.segment.keys[images] for part, images in zip(view.parts, selected, strict=True)]
        order = _in_order_of_adding(view.table, np.concatenate([np.empty(0, np.int64), *keys]))
        self._part: Ints = np.repeat(np.arange(len(selected)), [len(images) for images in selected])[order]
        self._position: Ints = np.concatenate([np.empty(0, np.int64), *selected])[order]

    def __len__(self) -> int:
        return len(self._part)

    def duplicate(self, image: int, score: float) -> Duplicate:
        """Describe an image of a group."""
        segment, position = self._view.parts[self._part[image]].segment, int(self._position[image])
        (uri,), (image_id,) = (texts.take(np.array([position])) for texts in (segment.uris, segment.ids))
        return Duplicate(image_id, self._store.resolve(uri), min(score, 1.0))

    def vectors(self, image: int) -> Floats:
        """Return an image's unit vectors, [N, dim]."""
        segment: Segment = self._view.parts[self._part[image]].segment
        return segment.unit_vectors(int(self._position[image]))

    def means(self) -> Floats:
        """Return the mean vector of each image, unit [images, dim]."""
        means = [self.vectors(image).mean(0) for image in range(len(self))]
        stacked = np.stack(means) if means else np.empty((0, 1), np.float32)
        unit: Floats = stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-9)
        return unit


def _in_order_of_adding(table: lance.LanceDataset, keys: Ints) -> Ints:
    """Return the positions of the images with these keys in the order in which they were added."""
    stored = table.to_table(["number", "added"])
    numbers, added = stored["number"].to_numpy(), stored["added"].cast(pa.int64()).to_numpy()
    order = np.argsort(numbers)
    of_key = order[np.searchsorted(numbers, keys, sorter=order)]
    return np.lexsort((keys, added[of_key]))  # images that were added together have ascending keys
