"""Choices on classes held back: the folds, and the arithmetic of what is sure."""

import numpy as np
import pytest

from forclip.evaluation.bootstrap import gain_with_bound
from forclip.training.class_holdout import best_share, class_folds, class_precisions

NAN = float("nan")


@pytest.mark.parametrize(("num_classes", "num_folds"), [(4, 2), (7, 3), (20, 2), (103, 5)])
def test_every_class_is_in_one_fold(num_classes: int, num_folds: int) -> None:
    folds = class_folds(num_classes, num_folds, seed=1)
    assert len(folds) == num_folds
    assert sorted(np.concatenate(folds)) == list(range(num_classes))
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert all((np.diff(fold) > 0).all() for fold in folds)


def test_folds_are_seeded() -> None:
    one, same, other = (class_folds(30, 2, seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert (one[0] != other[0]).any()
    assert list(one[0]) != list(range(0, 30, 2))  # drawn, or file order would decide


@pytest.mark.parametrize(("num_classes", "num_folds"), [(3, 2), (0, 2), (5, 3), (50, 1), (50, 0)])
def test_too_few_classes_or_folds_give_none(num_classes: int, num_folds: int) -> None:
    assert class_folds(num_classes, num_folds, 0) == []


def test_a_sure_gain_by_hand() -> None:
    """Gains of 2, -2 and 6: their mean is 2, their deviation 4, the standard error 4 / sqrt(3)."""
    precisions = np.array([10, NAN, 20, 30, 7], np.float32)
    reference = np.array([8, 1, 22, 24, NAN], np.float32)
    assert gain_with_bound(precisions, reference) == pytest.approx((2.0, 2.0 - 4 / 3**0.5))


@pytest.mark.parametrize("gains", [[], [5.0], [NAN, 5.0], [NAN, NAN]])
def test_one_class_alone_is_no_evidence(gains: list[float]) -> None:
    values = np.array(gains, np.float32)
    assert gain_with_bound(values, np.zeros_like(values)) == (0.0, 0.0)


def test_the_best_share_is_the_surest() -> None:
    """The last has the larger mean, 4 to 3, but its deviation of 8 takes more of it away."""
    start = np.array([1, 1, 1, NAN], np.float32)
    curves = [start, start + np.array([2, 3, 4, 0]), start + np.array([-4, 4, 12, 0])]
    assert best_share(curves, (0.0, 0.5, 1.0)) == 0.5


def test_the_start_is_kept_where_all_lose() -> None:
    start = np.array([5, 5, 5], np.float32)
    losing = [start, start - 1, start + np.array([-4, 0, 5])]  # the last gains in the mean, but not surely
    assert best_share(losing, (0.0, 0.5, 1.0)) == 0.0


def test_class_precisions_are_a_naive_loops() -> None:
    random = np.random.default_rng(0)
    scores, labels, verified = random.random((130, 6)), random.random((130, 6)) < 0.6, random.random((130, 6)) < 0.9
    labels[:, 1], labels[:, 2], verified[:, 3] = False, True, False
    expected = []
    for c in range(6):
        known = [i for i in range(130) if verified[i, c]]
        relevant = sum(labels[i, c] for i in known)
        if relevant in (0, len(known)):
            expected.append(NAN)
            continue
        hits, total = 0, 0.0
        for rank, i in enumerate(sorted(known, key=lambda i: -scores[i, c])[:50], start=1):
            if labels[i, c]:
                hits += 1
                total += hits / rank
        expected.append(100 * total / min(50, relevant))
    np.testing.assert_allclose(class_precisions(scores, labels, verified), expected, rtol=1e-5)
    assert np.isnan(expected).tolist() == [False, True, True, True, False, False]


def test_what_is_not_verified_is_not_looked_at() -> None:
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    labels, verified = np.array([[False], [True], [False], [True]]), np.array([[False], [True], [True], [True]])
    assert class_precisions(scores, labels, verified) == pytest.approx([100 * (1 + 2 / 3) / 2])
    labels[0] = True
    assert class_precisions(scores, labels, verified) == pytest.approx([100 * (1 + 2 / 3) / 2])
