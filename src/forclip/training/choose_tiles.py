"""The choice `tiles: auto` of a training: by the size of the pictures, and by held-back base classes."""

import numpy as np
from rich.console import Console
from torch import Tensor

from forclip.config import ModelConfig, TrainConfig
from forclip.data.images.tiles import Tiles, describe_tiles, views_of
from forclip.distributed import broadcast, is_first
from forclip.embedding.choose_tiles import tiles_by_size
from forclip.embedding.encode_on_workers import encode_on_workers
from forclip.embedding.row_shards import Rows, first_views
from forclip.models.backbone import Backbone
from forclip.models.retrieval_model import configured_tiles
from forclip.models.summary_head import SummaryHead, window_seeded_head
from forclip.progress import Track
from forclip.text.prompt_options import PromptOptions
from forclip.training.gains import resample
from forclip.training.score_images import pooled_outputs, score_shares
from forclip.training.supervision import labelled_rows, supervise
from forclip.types import Annotations, ClassSplit, Floats, Ints

_IMAGES = 96  # labelled images that are tried with and without tiles


def resolve_tiles(
    model: ModelConfig,
    backbone: Backbone,
    train: Annotations,
    split: ClassSplit,
    prompts: PromptOptions,
    num_query_tokens: int,
    labels: TrainConfig,
    track: Track,
    console: Console,
) -> Tiles | None:
    """Return the configured tiles, or with `auto` the better choice, and print the reason.

    Pictures that the model sees whole without losing detail need no tiles. Otherwise the untrained head ranks a sample
    of labelled training images for the base classes, with and without tiles. With fewer than two classes that some of
    them show and others do not, there is nothing to rank: then the size of the pictures decides. labels: the training,
    which may use the labels of only a part of the images.
    """
    if model.tiles != "auto":
        return configured_tiles(model)
    by_size, reason = broadcast(tiles_by_size(backbone, train.paths, model.tile_overlap) if is_first() else (None, ""))
    base = train.with_classes(split.base)
    shown = base.labels & base.verified_mask
    used = labelled_rows(shown, labels.labelled_fraction, labels.seed)
    labelled = used[shown[used].any(1)]
    tiles: Tiles | None = None
    rows = labelled[np.linspace(0, len(labelled) - 1, min(_IMAGES, len(labelled))).astype(int)]
    absent = ~base.labels & base.verified_mask
    rankable = int((shown[rows].any(0) & absent[rows].any(0)).sum())
    if by_size is not None and len(labelled) and rankable < 2:
        tiles = by_size
        reason += f"; {len(rows)} labelled pictures have too few classes to rank them with and without"
    elif by_size is not None and len(labelled):
        tiles = by_size
        sample = train.take(rows)
        sources = sample.image_ids, sample.paths, views_of(tiles)
        encoded = encode_on_workers(backbone, *sources, track, f"trying tiles of {tiles.name}")
        data = supervise(backbone, sample.take(encoded.rows), split, prompts, allow_unlabelled_base=True)
        head = window_seeded_head(backbone.new_pool(), num_query_tokens).to(backbone.device).eval()
        everything = np.arange(len(encoded.rows))
        without, with_tiles = (
            resample(_scores(head, parts, everything, data.texts), data.labels, data.verified, 0)
            for parts in (first_views(encoded.tokens, 1), encoded.tokens)
        )
        gain = with_tiles.gain_over(without)
        reason += (
            f"; with tiles of {tiles.name}, {len(rows)} labelled pictures are ranked {abs(gain.mean):.1f} points "
            f"{'better' if gain.mean > 0 else 'worse'} (± {gain.deviation:.1f})"
        )
        tiles = broadcast(tiles if gain.shrunk > 0 else None)
    console.print(f"tiles auto: {describe_tiles(tiles)}, because {reason}", markup=False, highlight=False)
    return tiles


def _scores(head: SummaryHead, parts: Rows, rows: Ints, texts: Tensor) -> Floats:
    return score_shares(head, pooled_outputs(head, parts, rows), parts, rows, texts, [0.0])[0.0]
