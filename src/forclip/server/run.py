"""Serves a store until it is stopped."""

from urllib.parse import quote

import uvicorn

from forclip.search import Searcher
from forclip.server.app import create_app
from forclip.server.security import Access


def serve(searcher: Searcher, access: Access, port: int) -> None:
    """Raises OSError where the port is taken."""
    # Without an access log: it would hold the token of the login link.
    uvicorn.run(create_app(searcher, access), host=access.host, port=port, access_log=False, log_level="warning")


def link(access: Access, port: int) -> str:
    """Where to find the page; with a token, the link that logs in."""
    name = "127.0.0.1" if access.host in ("0.0.0.0", "::") else access.host
    place = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
    return place if access.token is None else f"{place}login?token={quote(access.token, safe='')}"
