"""The summary head before training: its queries seeded, its outputs aligned with the target domain where that helps."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from forclip.config import HeadConfig
from forclip.embedding.embed import BATCH_SIZE
from forclip.evaluation.bootstrap import gain_with_bound
from forclip.models.alignment import fit_alignment
from forclip.models.backbone import Backbone
from forclip.models.pools import Pool
from forclip.models.summary_head import SummaryHead, cluster_seeded_head, noise_seeded_head, window_seeded_head
from forclip.training.class_holdout import labelled_precisions
from forclip.training.supervision import Supervision

_MOST_IMAGES = 2000  # that an alignment is fitted to: its covariance needs no more

_CLUSTERED_IMAGES = 128  # that queries are seeded from


@dataclass(frozen=True)
class Start:
    """new_pool: a fresh copy of the pool that head starts with; gain: of alignment over none, mean AP of base classes
    on the labelled training photos, or None where that was not asked."""

    head: SummaryHead
    new_pool: Callable[[], Pool]
    aligned: bool
    gain: float | None


def seeded_head(pool: Pool, tokens: Tensor, config: HeadConfig, seed: int) -> SummaryHead:
    """Before any training, on the pool's device. tokens: [I, T, W] of the training images, for clusters alone."""
    return _seeded(pool, tokens, config, seed).to(next(pool.parameters()).device).eval()


def _seeded(pool: Pool, tokens: Tensor, config: HeadConfig, seed: int) -> SummaryHead:
    match config.seeding:
        case "windows":
            return window_seeded_head(pool, config.num_query_tokens)
        case "noise":
            return noise_seeded_head(pool, config.num_query_tokens, config.noise_scale, seed)
        case "clusters":
            device = next(pool.parameters()).device
            sample = _spread(tokens, _CLUSTERED_IMAGES).to(device, torch.float32)
            return cluster_seeded_head(pool, sample, config.num_query_tokens, seed)


def untuned_head(backbone: Backbone, tokens: Tensor, config: HeadConfig, seed: int) -> SummaryHead:
    """The training-free summary head, without alignment, on the backbone's device. tokens: as seeded_head's."""
    return seeded_head(backbone.new_pool(), tokens, config, seed)


def choose_start(backbone: Backbone, tokens: Tensor, supervision: Supervision, config: HeadConfig, seed: int) -> Start:
    """tokens: [I, T, W] of the training images. Aligned or not, as the config says or the base labels decide."""
    plain = Start(untuned_head(backbone, tokens, config, seed), backbone.new_pool, False, None)
    if config.alignment == "off":
        return plain
    output = fit_alignment(_outputs(plain.head, _spread(tokens, _MOST_IMAGES)), config.alignment_shrinkage)
    aligned = _aligned(backbone, tokens, output, config, seed)
    if config.alignment == "on":
        return aligned
    precisions = [labelled_precisions(start.head, tokens, supervision) for start in (aligned, plain)]
    gain, _ = gain_with_bound(*precisions)
    chosen = aligned if gain > 0 else plain
    return Start(chosen.head, chosen.new_pool, chosen.aligned, gain)


def _aligned(backbone: Backbone, tokens: Tensor, output: nn.Linear, config: HeadConfig, seed: int) -> Start:
    def new_pool() -> Pool:
        pool = backbone.new_pool()
        pool.output = copy.deepcopy(output)
        return pool.to(backbone.device)

    return Start(seeded_head(new_pool(), tokens, config, seed), new_pool, True, None)


@torch.no_grad()
def _outputs(head: SummaryHead, tokens: Tensor) -> Tensor:
    """What the pool gives before normalisation. [I, T, W] -> [I x N, D] on the CPU."""
    device = head.offsets.device
    parts = [head.outputs(batch.to(device, torch.float32)).flatten(0, 1).cpu() for batch in tokens.split(BATCH_SIZE)]
    return torch.cat(parts)


def _spread(tokens: Tensor, most: int) -> Tensor:
    """At most so many images, evenly taken."""
    if len(tokens) <= most:
        return tokens
    return tokens[torch.from_numpy(np.linspace(0, len(tokens) - 1, most).astype(np.int64))]
