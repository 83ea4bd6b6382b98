"""Scores of images for texts by a head, also for several shares of plain CLIP's embedding from one pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.embedding.embed import BATCH_SIZE
from forclip.models.summary_head import SummaryHead, global_head
from forclip.progress import Advance, silent
from forclip.training.losses import max_sim
from forclip.types import Floats, Ints

SHARES = (0.0, 0.25, 0.5, 0.75)


def plain_clip(start: SummaryHead) -> SummaryHead:
    """Return plain CLIP with the alignment of a head before training, which shares its pool."""
    return global_head(start.pool if start.pooled is None else start.pooled).to(start.offsets.device).eval()


def pooled_outputs(start: SummaryHead, tokens: Tensor, rows: Ints) -> Tensor:
    """Return plain CLIP's outputs for parts of images: [P, I, T, W] -> [P, rows, 1, D], on the CPU, not normalised."""
    plain, indices = plain_clip(start), torch.from_numpy(rows)
    return torch.stack([run_in_batches(plain.own_outputs, part, indices, start.offsets.device) for part in tokens])


@torch.no_grad()
def score_shares(
    head: SummaryHead, pooled: Tensor, tokens: Tensor, rows: Ints, texts: Tensor, shares: Sequence[float]
) -> dict[float, Floats]:
    """Return max-sim scores [rows, C] by share of plain CLIP, from one pass. They are those of `with_share(share)`.

    head: its own share is ignored; pooled: [P, rows, 1, D] of `pooled_outputs`; tokens: [P, I, T, W], the parts of each
    image; texts: [C, D].
    """
    scores: dict[float, list[Tensor]] = {share: [] for share in shares}
    for positions in torch.arange(len(rows)).split(BATCH_SIZE):
        of_parts: dict[float, list[Tensor]] = {share: [] for share in shares}
        for part, of_part in zip(tokens, pooled, strict=True):
            own = head.own_outputs(part[rows[positions]].to(texts.device, torch.float32))
            for share in shares:
                vectors = F.normalize(torch.lerp(own, of_part[positions].to(own), share), dim=-1)
                of_parts[share].append(max_sim(vectors, texts).cpu())
        for share in shares:
            scores[share].append(torch.stack(of_parts[share]).amax(0))
    return {share: torch.cat(parts).numpy() for share, parts in scores.items()}


def score_images(head: Callable[[Tensor], Tensor], tokens: Tensor, rows: Tensor, texts: Tensor) -> Tensor:
    """Return max-sim scores [rows, C], on the CPU, of these rows of tokens [I, T, W] with texts [C, D]."""
    return run_in_batches(lambda batch: max_sim(head(batch), texts), tokens, rows, texts.device)


@torch.no_grad()  # not inference_mode: training saves the result for its backward pass
def run_in_batches(
    head: Callable[[Tensor], Tensor], tokens: Tensor, rows: Tensor, device: torch.device, advance: Advance = silent
) -> Tensor:
    """Return a head's outputs [rows, ...], on the CPU, of these rows of tokens [I, T, W]. device: the head's."""
    parts = []
    for batch in rows.split(BATCH_SIZE):
        parts.append(head(tokens[batch].to(device, torch.float32)).cpu())
        advance(len(batch))
    return torch.cat(parts)
