"""Inverted lists: one an image over a segment's file, and many searched by several threads."""

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from forclip.index.ann import build_ann, load_ann, save_ann
from forclip.index.list_search import search_lists
from forclip.index.scan import best_rows, score_images
from forclip.index.schema import StoreHeader
from forclip.index.segment import Segment, read_segment, segment_in_memory, write_segment
from forclip.index.store import StoredVectors
from forclip.types import Ints
from tests.index.made import DIM, HEADER, names, some, unit

INT8 = StoreHeader("abc", DIM, {"name": "some model"}, "int8", 0.8)


def in_memory(header: StoreHeader, count: int = 400, most: int = 7) -> Segment:
    """Some of the images hold one vector several times."""
    given = some(names(count), most=most)
    codes = header.encode(given.vectors)
    for start, end in zip(given.offsets[:100], given.offsets[1:101], strict=True):
        codes[start:end] = codes[start]
    boxes = np.zeros((len(codes), 4), np.float16)
    images = pa.table({"id": list(given.image_ids), "uri": list(given.image_ids)})
    return segment_in_memory(header, [StoredVectors(np.arange(count), codes, given.offsets, boxes, images)])


def mapped(segment: Segment, folder: Path) -> Segment:
    return read_segment(segment.header, write_segment(segment, folder, "some store", {}), "some store")[0]


def rows_of(segment: Segment, image: int) -> Ints:
    return np.arange(segment.offsets[image], segment.offsets[image + 1])


@pytest.mark.parametrize("header", [HEADER, INT8], ids=["fp16", "int8"])
def test_an_image_is_scored_by_its_best_vector_in_memory_and_mapped(header: StoreHeader, tmp_path: Path) -> None:
    """Seven equal vectors are more than are kept of an image; of equal ones the first counts."""
    segment = in_memory(header)
    query = unit(np.random.default_rng(3), DIM)
    images = np.array([399, 7, 250, 0, 99])
    for kept in (segment, mapped(segment, tmp_path)):
        assert (kept.lists is None) == (kept.folder is None)
        found = score_images(kept, query, images)
        assert sorted(found.images.tolist()) == sorted(images.tolist())
        for image, row, score in zip(found.images, found.rows, found.scores, strict=True):
            rows = rows_of(segment, int(image))
            scores = segment.scores(query.astype(np.float64), rows)
            assert (row, score) == (rows[np.argmax(scores)], scores.max())


def test_an_images_nearest_vectors(tmp_path: Path) -> None:
    segment = mapped(in_memory(HEADER), tmp_path)
    assert segment.lists is not None
    query = unit(np.random.default_rng(3), DIM)
    images = np.array([300, 120, 121, 122, 123])
    scores, rows = segment.lists.nearest(segment.asked(query), images, 3)
    for image, mine, best in zip(images.tolist(), rows, scores, strict=True):
        naive = segment.scores(query.astype(np.float64), rows_of(segment, image))
        expected = segment.offsets[image] + np.argsort(-naive)[:3]
        there = len(expected)
        assert mine[:there].tolist() == expected.tolist()
        assert best[:there] == pytest.approx(np.sort(naive)[::-1][:3], abs=1e-6)
        assert (mine[there:] == -1).all()
        assert (best[there:] == -np.inf).all()


def test_many_images_are_scored_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = mapped(in_memory(HEADER), tmp_path)
    query = unit(np.random.default_rng(3), DIM)
    expected = best_rows(segment, query, np.arange(segment.num_vectors))
    monkeypatch.setattr("forclip.index.scan._VECTORS_AT_ONCE", 100)
    found = score_images(segment, query, np.arange(len(segment)))
    by_image = dict(
        zip(found.images.tolist(), zip(found.rows.tolist(), found.scores.tolist(), strict=True), strict=True)
    )
    naive = zip(expected.rows.tolist(), expected.scores.tolist(), strict=True)
    assert by_image == dict(zip(expected.images.tolist(), naive, strict=True))


@pytest.mark.parametrize("kind", ["IVF32,SQ8", "PCA8,IVF32,SQ8", "L2norm,PCA8,IVF32,Flat", "IVF32,PQ8x4fs"])
def test_lists_shared_out_to_threads_give_what_faiss_gives(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, query = unit(np.random.default_rng(0), 4000, DIM), unit(np.random.default_rng(1), 1, DIM)
    index = faiss.index_factory(DIM, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.extract_index_ivf(index).nprobe = 12
    expected, rows = index.search(query, 20)
    monkeypatch.setattr("forclip.index.list_search.cores", lambda: 3)
    for vectors_a_thread in (1, 1 << 20):
        monkeypatch.setattr("forclip.index.list_search._VECTORS_A_THREAD", vectors_a_thread)
        scores, ids = search_lists(index, query, 20, 12)
        assert scores == pytest.approx(expected[0], abs=1e-6)
        sure = expected[0] > expected[0][-1] + 1e-6  # of those that tie with the last one others may be taken
        assert set(rows[0][sure].tolist()) <= set(ids.tolist())
        assert len(set(ids.tolist())) == 20


def test_an_index_of_another_version_is_built_anew(tmp_path: Path) -> None:
    segment = mapped(in_memory(HEADER), tmp_path)
    assert segment.folder is not None
    known = save_ann(build_ann(segment, "IVF4,SQ8", unit(np.random.default_rng(1), 5, DIM)), segment.folder)
    assert load_ann(segment, segment.folder, known) is not None
    older = {**known, "ann": {"kind": "IVF4,SQ8", "nprobe": 1, "fetch": 3, "recall": 1.0, "queries": 5}}
    assert load_ann(segment, segment.folder, older) is None
    (segment.folder / "ann-0.faiss").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="the index is damaged"):
        load_ann(segment, segment.folder, known)
