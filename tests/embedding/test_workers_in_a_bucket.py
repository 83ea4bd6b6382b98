"""From pictures in a bucket to a store in the bucket, on Ray, while workers and the job are killed."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forclip.config import ModelConfig
from forclip.embedding.ingest import IndexSummary, index_images
from forclip.embedding.run_options import RunOptions
from forclip.embedding.slice_writer import SliceWriter
from forclip.embedding.slices import Slice
from forclip.index.image_index import Index
from forclip.models.retrieval_model import load_model
from tests.child import run_in_child
from tests.s3 import s3_client
from tests.shards import picture, write_parquet, write_tar

MINI = ModelConfig("forclip-mini")


def index(source: str, to: Any, **options: Any) -> IndexSummary:
    return index_images(source, to, model=MINI, num_query_tokens=2, **options)


ON_RAY = RunOptions(workers=2, engine="ray", images_per_commit=1)


def index_until_killed(source: str, to: str, commits: str) -> None:
    """Run by the test in a child process, which dies after some commits."""
    write, left = SliceWriter.write, [int(commits)]

    def write_and_die(self: SliceWriter, *given: Any) -> None:
        write(self, *given)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    SliceWriter.write = write_and_die  # type: ignore[method-assign,assignment]
    index(source, to, run=ON_RAY)


def found(store: Any, name_of: dict[str, str]) -> list[list[tuple[str, float]]]:
    """What is found for some texts: the pictures' names by their content, and the scores."""
    opened, model = Index(store), load_model(MINI, num_query_tokens=2)
    rows = opened.store.table().to_table(["id", "content_hash"]).to_pylist()
    names = {row["id"]: name_of[row["content_hash"]] for row in rows}
    assert len(names) == len(rows)
    queries = model.encode_queries(["a dog", "a red car", "grass"]).numpy()
    return [[(names[r.image_id], round(r.score, 3)) for r in results] for results in opened.search_many(queries, k=20)]


@pytest.fixture
def cluster(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of this machine, whose workers reach the bucket. Child processes find it by RAY_ADDRESS."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("FORCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_killed_workers_and_a_killed_job_leave_every_image_once(
    cluster: Any, bucket: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forclip.embedding.ray_workers import RayWorkers

    client, name, chance = s3_client(s3_server), bucket.removeprefix("s3://"), random.Random(16)
    pictures = [picture(k) for k in range(200)]
    (tmp_path / "local").mkdir()
    for k, content in enumerate(pictures):
        (tmp_path / "local" / f"{k}.png").write_bytes(content)
    for k in range(70):
        client.put_object(Bucket=name, Key=f"data/{k}.png", Body=pictures[k])
    tar = write_tar(tmp_path / "a.tar", {f"{k}.png": pictures[k] for k in range(70, 140)} | {"bad.png": b"no picture"})
    client.put_object(Bucket=name, Key="data/a.tar", Body=tar)
    parquet = write_parquet(tmp_path / "p.parquet", [*pictures[140:]], rows_a_group=20)
    client.put_object(Bucket=name, Key="data/p.parquet", Body=parquet)
    source, store = f"{bucket}/data", f"{bucket}/store"

    killed = run_in_child(index_until_killed, source, store, str(chance.randint(1, 2)))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    stored = len(Index(store))
    assert 0 < stored < 200
    submit, kills = RayWorkers.submit, [0]

    def submit_and_kill(self: RayWorkers, worker: int, images: Slice) -> None:
        submit(self, worker, images)
        if kills[0] < 2:
            kills[0] += 1
            time.sleep(chance.random() / 2)
            cluster.kill(self._actors[worker])

    monkeypatch.setattr(RayWorkers, "submit", submit_and_kill)
    summary = index(source, store, run=ON_RAY)
    assert kills == [2]
    assert (summary.added, summary.unchanged) == (200 - stored, stored)
    assert len(Index(store)) == 200
    assert Index(store).verify() == []
    again = index(source, store)
    assert (again.added, again.updated, again.unchanged, again.skipped) == (0, 0, 200, 1)

    index(str(tmp_path / "local"), tmp_path / "one")
    rows = Index(tmp_path / "one").store.table().to_table(["id", "content_hash"]).to_pylist()
    name_of = {row["content_hash"]: row["id"] for row in rows}
    for ours, expected in zip(found(store, name_of), found(tmp_path / "one", name_of), strict=True):
        assert [score for _, score in ours] == pytest.approx([score for _, score in expected], abs=3e-3)
        assert {image for image, _ in ours[:5]} <= {image for image, _ in expected}
