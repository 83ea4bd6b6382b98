"""Attention with absorbed projections equals plain attention, in values and gradients."""

import pytest
import torch
from torch import Tensor, nn

from forclip.models.attention import absorbing_is_faster, attend, attend_absorbed

BATCH, QUERIES, INPUTS, WIDTH, HEADS = 2, 3, 7, 8, 2


def given(value_bias: bool) -> tuple[Tensor, Tensor, nn.Linear, nn.Linear, Tensor]:
    """Queries, inputs (of another width than the queries'), the projections, and a bias over positions."""
    torch.manual_seed(0)
    k_proj, v_proj = (nn.Linear(6, WIDTH, bias=bias).double() for bias in (True, value_bias))
    shapes = [(BATCH, QUERIES, WIDTH), (BATCH, INPUTS, 6), (QUERIES, INPUTS)]
    queries, inputs, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return queries, inputs, k_proj, v_proj, bias


@pytest.mark.parametrize("value_bias", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_absorbed_attention_is_the_plain_one(value_bias: bool, with_bias: bool) -> None:
    queries, inputs, k_proj, v_proj, bias = given(value_bias)
    mask = bias if with_bias else None
    plain = attend(queries, k_proj(inputs), v_proj(inputs), HEADS, mask)
    absorbed = attend_absorbed(queries, inputs, k_proj, v_proj, HEADS, mask)
    torch.testing.assert_close(absorbed, plain, rtol=1e-12, atol=1e-12)

    inputs_of_gradient = [queries, inputs, k_proj.weight, v_proj.weight, *([bias] if with_bias else [])]
    direction = torch.randn_like(plain)
    expected, found = (torch.autograd.grad((out * direction).sum(), inputs_of_gradient) for out in (plain, absorbed))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_absorbing_is_chosen_when_it_needs_much_less_work() -> None:
    assert absorbing_is_faster(25, 145, 128, 2)  # the mini CLIP
    assert absorbing_is_faster(1, 50, 768, 12)  # CLIP's own query, ViT-B-32
    assert not absorbing_is_faster(25, 50, 768, 12)
    # By hand: 10 inputs of width 8, 3 queries, 2 heads: 24 + 30 = 54 against 80 products of a weight's row.
    assert not absorbing_is_faster(3, 10, 8, 2)
    assert absorbing_is_faster(2, 10, 8, 2)  # 16 + 20 = 36 against 80
