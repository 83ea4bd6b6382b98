"""The load benchmark of the service: its requests, and what its clients count."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load_clients import Load, Outcome, send_requests
from benchmarks.service_load import (
    PAGE,
    Texts,
    arguments,
    count_listening,
    many_texts,
    memory_mib,
    mixed,
    pages,
    plan,
    processes,
    processor_seconds,
    summary,
    world_of,
    write_run,
    zipf,
)
from forclip.models.retrieval_model import from_pretrained
from forclip.text.vocabulary import load_vocabulary


def test_texts_are_distinct() -> None:
    texts = many_texts()
    assert len(set(texts)) == len(texts) > 25_000
    supply = Texts()
    assert not set(supply.take(100)) & set(supply.take(100))


def test_repeated_texts_follow_zipfs_law() -> None:
    counts = Counter(body["text"] for body in zipf([f"text {n}" for n in range(50)], 5000, seed=0))
    weights = 1 / np.arange(1, 51)
    expected = 5000 * weights / weights.sum()
    assert abs(counts["text 0"] - expected[0]) < 5 * np.sqrt(expected[0])
    assert abs(counts["text 9"] - expected[9]) < 5 * np.sqrt(expected[9])


def test_pages_are_consecutive() -> None:
    offsets = [(body["text"], body["offset"]) for body in pages(["a", "b"])]
    assert offsets == [(text, PAGE * page) for text in "ab" for page in range(4)]


def test_kinds_of_load_repeat_texts_as_described() -> None:
    loads = plan(arguments(["--requests", "400", "--mixed", "1000", "--clients", "4"]))
    texts = {name: [body["text"] for body in bodies] for name, (bodies, _) in loads.items()}
    assert texts["known"] == texts["distinct"]
    assert len(set(texts["distinct"])) == 400
    for name in ("repeated", "paging", "warm_up", "paced"):
        assert not set(texts[name]) & set(texts["distinct"])
    assert len(mixed(Texts(), ["a", "b"], 1000, seed=0)) == len(texts["mixed"]) == 1000
    assert loads["paced"][1] == 1.0


async def _answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer 200, or 500 for the text `bad`; close the connection for the text `gone`."""
    while head := await _head(reader):
        length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("Content-Length"))
        text = json.loads(await reader.readexactly(length))["text"]
        if text == "gone":
            break
        content = json.dumps({"results": [{"name": "milliseconds: 3}"}], "milliseconds": 2.5, "labels": None}).encode()
        writer.write(f"HTTP/1.1 {500 if text == 'bad' else 200} x\r\ncontent-length: {len(content)}\r\n\r\n".encode())
        writer.write(content)
        await writer.drain()
    writer.close()


async def _head(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return ""


async def _outcome(texts: list[str], clients: int) -> Outcome:
    server = await asyncio.start_server(_answering, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await send_requests(Load(port, clients, [{"text": text} for text in texts]))


def test_clients_count_answers_and_errors() -> None:
    texts = ["good"] * 20 + ["bad"] * 3 + ["good"] * 4 + ["gone"]
    with ThreadPoolExecutor(1) as pool:  # another test may run an event loop in this thread
        outcome = pool.submit(asyncio.run, _outcome(texts, clients=5)).result()
    assert outcome.inside == [2.5] * 24
    assert len(outcome.milliseconds) == 24
    assert len(outcome.errors) == 4
    assert sum(error.startswith("500: ") for error in outcome.errors) == 3
    summed = summary({**vars(outcome), "processor_seconds": 0.24})
    assert summed["requests"] == 24
    assert summed["errors"] == 4
    assert summed["processor_ms_a_request"] == 10
    assert 0 < summed["p50_ms"] <= summed["p95_ms"] <= summed["p99_ms"]


def test_listening_sockets_of_a_port_are_counted() -> None:
    header = "  sl  local_address rem_address   st tx_queue"
    rows = ["0: 0100007F:1F90 00000000:0000 0A 0", "1: 0100007F:1F90 00000000:0000 0A 0"]
    others = [
        "2: 0100007F:1F91 00000000:0000 0A 0",
        "3: 0100007F:1F90 0100007F:C350 01 0",
    ]  # another port; a connection
    assert count_listening("\n".join([header, *rows, *others]), 8080) == 2


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_processes_of_a_service_are_measured_together() -> None:
    child = "import sys; kept = bytearray(b'x' * (64 << 20)); print(flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        assert service.stdin is not None
        service.stdout.readline()
        memory = memory_mib(service.pid)
        assert len(processes(service.pid)) == 2
        assert 64 < memory["private"] < memory["total"] < 200
        assert processor_seconds(service.pid) > 0
        service.stdin.close()


def test_images_lie_around_the_text_vectors(tmp_path: Path) -> None:
    write_run(tmp_path)
    model = from_pretrained(tmp_path)
    assert model.calibration is not None, "the service computes confidences"
    world = world_of(model, seed=0)
    np.testing.assert_allclose(np.linalg.norm(world.centres, axis=1), 1, atol=1e-5)
    text = model.encode_query("umbrella").numpy()
    text -= world.text_mean * (text @ world.text_mean)
    assert int(np.argmax(world.centres @ text)) == load_vocabulary("lvis").index("umbrella")
