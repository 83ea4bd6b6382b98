"""Indexing with several processes, Ray and array jobs: the store is that of one process, whoever is killed."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from forclip.config import ModelConfig
from forclip.data.metadata import read_metadata
from forclip.embedding.embed_all import plan_workers
from forclip.embedding.ingest import IndexSummary, index_images
from forclip.embedding.run_options import RunOptions
from forclip.embedding.shard import Shard, parse_shard
from forclip.embedding.skipped_list import read_unreadable
from forclip.embedding.slice_writer import SliceWriter
from forclip.embedding.worker_pool import Done, Event
from forclip.index.image_index import Index
from forclip.toyworld.dataset import ToyWorld
from tests.child import ROOT, run_in_child
from tests.videos import write_video

MINI = ModelConfig("forclip-mini")


def index(source: Path | str, to: Path, **options: Any) -> IndexSummary:
    return index_images(str(source), to, model=None if to.exists() else MINI, **({"num_query_tokens": 4} | options))


def rows(store: Path) -> dict[str, dict[str, Any]]:
    """All that a store has of each image, by id, but for keys and the time when it was added."""
    found = Index(store).store.table().to_table().drop_columns(["number", "added"]).to_pylist()
    assert len({row["id"] for row in found}) == len(found)
    assert Index(store).verify() == []
    return {row["id"]: row for row in found}


def assert_equal_up_to_rounding(found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    """Rounding depends on the number of threads, and on what else is in a batch. Codes of int8 may differ by one."""
    assert found.keys() == expected.keys()
    for image_id, row in found.items():
        for column in ("vectors", "boxes"):
            values, wanted = np.array(row.pop(column)), np.array(expected[image_id].pop(column))
            np.testing.assert_allclose(values, wanted, rtol=0, atol=1 if values.dtype.kind == "i" else 2e-3)
    assert found == expected


@pytest.fixture
def photos(tmp_path: Path, small_world: ToyWorld) -> Path:
    """130 pictures, three batches."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for picture in sorted(small_world.images.glob("*.jpg"))[:130]:
        shutil.copy(picture, folder / picture.name)
    return folder


def test_workers_store_what_one_process_stores(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles, merged vectors, int8's range, columns, frames of videos, a bad picture, and a worker that is killed."""
    (photos / "bad.jpg").write_text("no picture")
    write_video(photos / "clip.mp4", 50)
    names = sorted(picture.name for picture in photos.glob("g*.jpg"))
    (tmp_path / "speed.csv").write_text("image,speed\n" + "".join(f"{n},{k}\n" for k, n in enumerate(names)))
    options: dict[str, Any] = {"tiles": "2x2", "merge": 0.95, "precision": "int8", "compute": "bf16"}
    options |= {"metadata": read_metadata(tmp_path / "speed.csv")}
    plain = index(photos, tmp_path / "plain", run=RunOptions(images_per_commit=10), **options)
    write, killed = SliceWriter.write, list[int]()

    def kill_one_and_write(self: SliceWriter, *given: Any) -> None:
        for child in active_children()[: not killed]:
            child.kill()
            killed.append(child.pid or 0)
        write(self, *given)

    monkeypatch.setattr(SliceWriter, "write", kill_one_and_write)
    summary = index(photos, tmp_path / "s", run=RunOptions(workers=2, images_per_commit=10), **options)
    assert killed
    assert not active_children()
    assert summary == plain
    assert_equal_up_to_rounding(rows(tmp_path / "s"), rows(tmp_path / "plain"))
    assert Index(tmp_path / "s").store.header.code_range == Index(tmp_path / "plain").store.header.code_range
    assert Index(tmp_path / "s").store.header.compute == ["bf16"]


def index_until_killed(photos: str, to: str) -> None:
    """Run by the next test in a child process, which dies after the first commit."""
    write = SliceWriter.write

    def write_and_die(self: SliceWriter, *given: Any) -> None:
        write(self, *given)
        print(*(child.pid for child in active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    SliceWriter.write = write_and_die  # type: ignore[method-assign,assignment]
    index(photos, Path(to), run=RunOptions(workers=2, images_per_commit=1))


def test_a_killed_job_ends_its_workers_and_continues_where_it_was(photos: Path, tmp_path: Path) -> None:
    killed = run_in_child(index_until_killed, photos, tmp_path / "s")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for worker in killed.stdout.split():
        wait_until(lambda pid=worker: not is_running(pid))
    stored = len(Index(tmp_path / "s"))
    assert 0 < stored < 130
    summary = index(photos, tmp_path / "s")
    assert (summary.added, summary.unchanged) == (130 - stored, stored)
    assert len(rows(tmp_path / "s")) == 130


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(holds: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def start(photos: Path, to: Path, *options: str) -> subprocess.Popen[str]:
    """Start `forclip index`."""
    command = [sys.executable, "-m", "forclip", "index", str(photos), "--to", str(to), "--model", "forclip-mini"]
    return subprocess.Popen(
        [*command, "--num-query-tokens", "4", *options],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_interrupt_ends_a_job_and_its_workers(photos: Path, tmp_path: Path) -> None:
    job = start(photos, tmp_path / "s", "--workers", "2")
    try:
        wait_until(lambda: len(children(job.pid)) >= 3, 120)  # two workers, and what cleans up after them
        workers = children(job.pid)
        os.killpg(job.pid, signal.SIGINT)
        _, errors = job.communicate(timeout=120)
    finally:
        job.kill()
    assert (job.returncode, errors.count("Traceback")) == (130, 0), errors
    for worker in workers:
        wait_until(lambda pid=worker: not is_running(pid))


def test_array_jobs_share_a_listing_without_a_coordinator(photos: Path, tmp_path: Path) -> None:
    """Two at the same time, of which one creates the store; then a job for the whole finds nothing left to do."""
    (photos / "bad.jpg").write_text("no picture")
    jobs = [start(photos, tmp_path / "s", "--shard", f"{k}/2") for k in range(2)]
    outputs = [job.communicate(timeout=250) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert sum("1 could not be read" in out for out, _ in outputs) == 1
    index(photos, tmp_path / "plain")
    assert_equal_up_to_rounding(rows(tmp_path / "s"), rows(tmp_path / "plain"))
    summary = index(photos, tmp_path / "s")
    assert (summary.added, summary.updated, summary.unchanged, summary.skipped) == (0, 0, 130, 1)


def test_shards_one_after_another_list_all_unreadable_images(photos: Path, tmp_path: Path) -> None:
    """A job that starts when another one has ended keeps what that one could not read."""
    bad = [f"bad{k}.jpg" for k in range(8)]
    for name in bad:
        (photos / name).write_text("no picture")
    parts = [index(photos, tmp_path / "s", run=RunOptions(shard=Shard(k, 3))) for k in range(3)]
    assert all(part.unreadable for part in parts)
    assert sorted(i for part in parts for i in part.unreadable) == [f"photos/{name}" for name in bad]
    assert sorted(read_unreadable(tmp_path / "s")) == [f"photos/{name}" for name in bad]
    again = [index(photos, tmp_path / "s", run=RunOptions(shard=Shard(k, 3))) for k in range(3)]
    assert [(part.skipped, part.unreadable) for part in again] == [(len(part.unreadable), {}) for part in parts]
    shutil.copy(photos / "gallery_00000.jpg", photos / bad[0])
    mended = [index(photos, tmp_path / "s", run=RunOptions(shard=Shard(k, 3))) for k in range(3)]
    assert sum(part.added for part in mended) == 1
    assert sorted(read_unreadable(tmp_path / "s")) == [f"photos/{name}" for name in bad[1:]]


def test_a_shard_leaves_other_images_alone(photos: Path, tmp_path: Path) -> None:
    index(photos, tmp_path / "s")
    first, second, *_ = sorted(photos.iterdir())
    first.rename(photos / "renamed.jpg")
    second.unlink()
    parts = [index(photos, tmp_path / "s", run=RunOptions(shard=Shard(k, 4))) for k in range(4)]
    assert [part.vanished for part in parts] == [()] * 4
    assert sum(part.added for part in parts) == 1
    assert sum(part.unchanged for part in parts) == 128
    assert len(Index(tmp_path / "s")) == 131
    with pytest.raises(ValueError, match="0/4"):
        index(photos, tmp_path / "s", run=RunOptions(shard=Shard(0, 4)), delete_vanished=True)
    summary = index(photos, tmp_path / "s", delete_vanished=True)
    assert (summary.unchanged, len(summary.vanished)) == (129, 2)


def test_shards_divide_a_listing_evenly_and_keep_a_video_together(tmp_path: Path) -> None:
    shards = [Shard(k, 8) for k in range(8)]
    counts = [sum(shard.holds(f"r/{k}.jpg", Path(f"/r/{k}.jpg")) for k in range(8000)) for shard in shards]
    assert sum(counts) == 8000
    assert max(counts) < 1200
    frames = [Path(f"/r/day/clip.mp4#t={k}.000") for k in range(20)]
    (video,) = [shard for shard in shards if shard.holds("", Path("/r/day/clip.mp4"))]
    assert all(video.holds(f"r/day/{frame.name}", frame) for frame in frames)


@pytest.mark.parametrize("text", ["3", "4/4", "-1/4", "0/0", "1/a", ""])
def test_a_shard_that_there_is_not_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(ValueError, match=f"--shard {text}"):
        parse_shard(text)


def test_the_kubernetes_job_of_the_docs_has_one_pod_for_each_shard() -> None:
    text = (ROOT / "docs" / "many_workers.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    job = yaml.safe_load(text)["spec"]
    (command,) = job["template"]["spec"]["containers"][0]["args"]
    shard = shlex.split(command)[-1].replace("$JOB_COMPLETION_INDEX", str(job["completions"] - 1))
    assert job["completionMode"] == "Indexed"
    assert parse_shard(shard) == Shard(63, 64)


def test_options_that_do_not_fit_are_refused() -> None:
    for options, named in (
        ({"engine": "spark"}, "'spark'"),
        ({"address": "auto"}, "--address auto needs --engine ray"),
        ({"cpus": 2}, "--cpus-per-worker 2 needs"),
        ({"engine": "ray", "workers": 4, "max_workers": 2}, "--max-workers must be at least 4, not 2"),
    ):
        with pytest.raises(ValueError, match=named):
            RunOptions(**options)


def test_a_gpu_has_one_worker_and_the_others_decode_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(workers: int | None, device: str = "cuda") -> tuple[int, int, bool]:
        found = plan_workers(RunOptions(workers=workers), device, None)
        return len(found.devices), found.processes, found.is_this_process

    assert planned(None, "cpu") == (1, 0, True)
    assert planned(3, "cpu") == (3, 0, False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert planned(8) == (1, 8, True)
    assert planned(0) == (1, 0, True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert planned(32) == (4, 8, False)
    assert plan_workers(RunOptions(workers=3), "cuda", None).devices == ("cuda:0", "cuda:1", "cuda:2")
    assert planned(2, "cuda:3") == (1, 2, True)


def test_ray_stores_what_one_process_stores(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On two workers, of which one is killed."""
    ray = pytest.importorskip("ray")
    from forclip.embedding.ray_workers import RayWorkers

    monkeypatch.setenv("RAY_ADDRESS", "local")
    (photos / "bad.jpg").write_text("no picture")
    plain = index(photos, tmp_path / "plain")
    wait, killed = RayWorkers.wait, list[int]()

    def kill_one_and_wait(self: RayWorkers, seconds: float) -> list[Event]:
        events = wait(self, seconds)
        for event in events:
            if isinstance(event, Done) and not killed:
                killed.append(event.worker)
                ray.kill(self._actors[event.worker])
        return events

    monkeypatch.setattr(RayWorkers, "wait", kill_one_and_wait)
    summary = index(photos, tmp_path / "s", run=RunOptions(workers=2, engine="ray", images_per_commit=64))
    assert not ray.is_initialized()
    assert killed
    assert summary == plain
    assert_equal_up_to_rounding(rows(tmp_path / "s"), rows(tmp_path / "plain"))
