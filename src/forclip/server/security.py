"""Who may ask, and from where: checked before anything else sees a request."""

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forclip.server import limits

COOKIE = "forclip_session"
UPLOAD_PATH = "/api/similar/upload"
_OPEN = ("/health", "/login")  # without a token
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Access:
    """host: what the service is bound to; token: who has it may ask, None: whoever reaches the service may."""

    host: str = "127.0.0.1"
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < 8:
            raise ValueError("the token must have at least 8 characters")
        if self.token is not None and not self.token.isascii():
            raise ValueError("the token must be of ASCII characters only")
        if self.token is None and not is_loopback(self.host):
            raise ValueError(f"{self.host} can be reached from other machines: give a --token, or bind to 127.0.0.1")

    @property
    def hosts(self) -> Sequence[str] | None:
        """Names that a request may call the service by; None: any. A page elsewhere whose name is made to lead to this
        machine (DNS rebinding) calls it by its own name."""
        return _LOOPBACK_NAMES if is_loopback(self.host) else None

    @property
    def cookie(self) -> str:
        """What the cookie holds: not the token itself."""
        return hashlib.blake2b(b"forclip cookie", key=(self.token or "").encode()[:64], digest_size=32).hexdigest()

    def is_token(self, given: str) -> bool:
        """In a time that tells nothing about the token."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def admits(self, headers: Headers) -> bool:
        """Whether a request carries the token or the cookie, where one is needed."""
        if self.token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return True
        held = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return hmac.compare_digest(held.encode(), self.cookie.encode())


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """ASGI middleware: host, origin, token and size of a request; security headers of every answer."""

    def __init__(self, app: ASGIApp, access: Access, content_policy: str) -> None:
        self.app, self.access = app, access
        self.headers = {
            "Content-Security-Policy": content_policy,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, guarded)
        else:
            await self.app(scope, _bounded(receive, _most_bytes(scope["path"])), guarded)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.access.hosts is not None and _without_port(host) not in self.access.hosts:
            return _refused(421, "the service is not known by this name")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _refused(403, "requests from other pages are refused")
        if scope["path"] not in _OPEN and not self.access.admits(headers):
            refused = _refused(401, "this needs the token: Authorization: Bearer, or the link that the service printed")
            refused.headers["WWW-Authenticate"] = "Bearer"
            return refused
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _most_bytes(scope["path"]):
            return _refused(413, f"at most {_most_bytes(scope['path'])} bytes are taken")
        return None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _most_bytes(path: str) -> int:
    return limits.UPLOAD_BYTES + limits.MULTIPART_BYTES if path == UPLOAD_PATH else limits.BODY_BYTES


def _bounded(receive: Receive, most: int) -> Receive:
    """For bodies that come without saying how long they are."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise HTTPException(413, f"at most {most} bytes are taken")
        return message

    return bounded


def _refused(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status)
