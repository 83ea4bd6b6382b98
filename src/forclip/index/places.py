"""Where images are in a store's table, and which rows of a version are live.

A row's address is its fragment's id and its offset in the fragment. It stays the same until the fragment is joined with
others. An address is never used again, except that a table that was rewritten or restored starts its numbers again:
so a fragment is known by its id and its first data file.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forclip.types import Bools, Ints

Addresses = NDArray[np.uint64]
FragmentName = tuple[int, str]  # its id and its first data file
OFFSET_BITS = np.uint64(32)
OFFSET_MASK = np.uint64(0xFFFFFFFF)
NOWHERE = np.uint64(0xFFFFFFFFFFFFFFFF)  # the address of an image that is not in the table
_NO_OFFSET = np.uint32(0xFFFFFFFF)  # its offset


@dataclass(frozen=True)
class Run:
    """Images of a segment, from position start to end, whose rows are in one fragment.

    ordered: whether it is known that all of them are in the fragment, at ascending offsets.
    """

    fragment: FragmentName
    start: int
    end: int
    ordered: bool = False


@dataclass(frozen=True, eq=False)
class Places:
    """Where the images of a segment are. offsets: [images] uint32, in the fragments of the runs, the largest number for
    images that are not in the table. Images in no run are not known to be there."""

    offsets: NDArray[np.uint32]
    runs: tuple[Run, ...]

    @staticmethod
    def of(addresses: Addresses, names: Mapping[int, FragmentName]) -> "Places":
        """addresses: [images]; names: of fragments by id."""
        fragments, nowhere = (addresses >> OFFSET_BITS).astype(np.uint32), addresses == NOWHERE
        if nowhere.all():
            return Places.unknown(len(addresses))
        if nowhere.any():  # they belong to the run before them, so that there are few runs
            placed = np.flatnonzero(~nowhere)
            before = np.searchsorted(placed, np.arange(len(addresses)), "right").clip(1) - 1
            fragments = fragments[placed[before]]
        edges = [0, *(np.flatnonzero(np.diff(fragments)) + 1).tolist(), len(addresses)]
        breaks = np.append(False, addresses[1:] <= addresses[:-1])
        breaks[edges[:-1]] = False
        breaks |= nowhere
        ordered = ~np.logical_or.reduceat(breaks, edges[:-1])
        runs = tuple(
            Run(names[int(fragments[start])], start, end, known)
            for (start, end), known in zip(pairwise(edges), ordered.tolist(), strict=True)
        )
        return Places((addresses & OFFSET_MASK).astype(np.uint32), runs)

    @staticmethod
    def unknown(count: int) -> "Places":
        return Places(np.full(count, _NO_OFFSET, np.uint32), ())

    def addresses(self, fragments: Container[FragmentName]) -> Addresses:
        """Return where the images [images] are in these fragments; elsewhere is nowhere."""
        addresses = np.full(len(self.offsets), NOWHERE)
        for run in self.runs:
            if run.fragment in fragments:
                offsets = self.offsets[run.start : run.end]
                at = offsets.astype(np.uint64) | np.uint64(run.fragment[0] << 32)
                addresses[run.start : run.end] = np.where(offsets == _NO_OFFSET, NOWHERE, at)
        return addresses

    def are_complete(self, fragments: Container[FragmentName]) -> bool:
        """Whether it is known of all images where they are in these fragments, or that they are not there."""
        ends = [0, *(run.end for run in self.runs)]
        no_gaps = all(run.start == end for run, end in zip(self.runs, ends, strict=False))
        return no_gaps and ends[-1] == len(self.offsets) and all(run.fragment in fragments for run in self.runs)

    def contained_in(self, addresses: Addresses) -> Bools:
        """Return which images [images] are at one of these ascending addresses."""
        found = np.zeros(len(self.offsets), bool)
        for run in self.runs:
            wanted = _offsets_in(addresses, run.fragment[0])
            if len(wanted):
                among = np.zeros(int(wanted[-1]) + 2, bool)  # the last one is for all other rows
                among[wanted] = True
                found[run.start : run.end] = among[np.minimum(self.offsets[run.start : run.end], len(among) - 1)]
        return found

    def positions(self, fragment: FragmentName, rows: int) -> Ints:
        """Return the position of the image at each offset of a fragment [rows], -1 where there is none."""
        positions = np.full(rows + 1, -1, np.int64)
        for run in self.runs:
            if run.fragment == fragment:
                offsets = np.minimum(self.offsets[run.start : run.end], rows)
                positions[offsets] = np.arange(run.start, run.end)
        return positions[:rows]


class LiveRows:
    """The rows of one version that are not deleted, fragment by fragment, and who has claimed them."""

    def __init__(self, table: lance.LanceDataset, previous: "LiveRows | None" = None) -> None:
        """previous: of an older version, whose deletions are not read again where nothing was deleted since."""
        self.table = table
        self.fragments: dict[FragmentName, lance.LanceFragment] = {}
        self._deletions: dict[tuple[FragmentName, str], Ints] = {}
        self._free: dict[FragmentName, Bools] = {}
        self._claims: dict[FragmentName, NDArray[np.uint32]] = {}  # offsets that are not yet marked in `_free`
        self._left: dict[FragmentName, int] = {}
        self._rows: dict[FragmentName, int] = {}  # deleted ones included
        with_deletions = {}
        for fragment in table.get_fragments():
            described = fragment.metadata
            name = described.id, described.files[0].path
            self.fragments[name], self._rows[name] = fragment, described.physical_rows
            if deletions := fragment.deletion_file():
                with_deletions[name, deletions] = fragment
        known = {} if previous is None else previous._deletions
        unread = {key: fragment for key, fragment in with_deletions.items() if key not in known}
        self._deletions = {key: known[key] for key in with_deletions if key in known} | _read_deleted(table, unread)
        self._deleted = {name: deleted for (name, _), deleted in self._deletions.items()}

    @property
    def names(self) -> dict[int, FragmentName]:
        """The fragments by id."""
        return {name[0]: name for name in self.fragments}

    def claim(self, places: Places) -> Bools:
        """Return which images [images] are in this version and nobody has claimed. Now they are claimed."""
        claimed = np.zeros(len(places.offsets), bool)
        for run in places.runs:
            if run.fragment not in self.fragments:
                continue
            offsets = places.offsets[run.start : run.end]
            if run.ordered and run.fragment not in self._free and run.fragment not in self._claims:
                claimed[run.start : run.end] = True
                gone = _positions_in(offsets, self._deleted.get(run.fragment, np.empty(0, np.int64)))
                claimed[run.start + gone] = False
                self._claims[run.fragment] = offsets
                self._left[run.fragment] = self._count(run.fragment) - len(offsets) + len(gone)
            else:
                free = self._free_rows(run.fragment)
                offsets = np.minimum(offsets, len(free) - 1)
                claimed[run.start : run.end] = free[offsets]
                free[offsets] = False
        return claimed

    def unclaimed(self) -> Addresses:
        """Return the addresses of live rows that nobody has claimed, in the order of the table."""
        found = [np.empty(0, np.uint64)]
        for name in self.fragments:
            if name in self._claims and not self._left[name]:
                continue
            offsets = np.flatnonzero(self._free_rows(name)).astype(np.uint64)
            found.append(offsets | np.uint64(name[0] << 32))
        return np.concatenate(found)

    def count_unclaimed(self) -> int:
        """Return how many addresses `unclaimed` returns."""
        return sum(
            int(np.count_nonzero(self._free[name])) if name in self._free else self._left.get(name, self._count(name))
            for name in self.fragments
        )

    def _count(self, name: FragmentName) -> int:
        """Count the live rows of a fragment."""
        return self._rows[name] - len(self._deleted.get(name, ()))

    def _free_rows(self, name: FragmentName) -> Bools:
        if name not in self._free:
            rows = self._rows[name]
            free = np.ones(rows + 1, bool)
            free[rows] = False  # of images that are nowhere
            free[self._deleted.get(name, np.empty(0, np.int64))] = False
            free[self._claims.pop(name, np.empty(0, np.uint32))] = False
            self._free[name] = free
        return self._free[name]


def _read_deleted(
    table: lance.LanceDataset, fragments: Mapping[tuple[FragmentName, str], lance.LanceFragment]
) -> dict[tuple[FragmentName, str], Ints]:
    """Return the ascending offsets of each fragment's deleted rows. No column is read."""
    read, others = dict[tuple[FragmentName, str], Ints](), []
    for key in fragments:
        deleted = _read_deletion_file(Path(table.uri) / key[1])
        if deleted is None:
            others.append(key)
        else:
            read[key] = deleted
    if others:
        rows = table.scanner([], fragments=[fragments[key] for key in others], with_row_address=True).to_table()
        addresses = np.sort(rows["_rowaddr"].to_numpy())
        for key in others:
            gone = np.ones(fragments[key].physical_rows, bool)
            gone[_offsets_in(addresses, key[0][0])] = False
            read[key] = np.flatnonzero(gone)
    return read


def _read_deletion_file(file: Path) -> Ints | None:
    """Return the ascending offsets in one of Lance's files of few deletions, an Arrow column of row numbers.

    Returns None for a file of many deletions, which is a bitmap, or of a table in a bucket.
    """
    if file.suffix != ".arrow" or not file.exists():
        return None
    with pa.OSFile(str(file)) as source:
        (column,) = pa.ipc.open_file(source).read_all().columns
    return np.sort(column.to_numpy().astype(np.int64))


def _positions_in(ascending: NDArray[np.uint32], wanted: Ints) -> Ints:
    """Return the positions of those of the wanted values that are among ascending ones."""
    at = np.searchsorted(ascending, wanted.astype(np.uint32))
    inside = at < len(ascending)
    at, wanted = at[inside], wanted[inside]
    found: Ints = at[ascending[at] == wanted]
    return found


def _offsets_in(addresses: Addresses, fragment_id: int) -> Ints:
    """Return the offsets of those of ascending addresses that are in a fragment."""
    first = fragment_id << 32
    low, high = np.searchsorted(addresses, np.array([first, first + (1 << 32)], np.uint64))
    return (addresses[low:high] & OFFSET_MASK).astype(np.int64)
