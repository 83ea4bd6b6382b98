"""Check and describe a store: every row readable, unique ids, unit vectors, segments equal to the store."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from forclip.index.schema import FORMAT_VERSION
from forclip.index.segment_folder import FOLDER
from forclip.index.store import TABLE, Store, read_vectors
from forclip.index.view import Part, View

# Half precision changes a length in the fourth digit; int8 by half a step in each of some hundred dimensions.
_LENGTH_TOLERANCE = {"fp16": 0.02, "int8": 0.2}
_MAX_PROBLEMS = 20  # a damaged store may have one per image


def verify(store: Store, view: View) -> list[str]:
    """Read all of a store and return the first problems, one sentence each; none for a sound store."""
    return list(islice(_problems(store, view), _MAX_PROBLEMS))


def _problems(store: Store, view: View) -> Iterator[str]:
    keys: Counter[int] = Counter()
    ids: Counter[str] = Counter()
    try:
        for block in read_vectors(view.table, store.header.dim):
            keys.update(block.keys.tolist())
            names = block.images["id"].to_pylist()
            ids.update(names)
            lengths = np.linalg.norm(store.header.decode(block.codes), axis=1)
            for row in np.flatnonzero(~(np.abs(lengths - 1) < _LENGTH_TOLERANCE[store.header.precision])):
                owner = names[int(np.searchsorted(block.offsets, row, "right")) - 1]
                yield f"a vector of image {owner!r} has length {lengths[row]:.3g}"
            for position in np.flatnonzero(np.diff(block.offsets) < 1):
                yield f"image {names[position]!r} has no vector"
    except ValueError as error:
        yield f"rows can't be read: {error}"
        return
    yield from (f"image {i!r} is stored {n} times" for i, n in ids.items() if n > 1)
    yield from (f"key {key} is stored {n} times" for key, n in keys.items() if n > 1)
    if Counter(int(key) for p in view.parts for key in p.segment.keys[p.live]) != keys:
        yield "search does not cover the images of the store"
    for part in view.parts:
        if part.segment.folder is not None:
            yield from _differences(store, view, part)


def _differences(store: Store, view: View, part: Part) -> Iterator[str]:
    """Compare a segment on disk with the store, image by image."""
    segment = part.segment
    position_of = {int(key): position for position, key in enumerate(segment.keys)}
    for block in read_vectors(view.table, store.header.dim, segment.keys[part.live]):
        for row, key in enumerate(block.keys.tolist()):
            stored = store.header.decode(block.codes[block.offsets[row] : block.offsets[row + 1]])
            start, end = segment.offsets[position_of[key] : position_of[key] + 2].tolist()
            if not np.array_equal(segment.decode(slice(start, end)), stored):
                yield f"{segment.folder}: image key {key} differs from the store's"


def describe_store(store: Store, view: View) -> dict[str, Any]:
    """Describe a store and how it is searched, as JSON values.

    Sizes are bytes on disk; a part without an index is searched exactly.
    """
    header = store.header
    return {
        "images": len(view),
        "vectors": sum(p.num_vectors for p in view.parts),
        "dim": header.dim,
        "precision": header.precision,
        "fingerprint": header.fingerprint,
        "format_version": FORMAT_VERSION,
        "version": int(view.table.version),
        "columns": store.user_columns,
        "table_bytes": _bytes_below(store.folder / TABLE),
        "search_bytes": _bytes_below(store.folder / FOLDER),
        "parts": [_describe_part(p) for p in view.parts],
    }


def _describe_part(part: Part) -> dict[str, Any]:
    settings = {"kind": "none"} if part.index is None else asdict(part.index.settings)
    place = "memory" if part.in_memory else "mapped"
    index = {"index": settings.pop("kind"), **settings}
    return {"images": part.num_images, "vectors": part.num_vectors, "place": place, **index}


def _bytes_below(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
