"""The summary head: windows, query tokens, attention and position weights."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.models.summary_head import (
    SummaryHead,
    global_head,
    noise_seeded_head,
    window_bias,
    window_centres,
    window_seeded_head,
)
from tests.tiny import tiny_pool


def tokens_of(grid: tuple[int, int]) -> Tensor:
    return torch.randn(2, grid[0] * grid[1], 8, generator=torch.Generator().manual_seed(1))


def test_ten_windows_are_rows_of_three_four_and_three() -> None:
    third, quarter = [1 / 6, 3 / 6, 5 / 6], [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    expected = [(1 / 6, x) for x in third] + [(3 / 6, x) for x in quarter] + [(5 / 6, x) for x in third]
    torch.testing.assert_close(window_centres(10), torch.tensor(expected))


def test_twenty_five_windows_are_five_by_five() -> None:
    steps = [0.1, 0.3, 0.5, 0.7, 0.9]
    torch.testing.assert_close(window_centres(25), torch.tensor([(y, x) for y in steps for x in steps]))


def test_one_window_is_in_the_middle() -> None:
    assert window_centres(1).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("count", range(1, 41))
def test_any_number_of_windows_covers_the_square_evenly(count: int) -> None:
    centres = window_centres(count)
    assert centres.shape == (count, 2)
    assert len(set(map(tuple, centres.tolist()))) == count
    # No point of the square is far from all centres.
    assert (
        torch.cdist(torch.cartesian_prod(torch.linspace(0, 1, 11), torch.linspace(0, 1, 11)), centres).min(1)[0].max()
        < 1.2 / count**0.5
    )
    per_row = centres[:, 0].unique(return_counts=True)[1]
    assert per_row.max() - per_row.min() <= 1


def test_windows_of_a_wide_image_are_in_fewer_and_longer_rows() -> None:
    centres = window_centres(8, aspect=2)
    torch.testing.assert_close(
        centres, torch.tensor([(y, x) for y in (1 / 4, 3 / 4) for x in (1 / 8, 3 / 8, 5 / 8, 7 / 8)])
    )
    assert len(window_centres(25, aspect=16 / 9)[:, 0].unique()) == 4
    assert len(window_centres(3, aspect=100)[:, 0].unique()) == 1
    assert len(window_centres(3, aspect=1 / 100)[:, 0].unique()) == 3


@pytest.mark.parametrize("grid", [(12, 12), (6, 12), (16, 9), (40, 10)])
def test_windows_are_round_on_any_grid(grid: tuple[int, int]) -> None:
    """A Gaussian's logarithm has the second difference -1 / variance; the area of a window is its share of the grid."""
    variance = grid[0] * grid[1] / (4 * 10)  # in positions
    for axis in (1, 2):
        curvature = window_bias(10, grid, num_prefix=0).unflatten(1, grid).diff(n=2, dim=axis)
        torch.testing.assert_close(curvature, torch.full_like(curvature, -1 / variance), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [1, 4, 10, 25])
def test_a_windows_attention_is_centred_on_it(count: int) -> None:
    grid = (30, 40)
    share = torch.softmax(window_bias(count, grid, num_prefix=0), -1).unflatten(1, grid)
    y, x = (torch.arange(30) + 0.5) / 30, (torch.arange(40) + 0.5) / 40
    mass = torch.stack([share.sum(2) @ y, share.sum(1) @ x], 1)
    centres = window_centres(count, aspect=4 / 3)
    deviation = torch.tensor([1, 3 / 4]) * 0.5 * (4 / 3 / count) ** 0.5  # of y and x
    # The image's edge cuts off the outer Gaussians about a deviation from their centre, which moves their mean.
    assert ((mass - centres).abs() < 0.6 * deviation).all()
    inner = ((centres - 0.5).abs() < 0.5 - 2.5 * deviation).all(1) | (centres == 0.5).all(1)
    torch.testing.assert_close(mass[inner], centres[inner], rtol=0, atol=0.005)
    assert (mass[:, None] - centres[None]).norm(dim=-1).argmin(1).tolist() == list(range(count))


def test_a_windows_width_is_half_the_distance_of_centres() -> None:
    share = torch.softmax(window_bias(25, (100, 100), num_prefix=0), -1)[12].unflatten(0, (100, 100))
    y = (torch.arange(100) + 0.5) / 100
    assert (share.sum(1) @ (y - 0.5).square()).sqrt().item() == pytest.approx(0.1, rel=1e-3)


def test_windows_almost_ignore_prefix_tokens() -> None:
    share = torch.softmax(window_bias(4, (7, 7), num_prefix=1), -1)
    assert share.shape == (4, 50)
    assert (share[:, 0] < 0.01).all()


@pytest.mark.parametrize("grid", [(2, 2), (3, 5)])
def test_one_pretrained_query_gives_the_pretrained_embedding(grid: tuple[int, int]) -> None:
    pool, tokens = tiny_pool(grid), tokens_of(grid)
    expected = F.normalize(pool(tokens, pool.pretrained_query(tokens)), dim=-1)
    torch.testing.assert_close(global_head(pool)(tokens), expected)
    assert expected.shape == (2, 1, 6)


def test_query_tokens_are_independent() -> None:
    """N query tokens at once equal N heads of one query token."""
    pool, tokens = tiny_pool((3, 4)), tokens_of((3, 4))
    head = noise_seeded_head(pool, 5, 1.0, seed=0)
    with torch.no_grad():
        head.bias.normal_(generator=torch.Generator().manual_seed(3))
        alone = [SummaryHead(pool, head.offsets[n : n + 1], head.bias[n : n + 1])(tokens) for n in range(5)]
        torch.testing.assert_close(head(tokens), torch.cat(alone, 1))


def test_vectors_are_unit_and_attention_sums_to_less_than_one() -> None:
    pool, tokens = tiny_pool((3, 4)), tokens_of((3, 4))
    for head in (window_seeded_head(pool, 6), noise_seeded_head(pool, 6, 1.0, seed=0), global_head(pool)):
        attention = head.attention(tokens)
        assert attention.shape == (2, head.num_query_tokens, 12)
        assert (attention >= 0).all()
        assert (attention.sum(-1) <= 1 + 1e-6).all()
        # The rest goes to the mean token.
        assert (attention.sum(-1) > 0.5).all()
        assert (attention.sum(-1) < 1).all()
        torch.testing.assert_close(head(tokens).norm(dim=-1), torch.ones(2, head.num_query_tokens))


def test_attention_follows_the_bias() -> None:
    bias = torch.zeros(3, 1 + 12)
    bias[torch.arange(3), torch.tensor([1, 6, 12])] = 50.0
    head = SummaryHead(tiny_pool((3, 4)), torch.zeros(3, 8), bias)
    assert head.attention(tokens_of((3, 4))).argmax(-1).tolist() == [[0, 5, 11], [0, 5, 11]]
    assert head.position_weights(tokens_of((3, 4))).argmax(-1).tolist() == [[0, 5, 11], [0, 5, 11]]


def test_position_weights_equal_a_loop() -> None:
    pool, tokens = tiny_pool((3, 4)), tokens_of((3, 4))
    head = noise_seeded_head(pool, 5, 1.0, seed=0)
    with torch.no_grad():
        vectors, values, attention = head(tokens), pool.dense(tokens), head.attention(tokens)
        weights = head.position_weights(tokens)
    for image, n in product(range(2), range(5)):
        expected = [float(vectors[image, n] @ values[image, p] * attention[image, n, p]) for p in range(12)]
        assert max(expected) > 0
        torch.testing.assert_close(weights[image, n], torch.tensor(expected).clamp(min=0))


def test_position_weights_fall_back_to_attention() -> None:
    """With zero values no position contributes to the vector."""
    pool, tokens = tiny_pool((2, 2)), tokens_of((2, 2))
    with torch.no_grad():
        for parameter in (*pool.v_proj.parameters(), *pool.c_proj.parameters()):
            parameter.mul_(0)
    head = global_head(pool)
    with torch.no_grad():
        torch.testing.assert_close(head.position_weights(tokens), head.attention(tokens))


def test_noise_is_reproducible_and_of_the_given_scale() -> None:
    pool = tiny_pool((2, 2))
    head = noise_seeded_head(pool, 200, 0.5, seed=3)
    torch.manual_seed(99)  # the global generator is not used
    assert torch.equal(noise_seeded_head(pool, 200, 0.5, seed=3).offsets, head.offsets)
    assert not torch.equal(noise_seeded_head(pool, 200, 0.5, seed=4).offsets, head.offsets)
    assert head.offsets.std().item() == pytest.approx(0.5, rel=0.1)
    assert (head.bias == 0).all()


def test_a_head_without_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="not 0"):
        window_seeded_head(tiny_pool((2, 2)), 0)


def moved_head() -> SummaryHead:
    """A head with plain CLIP's share whose own pool was trained."""
    head = noise_seeded_head(tiny_pool((3, 3)), 4, 1.0, 0).with_share(0.5)
    with torch.no_grad():
        for parameter in head.pool.parameters():
            parameter.add_(0.2)
    return head


@torch.no_grad()
def test_with_a_share_of_one_every_vector_is_plain_clips() -> None:
    tokens, head = tokens_of((3, 3)), moved_head().with_share(1.0)
    expected = global_head(tiny_pool((3, 3)))(tokens)
    torch.testing.assert_close(head(tokens), expected.expand(-1, 4, -1))


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.25, 0.7])
def test_a_share_mixes_outputs_before_they_are_normalised(share: float) -> None:
    """By hand, one image and query at a time. The pooled embedding stays the one from before training."""
    tokens, moved = tokens_of((3, 3)), moved_head()
    head, untrained = moved.with_share(share), tiny_pool((3, 3))
    for image, vectors in zip(tokens[:, None], head(tokens), strict=True):
        pooled = untrained(image, untrained.pretrained_query(image))[0, 0]
        for offset, bias, vector in zip(moved.offsets, moved.bias, vectors, strict=True):
            own = moved.pool(image, moved.pool.pretrained_query(image) + offset, bias[None])[0, 0]
            mixed = (1 - share) * own + share * pooled
            torch.testing.assert_close(vector, mixed / mixed.norm(), rtol=1e-4, atol=1e-5)
    assert (head.pooled is None) == (share == 0)
    assert not any(name.startswith("pooled.") and p.requires_grad for name, p in head.named_parameters())


def test_a_copy_with_another_share_is_independent() -> None:
    head = moved_head()
    other = head.with_share(0.25)
    with torch.no_grad():
        for parameter in other.own_parameters():
            parameter.zero_()
    assert all(parameter.abs().sum() > 0 for parameter in (head.offsets, *head.pool.v_proj.parameters()))
    assert (float(head.pooled_share), float(other.pooled_share)) == (0.5, 0.25)
