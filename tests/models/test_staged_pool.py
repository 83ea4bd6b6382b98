"""The tower's last stage in the pool: equal vectors, and training with its own learning rate."""

import copy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from forclip.config import ModelConfig, TrainConfig
from forclip.models.baselines import ClusterHead, DenseHead, Head
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.retrieval_model import from_pretrained, no_class_vectors, save_pretrained
from forclip.models.summary_head import window_seeded_head
from forclip.models.towers import cut_tower
from forclip.training.objectives import BaseLabels
from forclip.training.trainer import TrainingSet, new_state, train
from tests.models.test_pools import identity
from tests.tiny import aligned

STAGE_RATE = 0.01


def resnet() -> Any:
    visual = ModifiedResNet([1, 1, 1, 1], output_dim=16, heads=4, image_size=64, width=8)
    visual.train()(pixels(64))  # gives the batch norms statistics that training mode would change
    return visual.eval().requires_grad_(False)


def vit(batch_first: bool) -> Any:
    visual = VisionTransformer(32, 8, 32, 3, 4, 2.0, output_dim=16).eval().requires_grad_(False)
    visual.transformer.batch_first = batch_first
    for block in visual.transformer.resblocks:
        block.attn.batch_first = batch_first
    return visual


def pixels(side: int) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def heads(pool: Any) -> list[Head]:
    pool.eval().requires_grad_(False)
    return [window_seeded_head(pool, 4), DenseHead(pool), ClusterHead(pool, 2)]


@pytest.mark.parametrize(
    ("build", "side", "image_size"),
    [
        (resnet, 64, None),
        (resnet, 95, 95),
        (lambda: vit(True), 32, None),
        (lambda: vit(False), 32, None),
        (lambda: vit(True), 48, 48),
    ],
    ids=["resnet", "resnet at 95", "vit", "vit, batch second", "vit at 48"],
)
def test_the_stage_in_the_pool_changes_no_head(build: Any, side: int, image_size: int | None) -> None:
    torch.manual_seed(0)
    visual = build()
    late, early = cut_tower(visual, image_size), cut_tower(visual, image_size, last_stage=True)
    assert early.pool.tower_stage is not None
    tokens = [tower.tokens(pixels(side)) for tower in (late, early)]
    assert not torch.equal(tokens[0].flatten()[:8], tokens[1].flatten()[:8])
    with torch.no_grad():
        for pool in (early.pool, aligned(copy.deepcopy(early.pool), identity(16))):
            for plain, staged in zip(heads(late.pool), heads(pool), strict=True):
                torch.testing.assert_close(staged(tokens[1]), plain(tokens[0]))
                torch.testing.assert_close(staged.position_weights(tokens[1]), plain.position_weights(tokens[0]))


def test_a_tower_without_a_stage_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="VisionTransformer"):  # its only block is the pool's
        cut_tower(VisionTransformer(32, 8, 32, 1, 4, 2.0, output_dim=16), last_stage=True)
    with pytest.raises(ValueError, match="FastVit"):
        load_open_clip("MobileCLIP2-S0", "random", last_stage=True)


def test_the_stage_trains_at_its_own_rate_with_fixed_statistics() -> None:
    torch.manual_seed(0)
    tower = cut_tower(resnet(), last_stage=True)
    head = window_seeded_head(tower.pool, 2)
    config = TrainConfig(epochs=1, batch_size=3, learning_rate=1e-3, stage_learning_rate=STAGE_RATE, weight_decay=0.0)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    data = TrainingSet(
        tokens=tower.tokens(pixels(64))[None],
        rows=torch.arange(3),
        targets=torch.eye(3, dtype=torch.bool)[None],
        verified=torch.ones(1, 3, 3, dtype=torch.bool),
        teacher=torch.zeros(1, 3, 0, 1),
        untuned=torch.zeros(1, 3, 0, 1),
    )
    texts = nn.functional.normalize(torch.randn(3, 16), dim=-1)
    train(new_state(head, [BaseLabels(texts, "binary", 1.0)], config), data, config, None, lambda step, terms: None)

    def moved(names: list[str]) -> float:
        return max(float((head.state_dict()[name] - before[name]).abs().max()) for name in names)

    statistics = [name for name in before if "running" in name or "num_batches" in name]
    stage = [name for name, _ in head.named_parameters() if "tower_stage" in name]
    others = [name for name, _ in head.named_parameters() if "tower_stage" not in name]
    assert statistics
    assert moved(statistics) == 0
    # AdamW's first step moves each weight by its learning rate.
    assert moved(stage) == pytest.approx(1e-3 * STAGE_RATE, rel=0.02)
    assert moved(others) == pytest.approx(1e-3, rel=0.02)


def test_training_only_queries_does_not_train_the_stage() -> None:
    head = window_seeded_head(cut_tower(resnet(), last_stage=True).pool, 2)
    new_state(head, [], TrainConfig(learning_rate=1e-3), "queries")
    assert not any(p.requires_grad for p in head.pool.stage_parameters())


def test_a_model_with_a_trained_stage_is_saved_and_loaded(tmp_path: Path) -> None:
    model = ModelConfig("forclip-mini", train_last_stage=True)
    early, late = load_open_clip("forclip-mini", None, last_stage=True), load_open_clip("forclip-mini", None)
    assert early.fingerprint != late.fingerprint  # their tokens differ
    head = window_seeded_head(early.new_pool(), 3)
    with torch.no_grad():
        for parameter in head.pool.stage_parameters():
            parameter.add_(0.01)
    save_pretrained(tmp_path, head.eval(), no_class_vectors(head.pool.dim), early, model, ("a {}",))
    loaded = from_pretrained(tmp_path)
    size = open_clip.get_model_config("forclip-mini")["vision_cfg"]["image_size"]
    tokens = loaded.backbone.encode_tokens(pixels(size))
    with torch.no_grad():
        torch.testing.assert_close(loaded.head(tokens), head(early.encode_tokens(pixels(size))))
