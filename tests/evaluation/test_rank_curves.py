import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forclip.evaluation.metrics import RANKS, mean_curves, rank_curves, ranked_precision, ranked_recall

relevances = st.lists(st.booleans(), min_size=1, max_size=60).filter(any).map(lambda r: np.array(r, bool))
GROUPS = {"base": ["a"], "novel": [], "all": ["a", "b"]}


def test_worked_by_hand() -> None:
    """a: hits at 1 and 3; b: a hit at 2, of two images only."""
    ranked = {"a": np.array([1, 0, 1, 0, 0], bool), "b": np.array([0, 1], bool)}
    found = rank_curves(ranked, GROUPS, 5)
    assert found.k == [1, 2, 5]
    assert found.recall["base"] == pytest.approx((50, 50, 100))
    assert found.recall["all"] == pytest.approx((25, 75, 100))
    assert found.precision["all"] == pytest.approx((50, 50, 30))
    assert found.recall["novel"] is None


def test_ranks_end_at_the_number_of_images() -> None:
    ranked = {"a": np.ones(1000, bool)}
    assert rank_curves(ranked, {"all": ["a"]}, 1000).k == list(RANKS)
    assert rank_curves(ranked, {"all": ["a"]}, 999).k == list(RANKS[:-1])
    assert rank_curves({}, {"all": []}, 0).k == []


@given(relevances)
def test_equals_the_measures_of_one_ranking_and_recall_never_falls(ranked: np.ndarray) -> None:
    found = rank_curves({"a": ranked}, {"all": ["a"]}, len(ranked))
    recall, precision = found.recall["all"], found.precision["all"]
    assert recall is not None
    assert precision is not None
    assert recall == pytest.approx([100 * ranked_recall(ranked, k) for k in found.k])
    assert precision == pytest.approx([100 * ranked_precision(ranked, k) for k in found.k])
    assert list(recall) == sorted(recall)


def test_means_over_seeds_leave_out_missing_groups() -> None:
    first = rank_curves({"a": np.array([1, 0], bool)}, {"base": ["a"], "novel": []}, 2)
    second = rank_curves({"a": np.array([0, 0, 0, 0, 1], bool)}, {"base": [], "novel": ["a"]}, 5)
    third = rank_curves({"a": np.array([0, 1, 0, 0, 0], bool)}, {"base": ["a"], "novel": []}, 5)
    found = mean_curves([first, second, third])
    assert found.k == [1, 2]
    assert found.recall["base"] == pytest.approx((50, 100))
    assert found.recall["novel"] == pytest.approx((0, 0))
