"""Approximate search of one segment: FAISS finds candidates among compressed vectors, the stored ones decide."""

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from forclip.index.faiss_lists import search_lists
from forclip.index.image_scores import Found, first_of_each, score_images
from forclip.index.scan import scan
from forclip.index.segment import Segment
from forclip.index.threads import side_by_side
from forclip.types import Bools, Floats, Ints

_FETCHED, _AT_THE_TOP = 2, 120  # vectors for each image that is compared, and more of the best ones, which have several
_WIDER = 4
_FEWEST = 10  # images: for fewer, as many are compared as for these
_NARROW = 0.1  # of the images allowed: below, candidates would mostly be refused


@dataclass(frozen=True)
class AnnSettings:
    """kind: FAISS' factory string; nprobe: lists that are searched, 0 where there are none; compared: images whose
    vectors are all compared, for each that is wanted; recall: share of the best 50 images that are found, over so many
    sampled queries."""

    kind: str
    nprobe: int
    compared: float
    recall: float
    queries: int


@dataclass(frozen=True)
class Shard:
    """FAISS' index of the compressed vectors of consecutive rows of a segment, from `start` on."""

    start: int
    index: Any


@dataclass(frozen=True)
class Ann:
    """Approximate search of a segment. Its shards are searched side by side."""

    shards: tuple[Shard, ...]
    settings: AnnSettings

    @property
    def num_vectors(self) -> int:
        return sum(int(shard.index.ntotal) for shard in self.shards)

    def candidates(self, queries: Floats, fetch: int) -> list[Ints]:
        """For each query [Q, dim] the rows of the nearest vectors as far as the compressed ones tell, best first: so
        many of each shard, or fewer where its searched lists hold no more."""
        asked, nprobe = np.ascontiguousarray(queries, np.float32), self.settings.nprobe
        if nprobe:
            (shard,) = self.shards
            return search_lists(shard.index, asked, fetch, nprobe)
        parts = side_by_side(lambda shard: shard.index.search(asked, fetch), self.shards)
        scores = np.concatenate([s for s, _ in parts], 1)
        there = np.concatenate([r >= 0 for _, r in parts], 1)
        rows = np.concatenate([r + shard.start for shard, (_, r) in zip(self.shards, parts, strict=True)], 1)
        orders = np.argsort(-scores, 1)
        return [r[order][t[order]] for r, t, order in zip(rows, there, orders, strict=True)]


def search_ann(segment: Segment, ann: Ann, queries: Floats, k: int, allowed: Bools | None = None) -> list[Found]:
    """For each unit query [Q, dim] the best k images, and more, as far as the index finds them, scored exactly. Exact
    search where few are allowed, or the index finds too few."""
    share = 1.0 if allowed is None else float(allowed.mean())
    if share < _NARROW:
        return [scan(segment, query, k, allowed) for query in queries]
    there = len(segment) if allowed is None else int(allowed.sum())
    wanted = min(math.ceil(ann.settings.compared * max(k, _FEWEST)), there)
    fetch = int((_FETCHED * wanted + _AT_THE_TOP) / share)
    images = _worth_comparing(segment, ann, queries, fetch, wanted, min(k, there), allowed)
    compared = sorted(images)
    found = dict(zip(compared, score_images(segment, queries[compared], [images[q] for q in compared]), strict=True))
    return [found.get(q) or scan(segment, query, k, allowed) for q, query in enumerate(queries)]


def _worth_comparing(
    segment: Segment, ann: Ann, queries: Floats, fetch: int, wanted: int, enough: int, allowed: Bools | None
) -> dict[int, Ints]:
    """By query, `wanted` images whose vectors are nearest, or `enough` where no more are found: none for a query for
    which fewer are. Fetches more and more candidates, from `fetch` on."""
    images: dict[int, Ints] = {}
    waiting = list(range(len(queries)))
    while waiting and fetch * _WIDER < segment.num_vectors:
        few = []
        for query, rows in zip(waiting, ann.candidates(queries[waiting], fetch), strict=True):
            owners = segment.owners(rows)
            if allowed is not None:
                owners = owners[allowed[owners]]
            first, exhausted = first_of_each(owners), len(rows) < fetch
            if len(first) >= wanted or (exhausted and len(first) >= enough):
                images[query] = owners[first[:wanted]]
            elif not exhausted:
                few.append(query)
        waiting = few
        fetch *= _WIDER
    return images


def save_ann(ann: Ann, folder: Path) -> dict[str, Any]:
    """Writes the index beside a segment's files. Returns what is to be known of it."""
    for place, shard in enumerate(ann.shards):
        faiss.write_index(shard.index, str(_file(folder, place)))
    return {"ann": asdict(ann.settings), "ann_shards": len(ann.shards)}


def load_ann(segment: Segment, folder: Path, known: dict[str, Any]) -> Ann | None:
    """What save_ann wrote, if anything, mapped. An index with other settings than these is as good as none: it was
    written by another version. Raises ValueError where it is damaged."""
    if set(known.get("ann", ())) != {f.name for f in fields(AnnSettings)}:
        return None
    try:
        files = [str(_file(folder, place)) for place in range(known["ann_shards"])]
        indexes = [faiss.read_index(file, faiss.IO_FLAG_MMAP_IFC) for file in files]
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{folder}: the index is damaged: {str(error)[:200]}") from None
    starts = np.cumsum([0, *(int(index.ntotal) for index in indexes)]).tolist()
    if starts[-1] != segment.num_vectors:
        raise ValueError(f"{folder}: the index has {starts[-1]} vectors, the segment {segment.num_vectors}")
    shards = tuple(Shard(start, index) for start, index in zip(starts, indexes, strict=False))
    return Ann(shards, AnnSettings(**known["ann"]))


def _file(folder: Path, shard: int) -> Path:
    return folder / f"ann-{shard}.faiss"
