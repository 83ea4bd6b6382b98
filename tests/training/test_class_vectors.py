"""Class vectors: which texts move, how far, and that ranking improves."""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.config import TrainConfig
from forclip.evaluation.metrics import average_precision_at
from forclip.models.retrieval_model import ClassVectors, no_class_vectors
from forclip.models.summary_head import SummaryHead
from forclip.training.class_vectors import choose_strength, learn_class_vectors
from forclip.training.losses import max_sim
from forclip.training.supervision import Supervision


def assert_almost_equal(result: Tensor, expected: Tensor) -> None:
    """Equal except for rounding."""
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


def at(cosine: float) -> Tensor:
    """Return a unit vector [1, 3] with this cosine to the first axis, orthogonal to the third."""
    return torch.tensor([[cosine, (1 - cosine**2) ** 0.5, 0.0]])


def test_the_shift_fades_out_half_way_to_the_nearest_other_word() -> None:
    """That word has cosine 0.6: texts shift from 0.8 on, by half at 0.9."""
    shift = torch.tensor([[0.0, 0.0, 0.5]])
    moved = ClassVectors(at(1.0), shift, torch.tensor([0.6]))
    for cosine, weight in ((1.0, 1.0), (0.9, 0.5), (0.85, 0.25), (0.8, 0.0), (0.6, 0.0), (0.0, 0.0), (-1.0, 0.0)):
        expected = F.normalize(at(cosine) + weight * shift, dim=-1)
        assert_almost_equal(moved(at(cosine)), expected)


def test_each_text_gets_the_shift_of_its_class() -> None:
    shifts = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -2.0]])
    moved = ClassVectors(torch.eye(3)[:2], shifts, torch.zeros(2))
    expected = F.normalize(torch.tensor([[0.0, 1.0, -2.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), dim=-1)
    assert_almost_equal(moved(torch.eye(3)[[1, 0, 2]]), expected)


def test_no_class_vectors_are_the_identity() -> None:
    texts = F.normalize(torch.randn(5, 6), dim=-1)
    assert_almost_equal(no_class_vectors(6)(texts), texts)


class Photos:
    """Images of random vectors: a quarter of them show each of the first three classes, none the fourth.

    The vector of a shown class lies at some distance from its text, and vectors of other things lie nearer to it.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def unit(*shape: int) -> Tensor:
            return F.normalize(torch.randn(*shape, 16, generator=generator), dim=-1)

        self.texts, self.words = torch.linalg.qr(torch.randn(16, 4, generator=generator))[0].T, unit(30)
        self.targets = torch.rand(200, 4, generator=generator) < 0.25
        self.targets[:, 3] = False
        self.verified = torch.ones_like(self.targets)
        centres = F.normalize(0.7 * self.texts + 0.7 * unit(4), dim=-1)
        own = F.normalize(centres + 1.2 * unit(200, 4), dim=-1)
        shown = torch.where(self.targets[..., None], own, unit(200, 4))
        others = F.normalize(0.7 * self.texts + 0.7 * unit(200, 4), dim=-1)
        noise = torch.rand(200, 4, 1, generator=generator) < 0.4
        self.vectors = torch.cat([shown, torch.where(noise, others, unit(200, 4))], 1)

    def learn(self, strength: float = 1.0, seed: int = 0) -> ClassVectors:
        words = torch.cat([self.texts, self.words])
        return learn_class_vectors(self.vectors, self.targets, self.verified, self.texts, words, strength, seed)

    def precision(self, texts: Tensor) -> float:
        scores, labels = max_sim(self.vectors, texts).numpy(), self.targets.numpy()
        return float(np.mean([average_precision_at(scores[:, c], labels[:, c], 50) for c in range(3)]))


def test_learning_improves_the_ranking_in_proportion_to_strength() -> None:
    photos = Photos()
    before = photos.precision(photos.texts)
    half, full = (photos.precision(photos.learn(strength)(photos.texts)) for strength in (0.5, 1.0))
    assert before + 0.05 < half < full


def test_other_words_and_classes_without_positives_do_not_move() -> None:
    photos = Photos()
    learned = photos.learn()
    assert_almost_equal(learned(photos.words), photos.words)
    moved = learned(photos.texts)
    assert_almost_equal(moved[3], photos.texts[3])
    assert ((moved[:3] * photos.texts[:3]).sum(1) < 0.99).all()
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(4))


def test_strength_scales_the_shift_and_few_positives_shrink_it() -> None:
    photos = Photos()
    full, third = photos.learn(1.0), photos.learn(0.3)
    torch.testing.assert_close(third.shifts, 0.3 * full.shifts)
    # All but two positives of the first class become unverified: two of them keep less than half.
    positives = photos.targets[:, 0].nonzero()[:, 0]
    photos.verified[positives[2:], 0] = False
    assert photos.learn().shifts[0].norm() < 0.75 * full.shifts[0].norm()


def test_the_nearest_other_word_may_be_another_class_but_not_the_class_itself() -> None:
    """The words include the names of all classes."""
    photos = Photos()
    expected = []
    for c in range(4):
        others = [w for k, w in enumerate(photos.texts) if k != c] + list(photos.words)
        expected.append(max(0.0, max(float(photos.texts[c] @ w) for w in others)))
    assert_almost_equal(photos.learn().nearest, torch.tensor(expected))


def test_the_seed_alone_decides() -> None:
    photos = Photos()
    torch.manual_seed(1)
    one = photos.learn(seed=4).shifts
    torch.manual_seed(2)  # the global generator is not used
    assert torch.equal(one, photos.learn(seed=4).shifts)
    assert not torch.equal(one, photos.learn(seed=5).shifts)


def test_unverified_labels_make_no_difference() -> None:
    photos = Photos()
    photos.verified[::3] = False
    one = photos.learn().shifts
    photos.targets = torch.where(photos.verified, photos.targets, ~photos.targets)
    assert torch.equal(one, photos.learn().shifts)


class Stored(nn.Module):
    """A head whose tokens are its vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = torch.zeros(1)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


def chosen_strength(photos: Photos, config: TrainConfig) -> float:
    given = Supervision(photos.targets.numpy(), photos.verified.numpy(), photos.texts, photos.words)
    heads = [(np.array([0, 2]), cast(SummaryHead, Stored())), (np.array([1, 3]), cast(SummaryHead, Stored()))]
    return choose_strength(heads, photos.vectors[None], given, config)[0]


def test_the_strength_is_chosen_by_images_that_a_fit_did_not_see() -> None:
    """A text vector moves if the images of its class lie elsewhere, and stays if they lie around it."""
    photos = Photos()
    assert chosen_strength(photos, TrainConfig()) >= 0.5
    generator = torch.Generator().manual_seed(2)
    images = F.normalize(photos.texts + 0.5 * torch.randn(200, 4, 16, generator=generator), dim=-1)
    photos.vectors = torch.where(
        photos.targets[..., None], images, photos.vectors[:, :4]
    )  # the texts are right already
    assert chosen_strength(photos, TrainConfig()) <= 0.25


def test_guesses_are_made_without_the_labels_that_measure_them() -> None:
    photos, seen = Photos(), list[set[int]]()
    given = Supervision(photos.targets.numpy(), photos.verified.numpy(), photos.texts, photos.words)

    def guess(known: Supervision) -> Supervision:
        seen.append(set(known.labelled.tolist()))
        return known

    heads = [(np.arange(4), cast(SummaryHead, Stored()))]
    choose_strength(heads, photos.vectors[None], given, TrainConfig(), guess)
    one, other = seen
    assert not one & other
    assert one | other == set(given.labelled.tolist())


def test_one_labelled_image_cannot_choose_a_strength() -> None:
    photos = Photos()
    photos.verified = photos.verified & (torch.arange(len(photos.targets)) == 7)[:, None]
    given = Supervision(photos.targets.numpy(), photos.verified.numpy(), photos.texts, photos.words)
    heads = [(np.arange(4), cast(SummaryHead, Stored()))]
    assert choose_strength(heads, photos.vectors[None], given, TrainConfig()) == (0.75, {})


def test_a_configured_strength_is_used() -> None:
    assert chosen_strength(Photos(), TrainConfig(class_vectors=0.3)) == 0.3
    assert choose_strength([], Photos().vectors[None], cast(Supervision, None), TrainConfig()) == (0.75, {})
