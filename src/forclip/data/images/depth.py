"""Scale pixels of more than 8 bits to 0..255 by what a picture holds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 1_000_000  # values from which percentiles are taken
_OUTLIER = 16  # a largest value that is this many times above the rest does not count
_NARROW = 8  # a range of less than this part of the scale is stretched


def to_eight_bits(values: NDArray[Any], stretch: bool = True) -> NDArray[np.uint8]:
    """Scale whole numbers or fractions to 0..255.

    Black is 0. White is the smallest power of two that no value exceeds, and at least 1 for fractions and 256 for whole
    numbers: 10, 12, 14 and 16 bits, 0..1 and 0..255 all look as they were meant, however they are stored. For fractions
    from -1 to 1, black is -1. A few extreme values (hot pixels) are clipped, and NaN becomes black.
    stretch: where other negative values occur, or all values lie within an eighth of that scale (thermal images,
    elevations), scale the range of 99.8 % of them to 0..255.
    """
    is_whole = not np.issubdtype(values.dtype, np.floating)
    finite = values.reshape(-1) if is_whole else values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(values.shape, np.uint8)
    top = float(finite.max())
    if not is_whole and top > 1:
        is_whole = bool((finite == np.floor(finite)).all())
    low, high = np.percentile(finite[:: len(finite) // _SAMPLE + 1], [0.1, 99.9]).tolist()
    if 0 < high < top / _OUTLIER:
        top = high
    # Fractions over 16 are those of a 0..255 picture that was resized or averaged.
    least = 256.0 if is_whole or top > 16 else 1.0
    white = max(least, 2.0 ** np.ceil(np.log2(top + is_whole))) if top > 0 else least
    is_signed = low < -white / 64
    black = -1.0 if is_signed and white == 1 and finite.min() >= -1 else 0.0
    is_narrow = (is_signed or white > least) and high - low < (white - black) / _NARROW
    if stretch and high > low and (is_narrow or (is_signed and not black)):
        black, white = low, high
    scaled = values.astype(np.float32)
    if black:
        scaled -= black
    scaled *= 256 / (white - black)
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return scaled.clip(0, 255, out=scaled).astype(np.uint8)
