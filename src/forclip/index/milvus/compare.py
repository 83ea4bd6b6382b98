"""Verify a published store: by itself, and against the store that it was published from."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from forclip.index.milvus.catalogue import PublishedImages
from forclip.index.milvus.index import MilvusIndex
from forclip.index.milvus.publish import MakeReduce
from forclip.index.milvus.server import CURRENT, MOST_ROWS, MilvusServer
from forclip.index.milvus.settings import PublishSettings
from forclip.index.milvus.source import Source
from forclip.index.milvus.vectors import read_stored
from forclip.index.schema import Codes
from forclip.index.store import Store
from forclip.progress import Advance, silent

_MOST_PROBLEMS = 20
_LENGTH_TOLERANCE = {"fp16": 0.02, "int8": 0.2}  # by the precision of the codes
_MERGED_TOLERANCE = 2e-3  # merging on another machine rounds differently
_IMAGES_AT_ONCE = 1000


def verify_published(index: MilvusIndex) -> list[str]:
    """Read all images of a published store and return the first problems, one sentence each; none for a sound one.

    Every image must have all its vectors, of unit length, and every vector an image.
    """
    view = index.view()
    return list(islice(_own_problems(index.server, view.settings, view.store), _MOST_PROBLEMS))


def compare_with_store(
    index: MilvusIndex, store: Store, make_reduce: MakeReduce, advance: Advance = silent
) -> list[str]:
    """Compare a published store with the store, image by image, and return the first problems, one sentence each.

    Both sides must have the same images with equal columns and vectors. make_reduce: as for `publish`; advance: is
    called with the number of images compared.
    """
    settings, stored = index.view().settings, store.header
    if settings.header.fingerprint != stored.fingerprint:
        return [f"{index.name} was published from a store of another model ({settings.header.model.get('name')!r})"]
    reduce = make_reduce(
        None if settings.header.merge == stored.merge else settings.header.merge,
        None if settings.header.max_vectors == stored.max_vectors else settings.header.max_vectors,
    )
    source = Source(store.table(), stored, settings.header, settings.columns, reduce)
    return list(islice(_differences(index, source, advance), _MOST_PROBLEMS))


def _own_problems(server: MilvusServer, settings: PublishSettings, images: PublishedImages) -> Iterator[str]:
    total = 0
    tolerance = _LENGTH_TOLERANCE[settings.header.precision]
    ids: dict[str, int] = {}
    rows = images.all(["id", "uri", "vectors"], consistency_level=CURRENT)
    while block := {row["image"]: row for row in islice(rows, _IMAGES_AT_ONCE)}:
        found = set[int]()
        for stored in read_stored(server, settings.header, settings.precision, block, consistency_level=CURRENT):
            found |= set(stored.keys.tolist())
            lengths = np.linalg.norm(settings.header.decode(stored.codes), axis=1)
            for at in np.flatnonzero(~(np.abs(lengths - 1) < tolerance)):
                owner = block[int(stored.keys[int(np.searchsorted(stored.offsets, at, "right")) - 1])]["id"]
                yield f"a vector of image {owner!r} has length {lengths[at]:.3g}"
        for key, row in block.items():
            total += row["vectors"]
            if key not in found:
                yield f"image {row['id']!r} lacks some of its {row['vectors']} vectors"
            if row["id"] in ids:
                yield f"image {row['id']!r} is published twice"
            ids[row["id"]] = key
    yield from _unowned(server, total)


def _unowned(server: MilvusServer, expected: int) -> Iterator[str]:
    """Name vectors without an image, if there are other than the expected number."""
    count = server.count(server.vectors, consistency_level=CURRENT)
    if count == expected:
        return
    yield f"there are {count} vectors, not {expected} as the images say"
    keys = {row["image"] for row in server.rows(server.vectors, ["image"], consistency_level=CURRENT)}
    wanted = sorted(keys)
    for start in range(0, len(wanted), MOST_ROWS // 8):
        part = wanted[start : start + MOST_ROWS // 8]
        rows = server.query(server.images, ["image"], ids=part, consistency_level=CURRENT)
        for key in sorted(set(part) - {row["image"] for row in rows}):
            yield f"vectors of key {key} have no image"


def _differences(index: MilvusIndex, source: Source, advance: Advance) -> Iterator[str]:
    server, view = index.server, index.view()
    settings, images = view.settings, view.store
    fields = ["id", "uri", "vectors", "digest"]
    published = {row["image"]: row for row in images.all(["id", "digest"], consistency_level=CURRENT)}
    keys, digests = source.digests()
    stored_keys = set(keys.tolist())
    for key in sorted(published.keys() - stored_keys):
        yield f"image {published[key]['id']!r} is published and not in the store"
    pairs = zip(keys.tolist(), digests.tolist(), strict=True)
    differing = {key for key, digest in pairs if published.get(key, {}).get("digest") != digest}
    total = 0
    for block in source.blocks():
        stored = block.stored
        wanted = [key for key in stored.keys.tolist() if key in published]
        rows = {row["image"]: row for row in server.query(server.images, fields, ids=wanted)} if wanted else {}
        total += sum(row["vectors"] for row in rows.values())
        theirs = {}
        for part in read_stored(server, settings.header, settings.precision, rows, consistency_level=CURRENT):
            for n, key in enumerate(part.keys.tolist()):
                theirs[key] = part.codes[part.offsets[n] : part.offsets[n + 1]]
        for n, (key, name) in enumerate(zip(stored.keys.tolist(), stored.images["id"].to_pylist(), strict=True)):
            own = stored.codes[stored.offsets[n] : stored.offsets[n + 1]]
            if key not in published:
                yield f"image {name!r} is not published"
            elif key not in theirs:
                yield f"image {name!r} lacks some of its vectors"
            elif not _same(own, theirs[key], source):
                yield f"image {name!r} has other vectors than in the store"
            elif key in differing:
                yield f"image {name!r} has other columns than in the store"
        advance(len(stored.keys))
    extra = sum(row["vectors"] for row in images.by_keys(sorted(published.keys() - stored_keys), ["vectors"]).values())
    yield from _unowned(server, total + extra)


def _same(own: Codes, other: Codes, source: Source) -> bool:
    if source.reduce is None:
        return np.array_equal(own, other)
    one, two = source.published.decode(own), source.published.decode(other)
    return one.shape == two.shape and bool(np.abs(one - two).max(initial=0) <= _MERGED_TOLERANCE)
