"""Kill processes at random moments of what they do to a store, and compare what they leave with what they acknowledged.

What was acknowledged is there once, what was under way is there whole or not at all, and a search equals a naive loop.
The next process goes on with the same store. benchmarks/kill_writers.py does it a thousand times.
"""

import os
import random
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from forclip.index.create_store import create_store
from forclip.index.image_index import Index
from forclip.index.milvus.compare import compare_with_store, verify_published
from forclip.index.milvus.create import PublishOptions
from forclip.index.milvus.index import MilvusIndex
from forclip.index.milvus.publish import publish
from forclip.types import Floats
from tests.child import ROOT
from tests.index.made import DIM, HEADER, by_image, files, oracle, some, unit, write_all_segments

Kept = dict[str, np.ndarray]
Scores = list[tuple[str, float]]
LOCAL = ("add", "put", "delete", "compact", "optimize")
PUBLISHED = (*LOCAL, "publish")
_MANY = 10_000  # more images than a store has here
_SHARE_VERIFIED = 10  # every tenth kill
_PATIENCE = 120.0  # seconds until a worker that says nothing fails


@dataclass(frozen=True)
class Operation:
    """What a worker begins. ids: the images it adds, replaces or deletes; seed: of their vectors."""

    name: str
    seed: int
    ids: tuple[str, ...] = ()

    def carry_out(self, index: Index, place: str | None) -> None:
        match self.name:
            case "add":
                index.add(some(self.ids, self.seed), files(self.ids))
            case "put":
                index.put(some(self.ids, self.seed), files(self.ids))
            case "delete":
                index.delete_ids(self.ids)
            case "compact":
                index.compact()
            case "optimize":
                write_all_segments(index)
                index.optimize(kind="SQ8" if self.seed % 2 else "none")
            case "publish":
                assert place is not None
                send(index, place)

    def after(self, kept: Kept) -> Kept:
        """Return what a store holds once the operation is done."""
        match self.name:
            case "add" | "put":
                return kept | by_image(some(self.ids, self.seed))
            case "delete":
                return {i: v for i, v in kept.items() if i not in self.ids}
        return kept


def send(index: Index, place: str) -> None:
    publish(index.store, place, PublishOptions(), lambda merge, max_vectors: None)


def draw(rng: random.Random, name: str, stored: Sequence[str], prefix: str) -> Operation:
    """Draw the images of an operation. A store stays at some 100 images."""
    new = [f"{prefix}-{k}" for k in range(rng.randrange(1, 40))]
    replaced = rng.sample(stored, min(len(stored), rng.randrange(10)))
    deleted = rng.sample(stored, rng.randrange(1 + len(stored) // 3))
    ids = {"add": new, "put": [*replaced, *new[:3]], "delete": deleted}
    return Operation(name, rng.randrange(1 << 30), tuple(ids.get(name, ())))


def work(
    says: Connection, environment: dict[str, str], folder: str, place: str | None, names: Sequence[str], seed: int
) -> None:
    """Change a store for ever. Says each operation before it begins, and its seconds when it returned.

    names: the first operations; all later ones are random.
    """
    os.environ.update(environment)
    rng, step = random.Random(seed), 0
    while True:
        index = Index(folder)
        name = names[step] if step < len(names) else rng.choice(LOCAL if place is None else PUBLISHED)
        operation = draw(rng, name, sorted(index.store.ids()), f"{seed}-{step}")
        says.send(asdict(operation))
        began = time.monotonic()
        operation.carry_out(index, place)
        says.send(time.monotonic() - began)
        step += 1


@dataclass
class Killed:
    """A store whose writers are killed, and what must be in it.

    sent: what was last published, and then what unfinished publications may have sent since; seconds: how long an
    operation takes, about.
    """

    folder: str
    place: str | None = None
    kept: Kept = field(default_factory=dict)
    sent: list[Kept] = field(default_factory=lambda: [{}])
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PUBLISHED, 0.05))
    begun: Operation | None = None

    def hear(self, said: dict[str, Any] | float) -> None:
        """Take what a worker says: the operation that it begins, or the seconds of the one that it finished."""
        if isinstance(said, dict):
            self.begun = Operation(**said)
            return
        assert self.begun is not None
        self.kept = self.begun.after(self.kept)
        if self.begun.name == "publish":
            self.sent = [self.kept]
        self.seconds[self.begun.name] += 0.3 * (said - self.seconds[self.begun.name])
        self.begun = None

    def kill(self, target: str, seed: int) -> str:
        """Start a worker, kill it while or soon after it does `target`, and compare. Returns what was under way."""
        rng = random.Random(seed)
        names = [*rng.choices(LOCAL if self.place is None else PUBLISHED, k=rng.randrange(3)), target]
        hears, says = _workers().Pipe(duplex=False)
        arguments = (says, dict(os.environ), self.folder, self.place, names, seed)
        worker = _workers().Process(target=work, args=arguments, daemon=True)
        worker.start()
        says.close()
        self.begun, begins = None, 0
        try:
            while begins < len(names):
                assert hears.poll(_PATIENCE), f"{self.folder}: the worker hangs in {self.begun}"
                said = hears.recv()
                begins += isinstance(said, dict)
                self.hear(said)
            delay = rng.uniform(0, 1.2 * self.seconds[target])
            time.sleep(delay)
            worker.kill()
            while True:  # what it said before it died; the last message may be cut
                self.hear(hears.recv())
        except (EOFError, OSError):
            worker.join()
        finally:
            worker.kill()
            hears.close()
        assert worker.exitcode == -9, f"{self.folder}: the worker failed by itself in {self.begun}: {worker.exitcode}"
        if self.begun is None:
            return "between two"
        if self.begun.name == target:
            self.seconds[target] = max(self.seconds[target], delay)
        return self.begun.name

    def compare(self) -> None:
        """Assert that the store is in one of the two states that are possible, and that searches tell the truth."""
        index = Index(self.folder)
        stored = sorted(index.store.table().to_table(["id"])["id"].to_pylist())
        query = unit(np.random.default_rng(len(stored)), DIM)
        found = [(r.image_id, round(r.score, 9)) for r in index.search(query, _MANY, exact=True)]
        possible = [self.kept] if self.begun is None else [self.kept, self.begun.after(self.kept)]
        fits = [p for p in possible if found == rounded(oracle(p, query, _MANY))]
        assert fits, f"{self.folder}: neither what was before {self.begun} nor what comes after it"
        assert stored == sorted(fits[0]), f"{self.folder}: other rows than images found, after {self.begun}"
        ten = [(r.image_id, round(r.score, 9)) for r in index.search(query, 10)]
        assert ten == found[:10], f"{self.folder}: other results than of an exact search, after {self.begun}"
        self.kept = fits[0]
        if self.begun is not None and self.begun.name == "publish":
            self.sent.append(self.kept)
        if self.place is not None:
            self._compare_published(query)

    def _compare_published(self, query: Floats) -> None:
        """Assert that every published image is whole and there once, as last published or as sent since."""
        assert self.place is not None
        try:
            published = MilvusIndex(self.place)
        except ValueError:
            assert not self.sent[0], f"{self.place}: what was published is gone, after {self.begun}"
            return
        found = [(r.image_id, round(r.score, 9)) for r in published.search(query, _MANY, exact=True)]
        assert len(dict(found)) == len(found), f"{self.place}: an image is there twice, after {self.begun}"
        states = [dict(rounded(oracle(kept, query, _MANY))) for kept in self.sent]
        for image_id in set(dict(found)).union(*states):
            score, expected = dict(found).get(image_id), [state.get(image_id) for state in states]
            assert score in expected, f"{self.place}: {image_id} has {score}, not one of {expected}, after {self.begun}"

    def verify(self) -> None:
        """Assert that `verify` finds nothing, and that publishing once more makes both sides equal."""
        index = Index(self.folder)
        assert (problems := index.verify()) == [], f"{self.folder}: {problems}"
        if self.place is not None:
            send(index, self.place)
            self.sent = [self.kept]
            published = MilvusIndex(self.place)
            problems = compare_with_store(published, index.store, lambda merge, max_vectors: None)
            assert (problems := problems + verify_published(published)) == [], f"{self.place}: {problems}"


def rounded(scores: Scores) -> Scores:
    return [(i, round(s, 9)) for i, s in scores]


def kill(folder: Path | str, times: int, seed: int, place: str | None = None) -> Counter[str]:
    """Create a store, kill writers of it, compare after each, and count in the midst of what they were.

    folder: a folder, or the URL of one in a bucket; place: where to publish the store, None for nowhere.
    """
    create_store(folder, HEADER)
    killed, seen = Killed(str(folder), place), Counter[str]()
    names = LOCAL if place is None else PUBLISHED
    for k in range(times):
        seen[killed.kill(names[k % len(names)], seed * 100_000 + k)] += 1
        if "://" in str(folder):
            time.sleep(0.1)  # a request under way reaches the server though its sender is dead
        killed.compare()
        if k % _SHARE_VERIFIED == _SHARE_VERIFIED - 1 or k == times - 1:
            killed.verify()
    return seen


def _workers() -> Any:
    """Return what makes workers: a server process that has imported everything forks them."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["pytest", "pymilvus", __name__])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context


# The server process imports Lance and does nothing with it, so forking is safe.
warnings.filterwarnings("ignore", message="lance is not fork-safe")
