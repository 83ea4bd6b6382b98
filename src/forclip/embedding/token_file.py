"""Backbone tokens of pictures on disk, as `token_writer` leaves them: memory-mapped, with checksums.

A folder with `tokens.npy`, float16 [views, room, T, W], and `tokens.json`, which says what the tokens are of and is
written last, so that its presence means complete. There is room for every picture; those that can be read fill it
from the front of each view, and the rest is a hole that takes no space.
"""

import json
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forclip.embedding.embed import EncodedBatch, EncodedImages
from forclip.models.backbone import Backbone
from forclip.types import SkippedImage

FORMAT_VERSION = 1
TOKENS_FILE, HEADER_FILE = "tokens.npy", "tokens.json"
_RANGES_TOLD = 5
Halves = NDArray[np.float16]


@dataclass(frozen=True)
class TokenSource:
    """What tokens are of. Equal sources have equal tokens.

    backbone: its name, for messages; files: of each picture the path, the size in bytes and the time of the last
    change in nanoseconds, both -1 where there is no file.
    """

    backbone: str
    fingerprint: str
    views: tuple[str, ...]
    image_ids: tuple[str, ...]
    files: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class TokenHeader:
    """What tokens.json says. checksums: CRC-32 of each block of rows, by view; seconds: spent encoding, in all.

    room: rows of a view in the file; skipped: row, path and reason of the pictures that could not be read.
    """

    source: TokenSource
    room: int
    skipped: tuple[tuple[int, str, str], ...]
    seconds: float
    rows_a_block: int
    checksums: tuple[tuple[int, ...], ...]

    @property
    def num_rows(self) -> int:
        """Pictures that have tokens."""
        return self.room - len(self.skipped)


def open_tokens(folder: Path, backbone: Backbone, check: bool = True) -> EncodedImages:
    """Tokens [views, images, T, W], mapped from the file: read as they are used, and never to be written to.

    check: compare every checksum first. Raises ValueError for tokens of another backbone, or damaged ones.
    """
    header = read_header(folder)
    source = header.source
    if source.fingerprint != backbone.fingerprint:
        theirs = f"{source.backbone!r} ({source.fingerprint[:12]})"
        raise ValueError(
            f"{folder}: holds tokens of the backbone {theirs}, not of {backbone.name!r} ({backbone.fingerprint[:12]})"
        )
    if check:
        verify(folder)
    skipped = tuple(SkippedImage(source.image_ids[row], Path(path), reason) for row, path, reason in header.skipped)
    left_out = [row for row, _, _ in header.skipped]
    rows = np.delete(np.arange(header.room, dtype=np.int64), left_out)
    return EncodedImages(_as_tensor(_mapped(folder, header)[:, : header.num_rows]), rows, skipped, header.seconds)


def verify(folder: Path) -> None:
    """Reads everything and compares the checksums. Raises ValueError that says which rows are damaged."""
    header = read_header(folder)
    damaged = _damaged_ranges(folder, header, _mapped(folder, header))
    if damaged:
        more = f" and {len(damaged) - _RANGES_TOLD} more" if len(damaged) > _RANGES_TOLD else ""
        raise _damage(folder, f"{'; '.join(damaged[:_RANGES_TOLD])}{more} are damaged")


def _damaged_ranges(folder: Path, header: TokenHeader, mapped: "np.memmap[Any, np.dtype[np.float16]]") -> list[str]:
    row_bytes = mapped.itemsize * mapped.shape[2] * mapped.shape[3]
    views = header.source.views
    found = []
    # Not through the mapping, whose pages would count as this process's memory.
    with (folder / TOKENS_FILE).open("rb") as file:
        for view, checksums in enumerate(header.checksums):
            file.seek(mapped.offset + view * header.room * row_bytes)
            for number, checksum in enumerate(checksums):
                start = number * header.rows_a_block
                stop = min(start + header.rows_a_block, header.num_rows)
                if zlib.crc32(file.read((stop - start) * row_bytes)) != checksum:
                    where = f"view {views[view]!r}, " if len(views) > 1 else ""
                    found.append(f"{where}rows {start}-{stop - 1}")
    return found


def read_header(folder: Path) -> TokenHeader:
    """Raises ValueError where there is none, or one that is damaged or of another format."""
    file = folder / HEADER_FILE
    try:
        content = json.loads(file.read_text())
        version = content.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"{file}: format version {version!r}; this forclip reads version {FORMAT_VERSION}")
        # A wrong digit here could pair every later picture with another one's labels.
        if content.pop("checksum") != header_checksum(content):
            raise ValueError(f"{file}: is damaged (its checksum is wrong); delete {folder} and run again")
        return _header_of(content)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder}: no complete cache of tokens there") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: is damaged ({error!r}); delete {folder} and run again") from None


def header_checksum(content: dict[str, Any]) -> int:
    """CRC-32 of the header's content, which JSON gives back as it was."""
    return zlib.crc32(json.dumps(content).encode())


def is_complete(folder: Path) -> bool:
    """Whether tokens were written to the end there. They may be damaged since."""
    return (folder / HEADER_FILE).exists()


def _header_of(content: dict[str, Any]) -> TokenHeader:
    given = content.pop("source")
    source = TokenSource(
        given["backbone"],
        given["fingerprint"],
        tuple(given["views"]),
        tuple(given["image_ids"]),
        tuple((path, size, changed) for path, size, changed in given["files"]),
    )
    skipped = tuple((row, path, reason) for row, path, reason in content.pop("skipped"))
    checksums = tuple(map(tuple, content.pop("checksums")))
    return TokenHeader(source=source, skipped=skipped, checksums=checksums, **content)


def _mapped(folder: Path, header: TokenHeader) -> "np.memmap[Any, np.dtype[np.float16]]":
    """Read-only: Linux refuses to map a file larger than memory for copy-on-write."""
    try:
        mapped = np.lib.format.open_memmap(folder / TOKENS_FILE, mode="r")
    except (OSError, ValueError) as error:  # NumPy's words for a file that is missing, cut short or not its own
        raise _damage(folder, f"is missing, cut short or damaged ({error})") from None
    expected = mapped.offset + mapped.nbytes
    size = (folder / TOKENS_FILE).stat().st_size
    told = (mapped.dtype, mapped.ndim, *mapped.shape[:2])
    if size != expected or told != (np.float16, 4, len(header.source.views), header.room):
        raise _damage(folder, f"{size} bytes, {mapped.dtype} {mapped.shape}, are not what was written")
    return mapped


def _as_tensor(mapped: Halves) -> Tensor:
    with warnings.catch_warnings():
        # PyTorch has no read-only tensors and says so each time.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(mapped)


def _damage(folder: Path, what: str) -> ValueError:
    return ValueError(f"{folder / TOKENS_FILE}: {what}; delete {folder} and run again")


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
