"""Approximate search of one segment: FAISS finds candidates among compressed vectors, the stored ones decide.

An index is chosen by size, and its settings are the cheapest that find what exact search finds on sampled queries.
"""

import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from forclip.index.scan import ROUNDING, Found, first_of_each, scan, score_images
from forclip.index.segment import Segment
from forclip.index.threads import side_by_side
from forclip.types import Bools, Floats, Ints

WANTED_RECALL = 0.995  # of sampled queries, so that others find 99 % as well
_TUNED_FOR = 50  # images
_FETCHES = (3, 5, 8, 12, 20, 40, 80)  # vectors for each image that is wanted
_WIDER = 4
_FEWEST = 10  # images: for fewer, as many vectors are fetched as for these
_TRAINING_VECTORS = 1 << 16
_SHARD_VECTORS = 250_000  # for each thread that searches; one takes a millisecond for them,
_SHARD_IN_LISTS = 1_000_000  # and less where they are in lists
_MOST_SHARDS = 8
_ROUNDS = 10  # of k-means for the lists; FAISS' 25 find no better ones here

SCAN_BELOW = 250_000  # vectors: a scan of these takes a few milliseconds
_FEW_LISTS = 4  # one in that many: to search more takes longer than to compare all vectors one after the other
_NARROW = 0.1  # of the images allowed: below, candidates would mostly be refused


@dataclass(frozen=True)
class AnnSettings:
    """kind: FAISS' factory string; nprobe: lists that are searched, 0 where there are none; fetch: vectors for each
    image that is wanted; recall: share of the best 50 images that are found, over so many sampled queries."""

    kind: str
    nprobe: int
    fetch: int
    recall: float
    queries: int


@dataclass(frozen=True)
class Shard:
    """Consecutive rows of a segment from `start` on. index: FAISS' index of their compressed vectors; refined: that,
    with candidates compared once more by the vectors as they are stored."""

    start: int
    index: Any
    refined: Any


@dataclass(frozen=True)
class Ann:
    """Approximate search of a segment. Its shards are searched side by side."""

    shards: tuple[Shard, ...]
    settings: AnnSettings

    @property
    def num_vectors(self) -> int:
        return sum(int(shard.index.ntotal) for shard in self.shards)

    def candidates(self, segment: Segment, query: Floats, fetch: int) -> tuple[Floats, Ints]:
        """Cosines and rows of the nearest vectors that are found, best first: as many of each shard, or fewer where its
        searched lists hold no more."""
        asked = segment.asked(query[None])
        nprobe = self.settings.nprobe
        lists = faiss.SearchParametersIVF(nprobe=nprobe) if nprobe else None
        params = faiss.IndexRefineSearchParameters(k_factor=1.0, base_index_params=lists)
        parts = side_by_side(lambda shard: shard.refined.search(asked, fetch, params=params), self.shards)
        scores = np.concatenate([s[0] for s, _ in parts])
        rows = np.concatenate([r[0] + shard.start for shard, (_, r) in zip(self.shards, parts, strict=True)])
        there = np.concatenate([r[0] >= 0 for _, r in parts])
        order = np.argsort(-scores[there])
        return scores[there][order], rows[there][order]


def search_ann(segment: Segment, ann: Ann, query: Floats, k: int, allowed: Bools | None = None) -> Found:
    """The best k images as far as the index finds them, with exact scores; exact search where few are allowed.

    Fetches more and more candidates until they are of k images.
    """
    share = 1.0 if allowed is None else float(allowed.mean())
    if share < _NARROW:
        return scan(segment, query, k, allowed)
    wanted = min(k, len(segment) if allowed is None else int(allowed.sum()))
    fetch = int(ann.settings.fetch * max(k, _FEWEST) / share)
    while fetch * _WIDER < segment.num_vectors:
        scores, rows = ann.candidates(segment, query, fetch)
        exhausted = len(rows) < fetch
        if allowed is not None:
            kept = allowed[segment.owners(rows)]
            scores, rows = scores[kept], rows[kept]
        first = first_of_each(segment.owners(rows))
        if len(first) >= wanted:
            best = rows[first[scores[first] >= scores[first[wanted - 1]] - ROUNDING]]
            # An image's best vector need not have been among the candidates.
            return score_images(segment, query, segment.owners(best))
        if exhausted:
            break
        fetch *= _WIDER
    return scan(segment, query, k, allowed)


def codes_for(dim: int) -> str:
    """FAISS' name of the compressed vectors: four bits for two dimensions, compared by fast scan."""
    return f"PQ{dim // 2 if dim % 2 == 0 else dim}x4fs"


def build_for_size(segment: Segment, queries: Floats) -> Ann | None:
    """None for a segment that is scanned in a few milliseconds. Else compressed vectors in inverted lists, or, where
    most of the lists would have to be searched, all of them side by side. queries: as build_ann takes them."""
    if segment.num_vectors < SCAN_BELOW:
        return None
    codes = codes_for(segment.header.dim)
    lists = 2 ** int(math.log2(2 * math.sqrt(segment.num_vectors)))
    ann = build_ann(segment, f"IVF{lists},{codes}", queries)
    return ann if ann.settings.nprobe * _FEW_LISTS <= lists else build_ann(segment, codes, queries)


def build_ann(segment: Segment, kind: str, queries: Floats, seed: int = 0) -> Ann:
    """Trains on a sample, adds all vectors and chooses settings. queries: unit [Q, dim], such as are to be expected.

    Raises ValueError for a kind that FAISS does not know or can't build.
    """
    try:
        index = faiss.index_factory(segment.header.dim, kind, faiss.METRIC_INNER_PRODUCT)
        inverted = faiss.try_extract_index_ivf(index)
        if inverted is not None:
            inverted.cp.niter = _ROUNDS
        lists = 0 if inverted is None else int(inverted.nlist)
        sample = min(segment.num_vectors, max(_TRAINING_VECTORS, 40 * lists))
        chosen = np.sort(np.random.default_rng(seed).choice(segment.num_vectors, sample, replace=False))
        index.train(_single(segment, chosen))
        shards = _filled(segment, index)
    except RuntimeError as error:
        reason = str(error).splitlines()[0].split("Error: ")[-1]
        raise ValueError(f"FAISS can't build {kind!r} for {segment.num_vectors} vectors: {reason}") from None
    return Ann(shards, tuned(segment, shards, kind, lists, queries))


def _filled(segment: Segment, trained: Any) -> tuple[Shard, ...]:
    """Copies of a trained index, each with its share of the vectors."""
    size = _SHARD_VECTORS if faiss.try_extract_index_ivf(trained) is None else _SHARD_IN_LISTS
    count = min(_MOST_SHARDS, 2 ** max(0, round(math.log2(max(1, segment.num_vectors / size)))))
    edges = np.linspace(0, segment.num_vectors, count + 1).astype(int).tolist()
    shards = []
    for start, end in pairwise(edges):
        index = faiss.clone_index(trained)
        for at in range(start, end, _TRAINING_VECTORS):
            index.add(_single(segment, slice(at, min(end, at + _TRAINING_VECTORS))))
        shards.append(_shard(segment, start, index))
    return tuple(shards)


def _shard(segment: Segment, start: int, index: Any) -> Shard:
    return Shard(start, index, faiss.IndexRefine(index, segment.flat_of(start, start + int(index.ntotal))))


def tuned(segment: Segment, shards: tuple[Shard, ...], kind: str, lists: int, queries: Floats) -> AnnSettings:
    """The fewest lists, and with these the fewest candidates, that reach WANTED_RECALL; else the most of both."""
    exact = [_top(scan(segment, q, _TUNED_FOR)) for q in queries]

    def recall(nprobe: int, fetch: int) -> AnnSettings:
        trial = Ann(shards, AnnSettings(kind, nprobe, fetch, 0.0, len(queries)))
        found = [_top(search_ann(segment, trial, q, _TUNED_FOR)) for q in queries]
        share = np.mean([len(f & e) / len(e) for f, e in zip(found, exact, strict=True)])
        return replace(trial.settings, recall=float(share))

    probes = [0] if not lists else [n for n in (lists >> s for s in range(6, -1, -1)) if n]
    for nprobe in probes:
        most = recall(nprobe, _FETCHES[-1])
        if most.recall >= WANTED_RECALL:
            tried = (recall(nprobe, fetch) for fetch in _FETCHES)
            return next(found for found in tried if found.recall >= WANTED_RECALL)
    return most


def sampled_queries(segment: Segment, count: int = 64, seed: int = 0) -> Floats:
    """Stand-ins where no text queries are at hand: stored vectors moved half-way to others, unit [count, dim]."""
    rng = np.random.default_rng(seed)
    one, other = (_single(segment, rng.integers(0, segment.num_vectors, count)) for _ in range(2))
    mixed = one + other
    unit: Floats = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    return unit


def save_ann(ann: Ann, folder: Path) -> dict[str, Any]:
    """Writes the index beside a segment's files. Returns what is to be known of it."""
    for place, shard in enumerate(ann.shards):
        faiss.write_index(shard.index, str(_file(folder, place)))
    return {"ann": asdict(ann.settings), "ann_shards": len(ann.shards)}


def load_ann(segment: Segment, folder: Path, known: dict[str, Any]) -> Ann | None:
    """What save_ann wrote, if anything. Raises ValueError where it is damaged."""
    if "ann" not in known:
        return None
    try:
        indexes = [faiss.read_index(str(_file(folder, place))) for place in range(known["ann_shards"])]
        starts = np.cumsum([0, *(int(index.ntotal) for index in indexes)]).tolist()
        if starts[-1] != segment.num_vectors:
            raise ValueError(f"{folder}: the index has {starts[-1]} vectors, the segment {segment.num_vectors}")
        shards = tuple(_shard(segment, start, index) for start, index in zip(starts, indexes, strict=False))
        return Ann(shards, AnnSettings(**known["ann"]))
    except (RuntimeError, TypeError, KeyError) as error:
        raise ValueError(f"{folder}: the index is damaged: {str(error)[:200]}") from None


def _file(folder: Path, shard: int) -> Path:
    return folder / f"ann-{shard}.faiss"


def _single(segment: Segment, rows: Ints | slice) -> Floats:
    decoded: Floats = segment.decoded(rows).astype(np.float32)
    return decoded


def _top(found: Found) -> set[int]:
    order = np.lexsort((found.images, -found.scores))[:_TUNED_FOR]
    return set(found.images[order].tolist())
