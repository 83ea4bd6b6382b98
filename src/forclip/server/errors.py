"""What a request is told when it is refused: a status and one sentence, never a path."""

import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from forclip.server.schemas import Problem

# What any request may be told, for the OpenAPI document.
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "Something that the request names is wrong, such as its filter or its picture.",
        401: "The token is missing or wrong.",
        403: "Another page asks, or a link leads out of what was indexed.",
        413: "The body is too large.",
        421: "The service is called by a name that it does not have.",
        422: "The request has another form than this document says.",
        500: "Something went wrong inside the service.",
    }.items()
}


class Refused(HTTPException):
    """A request that can't be answered. sentence: what is wrong with it, for the one who asked."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)


def told(error: ValueError, folder: Path) -> str:
    """What a ValueError of the index says, without the place where the store lies."""
    sentence = " ".join(str(error).split())
    return sentence.replace(f"{folder}: ", "").replace(str(folder), "the store")


def add_refusals(app: FastAPI) -> None:
    """Every error in one form: {"detail": sentence}."""

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _answer(422, _first_problem(list(error.errors())))

    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods(app, request.url.path))
        return _answer(error.status_code, str(error.detail), headers)

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        return _answer(500, "something went wrong inside the service; its log has the details")


def _methods(app: FastAPI, path: str) -> list[str]:
    """That a path takes: each has a route of its own, and Starlette tells those of the first only."""
    paths = app.openapi()["paths"]
    fitting = [p for p in paths if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(p)), path)]
    return sorted({method.upper() for p in fitting for method in paths[p]})


def _answer(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status, headers)


def _first_problem(problems: list[dict[str, Any]]) -> str:
    """Where it is and what, without the value that was sent."""
    place = ".".join(str(part) for part in problems[0]["loc"] if part not in ("body", "query", "path"))
    message = str(problems[0]["msg"])
    sentence = message.removeprefix("Value error, ")
    return f"{place}: {sentence}" if place else sentence
