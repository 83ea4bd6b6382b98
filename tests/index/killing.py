"""Kills a process at random moments of what it does to a store, and looks at what it left.

    python -m tests.index.killing [--times 100] [--seed 0]

What was acknowledged is there, what was under way is there whole or not at all, nothing is twice, and a search equals
the oracle. The next process goes on with the same store.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from forclip.index.image_index import Index
from forclip.index.store import create_store
from tests.child import ROOT
from tests.index.made import DIM, HEADER, by_image, files, oracle, some, unit, write_all_segments

Kept = dict[str, np.ndarray]
OPERATIONS = ("add", "put", "delete", "compact", "optimize")
_LONGEST = 0.08  # seconds: an operation on so small a store takes 5 to 60 ms


def work(folder: Path, seed: int, operations: tuple[str, ...]) -> None:
    """Changes a store for ever; says on standard output what it begins, and `done` when that is acknowledged."""
    rng = random.Random(seed)
    for step in range(1_000_000):
        index = Index(folder)
        there = sorted(index.store.ids())
        operation: dict[str, Any] = {"op": rng.choice(operations), "seed": rng.randrange(1 << 30)}
        match operation["op"]:
            case "add":
                operation["ids"] = [f"{seed}-{step}-{k}" for k in range(rng.randrange(1, 40))]
            case "put":
                operation["ids"] = [*rng.sample(there, min(3, len(there))), f"{seed}-{step}"]
            case "delete":
                operation["ids"] = rng.sample(there, min(4, len(there)))
        print(json.dumps(operation), flush=True)
        carry_out(index, operation)
        print("done", flush=True)


def carry_out(index: Index, operation: dict[str, Any]) -> None:
    match operation["op"]:
        case "add":
            index.add(some(operation["ids"], operation["seed"]), files(operation["ids"]))
        case "put":
            index.put(some(operation["ids"], operation["seed"]), files(operation["ids"]))
        case "delete":
            index.delete_ids(operation["ids"])
        case "compact":
            index.compact()
        case "optimize":
            write_all_segments(index)
            index.optimize(kind="SQ8" if operation["seed"] % 2 else "none")


def after(kept: Kept, operation: dict[str, Any]) -> Kept:
    """What a store holds once an operation is done."""
    match operation["op"]:
        case "add" | "put":
            return kept | by_image(some(operation["ids"], operation["seed"]))
        case "delete":
            return {i: v for i, v in kept.items() if i not in operation["ids"]}
    return kept


def killed_once(folder: Path, kept: Kept, seed: int) -> tuple[Kept, str]:
    """Starts a process, kills it, and returns what is in the store then, and in the midst of what it was killed."""
    rng = random.Random(seed)
    target, skip, delay = rng.choice(OPERATIONS), rng.randrange(3), rng.uniform(0, _LONGEST)
    command = [sys.executable, "-m", "tests.index.killing", "--work", str(folder), "--seed", str(seed)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        begun: dict[str, Any] | None = None
        for line in worker.stdout:
            if line == "done\n":
                assert begun is not None
                kept, begun = after(kept, begun), None
                continue
            begun = json.loads(line)
            if begun is not None and begun["op"] == target:
                skip -= 1
                if skip < 0:
                    break
        time.sleep(delay)
        worker.kill()
        for line in worker.stdout:  # what it said before it died; the last line may be cut
            if line == "done\n" and begun is not None:
                kept, begun = after(kept, begun), None
            elif line.endswith("}\n"):
                begun = json.loads(line)
    assert worker.returncode == -9, f"the worker failed by itself: {worker.returncode}"
    return look(folder, kept, begun), "between two" if begun is None else begun["op"]


def look(folder: Path, kept: Kept, begun: dict[str, Any] | None) -> Kept:
    """Which of the two states that are possible it is; asserts that it is one, and that searching tells the truth."""
    index = Index(folder)
    possible = [kept] if begun is None else [kept, after(kept, begun)]
    query = unit(np.random.default_rng(len(kept)), DIM)
    found = [(r.image_id, round(r.score, 9)) for r in index.search(query, 10_000, exact=True)]
    fits = [p for p in possible if found == [(i, round(s, 9)) for i, s in oracle(p, query, 10_000)]]
    assert fits, f"{folder}: neither what was before {begun} nor what comes after it"
    assert index.verify() == []
    ten = [(r.image_id, round(r.score, 9)) for r in index.search(query, 10)]
    assert ten == found[:10]
    return fits[0]


def kill(folder: Path, times: int, seed: int) -> Counter[str]:
    """How often a process was killed in the midst of what."""
    create_store(folder, HEADER)
    kept: Kept = {}
    seen: Counter[str] = Counter()
    for k in range(times):
        kept, where = killed_once(folder, kept, seed * 100_000 + k)
        seen[where] += 1
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.seed, OPERATIONS)
    with tempfile.TemporaryDirectory() as folder:
        seen = kill(Path(folder) / "s", given.times, given.seed)
    print(json.dumps({"killed": sum(seen.values()), "in the midst of": dict(sorted(seen.items()))}))


if __name__ == "__main__":
    main()
