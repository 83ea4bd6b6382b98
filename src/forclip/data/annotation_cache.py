"""Cache large annotation files as compact arrays, so that the next run loads them in a second or two."""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from forclip.atomic_write import write_atomically
from forclip.data.images.content import file_state
from forclip.types import Annotations, Bools, SkippedEntry

FORMAT_VERSION = 2  # of the cached file; a copy of another version is stale

_DIGEST_BYTES = 32


def cached_annotations(
    file: Path, image_folder: Path, kind: str, load: Callable[[Path, Path], Annotations], cache: Path | None
) -> Annotations:
    """Load annotations from a copy in the folder `cache`, or with `load`, which then writes the copy.

    kind: the name of the format that `load` reads. cache: None keeps no copy. A copy is valid while the format, paths,
    sizes and modification times are unchanged, those of the pictures' folders among them; a damaged or stale copy is
    replaced. Where a picture's name leads to no file, no copy is kept, because the file may arrive. Raises only the
    errors of `load`: a copy that can't be written causes a warning.
    """
    if cache is None or not os.path.exists(file):
        return load(file, image_folder)
    # Before the stamp, because creating the cache in the image folder changes that folder's time.
    with contextlib.suppress(OSError):  # writing the copy will warn
        cache.mkdir(parents=True, exist_ok=True)
    # The folder as given is part of the key, because the paths are.
    parts = [kind, *map(str, (file.absolute(), image_folder, image_folder.absolute()))]
    key = hashlib.blake2b(_to_json(parts), digest_size=8).hexdigest()
    # The stamp is taken before loading, so that a file that changes meanwhile makes the copy stale, not wrong.
    # The folder may be missing: annotations can be loaded before the images arrive.
    stamp = _to_json([FORMAT_VERSION, kind, key, *file_state(file), file_state(image_folder)[1]])
    copy = cache / f"{kind}-{file.stem[:60]}-{key}.annotations"
    with contextlib.suppress(OSError):  # there is no copy
        content = copy.read_bytes()
        digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if digest == _digest(stamp, payload):
            arrays = safetensors.load(payload)
            texts = json.loads(arrays["texts"].tobytes())
            if texts["folders"] == _folder_states(texts["paths"]):
                return _unpack(texts, arrays)
    annotations = load(file, image_folder)
    if any(entry.reason.startswith(("the file", "another file")) for entry in annotations.skipped):
        return annotations
    # Eight labels per byte, indices in 32 bits, all texts as one JSON.
    fields = ("image_ids", "class_names", "synonyms", "frequencies")
    texts = {name: getattr(annotations, name) for name in fields} | {"paths": [*map(str, annotations.paths)]}
    texts["skipped"] = [astuple(entry) for entry in annotations.skipped]
    texts["folders"] = _folder_states(texts["paths"])
    arrays = {
        "texts": np.frombuffer(_to_json(texts), np.uint8),
        "labels": np.packbits(annotations.labels),
        "boxes": annotations.boxes,
        "box_images": annotations.box_images.astype(np.int32),
        "box_classes": annotations.box_classes.astype(np.int32),
    }
    if annotations.box_sizes is not None:
        arrays["box_sizes"] = annotations.box_sizes.astype(np.int32)
    if annotations.verified is not None:
        arrays["verified"] = np.packbits(annotations.verified)
    payload = safetensors.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    try:
        write_atomically(copy, lambda temporary: temporary.write_bytes(_digest(stamp, payload) + payload))
    except OSError as error:
        warnings.warn(f"{copy}: the copy of {file} can't be kept: {error.strerror}", stacklevel=2)
    return annotations


def _digest(stamp: bytes, payload: bytes) -> bytes:
    """Of the stamp and every byte, so that a stale and a damaged copy are noticed."""
    return hashlib.blake2b(stamp + payload, digest_size=_DIGEST_BYTES).digest()


def _folder_states(paths: Sequence[str]) -> dict[str, int]:
    """When each folder of the pictures was changed last, because names may be resolved by what is in them."""
    folders = sorted({os.path.dirname(path) for path in paths})
    return {folder: file_state(Path(folder))[1] for folder in folders}


def _unpack(texts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Annotations:
    shape = (len(texts["image_ids"]), len(texts["class_names"]))

    def unpack_bits(packed: NDArray[Any]) -> Bools:
        return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).view(np.bool_)

    return Annotations(
        image_ids=tuple(texts["image_ids"]),
        paths=tuple(map(Path, texts["paths"])),
        class_names=tuple(texts["class_names"]),
        labels=unpack_bits(arrays["labels"]),
        boxes=arrays["boxes"].copy(),  # the array that was read is read-only
        box_images=arrays["box_images"].astype(np.int64),
        box_classes=arrays["box_classes"].astype(np.int64),
        box_sizes=arrays["box_sizes"].astype(np.int64) if "box_sizes" in arrays else None,
        verified=unpack_bits(arrays["verified"]) if "verified" in arrays else None,
        synonyms=tuple(map(tuple, texts["synonyms"])),
        frequencies=tuple(texts["frequencies"]),
        skipped=tuple(SkippedEntry(*entry) for entry in texts["skipped"]),
    )


def _to_json(value: object) -> bytes:
    # Escaped, so that a name that is not UTF-8 (half a surrogate pair for each such byte) survives.
    return json.dumps(value, ensure_ascii=True).encode("ascii")
