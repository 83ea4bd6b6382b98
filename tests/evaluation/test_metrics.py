"""Rankings worked by hand, and agreement with other people's definitions."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torchmetrics.retrieval import RetrievalMAP

from forclip.evaluation import metrics
from forclip.evaluation.metrics import (
    DENOMINATORS,
    Denominator,
    average_precision_at,
    max_sim,
    ranked_average_precision,
    ranked_precision,
    ranked_recall,
    ranking,
)

relevances = st.lists(st.booleans(), min_size=1, max_size=40).filter(any).map(lambda r: np.array(r, bool))


def descending(count: int) -> NDArray[np.float32]:
    return np.linspace(1, 0, count, dtype=np.float32)


@pytest.mark.parametrize(
    ("relevant", "k", "expected"),
    [
        # Hits at ranks 1 and 3: 1/1 + 2/3.
        ([1, 0, 1, 0], 4, {"min(k,R)": 5 / 6, "R": 5 / 6, "hits": 5 / 6}),
        # The third relevant image lies beyond k.
        ([1, 0, 1, 0, 1], 3, {"min(k,R)": 5 / 9, "R": 5 / 9, "hits": 5 / 6}),
        # More relevant images than k: the ideal list holds only k of them.
        ([0, 1, 1, 1], 2, {"min(k,R)": 1 / 4, "R": 1 / 6, "hits": 1 / 2}),
        # Nothing found within k.
        ([0, 0, 1], 2, {"min(k,R)": 0.0, "R": 0.0, "hits": 0.0}),
        # k beyond the list.
        ([0, 1], 50, {"min(k,R)": 1 / 2, "R": 1 / 2, "hits": 1 / 2}),
    ],
)
def test_worked_by_hand(relevant: list[int], k: int, expected: dict[Denominator, float]) -> None:
    found = {d: average_precision_at(descending(len(relevant)), np.array(relevant, bool), k, d) for d in DENOMINATORS}
    assert found == pytest.approx(expected)


def test_denominators_differ_most_if_many_images_are_relevant() -> None:
    """The example of the design: 25 hits first, then none up to rank 50, of 200 relevant images."""
    relevant = np.array([True] * 25 + [False] * 25 + [True] * 175)
    found = [average_precision_at(descending(len(relevant)), relevant, 50, d) for d in DENOMINATORS]
    assert found == pytest.approx([0.5, 0.125, 1.0])


def test_ties_go_to_the_earlier_row() -> None:
    scores = np.array([0.2, 0.9, 0.2, 0.9, 0.2], np.float32)
    assert ranking(scores).tolist() == [1, 3, 0, 2, 4]
    assert average_precision_at(scores, np.array([0, 0, 1, 0, 0], bool), 50) == pytest.approx(1 / 4)


def test_infinite_scores_are_ranked_and_nan_is_refused() -> None:
    assert ranking(np.array([-np.inf, 0, np.inf])).tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="row 2 is NaN"):
        ranking(np.array([0, 1, np.nan]))


def test_precision_and_recall() -> None:
    relevant = np.array([1, 0, 1, 0, 1], bool)
    assert ranked_precision(relevant, 3) == pytest.approx(2 / 3)
    assert ranked_recall(relevant, 3) == pytest.approx(2 / 3)
    assert ranked_precision(relevant, 10) == pytest.approx(3 / 10)
    assert ranked_recall(relevant, 10) == 1


@pytest.mark.parametrize("measure", [ranked_average_precision, ranked_precision, ranked_recall])
def test_nothing_relevant_or_no_rank_is_refused(measure: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match="no image is relevant"):
        measure(np.zeros(3, bool), 3)
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        measure(np.ones(3, bool), 0)


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_other_libraries_if_definitions_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # From 1 upwards: torchmetrics takes an image whose score is not positive for irrelevant.
    scores, relevant = 1 + rng.permutation(120).astype(np.float32), rng.random(120) < 0.6
    whole = average_precision_at(scores, relevant, len(scores), "R")
    assert whole == pytest.approx(average_precision_score(relevant, scores))
    arguments = torch.tensor(scores), torch.tensor(relevant), torch.zeros(120, dtype=torch.long)
    assert whole == pytest.approx(RetrievalMAP()(*arguments).item(), abs=1e-6)
    # torchmetrics divides by the hits found once it cuts the list.
    within = average_precision_at(scores, relevant, 50, "hits")
    assert within == pytest.approx(RetrievalMAP(top_k=50)(*arguments).item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_benchmark_of_real_photos(seed: int) -> None:
    """The formula of realbench/baselines.py, with ties."""
    rng = np.random.default_rng(seed)
    scores, relevant = rng.integers(0, 20, 150).astype(np.float32), rng.random(150) < 0.2 + 0.1 * seed
    top = relevant[np.argsort(-scores, kind="stable")[:50]]
    precision = np.cumsum(top) / np.arange(1, len(top) + 1)
    expected = (precision * top).sum() / min(50, relevant.sum())
    assert average_precision_at(scores, relevant, 50) == pytest.approx(expected)


@given(relevances, st.integers(1, 50), st.sampled_from(DENOMINATORS))
def test_average_precision_is_a_fraction(ranked: NDArray[np.bool_], k: int, denominator: Denominator) -> None:
    assert 0 <= ranked_average_precision(ranked, k, denominator) <= 1


@given(relevances, st.sampled_from(DENOMINATORS))
def test_one_more_relevant_image_in_front_never_lowers_it(ranked: NDArray[np.bool_], denominator: Denominator) -> None:
    """Of the whole list: within a shorter one, another relevant image may fall off the end."""
    more = np.concatenate([[True], ranked])
    assert ranked_average_precision(more, 50, denominator) >= ranked_average_precision(ranked, 50, denominator) - 1e-12


@given(relevances, st.integers(1, 50), st.data())
def test_moving_a_relevant_image_up_never_lowers_it(ranked: NDArray[np.bool_], k: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, len(ranked) - 1))
    better = ranked.copy()
    if rank and ranked[rank] and not ranked[rank - 1]:
        better[[rank - 1, rank]] = True, False
    for denominator in DENOMINATORS[:2]:
        gain = ranked_average_precision(better, k, denominator) - ranked_average_precision(ranked, k, denominator)
        assert gain >= -1e-12


@pytest.mark.parametrize("block", [1, 40, 1 << 24])
def test_max_sim_equals_a_naive_loop(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_PRODUCTS", block)
    rng = np.random.default_rng(0)
    offsets = np.cumsum([0, *rng.integers(1, 9, 30)])
    vectors = rng.standard_normal((offsets[-1], 16)).astype(np.float32)
    texts = rng.standard_normal((7, 16)).astype(np.float32)
    naive = np.array(
        [
            [max(float(v.astype(np.float64) @ t) for v in vectors[a:b]) for t in texts.astype(np.float64)]
            for a, b in pairwise(offsets)
        ]
    )
    found = max_sim(vectors, offsets, texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive, atol=1e-5)


def test_max_sim_keeps_negative_similarities_and_takes_half_precision() -> None:
    vectors = -np.eye(3, dtype=np.float16)
    assert (max_sim(vectors, np.array([0, 1, 3]), np.ones((1, 3), np.float32)) == -1).all()


def test_max_sim_of_no_image_has_the_right_shape() -> None:
    vectors, texts = np.zeros((0, 3), np.float32), np.zeros((2, 3), np.float32)
    assert max_sim(vectors, np.array([0]), texts).shape == (0, 2)
    assert max_sim(np.ones((1, 3), np.float32), np.array([0, 1]), texts[:0]).shape == (1, 0)


def test_max_sim_refuses_an_image_without_vectors() -> None:
    with pytest.raises(ValueError, match="row 1 has no vector"):
        max_sim(np.ones((2, 3), np.float32), np.array([0, 1, 1, 2]), np.ones((1, 3), np.float32))
