"""Teachers: training-free methods that say more of a training image than the summary head's single pass does.

Cluster-CLIP is the paper's. The zoom teacher is ours: the picture's nine overlapping half-size windows, each through
the whole frozen model, so that small objects are looked at as large ones. It costs nine passes, in training alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from forclip.data.stream import stream_prepared
from forclip.data.zoom import NUM_CROPS, zoomed_crops
from forclip.embedding import BATCH_SIZE
from forclip.models.backbone import Backbone
from forclip.models.baselines import ClusterHead
from forclip.models.pools import Pool
from forclip.models.summary_head import global_head
from forclip.progress import Advance, silent


class Teacher(Protocol):
    """What training images look like to a teacher."""

    name: str

    def __call__(self, rows: Sequence[int], advance: Advance = silent) -> Tensor:
        """Unit vectors [rows, K, D] float32 on the CPU of these training images."""
        ...


class ClusterTeacher:
    """Cluster-CLIP on the images' tokens."""

    name = "cluster"

    def __init__(self, pool: Pool, tokens: Tensor, num_clusters: int, device: torch.device) -> None:
        """pool: the untuned one; tokens: [I, T, W]."""
        self.head = ClusterHead(pool, min(num_clusters, pool.num_positions))
        self.tokens, self.device = tokens, device

    @torch.no_grad()  # not inference_mode: training saves the result for its backward pass
    def __call__(self, rows: Sequence[int], advance: Advance = silent) -> Tensor:
        parts = []
        for batch in torch.as_tensor(rows, dtype=torch.int64).split(BATCH_SIZE):
            parts.append(self.head(self.tokens[batch].to(self.device, torch.float32)).cpu())
            advance(len(batch))
        return torch.cat(parts)


class ZoomTeacher:
    """CLIP's own embedding of each of nine overlapping windows of the picture."""

    name = "zoom"

    def __init__(self, backbone: Backbone, pool: Pool, paths: Sequence[Path]) -> None:
        """pool: the untuned one, on the backbone's device; paths: of the training images, in the tokens' order."""
        self.backbone, self.paths = backbone, paths
        self.head = global_head(pool).to(backbone.device).eval()

    @torch.no_grad()
    def __call__(self, rows: Sequence[int], advance: Advance = silent) -> Tensor:
        """Raises ValueError for a picture that can no longer be read."""

        def prepare(row: int, image: Image.Image) -> Tensor:
            return torch.stack([self.backbone.preprocess(crop) for crop in zoomed_crops(image)])

        parts = []
        for batch in stream_prepared([self.paths[r] for r in rows], prepare, max(1, BATCH_SIZE // NUM_CROPS)):
            if batch.unreadable:
                raise ValueError(f"a training picture can no longer be read: {batch.unreadable[0][1]}")
            tokens = self.backbone.encode_tokens(batch.pixels.flatten(0, 1).to(self.backbone.device))
            parts.append(self.head(tokens.float())[:, 0].unflatten(0, (-1, NUM_CROPS)).cpu())
            advance(len(batch.rows))
        return torch.cat(parts)
