"""Scores for several shares of plain CLIP from one pass equal those of heads with that share."""

import pytest
import torch
from torch.nn import functional as F

from forclip.models.summary_head import SummaryHead, noise_seeded_head
from forclip.training.score_images import SHARES, pooled_outputs, run_in_batches, score_images, score_shares
from tests.tiny import aligned, tiny_pool


def unit(seed: int, *shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def trained_from(start: SummaryHead) -> SummaryHead:
    """A head whose pool has moved away from plain CLIP's."""
    head = start.with_share(0.5)
    with torch.no_grad():
        for parameter in [*head.pool.parameters(), head.offsets, head.bias]:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return head


@torch.no_grad()
@pytest.mark.parametrize("start_share", [0.0, 0.25])
@pytest.mark.parametrize("parts", [1, 3])
def test_scores_by_share_are_those_of_heads_with_the_share(parts: int, start_share: float) -> None:
    """The best vector of all parts; 70 images are more than a batch."""
    tokens = torch.randn(parts, 70, 9, 8, generator=torch.Generator().manual_seed(1)).half()
    pool = aligned(tiny_pool((3, 3)), torch.nn.Linear(6, 6))
    start = noise_seeded_head(pool, 4, 1.0, 0).with_share(start_share)
    head, texts, rows = trained_from(start), unit(2, 5, 6), torch.randperm(70)[:67]
    found = score_shares(head, pooled_outputs(start, tokens, rows.numpy()), tokens, rows.numpy(), texts, [*SHARES, 1.0])
    assert list(found) == [*SHARES, 1.0]
    for share, scores in found.items():
        alone = torch.stack([score_images(head.with_share(share), part, rows, texts) for part in tokens]).amax(0)
        if share == 0:
            alone = torch.stack(
                [score_images(lambda t: F.normalize(head.own_outputs(t), dim=-1), part, rows, texts) for part in tokens]
            ).amax(0)
        torch.testing.assert_close(torch.from_numpy(scores), alone, rtol=1e-4, atol=1e-5)


def test_outputs_can_be_trained_on() -> None:
    head, progress = noise_seeded_head(tiny_pool((3, 3)), 4, 1.0, 0), list[int]()
    tokens = torch.randn(70, 9, 8).half()
    rows = torch.arange(69, -1, -1)
    found = run_in_batches(head, tokens, rows, torch.device("cpu"), progress.append)
    torch.testing.assert_close(found, head(tokens.float()).detach().flip(0))
    assert not found.is_inference()
    assert not found.requires_grad
    assert sum(progress) == 70
