"""Near-duplicate pictures, found from the stored vectors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa

from forclip.index.image_index import Index
from forclip.index.protocol import SearchIndex
from forclip.progress import Advance, silent
from forclip.types import Floats, Ints, SearchResult

SIMILARITY = 0.95  # re-encoded, resized and slightly cropped pictures are above it
_MARGIN = 3.0  # times the distance from 1 that the mean vectors of near duplicates may have
_MOST_CANDIDATES = 16  # images that one is compared with by all vectors
_IMAGES_AT_ONCE = 64  # whose candidates are read together


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
    images = _Images(index, where)
    members: dict[int, list[tuple[int, float]]] = {}  # by the first image of each group
    grouping = _Grouping(images.means(), images.vectors, threshold)
    for image, (first, score) in enumerate(grouping.run(advance=advance)):
        if first != image:
            members.setdefault(first, []).append((image, score))
    groups_found = [[(first, 1.0), *others] for first, others in members.items()]
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


def group_in_order(
    index: SearchIndex, image_ids: Sequence[str], means: Floats, known: int = 0, threshold: float = SIMILARITY
) -> list[int]:
    """Return for each image after the first `known` ones the position of the first image of its group.

    As `find_duplicates`: an image joins the most similar of the groups that the images before it started, or starts
    one, and is then its own first image. The first `known` images each start a group. Of images that were deleted
    nothing is compared.

    means: [images, dim], as `image_means` returns them.
    """
    check_threshold(threshold)

    def read(images: Sequence[int]) -> dict[int, Floats]:
        found = index.image_vectors([image_ids[image] for image in images])
        return {image: found[image_ids[image]] for image in images if image_ids[image] in found}

    grouping = _Grouping(means, read, threshold)
    return [first for first, _ in grouping.run(known)]


def image_means(index: SearchIndex, image_ids: Sequence[str]) -> Floats:
    """Return the mean vector of each image, unit [images, dim]; zeros for an unknown id."""
    means = np.zeros((len(image_ids), index.store.header.dim), np.float32)
    for start in range(0, len(image_ids), _IMAGES_AT_ONCE):
        found = index.image_vectors(image_ids[start : start + _IMAGES_AT_ONCE])
        for row, image_id in enumerate(image_ids[start : start + _IMAGES_AT_ONCE], start):
            if image_id in found:
                mean = found[image_id].mean(0)
                means[row] = mean / max(float(np.linalg.norm(mean)), 1e-9)
    return means


class _Grouping:
    """Sorts images into groups in their order, by number from 0.

    means: [images, dim]; they choose the images that are compared by all vectors. read: returns the vectors of images,
    unit [N, dim], by number.
    """

    def __init__(self, means: Floats, read: Callable[[Sequence[int]], Mapping[int, Floats]], threshold: float) -> None:
        self._means, self._read = means, read
        self._threshold, self._lowest = threshold - 1e-6, 1 - _MARGIN * (1 - threshold)
        self._firsts: list[int] = []  # of the groups, ascending
        self._started: set[int] = set()  # the same
        self._first_means = np.empty_like(means)

    def run(self, known: int = 0, advance: Advance = silent) -> Iterator[tuple[int, float]]:
        """Yield for each image from `known` on the first image of its group, and its similarity with that image.

        The images before `known` each start a group.
        """
        for image in range(known):
            self._start(image)
        for start in range(known, len(self._means), _IMAGES_AT_ONCE):
            block = self._means[start : start + _IMAGES_AT_ONCE]
            yield from self._sort(start, block)
            advance(len(block))

    def _start(self, image: int) -> None:
        self._first_means[len(self._firsts)] = self._means[image]
        self._firsts.append(image)
        self._started.add(image)

    def _sort(self, start: int, block: Floats) -> Iterator[tuple[int, float]]:
        known = len(self._firsts)
        before = [_best(row, self._lowest) for row in block @ self._first_means[:known].T]
        inside = [np.flatnonzero(row[:n] >= self._lowest) + start for n, row in enumerate(block @ block.T)]
        candidates = [[*(self._firsts[n] for n in b), *i.tolist()] for b, i in zip(before, inside, strict=True)]
        wanted = {start + n for n, of_image in enumerate(candidates) if of_image}
        vectors = self._read(sorted(wanted.union(*candidates)))
        for image, of_image in enumerate(candidates, start):
            firsts = [n for n in of_image if n in self._started and n in vectors] if image in vectors else []
            scores = [similarity(vectors[image], vectors[n]) for n in firsts]
            if scores and max(scores) >= self._threshold:
                best = int(np.argmax(scores))
                yield firsts[best], scores[best]
            else:
                self._start(image)
                yield image, 1.0


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

    def vectors(self, images: Sequence[int]) -> dict[int, Floats]:
        """Return images' unit vectors, [N, dim], by number."""
        parts = self._view.parts
        return {n: parts[self._part[n]].segment.unit_vectors(int(self._position[n])) for n in images}

    def means(self) -> Floats:
        """Return the mean vector of each image, unit [images, dim]."""
        means = np.empty((len(self), self._store.header.dim), np.float32)
        for number, part in enumerate(self._view.parts):
            inside = self._part == number
            means[inside] = part.segment.mean_vectors(self._position[inside])
        return means


def _in_order_of_adding(table: lance.LanceDataset, keys: Ints) -> Ints:
    """Return the positions of the images with these keys in the order in which they were added."""
    stored = table.to_table(["number", "added"])
    numbers, added = stored["number"].to_numpy(), stored["added"].cast(pa.int64()).to_numpy()
    order = np.argsort(numbers)
    of_key = order[np.searchsorted(numbers, keys, sorter=order)]
    return np.lexsort((keys, added[of_key]))  # images that were added together have ascending keys
