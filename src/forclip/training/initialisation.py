"""The summary head before training: seed its queries, and align its outputs with the target domain if that helps."""

import numpy as np
import torch
from torch import Tensor

from forclip.config import HeadConfig
from forclip.evaluation.metrics import gain_with_bound
from forclip.models.backbone import Backbone
from forclip.models.pools import Pool, fit_alignment
from forclip.models.summary_head import SummaryHead, cluster_seeded_head, noise_seeded_head, window_seeded_head
from forclip.training.class_holdout import labelled_precisions, run_in_batches
from forclip.training.supervision import Supervision

_ALIGNMENT_IMAGES = 2000  # enough for a covariance
_CLUSTERED_IMAGES = 128


def seeded_head(pool: Pool, tokens: Tensor, config: HeadConfig, seed: int) -> SummaryHead:
    """Build an untrained summary head on the pool's device. tokens: [I, T, W], read to seed from clusters only."""
    device = next(pool.parameters()).device
    match config.seeding:
        case "windows":
            head = window_seeded_head(pool, config.num_query_tokens)
        case "noise":
            head = noise_seeded_head(pool, config.num_query_tokens, config.noise_scale, seed)
        case "clusters":
            sample = tokens[_sample_evenly(tokens, _CLUSTERED_IMAGES)].to(device, torch.float32)
            head = cluster_seeded_head(pool, sample, config.num_query_tokens, seed)
    return head.to(device).eval()


def choose_initial_head(
    backbone: Backbone, tokens: Tensor, supervision: Supervision, config: HeadConfig, seed: int
) -> tuple[SummaryHead, float | None]:
    """Build the head with or without alignment: as configured, or whichever ranks the base labels better.

    tokens: [I, T, W] of the training images. Returns also the gain of alignment over no alignment, in mean AP of base
    classes on the labelled training images; None if it was not measured.
    """
    plain = seeded_head(backbone.new_pool(), tokens, config, seed)
    if config.alignment == "off":
        return plain, None
    rows = _sample_evenly(tokens, _ALIGNMENT_IMAGES)
    outputs = run_in_batches(lambda batch: plain.outputs(batch).flatten(0, 1), tokens, rows, plain.offsets.device)
    pool = backbone.new_pool()
    pool.output = fit_alignment(outputs, config.alignment_shrinkage)
    aligned = seeded_head(pool.to(backbone.device), tokens, config, seed)
    if config.alignment == "on":
        return aligned, None
    gain, _ = gain_with_bound(*(labelled_precisions(head, tokens, supervision) for head in (aligned, plain)))
    return (aligned if gain > 0 else plain), gain


def _sample_evenly(tokens: Tensor, max_images: int) -> Tensor:
    return torch.from_numpy(np.linspace(0, len(tokens) - 1, min(max_images, len(tokens))).astype(np.int64))
