"""Texts that many threads ask for at once, encoded together: what comes while the model runs is its next batch."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from forclip.types import Floats

_MOST = 64  # texts in a batch


class TextBatches:
    """encode: texts to unit [texts, dim]; model: held while it runs. A text that comes alone waits for no other."""

    def __init__(self, encode: Callable[[Sequence[str]], Floats], model: Lock, most: int = _MOST) -> None:
        self._encode, self._model, self._most = encode, model, most
        self._waiting: dict[str, Future[Floats]] = {}
        self._changing = Lock()
        self._thread = ThreadPoolExecutor(1, "texts")

    def vector(self, text: str) -> Floats:
        """Unit [dim]. Raises what `encode` raises for this text alone."""
        return self._asked(text).result()

    async def awaited(self, text: str) -> Floats:
        """As `vector`, without a thread that waits."""
        # Others may wait for the same: who stops waiting must not stop them.
        return await asyncio.shield(asyncio.wrap_future(self._asked(text)))

    def _asked(self, text: str) -> Future[Floats]:
        with self._changing:
            waited_for = self._waiting.get(text)
            if waited_for is None:
                waited_for = self._waiting[text] = Future()
                self._thread.submit(self._run)
        return waited_for

    def _run(self) -> None:
        """Encodes what waits; nothing where an earlier run took it along."""
        with self._model:
            with self._changing:
                taken = {text: self._waiting.pop(text) for text in list(self._waiting)[: self._most]}
            if taken:
                self._answer(taken)

    def _answer(self, taken: dict[str, Future[Floats]]) -> None:
        try:
            vectors = self._encode(list(taken))
        except Exception as error:
            if len(taken) == 1:
                for waited_for in taken.values():
                    waited_for.set_exception(error)
            else:  # so that one that can't be encoded fails by itself
                for text, waited_for in taken.items():
                    self._answer({text: waited_for})
            return
        for waited_for, vector in zip(taken.values(), vectors, strict=True):
            waited_for.set_result(vector)
