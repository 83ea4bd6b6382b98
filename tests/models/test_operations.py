"""The operations of image towers, against published numbers and by hand."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from forclip.config import ModelConfig
from forclip.data.images.tiles import Tiles
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.operations import count_operations, model_size
from forclip.models.retrieval_model import load_model, no_class_vectors, save_pretrained
from forclip.models.summary_head import window_seeded_head


@pytest.mark.parametrize(
    ("name", "published"),
    [("ViT-B-16", 2 * 17.6e9), ("clip-b32", 2 * 5.7e9), ("RN50", 2 * 6.1e9)],
)
def test_towers_have_their_published_operations(name: str, published: float) -> None:
    """Multiply-adds times two. open_clip's table has 17.6 G for ViT-B-16; clip-b32 has inputs of 256 pixels."""
    size = model_size(name)
    assert size.operations == pytest.approx(published, rel=0.03)
    assert (size.dim, size.num_query_tokens, size.tiles) == (1024 if name == "RN50" else 512, 25, None)
    assert size.input_size == ((256, 256) if name == "clip-b32" else (224, 224))


def test_operations_by_hand() -> None:
    """7 rows from 3 to 5 numbers: 2 * 7 * 3 * 5. 4 queries over 6 keys of 8 numbers: twice 2 * 4 * 6 * 8."""
    linear, rows = nn.Linear(3, 5), torch.zeros(7, 3)
    assert count_operations(lambda: linear(rows)) == 210
    queries, keys = torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 6, 8)
    assert count_operations(lambda: scaled_dot_product_attention(queries, keys, keys)) == 768


def test_a_loaded_model_counts_its_head_and_has_its_own_number_of_vectors() -> None:
    built = model_size("forclip-mini")
    tower = load_open_clip("forclip-mini", None)
    pixels = torch.zeros(1, 3, 96, 96)
    loaded = count_operations(lambda: tower.model.visual(pixels))
    assert built.operations == pytest.approx(loaded, rel=0.01)
    model = load_model(ModelConfig("forclip-mini"))
    with_head = count_operations(lambda: model.head(model.backbone.encode_tokens(pixels)))
    assert with_head == pytest.approx(loaded, rel=0.25)
    assert model_size("forclip-mini", num_query_tokens=4).num_query_tokens == 4


def test_a_trained_run_is_counted_with_its_own_head_tiles_and_size(tmp_path: Path) -> None:
    config = ModelConfig("forclip-mini", tiles="2x2")
    backbone = load_open_clip("forclip-mini", None)
    pool = backbone.new_pool()
    save_pretrained(tmp_path, window_seeded_head(pool, 3), no_class_vectors(pool.dim), backbone, config, ("{}",))
    run = model_size(str(tmp_path))
    assert (run.num_query_tokens, run.dim, run.tiles, run.input_size) == (3, pool.dim, Tiles(2, 2), (96, 96))
    assert run.operations == pytest.approx(model_size("forclip-mini").operations, rel=0.25)
    with pytest.raises(ValueError, match="num_query_tokens 3, not 9"):
        model_size(str(tmp_path), num_query_tokens=9)
    with pytest.raises(ValueError, match="--image-size"):
        model_size(str(tmp_path), 192)


def test_a_larger_input_takes_more() -> None:
    """ViT-B-16 at 448 pixels has four times the patches, and attention grows with their square."""
    small, large = model_size("ViT-B-16").operations, model_size("ViT-B-16", 448).operations
    wide = model_size("ViT-B-16", (224, 448)).operations
    assert 4 < large / small < 4.5
    assert small < wide < large


def test_unknown_models_are_named() -> None:
    with pytest.raises(ValueError, match="ViT-B-61"):
        model_size("ViT-B-61")
