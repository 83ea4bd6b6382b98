"""Parts of images encoded in a stream, keeping the vectors of a head alone: tokens of many parts would fill memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.data.images.views import View
from forclip.distributed import world_size
from forclip.embedding.encode_on_workers import encode_on_workers
from forclip.embedding.row_shards import read_rows
from forclip.location import Location
from forclip.models.backbone import Backbone
from forclip.models.baselines import Head
from forclip.progress import Advance, silent


class _VectorsAsTokens:
    """A backbone whose tokens are a head's vectors: [B, N, D]."""

    def __init__(self, backbone: Backbone, head: Head, fingerprint: str) -> None:
        self._backbone, self._head, self.fingerprint = backbone, head, fingerprint

    def __getattr__(self, name: str) -> Any:
        """Everything but `encode_tokens` and `fingerprint` is the backbone's."""
        if name.startswith("_"):  # not yet set, as while the object is copied
            raise AttributeError(name)
        return getattr(self._backbone, name)

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        return self._head(self._backbone.encode_tokens(pixels).float())


def embed_views(
    backbone: Backbone,
    head: Head,
    image_ids: Sequence[str],
    paths: Sequence[Location],
    views: Sequence[View],
    advance: Advance = silent,
    cache: Path | None = None,
    head_name: str = "",
) -> tuple[Tensor, float]:
    """Embed several views of each image, each to the vectors of a head. *Collective*.

    cache: a folder that keeps the vectors between runs; head_name: of the head, which must not depend on a training.
    Returns unit vectors [views, images, N, D], rounded to half precision, float32 on the CPU, and the seconds that
    decoding and encoding took. Raises ValueError for an image that can't be read.
    """
    with_head = cast(Backbone, _VectorsAsTokens(backbone, head, f"{backbone.fingerprint}-{head_name}"))

    def track(description: str, total: int) -> Advance:
        return lambda count: advance(count * world_size())  # the others are about as far

    encoded = encode_on_workers(with_head, image_ids, paths, views, track, "", cache if head_name else None)
    if encoded.skipped:
        raise ValueError(f"an image can no longer be read: {encoded.skipped[0].reason}")
    vectors = torch.empty(encoded.tokens.shape)
    for number, view in enumerate(encoded.tokens):
        rounded = view if isinstance(view, Tensor) else read_rows(view, torch.arange(len(view)))
        vectors[number] = F.normalize(rounded.float(), dim=-1)
    return vectors, encoded.seconds
