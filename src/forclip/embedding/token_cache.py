"""Backbone tokens on disk: written once, memory-mapped, with checksums, and replaced when images change.

Each set of images has a folder with `tokens.npy`, float16 [views, room, T, W], and `tokens.json`, which describes the
tokens and is written last, so that its presence means completeness. `room` counts all images; those that can be read
fill each view from the front, and the rest of the file is a hole that takes no space on disk.
"""

import hashlib
import json
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from forclip.atomic_write import write_text_atomically
from forclip.config import Compute, plain_message
from forclip.data.images.content import file_state
from forclip.data.images.decode import DECODING, FIRST_UPRIGHT, picture_needs_reindex
from forclip.data.images.views import View
from forclip.embedding.embed import EncodedBatch, EncodedImages, encode_batches
from forclip.location import Location, absolute
from forclip.models.backbone import Backbone
from forclip.models.compute import compute_of
from forclip.progress import Advance, silent
from forclip.types import SkippedImage

FORMAT_VERSION = 1
TOKENS_FILE, HEADER_FILE = "tokens.npy", "tokens.json"
_BLOCK_BYTES = 1 << 24  # per checksum: small enough to locate damage
_MAX_RANGES = 5  # of damaged rows, in an error message


class NoReadableImage(ValueError):
    """None of the images can be read. skipped: row and reason of each."""

    def __init__(self, message: str, skipped: Sequence[tuple[int, SkippedImage]]) -> None:
        super().__init__(message)
        self.skipped = tuple(image for _, image in skipped)


@dataclass(frozen=True)
class TokenSource:
    """What tokens were computed from. Equal sources have equal tokens.

    backbone: its name, for messages. files: path, size in bytes and time of the last change in nanoseconds of each
    image; both numbers are -1 for a missing file. compute: the number format that the tokens were computed in.
    """

    backbone: str
    fingerprint: str
    views: tuple[str, ...]
    image_ids: tuple[str, ...]
    files: tuple[tuple[str, int, int], ...]
    compute: Compute = "float32"


@dataclass(frozen=True)
class TokenHeader:
    """The content of tokens.json.

    room: rows of a view in the file; skipped: row, path and reason of each unreadable image; seconds: spent encoding;
    checksums: per view, CRC-32 of each block of `rows_a_block` rows; decoding: the version of the images' decoding.
    """

    source: TokenSource
    room: int
    skipped: tuple[tuple[int, str, str], ...]
    seconds: float
    rows_a_block: int
    checksums: tuple[tuple[int, ...], ...]
    decoding: int = 1


def cached_tokens(
    cache: Path,
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Location],
    views: Sequence[View],
    advance: Advance = silent,
    say: Callable[[str], None] = lambda message: None,
) -> EncodedImages:
    """Load the tokens of these images, views and backbone from a folder in `cache`; encode and write them if missing.

    The tokens are those of `encode_views`, mapped from a file. If any image changed, all are encoded again. say:
    receives a message about reuse, re-encoding or waiting for another run. Raises ValueError for a damaged cache, a
    folder that cannot be written to, a full disk, and if no image can be read.
    """
    # Before encoding: an image that changes meanwhile then makes the cache outdated, not silently wrong.
    source = token_source(backbone, image_ids, paths, views)
    folder = cache / folder_name(source)
    # One process at a time: the second of two runs on the same set then reuses the first one's tokens.
    lock = FileLock(folder / "lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        say(f"waiting for another run that writes to {folder}")
        held = lock.acquire()
    except OSError as error:
        raise ValueError(f"{folder}: cannot write the cache of tokens: {error}") from None
    with held:
        if (folder / HEADER_FILE).exists():
            header = read_header(folder)
            old, turned = header.source, 0
            if header.decoding < FIRST_UPRIGHT:
                turned = sum(picture_needs_reindex(Path(path)) for path, _, _ in old.files)
                if not turned:
                    _write_header(folder, replace(header, decoding=DECODING))
            changed = [now[0] for before, now in zip(old.files, source.files, strict=False) if before != now]
            if replace(old, backbone=source.backbone, files=source.files) != source:
                difference = "holds another set of images"  # two sets whose short keys collide
            elif changed:
                difference = f"{len(changed)} image(s) changed, the first {changed[0]}"
            elif turned:
                difference = f"{turned} image(s) are turned, or have more than 8 bits, and are decoded differently now"
            else:
                encoded = replace(open_tokens(folder, backbone), views=tuple(views))
                advance(len(image_ids))
                say(f"tokens of {len(image_ids)} images are reused from {folder}")
                return encoded
            say(f"{folder}: {difference}, so all images are encoded again")
        write_tokens(folder, source, encode_batches(backbone, image_ids, paths, views, advance))
        # The checksums were computed a moment ago from the written rows.
        return replace(open_tokens(folder, backbone, check=False), views=tuple(views))


def token_source(
    backbone: Backbone, image_ids: Sequence[str], paths: Sequence[Location], views: Sequence[View]
) -> TokenSource:
    """Describe a set of images, with the current state of its files."""
    names = tuple(view.name for view in views)
    files = tuple((str(absolute(path)), *file_state(path)) for path in paths)
    return TokenSource(backbone.name, backbone.fingerprint, names, tuple(image_ids), files, compute_of(backbone))


def folder_name(source: TokenSource) -> str:
    """Return the name of the folder of a source's tokens in a cache."""
    # Without sizes and times, so that a changed set replaces the old one.
    key = [FORMAT_VERSION, source.fingerprint, source.views, source.image_ids, [path for path, _, _ in source.files]]
    if source.compute != "float32":  # caches of earlier versions have no number format
        key.append(source.compute)
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def is_current(folder: Path, source: TokenSource) -> bool:
    """Whether a folder has complete tokens of the source, with its files as they are now."""
    if not (folder / HEADER_FILE).exists():
        return False
    header = read_header(folder)
    return header.decoding >= FIRST_UPRIGHT and replace(header.source, backbone=source.backbone) == source


def open_tokens(folder: Path, backbone: Backbone, check: bool = True) -> EncodedImages:
    """Map the tokens [views, images, T, W] of a folder. They are read when used, and must not be written to.

    check: verify all checksums first. Raises ValueError for tokens of another backbone, and damaged ones.
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
    with warnings.catch_warnings():
        # PyTorch has no read-only tensors and warns each time.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        tokens = torch.from_numpy(_mapped(folder, header)[:, : header.room - len(header.skipped)])
    skipped = tuple(SkippedImage(source.image_ids[row], Path(path), reason) for row, path, reason in header.skipped)
    rows = np.delete(np.arange(header.room, dtype=np.int64), [row for row, _, _ in header.skipped])
    return EncodedImages(tokens, rows, skipped, header.seconds)


def verify(folder: Path) -> None:
    """Compare all checksums with the file. Raises ValueError that names the damaged rows."""
    header = read_header(folder)
    mapped, views, damaged = _mapped(folder, header), header.source.views, []
    row_bytes = mapped.itemsize * mapped.shape[2] * mapped.shape[3]
    # Not through the mapping, whose pages would count as this process's memory.
    with (folder / TOKENS_FILE).open("rb") as file:
        for view, checksums in enumerate(header.checksums):
            file.seek(mapped.offset + view * header.room * row_bytes)
            for block, checksum in enumerate(checksums):
                start = block * header.rows_a_block
                stop = min(start + header.rows_a_block, header.room - len(header.skipped))
                if zlib.crc32(file.read((stop - start) * row_bytes)) != checksum:
                    prefix = f"view {views[view]!r}, " if len(views) > 1 else ""
                    damaged.append(f"{prefix}rows {start}-{stop - 1}")
    if damaged:
        more = f" and {len(damaged) - _MAX_RANGES} more" if len(damaged) > _MAX_RANGES else ""
        raise _damage(folder / TOKENS_FILE, f"{'; '.join(damaged[:_MAX_RANGES])}{more} are damaged")


def read_header(folder: Path) -> TokenHeader:
    """Read tokens.json. Raises ValueError if it is missing, damaged or of another format."""
    file = folder / HEADER_FILE
    try:
        content = json.loads(file.read_text())
        version, checksum = content.pop("format_version"), content.pop("checksum", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"{file}: format version {version!r}; this forclip reads version {FORMAT_VERSION}")
        # A wrong digit here could pair every later image with another one's labels.
        if checksum != zlib.crc32(json.dumps(content).encode()):
            raise _damage(file, "is damaged (its checksum is wrong)")
        return TypeAdapter(TokenHeader).validate_python(content)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder}: no complete cache of tokens there") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise _damage(file, f"is damaged ({error!r})") from None
    except ValidationError as error:
        raise _damage(file, f"is damaged ({plain_message(error.errors()[0]['msg'])})") from None


def _mapped(folder: Path, header: TokenHeader) -> "np.memmap[Any, np.dtype[np.float16]]":
    """Map tokens.npy read-only: Linux refuses to map a file larger than memory for copy-on-write."""
    file = folder / TOKENS_FILE
    try:
        mapped = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError) as error:  # ValueError: a file that is cut short or no .npy file
        raise _damage(file, f"is missing, cut short or damaged ({error})") from None
    size = file.stat().st_size
    layout = (mapped.dtype, mapped.ndim, *mapped.shape[:2])
    if size != mapped.offset + mapped.nbytes or layout != (np.float16, 4, len(header.source.views), header.room):
        raise _damage(file, f"{size} bytes, {mapped.dtype} {mapped.shape}, do not fit {HEADER_FILE}")
    return mapped


def _damage(file: Path, problem: str) -> ValueError:
    return ValueError(f"{file}: {problem}; delete {file.parent} and run again")


def write_tokens(folder: Path, source: TokenSource, batches: Iterable[EncodedBatch]) -> None:
    """Write batches as they are encoded, and replace the tokens in the folder.

    Raises ValueError naming the folder if it cannot be written to or the disk is full, and if no image can be read.
    """
    start = time.perf_counter()
    partial, room = folder / "tokens.partial", len(source.image_ids)
    writer: _RowWriter | None = None
    skipped: list[tuple[int, SkippedImage]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in (HEADER_FILE, TOKENS_FILE, partial.name):
            (folder / old).unlink(missing_ok=True)
        with partial.open("wb") as file:
            for batch in batches:
                skipped += batch.skipped
                if batch.rows:
                    tokens = batch.tokens.numpy()
                    writer = writer or _RowWriter(file, room, tokens, shutil.disk_usage(folder).free)
                    writer.add(tokens)
            if writer is None:
                reason = f"; the first: {skipped[0][1].reason}" if skipped else ""
                raise NoReadableImage(f"none of {room} images can be read{reason}", skipped)
            # To the disk: after a power cut the header must not exist without the tokens.
            file.truncate(writer.end)
            file.flush()
            os.fsync(file.fileno())
        unreadable = tuple((row, str(image.path), image.reason) for row, image in skipped)
        seconds, checksums = time.perf_counter() - start, tuple(map(tuple, writer.checksums))
        os.replace(partial, folder / TOKENS_FILE)
        header = TokenHeader(source, room, unreadable, seconds, writer.rows_a_block, checksums, DECODING)
        _write_header(folder, header)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()  # gives a full disk its space back
        raise ValueError(f"{folder}: cannot write the cache of tokens: {error}") from None


def _write_header(folder: Path, header: TokenHeader) -> None:
    content = {**vars(header), "source": vars(header.source)}
    head = {"format_version": FORMAT_VERSION, "checksum": zlib.crc32(json.dumps(content).encode())}
    write_text_atomically(folder / HEADER_FILE, json.dumps(head | content), sync=True)


class _RowWriter:
    """Writes tokens.npy and its checksums. Not through a mapping: on a full disk that would kill the process."""

    def __init__(self, file: BinaryIO, room: int, first: NDArray[np.float16], free: int) -> None:
        """room: rows per view; first: tokens [views, B, T, W], for the shape; free: bytes available on the disk.

        Raises OSError at once if they are too few.
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
        self.end = self._offset + needed
        self.rows_a_block = max(1, _BLOCK_BYTES // self._row_bytes)
        self.checksums: list[list[int]] = [[] for _ in range(views)]

    def add(self, tokens: NDArray[np.float16]) -> None:
        """tokens: [views, B, T, W]."""
        for view, rows in enumerate(np.ascontiguousarray(tokens)):
            self._file.seek(self._offset + (view * self._room + self._count) * self._row_bytes)
            self._file.write(rows.data)
            checksums, position = self.checksums[view], self._count
            while len(rows):
                in_block = position % self.rows_a_block
                if not in_block:
                    checksums.append(0)
                part = rows[: self.rows_a_block - in_block]
                checksums[-1] = zlib.crc32(part.data, checksums[-1])
                position, rows = position + len(part), rows[len(part) :]
        self._count += tokens.shape[1]
