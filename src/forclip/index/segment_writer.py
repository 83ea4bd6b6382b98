"""Write the files of a segment block by block, so that no more than a block of vectors is in memory."""

import struct
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

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
_CHUNK_IMAGES = 65_536
_NPY_HEADER = 128  # bytes
_COUNT_AT = 8  # where FAISS writes the number of vectors, after the type and the dimensions


def write_files(folder: Path, header: StoreHeader, blocks: Iterable[StoredVectors]) -> Addresses:
    """Write at least one image, and return where the images are in the table, [images]."""
    keys, counts, hashes, addresses = [], [np.zeros(1, np.int64)], [], []
    waiting: list[pa.Table] = []
    with (
        (folder / VECTORS_FILE).open("wb") as vectors,
        (folder / BOXES_FILE).open("wb") as boxes,
        pa.OSFile(str(folder / IMAGES_FILE), "wb") as file,
        pa.ipc.new_file(file, IMAGES_SCHEMA) as images,
    ):
        # FAISS writes a quantiser's codes last: their size in bytes, then the bytes.
        start: bytes = faiss.serialize_index(empty_flat(header)).tobytes()
        vectors.write(start)
        boxes.write(bytes(_NPY_HEADER))
        total = 0
        for block in blocks:
            vectors.write(to_faiss(block.codes).tobytes())
            boxes.write(np.ascontiguousarray(block.boxes, np.float16).tobytes())
            keys.append(block.keys)
            counts.append(np.diff(block.offsets))
            hashes.append(hash_ids(chain.from_iterable(chunk.to_pylist() for chunk in block.images["id"].chunks)))
            nowhere = np.full(len(block.keys), NOWHERE)
            addresses.append(nowhere if block.addresses is None else block.addresses)
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
        boxes.seek(0)
        boxes.write(_npy_header((total, 4)))
    _check_vectors(folder / VECTORS_FILE, total, size)
    numbers = np.concatenate(keys)
    np.save(folder / KEYS_FILE, numbers)
    np.save(folder / OFFSETS_FILE, np.cumsum(np.concatenate(counts)))
    for files, lookup in ((KEY_LOOKUP, Lookup.of(numbers)), (ID_LOOKUP, Lookup.of(np.concatenate(hashes)))):
        np.save(folder / files[0], lookup.ordered)
        np.save(folder / files[1], lookup.order)
    return np.concatenate(addresses)


def _npy_header(shape: tuple[int, int]) -> bytes:
    """Return the start of NumPy's file format, version 1.0, of half-precision numbers, padded to a fixed length."""
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = _NPY_HEADER - 10
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + text.ljust(length - 1) + b"\n"


def _check_vectors(file: Path, total: int, size: int) -> None:
    """Raise RuntimeError if this FAISS version reads the file otherwise than it was written."""
    flat = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    if (flat.ntotal, flat.codes.size()) != (total, size):
        raise RuntimeError(f"FAISS {faiss.__version__} reads {flat.ntotal} vectors, not {total}, from {file}")
