"""Index a folder in a thread of the service, so that images can be searched while others arrive; and how far it is."""

import logging
from collections.abc import Callable
from threading import Event, Lock, Thread

from fastapi import APIRouter

from forclip.embedding.ingest import IndexSummary
from forclip.progress import Advance, Track
from forclip.progress.job import Job
from forclip.server.schemas import IndexingOut

# Indexes, reporting to the Track; called in a thread of its own.
Work = Callable[[Track], IndexSummary]

_SECONDS_TO_STOP = 2.0
_EMBEDDING = "embedding"  # the task of `index_images` whose items are the new images


class _Stopped(Exception):
    """The service stops."""


def indexing_routes(indexing: "Indexing | None") -> APIRouter:
    """Routes below /api. indexing: None where nothing is indexed."""
    routes = APIRouter(prefix="/api", tags=["service"])

    @routes.get("/indexing")
    def progress() -> IndexingOut:
        """How far the service is with indexing its folder. `none` where it only serves a store."""
        return IndexingOut(state="none") if indexing is None else indexing.current()

    return routes


class Indexing:
    """Indexes once, in a thread. What it has stored stays when it is stopped; running it again continues.

    source: what is indexed, for display; work: does it; on_end: is called with the summary, or the error's message.
    """

    def __init__(self, source: str, work: Work, on_end: Callable[[IndexSummary | str], None]) -> None:
        self.source, self._work, self._on_end, self._job = source, work, on_end, Job(())
        self._lock, self._stopping = Lock(), Event()
        self._thread = Thread(target=self._run, name="indexing", daemon=True)
        self._progress = IndexingOut(state="looking", source=source)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the images that are being embedded, and wait for them for some seconds."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_SECONDS_TO_STOP)

    def is_running(self) -> bool:
        """Whether the thread runs, which embeds its last images if it was stopped."""
        return self._thread.is_alive()

    def current(self) -> IndexingOut:
        """Return how far it is."""
        with self._lock:
            return self._progress.model_copy()

    def _run(self) -> None:
        ended: IndexSummary | str
        try:
            ended = self._work(self._track)
        except _Stopped:
            return
        except (ValueError, OSError) as error:
            ended = str(error)
            self._update(state="failed", message=ended)
        except Exception as error:  # an error here must not end the searches
            logging.getLogger(__name__).exception("indexing failed")
            ended = f"indexing failed: {error}"
            self._update(state="failed", message=ended)
        else:
            self._update(state="done", unreadable=len(ended.unreadable), seconds_left=0.0)
        self._on_end(ended)

    def _track(self, description: str, total: int) -> Advance:
        count_done = self._job.start(description, total)

        def advance(count: int) -> None:
            if self._stopping.is_set():
                raise _Stopped
            count_done(count)
            self._show()

        self._show()
        return advance

    def _show(self) -> None:
        now = self._job.progress()
        if now is not None and now.stage == _EMBEDDING:
            self._update(state="indexing", done=now.done, total=now.total, seconds_left=now.seconds_left)

    def _update(self, **changes: object) -> None:
        with self._lock:
            self._progress = self._progress.model_copy(update=changes)
