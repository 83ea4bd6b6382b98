"""Answers that browsers keep, in a format that they accept."""

import re
from collections.abc import Callable

from fastapi import Request, Response

_REFUSED = re.compile(r"q=0(\.0{0,3})?")


def accepts(header: str, media_type: str) -> bool:
    """Whether an Accept header names this media type itself, and not with weight 0."""
    for part in header.lower().split(","):
        offered, *parameters = [field.strip() for field in part.split(";")]
        if offered == media_type:
            return not any(_REFUSED.fullmatch(parameter) for parameter in parameters)
    return False


def cacheable(
    request: Request, tag: str, make: Callable[[], bytes], media_type: str, control: str, vary: str | None = None
) -> Response:
    """Return what `make` returns, or 304 where the request has it already.

    tag: names the content: another content has another tag; control, vary: the headers Cache-Control and Vary.
    """
    headers = {"ETag": f'"{tag}"', "Cache-Control": control, **({"Vary": vary} if vary else {})}
    if headers["ETag"] in [t.strip().removeprefix("W/") for t in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(make(), media_type=media_type, headers=headers)
