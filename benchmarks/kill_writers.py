"""Kill processes that change and publish a store, 1,000 times at random moments, and compare what they leave.

    python -m benchmarks.kill_writers [--kills 1000] [--seed 0] [--bucket]

The operations are add, replace, delete, compact, optimize and publish (to Milvus Lite, over gRPC). After each kill,
what was acknowledged must be in the store once, what was under way whole or not at all, and an exact search must equal
a naive loop; after every tenth, `verify` must find nothing and the published store must equal the store. Every 50
kills begin with a new store. --bucket has the stores in a bucket of a moto server. Needs pymilvus, milvus-lite and, for
the bucket, moto[server]. Writes docs/results/kill_writers.json; a store that fails is kept, and the exit code is 1.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.index.killing import kill
from tests.milvus_server import running_server
from tests.s3 import running_s3_server, s3_client, s3_environment

RESULTS = Path(__file__).parent.parent / "docs/results/kill_writers.json"
KILLS_PER_STORE = 50


@contextmanager
def stores(folder: Path, in_bucket: bool) -> Iterator[str]:
    """Return where stores go: the folder, or a bucket of a server that runs as long as the context."""
    if not in_bucket:
        yield str(folder)
        return
    with running_s3_server() as endpoint:
        os.environ |= s3_environment(endpoint)
        s3_client(endpoint).create_bucket(Bucket="stores")
        yield "s3://stores"


def run(folder: Path, kills: int, seed: int, in_bucket: bool) -> Iterator[dict[str, Any]]:
    """Kill, and return the results so far after each store."""
    os.environ |= {"XDG_STATE_HOME": str(folder / "state"), "FORCLIP_CACHE": str(folder / "cache")}
    (folder / "milvus").mkdir()
    seen, done, began = Counter[str](), 0, time.monotonic()
    failed: list[dict[str, Any]] = []
    with stores(folder, in_bucket) as where, running_server(folder / "milvus" / "data") as place:
        for number, start in enumerate(range(0, kills, KILLS_PER_STORE)):
            count = min(KILLS_PER_STORE, kills - start)
            try:
                seen += kill(f"{where}/store_{number}", count, seed * 1000 + number, f"{place}/store_{number}")
                done += count
            except Exception as error:  # also a store that can't be opened any more
                failed.append({"store": number, "problem": f"{type(error).__name__}: {error}"})
            yield {
                "kills": done,
                "in_the_midst_of": dict(sorted(seen.items())),
                "stores": number + 1,
                "failed": failed,
                "seconds_per_kill": round((time.monotonic() - began) / max(1, done), 2),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bucket", action="store_true", help="Stores in a bucket.")
    parser.add_argument("--to", type=Path, default=RESULTS)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    command = f"python -m benchmarks.kill_writers --kills {given.kills} --seed {given.seed}"
    results: dict[str, Any] = {}
    for results in run(folder, given.kills, given.seed, given.bucket):
        print(json.dumps(results), flush=True)
        written = json.loads(given.to.read_text()) if given.to.exists() else {}
        key, option = ("bucket", " --bucket") if given.bucket else ("local", "")
        written[key] = {"command": command + option, **results}
        given.to.write_text(json.dumps(written, indent=1) + "\n")
    if results.get("failed"):
        sys.exit(f"The stores are in {folder}.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
