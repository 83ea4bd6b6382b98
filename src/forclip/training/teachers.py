"""Teachers: training-free methods that see more in a training image than a single pass of the summary head.

Cluster-CLIP is the paper's. The zoom teacher is ours: it encodes nine overlapping half-size windows of the image, so
that small objects become large ones, at the cost of nine passes per training image.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from forclip.data.images.stream import stream_pixels
from forclip.data.images.tiles import Tiles
from forclip.embedding.embed import BATCH_SIZE
from forclip.evaluation.metrics import gain_with_bound
from forclip.models.backbone import Backbone
from forclip.models.baselines import ClusterHead, Head
from forclip.models.pools import Pool
from forclip.models.summary_head import global_head
from forclip.progress import Advance, Track, silent
from forclip.training.class_holdout import Gain, class_precisions, run_in_batches, score_images
from forclip.training.losses import max_sim
from forclip.training.supervision import Supervision

_TRIAL_IMAGES = 96  # labelled images that teachers are compared on
_ZOOM = Tiles(3, 3)
_FIRST_PART = 3  # a teacher that is clearly worse on the first third of them is dropped


# Takes rows of training images, and returns unit vectors [rows, K, D], float32 on the CPU, for the student to imitate.
Teacher = Callable[[Sequence[int], Advance], Tensor]


class ClusterTeacher:
    """Cluster-CLIP on the images' tokens."""

    def __init__(self, pool: Pool, tokens: Tensor, num_clusters: int, device: torch.device) -> None:
        """pool: an untuned one; tokens: [I, T, W]. There are at most as many clusters as positions."""
        self.head = ClusterHead(pool, min(num_clusters, pool.num_positions))
        self.tokens, self.device = tokens, device

    def __call__(self, rows: Sequence[int], advance: Advance = silent) -> Tensor:
        return run_in_batches(self.head, self.tokens, torch.as_tensor(rows, dtype=torch.int64), self.device, advance)


class ZoomTeacher:
    """CLIP's pooled embedding of each of nine overlapping windows of the image."""

    def __init__(self, backbone: Backbone, pool: Pool, paths: Sequence[Path]) -> None:
        """pool: an untuned one, on the backbone's device; paths: of the training images, in the order of the tokens."""
        self.backbone, self.paths = backbone, paths
        self.head = global_head(pool).to(backbone.device).eval()

    @torch.no_grad()  # not inference_mode: training saves the result for its backward pass
    def __call__(self, rows: Sequence[int], advance: Advance = silent) -> Tensor:
        """Raises ValueError for an image that can no longer be read."""

        tiles = _ZOOM.tile_views()

        def prepare(row: int, image: Image.Image) -> Tensor:
            return torch.stack([self.backbone.preprocess(tile(row, image)) for tile in tiles])

        parts = []
        for batch in stream_pixels([self.paths[r] for r in rows], prepare, max(1, BATCH_SIZE // len(tiles))):
            if batch.unreadable:
                raise ValueError(f"a training image can no longer be read: {batch.unreadable[0][1]}")
            tokens = self.backbone.encode_tokens(batch.pixels.flatten(0, 1).to(self.backbone.device))
            parts.append(self.head(tokens.float())[:, 0].unflatten(0, (-1, len(tiles))).cpu())
            advance(len(batch.rows))
        return torch.cat(parts)


def choose_teacher(
    candidates: Mapping[str, Teacher], untuned: Head, tokens: Tensor, supervision: Supervision, track: Track
) -> tuple[str | None, dict[str, Gain]]:
    """Choose the teacher that ranks a sample of the labelled images best, or None if none beats the untuned head.

    Compares each mean gain over classes minus its standard error. candidates: by name; tokens: [I, T, W].
    Returns the teacher's name, and the gain of each candidate over the untuned head. A teacher that is worse by more
    than a standard error on the first third of the sample is not run on the rest.
    """
    labelled = supervision.labelled
    if not len(labelled):
        return None, {}
    rows = labelled[np.linspace(0, len(labelled) - 1, min(_TRIAL_IMAGES, len(labelled))).astype(int)]
    # Every third image comes first, so that the first part is spread over the data as well.
    rows = np.concatenate([rows[::_FIRST_PART], np.delete(rows, np.s_[::_FIRST_PART])])
    parts = [part for part in np.split(rows, [-(-len(rows) // _FIRST_PART)]) if len(part)]
    labels, verified = supervision.labels[rows], supervision.verified[rows]
    untuned_scores = score_images(untuned, tokens, torch.from_numpy(rows), supervision.texts).numpy()
    gains: dict[str, Gain] = {}
    for name, teacher in candidates.items():
        advance = track(f"trying teacher {name}", len(rows))
        outputs: list[Tensor] = []
        for part in parts:
            outputs.append(teacher(part.tolist(), advance))
            vectors = torch.cat(outputs)
            seen = slice(len(vectors))
            scores = max_sim(vectors, supervision.texts.cpu()).numpy()
            gain, bound = gains[name] = gain_with_bound(
                class_precisions(scores, labels[seen], verified[seen]),
                class_precisions(untuned_scores[seen], labels[seen], verified[seen]),
            )
            if gain + (gain - bound) < 0:
                break
    best = max(candidates, key=lambda name: gains[name][1])
    return (best if gains[best][1] > 0 else None), gains
