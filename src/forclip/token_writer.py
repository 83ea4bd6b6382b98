"""Backbone tokens to disk as they are made, for sets larger than memory: complete or absent, whatever happens."""

import json
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from forclip.embedding import EncodedBatch
from forclip.token_store import (
    FORMAT_VERSION,
    HEADER_FILE,
    TOKENS_FILE,
    Halves,
    TokenHeader,
    TokenSource,
    header_checksum,
)
from forclip.types import SkippedImage

_BLOCK_BYTES = 1 << 24  # what a checksum is of: small enough to say where the damage is


def write_tokens(folder: Path, source: TokenSource, batches: Iterable[EncodedBatch]) -> None:
    """Writes batches as they come, in place of whatever tokens the folder holds.

    Raises ValueError naming the folder where it can't be written to, the disk is full, or no picture can be read.
    """
    start = time.perf_counter()
    partial = folder / "tokens.partial"
    with _told_of_the_disk(folder, partial):
        folder.mkdir(parents=True, exist_ok=True)
        for old in (HEADER_FILE, TOKENS_FILE, partial.name):
            (folder / old).unlink(missing_ok=True)
        with partial.open("wb") as file:
            rows, skipped = _fill(file, len(source.image_ids), batches, shutil.disk_usage(folder).free)
        header = TokenHeader(
            source=source,
            room=len(source.image_ids),
            skipped=tuple((row, str(picture.path), picture.reason) for row, picture in skipped),
            seconds=time.perf_counter() - start,
            rows_a_block=rows.rows_a_block,
            checksums=tuple(tuple(sums.values) for sums in rows.sums),
        )
        os.replace(partial, folder / TOKENS_FILE)
        _write_header(folder, header)


def _fill(
    file: BinaryIO, room: int, batches: Iterable[EncodedBatch], free: int
) -> tuple["_Rows", list[tuple[int, SkippedImage]]]:
    rows: _Rows | None = None
    skipped: list[tuple[int, SkippedImage]] = []
    for batch in batches:
        skipped += batch.skipped
        if batch.rows:
            tokens = batch.tokens.numpy()
            rows = rows or _Rows(file, room, tokens, free)
            rows.add(tokens)
    if rows is None:
        reason = f"; the first: {skipped[0][1].reason}" if skipped else ""
        raise ValueError(f"none of {room} pictures can be read{reason}")
    rows.finish()
    return rows, skipped


def _write_header(folder: Path, header: TokenHeader) -> None:
    content = {**vars(header), "source": vars(header.source)}
    told = {"format_version": FORMAT_VERSION, "checksum": header_checksum(content), **content}
    partial = folder / "header.partial"
    with partial.open("w") as file:
        json.dump(told, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / HEADER_FILE)


@contextmanager
def _told_of_the_disk(folder: Path, partial: Path) -> Iterator[None]:
    """A full disk is given back what was written so far."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise ValueError(f"{folder}: cannot write the cache of tokens there: {error}") from None


@dataclass
class _Checksums:
    """CRC-32 of every so many rows of a stream of rows."""

    rows_a_block: int
    values: list[int] = field(default_factory=list)
    _count: int = 0

    def add(self, rows: Halves) -> None:
        while len(rows):
            begun = self._count % self.rows_a_block
            if not begun:
                self.values.append(0)
            taken = rows[: self.rows_a_block - begun]
            self.values[-1] = zlib.crc32(taken.data, self.values[-1])
            self._count += len(taken)
            rows = rows[len(taken) :]


class _Rows:
    """tokens.npy while it is written. Not through a mapping: on a full disk, that would kill the process."""

    def __init__(self, file: BinaryIO, room: int, first: Halves, free: int) -> None:
        """room: rows of a view; first: tokens [views, B, T, W], for the shape; free: bytes that may be written.

        Raises OSError at once where they are too few, rather than after hours.
        """
        views, _, *row_shape = first.shape
        self._row_bytes = first.itemsize * int(np.prod(row_shape))
        self._file, self._room, self._count = file, room, 0
        needed = views * room * self._row_bytes
        if needed > free:
            raise OSError(f"{needed / 1e9:.3g} GB are needed and {free / 1e9:.3g} GB are free")
        layout = {"descr": "<f2", "fortran_order": False, "shape": (views, room, *row_shape)}
        np.lib.format.write_array_header_1_0(file, layout)
        self._offset = file.tell()
        self._end = self._offset + needed
        self.rows_a_block = max(1, _BLOCK_BYTES // self._row_bytes)
        self.sums = [_Checksums(self.rows_a_block) for _ in range(views)]

    def add(self, tokens: Halves) -> None:
        """tokens: [views, B, T, W]."""
        for view, rows in enumerate(np.ascontiguousarray(tokens)):
            self._file.seek(self._offset + (view * self._room + self._count) * self._row_bytes)
            self._file.write(rows.data)
            self.sums[view].add(rows)
        self._count += tokens.shape[1]

    def finish(self) -> None:
        """On the disk, not on its way there: the header must not outlive the tokens in a power cut."""
        self._file.truncate(self._end)
        self._file.flush()
        os.fsync(self._file.fileno())
