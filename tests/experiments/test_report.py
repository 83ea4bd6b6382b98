"""The images in the report are those that were ranked, with the labels and the precision of the evaluation."""

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from forclip.config import EvalConfig
from forclip.embedding.embed import EncodedImages
from forclip.evaluation.metrics_file import MethodRun, Metrics, summarise_runs
from forclip.evaluation.protocol import evaluate_scores
from forclip.experiments.comparison import MethodResult, Task
from forclip.experiments.report import Comparison, extreme_classes, query_grids
from forclip.types import Annotations, ClassSplit, ImageEmbeddings

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
