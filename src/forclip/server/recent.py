"""The most recently used values, up to a number of them: safe to use from several threads."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """size: how many are kept."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: OrderedDict[Hashable, V] = OrderedDict()
        self._of: object = None
        self._lock = Lock()

    def has(self, key: Hashable, of: object = None) -> bool:
        """Whether it is kept. of: as in `get`."""
        with self._lock:
            self._forget_others(of)
            return key in self._kept

    def get(self, key: Hashable, make: Callable[[], V], of: object = None) -> V:
        """What is kept, or else is made now. Two threads that ask for the same at once may both make it.

        of: what the values belong to. Whoever asks for those of another object has all earlier ones forgotten."""
        with self._lock:
            self._forget_others(of)
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()
        self.put(key, value, of)
        return value

    def put(self, key: Hashable, value: V, of: object = None) -> None:
        """To be kept, unless it belongs to what others have left behind meanwhile."""
        with self._lock:
            if of is self._of:
                self._kept[key] = value
                while len(self._kept) > self.size:
                    self._kept.popitem(last=False)

    def _forget_others(self, of: object) -> None:
        if of is not self._of:
            self._kept.clear()
            self._of = of
