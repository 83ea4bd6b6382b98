"""Concurrent clients of the service, in one process. Each sends its next request as soon as it has an answer.

Speaks HTTP/1.1 directly over asyncio's streams, on persistent connections, because a general HTTP client would need as
much CPU time as the service.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PATH = "/api/search"
_NUMBER = re.compile(rb"[0-9.]+")


@dataclass(frozen=True)
class Load:
    """Requests to send. bodies: request bodies in order; a client that is free takes the next one.

    pause: mean seconds between an answer and the next request of a client. The actual pause is random, up to twice as
    long, so that clients that were answered together do not stay synchronous.
    """

    port: int
    clients: int
    bodies: list[dict[str, Any]]
    pause: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """milliseconds: of each answered request, until its last byte; inside: the times that the answers state;
    errors: messages; seconds: from the first request to the last answer."""

    milliseconds: list[float]
    inside: list[float]
    errors: list[str]
    seconds: float


async def send_requests(load: Load) -> Outcome:
    """Send all requests and wait for the answers."""
    bodies = iter(load.bodies)
    outcome = Outcome([], [], [], 0.0)
    started = time.perf_counter()
    await asyncio.gather(*(_client(load, n, bodies, outcome) for n in range(load.clients)))
    return Outcome(outcome.milliseconds, outcome.inside, outcome.errors, time.perf_counter() - started)


async def _client(load: Load, seed: int, bodies: Iterator[dict[str, Any]], outcome: Outcome) -> None:
    pauses = random.Random(seed)
    async with _connected(load.port) as (reader, writer):
        for body in bodies:
            started = time.perf_counter()
            try:
                status, answer = await _post(reader, writer, body)
            except (OSError, EOFError, ValueError) as error:
                outcome.errors.append(f"{type(error).__name__}: {error}")
                return
            milliseconds = 1000 * (time.perf_counter() - started)
            if status != 200:
                outcome.errors.append(f"{status}: {answer[:200].decode(errors='replace')}")
            else:
                outcome.milliseconds.append(milliseconds)
                outcome.inside.append(_milliseconds(answer))
            if load.pause:
                await asyncio.sleep(pauses.uniform(0, 2 * load.pause))


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, Any]) -> tuple[int, bytes]:
    content = json.dumps(body).encode()
    head = [f"POST {PATH} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    writer.write("\r\n".join([*head, f"Content-Length: {len(content)}", "", ""]).encode() + content)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    return int(lines[0].split()[1]), await reader.readexactly(int(headers["content-length"]))


def _milliseconds(answer: bytes) -> float:
    """The last field `milliseconds`, without parsing the whole answer, to save CPU time."""
    (number,) = _NUMBER.findall(answer.rpartition(b'"milliseconds":')[2])[:1]
    return float(number)


def main(words: Sequence[str]) -> None:
    load, out = words
    outcome = asyncio.run(send_requests(Load(**json.loads(Path(load).read_text()))))
    Path(out).write_text(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main(sys.argv[1:])
