import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.losses import asymmetric_loss, binary_loss, score_distillation, set_distillation
from forclip.objectives import BaseLabels, Batch, PseudoLabels, TeacherSet


def scored(num_images: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """CLIP-like scores in a narrow band, higher for positives; class 0 has one positive, class 1 none, class 2 half."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.zeros(num_images, 4, dtype=torch.bool)
    targets[7, 0] = True
    targets[::2, 2] = True
    targets[::5, 3] = True
    noise = 0.02 * torch.randn(num_images, 4, generator=generator)
    # Classes lie at different heights, as texts do: one common bias could not fit them.
    scores = torch.tensor([0.2, 0.25, 0.15, 0.3]) + 0.03 * targets + noise
    return scores, targets, torch.ones_like(targets)


def base_labels() -> BaseLabels:
    return BaseLabels(torch.eye(4), "binary", 1.0)


def test_fitting_lowers_the_loss_below_any_constant_guess() -> None:
    scores, targets, verified = scored()
    base = base_labels()
    before = binary_loss(base.logits(scores), targets, verified)
    base.fit(scores, targets, verified)
    after = binary_loss(base.logits(scores), targets, verified)
    share = targets.float().mean(0).clamp(1e-6, 1 - 1e-6)
    of_the_class_shares = binary_loss(torch.logit(share).expand_as(scores), targets, verified)
    assert after < of_the_class_shares < before


def test_fit_is_sane_for_classes_with_few_positives() -> None:
    scores, targets, verified = scored()
    base = base_labels()
    base.fit(scores, targets, verified)
    probability = torch.sigmoid(base.logits(scores)).detach()
    assert torch.isfinite(base.bias).all()
    assert torch.isfinite(base.log_scale)
    assert base.logits(scores).abs().max() < 20
    # One positive of 60, and none: rare, yet not impossible. Half of them: about half.
    assert 1e-4 < probability[:, 1].mean() < probability[:, 0].mean() < 0.08
    assert probability[:, 2].mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("effect", [-0.3, 0.0, 0.3])
@pytest.mark.parametrize("num_images", [5, 40])
def test_fit_is_sane_whatever_scores_say(effect: float, num_images: int) -> None:
    """Scores that separate the classes, say nothing, or say the opposite: never worse than one guess for all."""
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        targets = torch.rand(num_images, 4, generator=generator) < 0.3
        scores = effect * targets + 0.1 * torch.randn(num_images, 4, generator=generator)
        base, verified = base_labels(), torch.ones_like(targets)
        base.fit(scores, targets, verified)
        share = targets.float().mean().clamp(0.01, 0.99)
        one_guess = binary_loss(torch.logit(share).expand_as(scores), targets, verified)
        assert binary_loss(base.logits(scores), targets, verified) < one_guess + 0.01
        assert base.log_scale.exp() * scores.std() < 100


def test_fit_reads_verified_pairs_only() -> None:
    scores, targets, verified = scored()
    verified[40:] = False
    wrong = torch.where(verified, targets, ~targets)
    one, other = base_labels(), base_labels()
    one.fit(scores, targets, verified)
    other.fit(scores, wrong, verified)
    assert torch.equal(one.bias, other.bias)
    assert torch.equal(one.log_scale, other.log_scale)


def test_logits_keep_the_order_within_a_class() -> None:
    scores, targets, verified = scored()
    base = base_labels()
    base.fit(scores, targets, verified)
    assert torch.equal(base.logits(scores).argsort(0), scores.argsort(0))


def test_scale_is_learned_in_the_logarithm() -> None:
    """Whatever an optimiser does to log_scale, a higher score stays a higher logit."""
    base = base_labels()
    with torch.no_grad():
        base.log_scale.fill_(-3.0)
        base.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    logits = base.logits(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    torch.testing.assert_close(logits[0], torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.testing.assert_close(logits[1] - logits[0], torch.full((4,), 0.049787))


def test_objectives_are_their_losses() -> None:
    generator = torch.Generator().manual_seed(1)
    vectors, teacher = (F.normalize(torch.randn(3, n, 4, generator=generator), dim=-1) for n in (2, 5))
    texts = F.normalize(torch.randn(6, 4, generator=generator), dim=-1)
    targets, verified = torch.rand(3, 6, generator=generator) < 0.5, torch.rand(3, 6, generator=generator) < 0.8
    batch = Batch(targets, verified, teacher)
    scores = (vectors @ texts.T).amax(1)
    assert torch.equal(BaseLabels(texts, "binary", 1)(vectors, batch), binary_loss(scores, targets, verified))
    assert torch.equal(BaseLabels(texts, "asymmetric", 1)(vectors, batch), asymmetric_loss(scores, targets, verified))
    assert torch.equal(PseudoLabels(texts, 0.1, 1)(vectors, batch), score_distillation(vectors, teacher, texts, 0.1))
    assert torch.equal(TeacherSet(1)(vectors, batch), set_distillation(vectors, teacher))
