"""A model and images -> image embeddings, by way of tokens that several heads can share."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from forclip.data.images.stream import stream_pixels
from forclip.data.images.views import PLAIN, View
from forclip.embedding.regions import boxes_in_images, region_boxes
from forclip.models.backbone import Backbone
from forclip.models.baselines import Head
from forclip.models.retrieval_model import RetrievalModel
from forclip.progress import Advance, silent
from forclip.types import Floats, ImageEmbeddings, Ints, SkippedImage

BATCH_SIZE = 64


@dataclass(frozen=True)
class EncodedImages:
    """What a frozen backbone says of images, once for all heads.

    tokens: [images, T, W], or [views, images, T, W] where several views were asked for, float16 on the CPU, in memory
    or mapped from a file; rows: which of the given paths the images are; seconds: spent in all.
    """

    tokens: Tensor
    rows: Ints
    skipped: tuple[SkippedImage, ...]
    seconds: float


@dataclass(frozen=True)
class EncodedBatch:
    """tokens: [views, B, T, W] float16 on the CPU; rows: which paths they are; sizes: width and height of each picture;
    skipped: row and picture of the rest."""

    tokens: Tensor
    rows: list[int]
    sizes: list[tuple[int, int]]
    skipped: list[tuple[int, SkippedImage]]


def encode_images(
    backbone: Backbone, image_ids: Sequence[str], paths: Sequence[Path], advance: Advance = silent
) -> EncodedImages:
    """Decodes, preprocesses and encodes. A picture that can't be read is skipped and listed."""
    encoded = encode_views(backbone, image_ids, paths, [PLAIN], advance)
    return replace(encoded, tokens=encoded.tokens[0])


def encode_views(
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Path],
    views: Sequence[View],
    advance: Advance = silent,
) -> EncodedImages:
    """As encode_images, with tokens [views, images, T, W]: a picture is read once, and skipped in all views or none."""
    start = time.perf_counter()
    batches = list(encode_batches(backbone, image_ids, paths, views, advance))
    parts = [b.tokens for b in batches if b.rows]
    tokens = torch.cat(parts, 1) if parts else torch.empty(len(views), 0)
    rows = np.array([row for b in batches for row in b.rows], np.int64)
    skipped = tuple(picture for b in batches for _, picture in b.skipped)
    return EncodedImages(tokens, rows, skipped, time.perf_counter() - start)


def encode_batches(
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Path],
    views: Sequence[View],
    advance: Advance = silent,
    processes: int = 0,
) -> Iterator[EncodedBatch]:
    """Batch by batch, for sets that don't fit into memory. A batch may be short of skipped pictures, down to none.

    processes: as stream_pixels takes them.
    """

    def prepare(row: int, image: Image.Image) -> Tensor:
        return torch.stack([backbone.preprocess(view(row, image)) for view in views])

    for batch in stream_pixels(paths, prepare, BATCH_SIZE, processes=processes):
        tokens = _encode_each_view(backbone, batch.pixels) if batch.rows else torch.empty(len(views), 0)
        skipped = [(row, SkippedImage(image_ids[row], paths[row], reason)) for row, reason in batch.unreadable]
        yield EncodedBatch(tokens, batch.rows, batch.sizes, skipped)
        advance(len(batch.rows) + len(batch.unreadable))


@torch.inference_mode()
def _encode_each_view(backbone: Backbone, pixels: Tensor) -> Tensor:
    """[B, views, 3, H, W] -> [views, B, T, W]. One view at a time: memory on the device doesn't grow with views."""
    return torch.stack([backbone.encode_tokens(view.to(backbone.device)).half().cpu() for view in pixels.unbind(1)])


def embed_images(
    model: RetrievalModel, paths: Sequence[Path], with_boxes: bool = True
) -> tuple[ImageEmbeddings, tuple[SkippedImage, ...]]:
    """Pictures to embeddings, with the paths as ids; those that can't be read are skipped and listed.

    Raises ValueError where none can be read.
    """
    ids = [str(path) for path in paths]
    batches = list(encode_batches(model.backbone, ids, paths, [PLAIN]))
    parts = [embed_batch(model, batch, [ids[row] for row in batch.rows], with_boxes) for batch in batches if batch.rows]
    if not parts:
        raise ValueError(f"none of {len(paths)} pictures can be read")
    return concatenate_embeddings(parts), tuple(picture for batch in batches for _, picture in batch.skipped)


def embed_batch(
    model: RetrievalModel, batch: EncodedBatch, image_ids: Sequence[str], with_boxes: bool = True
) -> ImageEmbeddings:
    """Its pictures as they are, without other views. with_boxes: also find each vector's place in its picture."""
    found = embed_tokens(model.head, batch.tokens[0], image_ids, model.backbone.device, with_boxes)
    return found if found.boxes is None else with_boxes_in_images(found, model.backbone, batch.sizes)


def with_boxes_in_images(
    found: ImageEmbeddings, backbone: Backbone, sizes: Sequence[tuple[int, int]]
) -> ImageEmbeddings:
    """With boxes that are fractions of the pictures, of these widths and heights, not of what the model was given."""
    assert found.boxes is not None
    frames = np.array([backbone.frame(*size) for size in sizes], np.float32)
    return replace(found, boxes=boxes_in_images(found.boxes, frames.repeat(np.diff(found.offsets), 0)))


def concatenate_embeddings(parts: Sequence[ImageEmbeddings]) -> ImageEmbeddings:
    """All images of several embeddings, in their order; with boxes where all have them."""
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    boxes = [part.boxes for part in parts if part.boxes is not None]
    return ImageEmbeddings(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        tuple(image_id for part in parts for image_id in part.image_ids),
        np.concatenate(boxes) if len(boxes) == len(parts) else None,
    )


@torch.inference_mode()
def embed_tokens(
    head: Head, tokens: Tensor, image_ids: Sequence[str], device: torch.device, with_boxes: bool = False
) -> ImageEmbeddings:
    """tokens: [images, T, W] of these ids, any float type. with_boxes: also find each vector's place,
    as fractions of what the model was given (`with_boxes_in_images` makes them fractions of the pictures)."""
    vectors: list[Floats] = []
    boxes: list[Floats] = []
    num_vectors = 0
    for start in range(0, len(tokens), BATCH_SIZE):
        batch = tokens[start : start + BATCH_SIZE].to(device, torch.float32)
        found = head(batch)
        num_vectors = found.shape[1]
        vectors.append(found.flatten(0, 1).cpu().numpy())
        if with_boxes:
            boxes.append(region_boxes(head.position_weights(batch).flatten(0, 1).cpu().numpy(), head.grid))
    offsets = np.arange(len(image_ids) + 1, dtype=np.int64) * num_vectors
    return ImageEmbeddings(
        np.concatenate(vectors), offsets, tuple(image_ids), np.concatenate(boxes) if with_boxes else None
    )
