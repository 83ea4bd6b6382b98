"""Query tokens seeded from clusters attend to one kind of content each, wherever it is."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.models.summary_head import cluster_seeded_head, global_head
from tests.tiny import tiny_pool

GRID, KINDS = (3, 4), 3


def images_of_kinds(count: int) -> tuple[Tensor, Tensor]:
    """Tokens [count, 12, 8], each position of one of three kinds, and the kinds one-hot [count, 3, 12]."""
    generator = torch.Generator().manual_seed(5)
    prototypes = 6 * F.normalize(torch.randn(KINDS, 8, generator=generator), dim=-1)
    kinds = torch.randint(KINDS, (count, 12), generator=generator)
    noise = 0.1 * torch.randn(count, 12, 8, generator=generator)
    return prototypes[kinds] + noise, F.one_hot(kinds, KINDS).transpose(1, 2).float()


def test_each_query_attends_to_its_kind_in_new_images() -> None:
    pool = tiny_pool(GRID)
    tokens, kinds = images_of_kinds(60)
    head = cluster_seeded_head(pool, tokens[:40], KINDS, seed=0)
    shares = torch.einsum("inp,ikp->ink", head.attention(tokens[40:]), kinds[40:]).mean(0)  # [queries, kinds]
    assert sorted(shares.argmax(1).tolist()) == [0, 1, 2]
    assert (shares.amax(1) > 0.7).all()
    plain = torch.einsum("inp,ikp->ink", global_head(pool).attention(tokens[40:]), kinds[40:]).mean(0)
    assert plain.max() < 0.55  # the pretrained query attends to no kind alone


def test_the_seed_determines_the_offsets() -> None:
    tokens, _ = images_of_kinds(10)
    once, again, other = (cluster_seeded_head(tiny_pool(GRID), tokens, KINDS, seed).offsets for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert once.shape == (KINDS, 8)


def test_more_clusters_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="13 clusters"):
        cluster_seeded_head(tiny_pool(GRID), images_of_kinds(1)[0], 13, seed=0)
