"""Search quality per class: measured in the background, again when the store changed."""

import logging
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
from fastapi import APIRouter

from forclip.search.labels import ClassEvaluation, StoreLabels, evaluate_classes
from forclip.search.searcher import AnySearcher
from forclip.server.schemas import ClassesOut, ClassOut, MeansOut

_NO_LABELS = ClassesOut(state="no labels", progress=0, images=None, training_images=None, means=MeansOut(), classes=[])


def class_routes(table: "ClassTable | None") -> APIRouter:
    """Routes below /api. table: None without labels."""
    routes = APIRouter(prefix="/api", tags=["classes"])

    @routes.get("/classes")
    def classes() -> ClassesOut:
        """How well a search for each class's name does in this store. Returns at once what is known."""
        return _NO_LABELS if table is None else table.current()

    return routes


class _Stopped(Exception):
    """The service stops."""


class ClassTable:
    """Measures in a thread of its own, one text at a time, so that searches can run in between."""

    def __init__(self, searcher: AnySearcher, labels: StoreLabels) -> None:
        self.searcher, self.labels = searcher, labels
        self._lock = Lock()
        self._stopping = Event()
        self._thread: Thread | None = None
        self._version: int | None = None  # measured last, or being measured
        self._done, self._failed = 0, False
        self._result: ClassEvaluation | None = None

    def current(self) -> ClassesOut:
        """Return at once what is known. Starts measuring where the store has changed."""
        with self._lock:
            measuring = self._thread is not None and self._thread.is_alive()
            version = self.searcher.index.store.version
            if not measuring and self._version != version:
                self._version, self._done, self._failed, measuring = version, 0, False, True
                self._thread = Thread(target=self._measure, name="classes", daemon=True)
                self._thread.start()
            names, groups, result = self.labels.images.class_names, self.labels.groups, self._result
            facts: dict[str, dict[str, Any]] = {name: {"group": groups.get(name)} for name in names}
            if result is not None:
                for name, count in zip(names, result.relevant, strict=True):
                    facts[name]["images"] = int(count)
                for left_out in result.left_out:
                    facts[left_out.name]["left_out"] = left_out.reason
                for c in result.classes:
                    facts[c.name] |= {"average_precision": c.average_precision, "precision_at_10": c.precision_at_10}
            return ClassesOut(
                state="measuring" if measuring else "failed" if self._failed else "measured",
                progress=min(1.0, self._done / (len(names) + len(self.labels.images))),
                images=None if result is None else result.images,
                training_images=self.labels.num_training,
                means=MeansOut() if result is None else MeansOut(**result.means(groups)),
                classes=[ClassOut(name=name, **others) for name, others in facts.items()],
            )

    def stop(self) -> None:
        """Stop measuring and wait until it has stopped."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _measure(self) -> None:
        try:
            texts = []
            for name in self.labels.images.class_names:
                texts.append(self.searcher.encode_text(name))
                self._advance(1)
            vectors = np.stack(texts)
            self._result = evaluate_classes(self.searcher.index, self.labels, vectors, self._advance)
        except _Stopped:
            pass
        except Exception:  # searches go on whatever happens here
            logging.getLogger(__name__).exception("the classes could not be measured")
            self._failed = True

    def _advance(self, count: int) -> None:
        self._done += count
        if self._stopping.is_set():
            raise _Stopped
