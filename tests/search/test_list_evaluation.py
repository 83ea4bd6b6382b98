"""Metrics and mistakes of one labelled list equal loops over the whole ranking."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forclip.config import SourceConfig
from forclip.evaluation.metrics import average_precision_at, ranked_precision
from forclip.index.image_index import Index
from forclip.index.schema import StoreHeader
from forclip.index.store import ImageFile
from forclip.search.labels import StoreLabels, evaluate_list, load_store_labels, rank_in_whole_list
from forclip.search.searcher import Searcher
from forclip.toyworld.dataset import ToyWorld
from forclip.types import Annotations, ImageEmbeddings


@pytest.fixture(scope="module")
def labels(searcher: Searcher, small_world: ToyWorld) -> StoreLabels:
    """Labels of which about three in four are verified."""
    loaded = load_store_labels(searcher.index, SourceConfig(small_world.gallery_file, small_world.images))
    verified = np.random.default_rng(1).random(loaded.images.labels.shape) < 0.75
    return replace(loaded, images=replace(loaded.images, verified=verified))


@pytest.mark.parametrize("where", [None, "half = 1"])
def test_a_list_is_evaluated_on_verified_labels(searcher: Searcher, labels: StoreLabels, where: str | None) -> None:
    images, num_evaluated = labels.images, 0
    row = {image_id: k for k, image_id in enumerate(images.image_ids)}
    assert images.verified is not None
    for column, name in enumerate(images.class_names):
        query = searcher.encode_text(name)
        evaluation = evaluate_list(searcher.index, labels, column, query, where)
        whole = searcher.search_vector(query, 60, where=where)
        verified = [r for r in whole if images.verified[row[r.image_id], column]]
        shows = np.array([images.labels[row[r.image_id], column] for r in verified], bool)
        assert evaluation.images == shows.sum()
        best_first = -np.arange(float(len(verified)))
        if shows.any():
            num_evaluated += 1
            assert evaluation.average_precision == pytest.approx(100 * average_precision_at(best_first, shows, 50))
            assert evaluation.precision_at_10 == pytest.approx(100 * ranked_precision(shows, 10))
        else:
            assert (evaluation.average_precision, evaluation.precision_at_10) == (None, None)
        missed = [r for r, s in zip(verified, shows, strict=True) if s and r.rank > 50]
        assert list(evaluation.missed) == [r.image_id for r in missed]
        assert rank_in_whole_list(searcher.index, evaluation.missed, query, None, where) == missed
        wrong = [r for r, s in zip(verified, shows, strict=True) if not s]
        ids = labels.checked(column, shows=False)
        assert rank_in_whole_list(searcher.index, ids, query, 7, where) == wrong[:7]
    assert num_evaluated > 20


def test_images_with_equal_scores_have_different_ranks(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    vectors = np.array([[0, 1], [1, 0], [1, 0], [1, 0]], np.float32)
    index = Index.create(tmp_path / "s", StoreHeader("abc", 2, {"name": "some model"}))
    index.add(ImageEmbeddings(vectors, np.arange(5), names), [ImageFile(name) for name in names])
    boxes, none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    shows = np.array([[False], [True], [False], [False]])
    images = Annotations(names, tuple(map(Path, names)), ("cat",), shows, boxes, none, none)
    ids = StoreLabels(images, {}).checked(0, shows=False)
    wrong = rank_in_whole_list(index, ids, np.array([1, 0], np.float32), 5)
    assert [(r.image_id, r.rank) for r in wrong] == [("c", 1), ("d", 2), ("a", 4)]
