"""Loading open_clip models: errors, preprocessing, weights and the fingerprint."""

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from forclip.config import ModelConfig
from forclip.models import open_clip_backbone
from forclip.models.backbone import Backbone, weights_fingerprint
from forclip.models.baselines import training_free_head
from forclip.models.mini_clip import MINI_NAME
from forclip.models.open_clip_backbone import OpenClipBackbone, load_open_clip
from forclip.models.references import absolute_reference, written_reference
from forclip.models.retrieval_model import configured_backbone
from forclip.models.tower_backbone import ResizeMode, TowerBackbone
from forclip.progress import Notice
from tests.models.hub import cache_repository, without_network

TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TINY_PREPROCESSING = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear", "fill_color": 0}


@pytest.fixture(scope="module")
def mini() -> TowerBackbone:
    return load_open_clip(MINI_NAME, "random")


@pytest.fixture(scope="module")
def tiny_weights() -> dict[str, Tensor]:
    torch.manual_seed(1)
    model = open_clip.model.CLIP(**TINY)
    return {name: value.clone() for name, value in model.state_dict().items()}


def write_tiny(folder: Path, weights: dict[str, Tensor], preprocessing: dict[str, object]) -> str:
    folder.mkdir()
    config = {"model_cfg": TINY, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(weights, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture
def tiny(tmp_path: Path, tiny_weights: dict[str, Tensor]) -> str:
    return write_tiny(tmp_path / "tiny", tiny_weights, TINY_PREPROCESSING)


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-33", None, r"'ViT-B-33'.*did you mean 'ViT-B-32'"),
        ("", None, "model ''"),
        ("openai/clip-vit-base-patch32", None, "hf-hub:openai/clip-vit-base-patch32"),
        ("https://huggingface.co/openai/clip-vit-base-patch32", None, "hf-hub:openai/clip-vit-base-patch32"),
        ("vit-b/32", None, "did you mean 'ViT-B-32'"),
        ("ViT-B-32:openai", None, "--model ViT-B-32 --pretrained openai"),
        ("ViT-B-32/laion2b_s34b_b79k", None, "--pretrained laion2b_s34b_b79k"),
        ("ViT-B-32", "/tmp", "/tmp"),
        ("ViT-B-32", "", "pretrained ''"),
        ("ViT-S-32", None, "ViT-S-32"),
        ("ViT-B-32", "laion2b_s34b_b79", r"'laion2b_s34b_b79'.*did you mean 'laion2b_s34b_b79k'"),
        ("ViT-B-32", "/no/such/file.safetensors", "/no/such/file.safetensors"),
        ("local-dir:/no/such/folder", None, "/no/such/folder"),
        ("local-dir:", None, "local-dir:"),
        ("local-dir:/no/such/folder", "openai", "openai"),
    ],
)
def test_unknown_models_are_refused_by_name(name: str, pretrained: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_open_clip(name, pretrained)


def test_invalid_options_are_refused() -> None:
    for device in ("abacus", "cuda:99"):
        with pytest.raises(ValueError, match=device):
            load_open_clip(MINI_NAME, "random", device=device)
    for size, named in ((8, "8"), ((96, 8), "96x8")):
        with pytest.raises(ValueError, match=f"image_size {named}: "):
            load_open_clip(MINI_NAME, "random", image_size=size)
    mode: ResizeMode = "crop"  # type: ignore[assignment]  # what a caller without a type checker may do
    with pytest.raises(ValueError, match="'crop'"):
        load_open_clip(MINI_NAME, "random", resize_mode=mode)


def test_missing_mini_weights_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(open_clip_backbone, "MINI_WEIGHTS", tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match=r"absent\.safetensors"):
        load_open_clip(MINI_NAME, None)


def test_mini_loads_its_weights_from_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mini: TowerBackbone
) -> None:
    weights = {name: value + 1 if "head" in name else value for name, value in mini.model.state_dict().items()}
    save_file(weights, tmp_path / "mini.safetensors")
    monkeypatch.setattr(open_clip_backbone, "MINI_WEIGHTS", tmp_path / "mini.safetensors")
    loaded = load_open_clip(MINI_NAME, None)
    torch.testing.assert_close(loaded.model.state_dict(), weights, rtol=0, atol=0)
    assert load_open_clip(MINI_NAME, str(tmp_path / "mini.safetensors")).fingerprint == loaded.fingerprint


def test_damaged_and_foreign_weights_are_refused(tmp_path: Path, tiny: str) -> None:
    weights = tmp_path / "tiny" / "open_clip_model.safetensors"
    with pytest.raises(ValueError, match="forclip-mini"):
        load_open_clip(MINI_NAME, str(weights))
    whole = weights.read_bytes()
    for damaged in (whole[:1000], b"version https://git-lfs.github.com/spec/v1\n"):
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match=weights.name):
            load_open_clip(tiny, None)
    weights.unlink()
    with pytest.raises(ValueError, match=tiny.removeprefix("local-dir:")):
        load_open_clip(tiny, None)


def test_local_folder_round_trip(tiny: str, tiny_weights: dict[str, Tensor]) -> None:
    backbone: Backbone = load_open_clip(tiny, None)
    theirs, _, transform = open_clip.create_model_and_transforms(tiny)
    theirs.eval()
    picture = Image.radial_gradient("L").convert("RGB").resize((64, 64))
    pixels = backbone.preprocess(picture)
    torch.testing.assert_close(pixels, transform(picture))
    tokens, pool = backbone.encode_tokens(pixels[None]), backbone.new_pool()
    with torch.no_grad():
        ours = pool(tokens, pool.pretrained_query(tokens))[:, 0]
        torch.testing.assert_close(ours, theirs.encode_image(pixels[None]), rtol=1e-4, atol=1e-5)
        text = theirs.encode_text(open_clip.get_tokenizer(tiny)(["a cup", "a cow"]), normalize=True)
    torch.testing.assert_close(backbone.encode_text(["a cup", "a cow"]), text)


EVA = {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}
PE = {"timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map", "image_size": 384}
COCA = {**TINY["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
COCA_TEXT = {**TINY["text_cfg"], "embed_cls": True, "output_tokens": True}


@pytest.mark.parametrize(
    "config",
    [
        {**TINY, "vision_cfg": EVA},
        {**TINY, "vision_cfg": PE},
        {**TINY, "vision_cfg": COCA, "text_cfg": COCA_TEXT, "multimodal_cfg": TINY["text_cfg"], "custom_text": True},
    ],
    ids=["EVA", "PE", "CoCa"],
)
def test_local_folders_of_other_families(tmp_path: Path, config: dict[str, object]) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(1)
    model = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False).eval()
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    backbone = load_open_clip(f"local-dir:{tmp_path}", None)
    pixels = backbone.preprocess(Image.radial_gradient("L"))[None]
    with torch.no_grad():
        [[vector]] = training_free_head(backbone, "global")(backbone.encode_tokens(pixels))
        torch.testing.assert_close(vector, model.encode_image(pixels, normalize=True)[0], rtol=1e-4, atol=1e-5)
        tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a cup"])
        text = model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(backbone.encode_text(["a cup"]), text)


def test_text_vectors_have_unit_length_in_any_batch(mini: TowerBackbone) -> None:
    texts = [f"number {i}" for i in range(300)]
    vectors = mini.encode_text(texts)
    assert vectors.shape == (300, 128)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(300))
    torch.testing.assert_close(vectors[299:], mini.encode_text(texts[299:]), rtol=1e-4, atol=1e-5)
    assert mini.encode_text([]).shape == (0, 128)


def test_random_weights_are_seeded_and_leave_the_global_state(mini: TowerBackbone) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    again = load_open_clip(MINI_NAME, "random")
    assert torch.equal(torch.rand(3), expected)
    assert again.fingerprint == mini.fingerprint


def test_random_weights_do_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_open_clip(MINI_NAME, "random")
    assert not caplog.records


def test_fingerprint_depends_on_weights_and_preprocessing_only(
    tmp_path: Path, tiny: str, tiny_weights: dict[str, Tensor]
) -> None:
    fingerprint = load_open_clip(tiny, None).fingerprint
    int(fingerprint, 16)
    copied = write_tiny(tmp_path / "copy", dict(reversed(tiny_weights.items())), TINY_PREPROCESSING)
    assert load_open_clip(copied, None).fingerprint == fingerprint
    assert load_open_clip(tiny, None, image_size=64).fingerprint == fingerprint
    assert load_open_clip(tiny, None, image_size=(64, 64)).fingerprint == fingerprint

    nudged = {name: value.clone() for name, value in tiny_weights.items()}
    nudged["logit_scale"] += 1e-3
    other_mean = {**TINY_PREPROCESSING, "mean": [0.1, 0.2, 0.4]}
    different = {
        load_open_clip(write_tiny(tmp_path / "nudged", nudged, TINY_PREPROCESSING), None).fingerprint,
        load_open_clip(write_tiny(tmp_path / "mean", tiny_weights, other_mean), None).fingerprint,
        load_open_clip(tiny, None, resize_mode="letterbox").fingerprint,
        load_open_clip(tiny, None, image_size=96).fingerprint,
        load_open_clip(tiny, None, image_size=(64, 96)).fingerprint,
        load_open_clip(tiny, None, image_size=(96, 64)).fingerprint,
        fingerprint,
    }
    assert len(different) == 7


def test_fingerprint_depends_on_names_shapes_types_and_bytes() -> None:
    zeros = torch.zeros(4)
    states = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.reshape(2, 2)},
        {"a": zeros.to(torch.int32)},
        {"a": zeros.bfloat16()},
        {"a": zeros, "b": torch.tensor(0.0)},
        {"a": torch.tensor([0.0, 0, 0, 1])},
    ]
    assert len({weights_fingerprint(state, "squash") for state in states} | {weights_fingerprint({}, "")}) == 8
    assert weights_fingerprint({"a": zeros}, "squash") != weights_fingerprint({"a": zeros}, "letterbox")
    strided = torch.arange(6.0).reshape(2, 3).T
    assert weights_fingerprint({"a": strided}, "") == weights_fingerprint({"a": strided.contiguous()}, "")


@pytest.mark.parametrize("size", [(96, 96), (72, 128), (128, 64)])
@pytest.mark.parametrize("mode", ["squash", "letterbox"])
@pytest.mark.parametrize("shape", [(400, 100), (100, 400), (96, 96), (3, 5)])
def test_the_whole_image_is_encoded(mode: ResizeMode, shape: tuple[int, int], size: tuple[int, int]) -> None:
    """CLIP's centre crop would cut off the marks in the corners."""
    backbone = load_open_clip(MINI_NAME, "random", size, mode)
    blank = Image.new("RGB", shape)
    before = backbone.preprocess(blank)
    assert before.shape == (3, *size)
    assert before.dtype == torch.float32
    width, height = shape
    for left, top in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
        marked = blank.copy()
        marked.paste((255, 255, 255), (left // 8 * 8, top // 8 * 8, left // 8 * 8 + 8, top // 8 * 8 + 8))
        assert (backbone.preprocess(marked) - before).abs().max() > 0.1


def test_letterbox_keeps_the_aspect_ratio_and_squash_fills() -> None:
    white = Image.new("RGB", (200, 100), "white")
    letterboxed = load_open_clip(MINI_NAME, "random", resize_mode="letterbox").preprocess(white)
    lit = (letterboxed[0] > 0).any(1)
    assert lit.sum() == 48
    assert lit[24:72].all()
    assert (load_open_clip(MINI_NAME, "random").preprocess(white)[0] > 0).all()


def test_a_letterbox_of_the_images_own_aspect_pads_nothing() -> None:
    camera = load_open_clip(MINI_NAME, "random", (72, 128), "letterbox")
    assert (camera.preprocess(Image.new("RGB", (1920, 1080), "white"))[0] > 0).all()
    assert camera.frame(1920, 1080) == (0, 0, 1, 1)
    # A square is as high as the input and 9/16 as wide: 7/18 of its width are padding on either side.
    assert camera.frame(900, 900) == pytest.approx((-7 / 18, 0, 25 / 18, 1))


@pytest.mark.parametrize("size", [(96, 96), (72, 128), (128, 64)])
@pytest.mark.parametrize("shape", [(200, 100), (100, 250), (96, 96), (37, 500)])
@pytest.mark.parametrize("mode", ["squash", "letterbox"])
def test_the_frame_maps_the_models_input_to_the_image(
    mode: ResizeMode, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """Compare the centre of a small mark in the image and in the preprocessed input."""
    backbone = load_open_clip(MINI_NAME, "random", size, mode)
    width, height = shape
    x0, y0, x1, y1 = backbone.frame(width, height)
    for x, y in ((0.25, 0.25), (0.75, 0.5), (0.5, 0.8)):
        marked = Image.new("RGB", shape)
        left, top, side = round(x * width), round(y * height), max(2, max(shape) // 12)
        marked.paste(
            (255, 255, 255), (left - side // 2, top - side // 2, left - side // 2 + side, top - side // 2 + side)
        )
        seen = (backbone.preprocess(marked) - backbone.preprocess(Image.new("RGB", shape)))[0].clamp(min=0)
        rows, columns = seen.sum(1) / seen.sum(), seen.sum(0) / seen.sum()
        middles = [(torch.arange(count) + 0.5) / count for count in size]
        found = (float(columns @ middles[1]) * (x1 - x0) + x0, float(rows @ middles[0]) * (y1 - y0) + y0)
        # Within two pixels of the input; a mark at an edge is cut off.
        if side < min(shape) / 3:
            assert found[0] == pytest.approx(left / width, abs=2 / size[1] * (x1 - x0))
            assert found[1] == pytest.approx(top / height, abs=2 / size[0] * (y1 - y0))


@pytest.mark.parametrize("shape", [(5000, 1), (1, 5000)])
def test_very_thin_images_survive_the_letterbox(shape: tuple[int, int]) -> None:
    letterbox = load_open_clip(MINI_NAME, "random", resize_mode="letterbox")
    assert (letterbox.preprocess(Image.new("RGB", shape, "white"))[0] > 0).sum() == 96


def test_every_image_mode_is_accepted(mini: TowerBackbone) -> None:
    for mode in ("L", "1", "P", "RGBA", "CMYK"):
        assert mini.preprocess(Image.new(mode, (30, 20))).shape == (3, 96, 96)


def test_image_size_sets_pixels_and_grid() -> None:
    for size, grid in ((128, (16, 16)), ((72, 128), (9, 16))):
        backbone = load_open_clip(MINI_NAME, "random", image_size=size)
        pixels = backbone.preprocess(Image.new("RGB", (30, 20)))
        assert pixels.shape[1:] == (8 * grid[0], 8 * grid[1])
        assert backbone.encode_tokens(pixels[None]).shape == (1, grid[0] * grid[1], 128)
        assert backbone.new_pool().grid == grid


def test_training_a_pool_never_changes_the_backbone(mini: TowerBackbone) -> None:
    pool = mini.new_pool()
    assert all(parameter.requires_grad for parameter in pool.parameters())
    assert not any(parameter.requires_grad for parameter in mini.model.parameters())
    before = {name: value.clone() for name, value in mini.model.state_dict().items()}
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.fill_(9)
    torch.testing.assert_close(mini.model.state_dict(), before, rtol=0, atol=0)
    assert not any((parameter == 9).all() for parameter in mini.new_pool().parameters())


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[str]:
    """The tiny architecture, as one of open_clip's own."""
    (tmp_path / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    yield "tiny-clip"
    open_clip.factory._MODEL_CONFIG_PATHS.pop()
    open_clip.factory._MODEL_CONFIGS.pop("tiny-clip")


@pytest.fixture
def published(
    tmp_path: Path, registered: str, tiny_weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> ModelConfig:
    """The tiny architecture with a tag, whose weights are in the hub's cache. There is no network."""
    tag = {"hf_hub": "org/tiny/", "quick_gelu": True, "interpolation": "bilinear", "mean": (0.1, 0.2, 0.3)}
    cfg = {"mytag": {**tag, "std": (0.5, 0.5, 0.5), "url": "", "resize_mode": "shortest"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, registered, cfg)
    without_network(monkeypatch, tmp_path / "hub")
    save_file(tiny_weights, cache_repository(tmp_path / "hub", "org/tiny") / "open_clip_model.safetensors")
    return ModelConfig(registered, "mytag")


def test_a_cached_tag_brings_its_preprocessing_and_activation(published: ModelConfig) -> None:
    """open_clip alone builds ViT-B-32 with the wrong activation for OpenAI's tag, and only warns."""
    backbone = load_open_clip(published.name, published.pretrained)
    theirs = open_clip.create_model(published.name, load_weights=False, force_quick_gelu=True)
    theirs.load_state_dict(backbone.model.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    tokens, pool = backbone.encode_tokens(pixels), backbone.new_pool()
    with torch.no_grad():
        ours = pool(tokens, pool.pretrained_query(tokens))[:, 0]
        torch.testing.assert_close(ours, theirs.eval().encode_image(pixels), rtol=1e-4, atol=1e-5)
    grey = backbone.preprocess(Image.new("RGB", (9, 9), (128, 128, 128)))
    torch.testing.assert_close(grey[:, 0, 0], (128 / 255 - torch.tensor([0.1, 0.2, 0.3])) / 0.5)


def test_an_architecture_takes_its_best_known_weights_and_says_so(published: ModelConfig) -> None:
    expected = load_open_clip(published.name, published.pretrained).fingerprint
    with pytest.warns(Notice, match="mytag"):
        assert configured_backbone(ModelConfig(published.name), "cpu").fingerprint == expected
    with pytest.raises(ValueError, match="mytag"):
        load_open_clip(published.name, None)


def test_random_weights_are_drawn_on_request_only(registered: str) -> None:
    with pytest.raises(ValueError, match=registered):
        configured_backbone(ModelConfig(registered), "cpu")
    assert configured_backbone(ModelConfig(registered, "random"), "cpu").name == registered
    written = written_reference({"name": registered, "pretrained": None})  # by a version that drew random weights
    assert written == ModelConfig(registered, "random")


def test_without_a_network_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_network(monkeypatch, tmp_path)
    for name, tag, todo in (
        ("ViT-B-16", "datacomp_xl_s13b_b90k", r"open_clip_model\.safetensors .* --model ViT-B-16 --pretrained FILE"),
        ("ViT-B/32", "openai", r"--model ViT-B-32-quickgelu --pretrained FILE"),
        ("ViT-B-16-SigLIP2-256", "webli", str(tmp_path)),
        ("hf-hub:org/name", None, "--model FOLDER"),
    ):
        with pytest.raises(ValueError, match=todo) as error:
            load_open_clip(name, tag)
        assert "\n" not in str(error.value)


def test_a_file_of_published_weights_gets_their_preprocessing(
    tmp_path: Path, published: ModelConfig, tiny_weights: dict[str, Tensor]
) -> None:
    save_file(tiny_weights, tmp_path / "downloaded.safetensors")
    backbone = load_open_clip(published.name, str(tmp_path / "downloaded.safetensors"))
    assert backbone._preprocessing.mean == (0.1, 0.2, 0.3)
    config = {"model_cfg": {**TINY, "quick_gelu": True}, "preprocess_cfg": {"mean": [0.3, 0.2, 0.1]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    beside = load_open_clip(published.name, str(tmp_path / "downloaded.safetensors"))
    assert beside._preprocessing.mean == (0.3, 0.2, 0.1)


def test_a_model_of_rows_and_columns_is_used_so(tmp_path: Path) -> None:
    config = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": [48, 80]}}
    torch.manual_seed(1)
    model = open_clip.model.CLIP(**config)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    backbone = load_open_clip(str(tmp_path), None)
    pixels = backbone.preprocess(Image.radial_gradient("L"))[None]
    assert pixels.shape == (1, 3, 48, 80)
    pool, tokens = backbone.new_pool(), backbone.encode_tokens(pixels)
    assert pool.grid == (3, 5)
    with torch.no_grad():
        ours = pool(tokens, pool.pretrained_query(tokens))[:, 0]
        torch.testing.assert_close(ours, model.eval().encode_image(pixels), rtol=1e-4, atol=1e-5)
    assert load_open_clip(str(tmp_path), None, 64).new_pool().grid == (4, 4)


def test_a_folder_needs_no_prefix_and_works_from_elsewhere(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_open_clip(tiny, None).fingerprint
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "./tiny", "local-dir:tiny"):
        stored = absolute_reference(ModelConfig(name))
        monkeypatch.chdir("/")
        assert configured_backbone(stored, "cpu").fingerprint == expected
        monkeypatch.chdir(tmp_path)


def test_weights_for_another_image_size_are_used_at_that_size(tmp_path: Path, registered: str) -> None:
    larger = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 96}}
    model = open_clip.model.CLIP(**larger)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "larger.pt")
    with pytest.warns(Notice, match="96 pixels"):
        backbone = load_open_clip(registered, str(tmp_path / "larger.pt"))
    assert backbone.preprocess(Image.new("RGB", (9, 9))).shape == (3, 96, 96)
    torch.testing.assert_close(backbone.model.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_weights_that_do_not_fit_are_refused_with_the_first_difference(
    tmp_path: Path, registered: str, tiny_weights: dict[str, Tensor]
) -> None:
    small = open_clip.create_model("ViT-S-32", load_weights=False).state_dict()
    lacking = {name: value for name, value in tiny_weights.items() if name != "ln_final.bias"}
    layout = {name.replace("visual.", "vision_model."): value for name, value in tiny_weights.items()}
    for state, message in (
        (small, "ViT-S-32"),
        (lacking, r"ln_final\.bias"),
        ({**tiny_weights, "adapter.weight": torch.ones(2)}, r"adapter\.weight"),
        (layout, "Hugging Face"),
    ):
        torch.save(state, tmp_path / "weights.pt")
        with pytest.raises(ValueError, match=message) as error:
            load_open_clip(registered, str(tmp_path / "weights.pt"))
        assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_openais_archives_get_their_activation(
    tmp_path: Path, registered: str, tiny_weights: dict[str, Tensor]
) -> None:
    archive = nn.Module()
    for name, value in (*tiny_weights.items(), ("input_resolution", torch.tensor(64))):
        owner = archive
        for part in name.split(".")[:-1]:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        owner.register_buffer(name.rsplit(".", 1)[-1], value.half() if value.is_floating_point() else value)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(archive).save(str(tmp_path / "archive.pt"))
    backbone = load_open_clip(registered, str(tmp_path / "archive.pt"))
    assert isinstance(backbone.model.visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)


def test_a_hub_model_of_open_clip_needs_no_network_once_it_is_cached(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_network(monkeypatch, tmp_path / "hub")
    snapshot = cache_repository(tmp_path / "hub", "org/own")
    for file in (tmp_path / "tiny").iterdir():
        shutil.copy(file, snapshot)
    assert load_open_clip("hf-hub:org/own", None).fingerprint == load_open_clip(tiny, None).fingerprint


def test_an_unreachable_tokenizer_is_reported(mini: TowerBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> None:
        raise OSError("offline")

    monkeypatch.setattr(open_clip, "get_tokenizer", unreachable)
    fresh = OpenClipBackbone("elsewhere", mini.model, mini._tower, replace(mini._preprocessing))
    with pytest.raises(ValueError, match=r"elsewhere.*tokenizer.*offline"):
        fresh.encode_text(["cup"])
