"""Embed slices of a list of images. Every way to run it calls this: one process, several, and many machines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from forclip.embedding.changes import UnreadableImage
from forclip.embedding.embed import concatenate_embeddings, embed_batches, images_per_batch
from forclip.embedding.merge import make_reduce
from forclip.index.store import ImageFile
from forclip.location import Location, in_reading_order, range_text
from forclip.models.encoder import Encoder
from forclip.models.retrieval_model import RetrievalModel
from forclip.progress import Advance, silent
from forclip.types import ImageEmbeddings


@dataclass(frozen=True)
class Slice:
    """Images to embed. ids, files, paths: [images], in the same order."""

    ids: Sequence[str]
    files: Sequence[ImageFile]
    paths: Sequence[Location]

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(todo: Mapping[str, ImageFile], paths: Mapping[str, Location]) -> "Slice":
        """All images of `todo`, by id, in the order in which they are read best. paths: of these and others."""
        ids = in_reading_order(list(todo), [paths[image_id] for image_id in todo])
        return Slice(ids, [todo[image_id] for image_id in ids], [paths[image_id] for image_id in ids])

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
    """A model and how an image's vectors are merged.

    merge, max_vectors: as `StoreHeader` has them; batch_size: images at once on the model's device, None to choose.
    """

    model: RetrievalModel
    merge: float | None = None
    max_vectors: int | None = None
    batch_size: int | None = None

    @cached_property
    def encoder(self) -> Encoder:
        """Of all slices, so that the batch size is chosen once."""
        return Encoder(self.model.backbone, self.batch_size)

    def reduce(self, embeddings: ImageEmbeddings) -> ImageEmbeddings:
        """Merge the vectors of each image."""
        reduce = make_reduce(self.merge, self.max_vectors)
        return embeddings if reduce is None else reduce(embeddings)


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
    for batch in embed_batches(embedder.encoder, model, images.ids, images.paths, advance, processes):
        read = batch.read
        for row, skipped in read.skipped:
            file = images.files[row]
            # What could not be fetched has no state that could be found again, so the next job tries it again.
            state = (-1, -1) if skipped.is_unreachable else (file.size, file.modified)
            unreadable[images.ids[row]] = UnreadableImage(file.uri, *state, skipped.reason)
        if batch.embeddings is not None:
            embedded.append(embedder.reduce(batch.embeddings))
            for row, (width, height) in zip(read.rows, read.sizes, strict=True):
                files.append(_as_read(images.files[row], images.paths[row], width, height, read.digests.get(row)))
        if len(files) + len(unreadable) >= size:
            yield EmbeddedSlice(concatenate_embeddings(embedded) if embedded else None, files, unreadable)
            embedded, files, unreadable = [], [], {}
    if files or unreadable:
        yield EmbeddedSlice(concatenate_embeddings(embedded) if embedded else None, files, unreadable)


def _as_read(file: ImageFile, path: Location, width: int, height: int, digest: str | None) -> ImageFile:
    """The file with its size in pixels; of a picture that was fetched, its content and where its bytes are, too."""
    uri = f"{file.uri}{range_text(path)}"
    return replace(file, uri=uri, width=width, height=height, content_hash=digest or file.content_hash)
