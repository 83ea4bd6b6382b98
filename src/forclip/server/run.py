"""Serves a store until it is stopped."""

import gc
import socket
from typing import TYPE_CHECKING
from urllib.parse import quote

import uvicorn

from forclip.search.labels import StoreLabels
from forclip.server.app import create_app
from forclip.server.security import Access

if TYPE_CHECKING:
    from forclip.search.searcher import Searcher  # handed in: the service itself knows no model


def listening(access: Access, port: int) -> socket.socket:
    """Raises OSError where the port is taken or the address is not this machine's."""
    family, kind, protocol, _, address = socket.getaddrinfo(access.host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
    except OSError as error:
        made.close()
        raise OSError(f"{access.host}:{port}: {error.strerror}") from None
    return made


def serve(searcher: "Searcher", access: Access, listener: socket.socket, labels: StoreLabels | None = None) -> None:
    """Until it is interrupted."""
    gc.collect()
    # Without an access log: it would hold the token of the login link.
    config = uvicorn.Config(create_app(searcher, access, labels), access_log=False, log_level="warning")
    _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is loaded by now stays. Else the collector goes through all of it again and again, and requests wait.
        gc.freeze()


def link(access: Access, port: int) -> str:
    """Where to find the page; with a token, the link that logs in."""
    name = "127.0.0.1" if access.host in ("0.0.0.0", "::") else access.host
    place = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
    return place if access.token is None else f"{place}login?token={quote(access.token, safe='')}"
