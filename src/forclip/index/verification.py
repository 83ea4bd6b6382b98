"""Compare every row of a store, and its segments, with what the format promises, block by block."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from forclip.index.places import OFFSET_BITS, OFFSET_MASK, FragmentName, LiveRows
from forclip.index.schema import StoreHeader
from forclip.index.segment import Segment, to_faiss
from forclip.index.table import StoredVectors, read_rows, read_vectors
from forclip.index.view import Cover, Part, Views
from forclip.types import Bools, Ints

# Half precision changes a length in the fourth digit; int8 by half a step in each of some hundred dimensions.
_LENGTH_TOLERANCE = {"fp16": 0.02, "int8": 0.2}


def find_problems(views: Views) -> Iterator[str]:
    """Yield the problems of the newest version, one sentence each.

    Every row must be readable, ids and keys unique, vectors of unit length, and each image in one segment, unchanged,
    or in none. Takes 17 bytes of memory per image, and those of a few blocks.
    """
    cover, header = views.cover(), views.store.header
    count, read = cover.table.count_rows(), 0
    keys, hashes = np.empty(count, np.int64), np.empty(count, np.int64)
    comparison = _SegmentComparison(cover)
    try:
        for block in read_vectors(cover.table, header.dim):
            names = block.images["id"].to_pylist()
            rows = slice(read, read := read + len(names))
            keys[rows], hashes[rows] = block.keys, np.fromiter(map(hash, names), np.int64, len(names))
            yield from _problems_of_vectors(block, names, header)
            yield from comparison.problems(block)
    except ValueError as error:
        yield f"rows can't be read: {error}"
        return
    suspects = set(_repeated(hashes[:read]).tolist())
    if suspects:  # two ids may have the same hash
        ids = [i for b in cover.table.to_batches(columns=["id"]) for i in b["id"].to_pylist() if hash(i) in suspects]
        for image_id in sorted(set(ids)):
            count = len(read_rows(cover.table, "id", [image_id], []))
            if count > 1:
                yield f"image {image_id!r} is stored {count} times"
    for key in _repeated(keys[:read]).tolist():
        yield f"key {key} is stored {int((keys == key).sum())} times"
    if comparison.num_missing:
        yield f"search does not cover {comparison.num_missing} images of the store"


def _problems_of_vectors(block: StoredVectors, names: list[str], header: StoreHeader) -> Iterator[str]:
    lengths = np.linalg.norm(header.decode(block.codes), axis=1)
    for row in np.flatnonzero(~(np.abs(lengths - 1) < _LENGTH_TOLERANCE[header.precision])):
        owner = names[int(np.searchsorted(block.offsets, row, "right")) - 1]
        yield f"a vector of image {owner!r} has length {lengths[row]:.3g}"
    for position in np.flatnonzero(np.diff(block.offsets) < 1):
        yield f"image {names[position]!r} has no vector"


class _SegmentComparison:
    """Compares blocks of the table with the segments that hold their images.

    num_missing: images so far that neither a segment nor the rest of the view holds.
    """

    def __init__(self, cover: Cover) -> None:
        self._cover, self.num_missing = cover, 0
        self._rest = np.sort(cover.rest)
        self._rows: LiveRows = cover.rows
        self._fragment: FragmentName | None = None
        self._positions: list[tuple[Part, Ints]] = []

    def problems(self, block: StoredVectors) -> Iterator[str]:
        assert block.addresses is not None
        (fragment_id,) = np.unique(block.addresses >> OFFSET_BITS).tolist()
        self._enter(self._rows.names[fragment_id])
        offsets = (block.addresses & OFFSET_MASK).astype(np.int64)
        at = np.searchsorted(self._rest, block.addresses).clip(max=max(0, len(self._rest) - 1))
        covered: Bools = self._rest[at] == block.addresses if len(self._rest) else np.zeros(len(offsets), bool)
        for part, position_of in self._positions:
            positions = position_of[offsets]
            held = np.flatnonzero(positions >= 0)
            held = held[part.live[positions[held]]]
            covered[held] = True
            for image in held[_differs(part.segment, positions[held], block, held)].tolist():
                place = part.segment.folder or "the part in memory"
                yield f"{place}: image key {int(block.keys[image])} differs from the store's"
        self.num_missing += int((~covered).sum())

    def _enter(self, fragment: FragmentName) -> None:
        if fragment != self._fragment:
            rows = self._rows.fragments[fragment].physical_rows
            placed = ((part, part.places.positions(fragment, rows)) for part in self._cover.parts)
            self._fragment, self._positions = fragment, [(p, at) for p, at in placed if (at >= 0).any()]


def _differs(segment: Segment, positions: Ints, block: StoredVectors, images: Ints) -> Bools:
    """Return which images of a segment [n] are others than those of a block, or have other vectors."""
    starts, ends = segment.offsets[positions], segment.offsets[positions + 1]
    counts = np.diff(block.offsets)[images]
    differs: Bools = (segment.keys[positions] != block.keys[images]) | (ends - starts != counts)
    same = np.flatnonzero(~differs)
    mine = segment.codes[_rows(starts[same], counts[same])]
    theirs: NDArray[np.uint8] = to_faiss(block.codes)[_rows(block.offsets[images[same]], counts[same])]
    wrong_rows = np.repeat(same, counts[same])[(mine != theirs).any(axis=1)]
    differs[wrong_rows] = True
    return differs


def _rows(starts: Ints, counts: Ints) -> Ints:
    """Return the rows of images one after the other."""
    within: Ints = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts, counts) + within


def _repeated(values: Ints) -> Ints:
    """Return each value that occurs several times. Sorts the values in place: a copy would take as much memory."""
    values.sort()
    repeated: Ints = np.unique(values[1:][values[1:] == values[:-1]])
    return repeated
