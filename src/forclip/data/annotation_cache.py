"""What was read of a large annotation file, kept as arrays, so that the next run starts in a second or two."""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from forclip.types import Annotations, Bools

FORMAT_VERSION = 1  # of the file below; a copy of another version is stale

_DIGEST_BYTES = 32
_Arrays = dict[str, NDArray[Any]]


def cached_annotations(
    file: Path,
    image_folder: Path,
    kind: str,
    load: Callable[[Path, Path], Annotations],
    cache: Path | None,
) -> Annotations:
    """What `load` reads of the annotation file, from the copy in the folder `cache` where there is one and it is true.

    kind: the name of what `load` does; cache: None keeps no copy. A copy is true while format, paths, sizes and times
    of change are what they were. A damaged or stale one is replaced, and where none can be written, a warning says so:
    only `load` raises errors, those of its own.
    """
    if cache is None or not os.path.exists(file):
        return load(file, image_folder)
    # Before the stamp: a cache that is made in the image folder changes that folder's time.
    with contextlib.suppress(OSError):  # the writing will say
        cache.mkdir(parents=True, exist_ok=True)
    # The stamp is taken before the reading, so that a file that changes meanwhile makes the copy stale, not wrong.
    stamp = _stamp(file, image_folder, kind)
    if stamp is None:
        return load(file, image_folder)
    copy = cache / f"{kind}-{file.stem[:60]}-{_place(file, image_folder, kind)}.annotations"
    found = _read(copy, stamp)
    if found is None:
        found = load(file, image_folder)
        try:
            _write(copy, stamp, found)
        except OSError as error:
            warnings.warn(f"{copy}: the copy of {file} can't be kept: {error.strerror}", stacklevel=2)
    return found


def _place(file: Path, image_folder: Path, kind: str) -> str:
    """Short, and different for all that makes different annotations. The folder as given, because the paths have it."""
    named = [kind, *map(str, (file.absolute(), image_folder, image_folder.absolute()))]
    return hashlib.blake2b(_as_json(named), digest_size=8).hexdigest()


def _stamp(file: Path, image_folder: Path, kind: str) -> bytes | None:
    """What has to be unchanged for a copy to be true; None where there is no annotation file."""
    try:
        status = file.stat()
    except OSError:
        return None
    try:
        folder_changed = image_folder.stat().st_mtime_ns
    except OSError:  # Annotations can be read before the pictures are there.
        folder_changed = -1
    place = _place(file, image_folder, kind)
    return _as_json([FORMAT_VERSION, kind, place, status.st_size, status.st_mtime_ns, folder_changed])


def _read(copy: Path, stamp: bytes) -> Annotations | None:
    """None where there is no copy, or one of other files, of another time, or with a byte that is not as written."""
    try:
        content = copy.read_bytes()
    except OSError:
        return None
    digest, payload = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
    # One comparison covers it all; what passes is what `_write` wrote, so nothing below needs to doubt it.
    return _unpacked(safetensors.load(bytes(payload))) if digest == _digest(stamp, payload) else None


def _write(copy: Path, stamp: bytes, annotations: Annotations) -> None:
    payload = safetensors.save(_packed(annotations))
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(f"{copy.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(_digest(stamp, payload))
            file.write(payload)
        os.replace(partial, copy)
    finally:
        partial.unlink(missing_ok=True)


def _digest(stamp: bytes, payload: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(stamp, digest_size=_DIGEST_BYTES)
    digest.update(payload)
    return digest.digest()


def _packed(found: Annotations) -> _Arrays:
    """Eight labels a byte; rows and columns, which are small, in 32 bits; all texts as one JSON."""
    texts = {
        "image_ids": found.image_ids,
        "paths": [str(path) for path in found.paths],
        "class_names": found.class_names,
        "synonyms": found.synonyms,
        "frequencies": found.frequencies,
    }
    arrays: _Arrays = {
        "texts": np.frombuffer(_as_json(texts), np.uint8),
        "labels": np.packbits(found.labels),
        "boxes": found.boxes,
        "box_images": found.box_images.astype(np.int32),
        "box_classes": found.box_classes.astype(np.int32),
    }
    if found.verified is not None:
        arrays["verified"] = np.packbits(found.verified)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _unpacked(arrays: _Arrays) -> Annotations:
    texts = json.loads(arrays["texts"].tobytes())
    shape = (len(texts["image_ids"]), len(texts["class_names"]))
    return Annotations(
        image_ids=tuple(texts["image_ids"]),
        paths=tuple(map(Path, texts["paths"])),
        class_names=tuple(texts["class_names"]),
        labels=_bits(arrays["labels"], shape),
        boxes=arrays["boxes"].copy(),  # the bytes that were read can't be written to
        box_images=arrays["box_images"].astype(np.int64),
        box_classes=arrays["box_classes"].astype(np.int64),
        verified=_bits(arrays["verified"], shape) if "verified" in arrays else None,
        synonyms=tuple(map(tuple, texts["synonyms"])),
        frequencies=tuple(texts["frequencies"]),
    )


def _bits(packed: NDArray[Any], shape: tuple[int, int]) -> Bools:
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).view(np.bool_)


def _as_json(value: object) -> bytes:
    # Escaped, so that a name that is not UTF-8 (half a surrogate pair for each such byte) comes back as it was.
    return json.dumps(value, ensure_ascii=True).encode("ascii")
