"""Embed images: files -> backbone tokens, which several heads can share -> image embeddings."""

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
    """The tokens of a set of images, encoded once for all heads.

    tokens: [images, T, W] or, for several views, [views, images, T, W]; float16 on the CPU, in memory or mapped from a
    file. rows: [images], indices into the given paths. skipped: the unreadable images. seconds: spent encoding.
    """

    tokens: Tensor
    rows: Ints
    skipped: tuple[SkippedImage, ...]
    seconds: float


@dataclass(frozen=True)
class EncodedBatch:
    """The tokens of one batch of images.

    tokens: [views, B, T, W], float16 on the CPU. rows: B indices into the given paths. sizes: (width, height) in
    pixels of each image, upright. skipped: index and reason of each unreadable image.
    """

    tokens: Tensor
    rows: list[int]
    sizes: list[tuple[int, int]]
    skipped: list[tuple[int, SkippedImage]]


def embed_images(
    model: RetrievalModel, paths: Sequence[Path], with_boxes: bool = True
) -> tuple[ImageEmbeddings, tuple[SkippedImage, ...]]:
    """Embed image files. Their paths are the image ids.

    Returns the embeddings, unit float32 vectors, and the images that could not be read. with_boxes: also return a box
    for each vector, the region of the image that it comes from: xyxy as fractions of the image's width and height.
    Raises ValueError if no image can be read.
    """
    ids = [str(path) for path in paths]
    batches = list(encode_batches(model.backbone, ids, paths, [PLAIN]))
    parts = [embed_batch(model, batch, [ids[row] for row in batch.rows], with_boxes) for batch in batches if batch.rows]
    if not parts:
        raise ValueError(f"none of {len(paths)} images can be read")
    return concatenate_embeddings(parts), tuple(image for batch in batches for _, image in batch.skipped)


def encode_images(
    backbone: Backbone, image_ids: Sequence[str], paths: Sequence[Path], advance: Advance = silent
) -> EncodedImages:
    """Decode, preprocess and encode image files. Unreadable images are skipped and listed."""
    encoded = encode_views(backbone, image_ids, paths, [PLAIN], advance)
    return replace(encoded, tokens=encoded.tokens[0])


def encode_views(
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Path],
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
    return EncodedImages(tokens, rows, skipped, time.perf_counter() - start)


def encode_batches(
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Path],
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

    for batch in stream_pixels(paths, prepare, BATCH_SIZE, processes=processes):
        tokens = torch.empty(len(views), 0)
        if batch.rows:
            with torch.inference_mode():
                # One view at a time: the device's memory does not grow with the number of views.
                inputs = (view.to(backbone.device) for view in batch.pixels.unbind(1))
                tokens = torch.stack([backbone.encode_tokens(pixels).half().cpu() for pixels in inputs])
        skipped = [(row, SkippedImage(image_ids[row], paths[row], reason)) for row, reason in batch.unreadable]
        yield EncodedBatch(tokens, batch.rows, batch.sizes, skipped)
        advance(len(batch.rows) + len(batch.unreadable))


def embed_batch(
    model: RetrievalModel, batch: EncodedBatch, image_ids: Sequence[str], with_boxes: bool = True
) -> ImageEmbeddings:
    """Embed the first view of an encoded batch. with_boxes: as in `embed_images`."""
    embeddings = embed_tokens(model.head, batch.tokens[0], image_ids, model.backbone.device, with_boxes)
    return with_boxes_in_images(embeddings, model.backbone, batch.sizes) if with_boxes else embeddings


@torch.inference_mode()
def embed_tokens(
    head: Head, tokens: Tensor, image_ids: Sequence[str], device: torch.device, with_boxes: bool = False
) -> ImageEmbeddings:
    """Apply a head to tokens [images, T, W] of any float type. Returns unit float32 vectors.

    with_boxes: also find each vector's region, as fractions of the model's input; `with_boxes_in_images` converts
    them to fractions of the images.
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


def with_boxes_in_images(
    embeddings: ImageEmbeddings, backbone: Backbone, sizes: Sequence[tuple[int, int]]
) -> ImageEmbeddings:
    """Convert boxes from fractions of the model's input to fractions of the images. sizes: (width, height), pixels."""
    assert embeddings.boxes is not None
    frames = np.array([backbone.frame(*size) for size in sizes], np.float32)
    return replace(embeddings, boxes=boxes_in_images(embeddings.boxes, frames.repeat(np.diff(embeddings.offsets), 0)))


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


def merge_near_duplicates(embeddings: ImageEmbeddings, cosine: float) -> ImageEmbeddings:
    """Merge each image's near-duplicate vectors.

    A vector that has at least this cosine with an earlier vector that was kept is merged into it. The result keeps the
    order of the kept vectors. A merged vector is the mean of its members, scaled to unit length, and has the box of
    the first member. Raises ValueError for a cosine outside 0..1.
    """
    if not 0 <= cosine <= 1:
        raise ValueError(f"vectors are merged from a cosine within 0..1, not {cosine}")
    spans = zip(embeddings.offsets[:-1].tolist(), embeddings.offsets[1:].tolist(), strict=True)
    groups = [_group_similar(embeddings.vectors[start:end], cosine) for start, end in spans]
    counts = np.array([g.max() + 1 for g in groups], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    targets = np.concatenate([g + start for g, start in zip(groups, offsets[:-1], strict=True)])
    sums = np.zeros((offsets[-1], embeddings.dim), np.float32)
    np.add.at(sums, targets, embeddings.vectors)
    first = np.unique(targets, return_index=True)[1]
    boxes = None if embeddings.boxes is None else embeddings.boxes[first]
    return ImageEmbeddings(sums / np.linalg.norm(sums, axis=1, keepdims=True), offsets, embeddings.image_ids, boxes)


def _group_similar(vectors: Floats, cosine: float) -> Ints:
    """Return the group of each vector; groups are counted in order of appearance."""
    similar = vectors @ vectors.T >= cosine
    group = np.full(len(vectors), -1, np.int64)
    count = 0
    for row in range(len(vectors)):
        if group[row] < 0:
            group[similar[row] & (group < 0)] = count
            group[row] = count  # rounding may leave a vector's cosine with itself below 1
            count += 1
    return group
