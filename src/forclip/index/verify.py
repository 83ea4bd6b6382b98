"""Whether a store is sound: every row readable, every id once, unit vectors, everything derived in step."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from forclip.index.schema import FORMAT_VERSION, StoreHeader
from forclip.index.segment import Segment
from forclip.index.store import Store, StoredVectors, read_vectors
from forclip.index.view import Part, View

# Half precision moves a length in the fourth digit; int8 by half a step in each of some hundred dimensions.
_LENGTH_MAY_DIFFER = {"fp16": 0.02, "int8": 0.2}
_TOLD = 20


def verify(store: Store, view: View) -> list[str]:
    """What is wrong, a sentence each; empty for a sound store. Reads all of it."""
    problems = _Problems()
    keys: Counter[int] = Counter()
    ids: Counter[str] = Counter()
    try:
        for part in read_vectors(view.table, store.header.dim):
            keys.update(part.keys.tolist())
            names = part.images["id"].to_pylist()
            ids.update(names)
            problems.tell(_wrong_vectors(part, names, store.header))
    except (ValueError, OSError, RuntimeError) as error:
        problems.tell([f"rows can't be read: {str(error)[:300]}"])
        return problems.told
    problems.tell(f"image {i!r} is there {n} times" for i, n in ids.items() if n > 1)
    problems.tell(f"key {i} is there {n} times" for i, n in keys.items() if n > 1)
    alive = Counter(int(n) for p in view.parts for n in p.segment.keys[p.alive])
    if alive != keys:
        problems.tell(["what is searched are not the images of the store"])
    for p in view.parts:
        problems.tell(_out_of_step(store, view, p))
    return problems.told


class _Problems:
    """Keeps the first ones: a broken store may have one an image."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, problems: list[str] | Iterator[str]) -> None:
        for problem in problems:
            if len(self.told) < _TOLD:
                self.told.append(problem)


def _wrong_vectors(part: StoredVectors, names: list[str], header: StoreHeader) -> Iterator[str]:
    lengths = np.linalg.norm(header.decode(part.codes), axis=1)
    for row in np.flatnonzero(~(np.abs(lengths - 1) < _LENGTH_MAY_DIFFER[header.precision])):
        owner = names[int(np.searchsorted(part.offsets, row, "right")) - 1]
        yield f"a vector of image {owner!r} has length {lengths[row]:.3g}"
    for place in np.flatnonzero(np.diff(part.offsets) < 1):
        yield f"image {names[place]!r} has no vector"


def _out_of_step(store: Store, view: View, part: Part) -> Iterator[str]:
    """Whether a segment on disk holds what the store holds of the same keys."""
    segment = part.segment
    if segment.folder is None:
        return
    place_of = {int(n): place for place, n in enumerate(segment.keys)}
    for stored in read_vectors(view.table, store.header.dim, segment.keys[part.alive]):
        for place, key in enumerate(stored.keys.tolist()):
            mine = _of_image(segment, place_of[key])
            theirs = store.header.decode(stored.codes[stored.offsets[place] : stored.offsets[place + 1]])
            if mine.shape != theirs.shape or not np.array_equal(mine, theirs):
                yield f"{segment.folder}: image key {key} differs from the store's"


def _of_image(segment: Segment, place: int) -> np.ndarray:
    return segment.decoded(slice(int(segment.offsets[place]), int(segment.offsets[place + 1])))


def describe_index(store: Store, view: View) -> dict[str, Any]:
    """Sizes are bytes on disk; a part without an index is compared vector by vector."""
    header = store.header
    return {
        "images": len(view),
        "vectors": sum(p.num_vectors for p in view.parts),
        "dim": header.dim,
        "precision": header.precision,
        "fingerprint": header.fingerprint,
        "format_version": FORMAT_VERSION,
        "version": int(view.table.version),
        "columns": store.own_columns,
        "table_bytes": _bytes_below(store.folder / "images.lance"),
        "search_bytes": _bytes_below(store.folder / "search"),
        "parts": [_part(p) for p in view.parts],
    }


def _part(part: Part) -> dict[str, Any]:
    index = {"index": "none"} if part.ann is None else {"index": part.ann.settings.kind, **asdict(part.ann.settings)}
    index.pop("kind", None)
    place = "memory" if part.in_memory else "mapped"
    return {"images": int(part.alive.sum()), "vectors": part.num_vectors, "place": place, **index}


def _bytes_below(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
