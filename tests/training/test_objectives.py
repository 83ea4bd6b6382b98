"""Each objective equals its loss on the words, labels and vectors that it is defined by."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.training import losses
from forclip.training.losses import (
    asymmetric_loss,
    binary_loss,
    preservation_loss,
    query_diversity,
    score_distillation,
    set_distillation,
    softmax_loss,
)
from forclip.training.objectives import (
    BaseLabels,
    Batch,
    NeighbourWords,
    PseudoLabels,
    QueryDiversity,
    RandomTexts,
    TeacherSet,
    nearest_words,
)
from tests import reference


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def batch_of(num_images: int, num_classes: int, dim: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        targets=torch.rand(num_images, num_classes, generator=generator) < 0.5,
        verified=torch.rand(num_images, num_classes, generator=generator) < 0.8,
        teacher=unit(1, num_images, 5, dim),
        untuned=unit(2, num_images, 3, dim),
    )


def scored(num_images: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Return CLIP-like scores, targets and verified. Positives: one, none, half, a fifth."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.zeros(num_images, 4, dtype=torch.bool)
    targets[7, 0] = True
    targets[::2, 2] = True
    targets[::5, 3] = True
    noise = 0.02 * torch.randn(num_images, 4, generator=generator)
    # Classes have different mean scores, as texts do: one common bias could not fit them.
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
    rate = targets.float().mean(0).clamp(1e-6, 1 - 1e-6)
    of_class_rates = binary_loss(torch.logit(rate).expand_as(scores), targets, verified)
    assert after < of_class_rates < before


def test_fit_is_stable_for_classes_with_few_positives() -> None:
    scores, targets, verified = scored()
    base = base_labels()
    base.fit(scores, targets, verified)
    probability = torch.sigmoid(base.logits(scores)).detach()
    assert torch.isfinite(base.bias).all()
    assert torch.isfinite(base.log_scale)
    assert base.logits(scores).abs().max() < 20
    # One positive of 60, or none: rare but possible. Half of 60: about half.
    assert 1e-4 < probability[:, 1].mean() < probability[:, 0].mean() < 0.08
    assert probability[:, 2].mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("effect", [-0.3, 0.0, 0.3])
@pytest.mark.parametrize("num_images", [5, 40])
def test_fit_is_stable_for_any_relation_of_scores_and_labels(effect: float, num_images: int) -> None:
    """For informative, uninformative and inverted scores, never worse than one constant guess."""
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        targets = torch.rand(num_images, 4, generator=generator) < 0.3
        scores = effect * targets + 0.1 * torch.randn(num_images, 4, generator=generator)
        base, verified = base_labels(), torch.ones_like(targets)
        base.fit(scores, targets, verified)
        rate = targets.float().mean().clamp(0.01, 0.99)
        constant = binary_loss(torch.logit(rate).expand_as(scores), targets, verified)
        assert binary_loss(base.logits(scores), targets, verified) < constant + 0.01
        assert base.log_scale.exp() * scores.std() < 100


@pytest.mark.parametrize("is_shown", [True, False])
def test_fit_is_stable_for_one_image_of_one_class(is_shown: bool) -> None:
    base = BaseLabels(torch.eye(4)[:1], "binary", 1.0)
    base.fit(torch.tensor([[0.2]]), torch.tensor([[is_shown]]), torch.tensor([[True]]))
    assert torch.isfinite(base.bias).all()
    assert base.log_scale.exp().item() == pytest.approx(100, rel=0.1)  # CLIP's own


def test_fit_uses_verified_pairs_only() -> None:
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
    """For any value of log_scale, a higher score is a higher logit."""
    base = base_labels()
    with torch.no_grad():
        base.log_scale.fill_(-3.0)
        base.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    logits = base.logits(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    torch.testing.assert_close(logits[0], torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.testing.assert_close(logits[1] - logits[0], torch.full((4,), 0.049787))


@pytest.mark.parametrize("effect", [-0.3, 0.0, 0.3])
def test_fit_for_softmax_finds_a_stable_temperature(effect: float) -> None:
    """Never much worse than equal scores, and far better if the scores are informative."""
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        targets = torch.rand(40, 4, generator=generator) < 0.3
        scores = effect * targets + 0.1 * torch.randn(40, 4, generator=generator)
        base, verified = BaseLabels(torch.eye(4), "softmax", 1.0), torch.ones_like(targets)
        base.fit(scores, targets, verified)
        fitted = softmax_loss(scores, targets, verified, torch.exp(-base.log_scale))
        of_equal_scores = softmax_loss(torch.zeros_like(scores), targets, verified, 1.0)
        assert fitted < (0.5 * of_equal_scores if effect > 0 else of_equal_scores + 0.02)
        assert base.log_scale.exp() * scores.std() < 100


def test_objectives_equal_their_losses() -> None:
    vectors, texts, batch = unit(3, 3, 2, 4), unit(4, 6, 4), batch_of(3, 6, 4)
    targets, verified, teacher = batch.targets, batch.verified, batch.teacher
    scores, before = (vectors @ texts.T).amax(1), (batch.untuned @ texts.T).amax(1)
    spread = torch.linspace(0.1, 0.6, 6)
    softmax = BaseLabels(texts, "softmax", 1)
    with torch.no_grad():
        softmax.log_scale.fill_(2.0)
    assert torch.equal(BaseLabels(texts, "binary", 1)(vectors, batch), binary_loss(scores, targets, verified))
    assert torch.equal(BaseLabels(texts, "asymmetric", 1)(vectors, batch), asymmetric_loss(scores, targets, verified))
    torch.testing.assert_close(softmax(vectors, batch), softmax_loss(scores, targets, verified, 0.1353352832))
    assert torch.equal(PseudoLabels(texts, 0.1, 1, 0)(vectors, batch), score_distillation(vectors, teacher, texts, 0.1))
    assert torch.equal(TeacherSet(1)(vectors, batch), set_distillation(vectors, teacher))
    assert torch.equal(NeighbourWords(texts, spread, 1)(vectors, batch), preservation_loss(scores, before, spread))
    assert torch.equal(QueryDiversity(1)(vectors, batch), query_diversity(vectors))
    random = RandomTexts(texts, 9, 0.1, 1, seed=0)
    assert torch.equal(random(vectors, batch), score_distillation(vectors, teacher, random.draw(0), 0.1))


def test_the_softmax_learns_its_temperature() -> None:
    texts, vectors, batch = unit(14, 3, 6), unit(15, 4, 2, 6), batch_of(4, 3, 6)
    base = BaseLabels(texts, "softmax", 1.0)
    base(vectors, batch).backward()
    assert base.log_scale.grad is not None
    assert base.log_scale.grad != 0


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_nearest_words_agree_with_a_naive_loop(count: int) -> None:
    base = unit(17, 4, 8)
    vocabulary = torch.cat([unit(18, 20, 8), base[:2], unit(19, 20, 8), F.normalize(base + 1e-4, dim=-1)])
    expected = reference.nearest_words(base.tolist(), vocabulary.tolist(), count)
    rows = nearest_words(base, vocabulary, count)
    assert rows.tolist() == expected
    assert len(rows) == min(count, 40)


def test_nearest_words_worked_by_hand() -> None:
    """Base classes at 0 and 90 degrees: the word at 60 is 30 away from one, that at 40 is 40, that at 180 is 90."""
    angles = torch.deg2rad(torch.tensor([180.0, 60.0, 0.0, 40.0, 210.0]))
    words = torch.stack([angles.cos(), angles.sin()], 1)
    assert nearest_words(torch.eye(2), words, 3).tolist() == [1, 3, 0]
    assert nearest_words(torch.eye(2), words[2:3], 3).tolist() == []


def test_neighbour_words_hold_the_untuned_scores() -> None:
    """0 for the untuned vectors in any order; from elsewhere, gradient descent restores the untuned scores."""
    texts, batch = unit(20, 4, 8), batch_of(3, 2, 8)
    neighbours = NeighbourWords(texts, torch.full((4,), 0.1), 1.0)
    assert neighbours(batch.untuned[:, [2, 0, 1]], batch).item() == pytest.approx(0, abs=1e-10)
    vectors = F.normalize(batch.untuned + 0.4 * unit(21, 3, 3, 8), dim=-1)
    start = neighbours(vectors, batch).item()
    for _ in range(300):
        vectors.requires_grad_()
        (gradient,) = torch.autograd.grad(neighbours(vectors, batch), vectors)
        vectors = F.normalize(vectors.detach() - 0.01 * gradient, dim=-1)
    assert start > 0.5
    assert neighbours(vectors, batch).item() < 1e-3 * start


def test_changes_are_measured_in_units_of_the_spread() -> None:
    batch, vectors, texts = batch_of(3, 2, 8), unit(22, 3, 3, 8), unit(23, 1, 8)
    narrow, wide = (NeighbourWords(texts, torch.tensor([s]), 1.0)(vectors, batch) for s in (0.1, 0.3))
    torch.testing.assert_close(narrow, 9 * wide)


def test_softmax_classes_compete_within_an_image_by_verified_labels() -> None:
    """Images: a verified positive; an unverified one; only verified negatives; verified positives and a negative."""
    texts, vectors = unit(5, 3, 6), unit(7, 4, 2, 6)
    targets = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]]).bool()
    verified = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]]).bool()
    batch = replace(batch_of(4, 3, 6), targets=targets, verified=verified)
    scores = reference.max_sim(vectors.tolist(), texts.tolist())
    expected = reference.softmax_loss(scores, targets.tolist(), verified.tolist(), 1.0)
    base = BaseLabels(texts, "softmax", 1.0)
    assert base(vectors, batch).item() == pytest.approx(expected, rel=1e-5)
    vectors.requires_grad_()
    (gradient,) = torch.autograd.grad(base(vectors, batch), vectors)
    assert gradient[[0, 3]].abs().amin(0).amax() > 0
    assert (gradient[[1, 2]] == 0).all()


WORDS = unit(30, 1200, 6)


def test_pseudo_labels_draw_other_words_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """By seed and call only; of a small vocabulary all words."""
    used: list[Tensor] = []

    def record(vectors: Tensor, teacher: Tensor, texts: Tensor, temperature: float) -> Tensor:
        used.append(texts)
        return score_distillation(vectors, teacher, texts, temperature)

    monkeypatch.setattr(losses, "score_distillation", record)
    vectors, batch = unit(31, 3, 3, 6), batch_of(3, 2, 6)
    for seed in (0, 0, 1):
        source = PseudoLabels(WORDS, 0.1, 1.0, seed)
        torch.rand(7)  # the global generator is not used
        for _ in range(4):
            source(vectors, batch)
    row_of = {tuple(word): row for row, word in enumerate(WORDS.tolist())}
    rows = [[row_of[tuple(word)] for word in texts.tolist()] for texts in used]
    assert all(len(set(drawn)) == len(drawn) < len(WORDS) for drawn in rows)
    assert rows[:4] == rows[4:8]
    assert len({tuple(sorted(drawn)) for drawn in rows}) == 8, "a call had the words of another"
    assert len(set().union(*rows)) > 0.95 * len(WORDS)
    few = PseudoLabels(WORDS[:50], 0.1, 1.0, 0)
    assert few(vectors, batch) == few(vectors, batch)
    assert torch.equal(used[-1], WORDS[:50])


def test_pseudo_labels_continue_from_a_restored_state() -> None:
    vectors, batch = unit(32, 3, 3, 6), batch_of(3, 2, 6)
    straight, stopped, resumed = (PseudoLabels(WORDS, 0.1, 1.0, 5) for _ in range(3))
    values = [straight(vectors, batch).item() for _ in range(6)]
    assert values[:3] == [stopped(vectors, batch).item() for _ in range(3)]
    saved = {name: tensor.clone() for name, tensor in stopped.state_dict().items()}
    for name, tensor in resumed.state_dict().items():
        tensor.copy_(saved[name])  # as loading a checkpoint does
    assert values[3:] == [resumed(vectors, batch).item() for _ in range(3)]


def random_texts(seed: int = 0) -> RandomTexts:
    return RandomTexts(unit(24, 4, 8), 6, 0.1, 1.0, seed)


def test_random_texts_depend_on_seed_and_call_only() -> None:
    vectors, batch = unit(25, 3, 3, 8), batch_of(3, 2, 8)
    one, same, other = random_texts(), random_texts(), random_texts(seed=1)
    torch.rand(7)  # the global generator is not used
    values = [one(vectors, batch).item() for _ in range(5)]
    assert values == [same(vectors, batch).item() for _ in range(5)]
    assert len(set(values)) == 5, "a call had the texts of another"
    drawn = torch.cat([source.draw(call) for source in (one, other) for call in range(5)])
    assert len(drawn.unique(dim=0)) == len(drawn), "texts of one call or seed came again in another"


def test_random_texts_continue_from_a_restored_state() -> None:
    vectors, batch = unit(26, 3, 3, 8), batch_of(3, 2, 8)
    straight, stopped, resumed = random_texts(), random_texts(), random_texts()
    values = [straight(vectors, batch).item() for _ in range(6)]
    assert values[:3] == [stopped(vectors, batch).item() for _ in range(3)]
    saved = {name: tensor.clone() for name, tensor in stopped.state_dict().items()}
    for name, tensor in resumed.state_dict().items():
        tensor.copy_(saved[name])  # as loading a checkpoint does
    assert values[3:] == [resumed(vectors, batch).item() for _ in range(3)]


def test_random_texts_are_mixtures_of_two_words() -> None:
    """They are unit vectors whose angles to two different words add up to the angle between these."""
    source = random_texts()
    words, texts = source.texts.double(), torch.cat([source.draw(call) for call in range(20)]).double()
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(120).double())
    to_word = (texts @ words.T).clamp(-1, 1).acos()
    between = (words @ words.T).clamp(-1, 1).acos()
    detour = to_word[:, :, None] + to_word[:, None, :] - between + 9 * torch.eye(4)
    assert detour.flatten(1).amin(1).max() < 1e-3
    nearest = to_word.argmin(1).bincount(minlength=4)
    assert (nearest > 10).all()
    assert to_word.amin(1).max() > 0.3, "all texts are words, not mixtures"
