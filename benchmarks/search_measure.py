"""Build, sweep and measure one engine, each in a new process: `run_job` starts the process, `main` runs in it."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_data import Vectors, recall
from benchmarks.search_engines.protocol import Engine, Setting, load_engine
from forclip.types import Floats

ROOT = Path(__file__).parents[1]
_MEBIBYTE = 1 << 20
_WARM_UP = 5
_FEWEST = 20  # least number of queries per setting
_FEWEST_SLOW = 5  # the same for a setting that takes more than ten times its time


@dataclass(frozen=True)
class Job:
    """One engine and its data. queries, scores: .npy files of the text queries and of the exact scores of all images.

    target: recall to reach; seconds: time per setting; setting: search parameters of the engine.
    """

    engine: str
    vectors: Vectors
    queries: Path
    scores: Path
    folder: Path
    k: int
    target: float
    seconds: float
    setting: Setting = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_json(text: str) -> "Job":
        content: dict[str, Any] = json.loads(text)
        vectors: dict[str, Any] = content["vectors"]
        content["vectors"] = Vectors(**{**vectors, "file": Path(vectors["file"])})
        return Job(**{**content, **{name: Path(content[name]) for name in ("queries", "scores", "folder")}})

    def on_part(self, images: int) -> "Job":
        """The same job with the first images only."""
        return replace(self, vectors=replace(self.vectors, images=images))


class JobError(Exception):
    """A job's process failed. The message ends with its last line of output."""


def run_job(task: str, job: Job, timeout: float | None = None) -> dict[str, Any]:
    """Run a task in a new process and return its result. Raises JobError or subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "result.json", Path(folder) / "log.txt"
        command = [sys.executable, "-m", "benchmarks.search_measure", task, job.to_json(), str(out)]
        with log.open("w") as stream:
            run = subprocess.run(command, stdout=stream, stderr=stream, check=False, timeout=timeout, cwd=ROOT)
        if run.returncode or not out.exists():
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            raise JobError(f"{task} ended with {run.returncode}: {lines[-1][:300] if lines else 'no output'}")
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def build(job: Job) -> dict[str, Any]:
    """Build the engine's files, and measure time and memory."""
    engine = load_engine(job.engine)
    start = time.perf_counter()
    engine.build(job.vectors, job.folder)
    seconds = time.perf_counter() - start
    return {"build_seconds": seconds, "build_peak_mib": memory()["peak_mib"]}


def sweep(job: Job) -> dict[str, Any]:
    """Try the settings of each ladder in order.

    A ladder ends when a setting reaches the target recall, when it is slower than another one that reached it, or when
    recall stops rising.
    """
    engine = load_engine(job.engine)
    engine.open(job.vectors, job.folder)
    tried: list[dict[str, Any]] = []
    for ladder in engine.ladders(job.vectors, job.k):
        climbed: list[float] = []
        for setting in ladder:
            latencies, images = run_queries(engine, replace(job, setting=setting))
            tried.append({"setting": setting, **summary(latencies), **accuracy(job, images)})
            climbed.append(tried[-1]["recall"])
            best = min((t["p50_ms"] for t in tried if t["recall"] >= job.target), default=np.inf)
            if tried[-1]["p50_ms"] >= best or climbed[-1] >= job.target or is_level(climbed):
                break
    return {"tried": tried}


def is_level(recalls: list[float]) -> bool:
    """Whether the last two steps of a ladder gained almost nothing."""
    return len(recalls) > 2 and recalls[-1] - recalls[-3] < 1e-3


def final(job: Job) -> dict[str, Any]:
    """Open the engine and run the queries with one setting. Memory is read before recall is computed."""
    engine = load_engine(job.engine)
    imported = memory()
    start = time.perf_counter()
    engine.open(job.vectors, job.folder)
    opened = time.perf_counter() - start
    latencies, images = run_queries(engine, job)
    used = memory()
    return {
        **summary(latencies),
        **accuracy(job, images),
        "open_seconds": opened,
        "first_query_ms": 1e3 * latencies[0],
        "memory": {**used, "imported_mib": imported["peak_mib"]},
    }


def run_queries(engine: Engine, job: Job) -> tuple[list[float], list[Sequence[int]]]:
    """Run queries until the time is used up.

    Returns the seconds of each query, those of the warm-up first, and the images of each query after the warm-up.
    """
    queries = np.load(job.queries)
    start = time.perf_counter()
    latencies, results = [], []
    for k, query in enumerate([*queries[:_WARM_UP], *queries]):
        before = time.perf_counter()
        images = engine.query(query, job.k, job.setting)
        now = time.perf_counter()
        latencies.append(now - before)
        if k >= _WARM_UP:
            results.append(images)
        spent = now - start
        if len(results) >= (_FEWEST_SLOW if spent > 10 * job.seconds else _FEWEST) and spent > job.seconds:
            break
    return latencies, results


def summary(latencies: list[float]) -> dict[str, Any]:
    """Number, median and 95th percentile of the latencies, without the warm-up."""
    counted = 1e3 * np.array(latencies[_WARM_UP:])
    return {
        "queries": len(counted),
        "p50_ms": float(np.median(counted)),
        "p95_ms": float(np.percentile(counted, 95)),
    }


def accuracy(job: Job, results: list[Sequence[int]]) -> dict[str, float]:
    """Mean and least recall over queries. results: images of each query."""
    scores: Floats = np.load(job.scores, mmap_mode="r")[: len(results), : job.vectors.images]
    recalls = [recall(_distinct(images), exact, job.k) for images, exact in zip(results, scores, strict=True)]
    return {"recall": float(np.mean(recalls)), "least_recall": float(np.min(recalls))}


def choose(tried: list[dict[str, Any]], target: float) -> list[dict[str, Any]]:
    """The settings that reached the target, fastest first; if there are none, the one with the best recall."""
    reached = [t for t in tried if t["recall"] >= target]
    return sorted(reached, key=lambda t: t["p50_ms"]) or [max(tried, key=lambda t: (t["recall"], -t["p50_ms"]))]


def memory() -> dict[str, float | None]:
    """Memory of this process in MiB: largest and current resident memory with mapped files, and anonymous memory."""
    status, rollup = Path("/proc/self/status"), Path("/proc/self/smaps_rollup")
    return {
        "peak_mib": _kibibytes(status, "VmHWM:"),
        "resident_mib": _kibibytes(rollup, "Rss:"),
        "anonymous_mib": _kibibytes(rollup, "Anonymous:"),
    }


def disk_bytes(path: Path) -> int:
    """Bytes that a file or the files of a folder occupy on disk. Holes of sparse files do not count."""
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return sum(f.stat().st_blocks * 512 for f in files)


def _kibibytes(file: Path, name: str) -> float | None:
    if not file.exists():
        return None  # not Linux
    (line,) = [line for line in file.read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024 / _MEBIBYTE


def _distinct(images: Sequence[int]) -> Any:
    return np.array(list(dict.fromkeys(int(i) for i in images)), np.int64)


_TASKS: dict[str, Callable[[Job], dict[str, Any]]] = {"build": build, "sweep": sweep, "final": final}


def main() -> None:
    task, job, out = sys.argv[1:]
    Path(out).write_text(json.dumps(_TASKS[task](Job.from_json(job))))


if __name__ == "__main__":
    main()
