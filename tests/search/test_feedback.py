"""Relevance feedback: the probe against plain gradient descent, and what picks do to a list."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forclip.index.image_index import Index
from forclip.search.feedback import refine, refined_query
from forclip.search.request import SearchRequest, run_search
from forclip.search.searcher import Searcher
from forclip.types import Floats
from tests.index.made import DIM, HEADER, files, names, some, unit


def naive(query: Floats, picked: Floats, is_right: np.ndarray, spread: float, stiffness: float) -> np.ndarray:
    """Gradient descent on weights and bias, one after the other."""
    asked, vectors = query.astype(float), picked.astype(float)
    weights, bias, centre = asked.copy(), 0.0, (vectors @ asked).mean() / spread
    for _ in range(40_000):
        logits = vectors @ weights / spread - centre + bias / spread
        wrongness = 1 / (1 + np.exp(-logits)) - is_right
        weights -= 1e-4 * (vectors.T @ wrongness / spread + stiffness * (weights - asked))
        bias -= 1e-4 * (wrongness.sum() / spread + stiffness * bias / 0.1)
    unit_weights: np.ndarray = weights / np.linalg.norm(weights)
    return unit_weights


def test_equals_gradient_descent() -> None:
    rng = np.random.default_rng(0)
    query, picked = unit(rng, DIM), unit(rng, 6, DIM)
    is_right = np.array([True, False, True, False, False, True])
    assert refine(query, picked, is_right, 0.2, 20.0) == pytest.approx(
        naive(query, picked, is_right, 0.2, 20.0), abs=1e-3
    )


def test_a_stiff_prior_leaves_the_text() -> None:
    rng = np.random.default_rng(1)
    query, picked = unit(rng, DIM), unit(rng, 4, DIM)
    assert refine(query, picked, np.array([True, False, True, False]), 0.2, 1e9) == pytest.approx(query, abs=1e-5)


def test_right_comes_nearer_and_wrong_moves_away() -> None:
    rng = np.random.default_rng(2)
    query, (right, wrong) = unit(rng, DIM), unit(rng, 2, DIM)
    refined = refine(query, np.stack([right, wrong]), np.array([True, False]), 0.2)
    assert (refined - query) @ right > 0 > (refined - query) @ wrong
    assert np.linalg.norm(refined) == pytest.approx(1, abs=1e-6)


def store(folder: Path) -> Index:
    embeddings = some(names(200))
    index = Index.create(folder, HEADER)
    index.add(embeddings, files(embeddings.image_ids))
    return index


def test_the_vector_that_answered_is_the_one_that_counts(tmp_path: Path) -> None:
    index, query = store(tmp_path / "s"), unit(np.random.default_rng(3), DIM)
    ids = [r.image_id for r in index.search(query, 6)]
    best = index.best_vectors([*ids, "unknown"], query)
    assert set(best) == set(ids)
    assert [float(best[i] @ query) for i in ids] == pytest.approx([r.score for r in index.search(query, 6)], abs=1e-6)
    refined = refined_query(index, query, ids[:2], ids[2:])
    picked = np.stack([best[i] for i in ids])
    expected = refine(query, picked, np.arange(6) < 2, float(index.scores(query).std()))
    assert refined == pytest.approx(expected, abs=1e-6)
    moved = {r.image_id: r.score for r in index.search_among(ids, refined)}
    before = {r.image_id: r.score for r in index.search_among(ids, query)}
    gained = {i: moved[i] - before[i] for i in ids}
    assert min(gained[i] for i in ids[:2]) > max(gained[i] for i in ids[2:])


def test_no_verdict_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="verdict"):
        refined_query(None, unit(np.random.default_rng(0), DIM), [], [])  # type: ignore[arg-type]


def test_an_unknown_pick(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no image 'nothing'"):
        refined_query(store(tmp_path / "s"), unit(np.random.default_rng(0), DIM), ["nothing"], [])


def test_a_search_with_picks(searcher: Searcher) -> None:
    first = searcher.search("cat", 10)
    request = SearchRequest(text="cat", right=(first[9].image_id,), wrong=(first[0].image_id,), k=60)
    found = run_search(searcher, request).results
    query = searcher.encode_text("cat")
    expected = searcher.index.search(refined_query(searcher.index, query, request.right, request.wrong), 60)
    assert [r.image_id for r in found] == [r.image_id for r in expected if r.image_id != first[0].image_id]
    assert [r.rank for r in found] == list(range(1, 60))
    assert run_search(searcher, replace(request, k=3)).results == found[:3]
