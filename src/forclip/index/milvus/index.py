"""`MilvusIndex`: search a published store as a store's own `Index` does."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from forclip.index import TOP_K
from forclip.index.exact_search import ScoredImages, score_images, score_values
from forclip.index.milvus.address import parse_address
from forclip.index.milvus.catalogue import PublishedImages, Row, state_folder
from forclip.index.milvus.columns import FILTERABLE
from forclip.index.milvus.server import MOST_ROWS, MilvusServer
from forclip.index.milvus.settings import PublishSettings, SearchSettings, read_settings, read_version
from forclip.index.milvus.vectors import query_values, read_stored
from forclip.index.picture_search import MIN_WANTED, most_compared, most_voted, rank_by_all
from forclip.index.ranking import Ranking, rank_images
from forclip.index.schema import DESCRIBED_COLUMNS
from forclip.index.segment import Segment, segment_in_memory
from forclip.index.table import StoredVectors
from forclip.types import Floats, Ints, SearchResult

_UNIT_TOLERANCE = 1e-2
_MIN_IMAGES = 10  # fewer wanted images are searched as if these many were
_GROWTH = 4
_QUERIES_AT_ONCE = 64
_MOST_SCANNED = 2_000_000  # vectors that an exact search reads over the network
_CHECK_SECONDS = 2.0  # between two looks at the server for a newer version
_CACHED = 4  # samples and counts of a view
_ROUNDING = {"fp32": 1e-5, "fp16": 2e-3}  # of a score that Milvus computed
_DRAWN = 2**31  # draws of images are below this
_IMAGE_FIELDS = ("uri", "vectors")
_COLUMN_ROWS = 16_384  # in a block of columns


class MilvusView:
    """One version of a published store: its images are counted and sampled once.

    Milvus keeps no old versions, so a search sees the newest images whatever the view.
    """

    def __init__(self, index: "MilvusIndex", settings: PublishSettings, number: int) -> None:
        self.settings, self.number, self.store = settings, number, PublishedImages(index.server, settings)
        server, store = index.server, self.store
        self.count: Callable[[str | None], int] = lru_cache(16)(
            lambda where: server.count(server.images, store.condition(where))
        )
        self.sample: Callable[[int, str | None], list[Segment]] = lru_cache(_CACHED)(self._draw)

    @cached_property
    def num_vectors(self) -> int:
        return self.store.server.count(self.store.server.vectors)

    def _draw(self, size: int, where: str | None) -> list[Segment]:
        """Return about `size` random images. Equal samples are of the same images until the version changes."""
        rows = self.draw_rows(size, where)
        stored = read_stored(self.store.server, *self.layout, rows)
        return [segment_in_memory(self.store.header, stored)] if rows else []

    def draw_rows(self, size: int, where: str | None = None) -> dict[int, Row]:
        """Return the rows of the images that `sample` draws."""
        limit = int(min(1.0, size / max(1, self.count(where))) * _DRAWN)
        condition = f"draw < {limit}" + (f" AND {self.store.condition(where)}" if where else "")
        server = self.store.server
        return {row["image"]: row for row in server.rows(server.images, ["image", "id", *_IMAGE_FIELDS], condition)}

    @property
    def layout(self) -> tuple[Any, Any]:
        """The header and the precision, as `read_stored` takes them."""
        return self.settings.header, self.settings.precision


class MilvusIndex:
    """A published store. Methods are those of `forclip.index.image_index.Index`, except those that change images.

    Milvus finds candidates among its vectors; their images' stored vectors are then read and scored as `Index` does,
    so scores, boxes and the order of ties are the same. Searches see what was published some seconds ago at the latest.
    """

    most_results: int | None = MOST_ROWS  # images in a list

    def __init__(self, address: str | MilvusServer) -> None:
        """Connect to a published store. Raises ValueError if there is none, or no server answers."""
        self.server = MilvusServer(parse_address(address)) if isinstance(address, str) else address
        self._lock = Lock()
        self._current: MilvusView | None = None
        self._checked = -math.inf
        read_settings(self.server)
        self.server.load()

    @property
    def name(self) -> str:
        return str(self.server.address)

    @property
    def state_folder(self) -> Path:
        folder = state_folder(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def store(self) -> PublishedImages:
        return self.view().store

    @property
    def is_certain(self) -> bool:
        """Whether Milvus compares every vector, so that every search is exact."""
        settings = self.view().settings
        return settings.index.is_exact and settings.precision in _ROUNDING

    def view(self) -> MilvusView:
        """Return the newest version, for several searches of the same images."""
        with self._lock:
            if self._current is None or time.monotonic() - self._checked > _CHECK_SECONDS:
                number = read_version(self.server).number
                if self._current is None or self._current.number != number:
                    self._current = MilvusView(self, read_settings(self.server), number)
                self._checked = time.monotonic()
            return self._current

    def refresh(self) -> None:
        """Look at the server for a newer version before the next search."""
        self._current = None

    def __len__(self) -> int:
        return self.count()

    def count(self, where: str | None = None, view: MilvusView | None = None) -> int:
        return (view or self.view()).count(where)

    def info(self) -> dict[str, Any]:
        """Describe the published store, as JSON values."""
        view = self.view()
        settings, header = view.settings, view.settings.header
        return {
            "images": len(self),
            "vectors": view.num_vectors,
            "dim": header.dim,
            "precision": settings.precision,
            "merge": header.merge,
            "max_vectors": header.max_vectors,
            "fingerprint": header.fingerprint,
            "version": view.number,
            "store": settings.store,
            "server": self.server.version,
            "columns": [column.name for column in settings.columns],
            "roots": dict(view.store.roots.folders),
            "to_index_again": view.store.count_outdated(),
            "index": settings.index.kind,
            "index parameters": dict(settings.index.build),
            "search parameters": dict(settings.search.params),
            "compared": settings.search.compared,
            "recall": settings.search.recall,
        }

    def search(
        self, query: Floats, k: int = TOP_K, where: str | None = None, exact: bool = False
    ) -> list[SearchResult]:
        return self.search_many(query[None], k, where, exact)[0]

    def search_many(
        self, queries: Floats, k: int = TOP_K, where: str | None = None, exact: bool = False
    ) -> list[list[SearchResult]]:
        return [list(ranking) for ranking in self.rankings(queries, k, where, exact)]

    def rankings(
        self,
        queries: Floats,
        k: int = TOP_K,
        where: str | None = None,
        exact: bool = False,
        view: MilvusView | None = None,
    ) -> list[Ranking]:
        """Search as `Index.rankings`.

        exact: compare every vector. Where Milvus's index does not, all vectors are read over the network. Raises
        ValueError for k above 16,384, and for an exact search of too many vectors.
        """
        view = view or self.view()
        self._check(view, queries, k)
        found: list[Ranking] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            found += self._rank(view, queries[start : start + _QUERIES_AT_ONCE], k, where, exact)
        return found

    def search_with(self, queries: Floats, k: int, search: SearchSettings) -> list[Ranking]:
        """Search with other settings than the published ones, to measure them."""
        view = self.view()
        wanted = min(MOST_ROWS, math.ceil(search.compared * max(k, _MIN_IMAGES)))
        found: list[Ranking] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            part = queries[start : start + _QUERIES_AT_ONCE]
            candidates = self._candidates(view, part, wanted, None, search.params)
            found += self._rank_images(view, part, [keys for keys, _ in candidates], k)
        return found

    def search_picture(
        self, queries: Floats, k: int = TOP_K, where: str | None = None, exact: bool = False
    ) -> list[SearchResult]:
        view = self.view()
        self._check(view, queries, k)
        if exact:
            keys = [row["image"] for row in self._all_images(view, where)]
        else:
            search = view.settings.search
            wanted = min(MOST_ROWS, math.ceil(search.compared * max(k, MIN_WANTED)))
            params = {} if self.is_certain else search.params
            lists = [nearest for nearest, _ in self._candidates(view, queries, wanted, where, params)]
            per_image = view.num_vectors / max(1, view.count(None))
            keys = most_voted(lists, most_compared(len(queries), per_image, k)).tolist()
        found = []
        for segment in self._segments(view, keys):
            found.append(_kept(segment, rank_by_all(segment, queries, k, np.arange(len(segment)))))
        return list(rank_images(found, k, view.store.roots))

    def search_among(
        self, image_ids: Sequence[str], query: Floats, k: int | None = None, where: str | None = None
    ) -> list[SearchResult]:
        view, count = self.view(), max(1, len(image_ids)) if k is None else k
        self._check(view, query[None], 1)
        rows = view.store.by_ids(image_ids, _IMAGE_FIELDS, where)
        return list(self._rank_rows(view, query[None], [{row["image"]: row for row in rows.values()}], count)[0])

    def best_vectors(self, image_ids: Sequence[str], query: Floats) -> dict[str, Floats]:
        view = self.view()
        self._check(view, query[None], 1)
        best: dict[str, Floats] = {}
        for segment in self._segments_of_ids(view, image_ids):
            (scored,) = score_images(segment, query[None], [np.arange(len(segment))])
            ids = segment.ids.take(scored.images)
            best |= dict(zip(ids, segment.decode(scored.rows).astype(np.float32), strict=True))
        return best

    def vectors_of(self, key: int) -> tuple[Floats, Floats] | None:
        view = self.view()
        for stored in self._stored(view, view.store.by_keys([key], _IMAGE_FIELDS)):
            return view.store.header.decode(stored.codes).astype(np.float32), stored.boxes.astype(np.float32)
        return None

    def image_vectors(self, image_ids: Sequence[str]) -> dict[str, Floats]:
        vectors: dict[str, Floats] = {}
        for segment in self._segments_of_ids(self.view(), image_ids):
            vectors |= {
                i: segment.unit_vectors(position)
                for position, i in enumerate(segment.ids.take(np.arange(len(segment))))
            }
        return vectors

    def mean_vectors(self, sample: int) -> tuple[Ints, Floats]:
        view = self.view()
        keys, means = [np.empty(0, np.int64)], [np.empty((0, view.store.header.dim), np.float32)]
        for segment in map(self._segment(view), self._stored(view, view.draw_rows(sample))):
            keys.append(segment.keys)
            means.append(segment.mean_vectors(np.arange(len(segment))))
        return np.concatenate(keys), np.concatenate(means)

    def read_images(self, image_ids: Sequence[str]) -> Iterator[StoredVectors]:
        view = self.view()
        rows = view.store.by_ids(image_ids, _IMAGE_FIELDS)
        return self._stored(view, {row["image"]: row for row in rows.values()})

    def keys_of_ids(self, image_ids: Sequence[str]) -> dict[str, int]:
        return {image_id: row["image"] for image_id, row in self.store.by_ids(image_ids, []).items()}

    def row_reader(self) -> "_Rows":
        return _Rows(self)

    def column_blocks(self) -> Iterator[pa.Table]:
        """As `Index.column_blocks`; `uri` is left out, because Milvus can't filter by it."""
        described = [column for column in FILTERABLE if column.name in DESCRIBED_COLUMNS]
        columns = [*self.view().settings.columns, *described]
        schema = pa.schema([(column.name, column.arrow_type) for column in columns])
        yield schema.empty_table()
        rows = self.store.all([column.field for column in columns])
        while block := list(islice(rows, _COLUMN_ROWS)):
            values = {c.name: [c.from_milvus(row[c.field]) for row in block] for c in columns}
            yield pa.Table.from_pydict(values, schema)

    def scores(self, query: Floats, sample: int | None = None, where: str | None = None) -> Floats:
        return self.scores_many(query[None], sample, where)[0]

    def scores_many(
        self, queries: Floats, sample: int | None = None, where: str | None = None, view: MilvusView | None = None
    ) -> list[Floats]:
        """Return scores as `Index.scores_many`. Without a sample, all vectors are read over the network."""
        view = view or self.view()
        self._check(view, queries, 1)
        if sample is None:
            segments: Iterator[Segment] | list[Segment] = self._all_segments(view, where)
        else:
            segments = view.sample(sample, where)
        scores = [score_values(segment, queries, np.arange(len(segment))) for segment in segments]
        return [np.concatenate([np.empty(0, np.float32), *(s[q] for s in scores)]) for q in range(len(queries))]

    def _rank(self, view: MilvusView, queries: Floats, k: int, where: str | None, exact: bool) -> list[Ranking]:
        settings = view.settings
        if self.is_certain:
            return self._rank_certainly(view, queries, k, where, _ROUNDING[settings.precision])
        if exact:
            return self._rank_all(view, queries, k, where)
        wanted = min(MOST_ROWS, math.ceil(settings.search.compared * max(k, _MIN_IMAGES)))
        lists: dict[int, Ints] = {}
        waiting = list(range(len(queries)))
        while waiting:
            too_few = []
            for query, (keys, _) in zip(
                waiting, self._candidates(view, queries[waiting], wanted, where, settings.search.params), strict=True
            ):
                lists[query] = keys
                if len(keys) < k:
                    too_few.append(query)
            if not too_few or min(len(lists[query]) for query in too_few) >= view.count(where):
                break
            if wanted == MOST_ROWS:
                found = self._rank_all(view, queries[too_few], k, where)
                others = [q for q in range(len(queries)) if q not in too_few]
                rest = self._rank_images(view, queries[others], [lists[q] for q in others], k)
                by_query = dict(zip(too_few, found, strict=True)) | dict(zip(others, rest, strict=True))
                return [by_query[q] for q in range(len(queries))]
            waiting, wanted = too_few, min(MOST_ROWS, wanted * _GROWTH)
        return self._rank_images(view, queries, [lists[q] for q in range(len(queries))], k)

    def _rank_certainly(
        self, view: MilvusView, queries: Floats, k: int, where: str | None, rounding: float
    ) -> list[Ranking]:
        """Search an index that compares every vector: more and more images, until no other one can be among the best.

        rounding: of the scores that Milvus computes.
        """
        total, wanted = view.count(where), min(MOST_ROWS, math.ceil(1.1 * max(k, _MIN_IMAGES)))
        rankings: dict[int, Ranking] = {}
        waiting = list(range(len(queries)))
        while waiting:
            candidates = self._candidates(view, queries[waiting], wanted, where, {})
            found = self._rank_images(view, queries[waiting], [keys for keys, _ in candidates], k)
            uncertain = []
            for query, (keys, last), ranking in zip(waiting, candidates, found, strict=True):
                rankings[query] = ranking
                all_found = len(keys) >= total or wanted == MOST_ROWS
                if not all_found and (len(ranking) < k or last >= ranking.scores[k - 1] - rounding):
                    uncertain.append(query)
            waiting, wanted = uncertain, min(MOST_ROWS, wanted * _GROWTH)
        return [rankings[query] for query in range(len(queries))]

    def _rank_all(self, view: MilvusView, queries: Floats, k: int, where: str | None) -> list[Ranking]:
        """Read and compare every vector."""
        best: list[list[tuple[Segment, ScoredImages]]] = [[] for _ in queries]
        for segment in self._all_segments(view, where):
            everything = np.arange(len(segment))
            for query, scored in enumerate(score_images(segment, queries, [everything] * len(queries))):
                best[query].append(_kept(segment, scored))
                if sum(len(s.scores) for _, s in best[query]) > 4 * k + MOST_ROWS:
                    best[query] = [_as_scored(rank_images(best[query], k, view.store.roots))]
        return [rank_images(found, k, view.store.roots) for found in best]

    def _candidates(
        self, view: MilvusView, queries: Floats, wanted: int, where: str | None, params: Mapping[str, int]
    ) -> list[tuple[Ints, float]]:
        """Return for each query the keys of the best images that Milvus finds, best first, and the last one's score."""
        if not len(queries):
            return []
        server = self.server
        with server.errors():
            found = server.client.search(
                server.vectors,
                data=query_values(queries, view.settings.precision),
                anns_field="vector",
                filter=view.store.condition(where),
                limit=wanted,
                group_by_field="image",
                output_fields=["image"],
                search_params={"metric_type": "IP", "params": dict(params)},
            )
        lists = []
        for hits in found:
            keys = np.fromiter((hit["entity"]["image"] for hit in hits), np.int64)
            first = np.sort(np.unique(keys, return_index=True)[1])
            lists.append((keys[first], float(hits[-1]["distance"]) if len(hits) else -math.inf))
        return lists

    def _rank_images(self, view: MilvusView, queries: Floats, keys: Sequence[Ints], k: int) -> list[Ranking]:
        """Score each query's images by all their vectors. keys: of each query's images."""
        wanted = np.unique(np.concatenate([np.empty(0, np.int64), *keys])).tolist()
        rows = view.store.by_keys(wanted, _IMAGE_FIELDS)
        return self._rank_rows(view, queries, [{k: rows[k] for k in of.tolist() if k in rows} for of in keys], k)

    def _rank_rows(self, view: MilvusView, queries: Floats, rows: Sequence[Mapping[int, Row]], k: int) -> list[Ranking]:
        """As `_rank_images`, for rows of images by key."""
        together = {key: row for of_query in rows for key, row in of_query.items()}
        best: list[list[tuple[Segment, ScoredImages]]] = [[] for _ in queries]
        for segment in map(self._segment(view), self._stored(view, together)):
            keys = segment.keys.tolist()
            chosen = [np.array([n for n, key in enumerate(keys) if key in of_query], np.int64) for of_query in rows]
            for query, scored in enumerate(score_images(segment, queries, chosen)):
                best[query].append(_kept(segment, scored))
        return [rank_images(found, k, view.store.roots) for found in best]

    def _stored(self, view: MilvusView, rows: Mapping[int, Row]) -> Iterator[StoredVectors]:
        return read_stored(self.server, *view.layout, rows)

    def _segment(self, view: MilvusView) -> Callable[[StoredVectors], Segment]:
        return lambda stored: segment_in_memory(view.store.header, [stored])

    def _segments(self, view: MilvusView, keys: Sequence[int]) -> Iterator[Segment]:
        return map(self._segment(view), self._stored(view, view.store.by_keys(keys, _IMAGE_FIELDS)))

    def _segments_of_ids(self, view: MilvusView, image_ids: Sequence[str]) -> Iterator[Segment]:
        rows = view.store.by_ids(image_ids, _IMAGE_FIELDS)
        return map(self._segment(view), self._stored(view, {row["image"]: row for row in rows.values()}))

    def _all_images(self, view: MilvusView, where: str | None) -> Iterator[Row]:
        if view.num_vectors > _MOST_SCANNED:
            raise ValueError(
                f"{self.name}: an exact search would read {view.num_vectors} vectors over the network; search the "
                "store itself, or publish with --index FLAT"
            )
        return view.store.all(["id", *_IMAGE_FIELDS], where)

    def _all_segments(self, view: MilvusView, where: str | None) -> Iterator[Segment]:
        rows: dict[int, Row] = {}
        for row in self._all_images(view, where):
            rows[row["image"]] = row
        return map(self._segment(view), self._stored(view, rows))

    def _check(self, view: MilvusView, queries: Floats, k: int) -> None:
        dim = view.store.header.dim
        if queries.shape[1:] != (dim,):
            raise ValueError(f"a query has shape {queries.shape[1:]}, the store's vectors have {dim} dimensions")
        lengths = np.linalg.norm(queries, axis=1)
        wrong = lengths[~(abs(lengths - 1) < _UNIT_TOLERANCE)]
        if len(wrong):
            raise ValueError(f"a query has length {wrong[0]:.3g}, not 1")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if k > MOST_ROWS:
            raise ValueError(f"{self.name}: Milvus returns at most {MOST_ROWS} images, not {k}")


class _Rows:
    """Reads the newest rows of an index."""

    def __init__(self, index: MilvusIndex) -> None:
        self.index = index

    def read(self, keys: Sequence[int]) -> dict[int, Row]:
        return self.index.store.read(keys)


def _kept(segment: Segment, scored: ScoredImages) -> tuple[Segment, ScoredImages]:
    """Keep of a segment what a list of its images needs: no vectors, and only the boxes of the best ones."""
    count = len(scored.images)
    small = Segment(
        segment.header,
        None,
        segment.keys[scored.images],
        np.arange(count + 1),
        segment.boxes[scored.rows],
        segment.images.take(scored.images),
    )
    return small, ScoredImages(np.arange(count), np.arange(count), scored.scores)


def _as_scored(ranking: Ranking) -> tuple[Segment, ScoredImages]:
    """Join a list's segments, so that those without images in it are freed."""
    count = len(ranking)
    order = np.argsort(ranking.parts, kind="stable")
    tables, keys, boxes = [], [], []
    for part, segment in enumerate(ranking.segments):
        at = np.flatnonzero(ranking.parts == part)
        tables.append(segment.images.take(ranking.images[at]))
        keys.append(segment.keys[ranking.images[at]])
        boxes.append(segment.boxes[ranking.rows[at]])
    joined = Segment(
        ranking.segments[0].header,
        None,
        np.concatenate(keys),
        np.arange(count + 1),
        np.concatenate(boxes),
        pa.concat_tables(tables),
    )
    return joined, ScoredImages(np.arange(count), np.arange(count), ranking.scores[order])
