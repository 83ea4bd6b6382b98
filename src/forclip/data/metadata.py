"""A user's own columns for images, from a file: camera, time, and whatever a search may filter by."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.spreadsheet import IMAGE_COLUMNS, column_key
from forclip.data.image_names import ImageNames
from forclip.data.left_out import count_reasons
from forclip.data.local_copy import local_copy
from forclip.data.metadata_table import Column, MetadataTable, Misfit, read_table
from forclip.index.columns import kind_of, usable_name
from forclip.index.schema import BUILT_IN_COLUMNS
from forclip.location import as_location
from forclip.types import SkippedEntry

_INDEX_COLUMN = re.compile(r"__index_level_\d+__")  # pandas' index in a Parquet file
_MAX_SHOWN = 3  # entries of a kind that are shown

Match = Callable[[str], str]  # from a name to an image id; raises UnusableEntry


@dataclass(frozen=True)
class ImageMetadata:
    """Columns whose rows belong to images.

    table: the columns, in the types that the store gets; row_of: the table's row of each image id; num_rows: rows of
    the file that belong to an image, equal ones of the same image among them; skipped: all others; notes: sentences
    about what was assumed or changed.
    """

    file: Path
    table: pa.Table
    row_of: dict[str, int]
    num_rows: int
    skipped: tuple[SkippedEntry, ...]
    notes: tuple[str, ...]

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The type of each column."""
        return {field.name: field.type for field in self.table.schema}

    def values_for(self, image_ids: Sequence[str]) -> dict[str, pa.Array]:
        """Each column's values for these images; None for images that the file doesn't list."""
        rows = pa.array([self.row_of.get(i) for i in image_ids], pa.int64())
        return {name: self.table[name].take(rows).combine_chunks() for name in self.table.column_names}

    def with_frames(self, image_ids: Iterable[str]) -> "ImageMetadata":
        """Give the row of a video to each of its frames among these images; a frame's own row comes first."""
        row_of = dict(self.row_of)
        for image_id in image_ids:
            video = image_id.rpartition("#t=")[0]
            if video in self.row_of:
                row_of.setdefault(image_id, self.row_of[video])
                row_of.pop(video, None)
        return replace(self, row_of=row_of)

    def report(self, stored: Collection[str], source: Collection[str]) -> list[str]:
        """Say in some lines what became of the rows. stored: ids of the store; source: ids of the indexed source."""
        used = sum(image_id in stored for image_id in self.row_of)
        unread = len(self.row_of) - used
        left_out = _count(len(self.skipped), "row")
        lines = [f"{as_location(self.file)}: {_count(used, 'picture')} got values of {_list(self.table.column_names)}"]
        if not self.row_of:
            lines = [f"{as_location(self.file)}: none of {left_out} belongs to a picture; no column was made"]
        if self.skipped:
            lines.append(f"  {left_out} left out: {count_reasons(self.skipped)}")
            for reason in dict.fromkeys(entry.reason for entry in self.skipped):
                same = [entry for entry in self.skipped if entry.reason == reason]
                for entry in same[:_MAX_SHOWN]:
                    lines.append(f"    {entry.entry.removeprefix(f'{self.file}: ')}: {entry.value or reason}")
        if unread:
            lines.append(f"  {_count(unread, 'row')} of pictures that could not be read")
        if missing := sum(image_id not in self.row_of for image_id in source if image_id in stored):
            lines.append(f"  {_count(missing, 'picture')} of the source without a row")
        return [*lines, *(f"  {note}" for note in self.notes)]


@dataclass(frozen=True)
class MetadataFile:
    """A metadata file as it was read, before its rows are matched to images."""

    file: Path
    table: MetadataTable

    def match(
        self, paths: Mapping[str, str], folder: Path | None = None, schema: pa.Schema | None = None
    ) -> ImageMetadata:
        """Match rows to images, and columns to those of a store.

        paths: where the images are, by id; folder: that names may be relative to, besides the file's own; schema: of
        the store, None for a new one.

        Raises ValueError, naming the file and the lines, for two rows of one image that differ, and for a value that
        fits neither the type of the store's column nor a wider one.
        """
        names = ImageNames(paths, [self.file.parent, folder or self.file.parent])
        keys = self._key_columns()
        for key in (*keys, keys[0]):  # the first one again if none names a picture
            rows, row_of, skipped = self._match_rows(key, names.match)
            if row_of:
                break
        notes = [*self.table.notes]
        if key.name.strip().lower() != "image":
            notes.append(f"column {key.name!r} names the pictures")
        others = [column for column in self.table.columns if row_of and column is not key]
        return ImageMetadata(
            self.file,
            pa.table(self._fit_columns(others, rows, schema, notes)),
            row_of,
            len(self.table.lines) - len(skipped),
            (*self.table.skipped, *skipped),
            tuple(notes),
        )

    def for_rows(self, image_ids: Sequence[str], schema: pa.Schema | None, left_out: Collection[str]) -> ImageMetadata:
        """Give each row to the image of the same position. A column that does not fit the store's is left out.

        left_out: names of columns that are not taken.
        """
        rows = range(len(image_ids))
        fitted: dict[str, pa.Array] = {}
        notes = list(self.table.notes)
        for column in self.table.columns:
            if column.name in left_out or _is_index(column):
                continue
            try:
                fitted |= self._fit_columns([column], rows, schema, notes)
            except ValueError as error:
                notes.append(f"column {column.name!r} was left out: {str(error).removeprefix(f'{self.file}: ')}")
        row_of = {image_id: row for row, image_id in enumerate(image_ids)} if fitted else {}
        return ImageMetadata(self.file, pa.table(fitted), row_of, len(rows), (), tuple(notes))

    def _key_columns(self) -> list[Column]:
        columns = {column_key(column.name): column for column in reversed(self.table.columns)}
        keys = [columns[name] for name in IMAGE_COLUMNS if name in columns]
        if not columns:
            raise ValueError(f"{self.file}: is empty; it needs a column 'image' and others")
        if not keys:
            raise ValueError(f"{self.file}: no column 'image', only {_list([c.name for c in self.table.columns])}")
        return keys

    def _match_rows(self, key: Column, match: Match) -> tuple[list[int], dict[str, int], list[SkippedEntry]]:
        """Return the rows of images, the position in them of each image id, and what is left out."""
        rows: list[int] = []
        row_of: dict[str, int] = {}
        skipped = []
        for row, name in enumerate(key.texts()):
            try:
                image_id = match(name)
            except UnusableEntry as error:
                skipped.append(error.at(self._where(row)))
                continue
            if image_id in row_of:
                first = rows[row_of[image_id]]
                if any(c.value(first) != c.value(row) for c in self.table.columns if c is not key and not _is_index(c)):
                    lines = f"{self.table.lines[first]} and {self.table.lines[row]}"
                    raise ValueError(f"{self.file}: {lines} have different values for {name!r}")
                continue
            row_of[image_id] = len(rows)
            rows.append(row)
        return rows, row_of, skipped

    def _fit_columns(
        self, columns: Sequence[Column], rows: Sequence[int], schema: pa.Schema | None, notes: list[str]
    ) -> dict[str, pa.Array]:
        """Convert the columns to the types, and give them the names, that the store has or can have."""
        stored = {} if schema is None else {f.name: f.type for f in schema if f.name not in BUILT_IN_COLUMNS}
        fitted: dict[str, pa.Array] = {}
        original: dict[str, Column] = {}
        for column in columns:
            name = column.name.strip()
            if _is_index(column):
                start = ", ".join(map(repr, column.texts()[:_MAX_SHOWN])) or "no rows"
                notes.append(f"a column without a name was left out; it starts with {start}")
                continue
            if name in original and all(column.value(row) == original[name].value(row) for row in rows):
                notes.append(f"column {name!r} is there twice, with the same values")
                continue
            others = {*fitted, *(c.name.strip() for c in columns)} - {name}
            new_name = _column_name(name, stored, fitted.keys(), others)
            if new_name != name:
                notes.append(f"column {name!r} is stored as {new_name!r}")
            original.setdefault(name, column)
            try:
                values = column.values_as(rows, stored[new_name]) if new_name in stored else column.values(rows)
            except Misfit as error:
                message = f"{self._where(rows[error.position])} has {error.value!r} under {name!r} ({error.kind})"
                holds = f"which holds {kind_of(stored[new_name])} in the store"
                raise ValueError(f"{message}, {holds}; correct it, or give the column another name") from None
            except ValueError as error:
                notes.append(f"column {name!r} was left out: it {error}")
                continue
            if pa.types.is_null(values.type) and new_name not in stored:
                notes.append(f"column {name!r} has no values and was left out")
                continue
            is_new_text = new_name not in stored and pa.types.is_string(values.type)
            if is_new_text and (odd := column.odd_row(rows)) is not None:
                notes.append(f"column {name!r} is text because of {self.table.lines[odd]}: {column.value(odd)!r}")
            if (before := stored.get(new_name, values.type)) != values.type:
                notes.append(f"column {new_name!r} held {kind_of(before)}, now it holds {kind_of(values.type)}")
            fitted[new_name] = values
        return fitted

    def _where(self, row: int) -> str:
        return f"{self.file}: {self.table.lines[row]}"


def read_metadata(file: Path) -> MetadataFile:
    """Read a CSV, Parquet, Arrow or JSON lines file of which a column names pictures: image, file_name, path, ...

    Raises ValueError for a file that is missing, can't be understood, or has no such column.
    """
    with local_copy(file) as copy:
        read = MetadataFile(file, read_table(copy))
    read._key_columns()  # raises
    return read


def _column_name(name: str, stored: Collection[str], made: Collection[str], others: Collection[str]) -> str:
    """The name in the store: of the column there, in any case, or a new one that a column can have.

    made: names that the file's earlier columns have got; others: these, and the names in the file.
    """
    if name in stored and name not in made:
        return name
    if same := next((s for s in stored if s.casefold() == name.casefold() and s not in others), None):
        return same
    # The second time a file is used, the store has the changed name.
    changed = usable_name(name, made)
    return changed if changed in stored else usable_name(name, {*made, *stored})


def _is_index(column: Column) -> bool:
    """Whether a column has no name, as the row numbers of pandas and R."""
    return not column.name.strip() or _INDEX_COLUMN.fullmatch(column.name) is not None


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "no column"
