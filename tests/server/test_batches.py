"""Batches of concurrent requests: each caller gets its own value or its own error."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import numpy as np
import pytest

from forclip.server.batches import Batches
from forclip.types import Floats

Texts = Batches[str, Floats]


def vector_of(text: str) -> list[float]:
    return [float(len(text)), float(sum(text.encode()))]


class Encoder:
    """Encoder that records its batches. The first batch blocks until `release` is set, so that others queue up."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started, self.release = Event(), Event()

    def __call__(self, texts: Sequence[str]) -> list[Floats]:
        self.batches.append(list(texts))
        if len(self.batches) == 1:
            self.started.set()
            assert self.release.wait(20)
        if "bad" in texts:
            raise ValueError("bad can't be encoded")
        return [np.array(vector_of(text), np.float32) for text in texts]


def get_while_first_batch_runs(batches: Texts, encoder: Encoder, texts: Sequence[str]) -> list[Floats | Exception]:
    """Submit every text from its own thread while a first batch runs; return each text's value or error."""
    all_submitted = Barrier(len(texts) + 1)

    def get(text: str) -> Floats | Exception:
        future = batches._submit(text)
        all_submitted.wait(20)
        try:
            return future.result()
        except ValueError as error:
            return error

    with ThreadPoolExecutor(len(texts) + 1) as pool:
        first = pool.submit(batches.get_many, ["the first"])
        assert encoder.started.wait(20)
        others = [pool.submit(get, text) for text in texts]
        all_submitted.wait(20)
        encoder.release.set()
        assert first.result()[0].tolist() == vector_of("the first")
        return [other.result() for other in others]


def test_requests_during_a_batch_form_the_next_batch() -> None:
    encoder = Encoder()
    texts = [f"text {n % 20}" for n in range(30)]
    vectors = get_while_first_batch_runs(Texts(encoder, "texts"), encoder, texts)
    for text, vector in zip(texts, vectors, strict=True):
        assert isinstance(vector, np.ndarray)
        assert vector.tolist() == vector_of(text)
    assert encoder.batches[0] == ["the first"]
    assert sorted(encoder.batches[1]) == sorted(set(texts)), "each distinct text once"
    assert len(encoder.batches) == 2


def test_one_run_serves_all_waiting_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the thread is busy, further requests schedule no further run."""
    encoder = Encoder()
    batches = Texts(encoder, "texts", most=4)
    runs: list[Callable[[], None]] = []
    submit = batches._thread.submit

    def record(run: Callable[[], None]) -> None:
        runs.append(run)
        submit(run)

    monkeypatch.setattr(batches._thread, "submit", record)
    get_while_first_batch_runs(batches, encoder, [f"text {n}" for n in range(30)])
    assert len(encoder.batches) == 9
    assert len(runs) == 1
    while batches._running:
        pass
    assert batches.get_many(["later"])[0].tolist() == vector_of("later")
    assert len(runs) == 2


def test_too_few_values_are_an_error_for_every_caller() -> None:
    batches: Batches[str, int] = Batches(lambda keys: [], "none")
    for _ in range(2):
        with pytest.raises(ValueError, match="shorter"):
            batches.get_many(["a text"])


def test_batches_have_a_maximum_size() -> None:
    encoder = Encoder()
    texts = [f"text {n}" for n in range(10)]
    get_while_first_batch_runs(Texts(encoder, "texts", most=4), encoder, texts)
    assert [len(batch) for batch in encoder.batches] == [1, 4, 4, 2]


def test_an_error_reaches_only_the_request_that_caused_it() -> None:
    encoder = Encoder()
    one, bad, two = get_while_first_batch_runs(Texts(encoder, "texts"), encoder, ["one", "bad", "two"])
    assert isinstance(bad, ValueError)
    others = [vector.tolist() for vector in (one, two) if isinstance(vector, np.ndarray)]
    assert others == [vector_of("one"), vector_of("two")]


def test_a_cancelled_request_does_not_affect_others() -> None:
    """Another task that awaits the same text still gets its vector."""
    encoder = Encoder()
    batches = Texts(encoder, "texts")

    async def run() -> list[float]:
        first = asyncio.create_task(batches.get("the first"))
        await asyncio.to_thread(encoder.started.wait, 20)
        cancelled, kept = (asyncio.create_task(batches.get("a text")) for _ in range(2))
        bad = asyncio.create_task(batches.get("bad"))
        await asyncio.sleep(0)
        cancelled.cancel()
        encoder.release.set()
        await first
        with pytest.raises(ValueError, match="can't be encoded"):
            await bad
        vector: list[float] = (await kept).tolist()
        assert cancelled.cancelled()
        return vector

    assert asyncio.run(run()) == vector_of("a text")
    assert [sorted(batch) for batch in encoder.batches[:2]] == [["the first"], ["a text", "bad"]]
