"""Embed images: files -> vectors in one pass, or -> backbone tokens that several heads can share -> vectors.

Decoding, copies to a GPU, its work, and what follows on the CPU run at the same time, each on another batch.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from forclip.cpu import usable_cores
from forclip.data.images.stream import PixelBatch, stream_pixels
from forclip.data.images.views import PLAIN, Size, View
from forclip.embedding.prefetch import Prefetch
from forclip.embedding.prepare import PrepareViews
from forclip.embedding.regions import boxes_in_images, region_boxes, window_fractions
from forclip.location import Location, as_location
from forclip.models.backbone import Backbone
from forclip.models.baselines import Head
from forclip.models.encoder import CPU_BATCH, Encoder, OnTheWay
from forclip.models.retrieval_model import RetrievalModel
from forclip.progress import Advance, silent
from forclip.types import Floats, ImageEmbeddings, Ints, SkippedImage

BATCH_SIZE = CPU_BATCH
_MOST_INPUTS = 4 * BATCH_SIZE  # preprocessed views of a batch's images, which are in memory at once
_BOX_THREADS, _MAPS_AT_ONCE = 4, 400  # maps that fit into a core's cache
_MOST_DECODING = 16  # threads
_MOST_PROCESSES = 8
_IN_FLIGHT = 1  # batches that a GPU computes while the one before is finished


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
class ReadBatch:
    """A batch of images that were read.

    rows: B indices into the given paths. sizes: (width, height) in pixels of each image, upright. skipped: index and
    reason of each unreadable image. digests: by index, of the content of images at URLs and in shards.
    """

    rows: list[int]
    sizes: list[tuple[int, int]]
    skipped: list[tuple[int, SkippedImage]]
    digests: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedBatch:
    """The tokens of one batch of images: [views, B, T, W], float16 on the CPU. The rest is `ReadBatch`'s."""

    tokens: Tensor
    rows: list[int]
    sizes: list[tuple[int, int]]
    skipped: list[tuple[int, SkippedImage]]


@dataclass(frozen=True)
class EmbeddedBatch:
    """A batch of images and its embeddings, None if none of them can be read."""

    embeddings: ImageEmbeddings | None
    read: ReadBatch


def embed_images(
    model: RetrievalModel,
    paths: Sequence[Location | str],
    with_boxes: bool = True,
    *,
    batch_size: int | None = None,
    processes: int = 0,
) -> tuple[ImageEmbeddings, tuple[SkippedImage, ...]]:
    """Embed image files. Their paths are the image ids.

    paths: of files, or texts as `forclip.location.parse_location` reads them.
    Returns the embeddings, unit float32 vectors, and the images that could not be read. A model with tiles embeds the
    whole of each image first, then its tiles, row by row, all to the same number of vectors. with_boxes: also return a
    box for each vector, the region of the image that it comes from: xyxy as fractions of the image's width and height.
    batch_size: as `Encoder` takes it; processes: that decode, 0 for threads. Raises ValueError if no image can be read.
    """
    if isinstance(paths, str):
        raise ValueError(f"{paths!r}: give a list of paths, such as [{paths!r}]")
    ids, places = [str(path) for path in paths], [as_location(path) for path in paths]
    parts, skipped = [], list[SkippedImage]()
    encoder = Encoder(model.backbone, batch_size)
    for batch in embed_batches(encoder, model, ids, places, processes=processes, with_boxes=with_boxes):
        skipped += [image for _, image in batch.read.skipped]
        if batch.embeddings is not None:
            parts.append(batch.embeddings)
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


def images_per_batch(views: int, batch_size: int = BATCH_SIZE) -> int:
    """How many images are decoded as one batch, each in so many views. batch_size: of the encoder."""
    return min(batch_size, max(1, max(batch_size, _MOST_INPUTS) // views))


def processes_for(gpus: int) -> int:
    """How many processes decode for each of a machine's GPUs."""
    return min(_MOST_PROCESSES, max(1, usable_cores() // gpus))


def encode_batches(
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Location],
    views: Sequence[View],
    advance: Advance = silent,
) -> Iterator[EncodedBatch]:
    """Encode image files to tokens batch by batch, for sets that do not fit into memory.

    A batch lacks its unreadable images and may be empty. Threads decode for a CPU, and processes for a GPU.
    """
    encoder = Encoder(backbone)
    processes = processes_for(torch.cuda.device_count()) if encoder.device.type == "cuda" else 0
    encoder.fit(None, _any_pixels(backbone))
    stream = _stream(encoder, paths, views, processes)
    for batch, encoded in _overlap(encoder, encoder.encode, stream):
        tokens = torch.empty(len(views), 0)
        if encoded is not None:
            (of_inputs,) = encoded.wait()
            tokens = of_inputs.unflatten(0, (-1, len(views))).transpose(0, 1)
        read = _described(batch, image_ids, paths)
        yield EncodedBatch(tokens, read.rows, read.sizes, read.skipped)
        advance(len(read.rows) + len(read.skipped))


def embed_batches(
    encoder: Encoder,
    model: RetrievalModel,
    image_ids: Sequence[str],
    paths: Sequence[Location],
    advance: Advance = silent,
    processes: int = 0,
    with_boxes: bool = True,
) -> Iterator[EmbeddedBatch]:
    """Embed image files batch by batch. A batch lacks its unreadable images.

    encoder: of the model's backbone; processes, with_boxes: as in `embed_images`.
    """
    encoder.fit(model.head, _any_pixels(model.backbone))
    stream = _stream(encoder, paths, model.views, processes)
    for batch, embeddings in embed_pixels(encoder, model, stream, image_ids, with_boxes):
        read = _described(batch, image_ids, paths)
        yield EmbeddedBatch(embeddings, read)
        advance(len(read.rows) + len(read.skipped))


def embed_pixels(
    encoder: Encoder,
    model: RetrievalModel,
    batches: Iterator[PixelBatch],
    image_ids: Sequence[str],
    with_boxes: bool = True,
) -> Iterator[tuple[PixelBatch, ImageEmbeddings | None]]:
    """Embed batches of pixels [B, views, 3, H, W]. Of an empty batch there are no embeddings.

    Each batch comes back without its pixels, after the device has got the next one.
    """

    def embed(pixels: Tensor) -> OnTheWay:
        return encoder.embed(model.head, pixels, with_boxes)

    for batch, embedded in _overlap(encoder, embed, batches):
        if embedded is None:
            yield batch, None
            continue
        vectors, *weights = embedded.wait()
        count = len(model.views) * vectors.shape[1]  # of an image: part by part
        offsets = np.arange(len(batch.rows) + 1, dtype=np.int64) * count
        ids = tuple(image_ids[row] for row in batch.rows)
        boxes = None
        if with_boxes:
            boxes = _boxes_in_images(model.backbone, model.head, model.views, weights[0], batch.sizes)
        yield batch, ImageEmbeddings(vectors.flatten(0, 1).numpy(), offsets, ids, boxes)


def _any_pixels(backbone: Backbone) -> Tensor:
    return backbone.preprocess(Image.new("RGB", (8, 8)))


def _stream(encoder: Encoder, paths: Sequence[Location], views: Sequence[View], processes: int) -> Iterator[PixelBatch]:
    """Read images in all views: [B, views, 3, H, W]."""
    prepare = PrepareViews(encoder.backbone, views)
    count = images_per_batch(len(views), encoder.batch_size)
    shape = (len(views), *_any_pixels(encoder.backbone).shape)
    threads = min(_MOST_DECODING, max(2, torch.get_num_threads()))
    return stream_pixels(paths, prepare, count, threads, processes, reduce=prepare.reduction, shape=shape)


def _overlap(
    encoder: Encoder, run: Callable[[Tensor], OnTheWay], batches: Iterator[PixelBatch]
) -> Iterator[tuple[PixelBatch, OnTheWay | None]]:
    """Run batches on the device, all views of an image after each other, while others are read and finished."""
    started: deque[tuple[PixelBatch, OnTheWay | None]] = deque()
    in_flight = _IN_FLIGHT if encoder.device.type == "cuda" else 0  # a CPU has finished what was run
    with Prefetch(batches, encoder.device) as prefetched:
        for batch in prefetched:
            result = run(batch.pixels.flatten(0, 1)) if batch.rows else None
            started.append((replace(batch, pixels=torch.empty(0)), result))
            if len(started) > in_flight:
                yield started.popleft()
    yield from started


def _described(batch: PixelBatch, image_ids: Sequence[str], paths: Sequence[Location]) -> ReadBatch:
    skipped = [
        (row, SkippedImage(image_ids[row], paths[row], reason, row in batch.unreachable))
        for row, reason in batch.unreadable
    ]
    return ReadBatch(batch.rows, batch.sizes, skipped, batch.digests)


def find_boxes(backbone: Backbone, head: Head, view: View, tokens: Tensor, sizes: Sequence[Size]) -> Floats:
    """Find a box for each vector of a head, from tokens [images, T, W] of one view: [images * N, 4], as fractions.

    sizes: (width, height) in pixels of each image.
    """
    _, weights = Encoder(backbone).embed_tokens(head, tokens, with_weights=True).wait()
    return _boxes_in_images(backbone, head, (view,), weights, sizes)


def _boxes_in_images(
    backbone: Backbone, head: Head, views: Sequence[View], weights: Tensor, sizes: Sequence[Size]
) -> Floats:
    """Find a box for each vector, as fractions of the images. weights: [images * views, N, P]; returns [total, 4].

    The boxes are found as fractions of the model's input, which shows a part of each image. One is cut where the part
    ends: what lies beyond may be padding.
    """
    of_inputs = map_boxes(weights.flatten(0, 1).numpy(), head.grid)
    windows = [(view.window(row, size), size) for row, size in enumerate(sizes) for view in views]
    frames = np.array([backbone.frame(*window.size) for window, _ in windows], np.float32)
    places = np.array([window_fractions(window, size) for window, size in windows], np.float32)
    count = weights.shape[1]
    return boxes_in_images(boxes_in_images(of_inputs, frames.repeat(count, 0)), places.repeat(count, 0))


def map_boxes(weights: Floats, grid: tuple[int, int]) -> Floats:
    """Find the box of each of many maps [M, P], as `region_boxes`, in several threads."""
    parts = np.array_split(weights, max(1, len(weights) // _MAPS_AT_ONCE))
    if len(parts) == 1:
        return region_boxes(weights, grid)
    with ThreadPoolExecutor(min(_BOX_THREADS, len(parts))) as threads:
        return np.concatenate(list(threads.map(lambda part: region_boxes(part, grid), parts)))


def embed_tokens(backbone: Backbone, head: Head, tokens: Tensor, image_ids: Sequence[str]) -> ImageEmbeddings:
    """Apply a head to tokens [images, T, W] of any float type, on any device. Returns unit float32 vectors."""
    assert len(image_ids) == len(tokens)
    (vectors,) = Encoder(backbone).embed_tokens(head, tokens).wait()
    offsets = np.arange(len(tokens) + 1, dtype=np.int64) * vectors.shape[1]
    return ImageEmbeddings(vectors.flatten(0, 1).numpy(), offsets, tuple(image_ids))


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
