"""The columns that a source gives a store: from its shards, from a metadata file, and of the frames of videos."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from forclip.data.images.listing import Listing
from forclip.data.metadata import ImageMetadata, MetadataFile
from forclip.data.metadata_table import ArrowColumn, MetadataTable
from forclip.embedding.frames import FRAME_COLUMNS, frame_columns
from forclip.index.roots import Roots


@dataclass(frozen=True)
class SourceColumns:
    """Values of images by id. of_file: of the metadata file, which wins over the shards; None without one."""

    of_shards: ImageMetadata
    of_file: ImageMetadata | None
    has_frames: bool

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The type of each column."""
        of_file = {} if self.of_file is None else self.of_file.types
        return self.of_shards.types | of_file | (FRAME_COLUMNS if self.has_frames else {})

    def values_for(self, image_ids: Sequence[str]) -> dict[str, Any]:
        """Return the values of each column for images, None where there is none."""
        of_file = {} if self.of_file is None else self.of_file.values_for(image_ids)
        of_frames = frame_columns(image_ids) if self.has_frames else {}
        return dict(self.of_shards.values_for(image_ids)) | dict(of_file) | of_frames


def values_of_shards(
    listing: Listing, roots: Roots, schema: pa.Schema | None, left_out: Collection[str]
) -> ImageMetadata:
    """Return the values next to the pictures of shards. left_out: names of columns that are not taken."""
    values = pa.table({}) if listing.columns is None else listing.columns
    members = listing.pictures[len(listing.pictures) - len(values) :] if values.num_columns else ()
    columns = tuple(map(ArrowColumn, values.column_names, values.columns))
    table = MetadataTable(columns, tuple(map(str, members)), (), ())
    return MetadataFile(Path("the shards"), table).for_rows([roots.id_of(m) for m in members], schema, left_out)
