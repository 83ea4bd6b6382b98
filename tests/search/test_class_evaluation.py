"""Class metrics on a store equal those of `forclip eval` on the same gallery."""

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from forclip.config import EvalConfig, SourceConfig
from forclip.evaluation.protocol import RetrievalReport
from forclip.experiments.comparison import measure
from forclip.experiments.demo import toyworld_config
from forclip.experiments.evaluate import load_task
from forclip.progress import untracked
from forclip.search.labels import StoreLabels, evaluate_classes, load_store_labels
from forclip.search.searcher import Searcher
from forclip.toyworld.dataset import ToyWorld
from forclip.types import Floats


@pytest.fixture(scope="module")
def labels(searcher: Searcher, small_world: ToyWorld) -> StoreLabels:
    loaded = load_store_labels(searcher.index, SourceConfig(small_world.gallery_file, small_world.images))
    novel = set(small_world.novel)
    return replace(loaded, groups={n: "novel" if n in novel else "base" for n in loaded.images.class_names})


@pytest.fixture(scope="module")
def evaluated(searcher: Searcher, small_world: ToyWorld) -> RetrievalReport:
    """Report by the functions behind `forclip eval`, with the store's model."""
    config = toyworld_config(small_world, seed=0)
    backbone = searcher.model.backbone
    task = load_task(config, backbone, untracked, Console(file=StringIO()), will_train=False)
    return measure(task, "sum", searcher.model.head, 0, EvalConfig()).run.report


def class_vectors(searcher: Searcher, labels: StoreLabels) -> Floats:
    return np.stack([searcher.encode_text(name) for name in labels.images.class_names])


def test_metrics_equal_those_of_eval(searcher: Searcher, labels: StoreLabels, evaluated: RetrievalReport) -> None:
    advanced: list[int] = []
    evaluation = evaluate_classes(searcher.index, labels, class_vectors(searcher, labels), advanced.append)
    assert sum(advanced) == evaluation.images == 60
    assert evaluation.relevant.tolist() == labels.images.labels.sum(0).tolist()
    expected = {c.name: c for c in evaluated.classes}
    assert {c.name for c in evaluation.classes} == set(expected)
    assert {c.name for c in evaluation.left_out} == {c.name for c in evaluated.left_out}
    for measured in evaluation.classes:
        reference = expected[measured.name]
        assert (measured.num_images, measured.num_relevant) == (reference.num_images, reference.num_relevant)
        # The store keeps vectors in half precision, which may swap two images.
        assert measured.average_precision == pytest.approx(reference.average_precision, abs=5)
        assert measured.precision_at_10 == pytest.approx(reference.precision_at_10, abs=10)
    means = evaluation.means(labels.groups)
    assert means == pytest.approx({g: m for g, m in evaluated.means["min(k,R)"].items() if m is not None}, abs=0.3)
    assert set(means) == {"base", "novel", "all"}


def test_only_images_in_the_store_and_verified_labels_count(searcher: Searcher, labels: StoreLabels) -> None:
    """Compare with loops over the results of an exhaustive search."""
    rng = np.random.default_rng(0)
    verified = rng.random(labels.images.labels.shape) < 0.5
    ids = ("not in the store", *labels.images.image_ids[1:])
    images = replace(labels.images, verified=verified, image_ids=ids)
    partial = replace(labels, images=images)
    evaluation = evaluate_classes(searcher.index, partial, class_vectors(searcher, partial))
    assert evaluation.images == 59
    assert evaluation.relevant.tolist() == (images.labels & verified)[1:].sum(0).tolist()
    assert len(evaluation.classes) > 20
    assert len(evaluation.classes) + len(evaluation.left_out) == len(images.class_names)
    for measured in evaluation.classes:
        column = images.class_names.index(measured.name)
        truth = dict(
            zip(images.image_ids, zip(verified[:, column], images.labels[:, column], strict=True), strict=True)
        )
        hits = [truth[r.image_id][1] for r in searcher.search(measured.name, 60) if truth.get(r.image_id, (0,))[0]]
        assert (measured.num_images, measured.num_relevant) == (len(hits), sum(hits))
        gained = sum(sum(hits[:r]) / r for r in range(1, min(50, len(hits)) + 1) if hits[r - 1])
        assert measured.average_precision == pytest.approx(100 * gained / min(50, sum(hits)))
        assert measured.precision_at_10 == pytest.approx(10 * sum(hits[:10]))
