"""Errors of the service: a status and one sentence, never a path of the server."""

import re
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from forclip.config import plain_message
from forclip.server.schemas import Problem

# Errors that any request may get, for the OpenAPI document.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "Something in the request is wrong, such as its filter or its picture.",
        401: "The token is missing or wrong.",
        403: "The request comes from another page, or the picture is a link of unknown content.",
        413: "The body is too large.",
        421: "The request uses a host name that is not the service's.",
        422: "The request does not have the form that this document describes.",
        500: "Something went wrong inside the service.",
        503: "A picture in a bucket can't be fetched at the moment, or the search index needs `forclip compact`.",
    }.items()
}

_OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_NUMBER = re.compile(r"[-+.0-9e]{1,25}")


class Refused(HTTPException):
    """A request that cannot be answered: a status, and one sentence why, for the client."""


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in one form: {"detail": sentence}."""

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        """The place and kind of the first problem, without the value that was sent unless it is a number."""
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query", "path"))
        message, value = plain_message(problem["msg"]), str(problem.get("input"))
        if problem["type"] in _OUT_OF_RANGE and _NUMBER.fullmatch(value):
            message += f", not {value}"
        return JSONResponse({"detail": f"{field}: {message}" if field else message}, 422)

    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:  # each method has its own route, and Starlette names only the first route's
            for path, methods in app.openapi()["paths"].items():
                if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)), request.url.path):
                    headers["Allow"] = ", ".join(sorted(method.upper() for method in methods))
        return JSONResponse({"detail": str(error.detail)}, error.status_code, headers)

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "something went wrong inside the service; its log has the details"}, 500)
