"""Where query tokens start. Seeding them by soft spatial windows is ours, not known to be the paper's."""

import math

import torch
from torch import Tensor

_PREFIX_BIAS = -4.0  # a window hardly looks at the mean or class token, which sees the whole image


def window_centres(num_queries: int) -> Tensor:
    """Centres of num_queries windows that tile the unit square in rows. Returns [N, 2] as (y, x) in 0..1.

    The rows hold as equal numbers as possible, the longer ones in the middle: 10 gives rows of 3, 4 and 3.
    """
    num_rows = max(1, round(math.sqrt(num_queries)))
    counts = [num_queries // num_rows] * num_rows
    from_middle = sorted(range(num_rows), key=lambda r: abs(r - (num_rows - 1) / 2))
    for row in from_middle[: num_queries % num_rows]:
        counts[row] += 1
    centres = [((r + 0.5) / num_rows, (c + 0.5) / n) for r, n in enumerate(counts) for c in range(n)]
    return torch.tensor(centres)


def window_bias(num_queries: int, grid: tuple[int, int], num_prefix: int, sharpness: float = 1.0) -> Tensor:
    """Attention bias [N, num_prefix + P] whose softmax is a Gaussian window round each centre.

    The standard deviation is half the distance between neighbouring centres, divided by sharpness.
    """
    rows, columns = grid
    y = (torch.arange(rows) + 0.5) / rows
    x = (torch.arange(columns) + 0.5) / columns
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)
    deviation = 0.5 / math.sqrt(num_queries) / sharpness
    squared = torch.cdist(window_centres(num_queries), places).square()
    prefix = torch.full((num_queries, num_prefix), _PREFIX_BIAS)
    return torch.cat([prefix, -squared / (2 * deviation**2)], 1)
