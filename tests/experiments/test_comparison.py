"""`measure` evaluates on verified labels, with or without distractors."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forclip.config import EvalConfig
from forclip.embedding.embed import EncodedImages
from forclip.experiments.comparison import MethodResult, Task, measure
from forclip.models.baselines import training_free_head
from forclip.types import Annotations, Bools, ClassSplit
from tests.tiny import TinyBackbone

NAMES = ("a", "b", "c")
LABELS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0]], bool)
VERIFIED = LABELS | np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]], bool)


def new_task(verified: Bools | None) -> Task:
    """Return a task of six random images, without training images."""
    backbone = TinyBackbone()
    pixels = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    ids = tuple("123456")
    none = np.zeros(0, np.int64)
    gallery = Annotations(
        ids, tuple(map(Path, ids)), NAMES, LABELS, np.zeros((0, 4), np.float32), none, none, verified=verified
    )
    parts: dict[str, Any] = {
        **{field.name: None for field in fields(Task)},
        "name": "t",
        "backbone": backbone,
        "gallery": gallery,
        "gallery_images": EncodedImages(backbone.encode_tokens(pixels).half(), np.arange(6), (), 0.0),
        "split": ClassSplit(NAMES[:2], NAMES[2:]),
        "texts": backbone.encode_text(NAMES),
        "text_owners": np.arange(3),
    }
    return Task(**parts)


def measure_global(task: Task, config: EvalConfig) -> MethodResult:
    return measure(task, "global", training_free_head(task.backbone, "global"), 0, config)


def test_a_class_is_ranked_over_the_images_verified_for_it() -> None:
    report = measure_global(new_task(VERIFIED), EvalConfig()).run.report
    assert report.protocol == "verified images"
    assert [c.num_images for c in report.classes] == VERIFIED.sum(0).tolist()
    everything = measure_global(new_task(None), EvalConfig()).run.report
    assert everything.protocol == "all images"
    assert report.other_protocols["all images"] == pytest.approx(everything.means["min(k,R)"])


def test_distractors_are_embedded_and_ranked_if_configured() -> None:
    task = new_task(None)
    for distractors, images in ((True, 6), (False, 4)):
        result = measure_global(task, EvalConfig(distractors=distractors))
        report = result.run.report
        assert (report.images, report.distractors, report.distractors_kept) == (images, 2, distractors)
        assert len(result.embeddings) == 6
    removed = replace(task, gallery=task.gallery.take(np.array([0, 1, 2, 4])))
    removed = replace(
        removed, gallery_images=replace(task.gallery_images, tokens=task.gallery_images.tokens[[0, 1, 2, 4]])
    )
    assert measure_global(removed, EvalConfig()).run.report.means == report.means
