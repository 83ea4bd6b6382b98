"""The summary head before training: seed its queries, and align its outputs with the target domain if that helps."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from forclip.config import HeadConfig
from forclip.embedding.embed import BATCH_SIZE
from forclip.evaluation.bootstrap import gain_with_bound
from forclip.models.backbone import Backbone
from forclip.models.pools import Pool, fit_alignment
from forclip.models.summary_head import SummaryHead, cluster_seeded_head, noise_seeded_head, window_seeded_head
from forclip.training.class_holdout import labelled_precisions
from forclip.training.supervision import Supervision

_ALIGNMENT_IMAGES = 2000  # enough for a covariance
_CLUSTERED_IMAGES = 128


@dataclass(frozen=True)
class InitialHead:
    """The head that training starts from.

    new_pool: builds another copy of the head's pool. gain: of alignment over no alignment, in mean AP of base classes
    on the labelled training images; None if it was not measured.
    """

    head: SummaryHead
    new_pool: Callable[[], Pool]
    aligned: bool
    gain: float | None = None


def seeded_head(pool: Pool, tokens: Tensor, config: HeadConfig, seed: int) -> SummaryHead:
    """Build an untrained summary head on the pool's device. tokens: [I, T, W], read to seed from clusters only."""
    device = next(pool.parameters()).device
    match config.seeding:
        case "windows":
            head = window_seeded_head(pool, config.num_query_tokens)
        case "noise":
            head = noise_seeded_head(pool, config.num_query_tokens, config.noise_scale, seed)
        case "clusters":
            sample = _sample_evenly(tokens, _CLUSTERED_IMAGES).to(device, torch.float32)
            head = cluster_seeded_head(pool, sample, config.num_query_tokens, seed)
    return head.to(device).eval()


def choose_initial_head(
    backbone: Backbone, tokens: Tensor, supervision: Supervision, config: HeadConfig, seed: int
) -> InitialHead:
    """Build the head with or without alignment: as configured, or whichever ranks the base labels better.

    tokens: [I, T, W] of the training images.
    """
    plain = InitialHead(seeded_head(backbone.new_pool(), tokens, config, seed), backbone.new_pool, aligned=False)
    if config.alignment == "off":
        return plain
    alignment = fit_alignment(
        _pool_outputs(plain.head, _sample_evenly(tokens, _ALIGNMENT_IMAGES)), config.alignment_shrinkage
    )

    def new_aligned_pool() -> Pool:
        pool = backbone.new_pool()
        pool.output = copy.deepcopy(alignment)
        return pool.to(backbone.device)

    aligned = InitialHead(seeded_head(new_aligned_pool(), tokens, config, seed), new_aligned_pool, aligned=True)
    if config.alignment == "on":
        return aligned
    precisions = [labelled_precisions(initial.head, tokens, supervision) for initial in (aligned, plain)]
    gain, _ = gain_with_bound(*precisions)
    return replace(aligned if gain > 0 else plain, gain=gain)


@torch.no_grad()
def _pool_outputs(head: SummaryHead, tokens: Tensor) -> Tensor:
    """Return the outputs before normalisation. [I, T, W] -> [I * N, D] on the CPU."""
    device = head.offsets.device
    parts = [head.outputs(batch.to(device, torch.float32)).flatten(0, 1).cpu() for batch in tokens.split(BATCH_SIZE)]
    return torch.cat(parts)


def _sample_evenly(tokens: Tensor, max_images: int) -> Tensor:
    if len(tokens) <= max_images:
        return tokens
    return tokens[torch.from_numpy(np.linspace(0, len(tokens) - 1, max_images).astype(np.int64))]
