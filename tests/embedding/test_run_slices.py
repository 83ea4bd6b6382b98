"""Slices on workers that fail, die and are slow: every image is written once, whatever happens."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forclip.embedding.run_slices import SliceRun
from forclip.embedding.slices import EmbeddedSlice, Slice
from forclip.embedding.worker_pool import Advanced, Done, Event, Failed, Lost, Ready
from forclip.index.store import ImageFile


def images(count: int) -> Slice:
    ids = [f"r/{k}.jpg" for k in range(count)]
    return Slice(ids, [ImageFile(i) for i in ids], [Path("/photos") / i for i in ids])


class FakePool:
    """Workers that embed nothing, and that fail or die at random, and always at certain images."""

    def __init__(self, seed: int, trouble: float, poison: frozenset[str] = frozenset(), starts: bool = True) -> None:
        self.random, self.trouble, self.poison, self.starts = random.Random(seed), trouble, poison, starts
        self.workers: dict[int, list[Slice]] = {}
        self.loading: set[int] = set()
        self.started, self.most, self.closed = 0, 0, False

    def add(self) -> int:
        self.started += 1
        self.workers[self.started] = []
        self.loading.add(self.started)
        self.most = max(self.most, len(self.workers))
        return self.started

    def remove(self, worker: int) -> None:
        assert not self.workers.pop(worker)

    def submit(self, worker: int, images: Slice) -> None:
        self.workers[worker].append(images)

    def wait(self, seconds: float) -> list[Event]:
        assert self.workers
        worker = self.random.choice(sorted(self.workers))
        if worker in self.loading:
            self.loading.remove(worker)
            if self.starts:
                return [Ready(worker)]
            del self.workers[worker]
            return [Lost(worker, "no weights here")]
        slices = self.workers[worker]
        if not slices:
            return []
        if self.poison.intersection(slices[0].ids) or self.random.random() < self.trouble:
            if self.random.random() < 0.5:
                slices.pop(0)
                return [Advanced(worker, 1), Failed(worker, "out of memory")]
            del self.workers[worker]
            return [Lost(worker, "killed")]
        done = slices.pop(0)
        return [Advanced(worker, len(done)), Done(worker, EmbeddedSlice(None, list(done.files), {}))]

    def close(self) -> None:
        self.closed = True


def run(pool: FakePool, count: int, size: int = 8, **options: int) -> tuple[list[list[EmbeddedSlice]], int]:
    """Run on a pool. Returns the commits, and the progress that was reported."""
    commits: list[list[EmbeddedSlice]] = []
    progress: list[int] = []

    def write(slices: Sequence[EmbeddedSlice]) -> None:
        commits.append(list(slices))

    settings = {"workers": 2, "max_workers": 2, "images_per_commit": 20} | options
    SliceRun(pool, write, progress.append, **settings).run(images(count).cut(size, size))
    return commits, sum(progress)


def written(commits: list[list[EmbeddedSlice]]) -> Counter[str]:
    parts = [part for commit in commits for part in commit]
    return Counter(i for part in parts for i in [*(file.uri for file in part.files), *part.unreadable])


@given(st.integers(0, 10_000), st.integers(1, 100), st.sampled_from([0.0, 0.1, 0.3]), st.integers(1, 4))
def test_every_image_is_written_once_whatever_fails(seed: int, count: int, trouble: float, workers: int) -> None:
    pool = FakePool(seed, trouble)
    try:
        commits, progress = run(pool, count, workers=workers, max_workers=workers)
    except ValueError:
        assert trouble  # too many failures in a row
    else:
        assert written(commits) == Counter(images(count).ids)
        assert progress == count
    assert pool.closed
    assert pool.most <= workers


def test_images_that_end_workers_are_found_and_reported_alone() -> None:
    poison = frozenset({"r/3.jpg", "r/40.jpg"})
    for seed in range(20):
        commits, progress = run(FakePool(seed, 0, poison), 64, size=16)
        assert written(commits) == Counter(images(64).ids)
        assert progress == 64
        problems = {i: p.reason for commit in commits for part in commit for i, p in part.unreadable.items()}
        assert problems.keys() == poison
        assert problems["r/3.jpg"] in ("/photos/r/3.jpg: out of memory", "/photos/r/3.jpg: killed")


def test_a_job_whose_workers_never_work_ends_with_the_reason() -> None:
    pool = FakePool(0, 0, starts=False)
    with pytest.raises(ValueError, match="no weights here"):
        run(pool, 64)
    assert pool.closed
    with pytest.raises(ValueError, match=r"out of memory|killed"):
        run(FakePool(0, 1.0), 64)


def test_commits_are_of_a_number_of_images_and_the_first_is_of_the_first() -> None:
    commits, _ = run(FakePool(1, 0), 100, size=5, first_images=15, images_per_commit=20)
    first = [file.uri for part in commits[0] for file in part.files]
    assert first == [f"r/{k}.jpg" for k in range(15)]
    assert all(20 <= sum(map(len, commit)) < 30 for commit in commits[1:-1])


def test_what_is_finished_is_written_before_a_job_ends_with_an_error() -> None:
    pool = FakePool(0, 0, frozenset(f"r/{k}.jpg" for k in range(8, 64)))
    commits: list[EmbeddedSlice] = []
    job = SliceRun(pool, commits.extend, lambda count: None, workers=1, max_workers=1, images_per_commit=1000)
    with pytest.raises(ValueError, match="one after the other"):
        job.run(images(64).cut(8, 8))
    assert written([commits]) == Counter(images(8).ids)


def test_workers_are_added_up_to_the_limit_while_slices_wait() -> None:
    grown, fixed = FakePool(2, 0), FakePool(2, 0)
    run(grown, 400, workers=1, max_workers=5)
    run(fixed, 400, workers=1, max_workers=1)
    assert (grown.most, fixed.most) == (5, 1)
    few = FakePool(2, 0)
    run(few, 16, workers=4, max_workers=9)  # two slices
    assert few.most == 2
