"""Access control: host, origin, token and body size, checked before anything else sees a request."""

import base64
import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forclip.server import limits

COOKIE = "forclip_session"
_OPEN = ("/health", "/login")  # without a token
_UPLOADS = ("/api/similar/upload", "/api/export/upload")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Access:
    """host: the address that the service is bound to; token: clients must send it; None: any client may connect."""

    host: str = "127.0.0.1"
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < 8:
            raise ValueError("the token must have at least 8 characters")
        if self.token is not None and not self.token.isascii():
            raise ValueError("the token must consist of ASCII characters")
        if self.token is None and not is_loopback(self.host):
            raise ValueError(f"{self.host} can be reached from other machines: set a --token, or bind to 127.0.0.1")

    @property
    def cookie(self) -> str:
        """The value of the login cookie, derived from the token."""
        return hashlib.blake2b(b"forclip cookie", key=(self.token or "").encode()[:64], digest_size=32).hexdigest()

    def is_token(self, given: str) -> bool:
        """Compare with the token in constant time."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def admits(self, headers: Headers) -> bool:
        """Whether a request carries the token or the cookie, if one is needed."""
        if self.token is None:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(token.strip()):
            return True
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self.cookie.encode())


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """ASGI middleware that checks every request and adds security headers to every answer."""

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
        is_upload = scope["path"] in _UPLOADS
        max_bytes = limits.UPLOAD_BYTES + limits.MULTIPART_BYTES if is_upload else limits.BODY_BYTES
        received = 0

        async def bounded() -> Message:
            """Receive, and bound bodies that are sent without a length."""
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise HTTPException(413, f"the body may have at most {max_bytes} bytes")
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self.headers)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        app = self.app
        if (refusal := self._refusal(scope, max_bytes)) is not None:
            status, sentence = refusal
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            app = JSONResponse({"detail": sentence}, status, headers)
        await app(scope, bounded, guarded)

    def _refusal(self, scope: Scope, max_bytes: int) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        # This stops DNS rebinding, which uses a foreign host name.
        if is_loopback(self.access.host) and re.sub(r":[0-9]+\Z", "", host) not in _LOOPBACK_NAMES:
            return 421, "this host name is not the service's"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host:
            return 403, "requests from other pages are refused"
        if scope["path"] not in _OPEN and not self.access.admits(headers):
            return 401, "send the token as Authorization: Bearer, or open the link that the service printed"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > max_bytes:
            return 413, f"the body may have at most {max_bytes} bytes"
        return None


def content_policy(page: str) -> str:
    """The Content-Security-Policy of the page: only its own inline style and script, known by hash, may run."""
    hashes = {}
    for element in ("script", "style"):
        inline = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline]
        hashes[element] = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
