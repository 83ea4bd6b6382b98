"""Approximate search of one segment: FAISS finds candidates among compressed vectors, the stored ones decide.

An index is chosen by size, and its settings are the cheapest that find what exact search finds on sampled queries.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from forclip.index.scan import Found, best_rows, scan, thread_pool
from forclip.index.segment import Segment
from forclip.types import Bools, Floats, Ints

FILE = "ann.faiss"
WANTED_RECALL = 0.99
_TUNED_FOR = 50  # images
_FETCHES = (5, 10, 20, 40, 80)  # vectors for each image that is wanted
_WIDER = 4
_TRAINING_VECTORS = 1 << 16
_ROUNDS = 10  # of k-means for the lists; FAISS' 25 find no better ones here

SCAN_BELOW = 250_000  # vectors: a scan of these takes a few milliseconds
_LISTS_FROM = 1_500_000  # vectors: below, comparing all compressed ones is as fast as it gets
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
class Ann:
    """A FAISS index over a segment's vectors, by row."""

    index: Any
    settings: AnnSettings

    def candidates(self, segment: Segment, query: Floats, fetch: int) -> Ints:
        """Rows of the vectors that seem nearest, best first; fewer where the searched lists hold no more."""
        nprobe = self.settings.nprobe
        params = faiss.SearchParametersIVF(nprobe=nprobe) if nprobe else None
        asked = np.ascontiguousarray(query[None], np.float32)
        _, rows = thread_pool().submit(self.index.search, asked, fetch, params=params).result()
        found: Ints = rows[0][rows[0] >= 0]
        return found


def search_ann(segment: Segment, ann: Ann, query: Floats, k: int, allowed: Bools | None = None) -> Found:
    """The best k images as far as the index finds them, with exact scores; exact search where few are allowed.

    Fetches more and more candidates until they are of k images.
    """
    share = 1.0 if allowed is None else float(allowed.mean())
    if share < _NARROW:
        return scan(segment, query, k, allowed)
    wanted = min(k, len(segment) if allowed is None else int(allowed.sum()))
    fetch = int(ann.settings.fetch * k / share)
    while fetch * _WIDER < segment.num_vectors:
        rows = ann.candidates(segment, query, fetch)
        exhausted = len(rows) < fetch
        if allowed is not None:
            rows = rows[allowed[segment.owners(rows)]]
        if len(np.unique(segment.owners(rows))) >= wanted:
            return _exactly(segment, query, best_rows(segment, query, rows), wanted)
        if exhausted:
            break
        fetch *= _WIDER
    return scan(segment, query, k, allowed)


def _exactly(segment: Segment, query: Floats, found: Found, k: int) -> Found:
    """The best k of the images found and what ties with them, each with its best vector, which need not have been among
    the candidates."""
    cut = len(found.scores) - k
    images = np.sort(found.images[found.scores >= np.partition(found.scores, cut)[cut]])
    rows = np.concatenate([np.arange(segment.offsets[i], segment.offsets[i + 1]) for i in images])
    return best_rows(segment, query, rows)


def planned_kind(num_vectors: int, dim: int) -> str | None:
    """FAISS' factory string for so many vectors: none, four bits for two dimensions, or these in lists."""
    if num_vectors < SCAN_BELOW:
        return None
    codes = f"PQ{dim // 2 if dim % 2 == 0 else dim}x4fs"
    if num_vectors < _LISTS_FROM:
        return codes
    lists = 2 ** int(math.log2(2 * math.sqrt(num_vectors)))
    return f"IVF{lists},{codes}"


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
        for start in range(0, segment.num_vectors, _TRAINING_VECTORS):
            index.add(_single(segment, slice(start, start + _TRAINING_VECTORS)))
    except RuntimeError as error:
        reason = str(error).splitlines()[0].split("Error: ")[-1]
        raise ValueError(f"FAISS can't build {kind!r} for {segment.num_vectors} vectors: {reason}") from None
    return Ann(index, tuned(segment, index, kind, lists, queries))


def tuned(segment: Segment, index: Any, kind: str, lists: int, queries: Floats) -> AnnSettings:
    """The fewest lists, and with these the fewest candidates, that reach WANTED_RECALL; else the most of both."""
    exact = [_top(scan(segment, q, _TUNED_FOR)) for q in queries]
    probes = [0] if not lists else [n for n in (lists >> s for s in range(6, -1, -1)) if n]
    best = AnnSettings(kind, probes[-1], _FETCHES[-1], 0.0, len(queries))
    for nprobe in probes:
        trial = Ann(index, AnnSettings(kind, nprobe, 0, 0.0, 0))
        rows = [trial.candidates(segment, q, min(_FETCHES[-1] * _TUNED_FOR, segment.num_vectors)) for q in queries]
        for fetch in _FETCHES:
            found = [_top(best_rows(segment, q, r[: fetch * _TUNED_FOR])) for q, r in zip(queries, rows, strict=True)]
            recall = float(np.mean([len(f & e) / len(e) for f, e in zip(found, exact, strict=True)]))
            best = AnnSettings(kind, nprobe, fetch, recall, len(queries))
            if recall >= WANTED_RECALL:
                return best
    return best


def sampled_queries(segment: Segment, count: int = 64, seed: int = 0) -> Floats:
    """Stand-ins where no text queries are at hand: stored vectors moved half-way to others, unit [count, dim]."""
    rng = np.random.default_rng(seed)
    one, other = (_single(segment, rng.integers(0, segment.num_vectors, count)) for _ in range(2))
    mixed = one + other
    unit: Floats = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    return unit


def save_ann(ann: Ann, folder: Path) -> dict[str, Any]:
    """Writes the index beside a segment's files. Returns what is to be known of it."""
    faiss.write_index(ann.index, str(folder / FILE))
    return {"ann": asdict(ann.settings)}


def load_ann(folder: Path, known: dict[str, Any]) -> Ann | None:
    """What save_ann wrote, if anything. Raises ValueError where it is damaged."""
    if "ann" not in known:
        return None
    try:
        return Ann(faiss.read_index(str(folder / FILE)), AnnSettings(**known["ann"]))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{folder / FILE}: damaged: {str(error)[:200]}") from None


def _single(segment: Segment, rows: Ints | slice) -> Floats:
    decoded: Floats = segment.decoded(rows).astype(np.float32)
    return decoded


def _top(found: Found) -> set[int]:
    order = np.lexsort((found.images, -found.scores))[:_TUNED_FOR]
    return set(found.images[order].tolist())
