"""Embed slices of a list of images. Every way to run it calls this: one process, several, and many machines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forclip.embedding.changes import UnreadableImage
from forclip.embedding.embed import EncodedBatch, concatenate_embeddings, embed_batch, encode_batches, images_per_batch
from forclip.embedding.merge import limit_vectors, merge_near_duplicates
from forclip.index.store import ImageFile
from forclip.models.retrieval_model import RetrievalModel
from forclip.progress import Advance, silent
from forclip.types import ImageEmbeddings


@dataclass(frozen=True)
class Slice:
    """Images to embed. ids, files, paths: [images], in the same order."""

    ids: Sequence[str]
    files: Sequence[ImageFile]
    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(todo: Mapping[str, ImageFile], paths: Mapping[str, Path]) -> "Slice":
        """All images of `todo`, by id. paths: of these and others."""
        return Slice(list(todo), list(todo.values()), [paths[image_id] for image_id in todo])

    def between(self, start: int, end: int) -> "Slice":
        return Slice(self.ids[start:end], self.files[start:end], self.paths[start:end])

    def halves(self) -> "tuple[Slice, Slice]":
        middle = len(self) // 2
        return self.between(0, middle), self.between(middle, len(self))

    def cut(self, size: int, first: int) -> "Iterator[Slice]":
        """Cut into slices of at most `size` images. The `first` images are some whole slices."""
        start = 0
        while start < len(self):
            end = min(start + size, first) if start < first else start + size
            yield self.between(start, end)
            start = end


@dataclass(frozen=True)
class EmbeddedSlice:
    """The images of a slice, embedded.

    embeddings: of the images that can be read, None if there is none; files: theirs, with the size in pixels;
    unreadable: the others, by id.
    """

    embeddings: ImageEmbeddings | None
    files: list[ImageFile]
    unreadable: dict[str, UnreadableImage]

    def __len__(self) -> int:
        return len(self.files) + len(self.unreadable)


@dataclass(frozen=True)
class Embedder:
    """A model and how an image's vectors are merged. merge, max_vectors: as `StoreHeader` has them."""

    model: RetrievalModel
    merge: float | None = None
    max_vectors: int | None = None

    def embed(self, batch: EncodedBatch, image_ids: Sequence[str]) -> ImageEmbeddings:
        embeddings = embed_batch(self.model, batch, image_ids)
        embeddings = embeddings if self.merge is None else merge_near_duplicates(embeddings, self.merge)
        return embeddings if self.max_vectors is None else limit_vectors(embeddings, self.max_vectors)


def whole_batches(size: int, model: RetrievalModel) -> int:
    """The least number of images from `size` on that are whole batches of a model."""
    batch = images_per_batch(len(model.views))
    return -(-size // batch) * batch


def embed_slices(
    embedder: Embedder, images: Slice, size: int, advance: Advance = silent, processes: int = 0
) -> Iterator[EmbeddedSlice]:
    """Embed images in slices of whole batches, of `size` images or a few more.

    The images of the next slice are decoded while this one ends. processes: that decode, 0 for threads.
    """
    embedded: list[ImageEmbeddings] = []
    files: list[ImageFile] = []
    unreadable: dict[str, UnreadableImage] = {}
    model = embedder.model
    for batch in encode_batches(model.backbone, images.ids, images.paths, model.views, advance, processes):
        for row, skipped in batch.skipped:
            file = images.files[row]
            unreadable[images.ids[row]] = UnreadableImage(file.uri, file.size, file.modified, skipped.reason)
        if batch.rows:
            embedded.append(embedder.embed(batch, [images.ids[row] for row in batch.rows]))
            for row, (width, height) in zip(batch.rows, batch.sizes, strict=True):
                files.append(replace(images.files[row], width=width, height=height))
        if len(files) + len(unreadable) >= size:
            yield EmbeddedSlice(concatenate_embeddings(embedded) if embedded else None, files, unreadable)
            embedded, files, unreadable = [], [], {}
    if files or unreadable:
        yield EmbeddedSlice(concatenate_embeddings(embedded) if embedded else None, files, unreadable)
