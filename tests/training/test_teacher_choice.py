"""The choice between teachers that know all, nothing, or the opposite of the labels."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.progress import Advance, silent, untracked
from forclip.training.supervision import Supervision
from forclip.training.teachers import choose_teacher

IMAGES, CLASSES = 90, 6
LABELS = np.random.default_rng(0).random((IMAGES, CLASSES)) < 0.3


class Scripted:
    """Its score of an image for a class is what the label says, in a share of the images; else it is chance."""

    def __init__(self, name: str, right: float) -> None:
        rng = np.random.default_rng(len(name))
        truth = np.where(LABELS, 1.0, 0.0) * np.sign(right)
        told = np.where(rng.random(LABELS.shape) < abs(right), truth, 0.0) + 0.5 * rng.random(LABELS.shape)
        self.name, self.asked = name, 0
        self.vectors = F.normalize(torch.from_numpy(np.c_[told, np.ones(IMAGES)]).float(), dim=-1)[:, None]

    def __call__(self, rows: Sequence[int], advance: Advance = silent) -> Tensor:
        self.asked += len(rows)
        return self.vectors[list(rows)]


class Head:
    """A student whose scores are given by a teacher."""

    grid = (1, 1)

    def __init__(self, like: Scripted) -> None:
        self.like = like

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.like.vectors[tokens[:, 0, 0].long()]

    def position_weights(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError


TOKENS = torch.arange(IMAGES, dtype=torch.float32)[:, None, None]


def known(labelled: int = IMAGES) -> Supervision:
    verified = np.zeros_like(LABELS)
    verified[:labelled] = True
    return Supervision(LABELS, verified, torch.eye(CLASSES + 1)[:CLASSES], torch.zeros(0, CLASSES + 1))


def test_the_best_is_chosen_if_it_beats_the_student() -> None:
    good, fair = Scripted("good", 0.9), Scripted("fair", 0.6)
    best, gains = choose_teacher([fair, good], Head(Scripted("student", 0.2)), TOKENS, known(), untracked)
    assert best is good
    assert gains["good"][0] > gains["good"][1] > gains["fair"][1] > 0
    none, gains = choose_teacher([fair, good], Head(Scripted("master", 1.0)), TOKENS, known(), untracked)
    assert none is None
    assert set(gains) == {"good", "fair"}


def test_a_hopeless_one_is_asked_a_third() -> None:
    hopeless, good = Scripted("hopeless", -0.9), Scripted("good", 0.9)
    best, gains = choose_teacher([hopeless, good], Head(Scripted("student", 0.3)), TOKENS, known(), untracked)
    assert best is good
    assert (hopeless.asked, good.asked) == (30, 90)
    assert gains["hopeless"][0] < 0


@pytest.mark.parametrize("labelled", [0, 1, 2, 4])
def test_too_few_labels_choose_none(labelled: int) -> None:
    good = Scripted("good", 0.9)
    best, _ = choose_teacher([good], Head(Scripted("master", 1.0)), TOKENS, known(labelled), untracked)
    assert best is None
    assert good.asked == labelled
