"""What a worker is told and what it returns: values that can be sent to another process or machine."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forclip.config import Compute, ModelConfig
from forclip.data.images.tiles import Tiles
from forclip.embedding.changes import UnreadableImage
from forclip.embedding.slices import EmbeddedSlice, Embedder, Slice, embed_slices
from forclip.index.schema import Precision, StoreHeader
from forclip.index.store import ImageFile
from forclip.models.retrieval_model import load_model, load_store_model
from forclip.one_line import one_line
from forclip.progress import Advance, silent
from forclip.types import ImageEmbeddings, Ints


@dataclass(frozen=True)
class EmbedderSpec:
    """How a worker loads the model that a job embeds with.

    model, head, num_query_tokens: as `index_images` takes them; tiles: of the model; merge, max_vectors, precision: of
    the store; compute, compiled: of the loaded model; batch_size: images at once, None to choose; fingerprint: that the
    loaded model must have; header, model_folder: of the store, None if it is not
    created yet.
    """

    model: ModelConfig | None
    head: str | None
    num_query_tokens: int | None
    tiles: Tiles | None
    merge: float | None
    max_vectors: int | None
    compute: Compute
    compiled: bool
    batch_size: int | None
    precision: Precision
    fingerprint: str
    header: StoreHeader | None
    model_folder: Path | None

    def load(self, device: str) -> Embedder:
        """Load the model on a device. Raises ValueError if its weights are missing here, or are others."""
        head, count = self.head, self.num_query_tokens
        if self.header is None or self.model_folder is None:
            config = replace(self.model or ModelConfig(), tiles="none", compute=self.compute, compile=self.compiled)
            model = load_model(config, device, head, count)
        else:
            model = load_store_model(
                self.model_folder,
                self.header,
                device,
                self.model,
                head,
                count,
                compute=self.compute,
                compiled=self.compiled,
            )
        model = model.with_tiles(self.tiles)
        if model.fingerprint != self.fingerprint:
            raise ValueError(f"{model.name}: has other weights here than where the job was started")
        return Embedder(model, self.merge, self.max_vectors, self.batch_size)


@dataclass(frozen=True)
class PackedSlice:
    """An embedded slice as it is sent: half precision, where the store has no other.

    vectors: [total, dim]; boxes: [total, 4]; offsets: [images + 1]; None and empty without a readable image.
    """

    ids: tuple[str, ...]
    vectors: NDArray[np.floating] | None
    boxes: NDArray[np.float16] | None
    offsets: Ints | None
    files: list[ImageFile]
    unreadable: dict[str, UnreadableImage]

    @staticmethod
    def of(embedded: EmbeddedSlice, precision: Precision) -> "PackedSlice":
        embeddings, files, unreadable = embedded.embeddings, embedded.files, embedded.unreadable
        if embeddings is None:
            return PackedSlice((), None, None, None, files, unreadable)
        vectors = embeddings.vectors.astype(np.float16) if precision == "fp16" else embeddings.vectors
        boxes = None if embeddings.boxes is None else embeddings.boxes.astype(np.float16)
        return PackedSlice(embeddings.image_ids, vectors, boxes, embeddings.offsets, files, unreadable)

    def unpack(self) -> EmbeddedSlice:
        if self.vectors is None or self.offsets is None:
            return EmbeddedSlice(None, self.files, self.unreadable)
        boxes = None if self.boxes is None else self.boxes.astype(np.float32)
        embeddings = ImageEmbeddings(self.vectors.astype(np.float32), self.offsets, self.ids, boxes)
        return EmbeddedSlice(embeddings, self.files, self.unreadable)


def embed_slice(
    embedder: Embedder, images: Slice, precision: Precision, advance: Advance = silent, processes: int = 0
) -> PackedSlice:
    """Embed one slice. processes: that decode, 0 for threads."""
    (embedded,) = embed_slices(embedder, images, len(images), advance, processes)
    return PackedSlice.of(embedded, precision)


def describe_error(error: Exception) -> str:
    """One line for an error of a worker."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return kind + one_line(error)[:500]
