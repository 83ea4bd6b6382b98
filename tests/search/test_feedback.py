"""Relevance feedback: the refined query equals gradient descent, and verdicts change the list."""

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


def gradient_descent(
    query: Floats, examples: Floats, is_right: np.ndarray, spread: float, stiffness: float
) -> np.ndarray:
    """Minimise the same loss over weights and bias in many small steps."""
    start, vectors = query.astype(float), examples.astype(float)
    weights, bias, centre = start.copy(), 0.0, (vectors @ start).mean() / spread
    for _ in range(40_000):
        logits = vectors @ weights / spread - centre + bias / spread
        gradient = 1 / (1 + np.exp(-logits)) - is_right
        weights -= 1e-4 * (vectors.T @ gradient / spread + stiffness * (weights - start))
        bias -= 1e-4 * (gradient.sum() / spread + stiffness * bias / 0.1)
    unit_weights: np.ndarray = weights / np.linalg.norm(weights)
    return unit_weights


def test_refining_equals_gradient_descent() -> None:
    rng = np.random.default_rng(0)
    query, examples = unit(rng, DIM), unit(rng, 6, DIM)
    is_right = np.array([True, False, True, False, False, True])
    assert refine(query, examples, is_right, 0.2, 20.0) == pytest.approx(
        gradient_descent(query, examples, is_right, 0.2, 20.0), abs=1e-3
    )


def test_a_stiff_prior_keeps_the_query() -> None:
    rng = np.random.default_rng(1)
    query, examples = unit(rng, DIM), unit(rng, 4, DIM)
    assert refine(query, examples, np.array([True, False, True, False]), 0.2, 1e9) == pytest.approx(query, abs=1e-5)


def test_right_examples_come_nearer_and_wrong_ones_move_away() -> None:
    rng = np.random.default_rng(2)
    query, (right, wrong) = unit(rng, DIM), unit(rng, 2, DIM)
    refined = refine(query, np.stack([right, wrong]), np.array([True, False]), 0.2)
    assert (refined - query) @ right > 0 > (refined - query) @ wrong
    assert np.linalg.norm(refined) == pytest.approx(1, abs=1e-6)


def create_index(folder: Path) -> Index:
    embeddings = some(names(200))
    index = Index.create(folder, HEADER)
    index.add(embeddings, files(embeddings.image_ids))
    return index


def test_each_image_counts_by_its_best_vector(tmp_path: Path) -> None:
    index, query = create_index(tmp_path / "s"), unit(np.random.default_rng(3), DIM)
    ids = [r.image_id for r in index.search(query, 6)]
    best = index.best_vectors([*ids, "unknown"], query)
    assert set(best) == set(ids)
    assert [float(best[i] @ query) for i in ids] == pytest.approx([r.score for r in index.search(query, 6)], abs=1e-6)
    refined = refined_query(index, query, ids[:2], ids[2:])
    examples = np.stack([best[i] for i in ids])
    expected = refine(query, examples, np.arange(6) < 2, float(index.scores(query).std()))
    assert refined == pytest.approx(expected, abs=1e-6)
    moved = {r.image_id: r.score for r in index.search_among(ids, refined)}
    before = {r.image_id: r.score for r in index.search_among(ids, query)}
    gains = {i: moved[i] - before[i] for i in ids}
    assert min(gains[i] for i in ids[:2]) > max(gains[i] for i in ids[2:])


def test_no_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="verdict"):
        refined_query(None, unit(np.random.default_rng(0), DIM), [], [])  # type: ignore[arg-type]


def test_a_verdict_on_an_unknown_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'nothing'"):
        refined_query(create_index(tmp_path / "s"), unit(np.random.default_rng(0), DIM), ["nothing"], [])


def test_a_search_with_verdicts_uses_the_refined_query(searcher: Searcher) -> None:
    first = searcher.search("cat", 10)
    request = SearchRequest(text="cat", right=(first[9].image_id,), wrong=(first[0].image_id,), k=60)
    results = run_search(searcher, request).results
    query = searcher.encode_text("cat")
    expected = searcher.index.search(refined_query(searcher.index, query, request.right, request.wrong), 60)
    assert [r.image_id for r in results] == [r.image_id for r in expected if r.image_id != first[0].image_id]
    assert [r.rank for r in results] == list(range(1, 60))
    assert run_search(searcher, replace(request, k=3)).results == results[:3]
