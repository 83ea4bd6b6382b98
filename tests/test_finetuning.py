"""FOR put together, on a backbone of a few random matrices."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from forclip.config import HeadConfig, TrainConfig
from forclip.finetuning import Supervision, finetune
from forclip.models.pools import Pool
from forclip.prompts import encode_classes
from tests.tiny import tiny_pool

HEAD = HeadConfig(num_query_tokens=3)
TRAIN = TrainConfig(epochs=2, batch_size=4, teacher_clusters=2)


class TinyBackbone:
    """A 3 x 3 grid of width 8, and a text tower that looks a random vector up."""

    name, fingerprint, device = "tiny", "0", torch.device("cpu")

    def preprocess(self, image: Image.Image) -> Tensor:
        raise NotImplementedError

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        raise NotImplementedError

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        numbers = [sum(text.encode()) for text in texts]
        rows = [torch.randn(6, generator=torch.Generator().manual_seed(n)) for n in numbers]
        return F.normalize(torch.stack(rows), dim=-1)

    def new_pool(self) -> Pool:
        return tiny_pool((3, 3))


def supervision() -> Supervision:
    labels = np.random.default_rng(0).random((10, 3)) < 0.4
    texts = encode_classes(TinyBackbone(), ["cat", "dog", "cup"], ["a {}"])
    vocabulary = encode_classes(TinyBackbone(), ["red", "green", "blue", "cyan"], ["a {}", "the {}"])
    return Supervision(labels, np.ones_like(labels), texts, vocabulary)


@torch.inference_mode()
def frozen_tokens() -> Tensor:
    """As encode_images makes them."""
    return torch.randn(10, 9, 8, generator=torch.Generator().manual_seed(1)).half()


def test_every_objective_trains_on_what_the_towers_made() -> None:
    """Tokens, texts and teacher come from code without gradients; training must be able to go back through them."""
    done = finetune(TinyBackbone(), frozen_tokens(), supervision(), HEAD, TRAIN)
    assert len(done.history) == 6
    assert set(done.history[0]) == {"base_labels", "pseudo_labels", "teacher_set"}
    untuned = finetune(TinyBackbone(), frozen_tokens(), supervision(), HEAD, replace(TRAIN, learning_rate=1e-30))
    assert not torch.equal(done.head.offsets, untuned.head.offsets)


@pytest.mark.parametrize("left_out", ["base_labels", "pseudo_labels", "teacher_set"])
def test_a_weight_of_zero_leaves_an_objective_out(left_out: str) -> None:
    weights = {"base_labels": "base_weight", "pseudo_labels": "pseudo_weight", "teacher_set": "set_weight"}
    config = TrainConfig(epochs=1, teacher_clusters=2, **{weights.pop(left_out): 0.0})  # type: ignore[arg-type]  # a weight
    assert set(finetune(TinyBackbone(), frozen_tokens(), supervision(), HEAD, config).history[0]) == set(weights)


def test_nothing_to_train_on_is_an_error() -> None:
    config = replace(TRAIN, base_weight=0, pseudo_weight=0, set_weight=0)
    with pytest.raises(ValueError, match="every objective's weight is 0"):
        finetune(TinyBackbone(), frozen_tokens(), supervision(), HEAD, config)


def test_a_finished_checkpoint_is_not_trained_further(tmp_path: Path) -> None:
    checkpoint = tmp_path / "state.safetensors"
    first = finetune(TinyBackbone(), frozen_tokens(), supervision(), HEAD, TRAIN, checkpoint)
    again = finetune(TinyBackbone(), frozen_tokens(), supervision(), HEAD, TRAIN, checkpoint)
    assert again.history == first.history
    assert torch.equal(again.head.offsets, first.head.offsets)


def test_unlabelled_images_teach_the_base_labels_nothing() -> None:
    """With no verified pair, what the labels say makes no difference; the other objectives still train."""
    known = supervision()
    nothing = np.zeros_like(known.verified)
    one = finetune(TinyBackbone(), frozen_tokens(), replace(known, verified=nothing), HEAD, TRAIN)
    other = finetune(
        TinyBackbone(), frozen_tokens(), replace(known, verified=nothing, labels=~known.labels), HEAD, TRAIN
    )
    assert one.history == other.history
    assert {h["base_labels"] for h in one.history} == {0.0}
    assert one.history[0]["teacher_set"] > 0
