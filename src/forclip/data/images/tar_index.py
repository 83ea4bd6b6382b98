"""The members of a tar: where each is, and the texts next to pictures. Large indexes are kept on this machine."""

import contextlib
import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from forclip.atomic_write import write_atomically
from forclip.data.images.compression import compression_of
from forclip.data.images.picture_types import is_picture_name
from forclip.data.images.tar_shard import Damaged, Member, read_members
from forclip.location import is_url
from forclip.types import Ints

TEXT_SUFFIXES = (".json", ".txt", ".cls")  # what webdataset puts next to pictures
_VERSION = b"2"
_LEAST_KEPT = 1000  # members of an index on disk
_MOST_KEPT = 4 << 30  # bytes of all indexes on disk
_CHECKED_SHARE = 1 / 64


@dataclass(frozen=True)
class TarIndex:
    """What is in a tar.

    names, starts, lengths: of the pictures, in order, each name once; texts: contents of the other members with an
    ending of TEXT_SUFFIXES, by name; repeated: names that occur again; others: how many other members each ending has;
    links: the pictures that are links, and the picture that each leads to; dead_links: those that lead to none;
    problem: why the rest can't be read, or None.
    """

    names: list[str]
    starts: Ints
    lengths: Ints
    texts: dict[str, bytes] = field(default_factory=dict)
    repeated: tuple[str, ...] = ()
    others: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    dead_links: tuple[str, ...] = ()
    problem: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def member(self, name: str) -> Member | None:
        """The picture of this name."""
        if not self._positions:
            self._positions.update((name, position) for position, name in enumerate(self.names))
        position = self._positions.get(name)
        if position is None:
            return None
        return Member(name, int(self.starts[position]), int(self.lengths[position]))

    _positions: dict[str, int] = field(default_factory=dict, repr=False, compare=False)


def read_tar_index(container: str, size: int, modified: int, open_container: Callable[[str], IO[bytes]]) -> TarIndex:
    """Read the members of a tar in this state, from the copy on this machine if there is one.

    Of a tar at a URL, large members are passed over and small ones read with the rest. Raises FileNotFoundError and
    Unreachable. What is damaged is named in the index.
    """
    copy = _copy_of(container, size, modified)
    if copy is not None and (index := _read_copy(copy)) is not None:
        return index
    with open_container(container) as file:
        index = _read_index(file)
    if copy is not None and len(index) >= _LEAST_KEPT and size >= 0:
        _write_copy(copy, index)
    return index


def _read_index(file: IO[bytes]) -> TarIndex:
    names: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    texts: dict[str, bytes] = {}
    repeated: list[str] = []
    others: Counter[str] = Counter()
    problem = None
    try:
        compression = compression_of(file)
        for member in read_members(file, compression, lambda name: name.lower().endswith(TEXT_SUFFIXES)):
            base = member.name.rpartition("/")[2]
            if base.startswith("."):  # such as macOS' ._ files
                others["hidden"] += 1
            elif is_picture_name(base):
                if member.name in names or member.name in links:
                    repeated.append(member.name)
                elif member.target is not None:
                    links[member.name] = member.target
                else:
                    names[member.name] = member.start, member.length
            elif member.content is not None:
                texts[member.name] = member.content
            elif member.target is None:
                others[os.path.splitext(base)[1].lower()] += 1
    except Damaged as error:
        problem = str(error)
    found = {link: end for link in links if (end := _end_of(link, links)) in names}
    dead = tuple(link for link in links if link not in found)
    if found:  # each stands behind the picture that it leads to, so that a compressed tar is read once
        position = {name: k for k, name in enumerate(names)}
        names |= {link: names[end] for link, end in found.items()}
        names = dict(sorted(names.items(), key=lambda item: position[found.get(item[0], item[0])]))
    places = np.array(list(names.values()), np.int64).reshape(-1, 2)
    starts, lengths = places[:, 0], places[:, 1]
    return TarIndex(list(names), starts, lengths, texts, tuple(repeated), dict(others), found, dead, problem)


def _end_of(link: str, links: dict[str, str]) -> str:
    """Follow links to links; a circle ends at one of them."""
    target = links[link]
    for _ in range(len(links)):
        if target not in links:
            break
        target = links[target]
    return target


def cache_folder() -> Path:
    """The folder in which this machine keeps the indexes of tars: FORCLIP_CACHE, or forclip in the user's cache."""
    given = os.environ.get("FORCLIP_CACHE")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "forclip")
    return base / "tar_indexes"


def _copy_of(container: str, size: int, modified: int) -> Path | None:
    if not is_url(container):
        container = os.path.abspath(container)
    key = json.dumps([container, size, modified, _VERSION.decode()]).encode()
    with contextlib.suppress(RuntimeError):  # there is no home
        return cache_folder() / f"{hashlib.blake2b(key, digest_size=16).hexdigest()}.arrow"
    return None


def _read_copy(copy: Path) -> TarIndex | None:
    try:
        with pa.memory_map(str(copy)) as file:
            table = pa.ipc.open_file(file).read_all()
            notes = json.loads(table.schema.metadata[b"notes"])
        names = [name.decode("utf-8", "surrogateescape") for name in table["name"].to_pylist()]
        texts = {name: text for name, text in zip(names, table["text"].to_pylist(), strict=True) if text is not None}
        pictures = len(names) - len(texts)
        starts, lengths = (table[name].to_numpy()[:pictures].copy() for name in ("start", "length"))
        os.utime(copy)  # it was used
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    repeated, dead = tuple(notes["repeated"]), tuple(notes["dead_links"])
    return TarIndex(
        names[:pictures], starts, lengths, texts, repeated, notes["others"], notes["links"], dead, notes["problem"]
    )


def _write_copy(copy: Path, index: TarIndex) -> None:
    names = [name.encode("utf-8", "surrogateescape") for name in (*index.names, *index.texts)]
    count, empty = len(index), np.zeros(len(index.texts), np.int64)
    table = pa.table(
        {
            "name": pa.array(names, pa.large_binary()),
            "start": np.concatenate([index.starts, empty]),
            "length": np.concatenate([index.lengths, empty]),
            "text": pa.array([None] * count + list(index.texts.values()), pa.large_binary()),
        }
    )
    fields = ("repeated", "others", "links", "dead_links", "problem")
    notes = json.dumps({name: getattr(index, name) for name in fields})
    table = table.replace_schema_metadata({"notes": notes})

    def write(to: Path) -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(str(to), table.schema, options=options) as writer:
            writer.write_table(table)

    with contextlib.suppress(OSError):  # a full or read-only disk: the tar is read again
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(copy, write)
        if random.random() < _CHECKED_SHARE:  # each check lists the folder
            _remove_old(copy.parent)


def _remove_old(folder: Path) -> None:
    """Remove the indexes that were not used for longest, until all take less than _MOST_KEPT bytes."""
    files = [(status.st_mtime, status.st_size, path) for path in folder.glob("*.arrow") if (status := path.stat())]
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= _MOST_KEPT:
            return
        path.unlink(missing_ok=True)
        total -= size
