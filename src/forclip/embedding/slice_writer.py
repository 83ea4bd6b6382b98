"""Write embedded slices into a store, which the first one creates, and the list of unreadable images beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from forclip.bucket_path import StorePath
from forclip.embedding.changes import UnreadableImage
from forclip.embedding.embed import concatenate_embeddings
from forclip.embedding.skipped_list import write_unreadable
from forclip.embedding.slices import EmbeddedSlice
from forclip.index.image_index import Index
from forclip.progress import skipped

# Values of columns for images, by id.
ValuesFor = Callable[[Sequence[str]], Mapping[str, Any]]
# Creates the store for vectors whose largest value this is.
CreateStore = Callable[[float], Index]


class SliceWriter:
    """Stores slices: all of a slice, or nothing of it. An image that is stored already is replaced.

    index: the store, None as long as no image could be read. added, updated: numbers of images.
    """

    def __init__(
        self,
        to: StorePath,
        index: Index | None,
        create: CreateStore,
        values_for: ValuesFor,
        replaced: frozenset[str],
        unreadable: Mapping[str, UnreadableImage],
        known: Mapping[str, UnreadableImage],
    ) -> None:
        """Write into the store `to`.

        replaced: ids of images that are in the store already; unreadable: the list to begin with; known: what is in
        the file.
        """
        self.index = index
        self.added, self.updated = 0, 0
        self.unreadable = dict(unreadable)
        self._to, self._create, self._values_for, self._replaced = to, create, values_for, replaced
        self._unwritten = {i: image for i, image in unreadable.items() if known.get(i) != image}
        self._removed = [image_id for image_id in known if image_id not in unreadable]

    def write(self, slices: Sequence[EmbeddedSlice]) -> None:
        """Store slices in one version of the store."""
        for part in slices:
            self.unreadable |= part.unreadable
            self._unwritten |= part.unreadable
            skipped(len(part.unreadable))
        embedded = [part for part in slices if part.embeddings is not None]
        if embedded:
            embeddings = concatenate_embeddings([part.embeddings for part in embedded if part.embeddings is not None])
            if self.index is None:
                self.index = self._create(float(np.abs(embeddings.vectors).max()))
            files, ids = [file for part in embedded for file in part.files], embeddings.image_ids
            self.index.put(embeddings, files, self._values_for(ids))
            replaced = sum(image_id in self._replaced for image_id in ids)
            self.added, self.updated = self.added + len(ids) - replaced, self.updated + replaced
        self.write_unreadable()

    def write_unreadable(self) -> None:
        """Add to the list of unreadable images what is new, if there is a store."""
        if self.index is not None and (self._unwritten or self._removed):
            write_unreadable(self._to, self._unwritten, self._removed)
            self._unwritten, self._removed = {}, []
