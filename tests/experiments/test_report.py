"""The images in the report are those that were ranked, with the labels and the precision of the evaluation."""

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from forclip.config import EvalConfig
from forclip.embedding.embed import EncodedImages
from forclip.evaluation.metrics_file import MethodRun, Metrics, summarise_runs
from forclip.evaluation.protocol import evaluate_scores
from forclip.experiments.comparison import MethodResult, Task
from forclip.experiments.report import Comparison, best_vectors, extreme_classes, query_grids, rank
from forclip.types import Annotations, ClassSplit, ImageEmbeddings
from tests.index.made import names, some

NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")
SPLIT = ClassSplit(NAMES[:4], NAMES[4:])
LABELS = np.random.default_rng(0).random((30, 8)) < 0.15
VERIFIED = LABELS | (np.random.default_rng(1).random((30, 8)) < 0.5)


def new_comparison(evaluation: EvalConfig, method: str = "for") -> Comparison:
    """Return one method with two vectors for each of 30 images, without a backbone or image files."""
    ids = tuple(f"{row:02d}" for row in range(30))
    none = np.zeros(0, np.int64)
    gallery = Annotations(
        ids, tuple(map(Path, ids)), NAMES, LABELS, np.zeros((0, 4), np.float32), none, none, verified=VERIFIED
    )
    tokens = torch.arange(30.0).reshape(30, 1, 1)
    vectors = np.zeros((60, 4), np.float32)
    vectors[np.arange(60), np.arange(60) % 4] = 1
    embeddings = ImageEmbeddings(vectors, np.arange(0, 61, 2), ids)
    encoded = EncodedImages(tokens, np.arange(30), (), 0.0)
    parts: dict[str, Any] = {field.name: None for field in fields(Task)}
    parts |= {"name": "t", "gallery": gallery, "gallery_images": encoded, "split": SPLIT, "text_owners": np.arange(8)}
    scores = np.random.default_rng(2).random((30, 8))
    report = evaluate_scores(scores, LABELS, NAMES, SPLIT, verified=VERIFIED, distractors=evaluation.distractors)
    texts = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    result = MethodResult(MethodRun(method, 0, report, 2, None), cast(Any, None), embeddings, texts)
    return Comparison(Task(**parts), cast(Any, SimpleNamespace(eval=evaluation)), {method: result}, [])


def test_a_grid_has_the_precision_of_the_evaluation_and_marks_unverified_images() -> None:
    comparison = new_comparison(EvalConfig(), "global")
    evaluated = {c.name: c.average_precision for c in comparison.results["global"].run.report.classes}
    marks = set()
    for grid in query_grids(comparison, ["never measured", "global"], NAMES):
        (row,) = grid.rows
        assert row.average_precision == evaluated[grid.text]
        for hit in row.hits:
            place = int(hit.image_id), NAMES.index(grid.text)
            assert hit.relevant == (LABELS[place] if VERIFIED[place] else None)
            marks.add(hit.relevant)
    assert marks == {True, False, None}
    run = comparison.results["global"].run
    without_b = replace(run.report, classes=tuple(c for c in run.report.classes if c.name != "b"))
    comparison.results["global"] = replace(comparison.results["global"], run=replace(run, report=without_b))
    assert query_grids(comparison, ["global"], ["b"])[0].rows[0].average_precision is None


def test_without_distractors_only_the_ranked_images_are_shown() -> None:
    comparison = new_comparison(EvalConfig(distractors=False), "global")
    kept = np.flatnonzero(LABELS.any(1))
    assert 0 < len(kept) < 30
    assert len(kept) == comparison.results["global"].run.report.images
    ranked = {f"{row:02d}" for row in kept}
    hits = [hit for grid in query_grids(comparison, ["global"], NAMES) for row in grid.rows for hit in row.hits]
    assert {hit.image_id for hit in hits} <= ranked
    everything = new_comparison(EvalConfig(), "global")
    hits = [hit for grid in query_grids(everything, ["global"], NAMES) for row in grid.rows for hit in row.hits]
    assert not {hit.image_id for hit in hits} <= ranked


def test_best_and_worst_classes_are_by_precision_and_disjoint() -> None:
    comparison = new_comparison(EvalConfig())
    metrics: Metrics = summarise_runs("t", [comparison.results["for"].run])
    best, worst = extreme_classes(metrics, comparison)
    precision = {c.name: c.average_precision for c in comparison.results["for"].run.report.classes}
    assert len(best) == len(worst) == 3
    assert min(precision[name] for name in best) >= max(precision[name] for name in worst)
    assert not set(best) & set(worst)
    assert extreme_classes({**metrics, "methods": {}}, comparison) == ([], [])


@pytest.mark.parametrize("seed", range(5))
def test_best_vectors_and_ranks_equal_a_naive_loop(seed: int) -> None:
    embeddings = some(names(40), seed)
    query = embeddings.vectors[7]
    scores, winners = best_vectors(embeddings, query)
    for image in range(40):
        start, end = embeddings.offsets[image : image + 2]
        cosines = [float(embeddings.vectors[row] @ query) for row in range(start, end)]
        assert scores[image] == pytest.approx(max(cosines), abs=1e-6)
        assert winners[image] == start + int(np.argmax(cosines))
    expected = sorted(range(40), key=lambda i: (-scores[i], embeddings.image_ids[i]))
    assert rank(scores, embeddings.image_ids, 10).tolist() == expected[:10]


def test_negative_similarities_are_not_beaten_by_padding() -> None:
    vectors = np.array([[-1, 0], [-0.6, 0.8], [0, 1]], np.float32)
    embeddings = ImageEmbeddings(vectors, np.array([0, 2, 3]), ("a", "b"))
    scores, winners = best_vectors(embeddings, np.array([0.8, -0.6], np.float32))
    assert scores.tolist() == pytest.approx([-0.8, -0.6])
    assert winners.tolist() == [0, 2]


def test_ties_go_by_id_also_at_the_cut() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.5], np.float32)
    assert rank(scores, ("d", "c", "b", "a"), 2).tolist() == [1, 3]
    assert rank(scores, ("d", "c", "b", "a"), 9).tolist() == [1, 3, 2, 0]


def test_wrong_queries_are_refused() -> None:
    embeddings = some(names(3))
    with pytest.raises(ValueError, match="16 dimensions"):
        best_vectors(embeddings, np.ones(5, np.float32))
    with pytest.raises(ValueError, match="not 0"):
        rank(np.ones(3, np.float32), embeddings.image_ids, 0)
