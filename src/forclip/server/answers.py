"""Search answers as JSON: short ones as one document, long ones as a stream of the same document or of lines."""

import time
from collections.abc import Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter

from forclip.evaluation.sample_size import is_too_few
from forclip.search.request import SearchAnswer
from forclip.server import limits
from forclip.server.cacheable import accepts
from forclip.server.gallery import Gallery, StoredImage
from forclip.server.schemas import Result, SearchOut, box_fields

JSON_LINES = "application/x-ndjson"
_BLOCK = 500  # results that are read and sent at once
_RESULTS = TypeAdapter(list[Result])
# For the OpenAPI document.
STREAMED: dict[str, Any] = {
    "description": f"The images. An answer of more than {limits.WHOLE_ANSWER} is sent in parts.",
    "content": {
        JSON_LINES: {
            "schema": {"type": "string"},
            "example": '{"key": "7", "rank": 1, "score": 0.31, …}\n',
        }
    },
}


def wants_lines(request: Request) -> bool:
    """Whether the client asks for one result per line."""
    return accepts(request.headers.get("accept", ""), JSON_LINES)


def image_fields(image: StoredImage) -> dict[str, Any]:
    """The fields of `Result` that do not depend on a search."""
    return {
        "key": str(image.key),
        "name": image.name,
        "width": image.row["width"],
        "height": image.row["height"],
        "modified": image.row["modified"] // 1_000_000,
        "metadata": image.own,
    }


class Answers:
    """Renders search answers. gallery: of the searched store."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery

    def render(self, answer: SearchAnswer, started: float, lines: bool = False) -> Response:
        """The answer, as a stream if it is long.

        started: time.perf_counter() at the request; lines: a line of JSON for each result, and nothing else.
        """
        if lines:
            return StreamingResponse(self._lines(answer), media_type=JSON_LINES)
        if len(answer.results) > limits.WHOLE_ANSWER:
            return StreamingResponse(self._parts(answer, started), media_type="application/json")
        # Validated as a whole, which is several times faster than one model after the other.
        out = SearchOut.model_validate({"results": self._results(answer, 0, None), **self._summary(answer, started)})
        # Sent as it is: FastAPI would validate it a second time, which takes longer than many a search.
        return Response(out.model_dump_json(), media_type="application/json")

    def _lines(self, answer: SearchAnswer) -> Iterator[bytes]:
        for block in self._blocks(answer):
            yield b"".join(result.model_dump_json().encode() + b"\n" for result in block)

    def _parts(self, answer: SearchAnswer, started: float) -> Iterator[bytes]:
        """The document of `SearchOut`, part by part."""
        before = start = b'{"results":['
        for block in self._blocks(answer):
            if block:
                yield before + _RESULTS.dump_json(block)[1:-1]
                before = b","
        rest = SearchOut.model_validate({"results": [], **self._summary(answer, started)})
        document = rest.model_dump_json().encode()
        yield document if before == start else document.removeprefix(start)

    def _blocks(self, answer: SearchAnswer) -> Iterator[list[Result]]:
        for first in range(0, len(answer.results), _BLOCK):
            yield _RESULTS.validate_python(self._results(answer, first, first + _BLOCK))

    def _results(self, answer: SearchAnswer, first: int, end: int | None) -> list[dict[str, Any]]:
        """Fields of `Result` for a part of the answer. Images that were deleted since the search are left out."""
        part, labels = list(answer.results[first:end]), answer.labels
        keys = [result.key for result in part]
        images = self.gallery.page(keys) if end is None else self.gallery.by_key(keys)
        return [
            {
                **image_fields(image),
                "rank": result.rank,
                "score": result.score,
                "probability": answer.probability(result),
                "box": box_fields(result.box),
                "relevant": None if labels is None else labels.relevant[position],
            }
            for position, result in enumerate(part, start=first)
            if (image := images.get(result.key)) is not None
        ]

    def _summary(self, answer: SearchAnswer, started: float) -> dict[str, Any]:
        """Fields of `SearchOut` besides the results."""
        labels, labelled = answer.labels, None
        if labels is not None:
            enough = not is_too_few(labels.relevance.images)
            labelled = {**labels.to_json(), "missed": len(labels.relevance.missed), "enough_data": enough}
        return {
            "confidence": None if answer.confidence is None else vars(answer.confidence),
            "images": len(self.gallery.index),
            "milliseconds": (time.perf_counter() - started) * 1000,
            "labels": labelled,
            "notes": list(answer.notes),
        }
