"""Embed slices on many workers, and write them in few commits, also if workers fail."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from forclip.embedding.changes import UnreadableImage
from forclip.embedding.slices import EmbeddedSlice, Slice
from forclip.embedding.worker_pool import Advanced, Done, Event, Failed, Lost, Ready, WorkerPool
from forclip.progress import Advance, notify

_ATTEMPTS = 2  # of a slice, before it is halved to find the image that ends workers
_SECONDS_PER_COMMIT = 60.0
_PATIENCE = 60.0  # seconds without a ready worker until the user is told
_SLICES_PER_WORKER = 2  # one that it embeds and one that waits there


@dataclass(frozen=True)
class _Attempt:
    """number: of the slice that this is, or is a part of, in the order of the images; failures: so far."""

    images: Slice
    number: int
    failures: int = 0


@dataclass
class _Worker:
    is_ready: bool = False
    attempts: deque[_Attempt] = field(default_factory=deque)
    advanced: int = 0  # images of the first attempt


class SliceRun:
    """One job's slices on the workers of a pool.

    A slice that fails, or whose worker is killed, is tried again on the next free worker. After the second time it is
    halved, again and again, until the image that ends workers is alone; it is then reported as unreadable. So an image
    is stored once, whatever happens. Raises ValueError if workers fail again and again and nothing gets done.
    """

    def __init__(
        self,
        pool: WorkerPool,
        write: Callable[[Sequence[EmbeddedSlice]], None],
        advance: Advance,
        *,
        workers: int,
        max_workers: int,
        images_per_commit: int,
        first_images: int = 0,
    ) -> None:
        """Prepare a run.

        write: commits slices; workers: to start with; max_workers: that are added as long as all are ready and slices
        wait; images_per_commit: that are written together, but a minute's if it takes longer; first_images: that the
        first commit holds, in order, and no others.
        """
        self._pool, self._write, self._advance = pool, write, advance
        self._least, self._most = workers, max(workers, max_workers)
        self._images_per_commit, self._first_images = images_per_commit, first_images
        self._queue: deque[_Attempt] = deque()
        self._workers: dict[int, _Worker] = {}
        self._finished: dict[int, list[EmbeddedSlice]] = defaultdict(list)  # not yet written, by number
        self._unfinished: Counter[int] = Counter()  # attempts that are left of each number
        self._failed_in_a_row, self._reason = 0, ""
        self._last_commit = self._last_ready = time.monotonic()

    def run(self, slices: Iterable[Slice]) -> None:
        """Embed and write all slices."""
        self._queue.extend(_Attempt(images, number) for number, images in enumerate(slices))
        self._unfinished.update(attempt.number for attempt in self._queue)
        try:
            while self._queue or any(worker.attempts for worker in self._workers.values()):
                self._adjust_workers()
                self._assign()
                for event in self._pool.wait(1.0):
                    self._handle(event)
                self._check_patience()
                self._commit(self._images_per_commit)
        finally:
            self._pool.close()  # first, so that an interrupt ends them at once
            self._commit(0)

    def _adjust_workers(self) -> None:
        """Start workers for the slices that wait, and end those that have nothing to do."""
        waiting = len(self._queue) + sum(bool(worker.attempts) for worker in self._workers.values())
        while len(self._workers) < min(self._least, waiting):
            self._workers[self._pool.add()] = _Worker()
        all_ready = all(worker.is_ready for worker in self._workers.values())
        if all_ready and len(self._workers) < min(self._most, waiting):
            self._workers[self._pool.add()] = _Worker()
        if not self._queue and not self._failed_in_a_row:
            for number in [n for n, worker in self._workers.items() if worker.is_ready and not worker.attempts]:
                self._pool.remove(number)
                del self._workers[number]

    def _assign(self) -> None:
        for depth in range(_SLICES_PER_WORKER):
            for number, worker in self._workers.items():
                # The last slices go to workers that are free.
                enough = len(self._queue) > depth * len(self._workers)
                if worker.is_ready and len(worker.attempts) == depth and enough:
                    attempt = self._queue.popleft()
                    worker.attempts.append(attempt)
                    self._pool.submit(number, attempt.images)

    def _handle(self, event: Event) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            return
        match event:
            case Ready():
                worker.is_ready = True
            case Advanced(images=images):
                worker.advanced += images
                self._advance(images)
            case Done(embedded=embedded):
                attempt = worker.attempts.popleft()
                self._finish(attempt, embedded)
                self._advance(len(attempt.images) - worker.advanced)
                worker.advanced, self._failed_in_a_row = 0, 0
            case Failed(reason=reason):
                self._fail(worker, reason)
            case Lost(reason=reason):
                del self._workers[event.worker]
                if worker.attempts:
                    self._fail(worker, reason)
                else:
                    self._count_failure(reason)
                self._queue.extendleft(reversed(worker.attempts))

    def _fail(self, worker: _Worker, reason: str) -> None:
        """Try a worker's first slice again, or its halves, or give up its one image."""
        self._advance(-worker.advanced)
        worker.advanced = 0
        attempt = worker.attempts.popleft()
        attempt = replace(attempt, failures=attempt.failures + 1)
        self._count_failure(reason)
        if attempt.failures < _ATTEMPTS:
            self._queue.appendleft(attempt)
        elif len(attempt.images) > 1:
            for half in attempt.images.halves():
                self._queue.append(replace(attempt, images=half, failures=_ATTEMPTS - 1))
            self._unfinished[attempt.number] += 1
        else:
            (image_id,), (file,), (path,) = attempt.images.ids, attempt.images.files, attempt.images.paths
            problem = UnreadableImage(file.uri, file.size, file.modified, f"{path}: {reason}")
            self._finish(attempt, EmbeddedSlice(None, [], {image_id: problem}))
            self._advance(1)

    def _count_failure(self, reason: str) -> None:
        self._failed_in_a_row, self._reason = self._failed_in_a_row + 1, reason
        if self._failed_in_a_row > 2 * _ATTEMPTS + 2 * self._least:
            raise ValueError(f"{self._failed_in_a_row} workers failed one after the other; the last: {reason}")

    def _check_patience(self) -> None:
        now = time.monotonic()
        if any(worker.is_ready for worker in self._workers.values()):
            self._last_ready = now
        elif now - self._last_ready > _PATIENCE:
            self._last_ready = now
            notify(f"no worker has been ready for {_PATIENCE:.0f} s" + (f": {self._reason}" if self._reason else ""))

    def _finish(self, attempt: _Attempt, embedded: EmbeddedSlice) -> None:
        self._finished[attempt.number].append(embedded)
        self._unfinished[attempt.number] -= 1

    def _commit(self, least: int) -> None:
        """Write what is finished, if it is enough."""
        self._commit_first()
        slices = [part for parts in self._finished.values() for part in parts]
        is_due = time.monotonic() - self._last_commit > _SECONDS_PER_COMMIT
        if slices and not self._first_images and (is_due or sum(map(len, slices)) >= least):
            self._finished.clear()  # not written again if writing fails
            self._write(slices)
            self._last_commit = time.monotonic()

    def _commit_first(self) -> None:
        """Write the first images, as soon as they are finished, in the order of the slices."""
        if not self._first_images:
            return
        first, images, number = list[EmbeddedSlice](), 0, 0
        while images < self._first_images and number in self._finished and not self._unfinished[number]:
            first += self._finished[number]
            images, number = sum(map(len, first)), number + 1
        if images >= self._first_images:
            self._first_images = 0
            for written in range(number):
                del self._finished[written]
            self._write(first)
