"""The learning rate and the length of a training follow the images."""

import copy

import pytest
import torch

from forclip.config import TrainConfig
from forclip.training.initialisation import choose_initial_head
from forclip.training.step_size import learning_rate_for, scale_for_labels
from forclip.training.trainer import number_of_epochs
from tests.tiny import TinyBackbone
from tests.training.test_finetune import HEAD, images, supervision


@pytest.mark.parametrize("step", [0.01, 0.04])
def test_a_first_step_at_the_measured_rate_moves_the_vectors_by_the_step(step: float) -> None:
    tokens = images()
    head, _ = choose_initial_head(TinyBackbone(), tokens, supervision(), HEAD, 0)
    parameters = [head.offsets]
    rate = learning_rate_for(head, parameters, tokens[0], step, 0)
    moved, signs = copy.deepcopy(head), torch.Generator().manual_seed(5)  # other signs than the measurement's
    with torch.no_grad():
        moved.offsets.add_(rate * (torch.randint(2, moved.offsets.shape, generator=signs) * 2.0 - 1))
        batch = tokens[0].float()
        assert float((moved(batch) - head(batch)).norm(dim=-1).mean()) == pytest.approx(step, rel=0.5)


def test_the_rate_falls_with_how_often_labelled_images_are_seen() -> None:
    assert scale_for_labels(1000, 1000) == scale_for_labels(500, 1000) == 1
    assert scale_for_labels(125, 1000) == pytest.approx(0.5)
    assert scale_for_labels(0, 1000) == 1  # no labels to learn by heart


@pytest.mark.parametrize(
    ("images", "parts", "epochs"), [(1200, 1, 30), (120, 1, 30), (120, 10, 300), (1200, 10, 32), (1_000_000, 10, 3)]
)
def test_a_training_has_about_600_steps(images: int, parts: int, epochs: int) -> None:
    assert number_of_epochs(images, TrainConfig(), parts) == epochs
    assert number_of_epochs(images, TrainConfig(epochs=7), parts) == 7
