"""Write the files of a segment block by block, so that no more than a block of vectors is in memory."""

import struct
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from forclip.index.places import NOWHERE, Addresses
from forclip.index.schema import StoreHeader
from forclip.index.segment import (
    ID_LOOKUP,
    IMAGES_SCHEMA,
    KEY_LOOKUP,
    VECTORS_FILE,
    Lookup,
    empty_flat,
    hash_ids,
    to_faiss,
)
from forclip.index.table import StoredVectors

KEYS_FILE, OFFSETS_FILE, BOXES_FILE, IMAGES_FILE = "numbers.npy", "offsets.npy", "boxes.npy", "images.arrow"
_HASHES_FILE, _ADDRESSES_FILE = "hashes.tmp", "addresses.tmp"
_CHUNK_IMAGES = 65_536
_NPY_HEADER = 128  # bytes
_COUNT_AT = 8  # where FAISS writes the number of vectors, after the type and the dimensions


class _ArrayFile:
    """A file in NumPy's format, version 1.0, that is written block by block."""

    def __init__(self, file: Path, dtype: str, *shape: int) -> None:
        """dtype: NumPy's name of the type; shape: of an entry."""
        self._dtype, self._shape, self._count = dtype, shape, 0
        self._file = file.open("wb")
        self._file.write(bytes(_NPY_HEADER))

    def __enter__(self) -> "_ArrayFile":
        return self

    def write(self, block: np.ndarray) -> None:
        self._count += len(block)
        self._file.write(np.ascontiguousarray(block, self._dtype).data)

    def __exit__(self, *_: object) -> None:
        shape = self._count, *self._shape
        text = f"{{'descr': '{self._dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
        length = _NPY_HEADER - 10
        self._file.seek(0)
        self._file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + text.ljust(length - 1) + b"\n")
        self._file.close()


def write_files(folder: Path, header: StoreHeader, blocks: Iterable[StoredVectors]) -> Addresses:
    """Write at least one image, and return where the images are in the table, [images].

    Takes some 30 bytes of memory for an image besides a block, while it sorts their keys.
    """
    waiting: list[pa.Table] = []
    with ExitStack() as files:
        vectors = files.enter_context((folder / VECTORS_FILE).open("wb"))
        sink = files.enter_context(pa.OSFile(str(folder / IMAGES_FILE), "wb"))
        images = files.enter_context(pa.ipc.new_file(sink, IMAGES_SCHEMA))
        boxes = files.enter_context(_ArrayFile(folder / BOXES_FILE, "<f2", 4))
        keys = files.enter_context(_ArrayFile(folder / KEYS_FILE, "<i8"))
        offsets = files.enter_context(_ArrayFile(folder / OFFSETS_FILE, "<i8"))
        hashes = files.enter_context(_ArrayFile(folder / _HASHES_FILE, "<u4"))
        addresses = files.enter_context(_ArrayFile(folder / _ADDRESSES_FILE, "<u8"))
        # FAISS writes a quantiser's codes last: their size in bytes, then the bytes.
        start: bytes = faiss.serialize_index(empty_flat(header)).tobytes()
        vectors.write(start)
        offsets.write(np.zeros(1, np.int64))
        total = 0
        for block in blocks:
            vectors.write(to_faiss(block.codes).tobytes())
            boxes.write(block.boxes)
            keys.write(block.keys)
            offsets.write(total + block.offsets[1:])
            hashes.write(hash_ids(chain.from_iterable(chunk.to_pylist() for chunk in block.images["id"].chunks)))
            addresses.write(np.full(len(block.keys), NOWHERE) if block.addresses is None else block.addresses)
            total += len(block.codes)
            waiting.append(block.images.cast(IMAGES_SCHEMA))
            if sum(map(len, waiting)) >= _CHUNK_IMAGES:
                images.write_table(pa.concat_tables(waiting).combine_chunks())
                waiting = []
        if waiting:
            images.write_table(pa.concat_tables(waiting).combine_chunks())
        size = vectors.tell() - len(start)
        vectors.seek(_COUNT_AT)
        vectors.write(struct.pack("<q", total))
        vectors.seek(len(start) - 8)
        vectors.write(struct.pack("<Q", size))
    _check_vectors(folder / VECTORS_FILE, total, size)
    for lookup_files, values in ((KEY_LOOKUP, KEYS_FILE), (ID_LOOKUP, _HASHES_FILE)):
        lookup = Lookup.of(_map(folder / values))
        np.save(folder / lookup_files[0], lookup.ordered)
        np.save(folder / lookup_files[1], lookup.order)
    found: Addresses = _map(folder / _ADDRESSES_FILE)
    for name in (_HASHES_FILE, _ADDRESSES_FILE):
        (folder / name).unlink()  # a mapped file stays until it is let go
    return found


def _map(file: Path) -> Any:
    return np.asarray(np.load(file, mmap_mode="r"))


def _check_vectors(file: Path, total: int, size: int) -> None:
    """Raise RuntimeError if this FAISS version reads the file otherwise than it was written."""
    flat = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    if (flat.ntotal, flat.codes.size()) != (total, size):
        raise RuntimeError(f"FAISS {faiss.__version__} reads {flat.ntotal} vectors, not {total}, from {file}")
