"""The service under load: how long many clients wait who ask at once, and whether its memory stays as it is.

    python -m benchmarks.service_load [--images 100000] [--per-image 10] [--clients 32] [--services 1] [--out FILE]

Makes a store (benchmarks.load_store), starts `forclip serve` on it, and asks for lists as the page does, from clients
in one other process. Every client asks again as soon as it is answered, so that there are always as many requests
under way as clients:

- distinct: texts that were never asked for before;
- known: the same texts again, whose vectors the service still has while their lists are gone: all of the work but for
  the encoding of text;
- repeated: few texts, some asked for much more often than others (Zipf's law);
- paging: page after page of the lists of distinct texts;
- paced: distinct texts, each client waiting up to two seconds before it asks again, at random;
- mixed: 20,000 requests, half of them repeated, the others distinct or pages, and the resident memory meanwhile.

With several services, each searches the same store for its share of the clients, as behind a proxy; memory is the sum.

All processes share the machine. processor_ms_a_request is what the service used of all cores, which another load on
the machine changes less than the time that passes. The encoding of text alone is measured in this process, before the
service starts.
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

from benchmarks.load_clients import Load
from benchmarks.load_store import many_texts, write_run, write_store
from benchmarks.search import machine
from benchmarks.search_measure import ROOT
from forclip.models.retrieval_model import from_pretrained

PAGE = 60  # images, as on the page
_PAGES = 4
_ZIPF_TEXTS = 500
_WARM_UP = 200  # requests that are not counted, of other texts
_MIXED_SHARES = {"repeated": 0.5, "distinct": 0.3, "paging": 0.2}
_RESIDENT = ("VmRSS", "RssAnon")

Bodies = list[dict[str, Any]]
Sizes = list[dict[str, float]]
Services = Sequence[tuple[int, int]]  # process and port of each


class Texts:
    """A supply of texts that were not asked for before."""

    def __init__(self) -> None:
        self._unused: Iterator[str] = iter(many_texts())

    def take(self, count: int) -> list[str]:
        return [next(self._unused) for _ in range(count)]


def first_pages(texts: Sequence[str]) -> Bodies:
    return [{"text": text, "k": PAGE} for text in texts]


def pages(texts: Sequence[str]) -> Bodies:
    """Page after page of each."""
    return [{"text": text, "k": PAGE, "offset": PAGE * page} for text in texts for page in range(_PAGES)]


def zipf(texts: Sequence[str], count: int, seed: int) -> Bodies:
    """So many first pages, the n-th text in proportion to 1 / n."""
    shares = 1 / np.arange(1, len(texts) + 1)
    drawn = np.random.default_rng(seed).choice(len(texts), count, p=shares / shares.sum())
    return first_pages([texts[n] for n in drawn])


def mixed(texts: Texts, often: Sequence[str], count: int, seed: int) -> Bodies:
    """In an order drawn at random."""
    counts = {kind: int(count * share) for kind, share in _MIXED_SHARES.items()}
    bodies = [
        *zipf(often, counts["repeated"], seed),
        *first_pages(texts.take(counts["distinct"])),
        *pages(texts.take(counts["paging"] // _PAGES)),
    ]
    return [bodies[n] for n in np.random.default_rng(seed).permutation(len(bodies))]


def encoding(run: Path, texts: Sequence[str]) -> dict[str, float]:
    """Milliseconds of the text tower alone, one text after the other."""
    model = from_pretrained(run)
    model.encode_query("a first one")
    taken = []
    for text in texts:
        started = time.perf_counter()
        model.encode_query(text)
        taken.append(1000 * (time.perf_counter() - started))
    return percentiles(taken)


def percentiles(taken: Sequence[float]) -> dict[str, float]:
    return {f"p{at}_ms": round(float(np.percentile(taken, at)), 2) for at in (50, 95, 99)}


@contextmanager
def service(store: Path) -> Iterator[tuple[int, int]]:
    """As its users start it: its process and its port."""
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
        with socket.socket() as tried:
            # It listens before it can answer; the first request then waits.
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the service ended with {running.returncode}")


def put_under(load: Load, folder: Path, process: int, every: float = 5.0) -> tuple[dict[str, Any], Sizes]:
    """What the clients' process found, with the service's own seconds; and its memory meanwhile, every so often."""
    asked, out = folder / "load.json", folder / "outcome.json"
    asked.write_text(json.dumps(asdict(load)))
    memory, before = [resident(process)], processor_seconds(process)
    command = [sys.executable, "-m", "benchmarks.load_clients", str(asked), str(out)]
    with subprocess.Popen(command, cwd=ROOT) as clients:
        while clients.poll() is None:
            try:
                clients.wait(every)
            except subprocess.TimeoutExpired:
                memory.append(resident(process))
    if clients.returncode:
        raise RuntimeError(f"the clients' process ended with {clients.returncode}")
    found: dict[str, Any] = json.loads(out.read_text())
    found["processor_seconds"] = processor_seconds(process) - before
    return found, [*memory, resident(process)]


def put_all_under(load: Load, folder: Path, services: Services) -> tuple[dict[str, Any], Sizes]:
    """Each service under its share of a load, at the same time; memory by the number of the look at it, summed."""
    count = len(services)

    def share(place: int) -> tuple[dict[str, Any], Sizes]:
        process, port = services[place]
        mine = replace(load, port=port, clients=max(1, load.clients // count), bodies=load.bodies[place::count])
        own = folder / str(place)
        own.mkdir(exist_ok=True)
        return put_under(mine, own, process)

    with ThreadPoolExecutor(count) as pool:
        found, sizes = zip(*pool.map(share, range(count)), strict=True)
    together: dict[str, Any] = {
        name: [value for one in found for value in one[name]] for name in ("milliseconds", "inside", "errors")
    }
    together["seconds"] = max(one["seconds"] for one in found)
    together["processor_seconds"] = sum(one["processor_seconds"] for one in found)
    looks = zip(*([*own, *[own[-1]] * (max(map(len, sizes)) - len(own))] for own in sizes), strict=True)
    memory = [{name: round(sum(one[name] for one in look), 1) for name in _RESIDENT} for look in looks]
    return together, memory


def processor_seconds(process: int) -> float:
    """Of all cores, since it was started."""
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> dict[str, float]:
    """MiB: all that is resident, mapped files included, and what is the process's own."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    known = dict(line.split(":", 1) for line in lines)
    return {name: round(int(known[name].split()[0]) / 1024, 1) for name in _RESIDENT}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    taken = found["milliseconds"]
    return {
        "requests": len(taken),
        "errors": len(found["errors"]),
        **({"first_errors": found["errors"][:3]} if found["errors"] else {}),
        **(percentiles(taken) if taken else {}),
        "inside_p50_ms": round(float(np.median(found["inside"])), 2) if taken else None,
        "requests_a_second": round(len(taken) / found["seconds"], 1),
        "processor_ms_a_request": round(1000 * found["processor_seconds"] / max(1, len(taken)), 2),
    }


def plan(given: argparse.Namespace) -> dict[str, tuple[Bodies, float]]:
    """By name: what is asked, and the clients' pause."""
    texts, count = Texts(), given.requests
    often = texts.take(min(_ZIPF_TEXTS, count))
    distinct = first_pages(texts.take(count))
    return {
        "first": (first_pages(texts.take(1)), 0.0),
        "warm_up": (first_pages(texts.take(_WARM_UP)), 0.0),
        "distinct": (distinct, 0.0),
        "known": (distinct, 0.0),
        "repeated": (zipf(often, count, given.seed), 0.0),
        "paging": (pages(texts.take(count // _PAGES)), 0.0),
        "paced": (first_pages(texts.take(min(count, 20 * given.clients))), 1.0),
        "mixed": (mixed(texts, often, given.mixed, given.seed), 0.0),
    }


def measure(store: Path, given: argparse.Namespace, folder: Path, console: Console) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        services = [stack.enter_context(service(store)) for _ in range(given.services)]
        for name, (bodies, pause) in plan(given).items():
            if given.only and name not in ("first", "warm_up", *given.only.split(",")):
                continue
            load = Load(0, 1 if name == "first" else given.clients, bodies, pause)
            outcome, memory = put_all_under(load, folder, services[:1] if name == "first" else services)
            found[name] = {**summary(outcome), "memory_mib": memory if name == "mixed" else [memory[0], memory[-1]]}
            console.print(f"{name}: {json.dumps({k: v for k, v in found[name].items() if k != 'memory_mib'})}")
            console.print(f"  memory {memory[0]} to {memory[-1]}")
    return found


def main() -> None:
    given = arguments(sys.argv[1:])
    console = Console(width=140, highlight=False)
    content: dict[str, Any] = {"command": " ".join(["python -m benchmarks.service_load", *sys.argv[1:]]), **machine()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.workspace or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run, store, said = folder / "run", folder / "images.store", folder / "store.json"
        if not said.exists():
            write_run(run)
            said.write_text(json.dumps(write_store(store, run, given.images, given.per_image, given.seed)))
        content["store"] = json.loads(said.read_text())
        content["clients"], content["services"] = given.clients, given.services
        content["text_encoding_alone"] = encoding(run, many_texts()[-200:])
        console.print(f"text encoding alone: {content['text_encoding_alone']}")
        content["modes"] = measure(store, given, folder, console)
    if given.out:
        given.out.write_text(json.dumps(content, indent=1) + "\n")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--per-image", type=int, default=10, help="vectors of an image, of the mini model's dimensions")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--services", type=int, default=1, help="on the same store, each with its share of the clients")
    parser.add_argument("--requests", type=int, default=4_000, help="of each kind but the mixed ones")
    parser.add_argument("--mixed", type=int, default=20_000, help="requests, memory being looked at")
    parser.add_argument("--only", help="kinds, separated by commas, instead of all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path, help="keeps the store there, and takes the one that is there")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
