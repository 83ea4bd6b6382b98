"""A cache of text vectors on disk, one safetensors file per backbone: each text is encoded once."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from forclip.atomic_write import write_atomically
from forclip.distributed import broadcast, is_first, world_size
from forclip.models.backbone import Backbone

FORMAT_VERSION = 1


def cache_texts(backbone: Backbone, folder: Path) -> Backbone:
    """Return the backbone with an `encode_text` that looks texts up in a folder before it encodes them.

    Meant for the names of a dataset: each new text rewrites the backbone's file. If two processes write at the same
    time, the last file stays, and texts that only the other one encoded are encoded again later. The new `encode_text`
    raises ValueError as the backbone's does, and if the folder cannot be written to.
    """
    return cast(Backbone, _CachedTexts(backbone, folder))


class _CachedTexts:
    def __init__(self, backbone: Backbone, folder: Path) -> None:
        self._backbone, self._folder = backbone, folder
        self._vectors: dict[str, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        """Everything but `encode_text` is the backbone's."""
        if name.startswith("_"):  # not yet set, as while the object is copied
            raise AttributeError(name)
        return getattr(self._backbone, name)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        if not texts:
            return torch.empty(0, self._backbone.new_pool().dim, device=self._backbone.device)
        if any(text not in self._vectors for text in texts):
            fingerprint = self._backbone.fingerprint
            file = self._folder / f"{hashlib.sha256(fingerprint.encode()).hexdigest()[:32]}.safetensors"
            self._vectors = read_texts(file, fingerprint) | self._vectors  # another process may have written more
            missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
            if missing:
                with torch.no_grad():
                    vectors = self._backbone.encode_text(missing).float().cpu()
                self._vectors |= dict(zip(missing, vectors, strict=True))
                write_texts(file, fingerprint, self._vectors)
        return torch.stack([self._vectors[text] for text in texts]).to(self._backbone.device)


def encode_texts_once(backbone: Backbone) -> Backbone:
    """Return the backbone with an `encode_text` that the first worker computes for all, and that is *collective*."""
    return backbone if world_size() == 1 else cast(Backbone, _TextsOfFirstWorker(backbone))


class _TextsOfFirstWorker:
    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone

    def __getattr__(self, name: str) -> Any:
        """Everything but `encode_text` is the backbone's."""
        if name.startswith("_"):  # not yet set, as while the object is copied
            raise AttributeError(name)
        return getattr(self._backbone, name)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            vectors = broadcast(self._backbone.encode_text(texts).cpu() if is_first() else None)
        assert vectors is not None
        return vectors.to(self._backbone.device)


def read_texts(file: Path, fingerprint: str) -> dict[str, Tensor]:
    """Read vectors [D] by text. Empty for a file that is missing, damaged, or of another version or fingerprint."""
    try:
        # Through NumPy: for tensors safetensors opens the path a second time, when another file may be there.
        with safe_open(file, "np") as opened:
            metadata, vectors = opened.metadata() or {}, torch.from_numpy(opened.get_tensor("vectors"))
    except (OSError, SafetensorError):
        return {}
    texts = metadata.get("texts", "")
    if metadata != _metadata(fingerprint, texts, vectors):
        return {}
    return dict(zip(json.loads(texts), vectors, strict=True))


def write_texts(file: Path, fingerprint: str, vectors: dict[str, Tensor]) -> None:
    """Write vectors [D] float32 by text, atomically. Raises ValueError if the folder cannot be written to."""
    stacked, texts = torch.stack(list(vectors.values())), json.dumps(list(vectors))
    metadata = _metadata(fingerprint, texts, stacked)
    try:
        write_atomically(file, lambda path: save_file({"vectors": stacked}, path, metadata))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file.parent}: cannot write the cache of text vectors: {error}") from None


def _metadata(fingerprint: str, texts: str, vectors: Tensor) -> dict[str, str]:
    digest = hashlib.sha256(texts.encode())
    digest.update(vectors.numpy().data)
    version = {"format_version": str(FORMAT_VERSION), "fingerprint": fingerprint}
    return version | {"texts": texts, "sha256": digest.hexdigest()}
