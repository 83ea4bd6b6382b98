"""The page, and the content policy that lets nothing run or load but what is in it."""

import base64
import hashlib
import re
from importlib.resources import files


def read_page() -> str:
    """One HTML file with its style and script inside: each `<!-- FILE -->` on a line of its own is that file's text."""
    part = re.compile(r"^<!-- (\S+\.(?:css|js)) -->$", re.MULTILINE)
    return part.sub(lambda match: _static(match[1]).rstrip("\n"), _static("page.html"))


def _static(name: str) -> str:
    return (files("forclip.server") / "static" / name).read_text(encoding="utf-8")


def content_policy(page: str) -> str:
    """Only the page's own inline style and script, known by their hashes, and images and answers of the service."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hashes('script', page)}",
            f"style-src {_hashes('style', page)}",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _hashes(element: str, page: str) -> str:
    inline = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
