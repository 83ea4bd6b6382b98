"""Cluster-CLIP as the teacher: its vectors for every training image, made once, before training."""

import torch
from torch import Tensor

from forclip.embedding import BATCH_SIZE
from forclip.models.baselines import ClusterHead
from forclip.models.pools import Pool
from forclip.progress import Advance, silent


@torch.no_grad()  # not inference_mode: training saves the result for its backward pass
def teacher_vectors(
    pool: Pool, tokens: Tensor, num_clusters: int, device: torch.device, advance: Advance = silent
) -> Tensor:
    """pool: the untuned one; tokens: [I, T, W]. Returns unit vectors [I, K, D] float32 on the CPU."""
    teacher = ClusterHead(pool, min(num_clusters, pool.num_positions))
    parts = []
    for start in range(0, len(tokens), BATCH_SIZE):
        batch = tokens[start : start + BATCH_SIZE].to(device, torch.float32)
        parts.append(teacher(batch).cpu())
        advance(len(batch))
    return torch.cat(parts)
