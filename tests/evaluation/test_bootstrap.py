"""Agreement with SciPy's bootstrap, and what an interval over classes must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from forclip.evaluation import metrics
from forclip.evaluation.metrics import mean_interval, resampled_means

precisions = st.lists(st.floats(0, 100), min_size=2, max_size=30)


@pytest.mark.parametrize("count", [5, 40, 300])
def test_agrees_with_scipy(count: int) -> None:
    """Both are random: they may differ by a small share of the interval's width."""
    values = np.random.default_rng(count).beta(0.6, 1.2, count) * 100
    peer = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    found = mean_interval(values[None])
    assert found is not None
    assert found == pytest.approx((peer.low, peer.high), abs=0.03 * (peer.high - peer.low))


def test_two_classes_worked_by_hand() -> None:
    """Both, the first twice, the second twice: a quarter of the resamples at either end."""
    means = resampled_means(np.array([[0.0, 10.0]]))[:, 0]
    shares = [float((means == value).mean()) for value in (0, 5, 10)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    assert mean_interval(np.array([[0.0, 10.0]])) == (0, 10)


def test_the_same_classes_are_drawn_for_every_seed() -> None:
    values = np.random.default_rng(0).random((1, 20))
    both = resampled_means(np.concatenate([values, values + 3]))
    np.testing.assert_allclose(both[:, 1] - both[:, 0], 3)
    # So the mean over seeds has the interval of the classes' means over seeds.
    assert mean_interval(np.concatenate([values, values + 3])) == pytest.approx(mean_interval(values + 1.5))


def test_a_seed_without_a_class_takes_its_mean_over_the_others() -> None:
    values = np.array([[1.0, 2.0, np.nan, np.nan], [np.nan, 5.0, 6.0, np.nan]])
    naive = []
    rng = np.random.default_rng(7)
    for drawn in rng.integers(0, 4, (500, 4)):
        kept = [[row[c] for c in drawn if not np.isnan(row[c])] for row in values]
        naive.append([sum(row) / len(row) if row else np.nan for row in kept])
    np.testing.assert_allclose(resampled_means(values, resamples=500, seed=7), naive)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((2, 30))
    whole = resampled_means(values, resamples=100)
    monkeypatch.setattr(metrics, "_BLOCK_DRAWS", 7 * 30)
    np.testing.assert_array_equal(resampled_means(values, resamples=100), whole)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_classes_have_no_interval(count: int) -> None:
    assert mean_interval(np.ones((1, count))) is None


@given(precisions)
def test_an_interval_lies_among_the_values_and_is_the_same_each_time(values: list[float]) -> None:
    found = mean_interval(np.array([values]), resamples=200)
    assert found is not None
    assert min(values) - 1e-9 <= found[0] <= found[1] <= max(values) + 1e-9
    assert found == mean_interval(np.array([values]), resamples=200)


def test_the_interval_covers_the_true_mean_at_its_level() -> None:
    """200 galleries of 60 classes; 95 % of the intervals should cover, and by chance at least 90 % do."""
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.beta(2, 3, (1, 60)), resamples=500) for _ in range(200)]
    covered = [found is not None and found[0] <= 0.4 <= found[1] for found in intervals]
    assert np.mean(covered) > 0.9
