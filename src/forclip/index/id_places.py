"""Where ids stand among many: by their hashes in ascending order, so that a few are found without reading all."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forclip.types import Ints

_IDS_AT_ONCE = 1 << 16  # as Python's strings
_MANY = 50  # ids asked for, one in so many: Arrow's pass over all ids is as fast


class IdPlaces:
    """ids: [n] strings, which may be there several times. Keeps 16 bytes for each."""

    def __init__(self, ids: pa.Array) -> None:
        parts = (ids.slice(start, _IDS_AT_ONCE).to_pylist() for start in range(0, len(ids), _IDS_AT_ONCE))
        hashes = np.concatenate([np.empty(0, np.int64), *map(_hashes, parts)])
        self._ids = ids
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def find(self, wanted: Sequence[str]) -> Ints:
        """Every place where one of these stands, in ascending order."""
        asked_for = pa.array(wanted, pa.string())
        if len(asked_for) * _MANY > len(self._ids):
            everywhere: Ints = np.flatnonzero(np.asarray(pc.is_in(self._ids, value_set=asked_for)))
            return everywhere
        hashes = _hashes(dict.fromkeys(wanted))
        starts, ends = (np.searchsorted(self._sorted, hashes, side) for side in ("left", "right"))
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        places = np.sort(np.concatenate([np.empty(0, np.int64), *(self._order[s:e] for s, e in spans if s < e)]))
        # Other ids may have the same hash.
        found: Ints = places[np.asarray(pc.is_in(self._ids.take(pa.array(places)), value_set=asked_for))]
        return found


def _hashes(ids: Iterable[str]) -> Ints:
    return np.array([hash(i) for i in ids], np.int64)
