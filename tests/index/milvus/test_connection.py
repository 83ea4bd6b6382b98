"""A connection to a server that at first refuses to talk."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from forclip.index.milvus.address import parse_address
from forclip.index.milvus.server import MilvusServer
from tests.milvus_server import new_name


@contextmanager
def proxy(port: int, refused: int) -> Iterator[tuple[int, list[int]]]:
    """Pass connections on to a port after hanging up on the first ones. Yields its port and how many it will refuse."""
    left = [refused]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:  # closed
                    return
                if left[0]:
                    left[0] -= 1
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", port))
                for source, target in ((client, server), (server, client)):
                    Thread(target=pass_on, args=(source, target), daemon=True).start()

        Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], left


def pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:  # the other side hung up
        pass
    finally:
        target.close()


def test_a_refused_connection_is_tried_again(milvus_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forclip.index.milvus.server._FIRST_WAIT", 0.01)
    with proxy(int(milvus_server.rpartition(":")[2]), refused=1) as (port, left):
        server = MilvusServer(parse_address(f"milvus://127.0.0.1:{port}/{new_name()}"))
        assert left == [0]
        assert not server.exists()
