"""Milvus Lite, started as a server of its own that answers over gRPC as Milvus does."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

_SECONDS = 60
_names = count()


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """Run a server in a process of its own, and return the start of its addresses, `milvus://127.0.0.1:PORT`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["server", "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    program = "import sys; from milvus_lite.cmdline import main; sys.exit(main(sys.argv[1:]))"
    with (folder.parent / "milvus.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield f"milvus://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The start of the addresses of a server that all tests share; the state of publications goes to a folder."""
    pytest.importorskip("pymilvus")
    folder = tmp_path_factory.mktemp("milvus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with running_server(folder / "data") as place:
            yield place


def new_name() -> str:
    """Return the name of a collection that no other test has."""
    return f"store_{next(_names)}"
