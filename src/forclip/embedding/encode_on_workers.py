"""Encode a set of images on several workers, in shards that do not depend on their number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forclip import distributed
from forclip.data.images.views import Size, View, Window
from forclip.embedding.embed import BATCH_SIZE, EncodedImages, embed_tokens, encode_views
from forclip.embedding.row_shards import Rows, RowShards, own_batches, own_part, read_own
from forclip.embedding.token_cache import (
    HEADER_FILE,
    NoReadableImage,
    TokenSource,
    cached_tokens,
    folder_name,
    is_current,
    open_tokens,
    token_source,
)
from forclip.location import Location
from forclip.models.backbone import Backbone
from forclip.models.baselines import Head
from forclip.progress import Advance, Track
from forclip.types import ImageEmbeddings, Ints, SkippedImage

_MOST_SHARDS = 256  # a mapped shard keeps a file open


@dataclass(frozen=True)
class EncodedSet:
    """As `EncodedImages`, with tokens [views, images, T, W] in shards."""

    tokens: Rows
    rows: Ints
    skipped: tuple[SkippedImage, ...]
    seconds: float
    views: tuple[View, ...]


Encoded = EncodedImages | EncodedSet


def encode_on_workers(
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Location],
    views: Sequence[View],
    track: Track,
    description: str,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> Encoded:
    """Encode views of images as `encode_views` does, or as `cached_tokens` with a cache. *Collective*.

    Each worker encodes some shards. Without a cache it keeps their tokens in memory. With one, all workers map all
    shards, if they see the same folder; one process and other numbers of workers reuse them. Raises ValueError as
    `cached_tokens`, but not if no image can be read.
    """
    if cache is None:
        if distributed.world_size() == 1:
            return encode_views(backbone, image_ids, paths, views, track(description, len(paths)))
        size = max(1, -(-len(paths) // distributed.world_size()))
    else:
        whole = token_source(backbone, image_ids, paths, views)
        folder, size = cache / folder_name(whole), shard_size(len(paths))
        first = token_source(backbone, image_ids[:size], paths[:size], views)
        if distributed.world_size() == 1 and (is_current(folder, whole) or not _complete(cache, first)):
            return cached_tokens(cache, backbone, image_ids, paths, views, track(description, len(paths)), say)
        if distributed.world_size() > 1 and all(distributed.gather(is_current(folder, whole))):
            return _mapped_by_all(cache, backbone, image_ids, paths, views, say)
    return _encode_shards(backbone, image_ids, paths, views, track, description, cache, say, size)


def embed_rows(backbone: Backbone, head: Head, tokens: Rows, image_ids: Sequence[str]) -> ImageEmbeddings:
    """As `embed_tokens`, with tokens [images, T, W] that may lie in shards. *Collective*."""
    if isinstance(tokens, Tensor) and distributed.world_size() == 1:
        return embed_tokens(backbone, head, tokens, image_ids)
    own, parts = own_part(tokens, torch.arange(len(tokens))), []
    for batch in own_batches(own, len(tokens)):
        embedded = embed_tokens(backbone, head, read_own(tokens, batch), [image_ids[row] for row in batch.tolist()])
        parts.append(torch.from_numpy(embedded.vectors).unflatten(0, (len(batch), -1)))
    vectors = distributed.gather_rows(parts, own, len(tokens))
    offsets = np.arange(len(tokens) + 1, dtype=np.int64) * vectors.shape[1]
    return ImageEmbeddings(vectors.flatten(0, 1).numpy(), offsets, tuple(image_ids))


def shard_size(count: int) -> int:
    """Return the number of images in a shard of a cache for a set of `count`: whole batches, in at most 256 shards."""
    return BATCH_SIZE * max(1, -(-count // (BATCH_SIZE * _MOST_SHARDS)))


def _complete(cache: Path, source: TokenSource) -> bool:
    return (cache / folder_name(source) / HEADER_FILE).exists()


def _mapped_by_all(
    cache: Path,
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Location],
    views: Sequence[View],
    say: Callable[[str], None],
) -> EncodedImages:
    """Map the tokens of one file, which the first worker verifies. *Collective*."""
    if distributed.is_first():
        encoded = cached_tokens(cache, backbone, image_ids, paths, views, say=say)
    distributed.barrier()
    if not distributed.is_first():
        folder = cache / folder_name(token_source(backbone, image_ids, paths, views))
        encoded = replace(open_tokens(folder, backbone, check=False), views=tuple(views))
    return encoded


@dataclass(frozen=True)
class _Shard:
    """What all workers know of a shard. start: its first image; rows: of its readable images; folder: in the cache."""

    owner: int
    start: int
    rows: Ints
    shape: tuple[int, ...]
    skipped: tuple[SkippedImage, ...]
    seconds: float
    folder: str


def _encode_shards(
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Location],
    views: Sequence[View],
    track: Track,
    description: str,
    cache: Path | None,
    say: Callable[[str], None],
    size: int,
) -> EncodedSet:
    starts = range(0, len(paths), size)
    own = starts[distributed.part(len(starts))]
    advance = track(description, sum(len(paths[start : start + size]) for start in own))
    encoded: dict[int, EncodedImages] = {}
    described, messages = list[_Shard](), list[str]()
    for start in own:
        sources = image_ids[start : start + size], paths[start : start + size], _from_row(views, start)
        shard = encoded[start] = _encode_shard(backbone, *sources, cache, advance, messages.append)
        folder = "" if cache is None else folder_name(token_source(backbone, *sources))
        shape = tuple(shard.tokens.shape)
        described.append(
            _Shard(distributed.rank(), start, shard.rows + start, shape, shard.skipped, shard.seconds, folder)
        )
    if messages:
        say(messages[0] + (f" ({len(messages) - 1} more shards alike)" if len(messages) > 1 else ""))
    every = [shard for shards in distributed.gather(described) for shard in shards]
    rows = np.concatenate([np.empty(0, np.int64), *(shard.rows for shard in every)])
    skipped = tuple(image for shard in every for image in shard.skipped)
    seconds = sum(shard.seconds for shard in every)
    used = [shard for shard in every if len(shard.rows)]
    if not used:
        return EncodedSet(torch.empty(len(views), 0), rows, skipped, seconds, tuple(views))
    tokens = list[Tensor | None]()
    for one in used:
        if one.start in encoded:
            tokens.append(encoded[one.start].tokens)
        elif cache is not None and (cache / one.folder / HEADER_FILE).exists():
            tokens.append(open_tokens(cache / one.folder, backbone, check=False).tokens)
        else:
            tokens.append(None)
    everywhere = all(distributed.gather(all(part is not None for part in tokens)))
    if cache is not None and not everywhere:
        say(f"{cache}: not all workers see the same folder, so tokens are sent between them")
    counts = torch.tensor([len(shard.rows) for shard in used])
    layout = torch.arange(len(used)).repeat_interleave(counts), torch.cat([torch.arange(c) for c in counts.tolist()])
    owners, row_shape = torch.tensor([shard.owner for shard in used]), used[0].shape[2:]
    sharded = RowShards(tuple(tokens), owners, *layout, everywhere, row_shape, torch.float16, len(views))
    return EncodedSet(sharded, rows, skipped, seconds, tuple(views))


def _encode_shard(
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Location],
    views: Sequence[View],
    cache: Path | None,
    advance: Advance,
    say: Callable[[str], None],
) -> EncodedImages:
    if cache is None:
        return encode_views(backbone, image_ids, paths, views, advance)
    try:
        return cached_tokens(cache, backbone, image_ids, paths, views, advance, say)
    except NoReadableImage as error:
        return EncodedImages(torch.empty(len(views), 0), np.empty(0, np.int64), error.skipped, 0.0)


def _from_row(views: Sequence[View], start: int) -> tuple[View, ...]:
    """Return views of images whose first one is in row `start` of the whole set, on which random crops depend."""

    def shifted(view: View) -> View:
        def window(row: int, size: Size) -> Window:
            return view.window(start + row, size)

        return View(f"{view.name} from row {start}", window)

    return tuple(shifted(view) for view in views) if start else tuple(views)
