"""A store outlives whatever happens to the process that writes it, and others may read it all the while."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forclip.index.image_index import Index
from tests.child import ROOT
from tests.index.killing import kill
from tests.index.made import DIM, HEADER, by_image, files, names, oracle, some, unit, write_all_segments


def test_killed_twenty_times(tmp_path: Path) -> None:
    assert kill(tmp_path / "s", times=20, seed=1).total() == 20


def test_killed_in_a_bucket(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCLIP_CACHE", str(tmp_path / "cache"))
    assert kill(f"{bucket}/s", times=3, seed=1).total() == 3


def read_until_done(folder: str, done: str) -> None:
    """What the children of the next test run: each search sees a whole state, and never less than the one before."""
    index, query = Index(Path(folder)), unit(np.random.default_rng(0), DIM)
    seen, last = [0], False
    while not last:
        last = Path(done).exists()
        results = index.search(query, 10_000)
        assert len(results) % 25 == 0, len(results)
        assert len(results) >= seen[-1]
        assert len({r.image_id for r in results}) == len(results)
        if len(seen) == 1:
            print("ready", flush=True)
        seen.append(len(results))
    print(seen[-1])


def test_two_processes_search_while_one_adds(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    code = "import sys; from tests.index.test_killing import read_until_done; read_until_done(*sys.argv[1:])"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-c", code, str(tmp_path / "s"), str(tmp_path / "done")]
    readers = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()
        for part in range(20):
            ids = names(25, f"{part}")
            index.add(some(ids, seed=part), files(ids))
            if part % 5 == 4:
                write_all_segments(index)
                index.optimize(kind="SQ8")
        (tmp_path / "done").touch()
        for reader in readers:
            out, err = reader.communicate(timeout=60)
            assert reader.returncode == 0, err
            assert int(out) == 500
    finally:
        for reader in readers:  # they would read for ever
            reader.kill()


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done to a store in whatever order, a search equals the oracle over what should be in it."""

    @initialize(folder=st.builds(lambda: None))
    def begin(self, folder: None) -> None:
        import tempfile

        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name) / "s"
        self.index = Index.create(self.folder, HEADER)
        self.kept: dict[str, np.ndarray] = {}
        self.step = 0

    def teardown(self) -> None:
        if hasattr(self, "temporary"):
            self.temporary.cleanup()

    @rule(numbers=st.sets(st.integers(0, 30), min_size=1, max_size=8))
    def put(self, numbers: set[int]) -> None:
        self.step += 1
        ids = [f"image {n}" for n in sorted(numbers)]
        embeddings = some(ids, seed=self.step)
        self.index.put(embeddings, files(ids))
        self.kept |= by_image(embeddings)

    @rule(count=st.integers(1, 12))
    def add(self, count: int) -> None:
        self.step += 1
        embeddings = some(names(count, f"added {self.step}"), seed=self.step)
        self.index.add(embeddings, files(embeddings.image_ids))
        self.kept |= by_image(embeddings)

    @rule(numbers=st.sets(st.integers(0, 30), max_size=10))
    def delete(self, numbers: set[int]) -> None:
        ids = [f"image {n}" for n in numbers]
        assert self.index.delete_ids(ids) == sum(i in self.kept for i in ids)
        self.kept = {i: v for i, v in self.kept.items() if i not in ids}

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule(kind=st.sampled_from([None, "none", "SQ8"]))
    def optimize(self, kind: str | None) -> None:
        write_all_segments(self.index)
        self.index.optimize(kind)

    @rule()
    def reopen(self) -> None:
        self.index = Index(self.folder)

    @invariant()
    def searching_equals_the_oracle(self) -> None:
        if not hasattr(self, "index"):
            return
        query = unit(np.random.default_rng(self.step), DIM)
        for k in (3, 1000):
            found = self.index.search(query, k, exact=True)
            expected = oracle(self.kept, query, k)
            assert [r.image_id for r in found] == [i for i, _ in expected]
            assert [r.score for r in found] == pytest.approx([s for _, s in expected], abs=1e-9)
            approximate = self.index.search(query, k)
            assert len(approximate) == len(expected)
            assert {r.image_id for r in approximate} <= self.kept.keys()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
