"""Map HDR pictures to what a usual screen shows."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forclip.types import Floats

Transfer = Literal["pq", "hlg"]
_WHITE, _PEAK = 203.0, 1000.0  # cd/m2: of white paper (ITU-R BT.2408), and of the screen that HLG is meant for
_KNEE = 0.6  # relative to white: darker light stays as it is
_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
_STEPS = 4096  # of lookup tables
_ROWS = 256  # converted at once, so that the memory does not grow with the picture


def map_hdr(pixels: NDArray[np.uint16], transfer: Transfer) -> NDArray[np.uint8]:
    """Convert RGB with BT.2020 primaries to sRGB. [H, W, 3] each; the full range of 16 bits to that of 8.

    transfer: pq is SMPTE ST 2084, hlg is ARIB STD-B67. Brighter light than white is compressed, with its hue kept.
    """
    light, to_srgb = _decoding_table(transfer), _srgb_table()
    mapped = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), _ROWS):
        rows = slice(start, start + _ROWS)
        linear = (light[pixels[rows] >> 4] @ _TO_709.T).clip(0)
        brightest = linear.max(2, keepdims=True)
        over = (brightest - _KNEE).clip(0)
        compressed = np.minimum(brightest, _KNEE) + (1 - _KNEE) * (1 - np.exp(-over / (1 - _KNEE)))
        linear *= compressed / brightest.clip(1e-6)
        mapped[rows] = to_srgb[(linear * (_STEPS - 1) + 0.5).astype(np.int32).clip(0, _STEPS - 1)]
    return mapped


def _decoding_table(transfer: Transfer) -> Floats:
    """From 12-bit values to light relative to white."""
    signal = np.linspace(0, 1, _STEPS)
    if transfer == "pq":
        power = signal ** (1 / 78.84375)
        light = ((power - 0.8359375).clip(0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125) * 10_000
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        light = scene**1.2 * _PEAK
    return (light / _WHITE).astype(np.float32)


def _srgb_table() -> NDArray[np.uint8]:
    """From linear light in _STEPS steps to sRGB."""
    light = np.linspace(0, 1, _STEPS)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)
