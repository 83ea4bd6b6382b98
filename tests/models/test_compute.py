"""The number format that models compute in: chosen by device, and never that of normalisations and weights."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from forclip.config import ComputeChoice, ModelConfig, checked_compute
from forclip.models.compute import autocast, compute_of, resolve_compute
from forclip.models.encoder import Encoder
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.references import reference_to_json
from forclip.models.retrieval_model import RetrievalModel, load_model
from forclip.models.summary_head import window_seeded_head
from forclip.progress import Notice
from tests.tiny import TinyBackbone, tiny_pool


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp16"), ((6, 1), "float32")],
)
def test_auto_is_what_a_card_does_well(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_compute("auto", "cuda") == expected
    assert resolve_compute("float32", "cuda") == "float32"
    assert resolve_compute("auto", "cpu") == "float32"
    assert resolve_compute("bf16", "cpu") == "bf16"


def test_a_plugged_in_backbone_needs_no_number_format() -> None:
    assert compute_of(TinyBackbone()) == "float32"


def test_an_unknown_number_format_is_refused() -> None:
    with pytest.raises(ValueError, match="int4"):
        checked_compute("int4")
    with pytest.raises(ValueError, match="compute"):
        ModelConfig(compute="fp8")  # type: ignore[arg-type]


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 6, 9, 3), np.uint8)
    return [Image.fromarray(picture).resize((90, 60)) for picture in small]


def embedded(model: RetrievalModel) -> tuple[Tensor, ...]:
    pixels = torch.stack([model.backbone.preprocess(picture) for picture in pictures(6)])
    return Encoder(model.backbone).embed(model.head, pixels, with_weights=True).wait()


@pytest.mark.parametrize("head", ["sum", "global", "dense"])
@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_vectors_and_regions_in_half_precision_are_those_in_single(head: str, compute: ComputeChoice) -> None:
    single, half = (
        embedded(load_model(ModelConfig("forclip-mini", compute=name), head=head)) for name in ("float32", compute)
    )
    assert half[0].dtype == half[1].dtype == torch.float32
    assert not torch.equal(half[0], single[0])
    torch.testing.assert_close(half[0].norm(dim=-1), torch.ones(half[0].shape[:2]), rtol=0, atol=1e-6)
    cosines = F.cosine_similarity(half[0], single[0], dim=-1)
    assert cosines.min() > 0.999
    assert F.cosine_similarity(half[1], single[1], dim=-1).min() > 0.999


def test_plain_clips_share_is_mixed_in_in_bf16() -> None:
    """Interpolation takes tensors of one type alone, and PyTorch does not cast for it."""
    backbone = load_open_clip("forclip-mini", None)
    head = window_seeded_head(backbone.new_pool(), 4).with_share(0.5)
    pixels = torch.stack([backbone.preprocess(picture) for picture in pictures(2)])
    single, half = (
        Encoder(backbone.with_compute(compute)).embed(head, pixels, with_weights=True).wait()
        for compute in ("float32", "bf16")
    )
    assert F.cosine_similarity(half[0], single[0], dim=-1).min() > 0.999
    assert F.cosine_similarity(half[1], single[1], dim=-1).min() > 0.999


def test_one_pass_gives_vectors_and_weights() -> None:
    head = window_seeded_head(tiny_pool((3, 3)), 4).with_share(0.3)
    tokens = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0))
    vectors, weights = head.embed(tokens)
    torch.testing.assert_close(vectors, head(tokens))
    torch.testing.assert_close(weights, head.position_weights(tokens))


def test_what_overflows_in_fp16_is_computed_in_float32() -> None:
    """In the tower, and in the head."""
    backbone = load_open_clip("forclip-mini", None)
    head = window_seeded_head(backbone.new_pool(), 4)
    pixels = torch.stack([backbone.preprocess(picture) for picture in pictures(2)])
    in_tower = backbone.with_compute("fp16")
    encode = in_tower._encode
    in_tower._encode = lambda x: encode(x) * (1.0 if not torch.is_autocast_enabled("cpu") else torch.inf)
    torch.testing.assert_close(in_tower.encode_tokens(pixels), backbone.encode_tokens(pixels))
    with torch.no_grad():
        next(head.pool.v_proj.parameters()).mul_(1e5)
    found, expected = (
        Encoder(backbone.with_compute(compute)).embed(head, pixels).wait()[0] for compute in ("fp16", "float32")
    )
    assert found.isfinite().all()
    assert F.cosine_similarity(found, expected, dim=-1).min() > 0.999


def test_texts_are_encoded_in_float32() -> None:
    names: tuple[ComputeChoice, ...] = ("float32", "bf16")
    single, half = (load_model(ModelConfig("forclip-mini", compute=name)) for name in names)
    torch.testing.assert_close(half.encode_query("a star"), single.encode_query("a star"), rtol=0, atol=0)


def test_a_query_picture_is_embedded_as_a_stored_one() -> None:
    model = load_model(ModelConfig("forclip-mini", compute="bf16"))
    vectors = model.encode_image(pictures(1)[0])
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, embedded(model)[0][0], rtol=0, atol=5e-3)


def test_the_fingerprint_is_of_the_model_not_of_its_number_format() -> None:
    names: tuple[ComputeChoice, ...] = ("float32", "bf16")
    single, half = (load_model(ModelConfig("forclip-mini", compute=name)) for name in names)
    assert single.fingerprint == half.fingerprint
    described = reference_to_json(ModelConfig("forclip-mini", compute="bf16", compile=True))
    assert not {"compute", "compile"} & described.keys()


def test_a_compiled_tower_gives_the_same_tokens_or_runs_without(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_open_clip("forclip-mini", None)
    pixels = torch.stack([backbone.preprocess(picture) for picture in pictures(3)])
    calls: list[int] = []

    def traced(graph: Any, inputs: Any) -> Any:
        calls.append(1)
        return graph

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(function, backend=traced, **options))
    with torch.inference_mode():
        expected = backbone.encode_tokens(pixels)
        torch.testing.assert_close(backbone.with_compute("float32", compiled=True).encode_tokens(pixels), expected)
    assert calls

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(function, backend=broken, **options))
    with torch.inference_mode():
        without = backbone.with_compute("float32", compiled=True)
        with pytest.warns(Notice, match="runs without it: .*no compiler here"):
            torch.testing.assert_close(without.encode_tokens(pixels), expected)
        torch.testing.assert_close(without.encode_tokens(pixels), expected)
    torch.compiler.reset()


def test_autocast_is_of_the_device() -> None:
    with autocast(torch.device("cpu"), "bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), "float32"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
