"""Backbone tokens of pictures on disk, as `token_writer` leaves them: memory-mapped, with checksums.

A folder with `tokens.npy`, float16 [views, room, T, W], and `tokens.json`, which says what the tokens are of and is
written last, so that its presence means complete. There is room for every picture; those that can be read fill it
from the front of each view, and the rest is a hole that takes no space.
"""

import json
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forclip.embedding import EncodedImages
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
