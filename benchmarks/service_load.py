"""Measure the service under load: how long concurrent clients wait, and whether its memory stays constant.

    python -m benchmarks.service_load [--images 100000] [--per-image 10] [--clients 32] [--workers 1,2] [--out FILE]

Generates a store, starts `forclip serve` on it, and sends searches as the page does, from clients in one other process.
Every client sends its next request as soon as it has an answer, so there are always as many requests as clients:

- distinct: every text is new;
- known: the same texts again. The service still has their vectors but not their results, so only the encoding of text
  is saved;
- repeated: few texts, some of them much more frequent than others (Zipf's law);
- paging: all pages of the results of distinct texts;
- paced: distinct texts; each client pauses at random, up to two seconds, before its next request;
- mixed: 20,000 requests, half of them repeated, the others distinct or pages. The memory is recorded all the time.

--workers: numbers of worker processes, of which one service after the other is started; each answers the same requests.
Memory is that of all processes of the service: a page of a mapped file that several of them share counts once.

The generated images lie around the text vectors of everyday names; the searched texts are those names with an
adjective. The run has an invented calibration, so that the service computes confidences as for a finetuned run.

All processes share the machine. processor_ms_a_request is the service's CPU time on all cores; other programs change it
less than wall-clock time. The encoding of text alone is measured in this process, before the service starts.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.command import command_line
from benchmarks.load_clients import Load
from benchmarks.search import machine
from benchmarks.search_data import World, make_world, write_vectors
from benchmarks.search_engines.engine_forclip import as_images
from benchmarks.search_measure import ROOT
from forclip.calibration.model import Calibration
from forclip.config import ModelConfig
from forclip.embedding.ingest import sample_queries
from forclip.index.image_index import Index
from forclip.models.mini_clip import MINI_NAME
from forclip.models.retrieval_model import (
    RetrievalModel,
    configured_backbone,
    from_pretrained,
    load_model,
    no_class_vectors,
    save_pretrained,
    store_header,
)
from forclip.models.summary_head import window_seeded_head
from forclip.text.vocabulary import load_vocabulary

PAGE = 60  # images, as on the page
_PAGES = 4
_ZIPF_TEXTS = 500
_WARM_UP = 200  # requests that are not counted, with other texts
_MIXED_SHARES = {"repeated": 0.5, "distinct": 0.3, "paging": 0.2}
# By name in the results, the fields of /proc/PID/smaps_rollup. A shared page counts in parts, which add up to one.
_MEMORY = {"total": "Pss", "private": "Pss_Anon", "mapped": "Pss_File"}
_QUERY_TOKENS = 25
_BLOCK_IMAGES = 5000
_CALIBRATION = Calibration(-3.0, 0.5, 1.2, 0.0, 0.95, 0.1, 0.02, 50, 1000, {})
_ADJECTIVES = (
    *("red", "green", "blue", "yellow", "black", "white", "small", "large", "old", "new"),
    *("broken", "wooden", "wet", "dry", "round", "long", "short", "dark", "bright", "dirty"),
    *("clean", "empty", "full", "open", "closed", "heavy", "soft", "hard", "thin", "thick"),
)

Bodies = list[dict[str, Any]]
Sizes = list[dict[str, float]]


def many_texts() -> list[str]:
    """Distinct texts: all names with the first adjective, then with the second, and so on."""
    return [f"{adjective} {name}" for adjective in _ADJECTIVES for name in load_vocabulary("lvis")]


def write_run(folder: Path) -> None:
    """Write a run of the mini model with an untrained summary head."""
    model = ModelConfig(MINI_NAME)
    backbone = configured_backbone(model, "cpu")
    head = window_seeded_head(backbone.new_pool(), _QUERY_TOKENS)
    texts = no_class_vectors(head.pool.dim)
    save_pretrained(folder, head, texts, backbone, model, ("a photo of a {}",), _CALIBRATION)


def write_store(folder: Path, run: Path, images: int, per_image: int, seed: int) -> dict[str, Any]:
    """Write a store to a new folder, with a search index as from `forclip index`. Returns a description of it."""
    config = ModelConfig(str(run))
    model = load_model(config)
    vectors = write_vectors(folder.with_suffix(".npy"), world_of(model, seed), images, per_image)
    index = Index.create(folder, store_header(model, config, "sum", _QUERY_TOKENS), run)
    for start in range(0, images, _BLOCK_IMAGES):
        index.add(*as_images(start, vectors.of_images(start, start + _BLOCK_IMAGES)))
    index.optimize(queries=sample_queries(model))
    vectors.file.unlink()
    return {"images": images, "vectors_per_image": per_image, "dim": model.dim, "seed": seed, **index.info()}


def world_of(model: RetrievalModel, seed: int) -> World:
    """A world whose concepts are the text vectors of everyday names, less the mean of all of them."""
    names: Sequence[str] = load_vocabulary("lvis")
    texts = np.stack([model.encode_query(name).cpu().numpy() for name in names])
    own = texts - texts.mean(axis=0)
    base = make_world(len(names), model.dim, seed)
    centres = own / np.linalg.norm(own, axis=1, keepdims=True)
    common = texts.mean(axis=0) / np.linalg.norm(texts.mean(axis=0))
    return World(centres.astype(np.float32), base.popularity, base.image_mean, common.astype(np.float32), seed)


class Texts:
    """A supply of texts; each is handed out once."""

    def __init__(self) -> None:
        self._unused: Iterator[str] = iter(many_texts())

    def take(self, count: int) -> list[str]:
        return [next(self._unused) for _ in range(count)]


def first_pages(texts: Sequence[str]) -> Bodies:
    """Requests for the first page of each text."""
    return [{"text": text, "k": PAGE} for text in texts]


def pages(texts: Sequence[str]) -> Bodies:
    """Requests for all pages of each text, in order."""
    return [{"text": text, "k": PAGE, "offset": PAGE * page} for text in texts for page in range(_PAGES)]


def zipf(texts: Sequence[str], count: int, seed: int) -> Bodies:
    """`count` requests for first pages. The frequency of the n-th text is proportional to 1 / n."""
    weights = 1 / np.arange(1, len(texts) + 1)
    drawn = np.random.default_rng(seed).choice(len(texts), count, p=weights / weights.sum())
    return first_pages([texts[n] for n in drawn])


def mixed(texts: Texts, repeated: Sequence[str], count: int, seed: int) -> Bodies:
    """Requests of several kinds in random order. repeated: texts for repeated requests."""
    counts = {kind: int(count * share) for kind, share in _MIXED_SHARES.items()}
    bodies = [
        *zipf(repeated, counts["repeated"], seed),
        *first_pages(texts.take(counts["distinct"])),
        *pages(texts.take(counts["paging"] // _PAGES)),
    ]
    return [bodies[n] for n in np.random.default_rng(seed).permutation(len(bodies))]


def measure_encoding(run: Path, texts: Sequence[str]) -> dict[str, float]:
    """Milliseconds to encode one text, without a service."""
    model = from_pretrained(run)
    model.encode_query("a first one")
    milliseconds = []
    for text in texts:
        started = time.perf_counter()
        model.encode_query(text)
        milliseconds.append(1000 * (time.perf_counter() - started))
    return percentiles(milliseconds)


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile."""
    return {f"p{at}_ms": round(float(np.percentile(milliseconds, at)), 2) for at in (50, 95, 99)}


@contextmanager
def service(store: Path, workers: int = 1) -> Iterator[tuple[int, int]]:
    """Run `forclip serve` on a store. Yields its process id and its port when all workers listen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "forclip", "serve", str(store), "--port", str(port), "--workers", str(workers)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        try:
            while count_listening(Path("/proc/net/tcp").read_text(), port) < workers:
                if running.poll() is not None:
                    raise RuntimeError(f"the service exited with code {running.returncode}")
                time.sleep(0.05)
            yield running.pid, port
        finally:
            running.send_signal(signal.SIGINT)


def count_listening(table: str, port: int) -> int:
    """Return how many sockets listen at a port. table: of the system, /proc/net/tcp."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def put_under_load(load: Load, folder: Path, service: int, every: float = 5.0) -> tuple[dict[str, Any], Sizes]:
    """Put a service under load. Returns the clients' outcome with the CPU seconds of the service, and its memory.

    service: id of its first process; every: seconds between two readings of its memory.
    """
    load_file, out = folder / "load.json", folder / "outcome.json"
    load_file.write_text(json.dumps(asdict(load)))
    memory, before = [memory_mib(service)], processor_seconds(service)
    command = [sys.executable, "-m", "benchmarks.load_clients", str(load_file), str(out)]
    with subprocess.Popen(command, cwd=ROOT) as clients:
        while clients.poll() is None:
            try:
                clients.wait(every)
            except subprocess.TimeoutExpired:
                memory.append(memory_mib(service))
    if clients.returncode:
        raise RuntimeError(f"the clients exited with code {clients.returncode}")
    outcome: dict[str, Any] = json.loads(out.read_text())
    outcome["processor_seconds"] = processor_seconds(service) - before
    return outcome, [*memory, memory_mib(service)]


def processes(first: int) -> list[int]:
    """Return a process and all that descend from it."""
    children = [
        int(child) for file in Path(f"/proc/{first}/task").glob("*/children") for child in file.read_text().split()
    ]
    return [first, *(one for child in children for one in processes(child))]


def processor_seconds(service: int) -> float:
    """CPU seconds of all processes of a service on all cores since their start."""
    ticks = 0
    for process in processes(service):
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mib(service: int) -> dict[str, float]:
    """Memory of all processes of a service together, in MiB: total, private, and of mapped files."""
    summed = dict.fromkeys(_MEMORY, 0)
    for process in processes(service):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
        fields = dict(line.split(":", 1) for line in lines)
        for name, field in _MEMORY.items():
            summed[name] += int(fields[field].split()[0])
    return {name: round(kibibytes / 1024, 1) for name, kibibytes in summed.items()}


def summary(outcome: dict[str, Any]) -> dict[str, Any]:
    """Numbers of requests and errors, latencies, throughput and CPU time."""
    latencies = outcome["milliseconds"]
    return {
        "requests": len(latencies),
        "errors": len(outcome["errors"]),
        **({"first_errors": outcome["errors"][:3]} if outcome["errors"] else {}),
        **(percentiles(latencies) if latencies else {}),
        "inside_p50_ms": round(float(np.median(outcome["inside"])), 2) if latencies else None,
        "requests_a_second": round(len(latencies) / outcome["seconds"], 1),
        "processor_ms_a_request": round(1000 * outcome["processor_seconds"] / max(1, len(latencies)), 2),
    }


def plan(args: argparse.Namespace) -> dict[str, tuple[Bodies, float]]:
    """The request bodies of each kind of load, and the mean pause of the clients in seconds."""
    texts, count = Texts(), args.requests
    repeated = texts.take(min(_ZIPF_TEXTS, count))
    distinct = first_pages(texts.take(count))
    return {
        "first": (first_pages(texts.take(1)), 0.0),
        "warm_up": (first_pages(texts.take(_WARM_UP)), 0.0),
        "distinct": (distinct, 0.0),
        "known": (distinct, 0.0),
        "repeated": (zipf(repeated, count, args.seed), 0.0),
        "paging": (pages(texts.take(count // _PAGES)), 0.0),
        "paced": (first_pages(texts.take(min(count, 20 * args.clients))), 1.0),
        "mixed": (mixed(texts, repeated, args.mixed, args.seed), 0.0),
    }


def measure(
    store: Path, workers: int, args: argparse.Namespace, folder: Path, console: Console
) -> dict[str, dict[str, Any]]:
    """Start a service with so many workers, and measure each kind of load."""
    results: dict[str, dict[str, Any]] = {}
    with service(store, workers) as (process, port):
        for name, (bodies, pause) in plan(args).items():
            if args.only and name not in ("first", "warm_up", *args.only.split(",")):
                continue
            load = Load(port, 1 if name == "first" else args.clients, bodies, pause)
            outcome, memory = put_under_load(load, folder, process)
            results[name] = {**summary(outcome), "memory_mib": memory if name == "mixed" else [memory[0], memory[-1]]}
            console.print(f"{workers} workers, {name}: {json.dumps(results[name] | {'memory_mib': memory[-1]})}")
    return results


def prepare_store(folder: Path, images: int, per_image: int, seed: int) -> tuple[Path, Path, dict[str, Any]]:
    """Return a run, its store and the store's description, of which a folder may have an earlier one."""
    run, store, description = folder / "run", folder / "images.store", folder / "store.json"
    if not description.exists():
        write_run(run)
        description.write_text(json.dumps(write_store(store, run, images, per_image, seed)))
    return run, store, json.loads(description.read_text())


def main() -> None:
    args = arguments(sys.argv[1:])
    console = Console(width=140, highlight=False)
    content: dict[str, Any] = {"command": command_line(), **machine()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.workspace or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run, store, content["store"] = prepare_store(folder, args.images, args.per_image, args.seed)
        content["clients"] = args.clients
        content["text_encoding_alone"] = measure_encoding(run, many_texts()[-200:])
        console.print(f"text encoding alone: {content['text_encoding_alone']}")
        counts = [int(count) for count in args.workers.split(",")]
        content["workers"] = {str(count): measure(store, count, args, folder, console) for count in counts}
    if args.out:
        args.out.write_text(json.dumps(content, indent=1) + "\n")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--per-image", type=int, default=10, help="vectors per image")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", default="1", help="numbers of workers, separated by commas")
    parser.add_argument("--requests", type=int, default=4_000, help="requests of each kind except mixed")
    parser.add_argument("--mixed", type=int, default=20_000, help="requests of the kind mixed")
    parser.add_argument("--only", help="comma-separated kinds of load; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path, help="folder that keeps the store and reuses an existing one")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
