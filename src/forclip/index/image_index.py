"""`Index`: add, delete, search and look after a store, from any number of processes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from forclip.index.ann import search_ann
from forclip.index.derived import KEEP_BELOW, DerivedFolder
from forclip.index.image_scores import Found, best_scores, found_by_any, score_by_all
from forclip.index.optimize import optimize
from forclip.index.ranking import Ranking, ranked
from forclip.index.scan import scan
from forclip.index.schema import StoreHeader
from forclip.index.segment import Segment
from forclip.index.store import ImageFile, Metadata, Store, create_store, read_keys, read_vectors
from forclip.index.verify import describe_index, verify
from forclip.index.view import Part, View, Views, in_sorted
from forclip.types import Bools, Floats, ImageEmbeddings, Ints, SearchResult

_UNIT = 1e-2  # how far from 1 a query's length may be
_FILTERS_KEPT = 16
_OF_EACH_VECTOR = 50  # images at least, of those that are compared by all vectors of a picture


class Index:
    """A store that is searched. Every search sees the newest version, whoever wrote it."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError where there is no store, or it is damaged or of another format version."""
        self.store = Store(folder)
        self.derived = DerivedFolder(self.store)
        self._views = Views(self.store, self.derived)
        self._filters: dict[tuple[int, str], Ints] = {}
        self._samples: tuple[View | None, dict[tuple[int | None, int, str | None], tuple[Ints, ...]]] = (None, {})

    @staticmethod
    def create(folder: Path, header: StoreHeader) -> "Index":
        """A new store, or the one there. Raises ValueError as create_store does."""
        return Index(create_store(folder, header).folder)

    def add(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None = None) -> None:
        """As Store.add; searchable at once."""
        self.store.add(embeddings, files, metadata)

    def put(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None = None) -> None:
        """As Store.put; searchable at once."""
        self.store.put(embeddings, files, metadata)

    def delete(self, where: str) -> int:
        """As Store.delete."""
        return self.store.delete(where)

    def delete_ids(self, image_ids: Sequence[str]) -> int:
        """As Store.delete_ids."""
        return self.store.delete_ids(image_ids)

    def optimize(self, kind: str | None = None, queries: Floats | None = None) -> None:
        """As forclip.index.optimize.optimize. Searching works without; on large stores it is faster with it."""
        optimize(self.store, self.derived, self._views, kind, queries)

    def worth_optimizing(self) -> bool:
        """Whether so much was added that the next to open the store would wait for it to be read."""
        return sum(p.num_vectors for p in self.view().parts if p.in_memory) >= KEEP_BELOW

    def compact(self, kind: str | None = None) -> None:
        """As Store.compact, and then optimize."""
        self.store.compact()
        self.optimize(kind)

    def verify(self) -> list[str]:
        """What is wrong with the store, a sentence each; empty for a sound one. Reads all of it."""
        return verify(self.store, self.view())

    def info(self) -> dict[str, Any]:
        """What the store holds and how it is searched, as plain JSON values. Sizes are bytes on disk."""
        return describe_index(self.store, self.view())

    def __len__(self) -> int:
        return int(self.store.table().count_rows())

    def search(self, query: Floats, k: int = 50, where: str | None = None, exact: bool = False) -> list[SearchResult]:
        """The best k images for a unit query [dim], best first, ties by id. Scores are exact in any case.

        where: an SQL expression over the store's columns. exact: compare every vector; else large segments are searched
        through their index. Raises ValueError for a query of another dimension or length, k below 1, or bad SQL.
        """
        return self.search_many(query[None], k, where, exact)[0]

    def search_many(
        self, queries: Floats, k: int = 50, where: str | None = None, exact: bool = False
    ) -> list[list[SearchResult]]:
        """As search, for unit queries [Q, dim] together: each finds what it finds alone."""
        return [list(ranking) for ranking in self.rankings(queries, k, where, exact)]

    def rankings(
        self, queries: Floats, k: int = 50, where: str | None = None, exact: bool = False, view: View | None = None
    ) -> list[Ranking]:
        """As search_many, for lists that are long and looked at in part. view: the version to search, None: the
        newest."""
        self._check(queries, k)
        view = self.view() if view is None else view
        found = [self._search(view, part, queries, k, where, exact) for part in view.parts]
        segments = [part.segment for part in view.parts]
        of_queries = zip(*found, strict=True) if found else [()] * len(queries)
        return [ranked(list(zip(segments, of_query, strict=True)), k) for of_query in of_queries]

    def search_picture(
        self, queries: Floats, k: int = 50, where: str | None = None, exact: bool = False
    ) -> list[SearchResult]:
        """The best k images for all of a picture's vectors at once: forclip.index.image_scores.

        queries: unit [Q, dim]. Compared are the images that are among the best k, at least 50, for one of them; with
        `exact`, all images. box: of the vector that is nearest to any query. Raises ValueError as `search` does.
        """
        self._check(queries, k)
        view, wanted = self._views.newest(), max(k, _OF_EACH_VECTOR)
        found = []
        for part in view.parts:
            if exact:
                images = np.flatnonzero(self._searched(view, part, where))
            else:
                images = found_by_any(self._search(view, part, queries, wanted, where, False))
            if len(images):
                found.append((part.segment, score_by_all(part.segment, queries, images)))
        return list(ranked(found, k))

    def search_among(
        self, image_ids: Sequence[str], query: Floats, k: int | None = None, where: str | None = None
    ) -> list[SearchResult]:
        """As search, of these images alone, every vector compared: the best k, or all. Ids that are not there are left
        out."""
        count = max(1, len(image_ids)) if k is None else k
        return list(ranked(self._among(image_ids, query, count, where), count))

    def best_vectors(self, image_ids: Sequence[str], query: Floats) -> dict[str, Floats]:
        """Of each of these images its vector nearest to a unit query, [dim] as stored. Ids that are not there are left
        out."""
        best: dict[str, Floats] = {}
        for segment, found in self._among(image_ids, query, max(1, len(image_ids))):
            ids = segment.ids.take(pa.array(found.images)).to_pylist()
            best |= dict(zip(ids, segment.decoded(found.rows).astype(np.float32), strict=True))
        return best

    def vectors_of(self, key: int) -> tuple[Floats, Floats] | None:
        """One image's vectors [N, dim] and their places [N, 4], as stored; None where it is not there."""
        header = self.store.header
        for stored in read_vectors(self.store.table(), header.dim, np.array([key])):
            return header.decode(stored.codes).astype(np.float32), stored.boxes.astype(np.float32)
        return None

    def files_of(self, image_ids: Sequence[str]) -> dict[str, ImageFile]:
        """By image id; those that are not there are left out."""
        return self.store.files(image_ids)

    def scores(self, query: Floats, sample: int | None = None, seed: int = 0, where: str | None = None) -> Floats:
        """Of all images, or of about so many drawn at random: how a query's scores are spread. In no order.

        where: draw from the images for which that holds. The same seed draws the same ones until the store changes."""
        return self.scores_many(query[None], sample, seed, where)[0]

    def scores_many(
        self,
        queries: Floats,
        sample: int | None = None,
        seed: int = 0,
        where: str | None = None,
        view: View | None = None,
    ) -> list[Floats]:
        """As scores, for unit queries [Q, dim] together. view: as in `rankings`."""
        self._check(queries, 1)
        view = self.view() if view is None else view
        drawn = self._drawn(view, sample, seed, where)
        found = [best_scores(p.segment, queries, places) for p, places in zip(view.parts, drawn, strict=True)]
        nothing = np.empty(0, np.float32)
        return [np.concatenate([nothing, *(of_part[q] for of_part in found)]) for q in range(len(queries))]

    def count(self, where: str | None = None, view: View | None = None) -> int:
        """Images that are searched. Raises ValueError for bad SQL."""
        view = self.view() if view is None else view
        return len(view) if where is None else len(self._matching(view, where))

    def view(self) -> View:
        """The newest version, ready to search."""
        return self._views.newest()

    def _search(self, view: View, part: Part, queries: Floats, k: int, where: str | None, exact: bool) -> list[Found]:
        allowed = part.allowed if where is None else self._searched(view, part, where)
        if exact or part.ann is None:
            return [scan(part.segment, query, k, allowed) for query in queries]
        return search_ann(part.segment, part.ann, queries, k, allowed)

    def _searched(self, view: View, part: Part, where: str | None) -> Bools:
        """[images] of a part's segment that are there, and for which `where` holds."""
        return part.alive if where is None else part.alive & in_sorted(part.segment.keys, self._matching(view, where))

    def _drawn(self, view: View, sample: int | None, seed: int, where: str | None) -> tuple[Ints, ...]:
        """Places in each part. The last samples of a view are kept: text after text is placed by the same images."""
        of_view, samples = self._samples
        if of_view is not view:
            samples = {}
            self._samples = (view, samples)
        key = (sample, seed, where)
        drawn = samples.get(key)
        if drawn is None:
            drawn = self._draw(view, sample, seed, where)
            if sample is not None:
                samples[key] = drawn
            while len(samples) > _FILTERS_KEPT:
                samples.pop(next(iter(samples)), None)
        return drawn

    def _draw(self, view: View, sample: int | None, seed: int, where: str | None) -> tuple[Ints, ...]:
        searched = [self._searched(view, p, where) for p in view.parts]
        count = sum(int(s.sum()) for s in searched)
        rng, share = np.random.default_rng(seed), 1.0 if sample is None else sample / max(1, count)
        return tuple(np.flatnonzero(s & (rng.random(len(s)) < share)) for s in searched)

    def _among(
        self, image_ids: Sequence[str], query: Floats, k: int, where: str | None = None
    ) -> list[tuple[Segment, Found]]:
        self._check(query[None], k)
        view = self._views.newest()
        found = []
        for part in view.parts:
            among_them = np.zeros(len(part.segment), bool)
            among_them[part.places(image_ids)] = True
            among_them &= self._searched(view, part, where)
            found.append((part.segment, scan(part.segment, query, k, among_them)))
        return found

    def _matching(self, view: View, where: str) -> Ints:
        """Keys in ascending order. The last filters are kept: pages of one list ask for the same."""
        kept_as = (int(view.table.version), where)
        keys = self._filters.get(kept_as)
        if keys is None:
            keys = self._filters[kept_as] = np.sort(read_keys(view.table, where))
            while len(self._filters) > _FILTERS_KEPT:
                self._filters.pop(next(iter(self._filters)), None)
        return keys

    def _check(self, queries: Floats, k: int) -> None:
        dim = self.store.header.dim
        if queries.shape[1:] != (dim,):
            raise ValueError(f"a query has shape {queries.shape[1:]}, the store's vectors have {dim} dimensions")
        lengths = np.linalg.norm(queries, axis=1)
        wrong = lengths[~(abs(lengths - 1) < _UNIT)]
        if len(wrong):
            raise ValueError(f"a query has length {wrong[0]:.3g}, not 1")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
