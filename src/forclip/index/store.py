"""A store of image embeddings on disk: append-only parts, each complete or absent.

A folder with `store.json` (format, model, dimension) and `part-NNNNNN.safetensors` files. A part is written beside
its name and moved into place, so a kill loses at most the part being written. No torch here.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from forclip.types import Floats, ImageEmbeddings, Ints

FORMAT_VERSION = 1
_HEADER_FILE = "store.json"


@dataclass(frozen=True)
class StoreHeader:
    """What every part of a store shares. fingerprint: of the model that wrote it; model: how to load that again."""

    fingerprint: str
    dim: int
    model: dict[str, Any]


@dataclass(frozen=True)
class StoredImages:
    """All of a store. uris: where each image lies, one per image."""

    embeddings: ImageEmbeddings
    uris: tuple[str, ...]


class Store:
    """Opens what `create_store` made. Raises ValueError for a folder that is no store or of another format."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header = _read_header(folder)

    def part_files(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.safetensors"))

    def add(self, embeddings: ImageEmbeddings, uris: tuple[str, ...]) -> None:
        """Adds images as one part, all or nothing. Raises ValueError for another dimension or an id already there."""
        if embeddings.dim != self.header.dim:
            raise ValueError(f"{self.folder}: holds vectors of {self.header.dim} dimensions, not {embeddings.dim}")
        present = self.image_ids()
        for image_id in embeddings.image_ids:
            if image_id in present:
                raise ValueError(f"{self.folder}: image {image_id!r} is there already")
        number = int(self.part_files()[-1].stem.split("-")[1]) + 1 if self.part_files() else 0
        target = self.folder / f"part-{number:06d}.safetensors"
        partial = target.with_suffix(".partial")
        # Boxes are optional in memory and always there on disk: a whole image is the place we know nothing about.
        boxes = (
            embeddings.boxes if embeddings.boxes is not None else np.tile([0, 0, 1, 1], (len(embeddings.vectors), 1))
        )
        arrays: dict[str, np.ndarray] = {
            "vectors": embeddings.vectors.astype(np.float16),
            "offsets": embeddings.offsets,
            "boxes": boxes.astype(np.float16),
        }
        ids = json.dumps({"image_ids": embeddings.image_ids, "uris": uris}, ensure_ascii=True)
        save_file(arrays, partial, {"images": ids})
        os.replace(partial, target)

    def image_ids(self) -> set[str]:
        """The ids of all images, without reading a vector."""
        found: set[str] = set()
        for file in self.part_files():
            with _opened(file) as part:
                found.update(json.loads(part.metadata()["images"])["image_ids"])
        return found

    def load(self) -> StoredImages:
        """Everything, in memory. Raises ValueError for an empty store or a damaged part."""
        vectors: list[Floats] = []
        boxes: list[Floats] = []
        counts: list[Ints] = []
        image_ids: list[str] = []
        uris: list[str] = []
        for file in self.part_files():
            with _opened(file) as part:
                vectors.append(part.get_tensor("vectors").astype(np.float32))
                boxes.append(part.get_tensor("boxes").astype(np.float32))
                counts.append(np.diff(part.get_tensor("offsets")))
                images = json.loads(part.metadata()["images"])
            image_ids += images["image_ids"]
            uris += images["uris"]
        if not vectors:
            raise ValueError(f"{self.folder}: the store is empty")
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
        together = np.concatenate(vectors)
        # Half precision moves a unit vector's length in the fourth digit; cosines want it back.
        together /= np.linalg.norm(together, axis=1, keepdims=True)
        return StoredImages(ImageEmbeddings(together, offsets, tuple(image_ids), np.concatenate(boxes)), tuple(uris))


def create_store(folder: Path, header: StoreHeader) -> Store:
    """A new store, or the one already there. Raises ValueError where another model wrote that one."""
    if (folder / _HEADER_FILE).exists():
        store = Store(folder)
        require_model(store, header.fingerprint)
        return store
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: exists and is no forclip store")
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format_version": FORMAT_VERSION, **vars(header)}
    partial = folder / "store.partial"
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, folder / _HEADER_FILE)
    return Store(folder)


def require_model(store: Store, fingerprint: str) -> None:
    """Raises ValueError where another model wrote the store: vectors of two models can't be compared."""
    if store.header.fingerprint != fingerprint:
        name = store.header.model.get("name")
        raise ValueError(f"{store.folder}: was written by another model ({name!r}, or other weights of that name)")


def _read_header(folder: Path) -> StoreHeader:
    file = folder / _HEADER_FILE
    try:
        content = json.loads(file.read_text())
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise ValueError(f"{file}: format version {version!r}; this forclip reads version {FORMAT_VERSION}")
        return StoreHeader(content["fingerprint"], content["dim"], content["model"])
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder}: no forclip store there") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: damaged: {error}") from None


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="np")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: damaged: {error}") from None
