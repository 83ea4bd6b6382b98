"""What labels say of one list: against loops over the whole ranking."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forclip.config import SourceConfig
from forclip.evaluation.metrics import average_precision_at, precision_at
from forclip.index.image_index import Index
from forclip.index.schema import StoreHeader
from forclip.index.store import ImageFile
from forclip.search.labels import StoreLabels, evaluate_list, load_store_labels, rank_in_whole_list
from forclip.search.searcher import Searcher
from forclip.toyworld.dataset import ToyWorld
from forclip.types import Annotations, ImageEmbeddings


@pytest.fixture(scope="module")
def labels(searcher: Searcher, small_world: ToyWorld) -> StoreLabels:
    """Three of four are verified."""
    found = load_store_labels(searcher.index, SourceConfig(small_world.gallery_file, small_world.images))
    verified = np.random.default_rng(1).random(found.images.labels.shape) < 0.75
    return replace(found, images=replace(found.images, verified=verified))


@pytest.mark.parametrize("where", [None, "half = 1"])
def test_a_list_is_judged_by_what_was_checked(searcher: Searcher, labels: StoreLabels, where: str | None) -> None:
    images, judged = labels.images, 0
    row = {image_id: k for k, image_id in enumerate(images.image_ids)}
    assert images.verified is not None
    for column, name in enumerate(images.class_names):
        query = searcher.encode_text(name)
        found = evaluate_list(searcher.index, labels, column, query, where)
        whole = searcher.search_vector(query, 60, where=where)
        checked = [r for r in whole if images.verified[row[r.image_id], column]]
        shows = np.array([images.labels[row[r.image_id], column] for r in checked], bool)
        assert found.relevant == shows.sum()
        best_first = -np.arange(float(len(checked)))
        if shows.any():
            judged += 1
            assert found.average_precision == pytest.approx(100 * average_precision_at(best_first, shows, 50))
            assert found.precision_at_10 == pytest.approx(100 * precision_at(best_first, shows, 10))
        else:
            assert (found.average_precision, found.precision_at_10) == (None, None)
        missed = [r for r, s in zip(checked, shows, strict=True) if s and r.rank > 50]
        assert list(found.missed) == [r.image_id for r in missed]
        assert rank_in_whole_list(searcher.index, found.missed, query, None, where) == missed
        wrong = [r for r, s in zip(checked, shows, strict=True) if not s]
        ids = labels.checked(column, shows=False)
        assert rank_in_whole_list(searcher.index, ids, query, 7, where) == wrong[:7]
    assert judged > 20


def test_images_that_are_alike_have_ranks_of_their_own(tmp_path: Path) -> None:
    """Copies score alike; a rank still names one image."""
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
