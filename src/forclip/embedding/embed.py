"""Embed images: files -> backbone tokens, which several heads can share -> image embeddings."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from forclip.data.images.stream import stream_pixels
from forclip.data.images.views import PLAIN, Size, View
from forclip.embedding.regions import boxes_in_images, region_boxes, window_fractions
from forclip.location import Location
from forclip.models.backbone import Backbone
from forclip.models.baselines import Head
from forclip.models.retrieval_model import RetrievalModel
from forclip.progress import Advance, silent
from forclip.types import Floats, ImageEmbeddings, Ints, SkippedImage

BATCH_SIZE = 64
_MOST_INPUTS = 4 * BATCH_SIZE  # preprocessed views of a batch's images, which are in memory at once


@dataclass(frozen=True)
class EncodedImages:
    """The tokens of a set of images, encoded once for all heads.

    tokens: [images, T, W] or, for several views, [views, images, T, W]; float16 on the CPU, in memory or mapped from a
    file. rows: [images], indices into the given paths. skipped: the unreadable images. seconds: spent encoding. views:
    what the tokens show of each image.
    """

    tokens: Tensor
    rows: Ints
    skipped: tuple[SkippedImage, ...]
    seconds: float
    views: tuple[View, ...] = (PLAIN,)


@dataclass(frozen=True)
class EncodedBatch:
    """The tokens of one batch of images.

    tokens: [views, B, T, W], float16 on the CPU. rows: B indices into the given paths. sizes: (width, height) in
    pixels of each image, upright. skipped: index and reason of each unreadable image. digests: by index, of the content
    of images at URLs and in shards.
    """

    tokens: Tensor
    rows: list[int]
    sizes: list[tuple[int, int]]
    skipped: list[tuple[int, SkippedImage]]
    digests: dict[int, str] = field(default_factory=dict)


def embed_images(
    model: RetrievalModel, paths: Sequence[Location], with_boxes: bool = True
) -> tuple[ImageEmbeddings, tuple[SkippedImage, ...]]:
    """Embed image files. Their paths are the image ids.

    Returns the embeddings, unit float32 vectors, and the images that could not be read. A model with tiles embeds the
    whole of each image first, then its tiles, row by row, all to the same number of vectors. with_boxes: also return a
    box for each vector, the region of the image that it comes from: xyxy as fractions of the image's width and height.
    Raises ValueError if no image can be read.
    """
    ids = [str(path) for path in paths]
    parts, skipped = [], list[SkippedImage]()
    for batch in encode_batches(model.backbone, ids, paths, model.views):
        skipped += [image for _, image in batch.skipped]
        if batch.rows:
            parts.append(embed_batch(model, batch, [ids[row] for row in batch.rows], with_boxes))
    if not parts:
        raise ValueError(f"none of {len(paths)} images can be read")
    return concatenate_embeddings(parts), tuple(skipped)


def encode_images(
    backbone: Backbone, image_ids: Sequence[str], paths: Sequence[Location], advance: Advance = silent
) -> EncodedImages:
    """Decode, preprocess and encode image files. Unreadable images are skipped and listed."""
    encoded = encode_views(backbone, image_ids, paths, [PLAIN], advance)
    return replace(encoded, tokens=encoded.tokens[0])


def encode_views(
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Location],
    views: Sequence[View],
    advance: Advance = silent,
) -> EncodedImages:
    """Encode several views of each image: tokens [views, images, T, W]. Each file is decoded once."""
    start = time.perf_counter()
    batches = list(encode_batches(backbone, image_ids, paths, views, advance))
    parts = [b.tokens for b in batches if b.rows]
    tokens = torch.cat(parts, 1) if parts else torch.empty(len(views), 0)
    rows = np.array([row for b in batches for row in b.rows], np.int64)
    skipped = tuple(image for b in batches for _, image in b.skipped)
    return EncodedImages(tokens, rows, skipped, time.perf_counter() - start, tuple(views))


def images_per_batch(views: int) -> int:
    """How many images are encoded at once, each in so many views."""
    return min(BATCH_SIZE, max(1, _MOST_INPUTS // views))


def encode_batches(
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Location],
    views: Sequence[View],
    advance: Advance = silent,
    processes: int = 0,
) -> Iterator[EncodedBatch]:
    """Encode image files batch by batch, for sets that do not fit into memory.

    A batch lacks its unreadable images and may be empty. processes: number of decoding processes, as in
    `stream_pixels`.
    """

    def prepare(row: int, image: Image.Image) -> Tensor:
        return torch.stack([backbone.preprocess(view(row, image)) for view in views])

    for batch in stream_pixels(paths, prepare, images_per_batch(len(views)), processes=processes):
        tokens = torch.empty(len(views), 0)
        if batch.rows:
            with torch.inference_mode():
                # One view at a time: the device's memory does not grow with the number of views.
                inputs = (view.to(backbone.device) for view in batch.pixels.unbind(1))
                tokens = torch.stack([backbone.encode_tokens(pixels).half().cpu() for pixels in inputs])
        skipped = [
            (row, SkippedImage(image_ids[row], paths[row], reason, row in batch.unreachable))
            for row, reason in batch.unreadable
        ]
        yield EncodedBatch(tokens, batch.rows, batch.sizes, skipped, batch.digests)
        advance(len(batch.rows) + len(batch.unreadable))


def embed_batch(
    model: RetrievalModel, batch: EncodedBatch, image_ids: Sequence[str], with_boxes: bool = True
) -> ImageEmbeddings:
    """Embed an encoded batch, whose views are the model's. with_boxes: as in `embed_images`."""
    sizes = batch.sizes if with_boxes else None
    return embed_parts(model.backbone, model.head, model.views, batch.tokens, image_ids, sizes)


def embed_parts(
    backbone: Backbone,
    head: Head,
    views: Sequence[View],
    tokens: Tensor,
    image_ids: Sequence[str],
    sizes: Sequence[Size] | None = None,
) -> ImageEmbeddings:
    """Embed several parts of each image to the vectors of one image, part by part.

    views: the P parts, not mirrored; tokens: [P, B, T, W] of any float type; sizes: (width, height) in pixels of each
    image, to find a box for each vector too, as fractions of the whole image.
    """
    assert len(tokens) == len(views)
    embedded = [embed_tokens(head, part, image_ids, backbone.device, sizes is not None) for part in tokens]
    boxes = None
    if sizes is not None:
        in_image = [_boxes_in_images(part, backbone, view, sizes) for part, view in zip(embedded, views, strict=True)]
        boxes = _by_image(in_image, len(image_ids))
    vectors = _by_image([part.vectors for part in embedded], len(image_ids))
    return ImageEmbeddings(vectors, embedded[0].offsets * len(views), tuple(image_ids), boxes)


def _by_image(parts: Sequence[Floats], images: int) -> Floats:
    """Reorder P arrays [images * N, D], one for each part, to one [images * P * N, D]."""
    by_part = np.stack([part.reshape(images, -1, part.shape[1]) for part in parts], 1)
    return by_part.reshape(-1, by_part.shape[-1])


def _boxes_in_images(embedded: ImageEmbeddings, backbone: Backbone, view: View, sizes: Sequence[Size]) -> Floats:
    """Convert boxes from fractions of the model's input, which shows a part of each image, to fractions of the images.

    A box is cut where the part ends: what lies beyond may be padding.
    """
    assert embedded.boxes is not None
    windows = [view.window(row, size) for row, size in enumerate(sizes)]
    frames = np.array([backbone.frame(*window.size) for window in windows], np.float32)
    places = np.array([window_fractions(window, size) for window, size in zip(windows, sizes, strict=True)], np.float32)
    counts = np.diff(embedded.offsets)
    return boxes_in_images(boxes_in_images(embedded.boxes, frames.repeat(counts, 0)), places.repeat(counts, 0))


@torch.inference_mode()
def embed_tokens(
    head: Head, tokens: Tensor, image_ids: Sequence[str], device: torch.device, with_boxes: bool = False
) -> ImageEmbeddings:
    """Apply a head to tokens [images, T, W] of any float type. Returns unit float32 vectors.

    with_boxes: also find each vector's region, as fractions of the model's input.
    """
    assert len(image_ids) == len(tokens)
    parts = []
    for k, part in enumerate(tokens.split(BATCH_SIZE)):
        batch, ids = part.to(device, torch.float32), image_ids[k * BATCH_SIZE : (k + 1) * BATCH_SIZE]
        vectors, boxes = head(batch), None
        if with_boxes:
            boxes = region_boxes(head.position_weights(batch).flatten(0, 1).cpu().numpy(), head.grid)
        offsets = np.arange(len(ids) + 1, dtype=np.int64) * vectors.shape[1]
        parts.append(ImageEmbeddings(vectors.flatten(0, 1).cpu().numpy(), offsets, tuple(ids), boxes))
    return concatenate_embeddings(parts)


def concatenate_embeddings(parts: Sequence[ImageEmbeddings]) -> ImageEmbeddings:
    """Concatenate the images of several embeddings. The result has boxes if all parts have them."""
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    boxes = [part.boxes for part in parts if part.boxes is not None]
    return ImageEmbeddings(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        tuple(image_id for part in parts for image_id in part.image_ids),
        np.concatenate(boxes) if len(boxes) == len(parts) else None,
    )
