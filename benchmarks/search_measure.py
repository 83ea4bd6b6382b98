"""Building, sweeping and asking one engine, each in a process of its own: `run_job` starts it, `main` is in it."""

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
_FEWEST = 20  # queries for a setting, however slow it is
_FEWEST_SLOW = 5  # queries while sweeping beyond ten times the time that a setting may take


@dataclass(frozen=True)
class Job:
    """One engine on some vectors. queries, scores: .npy files of text queries and of what is true of all the images.

    seconds: what a setting may take. setting: for asking.
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
        """Of the first images only."""
        return replace(self, vectors=replace(self.vectors, images=images))


class JobError(Exception):
    """What a job's process said last."""


def run_job(task: str, job: Job, timeout: float | None = None) -> dict[str, Any]:
    """What a task found in a fresh process. Raises JobError, or TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        out, said = Path(folder) / "found.json", Path(folder) / "said.txt"
        command = [sys.executable, "-m", "benchmarks.search_measure", task, job.to_json(), str(out)]
        with said.open("w") as stream:
            run = subprocess.run(command, stdout=stream, stderr=stream, check=False, timeout=timeout, cwd=ROOT)
        if run.returncode or not out.exists():
            lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
            raise JobError(f"{task} ended with {run.returncode}: {lines[-1][:300] if lines else 'without a word'}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def build(job: Job) -> dict[str, Any]:
    engine = load_engine(job.engine)
    start = time.perf_counter()
    engine.build(job.vectors, job.folder)
    seconds = time.perf_counter() - start
    return {"build_seconds": seconds, "build_peak_mib": memory()["peak_mib"]}


def sweep(job: Job) -> dict[str, Any]:
    """Climbs each ladder until recall is reached, it is slower than another that reached it, or climbing is no use."""
    engine = load_engine(job.engine)
    engine.open(job.vectors, job.folder)
    tried: list[dict[str, Any]] = []
    for ladder in engine.ladders(job.vectors, job.k):
        climbed: list[float] = []
        for setting in ladder:
            latencies, found = ask(engine, replace(job, setting=setting))
            tried.append({"setting": setting, **summary(latencies), **accuracy(job, found)})
            climbed.append(tried[-1]["recall"])
            best = min((t["p50_ms"] for t in tried if t["recall"] >= job.target), default=np.inf)
            if tried[-1]["p50_ms"] >= best or climbed[-1] >= job.target or is_level(climbed):
                break
    return {"tried": tried}


def is_level(recalls: list[float]) -> bool:
    """Whether the last two steps of a ladder have gained next to nothing."""
    return len(recalls) > 2 and recalls[-1] - recalls[-3] < 1e-3


def final(job: Job) -> dict[str, Any]:
    """Opens and asks with one setting, and what memory that took. Recall is worked out after memory is read."""
    engine = load_engine(job.engine)
    imported = memory()
    start = time.perf_counter()
    engine.open(job.vectors, job.folder)
    opened = time.perf_counter() - start
    latencies, found = ask(engine, job)
    used = memory()
    return {
        **summary(latencies),
        **accuracy(job, found),
        "open_seconds": opened,
        "first_query_ms": 1e3 * latencies[0],
        "memory": {**used, "imported_mib": imported["peak_mib"]},
    }


def ask(engine: Engine, job: Job) -> tuple[list[float], list[Sequence[int]]]:
    """Seconds of each query, the warm-up's first, and the images found, query by query as far as the time goes."""
    queries = np.load(job.queries)
    start = time.perf_counter()
    latencies, found = [], []
    for number, query in enumerate([*queries[:_WARM_UP], *queries]):
        before = time.perf_counter()
        images = engine.query(query, job.k, job.setting)
        now = time.perf_counter()
        latencies.append(now - before)
        if number >= _WARM_UP:
            found.append(images)
        spent = now - start
        if len(found) >= (_FEWEST_SLOW if spent > 10 * job.seconds else _FEWEST) and spent > job.seconds:
            break
    return latencies, found


def summary(latencies: list[float]) -> dict[str, Any]:
    """Without the warm-up."""
    counted = 1e3 * np.array(latencies[_WARM_UP:])
    return {
        "queries": len(counted),
        "p50_ms": float(np.median(counted)),
        "p95_ms": float(np.percentile(counted, 95)),
    }


def accuracy(job: Job, found: list[Sequence[int]]) -> dict[str, float]:
    scores: Floats = np.load(job.scores, mmap_mode="r")[: len(found), : job.vectors.images]
    of_queries = [recall(_distinct(images), true, job.k) for images, true in zip(found, scores, strict=True)]
    return {"recall": float(np.mean(of_queries)), "least_recall": float(np.min(of_queries))}


def choose(tried: list[dict[str, Any]], target: float) -> list[dict[str, Any]]:
    """Fastest first of those that reached the target; if there are none, the one with the best recall."""
    reached = [t for t in tried if t["recall"] >= target]
    return sorted(reached, key=lambda t: t["p50_ms"]) or [max(tried, key=lambda t: (t["recall"], -t["p50_ms"]))]


def memory() -> dict[str, float | None]:
    """MiB of this process: the most that was ever resident, files mapped into it included, and what is now its own."""
    status, rollup = Path("/proc/self/status"), Path("/proc/self/smaps_rollup")
    return {
        "peak_mib": _kibibytes(status, "VmHWM:"),
        "resident_mib": _kibibytes(rollup, "Rss:"),
        "anonymous_mib": _kibibytes(rollup, "Anonymous:"),
    }


def disk_bytes(path: Path) -> int:
    """What the files of a folder occupy. Sparse files count as what is written of them."""
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
