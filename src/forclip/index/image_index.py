"""`Index`: add, delete, search and maintain the images of a store."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from forclip.bucket_path import BucketPath, StorePath
from forclip.index import TOP_K
from forclip.index.approximate_search import search_approximately
from forclip.index.column_changes import column_problems
from forclip.index.columns import is_readable
from forclip.index.create_store import create_store
from forclip.index.exact_search import ScoredImages, score_images, score_values, search_exactly
from forclip.index.image_rows import ImageRows
from forclip.index.optimize import MIN_SEGMENT_VECTORS, optimize
from forclip.index.picture_search import search_by_picture
from forclip.index.ranking import Ranking, rank_images
from forclip.index.schema import DESCRIBED_COLUMNS, FORMAT_VERSION, StoreHeader
from forclip.index.segment import Segment
from forclip.index.segment_folder import SegmentFolder
from forclip.index.store import ImageFile, Metadata, Store
from forclip.index.table import TABLE, StoredVectors, read_vectors
from forclip.index.verification import find_problems
from forclip.index.view import Part, View, Views
from forclip.types import Bools, Floats, ImageEmbeddings, Ints, SearchResult

_UNIT_TOLERANCE = 1e-2
_COLUMN_ROWS = 65_536  # in a block of columns without vectors
_MAX_PROBLEMS = 20  # a damaged store may have one per image


class Index:
    """A store that can be searched.

    An image's score is the largest cosine of its vectors with the query; the box of a result is that vector's. Scores
    are always exact, computed in double precision from the stored vectors. Large stores are searched approximately
    unless `exact=True`: about 99 % of the best images are found. `info` reports the share measured on sampled queries.

    An Index may be used by several threads, and any number of processes may open the same folder. Every search sees
    the newest version, whichever process wrote it, and only whole changes. One process writes at a time; others wait.
    Query vectors are unit length, float32, [dim].
    """

    most_results: int | None = None

    def __init__(self, folder: str | os.PathLike[str] | BucketPath) -> None:
        """Open a store: a local folder, or a URL such as s3://bucket/store.

        Raises ValueError if there is none, it is damaged or of another format version, or the bucket can't be reached.
        """
        self.store = Store(folder)
        self.segments = SegmentFolder(self.store.folder, self.store.header)
        self._views = Views(self.store, self.segments)
        self.store.locate = self._views.locate

    @property
    def name(self) -> str:
        """Where the store is, for messages."""
        return str(self.store.folder)

    @property
    def state_folder(self) -> StorePath:
        """The folder in which a service keeps what its users made, such as selections."""
        return self.store.folder

    @staticmethod
    def create(
        folder: str | os.PathLike[str] | BucketPath, header: StoreHeader, run: str | Path | None = None
    ) -> "Index":
        """Create a store, or open the one in the folder.

        run: folder of the trained run that writes the store, which keeps a copy of the run's head, class vectors and
        calibration. Raises ValueError if another model wrote an existing store, or the folder holds something else.
        """
        return Index(create_store(folder, header, None if run is None else Path(run)).folder)

    def add(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None = None) -> None:
        """Add new images, as `Store.add`. They are found at once."""
        self.store.add(embeddings, files, metadata)

    def put(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None = None) -> None:
        """Add or replace images, as `Store.put`. They are found at once."""
        self.store.put(embeddings, files, metadata)

    def delete(self, where: str) -> int:
        """Delete the images for which an SQL expression holds, and return how many. Raises ValueError for bad SQL."""
        return self.store.delete(where)

    def delete_ids(self, image_ids: Sequence[str]) -> int:
        """Delete images by id in one version, and return how many. Unknown ids are ignored."""
        return self.store.delete_ids(image_ids)

    def optimize(self, kind: str | None = None, queries: Floats | None = None, memory: int | None = None) -> None:
        """Make search faster on large stores; small ones do not need it. A kill at any time does no harm.

        kind: precision of the codes, "sq8" (8 bits a dimension), "rabitq4" or "rabitq1" (4 bits or 1 bit, RaBitQ); a
        FAISS factory string; "none"; or None to choose by size and keep existing indexes; queries: typical ones, unit
        [Q, dim], to measure recall with, by default mixtures of stored vectors; memory: bytes to use, by default half
        of what is free; less memory makes more segments, which are searched one after the other. Raises ValueError for
        a kind that FAISS cannot build, or if another process is optimizing the store.
        """
        optimize(self._views, kind, queries, memory)

    def needs_optimizing(self) -> bool:
        """Return whether so many images are new that opening the store is slow."""
        cover = self._views.cover()
        in_memory = sum(p.num_vectors for p in cover.parts if p.in_memory)
        return in_memory + cover.count_rest(self.store.header.dim) >= MIN_SEGMENT_VECTORS

    def compact(self, kind: str | None = None, memory: int | None = None) -> None:
        """Remove deleted images and old versions from the disk, then `optimize`."""
        self.store.compact()
        self.optimize(kind, memory=memory)

    def verify(self) -> list[str]:
        """Read all of the store and return the first problems, one sentence each; none for a sound store.

        Every row must be readable, ids unique, vectors of unit length, and the segments equal to the store.
        """
        schema = self.store.table().schema
        problems = column_problems(schema)
        if not all(map(is_readable, schema.names)):
            return problems  # Lance can't read the rest
        return [*problems, *islice(find_problems(self._views), _MAX_PROBLEMS)]

    def info(self) -> dict[str, Any]:
        """Describe the store and how it is searched, as JSON values.

        Sizes are bytes on disk; a part without an index is searched exactly.
        """
        cover, header, parts = self._views.cover(), self.store.header, []
        for part in cover.parts:
            settings = {"kind": "none"} if part.index is None else asdict(part.index.settings)
            place = "memory" if part.in_memory else "mapped"
            index = {"index": settings.pop("kind"), **settings}
            parts.append({"images": part.num_images, "vectors": part.num_vectors, "place": place, **index})
        if rest := len(cover.rest):
            vectors = sum(len(block.codes) for block in read_vectors(cover.table, header.dim, cover.rest))
            parts.append({"images": rest, "vectors": vectors, "place": "memory", "index": "none"})
        return {
            "images": len(cover),
            "vectors": sum(part["vectors"] for part in parts),
            "dim": header.dim,
            "precision": header.precision,
            "compute": header.compute,
            "merge": header.merge,
            "max_vectors": header.max_vectors,
            "fingerprint": header.fingerprint,
            "format_version": FORMAT_VERSION,
            "version": int(cover.table.version),
            "columns": self.store.user_columns,
            "roots": dict(self.store.roots.folders),
            "to_index_again": self.store.count_outdated(),
            "table_bytes": _bytes_below(self.store.folder / TABLE),
            "search_bytes": _bytes_below(self.segments.folder),
            "parts": parts,
        }

    def __len__(self) -> int:
        return len(self.store)

    def search(
        self, query: Floats, k: int = TOP_K, where: str | None = None, exact: bool = False
    ) -> list[SearchResult]:
        """Return the best k images for a unit query [dim], best first, ties by id.

        where: an SQL expression over the store's columns; exact: compare every vector. Raises ValueError for a query
        of another dimension or length, k below 1, or bad SQL.
        """
        return self.search_many(query[None], k, where, exact)[0]

    def search_many(
        self, queries: Floats, k: int = TOP_K, where: str | None = None, exact: bool = False
    ) -> list[list[SearchResult]]:
        """Search for unit queries [Q, dim] together: faster, with the results that `search` has for each."""
        return [list(ranking) for ranking in self.rankings(queries, k, where, exact)]

    def rankings(
        self,
        queries: Floats,
        k: int = TOP_K,
        where: str | None = None,
        exact: bool = False,
        view: View | None = None,
    ) -> list[Ranking]:
        """Search as `search_many`, for long lists that are read in part. view: the version to search, by default the
        newest."""
        self._check(queries, k)
        view = self.view() if view is None else view
        found = [self._search_part(view, part, queries, k, where, exact) for part in view.parts]
        return [
            rank_images([(p.segment, of_part[q]) for p, of_part in zip(view.parts, found, strict=True)], k, view.roots)
            for q in range(len(queries))
        ]

    def _search_part(
        self, view: View, part: Part, queries: Floats, k: int, where: str | None, exact: bool
    ) -> list[ScoredImages]:
        allowed: Bools | None = part.selected(where, view.matching)
        assert allowed is not None
        if (where is None and part.num_images == len(allowed)) or allowed.all():
            allowed = None
        if exact or part.index is None:
            return [search_exactly(part.segment, query, k, allowed) for query in queries]
        return search_approximately(part.segment, part.index, queries, k, allowed)

    def search_picture(
        self, queries: Floats, k: int = TOP_K, where: str | None = None, exact: bool = False
    ) -> list[SearchResult]:
        """Return the best k images for all vectors of a picture at once.

        queries: unit [Q, dim], the picture's vectors. An image's score is the mean over them of its largest cosine;
        its box is that of the vector nearest to any of them. In large segments only the images are scored that are
        near one of the queries, and of many those that are near most of them; with `exact` all images are. Raises
        ValueError as `search`.
        """
        self._check(queries, k)
        view = self.view()
        found = []
        for part in view.parts:
            index, selected = None if exact else part.index, part.selected(where, view.matching)
            found.append((part.segment, search_by_picture(part.segment, index, queries, k, selected)))
        return list(rank_images(found, k, view.roots))

    def search_among(
        self, image_ids: Sequence[str], query: Floats, k: int | None = None, where: str | None = None
    ) -> list[SearchResult]:
        """Search only these images, exactly; k: None for all of them. Unknown ids are left out."""
        count = max(1, len(image_ids)) if k is None else k
        self._check(query[None], count)
        return list(rank_images(self._score_among(image_ids, query, where), count, self.store.roots))

    def best_vectors(self, image_ids: Sequence[str], query: Floats) -> dict[str, Floats]:
        """Return for each image its vector [dim] nearest to a unit query, as stored. Unknown ids are left out."""
        self._check(query[None], 1)
        best: dict[str, Floats] = {}
        for segment, scored in self._score_among(image_ids, query):
            ids = segment.ids.take(scored.images)
            best |= dict(zip(ids, segment.decode(scored.rows).astype(np.float32), strict=True))
        return best

    def _score_among(
        self, image_ids: Sequence[str], query: Floats, where: str | None = None
    ) -> list[tuple[Segment, ScoredImages]]:
        view, found = self.view(), list[tuple[Segment, ScoredImages]]()
        for part in view.parts:
            images = part.positions(image_ids)
            if where is not None:
                images = images[part.selected(where, view.matching)[images]]
            if len(images):
                found += [(part.segment, scored) for scored in score_images(part.segment, query[None], [images])]
        return found

    def vectors_of(self, key: int) -> tuple[Floats, Floats] | None:
        """Return one image's vectors [N, dim] and boxes [N, 4] as stored, None for an unknown key."""
        for part in self.view().parts:
            for position in part.positions_of_keys(np.array([key])).tolist():
                rows = slice(*part.segment.offsets[position : position + 2].tolist())
                return part.segment.decode(rows).astype(np.float32), part.segment.boxes[rows].astype(np.float32)
        return None

    def image_vectors(self, image_ids: Sequence[str]) -> dict[str, Floats]:
        """Return each image's vectors, unit [N, dim], by id. Unknown ids are left out."""
        vectors: dict[str, Floats] = {}
        for part in self.view().parts:
            positions = part.positions(image_ids)
            for image_id, position in zip(part.segment.ids.take(positions), positions.tolist(), strict=True):
                vectors[image_id] = part.segment.unit_vectors(position)
        return vectors

    def mean_vectors(self, sample: int) -> tuple[Ints, Floats]:
        """Return the keys [n] and mean vectors, unit [n, dim], of all images, or of about `sample` random ones."""
        view = self.view()
        drawn = [(part.segment, at) for part, at in zip(view.parts, view.sample(sample, None), strict=True)]
        keys, means = [s.keys[at] for s, at in drawn], [s.mean_vectors(at) for s, at in drawn]
        no_means = np.empty((0, self.store.header.dim), np.float32)
        return np.concatenate([np.empty(0, np.int64), *keys]), np.concatenate([no_means, *means])

    def read_images(self, image_ids: Sequence[str]) -> Iterator[StoredVectors]:
        """Read images in blocks. Unknown ids are left out."""
        view = self.view()
        found = [p.addresses(p.positions(image_ids)) for p in view.parts]
        addresses = np.concatenate([np.empty(0, np.uint64), *found])
        return read_vectors(view.table, self.store.header.dim, addresses)

    def keys_of_ids(self, image_ids: Sequence[str]) -> dict[str, int]:
        """Return keys by id. Unknown ids are left out."""
        keys: dict[str, int] = {}
        for part in self.view().parts:
            positions = part.positions(image_ids)
            ids = part.segment.ids.take(positions)
            keys |= dict(zip(ids, part.segment.keys[positions].tolist(), strict=True))
        return keys

    def row_reader(self) -> ImageRows:
        """Return a reader of the images' columns by key, which keeps those of a small store in memory."""
        return ImageRows(self.view)

    def column_blocks(self) -> Iterator[pa.Table]:
        """Read the columns that filters may use, the user's own first, in blocks; at least one, which may be empty."""
        table, own = self.view().table, self.store.user_columns
        names = [*filter(is_readable, own), *DESCRIBED_COLUMNS]
        yield table.schema.empty_table().select(names)
        scanner = table.scanner(names, batch_size=_COLUMN_ROWS)
        yield from (pa.Table.from_batches([batch]) for batch in scanner.to_batches())

    def scores(self, query: Floats, sample: int | None = None, where: str | None = None) -> Floats:
        """Return the scores of all images, or of about `sample` random ones, in no order.

        where: an SQL expression that limits the images. Equal samples are of the same images until the store changes.
        """
        return self.scores_many(query[None], sample, where)[0]

    def scores_many(
        self, queries: Floats, sample: int | None = None, where: str | None = None, view: View | None = None
    ) -> list[Floats]:
        """Return `scores` for each of the unit queries [Q, dim]. view: as for `rankings`."""
        self._check(queries, 1)
        view = self.view() if view is None else view
        if sample is None:
            drawn = tuple(np.flatnonzero(part.selected(where, view.matching)) for part in view.parts)
        else:
            drawn = view.sample(sample, where)
        scores = [score_values(p.segment, queries, images) for p, images in zip(view.parts, drawn, strict=True)]
        return [np.concatenate([np.empty(0, np.float32), *(s[q] for s in scores)]) for q in range(len(queries))]

    def count(self, where: str | None = None, view: View | None = None) -> int:
        """Return how many images a search covers. Raises ValueError for bad SQL."""
        view = self.view() if view is None else view
        return len(view) if where is None else len(view.matching(where))

    def view(self) -> View:
        """Return the newest version, for several searches of the same images."""
        return self._views.newest()

    def _check(self, queries: Floats, k: int) -> None:
        dim = self.store.header.dim
        if queries.shape[1:] != (dim,):
            raise ValueError(f"a query has shape {queries.shape[1:]}, the store's vectors have {dim} dimensions")
        lengths = np.sqrt(np.vecdot(queries, queries))
        wrong = lengths[~(abs(lengths - 1) < _UNIT_TOLERANCE)]
        if len(wrong):
            raise ValueError(f"a query has length {wrong[0]:.3g}, not 1")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")


def _bytes_below(folder: StorePath) -> int:
    if isinstance(folder, BucketPath):
        return sum(folder.sizes().values())
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
