"""Keep a store's table fast as it grows: join small fragments, keep scalar indexes, forget old versions.

Every write calls `tend`, which nearly always finds nothing to do. What it does is a change of its own, made after the
write: a kill in between loses nothing.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta

import lance
from lance.indices import IndexConfig

from forclip.index.schema import PRIMARY_KEY
from forclip.index.table import is_conflict

KEPT_VERSIONS = timedelta(hours=1)  # readers may still use younger ones
# What images are looked up by: ids; locations and sources, to find what vanished; content, to find what moved;
# decoding, to count what to index again.
_INDEXES = {"id": "BTREE", "uri": "BTREE", "content_hash": "BTREE", "source": "BITMAP", "decoding": "BITMAP"}
MIN_UNINDEXED = 65_536  # rows that are scanned in a few milliseconds
# Many fragments of at most so many rows are joined to larger ones, so that each row is rewritten twice.
FRAGMENT_ROWS = (4_096, 65_536)
MAX_SMALL_FRAGMENTS = 64
_ROWS_PER_PAGE = 256  # of an index; a look-up reads whole pages
_VERSIONS_PER_CLEANUP = 256
_ROWS_AT_ONCE = 1_024  # a row may have 100 kB


def with_primary_key(table: lance.LanceDataset) -> lance.LanceDataset:
    """Return the table with `id` as its primary key, which stores of earlier versions of forclip lack."""
    field = table.schema.field("id")
    if {k.encode(): v.encode() for k, v in PRIMARY_KEY.items()}.items() <= (field.metadata or {}).items():
        return table
    if field.nullable:
        table.alter_columns({"path": "id", "nullable": False})
    table.update_field_metadata({"id": PRIMARY_KEY})
    return table


def tend(table: lance.LanceDataset) -> None:
    """Do what is due. Errors are logged, not raised: the next write tries again.

    Lance joins fragments that are next to each other and equally indexed, and updates the indexes of what it moves.
    """
    try:
        for rows in FRAGMENT_ROWS:
            if sum(f.physical_rows < rows for f in table.get_fragments()) >= MAX_SMALL_FRAGMENTS:
                join_fragments(table, rows, materialize_deletions=False)
        for column in _INDEXES:
            _index(table, column, MIN_UNINDEXED)
        if table.version % _VERSIONS_PER_CLEANUP == 0:
            table.cleanup_old_versions(KEPT_VERSIONS)
    except (OSError, RuntimeError, ValueError) as error:
        if is_conflict(error):  # another machine has changed the same fragments
            return
        logging.getLogger(__name__).warning("%s: not tidied up: %s", table.uri, str(error)[:300])


def join_fragments(
    table: lance.LanceDataset, rows: int = FRAGMENT_ROWS[-1], materialize_deletions: bool = True
) -> None:
    """Join fragments of fewer rows, and rewrite those with many deleted rows unless they are left as they are."""
    table.optimize.compact_files(
        target_rows_per_fragment=rows, materialize_deletions=materialize_deletions, batch_size=_ROWS_AT_ONCE
    )


def index_all_rows(table: lance.LanceDataset) -> None:
    """Bring the scalar indexes of a table that is large enough for them up to date, as one part each."""
    for column in _INDEXES:
        _index(table, column, 1 if _parts(table, column) else MIN_UNINDEXED, one_part=True)


def _index(table: lance.LanceDataset, column: str, min_rows: int, one_part: bool = False) -> None:
    """Index a column of at least `min_rows` rows that are not indexed.

    A new part joins the last parts that are not much larger, so each row is rewritten a logarithmic number of times.
    """
    rows = {f.fragment_id: f.physical_rows for f in table.get_fragments()}
    parts = [sum(rows.pop(fragment, 0) for fragment in part) for part in _parts(table, column)]
    new = sum(rows.values())
    if new < min_rows and not (one_part and len(parts) > 1):
        return
    if not parts:
        kind = _INDEXES[column]
        settings = {"zone_size": _ROWS_PER_PAGE} if kind == "BTREE" else {}
        table.create_scalar_index(column, IndexConfig(kind.lower(), parameters=settings), name=f"{column}_idx")
        return
    table.optimize.optimize_indices(
        num_indices_to_merge=len(parts) if one_part else parts_to_merge(parts, new), index_names=[f"{column}_idx"]
    )


def parts_to_merge(parts: Sequence[int], new: int) -> int:
    """Return how many of the last parts new rows join. All numbers count rows."""
    joined = 0
    for size in reversed(parts):
        if size > 2 * new:
            break
        joined, new = joined + 1, new + size
    return joined


def _parts(table: lance.LanceDataset, column: str) -> list[set[int]]:
    """Return the fragments of each part of a column's index, in the order in which the parts were made."""
    return [set(index["fragment_ids"]) for index in table.list_indices() if index["fields"] == [column]]
