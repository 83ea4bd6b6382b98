"""Losses agree with the naive loops of tests/reference.py, in float64, and with values worked by hand.

Gradients agree with finite differences of step 1e-6. The seeds keep every input away from the kinks of max, relu and
clamp; an input on a kink would fail, not pass.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.training.losses import (
    asymmetric_loss,
    binary_loss,
    max_sim,
    preservation_loss,
    query_diversity,
    score_distillation,
    set_distillation,
    softmax_loss,
)
from tests import reference

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Shape = tuple[int, int]
GAMMAS = [(0.0, 4.0, 0.05), (1.0, 2.0, 0.2), (0.0, 0.0, 0.0)]
TEMPERATURES = [0.05, 1.0]
NUM_VECTORS = [(4, 5), (4, 4), (1, 5), (4, 1), (1, 1)]  # of student and teacher


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def scored(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_mask(seed: int, rate: float) -> Tensor:
    return torch.rand(4, 5, generator=torch.Generator().manual_seed(seed)) < rate


def one_image_each() -> tuple[Tensor, Tensor]:
    """Four images: both labels; positives only; negatives only; nothing verified."""
    targets = torch.tensor([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 1, 0, 1]]).bool()
    return targets, torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()


# targets and verified, [4, 5]
LABELS = {
    "some": (random_mask(0, 0.4), random_mask(1, 0.7)),
    "others": (random_mask(2, 0.4), random_mask(3, 0.7)),
    "all verified": (random_mask(4, 0.4), random_mask(5, 1)),
    "one image each": one_image_each(),
    "nothing verified": (random_mask(6, 0.4), random_mask(7, 0)),
    "no positives": (random_mask(8, 0), random_mask(9, 0.7)),
    "all positives": (random_mask(10, 1), random_mask(11, 0.7)),
}
each_labels = pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())


def softmax_loss_at_half(scores: Tensor, targets: Tensor, verified: Tensor) -> Tensor:
    return softmax_loss(scores, targets, verified, 0.5)


each_loss = pytest.mark.parametrize("loss", [binary_loss, asymmetric_loss, softmax_loss_at_half])


def gradient_of(loss: Loss, scores: Tensor, targets: Tensor, verified: Tensor) -> Tensor:
    leaf = scores.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, targets, verified), leaf)
    return gradient


def gradcheck(function: Callable[..., Tensor], *inputs: Tensor) -> bool:
    return torch.autograd.gradcheck(function, [x.clone().requires_grad_() for x in inputs])


@pytest.mark.parametrize("num_vectors", [1, 4])
def test_max_sim_agrees_with_the_naive_loop(num_vectors: int) -> None:
    vectors, texts = unit(0, 3, num_vectors, 6), unit(1, 5, 6)
    expected = torch.tensor(reference.max_sim(vectors.tolist(), texts.tolist()), dtype=torch.float64)
    torch.testing.assert_close(max_sim(vectors, texts), expected, rtol=0, atol=1e-14)
    assert gradcheck(max_sim, vectors, texts)


def test_max_sim_keeps_negative_scores() -> None:
    vectors = torch.tensor([[[-1.0, 0.0], [-0.6, -0.8]]])
    torch.testing.assert_close(max_sim(vectors, torch.tensor([[1.0, 0.0]])), torch.tensor([[-0.6]]))


@each_labels
def test_binary_loss_agrees_with_the_naive_loop(labels: tuple[Tensor, Tensor]) -> None:
    logits = scored(12, 4, 5)
    expected = reference.binary_loss(logits.tolist(), labels[0].tolist(), labels[1].tolist())
    assert binary_loss(logits, *labels).item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(lambda x: binary_loss(x, *labels), logits)


def test_binary_loss_worked_by_hand() -> None:
    """Probability 1/2 of a positive, 3/4 of a negative; the third pair is not verified."""
    logits = torch.tensor([[0.0, math.log(3), 9.0]])
    loss = binary_loss(logits, torch.tensor([[True, False, False]]), torch.tensor([[True, True, False]]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


@each_labels
@pytest.mark.parametrize("gammas", GAMMAS)
def test_asymmetric_loss_agrees_with_the_naive_loop(
    gammas: tuple[float, float, float], labels: tuple[Tensor, Tensor]
) -> None:
    logits = scored(13, 4, 5)
    expected = reference.asymmetric_loss(logits.tolist(), labels[0].tolist(), labels[1].tolist(), *gammas)
    assert asymmetric_loss(logits, *labels, *gammas).item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(lambda x: asymmetric_loss(x, *labels, *gammas), logits)


def test_asymmetric_loss_worked_by_hand_with_the_papers_defaults() -> None:
    """ML-Decoder, section 4.1: gamma- = 4, gamma+ = 0, clip 0.05. Probabilities: 1/2 of a positive, 0.55 and 0.04."""
    logits = torch.logit(torch.tensor([[0.5, 0.55, 0.04]]))
    loss = asymmetric_loss(logits, torch.tensor([[True, False, False]]), torch.ones(1, 3, dtype=torch.bool))
    assert loss.item() == pytest.approx((math.log(2) + math.log(2) / 16 + 0) / 3)


def test_asymmetric_loss_ignores_negatives_below_the_clip() -> None:
    logits = torch.tensor([[-4.0, 1.0]])  # probabilities 0.018 and 0.73
    gradient = gradient_of(asymmetric_loss, logits, torch.zeros(1, 2).bool(), torch.ones(1, 2).bool())
    assert gradient[0, 0] == 0
    assert gradient[0, 1] > 0


@each_labels
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_softmax_loss_agrees_with_the_naive_loop(temperature: float, labels: tuple[Tensor, Tensor]) -> None:
    scores = scored(14, 4, 5) / 4
    expected = reference.softmax_loss(scores.tolist(), labels[0].tolist(), labels[1].tolist(), temperature)
    assert softmax_loss(scores, *labels, temperature).item() == pytest.approx(expected, rel=1e-12)
    learned = torch.tensor(temperature, dtype=torch.float64)
    assert gradcheck(lambda x, t: softmax_loss(x, *labels, t), scores, learned)


def test_softmax_loss_worked_by_hand() -> None:
    """Positives of weight 2 and 4 against negatives of 1 and 3: 2/6 and 4/8. The fifth is not verified."""
    scores = 0.5 * torch.tensor([[2.0, 4.0, 1.0, 3.0, 99.0], [1.0, 1.0, 1.0, 1.0, 1.0]]).log()
    targets = torch.tensor([[True, True, False, False, False], [False, False, False, False, True]])
    verified = torch.tensor([[True, True, True, True, False], [True, True, True, True, False]])
    assert softmax_loss(scores, targets, verified, 0.5).item() == pytest.approx((math.log(3) + math.log(2)) / 2)


def test_positives_of_an_image_do_not_compete() -> None:
    """The gradient of each positive depends on the negatives only."""
    scores, verified = scored(15, 1, 4), torch.ones(1, 4).bool()
    one = torch.tensor([[True, False, False, False]])
    both = torch.tensor([[True, True, False, False]])
    gradient = gradient_of(softmax_loss_at_half, scores, both, verified)
    alone = gradient_of(softmax_loss_at_half, scores, one, torch.tensor([[True, False, True, True]]))
    torch.testing.assert_close(gradient[0, 0], alone[0, 0] / 2)


@each_loss
def test_unverified_pairs_make_no_difference(loss: Loss) -> None:
    scores, (targets, verified) = scored(16, 4, 5), LABELS["some"]
    other_scores, other_targets = torch.where(verified, scores, 7 - scores), torch.where(verified, targets, ~targets)
    assert torch.equal(loss(scores, targets, verified), loss(other_scores, other_targets, verified))


@each_loss
@each_labels
def test_unverified_pairs_have_no_gradient(loss: Loss, labels: tuple[Tensor, Tensor]) -> None:
    gradient = gradient_of(loss, scored(17, 4, 5), *labels)
    assert torch.isfinite(gradient).all()
    assert (gradient[~labels[1]] == 0).all()


def test_softmax_loss_ignores_images_without_a_positive_or_without_a_negative() -> None:
    gradient = gradient_of(softmax_loss_at_half, scored(18, 4, 5), *one_image_each())
    assert (gradient[0, :3] != 0).all()
    assert (gradient[1:] == 0).all()


@each_loss
def test_losses_stay_finite_at_extreme_scores(loss: Loss) -> None:
    """In float32: far right, far wrong, and without a competitor."""
    scores = torch.tensor([[900.0, -900.0, 900.0, -900.0], [-900.0, 0.0, 0.0, 900.0], [900.0, -900.0, 0.0, 0.0]])
    targets = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]).bool()
    verified = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 0, 0]]).bool()
    assert torch.isfinite(loss(scores, targets, verified))
    assert torch.isfinite(gradient_of(loss, scores, targets, verified)).all()


@pytest.mark.parametrize("num_vectors", NUM_VECTORS)
def test_set_distillation_agrees_with_the_naive_loop(num_vectors: Shape) -> None:
    student, teacher = unit(19, 3, num_vectors[0], 6), unit(20, 3, num_vectors[1], 6)
    expected = reference.set_distillation(student.tolist(), teacher.tolist())
    assert set_distillation(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(set_distillation, student, teacher)


def test_set_distillation_measures_how_teacher_vectors_are_covered() -> None:
    """One student vector equal to one of two teacher vectors: distances 0 and 1."""
    teacher = torch.eye(2)[None]
    assert set_distillation(teacher[:, :1], teacher).item() == pytest.approx(0.5)
    assert set_distillation(teacher, teacher[:, :1]).item() == pytest.approx(0.0)


@pytest.mark.parametrize("num_vectors", NUM_VECTORS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_score_distillation_agrees_with_the_naive_loop(temperature: float, num_vectors: Shape) -> None:
    student, teacher, texts = unit(21, 3, num_vectors[0], 6), unit(22, 3, num_vectors[1], 6), unit(23, 7, 6)
    expected = reference.score_distillation(student.tolist(), teacher.tolist(), texts.tolist(), temperature)
    assert score_distillation(student, teacher, texts, temperature).item() == pytest.approx(expected, rel=1e-10)
    assert gradcheck(lambda v: score_distillation(v, teacher, texts, temperature), student)


def test_score_distillation_worked_by_hand() -> None:
    """The teacher's softmax is 3/4 and 1/4, the student's 1/2 and 1/2."""
    teacher, student = torch.tensor([[[1.0, 0.0]]]), torch.full((1, 1, 2), math.sqrt(0.5))
    loss = score_distillation(student, teacher, torch.eye(2), 1 / math.log(3))
    assert loss.item() == pytest.approx(3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2), rel=1e-5)


def test_distillation_is_zero_for_a_perfect_copy_only() -> None:
    teacher, texts = unit(7, 2, 3, 6), unit(8, 5, 6)
    shuffled = teacher[:, [2, 0, 1]]
    assert set_distillation(shuffled, teacher).item() == pytest.approx(0, abs=1e-12)
    assert score_distillation(shuffled, teacher, texts, 0.05).item() == pytest.approx(0, abs=1e-12)
    assert set_distillation(unit(9, 2, 3, 6), teacher).item() > 0.1
    assert score_distillation(unit(9, 2, 3, 6), teacher, texts, 0.05).item() > 0.1


@pytest.mark.parametrize("shape", [(4, 5), (1, 1)])
def test_preservation_loss_agrees_with_the_naive_loop(shape: Shape) -> None:
    scores, before, spread = scored(24, *shape), scored(25, *shape), scored(26, shape[1]).abs() + 0.1
    expected = reference.preservation_loss(scores.tolist(), before.tolist(), spread.tolist())
    assert preservation_loss(scores, before, spread).item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(preservation_loss, scores, before, spread)


def test_preservation_loss_worked_by_hand() -> None:
    """Two spreads up, half a spread down."""
    loss = preservation_loss(torch.tensor([[0.3, 0.1]]), torch.tensor([[0.1, 0.2]]), torch.tensor([0.1, 0.2]))
    assert loss.item() == pytest.approx((4 + 0.25) / 2)


@pytest.mark.parametrize("num_vectors", [1, 2, 5])
def test_query_diversity_agrees_with_the_naive_loop(num_vectors: int) -> None:
    vectors = unit(27, 3, num_vectors, 4)
    expected = reference.query_diversity(vectors.tolist())
    assert query_diversity(vectors).item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(query_diversity, vectors)


def test_query_diversity_worked_by_hand() -> None:
    """Cosines 0.6, -0.6 and -1: of six ordered pairs two count. Equal vectors are 1, right angles 0, one vector 0."""
    vectors = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]])
    assert query_diversity(vectors).item() == pytest.approx(2 * 0.36 / 6)
    assert query_diversity(vectors[:, [0, 0]]).item() == 1
    assert query_diversity(torch.eye(3)[None]).item() == 0
    assert query_diversity(vectors[:, :1]).item() == 0
