"""Search quality per class: measured in the background, again when the store changed."""

import json
import logging
import time
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter
from filelock import FileLock, Timeout

from forclip.atomic_write import write_text_atomically
from forclip.evaluation.protocol import CLASS_GROUPS, Group
from forclip.evaluation.sample_size import describe_reasons, too_few
from forclip.search.labels import ClassEvaluation, StoreLabels, evaluate_classes
from forclip.search.searcher import AnySearcher
from forclip.server.schemas import ClassesOut, ClassOut, MeansOut

_SECONDS_BETWEEN_WRITES = 0.5
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


class SharedTable:
    """What is known of the classes, in a folder that several processes share. One of them measures at a time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "classes.json"
        # Acquired by the thread of a request, and released by the one that measured.
        self._measuring = FileLock(folder / "classes.lock", thread_local=False)

    def read(self) -> tuple[int | None, ClassesOut | None]:
        """Return the store's version that was measured last, or is being measured, and what is known."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None, None
        return content["version"], ClassesOut.model_validate(content["classes"])

    def write(self, version: int | None, known: ClassesOut) -> None:
        write_text_atomically(self._file, json.dumps({"version": version, "classes": known.model_dump()}))

    def claim(self) -> bool:
        """Return whether this process may measure: no other does. One that dies makes room."""
        try:
            self._measuring.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        self._measuring.release()


class ClassTable:
    """Measures in a thread of its own, one text at a time, so that searches can run in between.

    shared: where several processes serve the store, what they know of the classes.
    """

    def __init__(self, searcher: AnySearcher, labels: StoreLabels, shared: SharedTable | None = None) -> None:
        self.searcher, self.labels, self.shared = searcher, labels, shared
        self._before: ClassesOut | None = None  # measured by another process
        self._written = 0.0  # when what is known was shared
        self._lock = Lock()
        self._stopping = Event()
        self._thread: Thread | None = None
        self._version: int | None = None  # measured last, or being measured
        self._done, self._failed = 0, False
        self._result: ClassEvaluation | None = None

    def current(self) -> ClassesOut:
        """Return at once what is known. Starts measuring where the store has changed."""
        with self._lock:
            version = self.searcher.index.store.version
            if self.shared is not None and not self._is_measuring:
                measured, known = self.shared.read()
                if known is not None and measured == version and known.state != "measuring":
                    return known
                if not self.shared.claim():  # another process measures
                    return known or self._known("measuring")
                measured, self._before = self.shared.read()
                if self._before is not None and measured == version and self._before.state != "measuring":
                    self.shared.release()  # it has finished meanwhile
                    return self._before
                self._version, self._result = None, None
            if not self._is_measuring and self._version != version:
                self._version, self._done, self._failed = version, 0, False
                self._thread = Thread(target=self._measure, name="classes", daemon=True)
                self._thread.start()
            return self._known("measuring" if self._is_measuring else self._state)

    @property
    def _is_measuring(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def _state(self) -> Literal["measured", "failed"]:
        return "failed" if self._failed else "measured"

    def _known(self, state: Literal["measuring", "measured", "failed"]) -> ClassesOut:
        names, groups, result = self.labels.images.class_names, self.labels.groups, self._result
        progress = min(1.0, self._done / (len(names) + len(self.labels.images)))
        if result is None and self._before is not None:
            return self._before.model_copy(update={"state": state, "progress": progress})
        facts: dict[str, dict[str, Any]] = {name: {"group": groups.get(name)} for name in names}
        if result is not None:
            for name, count in zip(names, result.relevant, strict=True):
                facts[name]["images"] = int(count)
            for left_out in result.left_out:
                facts[left_out.name]["left_out"] = left_out.reason
            for c in result.classes:
                facts[c.name] |= {"average_precision": c.average_precision, "precision_at_10": c.precision_at_10}
        return ClassesOut(
            state=state,
            progress=progress,
            images=None if result is None else result.images,
            training_images=self.labels.num_training,
            means=MeansOut() if result is None else MeansOut(**result.means(groups)),
            not_enough_data=None if result is None else self._too_few(result),
            classes=[ClassOut(name=name, **others) for name, others in facts.items()],
        )

    def _too_few(self, result: ClassEvaluation) -> str | None:
        measured = [self.labels.groups.get(c.name) for c in result.classes]
        groups = [group for group in CLASS_GROUPS if group in measured]
        sizes: dict[Group, int] = {group: measured.count(group) for group in groups} or {"all": len(measured)}
        reasons = {group: too_few(result.images, size) for group, size in sizes.items()}
        return describe_reasons({group: reason for group, reason in reasons.items() if reason})

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
        finally:
            if self.shared is not None:
                if not self._stopping.is_set():
                    self.shared.write(self._version, self._known(self._state))
                self.shared.release()

    def _advance(self, count: int) -> None:
        self._done += count
        if self.shared is not None and time.monotonic() > self._written + _SECONDS_BETWEEN_WRITES:
            self._written = time.monotonic()
            self.shared.write(self._version, self._known("measuring"))
        if self._stopping.is_set():
            raise _Stopped
