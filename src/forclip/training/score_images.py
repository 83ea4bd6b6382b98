"""Scores of images for texts by a head, also for several shares of plain CLIP's embedding from one pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.distributed import gather_rows
from forclip.embedding.row_shards import Rows, own_batches, own_part, read_own
from forclip.models.summary_head import SummaryHead, global_head
from forclip.progress import Advance, silent
from forclip.training.losses import max_sim
from forclip.types import Floats, Ints

SHARES = (0.0, 0.25, 0.5, 0.75)
MOST_MEASURED = 1500  # labelled images that heads are compared on, divided by the parts of an image
FEWEST_MEASURED = 50  # labelled images; on fewer, differences between shares are chance


def plain_clip(start: SummaryHead) -> SummaryHead:
    """Return plain CLIP with the alignment of a head before training, which shares its pool."""
    return global_head(start.pool if start.pooled is None else start.pooled).to(start.offsets.device).eval()


def pooled_outputs(start: SummaryHead, tokens: Rows, rows: Ints) -> Tensor:
    """Return plain CLIP's outputs for parts of images: [P, I, T, W] -> [P, rows, 1, D], on the CPU, not normalised.

    *Collective*, as all functions here.
    """
    plain, indices = plain_clip(start), torch.from_numpy(rows)
    return torch.stack([run_in_batches(plain.own_outputs, part, indices, start.offsets.device) for part in tokens])


@torch.no_grad()
def score_shares(
    head: SummaryHead, pooled: Tensor, tokens: Rows, rows: Ints, texts: Tensor, shares: Sequence[float]
) -> dict[float, Floats]:
    """Return max-sim scores [rows, C] by share of plain CLIP, from one pass. They are those of `with_share(share)`.

    head: its own share is ignored; pooled: [P, rows, 1, D] of `pooled_outputs`; tokens: [P, I, T, W], the parts of each
    image; texts: [C, D].
    """
    scores: dict[float, list[Tensor]] = {share: [] for share in shares}
    own = own_part(tokens, torch.from_numpy(rows))
    for positions in own_batches(own, len(rows)):
        of_parts: dict[float, list[Tensor]] = {share: [] for share in shares}
        for part, of_part in zip(tokens, pooled, strict=True):
            batch = read_own(part, torch.from_numpy(rows)[positions]).to(texts.device, torch.float32)
            outputs = head.own_outputs(batch)
            for share in shares:
                vectors = F.normalize(torch.lerp(outputs, of_part[positions].to(outputs), share), dim=-1)
                of_parts[share].append(max_sim(vectors, texts).cpu())
        for share in shares:
            scores[share].append(torch.stack(of_parts[share]).amax(0))
    return {share: gather_rows(parts, own, len(rows)).numpy() for share, parts in scores.items()}


def score_images(head: Callable[[Tensor], Tensor], tokens: Rows, rows: Tensor, texts: Tensor) -> Tensor:
    """Return max-sim scores [rows, C], on the CPU, of these rows of tokens [I, T, W] with texts [C, D]."""
    return run_in_batches(lambda batch: max_sim(head(batch), texts), tokens, rows, texts.device)


def run_in_batches(
    head: Callable[[Tensor], Tensor], tokens: Rows, rows: Tensor, device: torch.device, advance: Advance = silent
) -> Tensor:
    """Return a head's outputs [rows, ...], on the CPU, of these rows of tokens [I, T, W]. device: the head's."""
    own = own_part(tokens, rows)
    return gather_rows(run_on_own_rows(head, tokens, rows, own, device, advance), own, len(rows))


@torch.no_grad()  # not inference_mode: training saves the result for its backward pass
def run_on_own_rows(
    head: Callable[[Tensor], Tensor],
    tokens: Rows,
    rows: Tensor,
    own: Tensor,
    device: torch.device,
    advance: Advance = silent,
) -> list[Tensor]:
    """As `run_in_batches`, for only this worker's part of the rows: outputs by batch. Not collective."""
    parts = []
    for batch in own_batches(own, len(rows)):
        parts.append(head(read_own(tokens, rows[batch]).to(device, torch.float32)).cpu())
        advance(len(batch))
    return parts
