"""Batches of concurrent requests: each gets its own value or its own error, and none waits for ever."""

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
    """Notes its batches. The first one ends once it is let go, so that others come meanwhile."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.let_go = Event(), Event()

    def __call__(self, texts: Sequence[str]) -> list[Floats]:
        self.batches.append(list(texts))
        if len(self.batches) == 1:
            self.begun.set()
            assert self.let_go.wait(20)
        if "bad" in texts:
            raise ValueError("bad can't be encoded")
        return [np.array(vector_of(text), np.float32) for text in texts]


def ask_while_it_runs(batches: Texts, encoder: Encoder, texts: Sequence[str]) -> list[Floats | Exception]:
    """What each text's thread gets: the first one's batch ends only when all others wait."""
    everybody_waits = Barrier(len(texts) + 1)

    def ask(text: str) -> Floats | Exception:
        future = batches._submit(text)
        everybody_waits.wait(20)
        try:
            return future.result()
        except ValueError as error:
            return error

    with ThreadPoolExecutor(len(texts) + 1) as pool:
        first = pool.submit(batches.get_many, ["the first"])
        assert encoder.begun.wait(20)
        others = [pool.submit(ask, text) for text in texts]
        everybody_waits.wait(20)
        encoder.let_go.set()
        assert first.result()[0].tolist() == vector_of("the first")
        return [other.result() for other in others]


def test_what_comes_while_the_model_runs_is_the_next_batch() -> None:
    encoder = Encoder()
    texts = [f"text {n % 20}" for n in range(30)]
    found = ask_while_it_runs(Texts(encoder, "texts"), encoder, texts)
    for text, vector in zip(texts, found, strict=True):
        assert isinstance(vector, np.ndarray)
        assert vector.tolist() == vector_of(text)
    assert encoder.batches[0] == ["the first"]
    assert sorted(encoder.batches[1]) == sorted(set(texts)), "each once"
    assert len(encoder.batches) == 2


def test_what_waits_for_the_thread_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come while it is never idle, it is told to run once."""
    encoder = Encoder()
    batches = Texts(encoder, "texts", most=4)
    runs: list[Callable[[], None]] = []
    submit = batches._thread.submit

    def noted(run: Callable[[], None]) -> None:
        runs.append(run)
        submit(run)

    monkeypatch.setattr(batches._thread, "submit", noted)
    ask_while_it_runs(batches, encoder, [f"text {n}" for n in range(30)])
    assert len(encoder.batches) == 9
    assert len(runs) == 1
    while batches._running:
        pass
    assert batches.get_many(["later"])[0].tolist() == vector_of("later")
    assert len(runs) == 2


def test_values_that_are_too_few_are_an_error_for_all() -> None:
    batches: Batches[str, int] = Batches(lambda keys: [], "none")
    for _ in range(2):
        with pytest.raises(ValueError, match="shorter"):
            batches.get_many(["a text"])


def test_a_batch_has_a_largest_size() -> None:
    encoder = Encoder()
    texts = [f"text {n}" for n in range(10)]
    ask_while_it_runs(Texts(encoder, "texts", most=4), encoder, texts)
    assert [len(batch) for batch in encoder.batches] == [1, 4, 4, 2]


def test_a_text_that_fails_fails_by_itself() -> None:
    encoder = Encoder()
    found = ask_while_it_runs(Texts(encoder, "texts"), encoder, ["one", "bad", "two"])
    assert isinstance(found[1], ValueError)
    others = [vector.tolist() for vector in (found[0], found[2]) if isinstance(vector, np.ndarray)]
    assert others == [vector_of("one"), vector_of("two")]


def test_who_waits_without_a_thread_may_stop_waiting() -> None:
    """Another that waits for the same gets it all the same."""
    encoder = Encoder()
    batches = Texts(encoder, "texts")

    async def ask() -> list[float]:
        first = asyncio.create_task(batches.get("the first"))
        await asyncio.to_thread(encoder.begun.wait, 20)
        impatient, patient = (asyncio.create_task(batches.get("a text")) for _ in range(2))
        bad = asyncio.create_task(batches.get("bad"))
        await asyncio.sleep(0)
        impatient.cancel()
        encoder.let_go.set()
        await first
        with pytest.raises(ValueError, match="can't be encoded"):
            await bad
        found: list[float] = (await patient).tolist()
        assert impatient.cancelled()
        return found

    assert asyncio.run(ask()) == vector_of("a text")
    assert [sorted(batch) for batch in encoder.batches[:2]] == [["the first"], ["a text", "bad"]]
