"""Segments: ids, owners of rows, exact scores of chosen images, and inverted lists searched by threads."""

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from forclip.index import segment as segment_module
from forclip.index.approximate_search import search_lists
from forclip.index.exact_search import score_images, score_owners, score_values
from forclip.index.optimize import build_index
from forclip.index.schema import StoreHeader
from forclip.index.segment import IdLookup, Segment, Texts, segment_in_memory
from forclip.index.segment_folder import SegmentFolder
from forclip.index.table import StoredVectors
from forclip.types import Floats, Ints
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


def as_block(segment: Segment) -> StoredVectors:
    codes = segment.header.encode(segment.decode(slice(0, segment.num_vectors)).astype(np.float32))
    return StoredVectors(segment.keys, codes, segment.offsets, segment.boxes, segment.images)


def mapped(segment: Segment, folder: Path) -> Segment:
    segments = SegmentFolder(folder, segment.header)
    return segments.open(segments.write([as_block(segment)])).segment


def rows_of(segment: Segment, image: int) -> Ints:
    return np.arange(segment.offsets[image], segment.offsets[image + 1])


def cosines(segment: Segment, query: Floats, rows: Ints) -> NDArray[np.float64]:
    return segment.scores(query[None].astype(np.float64), rows, np.zeros(len(rows), np.int64))


@pytest.mark.parametrize("header", [HEADER, INT8], ids=["fp16", "int8"])
def test_an_image_is_scored_by_its_best_vector_in_memory_and_mapped(header: StoreHeader, tmp_path: Path) -> None:
    """Seven equal vectors are more than are kept of an image; of equal ones the first counts."""
    segment = in_memory(header)
    query = unit(np.random.default_rng(3), DIM)
    images = np.array([399, 7, 250, 0, 99])
    for kept in (segment, mapped(segment, tmp_path)):
        assert (kept.lists is None) == (kept.folder is None)
        (found,) = score_images(kept, query[None], [images])
        assert sorted(found.images.tolist()) == sorted(images.tolist())
        for image, row, score in zip(found.images, found.rows, found.scores, strict=True):
            rows = rows_of(segment, int(image))
            scores = cosines(segment, query, rows)
            assert (row, score) == (rows[np.argmax(scores)], scores.max())


@pytest.mark.parametrize("change", ["cut short", "other bytes"])
def test_scores_are_exact_if_faiss_reads_other_lists(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a FAISS version of another file format."""
    segment, query = mapped(in_memory(HEADER), tmp_path), unit(np.random.default_rng(3), DIM)
    (expected,) = score_images(segment, query[None], [np.arange(400)])
    describe = segment_module._describe_lists

    def describe_otherwise(file: Path, code_size: int, count: int) -> NDArray[np.uint8]:
        described = describe(file, code_size, count)
        if change == "cut short":
            return described[:50]
        size = described[-8:].view("<u8") - np.uint64(code_size)  # of the file
        return np.concatenate([described[:-8], size.view(np.uint8)])

    monkeypatch.setattr(segment_module, "_describe_lists", describe_otherwise)
    other = mapped(in_memory(HEADER), tmp_path)
    assert other.lists is None
    (found,) = score_images(other, query[None], [np.arange(400)])
    order, expected_order = np.argsort(found.images), np.argsort(expected.images)
    assert found.rows[order].tolist() == expected.rows[expected_order].tolist()
    assert found.scores[order].tolist() == expected.scores[expected_order].tolist()


def test_an_images_nearest_vectors(tmp_path: Path) -> None:
    segment = mapped(in_memory(HEADER), tmp_path)
    assert segment.lists is not None
    query = unit(np.random.default_rng(3), DIM)
    images = np.array([300, 120, 121, 122, 123])
    scores, rows = segment.lists.nearest(np.tile(segment.scale_queries(query), (len(images), 1)), images, 3)
    for image, mine, best in zip(images.tolist(), rows, scores, strict=True):
        naive = cosines(segment, query, rows_of(segment, image))
        expected = segment.offsets[image] + np.argsort(-naive)[:3]
        there = len(expected)
        assert mine[:there].tolist() == expected.tolist()
        assert best[:there] == pytest.approx(np.sort(naive)[::-1][:3], abs=1e-6)
        assert (mine[there:] == -1).all()
        assert (best[there:] == -np.inf).all()


def test_many_images_are_scored_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = mapped(in_memory(HEADER), tmp_path)
    query = unit(np.random.default_rng(3), DIM)
    expected = score_owners(segment, query, np.arange(segment.num_vectors))
    monkeypatch.setattr("forclip.index.exact_search._BLOCK_VECTORS", 100)
    (found,) = score_images(segment, query[None], [np.arange(len(segment))])
    by_image = dict(
        zip(found.images.tolist(), zip(found.rows.tolist(), found.scores.tolist(), strict=True), strict=True)
    )
    naive = zip(expected.rows.tolist(), expected.scores.tolist(), strict=True)
    assert by_image == dict(zip(expected.images.tolist(), naive, strict=True))


@pytest.mark.parametrize("header", [HEADER, INT8], ids=["fp16", "int8"])
def test_images_of_many_queries_are_scored_as_of_each_alone(
    header: StoreHeader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each query has images of its own, and one has none; blocks end amidst them."""
    segment = in_memory(header)
    rng = np.random.default_rng(3)
    queries = unit(rng, 5, DIM)
    images = [rng.permutation(400)[:count] for count in (30, 0, 400, 1, 200)]
    for kept in (segment, mapped(segment, tmp_path)):
        alone = [score_images(kept, query[None], [those])[0] for query, those in zip(queries, images, strict=True)]
        for at_once in (1 << 15, 100):
            monkeypatch.setattr("forclip.index.exact_search._BLOCK_VECTORS", at_once)
            for found, expected in zip(score_images(kept, queries, images), alone, strict=True):
                order, expected_order = np.argsort(found.images), np.argsort(expected.images)
                for column in ("images", "rows", "scores"):
                    mine, naive = getattr(found, column)[order], getattr(expected, column)[expected_order]
                    assert mine.tolist() == naive.tolist()
        scores = score_values(kept, queries, images[0])
        for query, mine in zip(queries, scores, strict=True):
            naive = score_images(kept, query[None], [images[0]])[0].scores
            np.testing.assert_allclose(np.sort(mine), np.sort(naive), atol=1e-6)


@pytest.mark.parametrize("counts", [[4] * 50, [1, 90, 2, 1, 1, 40], [3, 4, 3, 4, 3, 5], [7]])
def test_a_vectors_image_is_found_however_many_vectors_images_have(counts: list[int]) -> None:
    offsets = np.concatenate([[0], np.cumsum(counts)])
    codes = HEADER.encode(unit(np.random.default_rng(0), int(offsets[-1]), DIM))
    ids = [str(k) for k in range(len(counts))]
    boxes, images = np.zeros((len(codes), 4), np.float16), pa.table({"id": ids, "uri": ids})
    segment = segment_in_memory(HEADER, [StoredVectors(np.arange(len(counts)), codes, offsets, boxes, images)])
    expected = np.repeat(np.arange(len(counts)), counts)
    assert segment.owners(np.arange(len(codes))).tolist() == expected.tolist()
    assert segment.owners(np.arange(len(codes))[::-3]).tolist() == expected[::-3].tolist()
    assert segment.owners(np.empty(0, np.int64)).tolist() == []


@pytest.mark.parametrize("kind", ["IVF32,SQ8", "PCA8,IVF32,SQ8", "L2norm,PCA8,IVF32,Flat", "IVF32,PQ8x4fs"])
def test_lists_shared_out_to_threads_give_what_faiss_gives(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = unit(np.random.default_rng(0), 4000, DIM), unit(np.random.default_rng(1), 7, DIM)
    index = faiss.index_factory(DIM, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.extract_index_ivf(index).nprobe = 12
    expected, rows = index.search(queries, 20)
    monkeypatch.setattr("forclip.index.approximate_search.cores", lambda: 3)
    for vectors_a_thread in (1, 1 << 20):
        monkeypatch.setattr("forclip.index.approximate_search._VECTORS_PER_THREAD", vectors_a_thread)
        for asked in ([0], [3], [0, 1, 2, 3, 4, 5, 6]):
            found = search_lists(index, queries[asked], 20, 12)
            for place, ids in zip(asked, found, strict=True):
                scores = expected[place]
                sure = scores > scores[-1] + 1e-6  # of those that tie with the last one others may be taken
                assert set(rows[place][sure].tolist()) <= set(ids.tolist())
                assert len(set(ids.tolist())) == 20
                # Best first: of those that are no ties the order is FAISS' own.
                known = dict(zip(rows[place].tolist(), scores.tolist(), strict=True))
                in_order = [known[row] for row in ids.tolist() if row in known]
                assert in_order == sorted(in_order, reverse=True)


def test_an_index_of_another_version_is_ignored_and_a_damaged_one_refused(tmp_path: Path) -> None:
    segments = SegmentFolder(tmp_path, HEADER)
    name = segments.write([as_block(in_memory(HEADER))])
    stored = segments.open(name)
    segments.write_index(stored, build_index(stored.segment, "IVF4,SQ8", unit(np.random.default_rng(1), 5, DIM)))
    assert segments.open(name).index is not None
    details = tmp_path / "search" / name / "segment.json"
    written = details.read_text()
    details.write_text(written.replace('"compared"', '"fetch"'))
    assert segments.open(name).index is None
    details.write_text(written)
    index_file = details.with_name("ann-0.faiss")
    index_file.write_bytes(b"nothing".ljust(index_file.stat().st_size))
    with pytest.raises(ValueError, match=name):
        segments.open(name)


def texts(ids: list[str]) -> Texts:
    """Texts in chunks of five."""
    chunks = [pa.array(ids[start : start + 5], pa.string()) for start in range(0, len(ids), 5)]
    return Texts(pa.chunked_array(chunks, pa.string()))


def test_ids_are_found_where_a_loop_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_module, "_IDS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    ids = [f"image {n}" for n in rng.integers(0, 40, 60)]
    places = IdLookup(texts(ids))
    for wanted in (["image 3"], [f"image {n}" for n in range(30, 60)], [], ["", "nothing"], ["image 5", "image 5"]):
        assert places.find(wanted).tolist() == [n for n, i in enumerate(ids) if i in wanted]
    assert IdLookup(texts([])).find(["a"]).tolist() == []


def test_another_id_with_the_same_hash_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_module, "hash_ids", lambda ids: np.array([len(i) for i in ids], np.int64))
    places = IdLookup(texts(["aa", "b", "cc", "aa"]))
    assert places.find(["aa"]).tolist() == [0, 3]
    assert places.find(["dd"]).tolist() == []
