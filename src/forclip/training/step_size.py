"""The learning rate, measured: how far a step moves the vectors, not the weights.

One rate does not fit all heads. AdamW moves each weight by about the learning rate at first, whatever the gradient. How
far this moves the vectors depends on the width, the depth and the scale of the head's weights: at a rate of 1e-4, by
0.001 for the mini CLIP, and by 0.19 for an aligned head of width 1280.
"""

import copy
import math

import torch
from torch import nn

from forclip.embedding.row_shards import Rows, read_rows
from forclip.models.summary_head import SummaryHead

_IMAGES = 16
_SMALL = 0.01  # a change of the vectors at which it is still proportional to the change of the weights


def learning_rate_for(head: SummaryHead, parameters: list[nn.Parameter], tokens: Rows, step: float, seed: int) -> float:
    """Return the learning rate at which a first step moves the vectors by `step`, the mean distance of unit vectors.

    AdamW's first step moves each parameter by the rate, up or down; here the signs are random. parameters: the head's,
    those that are trained; tokens: [I, T, W], of which the first images are used.
    """
    device = head.offsets.device
    batch = read_rows(tokens, torch.arange(min(_IMAGES, len(tokens)))).to(device, torch.float32)
    trained = {name for name, p in head.named_parameters() if any(p is q for q in parameters)}
    generator = torch.Generator().manual_seed(seed)
    changed = copy.deepcopy(head)
    signs = {
        name: (torch.randint(2, p.shape, generator=generator) * 2.0 - 1).to(p)
        for name, p in head.named_parameters()
        if name in trained
    }

    with torch.no_grad():
        before = head(batch)

    @torch.no_grad()
    def movement(rate: float) -> float:
        for (name, p), q in zip(head.named_parameters(), changed.parameters(), strict=True):
            if name in signs:
                q.copy_(p + rate * signs[name])
        return float((changed(batch) - before).norm(dim=-1).mean())

    rate = 1e-4
    for _ in range(20):
        moved = movement(rate)
        if 0.5 * _SMALL <= moved <= 2 * _SMALL:
            break
        rate *= min(max(_SMALL / max(moved, 1e-12), 0.01), 100.0)
    return rate * step / max(movement(rate), 1e-12)


def scale_for_labels(labelled: int, images: int) -> float:
    """Return by what to multiply the learning rate if few of the training images have labels.

    Half of each batch is drawn from the labelled images if fewer than half have labels. They are then seen more often
    than others, by images / (2 labelled), and a head that sees an image often learns it by heart. The rate falls with
    the root of this number.
    """
    return min(1.0, math.sqrt(2 * labelled / images)) if labelled else 1.0
