"""Classes measured on a store are what `forclip eval` measures on the same gallery."""

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
    found = load_store_labels(searcher.index, SourceConfig(small_world.gallery_file, small_world.images))
    novel = set(small_world.novel)
    return replace(found, groups={n: "novel" if n in novel else "base" for n in found.images.class_names})


@pytest.fixture(scope="module")
def evaluated(searcher: Searcher, small_world: ToyWorld) -> RetrievalReport:
    """By the functions behind `forclip eval`, with the store's model."""
    config = toyworld_config(small_world, seed=0)
    backbone = searcher.model.backbone
    task = load_task(config, backbone, untracked, Console(file=StringIO()), will_train=False)
    return measure(task, "sum", searcher.model.head, 0, EvalConfig()).run.report


def texts_of(searcher: Searcher, labels: StoreLabels) -> Floats:
    return np.stack([searcher.encode_text(name) for name in labels.images.class_names])


def test_the_numbers_are_those_of_eval(searcher: Searcher, labels: StoreLabels, evaluated: RetrievalReport) -> None:
    advanced: list[int] = []
    store = searcher.index.store
    evaluation = evaluate_classes(store.table(), store.header, labels, texts_of(searcher, labels), advanced.append)
    assert sum(advanced) == evaluation.images == 60
    assert evaluation.relevant.tolist() == labels.images.labels.sum(0).tolist()
    expected = {c.name: c for c in evaluated.classes}
    assert {c.name for c in evaluation.classes} == set(expected)
    assert {c.name for c in evaluation.left_out} == {c.name for c in evaluated.left_out}
    for found in evaluation.classes:
        wanted = expected[found.name]
        assert (found.num_images, found.num_relevant) == (wanted.num_images, wanted.num_relevant)
        # The store keeps vectors in half precision, by which two images may change places.
        assert found.average_precision == pytest.approx(wanted.average_precision, abs=5)
        assert found.precision_at_10 == pytest.approx(wanted.precision_at_10, abs=10)
    means = evaluation.means(labels.groups)
    assert means == pytest.approx({g: m for g, m in evaluated.means["min(k,R)"].items() if m is not None}, abs=0.3)
    assert set(means) == {"base", "novel", "all"}


def test_only_the_stores_images_and_checked_labels_count(searcher: Searcher, labels: StoreLabels) -> None:
    """Against loops over what an exhaustive search returns."""
    rng = np.random.default_rng(0)
    verified = rng.random(labels.images.labels.shape) < 0.5
    known = replace(labels.images, verified=verified)
    gone = replace(known, image_ids=("not in the store", *known.image_ids[1:]))
    federated = replace(labels, images=gone)
    store = searcher.index.store
    evaluation = evaluate_classes(store.table(), store.header, federated, texts_of(searcher, federated))
    assert evaluation.images == 59
    assert evaluation.relevant.tolist() == (gone.labels & verified)[1:].sum(0).tolist()
    assert len(evaluation.classes) > 20
    assert len(evaluation.classes) + len(evaluation.left_out) == len(gone.class_names)
    for found in evaluation.classes:
        column = gone.class_names.index(found.name)
        of_image = dict(zip(gone.image_ids, zip(verified[:, column], gone.labels[:, column], strict=True), strict=True))
        hits = [of_image[r.image_id][1] for r in searcher.search(found.name, 60) if of_image.get(r.image_id, (0,))[0]]
        assert (found.num_images, found.num_relevant) == (len(hits), sum(hits))
        gained = sum(sum(hits[:r]) / r for r in range(1, min(50, len(hits)) + 1) if hits[r - 1])
        assert found.average_precision == pytest.approx(100 * gained / min(50, sum(hits)))
        assert found.precision_at_10 == pytest.approx(10 * sum(hits[:10]))
