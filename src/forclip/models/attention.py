"""Multi-head attention on already projected inputs, with an additive bias over positions."""

import torch
from torch import Tensor
from torch.nn import functional as F


def attend(queries: Tensor, keys: Tensor, values: Tensor, num_heads: int, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention (arXiv 1706.03762).

    queries: [B, N, W]; keys, values: [B, L, W]; bias: [N, L], added to the logits of every head. Returns [B, N, W].
    """
    q, k, v = (_split_heads(x, num_heads) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)


def attention_weights(queries: Tensor, keys: Tensor, num_heads: int, bias: Tensor | None = None) -> Tensor:
    """The weights that `attend` uses, averaged over heads. Returns [B, N, L]; rows sum to 1."""
    q, k = _split_heads(queries, num_heads), _split_heads(keys, num_heads)
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias
    return torch.softmax(logits, -1).mean(1)


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, T, W] -> [B, heads, T, W / heads]."""
    batch, count, width = x.shape
    return x.reshape(batch, count, num_heads, width // num_heads).transpose(1, 2)
