"""Average precision by class, and gains with their uncertainty."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forclip.training.gains import Gain, Resampled, class_precisions, resample

NAN = float("nan")


def test_class_precisions_agree_with_a_naive_loop() -> None:
    random = np.random.default_rng(0)
    scores, labels, verified = random.random((130, 6)), random.random((130, 6)) < 0.6, random.random((130, 6)) < 0.9
    labels[:, 1], labels[:, 2], verified[:, 3] = False, True, False
    expected = []
    for c in range(6):
        images = [i for i in range(130) if verified[i, c]]
        relevant = sum(labels[i, c] for i in images)
        if relevant in (0, len(images)):
            expected.append(NAN)
            continue
        hits, total = 0, 0.0
        for rank, i in enumerate(sorted(images, key=lambda i: -scores[i, c])[:50], start=1):
            if labels[i, c]:
                hits += 1
                total += hits / rank
        expected.append(100 * total / min(50, relevant))
    np.testing.assert_allclose(class_precisions(scores, labels, verified), expected, rtol=1e-5)
    assert np.isnan(expected).tolist() == [False, True, True, True, False, False]


def test_unverified_images_do_not_count() -> None:
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    labels, verified = np.array([[False], [True], [False], [True]]), np.array([[False], [True], [True], [True]])
    assert class_precisions(scores, labels, verified) == pytest.approx([100 * (1 + 2 / 3) / 2])
    labels[0] = True
    assert class_precisions(scores, labels, verified) == pytest.approx([100 * (1 + 2 / 3) / 2])


def world(seed: int = 0, images: int = 60, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random((images, classes)) < 0.4
    return rng.random((images, classes)), labels, np.ones_like(labels)


def test_equal_scores_gain_nothing() -> None:
    scores, labels, verified = world()
    one, other = resample(scores, labels, verified, 3), resample(10 * scores - 7, labels, verified, 3)
    assert one.gain_over(other) == Gain(0.0, 0.0)


@pytest.mark.parametrize("columns", [[], [2], [2, 3]])
def test_fewer_than_two_classes_give_no_gain(columns: list[int]) -> None:
    """The last class is in all images, so that it can't be compared."""
    scores, labels, verified = world()
    labels[:, 3] = True
    noise = np.random.default_rng(1).random(scores.shape)
    one, other = (resample(s[:, columns], labels[:, columns], verified[:, columns], 0) for s in (scores, noise))
    assert one.gain_over(other) == Gain(0.0, 0.0)


def test_the_deviation_agrees_with_a_naive_loop() -> None:
    """Of the same draws of images and classes, one after the other."""
    rng = np.random.default_rng(5)
    one, other = (rng.random((21, 6)).astype(np.float32) * 100 for _ in range(2))
    one[0, 4], one[3, 1], other[7] = NAN, NAN, NAN
    means = []
    usable = [0, 1, 2, 3, 5]
    drawn = np.random.default_rng([9, 3]).integers(5, size=(25, 5))
    for image_draw in range(1, 21):
        for class_draw in drawn:
            gains = [one[image_draw, usable[c]] - other[image_draw, usable[c]] for c in class_draw]
            gains = [gain for gain in gains if not np.isnan(gain)]
            if gains:
                means.append(sum(gains) / len(gains))
    gain = Resampled(one, 9).gain_over(Resampled(other, 9))
    assert gain.mean == pytest.approx(np.mean([one[0, c] - other[0, c] for c in usable]), rel=1e-4)
    assert gain.deviation == pytest.approx(np.std(means), rel=1e-4)
    assert len(means) == 19 * 25


def test_images_are_resampled_alike_for_all_scores() -> None:
    scores, labels, verified = world()
    one, other = resample(scores, labels, verified, 1), resample(-scores, labels, verified, 1)
    assert (np.isnan(one.precisions) == np.isnan(other.precisions)).all()
    assert one.precisions[0] == pytest.approx(class_precisions(scores, labels, verified))
    assert (one.precisions[1:] != one.precisions[0]).any()
    assert (resample(scores, labels, verified, 2).precisions[1:] != one.precisions[1:]).any()


def test_the_deviation_is_about_that_of_new_images() -> None:
    """Many worlds of one kind: a bootstrap over images and classes at once says somewhat more than they spread."""

    def gain(seed: int) -> Gain:
        rng = np.random.default_rng(seed)
        labels = rng.random((80, 12)) < 0.3
        noise = rng.standard_normal((2, 80, 12))
        one, other = (resample(labels + 1.5 * n, labels, np.ones_like(labels), seed) for n in noise)
        return one.gain_over(other)

    gains = [gain(seed) for seed in range(40)]
    spread = np.std([g.mean for g in gains])
    assert 0.8 * spread < np.mean([g.deviation for g in gains]) < 2.5 * spread


@given(st.floats(-50, 50), st.floats(0, 30), st.floats(0, 30))
def test_gains_shrink_with_their_uncertainty(mean: float, one: float, other: float) -> None:
    """Towards 0, never beyond it, and in the order of the means."""
    small, large = sorted((one, other))
    shrunk = [abs(Gain(mean, large).shrunk), abs(Gain(mean, small).shrunk), abs(mean)]
    assert all(one <= other + 1e-9 for one, other in pairwise(shrunk))
    assert Gain(mean, small).shrunk * mean >= 0
    assert Gain(mean + 1, small).shrunk > Gain(mean, small).shrunk
    assert Gain(mean, 0.0).shrunk == pytest.approx(mean)
