"""A model and images -> image embeddings, by way of tokens that several heads can share."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forclip.data.stream import stream_pixels
from forclip.models.backbone import Backbone
from forclip.models.baselines import Head
from forclip.models.retrieval_model import RetrievalModel
from forclip.places import place_boxes
from forclip.progress import Advance, silent
from forclip.types import Floats, ImageEmbeddings, Ints, SkippedImage

BATCH_SIZE = 64


@dataclass(frozen=True)
class EncodedImages:
    """What a frozen backbone says of images, once for all heads.

    tokens: [images, T, W] float16 on the CPU; rows: which of the given paths they are; seconds: spent in all.
    """

    tokens: Tensor
    rows: Ints
    skipped: tuple[SkippedImage, ...]
    seconds: float


@torch.inference_mode()
def encode_images(
    backbone: Backbone, image_ids: Sequence[str], paths: Sequence[Path], advance: Advance = silent
) -> EncodedImages:
    """Decodes, preprocesses and encodes. A picture that can't be read is skipped and listed."""
    start = time.perf_counter()
    parts: list[Tensor] = []
    rows: list[int] = []
    skipped: list[SkippedImage] = []
    for batch in stream_pixels(paths, backbone.preprocess, BATCH_SIZE):
        if batch.rows:
            parts.append(backbone.encode_tokens(batch.pixels.to(backbone.device)).half().cpu())
        rows += batch.rows
        skipped += [SkippedImage(image_ids[row], paths[row], reason) for row, reason in batch.unreadable]
        advance(len(batch.rows) + len(batch.unreadable))
    tokens = torch.cat(parts) if parts else torch.empty(0)
    return EncodedImages(tokens, np.array(rows, np.int64), tuple(skipped), time.perf_counter() - start)


def embed_images(
    model: RetrievalModel, paths: Sequence[Path], with_boxes: bool = True
) -> tuple[ImageEmbeddings, tuple[SkippedImage, ...]]:
    """Pictures to embeddings, with the paths as ids; those that can't be read are skipped and listed.

    Raises ValueError where none can be read.
    """
    ids = [str(path) for path in paths]
    encoded = encode_images(model.backbone, ids, paths)
    if not len(encoded.rows):
        raise ValueError(f"none of {len(paths)} pictures can be read")
    kept = [ids[row] for row in encoded.rows]
    found = embed_tokens(model.head, encoded.tokens, kept, model.backbone.device, with_boxes)
    return found, encoded.skipped


@torch.inference_mode()
def embed_tokens(
    head: Head, tokens: Tensor, image_ids: Sequence[str], device: torch.device, with_boxes: bool = False
) -> ImageEmbeddings:
    """tokens: [images, T, W] of these ids, any float type. with_boxes: also find each vector's place."""
    vectors: list[Floats] = []
    boxes: list[Floats] = []
    num_vectors = 0
    for start in range(0, len(tokens), BATCH_SIZE):
        batch = tokens[start : start + BATCH_SIZE].to(device, torch.float32)
        found = head(batch)
        num_vectors = found.shape[1]
        vectors.append(found.flatten(0, 1).cpu().numpy())
        if with_boxes:
            boxes.append(place_boxes(head.places(batch).flatten(0, 1).cpu().numpy(), head.grid))
    offsets = np.arange(len(image_ids) + 1, dtype=np.int64) * num_vectors
    return ImageEmbeddings(
        np.concatenate(vectors), offsets, tuple(image_ids), np.concatenate(boxes) if with_boxes else None
    )
