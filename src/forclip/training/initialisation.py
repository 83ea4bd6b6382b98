"""The summary head before training: its queries, alignment to the domain, and plain CLIP's share in each vector."""

import numpy as np
import torch
from torch import Tensor

from forclip.config import HeadConfig
from forclip.distributed import broadcast
from forclip.embedding.row_shards import Rows, one_view, read_rows
from forclip.models.backbone import Backbone
from forclip.models.pools import Pool, fit_alignment
from forclip.models.summary_head import SummaryHead, cluster_seeded_head, noise_seeded_head, window_seeded_head
from forclip.training.gains import Gain, Resampled, resample
from forclip.training.score_images import (
    FEWEST_MEASURED,
    MOST_MEASURED,
    SHARES,
    pooled_outputs,
    run_in_batches,
    score_shares,
)
from forclip.training.supervision import Supervision

_ALIGNMENT_IMAGES = 2000  # enough for a covariance
_CLUSTERED_IMAGES = 128
_WORTH = 0.1  # percent points that alignment or a larger share must gain over the simpler head


def seeded_head(pool: Pool, tokens: Rows, config: HeadConfig, seed: int) -> SummaryHead:
    """Build an untrained summary head on the pool's device. tokens: [I, T, W], read to seed from clusters only."""
    device = next(pool.parameters()).device
    match config.seeding:
        case "windows":
            head = window_seeded_head(pool, config.num_query_tokens)
        case "noise":
            head = noise_seeded_head(pool, config.num_query_tokens, config.noise_scale, seed)
        case "clusters":
            sample = read_rows(tokens, _sample_evenly(tokens, _CLUSTERED_IMAGES)).to(device, torch.float32)
            head = cluster_seeded_head(pool, sample, config.num_query_tokens, seed)
    return head.to(device).eval()


def choose_initial_head(
    backbone: Backbone, tokens: Rows, supervision: Supervision, config: HeadConfig, seed: int
) -> tuple[SummaryHead, dict[str, Gain]]:
    """Build the head with the alignment and the share of plain CLIP that rank the base labels best.

    Nothing is trained yet, so the base classes show how the head ranks classes that it never saw. tokens: [P, I, T, W],
    the P parts of each training image. Returns also the gain of each choice over the simplest one, in mean AP of base
    classes on labelled training images; empty if there was nothing to choose, or too few labels to choose by.
    """
    plain = seeded_head(backbone.new_pool(), one_view(tokens, 0), config, seed)
    heads = {"off": plain} if config.alignment in ("auto", "off") else {}
    if config.alignment in ("auto", "on"):
        heads["on"] = _aligned_head(backbone, plain, tokens, config, seed)
    shares = SHARES if config.pooled_share is None else (config.pooled_share,)
    gains: dict[str, Gain] = {}
    best = next(iter(heads)), shares[0]
    if len(heads) * len(shares) > 1 and supervision.compares_images and len(supervision.labelled) >= FEWEST_MEASURED:
        rows = supervision.sample_labelled(MOST_MEASURED // len(tokens), seed)
        texts = supervision.texts
        reference: Resampled | None = None
        for name, head in heads.items():
            pooled = pooled_outputs(head, tokens, rows)
            for share, scores in score_shares(head, pooled, tokens, rows, texts, shares).items():
                resampled = resample(scores, supervision.labels[rows], supervision.verified[rows], seed)
                reference = reference or resampled
                gains[f"alignment {name}, share {share:g}"] = gain = resampled.gain_over(reference)
                if gain.shrunk > gains[f"alignment {best[0]}, share {best[1]:g}"].shrunk + _WORTH:
                    best = name, share
    best = broadcast(best)
    return heads[best[0]].with_share(best[1]).eval(), gains


def _aligned_head(backbone: Backbone, plain: SummaryHead, tokens: Rows, config: HeadConfig, seed: int) -> SummaryHead:
    rows = _sample_evenly(one_view(tokens, 0), max(1, _ALIGNMENT_IMAGES // len(tokens)))
    outputs = [run_in_batches(plain.outputs, part, rows, plain.offsets.device) for part in tokens]
    pool = backbone.new_pool()
    pool.output = fit_alignment(torch.cat(outputs).flatten(0, 1), config.alignment_shrinkage)
    return seeded_head(pool.to(backbone.device), one_view(tokens, 0), config, seed)


def _sample_evenly(tokens: Rows, max_images: int) -> Tensor:
    return torch.from_numpy(np.linspace(0, len(tokens) - 1, min(max_images, len(tokens))).astype(np.int64))
