"""The newest version of a store as searchable parts: segments on disk, and the rest of the images in memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import lance
import numpy as np

from forclip.index.memory import available_memory
from forclip.index.places import OFFSET_BITS, Addresses, FragmentName, LiveRows, Places
from forclip.index.roots import Roots
from forclip.index.segment import segment_in_memory
from forclip.index.segment_folder import SegmentFolder, SegmentName, StoredSegment
from forclip.index.store import Store
from forclip.index.table import StoredVectors, matching_addresses, read_vectors, take_rows
from forclip.types import Bools, Ints

_CACHED = 16  # filters, and samples, of a view
_SAMPLED_IMAGES = 512  # to estimate how many vectors images have
_FEW_IMAGES = 16_384  # fit any memory
_MEMORY_SHARE = 2  # images without a segment may take half of the memory that is free
_ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Part(StoredSegment):
    """A segment in one version of a store. live: [images], whether each image is in that version."""

    live: Bools

    @cached_property
    def num_images(self) -> int:
        """Live ones."""
        return int(np.count_nonzero(self.live))

    @cached_property
    def num_vectors(self) -> int:
        """Of live images."""
        if self.num_images == len(self.live):
            return self.segment.num_vectors
        dead, offsets = np.flatnonzero(~self.live), self.segment.offsets
        return self.segment.num_vectors - int((offsets[dead + 1] - offsets[dead]).sum())

    @property
    def in_memory(self) -> bool:
        return self.segment.folder is None

    def selected(self, where: str | None, matching: Callable[[str], Addresses]) -> Bools:
        """Return which images [images] are live and match a filter. Raises ValueError for bad SQL.

        matching: of the view.
        """
        return self.live if where is None else self.live & self.places.contained_in(matching(where))

    def positions(self, image_ids: Sequence[str]) -> Ints:
        """Return the positions of live images with these ids, ascending. Unknown ids are ignored."""
        positions = self.segment.id_lookup.find(image_ids)
        live: Ints = positions[self.live[positions]]
        return live

    def addresses(self, positions: Ints) -> Addresses:
        """Return where live images are in the table."""
        runs = self.places.runs
        run_of = np.searchsorted(np.array([run.start for run in runs]), positions, "right") - 1
        fragments = np.array([run.fragment[0] for run in runs], np.uint64)[run_of]
        return (fragments << OFFSET_BITS) | self.places.offsets[positions].astype(np.uint64)

    def positions_of_keys(self, keys: Ints) -> Ints:
        """Return the positions of live images with these keys, ascending. Unknown keys are ignored."""
        positions = self.segment.key_lookup.find(keys)
        live: Ints = positions[self.live[positions]]
        return live


@dataclass(frozen=True, eq=False)
class View:
    """One version of a store. Each of its images is live in exactly one part. names: the complete segments on disk."""

    table: lance.LanceDataset
    names: frozenset[SegmentName]
    parts: tuple[Part, ...]
    roots: Roots

    def __len__(self) -> int:
        return sum(p.num_images for p in self.parts)

    def addresses_of_keys(self, keys: Ints) -> Addresses:
        """Return where the images with these keys are in the table, in no order. Unknown keys are ignored."""
        return np.concatenate([np.empty(0, np.uint64), *(p.addresses(p.positions_of_keys(keys)) for p in self.parts)])

    @cached_property
    def matching(self) -> Callable[[str], Addresses]:
        """Function from an SQL expression to the ascending addresses of the images that match it. Caches the last
        ones."""
        table = self.table
        return lru_cache(_CACHED)(lambda where: matching_addresses(table, where))

    @cached_property
    def sample(self) -> Callable[[int, str | None], tuple[Ints, ...]]:
        """Function from a size and a filter to positions in each part of about `size` random images.

        Caches the last ones: the scores of text after text are compared with those of the same images.
        """
        parts, matching = self.parts, self.matching  # a reference to self would keep the view in memory

        @lru_cache(_CACHED)
        def draw(size: int, where: str | None) -> tuple[Ints, ...]:
            selected = [p.selected(where, matching) for p in parts]
            share = size / max(1, sum(int(s.sum()) for s in selected))
            rng = np.random.default_rng(0)
            return tuple(np.flatnonzero(s & (rng.random(len(s)) < share)) for s in selected)

        return draw


@dataclass(frozen=True, eq=False)
class Cover:
    """Which images of a version are in segments. parts: segments on disk and in memory that have live images; rows:
    claimed by them."""

    table: lance.LanceDataset
    names: frozenset[SegmentName]
    rows: LiveRows
    parts: tuple[Part, ...]

    @cached_property
    def rest(self) -> Addresses:
        """Where the images without a segment are in the table."""
        return self.rows.unclaimed()

    def __len__(self) -> int:
        return sum(p.num_images for p in self.parts) + len(self.rest)

    def count_rest(self, dim: int) -> int:
        """Return how many vectors the rest has, estimated from a sample where there are many images."""
        step = max(1, len(self.rest) // _SAMPLED_IMAGES)
        sampled = self.rest[::step]
        vectors = sum(len(block.codes) for block in read_vectors(self.table, dim, sampled)) if len(sampled) else 0
        return round(vectors * len(self.rest) / max(1, len(sampled)))


class NotIndexed(ValueError):
    """More images wait for the search index than the memory holds."""


class Views:
    """Provides the newest version. What was read for an older version is kept as far as it is still valid.

    A version is compared with the segments by where their images are in the table, which reads nothing but which rows
    were deleted. Where fragments were joined, the images in the new ones are found by key.
    """

    def __init__(self, store: Store, segments: SegmentFolder) -> None:
        self.store, self.segments = store, segments
        self._opened: dict[SegmentName, StoredSegment | None] = {}
        self._in_memory: list[StoredSegment] = []
        self._scanned: set[FragmentName] = set()  # whose keys were compared with those of the segments
        self._cover: Cover | None = None
        self._current: View | None = None

    def newest(self) -> View:
        """Return the newest version, whose images without a segment are read into memory.

        Raises ValueError for a damaged store, and for one with more images without a segment than memory holds.
        """
        cover, current = self.cover(), self._current
        if current is None or (cover.table.version, cover.names) != (current.table.version, current.names):
            parts = [*cover.parts, *self._read_rest(cover)]
            self._in_memory = [p for p in parts if p.in_memory]
            current = self._current = View(cover.table, cover.names, tuple(parts), self.store.roots)
        return current

    def cover(self) -> Cover:
        """Return which images of the newest version are in segments. Reads no vector."""
        table, names = self.store.table(), self.segments.names()
        cover = self._cover
        if cover is None or (table.version, names) != (cover.table.version, cover.names):
            cover = self._cover = self._compare(table, names)
        return cover

    def locate(self, table: lance.LanceDataset, image_ids: Sequence[str]) -> tuple[Addresses, list[str]]:
        """Return where the images of segments are in the newest version of the table, by id, and which of the ids no
        segment has though some images are in none.

        Segments find any ids as fast in a large store as in a small one, the table's index only ids that are alike. The
        table has the last word: ids are compared with the rows found, and all are left to its index if one differs.
        """
        cover, ids, found = self.cover(), list(dict.fromkeys(image_ids)), dict[str, int]()
        if cover.table.version != table.version:
            return np.empty(0, np.uint64), ids
        for part in cover.parts:
            positions = part.positions(ids)
            found |= zip(part.segment.ids.take(positions), part.addresses(positions).tolist(), strict=True)
        addresses = np.array(sorted(found.values()), np.uint64)
        if len(addresses) and set(take_rows(table, addresses, ["id"])["id"].to_pylist()) != found.keys():
            return np.empty(0, np.uint64), ids
        return addresses, [i for i in ids if i not in found] if cover.rows.count_unclaimed() else []

    def _compare(self, table: lance.LanceDataset, names: frozenset[SegmentName]) -> Cover:
        if self._cover is None or names != self._cover.names:
            self._scanned = set()
        rows = LiveRows(table, None if self._cover is None else self._cover.rows)
        self._opened = {name: self._opened[name] if name in self._opened else self._open(name) for name in names}
        self._find_joined(rows)
        on_disk = sorted((s for s in self._opened.values() if s is not None), key=lambda s: -s.created_ns)
        parts = []
        for stored in [*on_disk, *self._in_memory]:
            live = rows.claim(stored.places)
            if live.any():
                parts.append(Part(stored.segment, stored.index, stored.created_ns, stored.places, live))
        return Cover(table, names, rows, tuple(parts))

    def _find_joined(self, rows: LiveRows) -> None:
        """Find the images of segments whose fragments are gone in the fragments that no segment knows."""
        every = {name: s for name, s in self._opened.items() if s is not None}
        segments = [*every.values(), *self._in_memory]
        known = self._scanned.union(run.fragment for s in segments for run in s.places.runs)
        new = [name for name in rows.fragments if name not in known]
        lost = [s for s in segments if not s.places.are_complete(rows.fragments)]
        if not new or not lost:
            return
        found = {id(s): s.places.addresses(rows.fragments) for s in lost}
        scanned = rows.table.scanner(
            ["number"], fragments=[rows.fragments[n] for n in new], with_row_address=True, batch_size=_ROWS_AT_ONCE
        )
        for batch in scanned.to_batches():
            keys, addresses = batch["number"].to_numpy(), batch["_rowaddr"].to_numpy()
            order = np.argsort(keys)
            for stored in lost:
                positions = stored.segment.key_lookup.find(keys)
                at = np.searchsorted(keys, stored.segment.keys[positions], sorter=order)
                found[id(stored)][positions] = addresses[order[at]]
        placed = {id(s): replace(s, places=Places.of(found[id(s)], rows.names)) for s in lost}
        self._opened |= {name: placed.get(id(s), s) for name, s in every.items()}
        self._in_memory = [placed.get(id(s), s) for s in self._in_memory]
        self._scanned.update(new)

    def _read_rest(self, cover: Cover) -> list[Part]:
        if not len(cover.rest):
            return []
        header = self.store.header
        if len(cover.rest) > _FEW_IMAGES:
            size = cover.count_rest(header.dim) * header.dim * (2 if header.precision == "fp16" else 1)
            if size > available_memory() // _MEMORY_SHARE:
                raise NotIndexed(
                    f"{self.store.folder}: {len(cover.rest)} images are not in the search index yet, too many for the "
                    f"memory; `forclip compact {self.store.folder}` adds them"
                )
        addresses = list[Addresses]()

        def blocks() -> Iterator[StoredVectors]:
            for block in read_vectors(cover.table, header.dim, cover.rest):
                assert block.addresses is not None
                addresses.append(block.addresses)
                yield block

        segment = segment_in_memory(header, blocks())
        places = Places.of(np.concatenate(addresses), cover.rows.names)
        return [Part(segment, None, 0, places, np.ones(len(segment), bool))]

    def _open(self, name: SegmentName) -> StoredSegment | None:
        """Return None for a damaged segment: its images are then read from the store."""
        with suppress(ValueError):
            return self.segments.open(name[0])
        return None
