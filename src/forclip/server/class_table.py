"""What searching each class's name is worth in the store: measured beside the searches, anew when the store changed."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Event, Lock, Thread

import numpy as np
from fastapi import APIRouter

from forclip.search.class_evaluation import ClassEvaluation, evaluate_classes
from forclip.search.labels import StoreLabels
from forclip.server.ranker import Ranker
from forclip.server.schemas import NO_LABELS, ClassesOut, ClassOut, MeansOut


@asynccontextmanager
async def measuring(table: "ClassTable | None") -> AsyncIterator[None]:
    """For as long as the service runs: measures from its start, and doesn't outlive it."""
    if table is not None:
        table.now()
    yield
    if table is not None:
        table.stop()


class _Stopped(Exception):
    """The service ends."""


class ClassTable:
    """Measures in a thread of its own, one text at a time, so that searches come between."""

    def __init__(self, ranker: Ranker, labels: StoreLabels) -> None:
        self.ranker, self.labels = ranker, labels
        self._lock = Lock()
        self._ending = Event()
        self._thread: Thread | None = None
        self._tried: int | None = None  # the version measured last, or being measured
        self._done, self._failed = 0, False
        self._found: ClassEvaluation | None = None

    def now(self) -> ClassesOut:
        """What is known, at once. Starts measuring where the store has changed since."""
        with self._lock:
            if not self._is_measuring and self._tried != self.ranker.searcher.index.store.version:
                self._start()
            found = self._found
            means = MeansOut() if found is None else MeansOut(**found.means(self.labels.groups))
            return ClassesOut(
                state="measuring" if self._is_measuring else "failed" if self._failed else "measured",
                progress=self._progress,
                images=None if found is None else found.images,
                means=means,
                classes=self._classes(found),
            )

    def stop(self) -> None:
        """Ends what is being measured; waits for that."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def _is_measuring(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def _progress(self) -> float:
        return min(1.0, self._done / (len(self.labels.images.class_names) + len(self.labels.images)))

    def _start(self) -> None:
        self._tried = self.ranker.searcher.index.store.version
        self._done, self._failed = 0, False
        self._thread = Thread(target=self._measure, name="classes", daemon=True)
        self._thread.start()

    def _measure(self) -> None:
        names, store = self.labels.images.class_names, self.ranker.searcher.index.store
        try:
            texts = []
            for name in names:
                texts.append(self.ranker.text_vector(name))
                self._advance(1)
            self._found = evaluate_classes(store.table(), store.header, self.labels, np.stack(texts), self._advance)
        except _Stopped:
            pass
        except Exception:  # whatever it is, searching goes on
            logging.getLogger(__name__).exception("the classes could not be measured")
            self._failed = True

    def _advance(self, count: int) -> None:
        self._done += count
        if self._ending.is_set():
            raise _Stopped

    def _classes(self, found: ClassEvaluation | None) -> list[ClassOut]:
        names, groups = self.labels.images.class_names, self.labels.groups
        if found is None:
            return [ClassOut(name=name, group=groups.get(name)) for name in names]
        measured, left_out = {c.name: c for c in found.classes}, {c.name: c.reason for c in found.left_out}
        return [
            ClassOut(
                name=name,
                group=groups.get(name),
                images=int(count),
                average_precision=measured[name].average_precision if name in measured else None,
                precision_at_10=measured[name].precision_at_10 if name in measured else None,
                left_out=left_out.get(name),
            )
            for name, count in zip(names, found.relevant, strict=True)
        ]


def class_routes(table: ClassTable | None) -> APIRouter:
    """Under /api. table: None where there are no labels."""
    routes = APIRouter(prefix="/api", tags=["classes"])

    @routes.get("/classes")
    def classes() -> ClassesOut:
        """How well searching each class's name does in this store; base and novel classes. At once: what is known."""
        return NO_LABELS if table is None else table.now()

    return routes
