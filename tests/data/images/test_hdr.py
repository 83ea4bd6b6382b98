import numpy as np
import pytest

from forclip.data.images.hdr import Transfer, map_hdr


def mapped(transfer: Transfer, *signals: float) -> np.ndarray:
    """The grey level that each signal of 0..1 becomes."""
    pixels = np.round(65535 * np.array(signals)).astype(np.uint16)[None, :, None].repeat(3, 2)
    levels = map_hdr(pixels, transfer)
    assert (levels.max(2) - levels.min(2)).max() <= 1  # grey stays grey
    return levels[0, :, 1].astype(int)


def test_levels_worked_by_hand() -> None:
    """PQ's 0.5081 is 100 cd/m2 (ST 2084), 0.4926 of white, so 186 of sRGB; HLG's 0.5 is 1/12 of scene light."""
    assert mapped("pq", 0, 0.5081)[1] == pytest.approx(186, abs=1)
    assert mapped("hlg", 0.5)[0] == pytest.approx(
        255 * (1.055 * (0.0833**1.2 * 1000 / 203) ** (1 / 2.4) - 0.055), abs=1
    )


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_black_stays_and_brighter_is_brighter(transfer: Transfer) -> None:
    levels = mapped(transfer, *np.linspace(0, 1, 50))
    assert levels[0] == 0
    assert (np.diff(levels) >= 0).all()
    assert levels[-1] >= 250


def test_white_paper_is_nearly_white() -> None:
    """203 cd/m2 (ITU-R BT.2408) are 0.58 of PQ and 0.75 of HLG."""
    for level in (*mapped("pq", 0.5807), *mapped("hlg", 0.75)):
        assert 215 <= level < 250


def test_colours_keep_their_hue() -> None:
    red = map_hdr(np.full((1, 1, 3), [40_000, 5_000, 5_000], np.uint16), "hlg")[0, 0]
    assert red[0] > 100 > red[1]
    assert red[1] == pytest.approx(red[2], abs=12)
