"""Losses against the naive loops of tests/reference.py, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.losses import asymmetric_loss, binary_loss, max_sim, score_distillation, set_distillation
from tests import reference

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
GAMMAS = [(0.0, 4.0, 0.05), (1.0, 2.0, 0.2), (0.0, 0.0, 0.0)]


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def labelled(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """logits, targets, verified: [4, 5], with positives and negatives on both sides of the mask."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(4, 5, generator=generator, dtype=torch.float64)
    return logits, torch.rand(4, 5, generator=generator) < 0.4, torch.rand(4, 5, generator=generator) < 0.7


def test_max_sim_is_the_naive_maximum() -> None:
    vectors, texts = unit(0, 3, 4, 6), unit(1, 5, 6)
    expected = torch.tensor(reference.max_sim(vectors.tolist(), texts.tolist()), dtype=torch.float64)
    torch.testing.assert_close(max_sim(vectors, texts), expected, rtol=0, atol=1e-14)


def test_max_sim_keeps_negative_scores() -> None:
    vectors = torch.tensor([[[-1.0, 0.0], [-0.6, -0.8]]])
    torch.testing.assert_close(max_sim(vectors, torch.tensor([[1.0, 0.0]])), torch.tensor([[-0.6]]))


def test_binary_loss_is_the_naive_one() -> None:
    logits, targets, verified = labelled()
    expected = reference.binary_loss(logits.tolist(), targets.tolist(), verified.tolist())
    assert binary_loss(logits, targets, verified).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gammas", GAMMAS)
def test_asymmetric_loss_is_the_naive_one(gammas: tuple[float, float, float]) -> None:
    logits, targets, verified = labelled(1)
    expected = reference.asymmetric_loss(logits.tolist(), targets.tolist(), verified.tolist(), *gammas)
    assert asymmetric_loss(logits, targets, verified, *gammas).item() == pytest.approx(expected, rel=1e-12)


def test_asymmetric_loss_has_the_papers_defaults() -> None:
    """ML-Decoder, section 4.1: gamma- = 4, gamma+ = 0, clip 0.05."""
    logits, targets, verified = labelled(2)
    assert torch.equal(
        asymmetric_loss(logits, targets, verified), asymmetric_loss(logits, targets, verified, 0, 4, 0.05)
    )


def test_asymmetric_loss_without_asymmetry_is_binary_loss() -> None:
    logits, targets, verified = labelled(3)
    assert asymmetric_loss(logits, targets, verified, 0, 0, 0).item() == pytest.approx(
        binary_loss(logits, targets, verified).item(), rel=1e-12
    )


def test_asymmetric_loss_ignores_negatives_below_the_clip() -> None:
    logits = torch.tensor([[-4.0, 1.0]], requires_grad=True)  # probabilities 0.018 and 0.73
    loss = asymmetric_loss(logits, torch.tensor([[False, False]]), torch.ones(1, 2, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 0] == 0
    assert gradient[0, 1] > 0


@pytest.mark.parametrize("loss", [binary_loss, asymmetric_loss])
def test_losses_stay_finite_at_extreme_logits(loss: Loss) -> None:
    logits = torch.tensor([[80.0, -80.0, 80.0, -80.0]], requires_grad=True)
    value = loss(logits, torch.tensor([[True, True, False, False]]), torch.ones(1, 4, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [binary_loss, asymmetric_loss])
def test_unverified_pairs_change_nothing(loss: Loss) -> None:
    logits, targets, verified = labelled(4)
    other_logits, other_targets = torch.where(verified, logits, 7 - logits), torch.where(verified, targets, ~targets)
    assert torch.equal(loss(logits, targets, verified), loss(other_logits, other_targets, verified))
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, targets, verified), leaf)
    assert (gradient[~verified] == 0).all()


@pytest.mark.parametrize("loss", [binary_loss, asymmetric_loss])
def test_nothing_verified_is_no_loss(loss: Loss) -> None:
    logits, targets, verified = labelled(5)
    assert loss(logits, targets, torch.zeros_like(verified)).item() == 0


def test_set_distillation_is_the_naive_one() -> None:
    student, teacher = unit(2, 3, 4, 6), unit(3, 3, 5, 6)
    expected = reference.set_distillation(student.tolist(), teacher.tolist())
    assert set_distillation(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_set_distillation_wants_every_teacher_vector_covered() -> None:
    """One student vector close to both teacher vectors in turn: distances 0 and 1."""
    teacher = torch.eye(2)[None]
    assert set_distillation(teacher[:, :1], teacher).item() == pytest.approx(0.5)
    assert set_distillation(teacher, teacher[:, :1]).item() == pytest.approx(0.0)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_score_distillation_is_the_naive_divergence(temperature: float) -> None:
    student, teacher, texts = unit(4, 3, 4, 6), unit(5, 3, 5, 6), unit(6, 7, 6)
    expected = reference.score_distillation(student.tolist(), teacher.tolist(), texts.tolist(), temperature)
    assert score_distillation(student, teacher, texts, temperature).item() == pytest.approx(expected, rel=1e-10)


def test_a_perfect_copy_is_zero_and_anything_else_is_not() -> None:
    teacher, texts = unit(7, 2, 3, 6), unit(8, 5, 6)
    shuffled = teacher[:, [2, 0, 1]]
    assert set_distillation(shuffled, teacher).item() == pytest.approx(0, abs=1e-12)
    assert score_distillation(shuffled, teacher, texts, 0.05).item() == pytest.approx(0, abs=1e-12)
    assert set_distillation(unit(9, 2, 3, 6), teacher).item() > 0.1
    assert score_distillation(unit(9, 2, 3, 6), teacher, texts, 0.05).item() > 0.1


def test_gradients() -> None:
    student, teacher, texts = unit(10, 2, 3, 4).requires_grad_(), unit(11, 2, 4, 4), unit(12, 5, 4)
    logits, targets, verified = labelled(6)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: max_sim(v, texts), (student,))
    assert torch.autograd.gradcheck(lambda x: binary_loss(x, targets, verified), (logits,))
    for gammas in GAMMAS:
        assert torch.autograd.gradcheck(lambda x, g=gammas: asymmetric_loss(x, targets, verified, *g), (logits,))
    assert torch.autograd.gradcheck(lambda v: set_distillation(v, teacher), (student,))
    assert torch.autograd.gradcheck(lambda v: score_distillation(v, teacher, texts, 0.1), (student,))
