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
    assert [size["decode_seconds"] for size in sizes] == pytest.approx(speed.DECODE_SECONDS, abs=1e-5)
    assert [size["prepare_seconds"] for size in sizes] == pytest.approx(speed.PREPARE_SECONDS, abs=1e-5)
    largest = json.loads((RESULTS / "search_growth.json").read_text())["sizes"][-1]
    assert largest["images"] * 25 == speed.INDEXED_VECTORS
    assert largest["build_seconds"] == pytest.approx(speed.INDEX_SECONDS, abs=0.05)


def test_larger_pictures_and_tiles_take_longer() -> None:
    assert core_seconds(12) == pytest.approx(0.08007 + 0.06704)
    times = [core_seconds(size) for size in (0.01, 0.3072, 1, 2, 12, 24, 48)]
    assert times == sorted(times)
    assert core_seconds(22) - core_seconds(12) == pytest.approx(core_seconds(32) - core_seconds(22))
    # Tiles of 2 x 2 that share nothing have a quarter of the picture each.
    quarter = core_seconds(3) - core_seconds(12)
    assert core_seconds(12, Tiles(2, 2, 0)) > core_seconds(12)
    assert quarter < 0
    assert core_seconds(12, Tiles(3, 3)) > core_seconds(12, Tiles(2, 2))


def test_the_index_takes_as_long_as_measured_and_longer_with_more_lists() -> None:
    measured = index_core_seconds(2_000_000, 512, 8192)
    assert measured == pytest.approx(2 * 165.4)
    assert index_core_seconds(20_000_000, 512, 16_384) == pytest.approx(20 * measured)
