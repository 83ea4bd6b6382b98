"""Estimated rates: by hand, and by what was measured."""

import json
from pathlib import Path

import pytest

from forclip.data.images.tiles import Tiles
from forclip.embedding import speed
from forclip.embedding.speed import Gpus, core_seconds, estimate_rate, index_core_seconds, parse_gpus

RESULTS = Path(__file__).parents[2] / "docs" / "results"
A100 = parse_gpus("A100").card


def test_gpus_are_read_strictly() -> None:
    assert parse_gpus("8xA100") == Gpus(8, A100)
    assert {parse_gpus(text).card.name for text in ("RTX4090", "2xrtx 4090", "1xNVIDIA RTX-4090")} == {"RTX4090"}
    for text in ("8xa100-80gb", "8xNVIDIA A100-SXM4-80GB", "8xA100 SXM"):
        assert parse_gpus(text) == Gpus(8, A100)
    for text in ("8xB300", "A1000", "8xA100x2"):
        with pytest.raises(ValueError, match=r"known are T4, .*--rate"):
            parse_gpus(text)
    for text in ("", "8", "0xA100", "-1xA100", "1.5xA100"):
        with pytest.raises(ValueError, match="such as 8xA100") as error:
            parse_gpus(text)
        assert repr(text) in str(error.value)


def test_the_slower_of_gpus_and_decoding_limits() -> None:
    """Two A100 at 35 % of 19.5 TFLOPS do 13,650 GFLOPS: of 35 GFLOPs an image, 390 images; at 10 passes, 39.

    In half precision, 312 TFLOPS, they are 16 times as fast.
    """
    two = Gpus(2, A100)
    fed = estimate_rate(35e9, 1, 100, 0.02, two, "float32")
    assert fed.bound == "tower"
    assert (fed.images_per_second, fed.decoding, fed.tower_single) == pytest.approx((390, 5000, 390))
    assert fed.tower_half == pytest.approx(6240)
    half = estimate_rate(35e9, 1, 200, 0.02, two)
    assert half.bound == "tower"
    assert (half.images_per_second, half.tower_single) == pytest.approx((6240, 390))
    starved = estimate_rate(35e9, 1, 100, 0.02, two)
    assert starved.bound == "decoding"
    assert (starved.images_per_second, starved.tower) == pytest.approx((5000, 6240))
    assert estimate_rate(35e9, 10, 100, 0.02, two, "float32").images_per_second == pytest.approx(39)


def test_cores_decode_and_encode_in_turn() -> None:
    """70 GFLOPS a core: 1 second for 70 GFLOPs, and half a second to decode."""
    rate = estimate_rate(speed.OPERATIONS_PER_CORE, 1, 3, 0.5)
    assert rate.images_per_second == pytest.approx(3 / 1.5)


def test_rates_are_those_of_the_measurements() -> None:
    throughput = json.loads((RESULTS / "throughput.json").read_text())["comparisons"]
    (measured,) = (c for c in throughput if c["what"] == "ViT-B-32 / encode_image" and c["threads"] == 2)
    assert measured["ours_images_per_second"] == pytest.approx(speed.MEASURED_IMAGES, abs=0.005)
    sizes = json.loads((RESULTS / "decode_rate.json").read_text())["sizes"]
    assert [size["megapixels"] for size in sizes] == list(speed.MEGAPIXELS)
    for reductions in zip(*(size["reductions"] for size in sizes), strict=True):
        known = speed.DECODE_SECONDS[reductions[0]["reduction"]]
        assert [one["decode_seconds"] for one in reductions] == pytest.approx(known, abs=5e-5)
    left = sizes[-1]["reductions"][::-1]
    assert [one["megapixels_left"] for one in left] == list(speed.MEGAPIXELS_LEFT)
    assert [one["prepare_seconds"] for one in left] == pytest.approx(speed.PREPARE_SECONDS, abs=5e-5)
    largest = json.loads((RESULTS / "search_growth.json").read_text())["sizes"][-1]
    assert largest["images"] * 25 == speed.INDEXED_VECTORS
    assert largest["build_seconds"] == pytest.approx(speed.INDEX_SECONDS, abs=0.05)


def test_a_picture_is_decoded_as_far_as_its_views_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reduction by r leaves 5 pixels for 3 of the input: 12 megapixels, 3,000 high, of inputs up to 1,800 / r."""
    monkeypatch.setattr(speed, "DECODE_SECONDS", {1: (1, 2, 12), 2: (1, 2, 6), 4: (1, 2, 3), 8: (1, 2, 2)})
    monkeypatch.setattr(speed, "PREPARE_SECONDS", (0.01, 0.04, 0.16, 0.64))
    assert core_seconds(12, (224, 224)) == pytest.approx(2 + 0.01)
    assert core_seconds(12, (226, 226)) == pytest.approx(3 + 0.04)
    assert core_seconds(12, (512, 512)) == pytest.approx(6 + 0.16)
    assert core_seconds(12, (1024, 1024)) == pytest.approx(12 + 0.64)
    # A wide input has the fewest pixels along its width: 4,000 for 900, which a reduction by 2 leaves.
    assert core_seconds(12, (900, 300)) == pytest.approx(6 + 0.16)
    # Tiles of 2 x 2 that share nothing are 1,500 pixels high: by 4, and a quarter of 0.75 megapixels is left of each.
    assert core_seconds(12, (224, 224), Tiles(2, 2, 0)) == pytest.approx(3 + 0.04 + 4 * 0.01)
    # Between the measured sizes and beyond them: a line through two of them.
    halfway = (0.3072 + 1.997568) / 2
    assert core_seconds(halfway, (900, 900)) == pytest.approx(
        1.5 + 0.04 + (halfway - 0.75) / (3 - 0.75) * 0.12, rel=1e-3
    )
    per_megapixel = (12 - 2) / (12 - 1.997568) + (0.64 - 0.16) / (12 - 3)
    assert core_seconds(22, (4000, 4000)) - core_seconds(12, (4000, 4000)) == pytest.approx(
        10 * per_megapixel, rel=1e-3
    )


def test_larger_pictures_take_longer() -> None:
    times = [core_seconds(size, (224, 224)) for size in (0.01, 0.3072, 1, 2, 12, 24, 48)]
    assert times == sorted(times)


def test_the_index_takes_as_long_as_measured_and_longer_with_more_lists() -> None:
    measured = index_core_seconds(2_000_000, 512, 8192)
    assert measured == pytest.approx(2 * 165.4)
    assert index_core_seconds(20_000_000, 512, 16_384) == pytest.approx(20 * measured)
