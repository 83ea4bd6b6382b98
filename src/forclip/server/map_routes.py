"""The map of the collection: computed in the background once for each state of the store, and kept in its folder."""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from threading import Lock, Thread

import numpy as np
import pyarrow as pa
from anyio import CapacityLimiter
from fastapi import APIRouter
from filelock import FileLock, Timeout

from forclip.atomic_write import write_bytes_atomically
from forclip.bucket_path import StorePath
from forclip.index.embedding_map import MIN_ARRANGED, arrange_points, map_points
from forclip.search.combined import CombinedResult
from forclip.server import limits
from forclip.server.gallery import Gallery
from forclip.server.image_schemas import MapMethod, MapOut, MapScoresBody, MapScoresOut, MapState
from forclip.server.schemas import Problem
from forclip.server.search_routes import SearchService
from forclip.server.threads import in_threads
from forclip.types import Floats

_FILE = "map.arrow"
_FORMAT_VERSION = "1"
_SECONDS_TO_STOP = 2.0
_REST = 20  # a store that changes all the time is mapped again after this many times the duration of mapping it
_NAMES_AT_ONCE = 2_000
_SCORINGS = 2  # at a time; each makes a list of the greatest length


@dataclass(frozen=True)
class Map:
    """The points of one state of a store. method: that made them; keys, names: [n]; points: [n, 2], 0..1."""

    state: str
    method: MapMethod
    keys: list[str]
    names: list[str]
    points: Floats


class MapFile:
    """Keeps one map in the folder of a store."""

    def __init__(self, folder: StorePath, shared: Path | None = None) -> None:
        """shared: a local folder that the workers of one service share; one of them computes at a time."""
        self._file = folder / _FILE
        # Acquired by the thread of a request, and released by the one that computed.
        self._computing = None if shared is None else FileLock(shared / "map.lock", thread_local=False)

    def read(self) -> Map | None:
        """Return the map; None if there is none, or it can't be read."""
        with suppress(OSError, ValueError, KeyError, pa.ArrowException):
            table = pa.ipc.open_file(pa.BufferReader(self._file.read_bytes())).read_all()
            facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            if facts["format_version"] == _FORMAT_VERSION:
                points = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
                keys = [str(key) for key in table["key"].to_pylist()]
                method: MapMethod = "tsne" if facts["method"] == "tsne" else "pca"
                return Map(facts["state"], method, keys, table["name"].to_pylist(), points)
        return None

    def write(self, made: Map) -> None:
        columns = {
            "key": pa.array([int(key) for key in made.keys], pa.int64()),
            "name": pa.array(made.names, pa.string()),
            "x": pa.array(made.points[:, 0]),
            "y": pa.array(made.points[:, 1]),
        }
        facts = {"format_version": _FORMAT_VERSION, "state": made.state, "method": made.method}
        table = pa.table(columns).replace_schema_metadata(facts)
        buffer = BytesIO()
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table)
        write_bytes_atomically(self._file, buffer.getvalue())

    def claim(self) -> bool:
        """Return whether this process may compute: no other does. One that dies makes room."""
        if self._computing is not None:
            try:
                self._computing.acquire(timeout=0)
            except Timeout:
                return False
        return True

    def release(self) -> None:
        if self._computing is not None:
            self._computing.release()


class EmbeddingMap:
    """Computes the map in a thread of its own."""

    def __init__(self, gallery: Gallery, file: MapFile) -> None:
        self._gallery, self._file = gallery, file
        self._lock = Lock()
        self._thread: Thread | None = None
        self._made: Map | None = None
        self._failed = ""  # the state that could not be mapped
        self._rest_until = 0.0  # time.monotonic()

    def current(self) -> MapOut:
        """Return at once what there is. Starts computing where the store has changed."""
        with self._lock:
            state, images = self._state(), len(self._gallery.index)
            if not self._is_final(state):
                self._made = self._file.read() or self._made
            made, failed = self._made, self._failed == state
            now: MapState = "failed" if failed else "computing" if images and not self._is_final(state) else "ready"
            if now == "computing" and not self._is_computing:
                self._start(state)
        if made is None or not images:
            made = Map(state, "pca", [], [], np.empty((0, 2), np.float32))
        rounded = np.round(made.points.astype(np.float64), 4)
        x, y = rounded[:, 0].tolist(), rounded[:, 1].tolist()
        return MapOut(state=now, method=made.method, images=images, keys=made.keys, names=made.names, x=x, y=y)

    def _is_final(self, state: str) -> bool:
        made = self._made
        return made is not None and made.state == state and (made.method == "tsne" or len(made.keys) < MIN_ARRANGED)

    @property
    def keys(self) -> frozenset[str]:
        """The images on the map."""
        made = self._made or self._file.read()
        return frozenset(made.keys if made is not None else ())

    def stop(self) -> None:
        """Wait a moment for what is computed. t-SNE can't be interrupted: it ends with the process."""
        if self._thread is not None:
            self._thread.join(_SECONDS_TO_STOP)

    @property
    def _is_computing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _state(self) -> str:
        index = self._gallery.index
        return f"{index.store.header.fingerprint} {index.store.version} {len(index)}"

    def _start(self, state: str) -> None:
        if time.monotonic() < self._rest_until or not self._file.claim():
            return
        self._thread = Thread(target=self._compute, args=(state,), name="map", daemon=True)
        self._thread.start()

    def _compute(self, state: str) -> None:
        started = time.monotonic()
        try:
            for made in self._maps(state):
                self._made = made
                # Of a store that can only be read, the map is computed by each service.
                with suppress(OSError, ValueError):
                    self._file.write(made)
        except Exception:  # searches go on whatever happens here
            logging.getLogger(__name__).exception("the map could not be computed")
            self._failed = state
        finally:
            self._rest_until = time.monotonic() + _REST * (time.monotonic() - started)
            self._file.release()

    def _maps(self, state: str) -> Iterator[Map]:
        """Yield a first map, and a better one when it is computed."""
        keys, means = self._gallery.index.mean_vectors(limits.MAPPED)
        names = dict[int, str]()
        for start in range(0, len(keys), _NAMES_AT_ONCE):
            images = self._gallery.by_key(keys[start : start + _NAMES_AT_ONCE].tolist())
            names |= {key: image.name for key, image in images.items()}
        left = [row for row, key in enumerate(keys.tolist()) if key in names]  # others were deleted meanwhile
        keys, means = keys[left], means[left]
        found = [str(key) for key in keys.tolist()], [names[key] for key in keys.tolist()]
        yield Map(state, "pca", *found, map_points(means))
        if len(keys) >= MIN_ARRANGED:
            yield Map(state, "tsne", *found, arrange_points(means))


def map_routes(service: SearchService, embedding_map: EmbeddingMap) -> APIRouter:
    """Routes below /api."""
    routes = APIRouter(prefix="/api", tags=["map"], responses={404: {"model": Problem}})

    @routes.get("/map")
    def read_map() -> MapOut:
        """Where each image is on the map. The first request for a state of the store starts computing it."""
        return embedding_map.current()

    @routes.post("/map/scores", responses={status: {"model": Problem} for status in (409, 415)})
    @in_threads(CapacityLimiter(_SCORINGS))
    def scores(body: MapScoresBody) -> MapScoresOut:
        """How well the images on the map match a search, as far as its longest list reaches."""
        request = service.request(body.wanted)
        most = min(limits.K, service.searcher.index.most_results or limits.K)
        k = max(1, most - len(request.wrong) - len(request.exclude))
        whole = replace(request, k=k, offset=0, collapse=None, cutoff=None, confidence=False)
        results = service.answer(whole).results
        on_map = embedding_map.keys
        found = {
            str(r.key): r.normalised_score if isinstance(r, CombinedResult) else r.score
            for r in results
            if str(r.key) in on_map
        }
        return MapScoresOut(scores=found, listed=len(results), complete=len(results) < k)

    return routes
