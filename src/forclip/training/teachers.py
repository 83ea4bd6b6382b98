"""Teachers: training-free methods that say more of a training image than the summary head's single pass does.

Cluster-CLIP is the paper's. The zoom teacher is ours: the picture's nine overlapping half-size windows, each through
the whole frozen model, so that small objects are looked at as large ones. It costs nine passes, in training alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from forclip.data.images.stream import stream_pixels
from forclip.data.images.views import NUM_CROPS, zoomed_crops
from forclip.embedding.embed import BATCH_SIZE
from forclip.evaluation.bootstrap import gain_with_bound
from forclip.models.backbone import Backbone
from forclip.models.baselines import ClusterHead, Head
from forclip.models.pools import Pool
from forclip.models.summary_head import global_head
from forclip.progress import Advance, Track, silent
from forclip.training.class_holdout import class_precisions, score_images
from forclip.training.losses import max_sim
from forclip.training.supervision import Supervision


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
        for batch in stream_pixels([self.paths[r] for r in rows], prepare, max(1, BATCH_SIZE // NUM_CROPS)):
            if batch.unreadable:
                raise ValueError(f"a training picture can no longer be read: {batch.unreadable[0][1]}")
            tokens = self.backbone.encode_tokens(batch.pixels.flatten(0, 1).to(self.backbone.device))
            parts.append(self.head(tokens.float())[:, 0].unflatten(0, (-1, NUM_CROPS)).cpu())
            advance(len(batch.rows))
        return torch.cat(parts)


_TRIAL_IMAGES = 96  # that a teacher is judged on
_FIRST_PART = 3  # of the trial that a hopeless teacher is dropped after: a third


def choose_teacher(
    candidates: Sequence[Teacher], untuned: Head, tokens: Tensor, known: Supervision, track: Track
) -> tuple[Teacher | None, dict[str, tuple[float, float]]]:
    """The one that ranks a sample of the labelled photos best, if it surely beats the head that is to learn from it.

    tokens: [I, T, W] of the training images, plain. Returns with it each candidate's gain in mean AP of base classes,
    in percent points, and that less a standard error. One that is surely worse on a third of the sample is asked no
    more, since a teacher may cost as much as encoding the sample many times over.
    """
    if not len(known.labelled):
        return None, {}
    rows = known.labelled[np.linspace(0, len(known.labelled) - 1, min(_TRIAL_IMAGES, len(known.labelled))).astype(int)]
    rows = np.concatenate([rows[::_FIRST_PART], np.delete(rows, np.s_[::_FIRST_PART])])  # spread, the first part too
    parts = [part for part in np.split(rows, [-(-len(rows) // _FIRST_PART)]) if len(part)]
    own = score_images(untuned, tokens, torch.from_numpy(rows), known.texts)
    gains: dict[str, tuple[float, float]] = {}
    for teacher in candidates:
        advance = track(f"trying teacher {teacher.name}", len(rows))
        asked: list[Tensor] = []
        for part in parts:
            asked.append(teacher(part.tolist(), advance))
            taught = torch.cat(asked)
            gains[teacher.name] = _gain(taught, own, rows[: len(taught)], known)
            mean, sure = gains[teacher.name]
            if mean + (mean - sure) < 0:
                break
    best = max(candidates, key=lambda teacher: gains[teacher.name][1])
    return (best if gains[best.name][1] > 0 else None), gains


def _gain(taught: Tensor, own: Tensor, rows: np.ndarray, known: Supervision) -> tuple[float, float]:
    """taught: [R, K, D]; own: the untuned head's scores [R or more, C] of the same rows."""
    labels, verified = known.labels[rows], known.verified[rows]
    scores = max_sim(taught, known.texts.cpu())
    reference = class_precisions(own[: len(rows)].numpy(), labels, verified)
    return gain_with_bound(class_precisions(scores.numpy(), labels, verified), reference)
