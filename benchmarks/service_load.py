"""Measure the service under load: how long concurrent clients wait, and whether its memory stays constant.

    python -m benchmarks.service_load [--images 100000] [--per-image 10] [--clients 32] [--services 1] [--out FILE]

Generates a store, starts `forclip serve` on it, and sends searches as the page does, from clients in one other process.
Every client sends its next request as soon as it has an answer, so there are always as many requests as clients:

- distinct: every text is new;
- known: the same texts again. The service still has their vectors but not their results, so only the encoding of text
  is saved;
- repeated: few texts, some of them much more frequent than others (Zipf's law);
- paging: all pages of the results of distinct texts;
- paced: distinct texts; each client pauses at random, up to two seconds, before its next request;
- mixed: 20,000 requests, half of them repeated, the others distinct or pages. The resident memory is recorded.

Several services search the same store, each for a part of the clients, as behind a proxy; their memory is summed.

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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
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
_RESIDENT = ("VmRSS", "RssAnon")
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
Services = Sequence[tuple[int, int]]  # process and port of each


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
def service(store: Path) -> Iterator[tuple[int, int]]:
    """Run `forclip serve` on a store. Yields its process id and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "forclip", "serve", str(store), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        try:
            _wait_for(port, running)
            yield running.pid, port
        finally:
            running.send_signal(signal.SIGINT)


def _wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    while running.poll() is None:
        with socket.socket() as client:
            # The service listens before it can answer; the first request waits.
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the service exited with code {running.returncode}")


def put_under_load(load: Load, folder: Path, process: int, every: float = 5.0) -> tuple[dict[str, Any], Sizes]:
    """Put one service under load. Returns the clients' outcome with the CPU seconds of the service, and its memory.

    process: id of the service; every: seconds between two readings of its memory.
    """
    load_file, out = folder / "load.json", folder / "outcome.json"
    load_file.write_text(json.dumps(asdict(load)))
    memory, before = [resident(process)], processor_seconds(process)
    command = [sys.executable, "-m", "benchmarks.load_clients", str(load_file), str(out)]
    with subprocess.Popen(command, cwd=ROOT) as clients:
        while clients.poll() is None:
            try:
                clients.wait(every)
            except subprocess.TimeoutExpired:
                memory.append(resident(process))
    if clients.returncode:
        raise RuntimeError(f"the clients exited with code {clients.returncode}")
    outcome: dict[str, Any] = json.loads(out.read_text())
    outcome["processor_seconds"] = processor_seconds(process) - before
    return outcome, [*memory, resident(process)]


def put_all_under_load(load: Load, folder: Path, services: Services) -> tuple[dict[str, Any], Sizes]:
    """Put all services under load at the same time, each with a part of it. Memory readings are summed in order."""
    count = len(services)

    def run_part(k: int) -> tuple[dict[str, Any], Sizes]:
        process, port = services[k]
        part = replace(load, port=port, clients=max(1, load.clients // count), bodies=load.bodies[k::count])
        part_folder = folder / str(k)
        part_folder.mkdir(exist_ok=True)
        return put_under_load(part, part_folder, process)

    with ThreadPoolExecutor(count) as pool:
        outcomes, sizes = zip(*pool.map(run_part, range(count)), strict=True)
    together: dict[str, Any] = {
        name: [value for one in outcomes for value in one[name]] for name in ("milliseconds", "inside", "errors")
    }
    together["seconds"] = max(one["seconds"] for one in outcomes)
    together["processor_seconds"] = sum(one["processor_seconds"] for one in outcomes)
    longest = max(map(len, sizes))
    readings = zip(*([*part, *[part[-1]] * (longest - len(part))] for part in sizes), strict=True)
    memory = [{name: round(sum(size[name] for size in reading), 1) for name in _RESIDENT} for reading in readings]
    return together, memory


def processor_seconds(process: int) -> float:
    """CPU seconds of a process on all cores since its start."""
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> dict[str, float]:
    """Memory of a process in MiB: resident memory with mapped files, and anonymous memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: round(int(fields[name].split()[0]) / 1024, 1) for name in _RESIDENT}


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


def measure(store: Path, args: argparse.Namespace, folder: Path, console: Console) -> dict[str, Any]:
    """Start the services, and measure each kind of load."""
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        services = [stack.enter_context(service(store)) for _ in range(args.services)]
        for name, (bodies, pause) in plan(args).items():
            if args.only and name not in ("first", "warm_up", *args.only.split(",")):
                continue
            load = Load(0, 1 if name == "first" else args.clients, bodies, pause)
            outcome, memory = put_all_under_load(load, folder, services[:1] if name == "first" else services)
            results[name] = {**summary(outcome), "memory_mib": memory if name == "mixed" else [memory[0], memory[-1]]}
            console.print(f"{name}: {json.dumps({k: v for k, v in results[name].items() if k != 'memory_mib'})}")
            console.print(f"  memory {memory[0]} to {memory[-1]}")
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
        content["clients"], content["services"] = args.clients, args.services
        content["text_encoding_alone"] = measure_encoding(run, many_texts()[-200:])
        console.print(f"text encoding alone: {content['text_encoding_alone']}")
        content["modes"] = measure(store, args, folder, console)
    if args.out:
        args.out.write_text(json.dumps(content, indent=1) + "\n")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--per-image", type=int, default=10, help="vectors per image")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--services", type=int, default=1, help="services on the same store, which share the clients")
    parser.add_argument("--requests", type=int, default=4_000, help="requests of each kind except mixed")
    parser.add_argument("--mixed", type=int, default=20_000, help="requests of the kind mixed")
    parser.add_argument("--only", help="comma-separated kinds of load; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path, help="folder that keeps the store and reuses an existing one")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
