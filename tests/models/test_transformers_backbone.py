"""Hugging Face's CLIP and SigLIP folders give transformers' own features."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch.nn import functional as F

from forclip.config import ModelConfig
from forclip.models.retrieval_model import configured_backbone, load_model
from forclip.models.tower_backbone import TowerBackbone
from forclip.models.tower_parts import resize_positions
from forclip.progress import Notice
from tests.models.hub import cache_repository, without_network

SIZE, PATCH = 64, 16
LAYERS: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "quick_gelu"}
VISION = {**LAYERS, "hidden_size": 32, "intermediate_size": 50, "patch_size": PATCH}
TEXT = {**LAYERS, "hidden_size": 16, "intermediate_size": 40, "max_position_embeddings": 12}
FAMILIES = ("clip", "metaclip_2", "siglip", "siglip2")
TEXTS = ["a cat", "a photo of the dog", "cow " * 40]


def make_model(family: str) -> Any:
    """A model with random weights, all of them: transformers initialises biases to zero and norms to one."""
    small = {"vocab_size": 20, "eos_token_id": 2, "bos_token_id": 3}
    clips_own = {"vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406}
    match family:
        case "clip" | "metaclip_2":
            words = clips_own if family == "clip" else small
            name = "CLIP" if family == "clip" else "MetaClip2"
            config = getattr(transformers, f"{name}Config")(
                text_config={**TEXT, **words, "projection_dim": 24},
                vision_config={**VISION, "image_size": SIZE, "projection_dim": 24},
                projection_dim=24,
            )
        case _:
            name = "Siglip" if family == "siglip" else "Siglip2"
            size = {"image_size": SIZE} if family == "siglip" else {"num_patches": (SIZE // PATCH) ** 2}
            config = getattr(transformers, f"{name}Config")(
                text_config={**TEXT, **small, "projection_size": 32, "hidden_act": "gelu_pytorch_tanh"},
                vision_config={**VISION, **size, "hidden_act": "gelu_pytorch_tanh"},
            )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def save_tokenizer(folder: Path) -> None:
    words = ["<pad>", "<unk>", "</s>", "a", "photo", "of", "cat", "dog", "cow", "the"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>", "model_input_names": ["input_ids"]}
    fast_class: Any = transformers.PreTrainedTokenizerFast
    fast = fast_class(tokenizer_object=tokenizer, padding_side="right", **special)
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, folder in made.items():
        make_model(family).save_pretrained(folder)
        if family != "clip":
            save_tokenizer(folder)
    return made


def load(folder: Path | str, **options: Any) -> TowerBackbone:
    backbone = configured_backbone(ModelConfig(str(folder), **options), "cpu")
    assert isinstance(backbone, TowerBackbone)
    return backbone


def theirs(model: Any, pixels: Tensor, **options: Any) -> Tensor:
    """transformers' image features, normalised. SigLIP 2 takes patches, colours last."""
    rows, columns = pixels.shape[2] // PATCH, pixels.shape[3] // PATCH
    with torch.no_grad():
        if "Siglip2" not in type(model).__name__:
            return F.normalize(model.get_image_features(pixels, **options).pooler_output, dim=-1)
        cut = pixels.reshape(len(pixels), 3, rows, PATCH, columns, PATCH).permute(0, 2, 4, 3, 5, 1)
        features = model.get_image_features(
            pixel_values=cut.reshape(len(pixels), rows * columns, -1),
            pixel_attention_mask=torch.ones(len(pixels), rows * columns, dtype=torch.int32),
            spatial_shapes=torch.tensor([[rows, columns]]).expand(len(pixels), 2),
        )
        return F.normalize(features.pooler_output, dim=-1)


def ours(backbone: TowerBackbone, pixels: Tensor) -> Tensor:
    pool = backbone.new_pool()
    with torch.no_grad():
        tokens = pool.stage(backbone.encode_tokens(pixels))
        return F.normalize(pool(tokens, pool.pretrained_query(tokens))[:, 0], dim=-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_transformers(folders: dict[str, Path], family: str) -> None:
    backbone, model = load(folders[family]), make_model(family)
    pixels = torch.randn(3, 3, SIZE, SIZE)
    torch.testing.assert_close(ours(backbone, pixels), theirs(model, pixels), rtol=0, atol=1e-5)
    if family == "clip":  # no tokenizer in the folder: CLIP's own
        assert backbone.encode_text(TEXTS[:1]).shape == (1, 24)
        return
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folders[family])
    inputs = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        expected = F.normalize(model.get_text_features(**inputs).pooler_output, dim=-1)
    torch.testing.assert_close(backbone.encode_text(TEXTS), expected, rtol=0, atol=1e-5)


def test_clips_own_tokenizer_is_that_of_transformers_clip(folders: dict[str, Path]) -> None:
    """`<start> a cat <end>` in CLIP's vocabulary; padding after the end does not matter."""
    ids = torch.tensor([[49406, 320, 2368, 49407, 49407, 49407]])
    with torch.no_grad():
        expected = F.normalize(make_model("clip").get_text_features(input_ids=ids).pooler_output, dim=-1)
    torch.testing.assert_close(load(folders["clip"]).encode_text(["a cat"]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_heads_work_and_sizes_change(folders: dict[str, Path], family: str) -> None:
    for head in ("sum", "dense", "cluster_3"):
        model = load_model(ModelConfig(str(folders[family])), head=head)
        tokens = model.backbone.encode_tokens(model.backbone.preprocess(Image.radial_gradient("L"))[None])
        assert torch.isfinite(model.head(tokens)).all()
    larger = load(folders[family], image_size=96)
    assert larger.new_pool().grid == (6, 6)
    assert torch.isfinite(ours(larger, torch.randn(1, 3, 96, 96))).all()


@pytest.mark.parametrize("size", [(64, 112), (112, 48)])
@pytest.mark.parametrize("family", FAMILIES)
def test_features_of_wide_and_high_images_are_those_of_transformers(
    folders: dict[str, Path], family: str, size: tuple[int, int]
) -> None:
    """transformers interpolates positions without antialiasing, except SigLIP 2's: it is given open_clip's."""
    backbone, model = load(folders[family], image_size=size), make_model(family)
    grid = (size[0] // PATCH, size[1] // PATCH)
    assert backbone.new_pool().grid == grid
    assert backbone.preprocess(Image.radial_gradient("L")).shape == (3, *size)
    pixels, options = torch.randn(3, 3, *size), {}
    if family != "siglip2":
        embeddings, prefix = model.vision_model.embeddings, 0 if family == "siglip" else 1
        resized = resize_positions(embeddings.position_embedding.weight.detach(), (4, 4), grid, prefix)
        embeddings.interpolate_pos_encoding = lambda *_: resized[None]
        options = {"interpolate_pos_encoding": True}
    torch.testing.assert_close(ours(backbone, pixels), theirs(model, pixels, **options), rtol=0, atol=1e-5)


def test_pixels_beyond_the_last_whole_patch_are_left_out(folders: dict[str, Path]) -> None:
    for family in FAMILIES:
        backbone = load(folders[family], image_size=(70, 100))
        pixels = torch.randn(1, 3, 70, 100)
        changed = pixels.clone()
        changed[:, :, 64:] = changed[:, :, :, 96:] = 9
        torch.testing.assert_close(ours(backbone, pixels), ours(backbone, changed))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_stage_can_be_trained(folders: dict[str, Path], family: str) -> None:
    pixels = torch.randn(2, 3, SIZE, SIZE)
    staged = load(folders[family], train_last_stage=True)
    assert staged.new_pool().stage_parameters()
    torch.testing.assert_close(ours(staged, pixels), ours(load(folders[family]), pixels))


def test_shards_and_pickles_give_the_same_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    model, pixels = make_model("clip"), torch.randn(1, 3, SIZE, SIZE)
    expected = ours(load(folders["clip"]), pixels)
    model.save_pretrained(tmp_path / "shards", max_shard_size="500KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    (tmp_path / "pickle").mkdir()
    shutil.copy(folders["clip"] / "config.json", tmp_path / "pickle")
    torch.save(model.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    for name in ("shards", "pickle"):
        torch.testing.assert_close(ours(load(tmp_path / name), pixels), expected)
    first = min((tmp_path / "shards").glob("*.safetensors"))
    first.unlink()
    with pytest.raises(ValueError, match=first.name):
        load(tmp_path / "shards")
    (tmp_path / "pickle" / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin.*git lfs pull"):
        load(tmp_path / "pickle")


def test_preprocessing_is_the_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["clip"], folder)
    content = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "resample": 2, "rescale_factor": 1 / 255}
    picture = Image.new("RGB", (20, 10), (51, 102, 153))
    expected = torch.tensor([(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.6, (0.6 - 0.3) / 0.7])
    for name, written in (
        ("preprocessor_config.json", content),
        ("processor_config.json", {"image_processor": content}),
    ):
        (folder / name).write_text(json.dumps(written))
        pixels = load(folder).preprocess(picture)
        assert pixels.shape == (3, SIZE, SIZE)
        torch.testing.assert_close(pixels.mean((1, 2)), expected, rtol=1e-4, atol=1e-4)
        (folder / name).unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps({**content, "resample": 1}))
    with pytest.warns(Notice, match="resample 1"):
        load(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"rescale_factor": 1 / 127.5}))
    with pytest.raises(ValueError, match="rescale_factor"):
        load(folder)


def test_weights_that_lack_a_tower_or_fit_another_config_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["clip"], folder)
    state = make_model("clip").state_dict()
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    for kept, message in (("vision", "text tower"), ("text", "vision tower"), ("logit", "text tower")):
        torch.save({k: v for k, v in state.items() if k.startswith(kept)}, folder / "pytorch_model.bin")
        with pytest.raises(ValueError, match=message):
            load(folder)
    torch.save({k: v for k, v in state.items() if k != "logit_scale"}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="logit_scale"):
        load(folder)
    torch.save(state, folder / "pytorch_model.bin")
    config["vision_config"]["hidden_size"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=str(folder)) as error:
        load(folder)
    assert len(str(error.value)) < 300 + len(str(folder))


def test_a_folder_without_a_tokenizer_of_its_own_words_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["siglip"], tmp_path / "model")
    for file in (tmp_path / "model").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match="tokenizer"):
        load(tmp_path / "model")


def test_random_weights_need_the_config_only(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    shutil.copy(folders["clip"] / "config.json", tmp_path / "config")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load(tmp_path / "config")
    once, again = (load(tmp_path / "config", pretrained="random").fingerprint for _ in range(2))
    assert once == again != load(folders["clip"]).fingerprint
    with pytest.raises(ValueError, match="openai"):
        load(folders["clip"], pretrained="openai")


def test_a_hub_model_in_the_cache_needs_no_network(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_network(monkeypatch, tmp_path)
    snapshot = cache_repository(tmp_path, "org/name")
    shutil.copytree(folders["siglip"], snapshot, dirs_exist_ok=True)
    expected = load(folders["siglip"]).fingerprint
    assert load("hf-hub:org/name").fingerprint == expected
    assert load(tmp_path / "models--org--name").fingerprint == expected
    with pytest.raises(ValueError, match="org/other"):
        load("hf-hub:org/other")
