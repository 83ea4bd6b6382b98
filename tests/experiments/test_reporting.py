"""The pictures of the report are those of the numbers: of the images ranked, and judged by the labels that count."""

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from forclip.config import EvalConfig
from forclip.embedding.embed import EncodedImages
from forclip.evaluation.metrics_file import MethodRun, Metrics, summarise_runs
from forclip.evaluation.protocol import RetrievalReport, evaluate_scores
from forclip.evaluation.report import GridHit, GridRow, QueryGrid
from forclip.experiments import report as reporting
from forclip.experiments.comparison import Measured, Task
from forclip.experiments.report import ReportContents, _as_evaluated, _extremes, _without_distractors
from forclip.types import Annotations, ClassSplit, ImageEmbeddings

NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")
SPLIT = ClassSplit(NAMES[:4], NAMES[4:])
LABELS = np.random.default_rng(0).random((30, 8)) < 0.15
VERIFIED = LABELS | (np.random.default_rng(1).random((30, 8)) < 0.5)


def new_story(tmp_path: Path, evaluation: EvalConfig) -> ReportContents:
    """One method, two vectors an image; what a picture would need besides is not there."""
    ids = tuple(f"{row:02d}" for row in range(30))
    gallery = Annotations(
        ids,
        tuple(tmp_path / f"{i}.jpg" for i in ids),
        NAMES,
        LABELS,
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
        verified=VERIFIED,
    )
    tokens = torch.arange(30.0).reshape(30, 1, 1)
    vectors = np.zeros((60, 4), np.float32)
    vectors[np.arange(60), np.arange(60) % 4] = 1
    embeddings = ImageEmbeddings(vectors, np.arange(0, 61, 2), ids)
    encoded = EncodedImages(tokens, np.arange(30), (), 0.0)
    parts: dict[str, Any] = {field.name: None for field in fields(Task)}
    task = Task(**{**parts, "name": "t", "gallery": gallery, "gallery_images": encoded, "split": SPLIT})
    measured = Measured(
        MethodRun("for", 0, new_report(evaluation), 2, None), cast(Any, None), embeddings, torch.ones(0)
    )
    return ReportContents(task, cast(Any, SimpleNamespace(eval=evaluation)), {"for": measured}, [])


def new_report(evaluation: EvalConfig) -> RetrievalReport:
    scores = np.random.default_rng(2).random((30, 8))
    return evaluate_scores(scores, LABELS, NAMES, SPLIT, verified=VERIFIED, distractors=evaluation.distractors)


def test_a_grid_has_the_evaluations_precision_and_calls_nothing_wrong_that_nobody_checked(tmp_path: Path) -> None:
    story = new_story(tmp_path, EvalConfig())
    result = next(c for c in story.measured["for"].run.report.classes if c.name == "b")
    rows = [int(np.flatnonzero(where[:, 1])[0]) for where in (LABELS, VERIFIED & ~LABELS, ~VERIFIED)]
    ids = [story.task.gallery.image_ids[row] for row in rows]
    hits = tuple(GridHit(tmp_path, i, 0.5, bool(LABELS[row, 1])) for i, row in zip(ids, rows, strict=True))
    found = _as_evaluated(story.task, QueryGrid("b", False, 3, (GridRow("for", 1.0, hits),)), {"for": {"b": result}})
    assert [hit.relevant for hit in found.rows[0].hits] == [True, False, None]
    assert found.rows[0].average_precision == result.average_precision
    left_out = _as_evaluated(story.task, QueryGrid("b", False, 3, (GridRow("for", 1.0, hits),)), {"for": {}})
    assert left_out.rows[0].average_precision is None


def test_without_distractors_only_the_images_that_were_ranked_remain(tmp_path: Path) -> None:
    story = _without_distractors(new_story(tmp_path, EvalConfig(distractors=False)))
    kept = np.flatnonzero(LABELS.any(1))
    assert 0 < len(kept) < 30
    assert len(kept) == story.measured["for"].run.report.images
    assert story.task.gallery.image_ids == tuple(f"{row:02d}" for row in kept)
    assert story.task.gallery_images.tokens.flatten().tolist() == kept.tolist()
    embeddings = story.measured["for"].embeddings
    assert embeddings.image_ids == story.task.gallery.image_ids
    assert np.diff(embeddings.offsets).tolist() == [2] * len(kept)
    np.testing.assert_array_equal(embeddings.vectors[:, 0], np.tile([1, 0, 0, 0], 15).reshape(30, 2)[kept].ravel())


def test_best_and_worst_are_by_precision_and_no_class_is_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_grids", lambda story, shown, names: (shown[0][0], names))
    story = new_story(tmp_path, EvalConfig())
    metrics: Metrics = summarise_runs("t", [story.measured["for"].run])
    (method, best), (_, worst) = cast(Any, _extremes(metrics, story))
    precision = {c.name: c.average_precision for c in story.measured["for"].run.report.classes}
    assert method == "for"
    assert len(best) == len(worst) == 3
    assert min(precision[name] for name in best) >= max(precision[name] for name in worst)
    assert not set(best) & set(worst)
    assert _extremes({**metrics, "methods": {}}, story) == ((), ())
