"""Where images are in a store's table, and which rows of a version are live.

A row's address is its fragment's id and its offset in the fragment. It stays the same until the fragment is joined with
others. An address is never used again, except that a table that was rewritten or restored starts its numbers again:
so a fragment is known by its id and its first data file.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from itertools import pairwise

import lance
import numpy as np
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
    """Images of a segment, from position start to end, whose rows are in one fragment."""

    fragment: FragmentName
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Places:
    """Where the images of a segment are. offsets: [images] uint32, in the fragments of the runs, the largest number for
    images that are not in the table. Images in no run are not known to be there."""

    offsets: NDArray[np.uint32]
    runs: tuple[Run, ...]

    @staticmethod
    def of(addresses: Addresses, names: Mapping[int, FragmentName]) -> "Places":
        """addresses: [images]; names: of fragments by id."""
        placed = np.flatnonzero(addresses != NOWHERE)
        if not len(placed):
            return Places.unknown(len(addresses))
        # Images that are nowhere belong to the run before them, so that there are few runs.
        before = np.searchsorted(placed, np.arange(len(addresses)), "right").clip(1) - 1
        fragments = (addresses >> OFFSET_BITS)[placed[before]]
        edges = [0, *(np.flatnonzero(np.diff(fragments)) + 1).tolist(), len(addresses)]
        runs = tuple(Run(names[int(fragments[start])], start, end) for start, end in pairwise(edges))
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
        self._deletions: dict[tuple[FragmentName, str], Bools] = {}
        self._free: dict[FragmentName, Bools] = {}
        with_deletions = {}
        for fragment in table.get_fragments():
            name = fragment.metadata.id, fragment.metadata.files[0].path
            self.fragments[name] = fragment
            if deletions := fragment.deletion_file():
                with_deletions[name, deletions] = fragment
        known = {} if previous is None else previous._deletions
        unread = {key: fragment for key, fragment in with_deletions.items() if key not in known}
        self._deletions = {key: known[key] for key in with_deletions if key in known} | _read_live(table, unread)
        self._live = {name: live for (name, _), live in self._deletions.items()}

    @property
    def names(self) -> dict[int, FragmentName]:
        """The fragments by id."""
        return {name[0]: name for name in self.fragments}

    def claim(self, places: Places) -> Bools:
        """Return which images [images] are in this version and nobody has claimed. Now they are claimed."""
        claimed = np.zeros(len(places.offsets), bool)
        for run in places.runs:
            if run.fragment in self.fragments:
                free = self._free_rows(run.fragment)
                offsets = np.minimum(places.offsets[run.start : run.end], len(free) - 1)
                claimed[run.start : run.end] = free[offsets]
                free[offsets] = False
        return claimed

    def unclaimed(self) -> Addresses:
        """Return the addresses of live rows that nobody has claimed, in the order of the table."""
        found = [np.empty(0, np.uint64)]
        for name in self.fragments:
            offsets = np.flatnonzero(self._free_rows(name)).astype(np.uint64)
            found.append(offsets | np.uint64(name[0] << 32))
        return np.concatenate(found)

    def _free_rows(self, name: FragmentName) -> Bools:
        if name not in self._free:
            live = self._live.get(name)
            rows = self.fragments[name].physical_rows
            self._free[name] = np.ones(rows + 1, bool) if live is None else np.append(live, False)
            self._free[name][rows] = False  # of images that are nowhere
        return self._free[name]


def _read_live(
    table: lance.LanceDataset, fragments: Mapping[tuple[FragmentName, str], lance.LanceFragment]
) -> dict[tuple[FragmentName, str], Bools]:
    """Return which rows of each fragment [rows] are live. No column is read."""
    if not fragments:
        return {}
    rows = table.scanner([], fragments=list(fragments.values()), with_row_address=True).to_table()
    addresses = np.sort(rows["_rowaddr"].to_numpy())
    read = {}
    for key, fragment in fragments.items():
        live = np.zeros(fragment.physical_rows, bool)
        live[_offsets_in(addresses, key[0][0])] = True
        read[key] = live
    return read


def _offsets_in(addresses: Addresses, fragment_id: int) -> Ints:
    """Return the offsets of those of ascending addresses that are in a fragment."""
    first = fragment_id << 32
    low, high = np.searchsorted(addresses, np.array([first, first + (1 << 32)], np.uint64))
    return (addresses[low:high] & OFFSET_MASK).astype(np.int64)
