"""Teachers: training-free methods whose vectors the summary head imitates.

The head before training is a teacher too: it knows what training would forget. Cluster-CLIP is the paper's. The zoom
teacher is ours: it encodes nine overlapping half-size windows of the image, so that small objects become large ones,
at the cost of nine passes per training image.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from forclip.data.images.stream import stream_pixels
from forclip.data.images.tiles import Tiles
from forclip.distributed import broadcast, gather_rows
from forclip.embedding.embed import BATCH_SIZE
from forclip.embedding.prepare import PrepareViews
from forclip.embedding.row_shards import Rows, own_part
from forclip.location import Location
from forclip.models.backbone import Backbone
from forclip.models.pools import Pool
from forclip.models.summary_head import SummaryHead, global_head
from forclip.progress import Advance, silent
from forclip.training.gains import Gain, resample
from forclip.training.losses import max_sim
from forclip.training.score_images import pooled_outputs, run_on_own_rows, score_shares
from forclip.training.supervision import Supervision

TRIAL_IMAGES = 96  # labelled images that teachers are compared on
_ZOOM = Tiles(3, 3)
_FIRST_PART = 3  # a teacher that is clearly worse on the first third of them is dropped


# Takes rows of training images, and returns unit vectors [V, rows, K, D] for the student to imitate, on the CPU. V is
# the number of views, or 1 if all views of an image have the same. The rows are in this worker's part.
Teacher = Callable[[Sequence[int], Advance], Tensor]


class HeadTeacher:
    """A frozen head on the tokens of each view: Cluster-CLIP, or the head before training."""

    def __init__(self, head: Callable[[Tensor], Tensor], tokens: Rows, device: torch.device) -> None:
        """tokens: [V, I, T, W]; device: the head's."""
        self.head, self.tokens, self.device = head, tokens, device

    def __call__(self, rows: Sequence[int], advance: Advance = silent) -> Tensor:
        indices = torch.as_tensor(rows, dtype=torch.int64)
        everything, views = torch.arange(len(indices)), []
        for view in self.tokens:
            views.append(torch.cat(run_on_own_rows(self.head, view, indices, everything, self.device)).half())
        advance(len(indices))
        return torch.stack(views)


class ZoomTeacher:
    """CLIP's pooled embedding of each of nine overlapping windows of the image."""

    def __init__(self, backbone: Backbone, pool: Pool, paths: Sequence[Location]) -> None:
        """pool: an untuned one, on the backbone's device; paths: of the training images, in the order of the tokens."""
        self.backbone, self.paths = backbone, paths
        self.head = global_head(pool).to(backbone.device).eval()

    @torch.no_grad()  # not inference_mode: training saves the result for its backward pass
    def __call__(self, rows: Sequence[int], advance: Advance = silent) -> Tensor:
        """Raises ValueError for an image that can no longer be read."""

        tiles, paths = _ZOOM.tile_views(), [self.paths[r] for r in rows]
        prepare = PrepareViews(self.backbone, tiles)
        parts, size = [], max(1, BATCH_SIZE // len(tiles))
        for batch in stream_pixels(paths, prepare, size, reduce=prepare.reduction):
            if batch.unreadable:
                raise ValueError(f"a training image can no longer be read: {batch.unreadable[0][1]}")
            tokens = self.backbone.encode_tokens(batch.pixels.flatten(0, 1).to(self.backbone.device))
            parts.append(self.head(tokens.float())[:, 0].unflatten(0, (-1, len(tiles))).cpu())
            advance(len(batch.rows))
        return torch.cat(parts)[None]


def measure_teacher(
    teacher: Teacher, start: SummaryHead, tokens: Rows, supervision: Supervision, seed: int, advance: Advance = silent
) -> Gain:
    """Return how much better a teacher of whole images ranks the base classes than the start.

    Measured on a sample of the labelled images; a teacher that is clearly worse on the first third of them is not run
    on the rest. tokens: [P, I, T, W].
    """
    rows = supervision.sample_labelled(TRIAL_IMAGES, seed)
    # Every third image comes first, so that the first part is spread over the data as well.
    rows = np.concatenate([rows[::_FIRST_PART], np.delete(rows, np.s_[::_FIRST_PART])])
    labels, verified, share = supervision.labels[rows], supervision.verified[rows], float(start.pooled_share)
    (start_scores,) = score_shares(
        start, pooled_outputs(start, tokens, rows), tokens, rows, supervision.texts, [share]
    ).values()
    outputs: list[Tensor] = []
    gain = Gain(0.0, 0.0)
    for part in (p for p in np.split(rows, [-(-len(rows) // _FIRST_PART)]) if len(p)):
        own = own_part(tokens, torch.from_numpy(part))
        of_part = [teacher(part[own.numpy()].tolist(), advance)[0]] if len(own) else []
        outputs.append(gather_rows(of_part, own, len(part)))
        scores = max_sim(torch.cat(outputs).float(), supervision.texts.cpu()).numpy()
        compared = [
            resample(s[: len(scores)], labels[: len(scores)], verified[: len(scores)], seed)
            for s in (scores, start_scores)
        ]
        gain = broadcast(compared[0].gain_over(compared[1]))
        if gain.mean + gain.deviation < 0:
            break
    return gain
