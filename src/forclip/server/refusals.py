"""What a request is told when it is refused: a status and one sentence, never a path."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException


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
        return _answer(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        return _answer(500, "something went wrong inside the service; its log has the details")


def _answer(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status, headers)


def _first_problem(problems: list[dict[str, Any]]) -> str:
    """Where it is and what, without the value that was sent."""
    place = ".".join(str(part) for part in problems[0]["loc"] if part not in ("body", "query", "path"))
    message = str(problems[0]["msg"])
    sentence = message.removeprefix("Value error, ")
    return f"{place}: {sentence}" if place else sentence
