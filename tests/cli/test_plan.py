"""`forclip plan`: what it prints, and what it refuses."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from forclip.cli import app
from forclip.index.capacity import Stored, index_bytes, segment_bytes, table_bytes


def planned(*options: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["plan", "--model", "ViT-B-16", *options, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def test_every_choice_is_there_and_one_is_asked_for() -> None:
    plan = planned("--images", "50M", "--gpus", "8xA100", "--merge", "0.9", "--precision", "int8")
    assert len(plan["choices"]) == 12
    asked = [choice for choice in plan["choices"] if choice["chosen"]]
    assert [choice["need"]["place"] for choice in asked] == ["local", "bucket", "milvus"]
    assert {(choice["merge"], choice["need"]["stored"]["precision"]) for choice in asked} == {(0.9, "int8")}
    stored = Stored(50_000_000, 25 * 10.512 / 25, 512, "int8")
    assert asked[0]["need"]["disk"] == table_bytes(stored) + segment_bytes(stored) + index_bytes(stored)
    # 8 * 312 TFLOPS * 35 % / 35.13 GFLOPs, and 64 cores that decode.
    assert plan["rate"]["tower"] == pytest.approx(24_870, rel=0.001)
    assert plan["rate"]["bound"] == "decoding"
    assert plan["embedding_hours"] == pytest.approx(50e6 / plan["rate"]["decoding"] / 3600)


def test_the_rate_is_that_of_the_number_format() -> None:
    single, half = (
        planned("--images", "50M", "--gpus", "8xA100", "--cpus", "9999", *options)["rate"]
        for options in (("--compute", "float32"), ())
    )
    # 8 * 19.5 TFLOPS * 35 % / 35.13 GFLOPs
    assert single["images_per_second"] == single["tower_single"] == pytest.approx(1554, rel=0.001)
    assert half["images_per_second"] == half["tower_half"] == pytest.approx(1554 * 312 / 19.5, rel=0.001)


def test_tiles_take_passes_and_vectors() -> None:
    plain, tiled = (planned("--images", "1M", "--gpus", "A100", "--cpus", "9999", *t) for t in ((), ("--tiles", "3x3")))
    assert (plain["views"], tiled["views"]) == (1, 10)
    assert tiled["embedding_hours"] == pytest.approx(10 * plain["embedding_hours"])
    vectors = [plan["choices"][0]["need"]["stored"]["vectors_per_image"] for plan in (plain, tiled)]
    assert vectors == [25, 250]


def test_own_measurements_take_the_place_of_estimates() -> None:
    plan = planned("--images", "3600k", "--rate", "1000", "--vectors-per-image", "7.5")
    assert plan["embedding_hours"] == pytest.approx(1)
    assert {choice["need"]["stored"]["vectors_per_image"] for choice in plan["choices"]} == {7.5}
    assert len(plan["choices"]) == 6


def test_the_table_says_what_is_assumed() -> None:
    result = CliRunner().invoke(app, ["plan", "--images", "100k", "--model", "clip-b16", "--gpus", "2xT4"])
    assert result.exit_code == 0
    for said in ("100,000 images, ViT-B-16", "No GPU was measured", "toy world", "list prices", "USD/month", "milvus"):
        assert said in result.stdout


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--images", "many"], "'many'"),
        (["--images", "1M", "--gpus", "8xB300"], "'B300'"),
        (["--images", "1M", "--merge", "0.5"], "0.5"),
        (["--images", "1M", "--merge", "0.9", "--vectors-per-image", "9"], "--merge"),
        (["--images", "1M", "--num-query-tokens", "9", "--vectors-per-image", "9"], "--num-query-tokens"),
        (["--images", "1M", "--precision", "fp8"], "'fp8'"),
        (["--images", "1M", "--megapixels", "0"], "--megapixels"),
        (["--images", "1M", "--compute", "bf16"], "--gpus"),
        (["--images", "1M", "--compute", "int4", "--gpus", "A100"], "'int4'"),
        (["--images", "1M", "--rate", "nan"], "--rate"),
        (["--images", "1M", "--tiles", "9x9"], "'9x9'"),
        (["--images", "1M", "--tiles", "auto"], "'auto'"),
        (["--images", "1M", "--memory", "much"], "'much'"),
        (["--images", "1M", "--milvus-index", "GPU_CAGRA"], "'GPU_CAGRA'"),
        (["--images", "1M", "--model", "ViT-B-61"], "'ViT-B-61'"),
    ],
)
def test_what_is_wrong_is_named(options: list[str], named: str) -> None:
    result = CliRunner().invoke(app, ["plan", *options])
    assert result.exit_code == 2
    assert named in result.stderr
    assert len(result.stderr.splitlines()) == 1
