"""Text vectors on disk, a file for each model: a text is encoded once."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from forclip.models.backbone import Backbone
from forclip.models.pools import Pool

FORMAT_VERSION = 1


class CachedTexts:
    """A backbone that looks its texts up before it encodes them, and is the backbone it was given in all else.

    Meant for the names of a dataset: each new text rewrites the model's file. Of two processes that write at a time the
    last one's file stays, whole; what the other encoded is then encoded again when it is asked for.
    """

    def __init__(self, backbone: Backbone, folder: Path) -> None:
        """folder: is made where needed. Texts of one fingerprint are never read under another."""
        self.name = backbone.name
        self._backbone, self._folder = backbone, folder
        self._known: dict[str, Tensor] = {}

    @property
    def fingerprint(self) -> str:
        return self._backbone.fingerprint

    @property
    def device(self) -> torch.device:
        return self._backbone.device

    def preprocess(self, image: Image.Image) -> Tensor:
        return self._backbone.preprocess(image)

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        return self._backbone.frame(width, height)

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        return self._backbone.encode_tokens(pixels)

    def new_pool(self) -> Pool:
        return self._backbone.new_pool()

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """As the backbone's. Raises ValueError as it does, and where the folder can't be written to."""
        if not texts:
            return torch.empty(0, self.new_pool().dim, device=self.device)
        if any(text not in self._known for text in texts):
            self._learn(texts)
        return torch.stack([self._known[text] for text in texts]).to(self.device)

    def _learn(self, texts: Sequence[str]) -> None:
        """From the file as it is now, which another process may have written to since; then from the backbone."""
        file = self._folder / f"{hashlib.sha256(self.fingerprint.encode()).hexdigest()[:32]}.safetensors"
        self._known = read_texts(file, self.fingerprint) | self._known
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            with torch.no_grad():
                vectors = self._backbone.encode_text(missing).float().cpu()
            self._known |= dict(zip(missing, vectors, strict=True))
            write_texts(file, self.fingerprint, self._known)


def read_texts(file: Path, fingerprint: str) -> dict[str, Tensor]:
    """Vectors [D] by text; none where the file is not there, damaged, or of another version or fingerprint."""
    try:
        # Through NumPy: for torch's tensors the path is opened a second time, when another file may have taken it.
        with safe_open(file, "np") as opened:
            told, vectors = opened.metadata() or {}, torch.from_numpy(opened.get_tensor("vectors"))
    except (OSError, SafetensorError):
        return {}
    if told.get("format_version") != str(FORMAT_VERSION) or told.get("fingerprint") != fingerprint:
        return {}
    # The checksum before the JSON: what was written whole needs no further doubts.
    if told.get("sha256") != _checksum(told.get("texts", ""), vectors):
        return {}
    return dict(zip(json.loads(told["texts"]), vectors, strict=True))


def write_texts(file: Path, fingerprint: str, known: dict[str, Tensor]) -> None:
    """Writes beside the file, then renames. known: vectors [D] float32 by text. Raises ValueError where it can't."""
    vectors, texts = torch.stack(list(known.values())), json.dumps(list(known))
    told = {"format_version": str(FORMAT_VERSION), "fingerprint": fingerprint, "texts": texts}
    temporary = file.with_name(f".{file.name}.{uuid4().hex}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file({"vectors": vectors}, temporary, told | {"sha256": _checksum(texts, vectors)})
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file.parent}: cannot write the cache of text vectors there: {error}") from None


def _checksum(texts: str, vectors: Tensor) -> str:
    digest = hashlib.sha256(texts.encode())
    digest.update(vectors.numpy().data)
    return digest.hexdigest()
