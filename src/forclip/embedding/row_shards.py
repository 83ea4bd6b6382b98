"""Rows of a large tensor in several shards, of which each worker may hold only some."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forclip import distributed
from forclip.embedding.embed import BATCH_SIZE


@dataclass(frozen=True)
class RowShards:
    """A tensor [V, I, ...], or one view of it [I, ...], whose rows lie in shards. It is indexed like one tensor.

    shards: [V, R, ...] or [R, ...] each, None for one that this worker can't read; owners: of each shard, the worker
    that computes with its rows. shard_of, row_in_shard: [I], where each row lies. everywhere: whether every worker can
    read all rows. row_shape: the shape after I; views: V, None for one view.
    """

    shards: tuple[Tensor | None, ...]
    owners: Tensor
    shard_of: Tensor
    row_in_shard: Tensor
    everywhere: bool
    row_shape: tuple[int, ...]
    dtype: torch.dtype
    views: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        views = () if self.views is None else (self.views,)
        return (*views, len(self.shard_of), *self.row_shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator["RowShards"]:
        assert self.views is not None
        return (self.view(number) for number in range(self.views))

    def view(self, number: int) -> "RowShards":
        """Return one view, [I, ...]."""
        return replace(self, shards=tuple(None if s is None else s[number] for s in self.shards), views=None)

    def first_views(self, count: int) -> "RowShards":
        """Return the first views, [count, I, ...]."""
        return replace(self, shards=tuple(None if s is None else s[:count] for s in self.shards), views=count)

    def read(self, rows: Tensor, views: Tensor | None = None) -> Tensor:
        """Read rows that this worker can read: [B, ...]. views: of each row, [B], None for one view.

        Rows of shards that it can't read are 0.
        """
        result = torch.zeros(len(rows), *self.row_shape, dtype=self.dtype)
        shard_of, row_in_shard = self.shard_of[rows], self.row_in_shard[rows]
        for number in shard_of.unique().tolist():
            if (shard := self.shards[number]) is not None:
                places = (shard_of == number).nonzero()[:, 0]
                found = row_in_shard[places]
                result[places] = shard[found] if views is None else shard[views[places], found]
        return result


Rows = Tensor | RowShards  # [V, I, ...], or one view [I, ...]


def first_views(rows: Rows, count: int) -> Rows:
    """Return the first `count` views of [V, I, ...]."""
    return rows[:count] if isinstance(rows, Tensor) else rows.first_views(count)


def one_view(rows: Rows, number: int) -> Rows:
    """Return one view of [V, I, ...]."""
    return rows[number] if isinstance(rows, Tensor) else rows.view(number)


def own_part(values: Rows, rows: Tensor) -> Tensor:
    """Return the positions in `rows` that this worker computes: [B] -> [b].

    Workers that can read all rows take whole batches, so that they compute what one process does.
    """
    if isinstance(values, Tensor) or values.everywhere:
        return torch.arange(len(rows))[distributed.part(len(rows), BATCH_SIZE)]
    return (values.owners[values.shard_of[rows]] == distributed.rank()).nonzero()[:, 0]


def own_batches(own: Tensor, count: int) -> Sequence[Tensor]:
    """Split this worker's part of `count` rows into batches. There is none for a worker without rows.

    Without any row at all there is an empty batch, which tells the shape of the result.
    """
    return own.split(BATCH_SIZE) if len(own) or not count else ()


def read_own(values: Rows, rows: Tensor) -> Tensor:
    """Read rows of one view, [I, ...] -> [B, ...], that are in this worker's part."""
    return values[rows] if isinstance(values, Tensor) else values.read(rows)


def read_rows(
    values: Rows,
    rows: Tensor,
    views: Tensor | None = None,
    part: slice | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Read any rows, from other workers too, and return those of `part`. *Collective*.

    rows: [B]; views: of each row, [B], None for one view. Returns [b, ...] on the device.
    """
    part = slice(0, len(rows)) if part is None else part
    if isinstance(values, Tensor):
        found = values[rows[part]] if views is None else values[views[part], rows[part]]
        return found.to(device)
    if values.everywhere:
        return values.read(rows[part], None if views is None else views[part]).to(device)
    # Each row is 0 but on its owner, so that the sum is the row.
    places = own_part(values, rows)
    found = torch.zeros(len(rows), *values.row_shape, dtype=values.dtype)
    found[places] = values.read(rows[places], None if views is None else views[places])
    return distributed.add_up(found.to(device))[part]


def from_workers(own: Tensor | None, positions: Tensor, count: int) -> Rows:
    """Join rows [V, b, ...] that each worker computed and keeps, as [V, count, ...]. *Collective*.

    own: None without a row; positions: [b], of this worker's rows.
    """
    if distributed.world_size() == 1 and own is not None:
        return own
    described = distributed.gather((positions, None if own is None else (own.shape, own.dtype)))
    shape, dtype = next(form for _, form in described if form is not None)
    shard_of, row_in_shard = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    for number, (places, _) in enumerate(described):
        shard_of[places], row_in_shard[places] = number, torch.arange(len(places))
    workers = len(described)
    shards = tuple(own if number == distributed.rank() else None for number in range(workers))
    layout = torch.arange(workers), shard_of, row_in_shard
    return RowShards(shards, *layout, False, tuple(shape[2:]), dtype, shape[0])
