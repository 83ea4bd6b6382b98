"""A cache of values that belong to one version of the store."""

from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Generic, TypeVar

from cachetools import LRUCache

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class StoreCache(Generic[Key, Value]):
    """Keeps the most recently used values of one version; a request for another version empties it. Thread-safe.

    maxsize: the total size of the values kept, each counted by `size_of` (1 by default).
    """

    def __init__(self, maxsize: int, size_of: Callable[[Value], int] | None = None) -> None:
        self._values: LRUCache[Key, Value] = LRUCache(maxsize, size_of)
        self._version: object = None
        self._lock = Lock()

    def get(self, key: Key, compute: Callable[[], Value], version: object = None) -> Value:
        """Return the cached value or compute it. Threads that need the same value at once may each compute it.

        version: any object; values of another object are dropped.
        """
        return self.get_many([key], lambda keys: [compute()], version)[0]

    def get_many(
        self, keys: Sequence[Key], compute: Callable[[list[Key]], Sequence[Value]], version: object = None
    ) -> list[Value]:
        """Return values in the order of the keys. Those that are missing are computed together, each once."""
        with self._lock:
            if version is not self._version:
                self._values.clear()
                self._version = version
            found = {key: self._values[key] for key in keys if key in self._values}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            computed = dict(zip(missing, compute(missing), strict=True))
            found |= computed
            with self._lock:
                if version is self._version:  # else another version replaced it meanwhile
                    for key, value in computed.items():
                        if self._values.getsizeof(value) <= self._values.maxsize:
                            self._values[key] = value
        return [found[key] for key in keys]
