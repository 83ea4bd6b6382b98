"""What every way of keeping and searching a store must do, whatever lies on disk or in memory: one suite for all."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from forclip.index.image_index import Index
from forclip.index.schema import StoreHeader
from forclip.types import ImageEmbeddings, SearchResult
from tests.index.made import DIM, HEADER, by_image, files, names, oracle, some, unit, write_all_segments

# How a store may be kept when it is searched: just written; with a segment on disk; with one that covers half of it;
# with an index that leaves nothing out.
Keep = Callable[[Index, ImageEmbeddings], None]
INT8 = StoreHeader("abc", DIM, {"name": "some model"}, "int8", 0.9)


def _fresh(index: Index, embeddings: ImageEmbeddings) -> None:
    index.add(embeddings, files(embeddings.image_ids))


def _mapped(index: Index, embeddings: ImageEmbeddings) -> None:
    _fresh(index, embeddings)
    index.optimize(kind="none")
    write_all_segments(index)


def _mixed(index: Index, embeddings: ImageEmbeddings) -> None:
    half = len(embeddings) // 2
    cut = int(embeddings.offsets[half])
    assert embeddings.boxes is not None
    first = ImageEmbeddings(
        embeddings.vectors[:cut], embeddings.offsets[: half + 1], embeddings.image_ids[:half], embeddings.boxes[:cut]
    )
    second = ImageEmbeddings(
        embeddings.vectors[cut:], embeddings.offsets[half:] - cut, embeddings.image_ids[half:], embeddings.boxes[cut:]
    )
    _fresh(index, first)
    write_all_segments(index)
    _fresh(index, second)


def _indexed(index: Index, embeddings: ImageEmbeddings) -> None:
    _fresh(index, embeddings)
    index.optimize(kind="Flat")


WAYS: dict[str, tuple[StoreHeader, Keep]] = {
    "fresh": (HEADER, _fresh),
    "mapped": (HEADER, _mapped),
    "mixed": (HEADER, _mixed),
    "searched by index": (HEADER, _indexed),
    "int8": (INT8, _fresh),
    "int8 mapped": (INT8, _mapped),
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> tuple[StoreHeader, Keep]:
    return WAYS[request.param]


def found(results: list[SearchResult]) -> list[tuple[str, float]]:
    return [(r.image_id, r.score) for r in results]


def assert_same(results: list[SearchResult], expected: list[tuple[str, float]]) -> None:
    assert [r.image_id for r in results] == [i for i, _ in expected]
    assert [r.score for r in results] == pytest.approx([s for _, s in expected], abs=1e-9)
    assert [r.rank for r in results] == list(range(1, len(expected) + 1))


def test_a_search_among_some_images(way: tuple[StoreHeader, Keep], tmp_path: Path) -> None:
    header, keep = way
    embeddings = some(names(300))
    index = Index.create(tmp_path / "s", header)
    keep(index, embeddings)
    query = unit(np.random.default_rng(5), DIM)
    few = [f"image {k:05d}" for k in (250, 3, 77, 150)]
    kept = by_image(embeddings, header)
    assert_same(index.search_among([*few, "unknown"], query), oracle({i: kept[i] for i in few}, query, 4))
    assert index.search_among([], query) == []
    assert_same(index.search_among(few, query, 2), oracle({i: kept[i] for i in few}, query, 2))
    filtered = index.search_among(few, query, where=f"id != '{few[0]}'")
    assert_same(filtered, oracle({i: kept[i] for i in few[1:]}, query, 4))
    index.delete_ids(few[:1])
    assert {r.image_id for r in index.search_among(few, query)} == set(few[1:])


@pytest.mark.parametrize("k", [1, 7, 50, 300, 1000])
def test_equals_the_oracle(way: tuple[StoreHeader, Keep], k: int, tmp_path: Path) -> None:
    header, keep = way
    embeddings = some(names(300))
    index = Index.create(tmp_path / "s", header)
    keep(index, embeddings)
    kept = by_image(embeddings, header)
    for query in unit(np.random.default_rng(5), 6, DIM):
        assert_same(index.search(query, k), oracle(kept, query, k))
        assert_same(index.search(query, k, exact=True), oracle(kept, query, k))
        assert_same(Index(tmp_path / "s").search(query, k), oracle(kept, query, k))


def test_the_place_is_the_winning_vectors(way: tuple[StoreHeader, Keep], tmp_path: Path) -> None:
    header, keep = way
    embeddings = some(names(40))
    index = Index.create(tmp_path / "s", header)
    keep(index, embeddings)
    assert embeddings.boxes is not None
    for row in (0, 17, 63):
        (best,) = index.search(embeddings.vectors[row], 1)
        owner = int(np.searchsorted(embeddings.offsets, row, "right")) - 1
        assert best.image_id == embeddings.image_ids[owner]
        assert best.uri == f"/pictures/{best.image_id}"
        assert best.box == pytest.approx(embeddings.boxes[row], abs=1e-3)


def test_filters(way: tuple[StoreHeader, Keep], tmp_path: Path) -> None:
    header, keep = way
    embeddings = some(names(300))
    index = Index.create(tmp_path / "s", header)
    keep(index, embeddings)
    cameras = ["front" if k % 30 == 0 else "back" for k in range(300)]
    index.store.annotate(embeddings.image_ids, {"camera": cameras, "speed": [float(k) for k in range(300)]})
    kept = by_image(embeddings, header)
    query = unit(np.random.default_rng(5), DIM)
    filters: dict[str, Callable[[int], bool]] = {
        "camera = 'front'": lambda k: cameras[k] == "front",
        "camera = 'back'": lambda k: cameras[k] == "back",
        "speed > 100 and speed < 104": lambda k: 100 < k < 104,
        "speed > 9999": lambda k: False,
        "id = 'image 00007' or width < 0": lambda k: k == 7,
    }
    for where, wanted in filters.items():
        allowed = {i: v for k, (i, v) in enumerate(kept.items()) if wanted(k)}
        for k in (3, 50):
            assert_same(index.search(query, k, where), oracle(allowed, query, k))
    with pytest.raises(ValueError, match=r"can't select images by 'camra = 3': .*camra"):
        index.search(query, where="camra = 3")
    with pytest.raises(ValueError, match=r"can't select images by 'speed = = 3'"):
        index.search(query, where="speed = = 3")


def test_deleted_and_renewed_images(way: tuple[StoreHeader, Keep], tmp_path: Path) -> None:
    header, keep = way
    embeddings = some(names(120))
    index = Index.create(tmp_path / "s", header)
    keep(index, embeddings)
    kept = by_image(embeddings, header)
    query = unit(np.random.default_rng(5), DIM)
    gone = [r.image_id for r in index.search(query, 5)]
    assert index.delete_ids([*gone, "never there", "it's"]) == 5
    renewed = some([r.image_id for r in index.search(query, 3)] + ["new"], seed=9)
    index.put(renewed, files(renewed.image_ids))
    for i in gone:
        del kept[i]
    kept |= by_image(renewed, header)
    for k in (2, 10, 200):
        assert_same(index.search(query, k), oracle(kept, query, k))
    assert index.delete("id < 'image 00100'") == sum(i < "image 00100" for i in kept)
    kept = {i: v for i, v in kept.items() if i >= "image 00100"}
    assert_same(index.search(query, 50), oracle(kept, query, 50))
    # An id that comes back is another image.
    again = some(gone[:1], seed=31)
    index.add(again, files(gone[:1]))
    kept |= by_image(again, header)
    assert_same(index.search(query, 50), oracle(kept, query, 50))
    index.compact()
    assert_same(index.search(query, 50), oracle(kept, query, 50))
    assert index.verify() == []


def test_ties_go_by_id_wherever_the_images_are(way: tuple[StoreHeader, Keep], tmp_path: Path) -> None:
    header, keep = way
    ids = [f"{k * 7919 % 100:02d}" for k in range(100)]
    same = ImageEmbeddings(
        np.tile(unit(np.random.default_rng(0), DIM), (100, 1)),
        np.arange(101),
        tuple(ids),
        np.zeros((100, 4), np.float32),
    )
    index = Index.create(tmp_path / "s", header)
    keep(index, same)
    assert [r.image_id for r in index.search(same.vectors[0], 10)] == sorted(ids)[:10]


def test_duplicates_of_a_picture_are_all_found(way: tuple[StoreHeader, Keep], tmp_path: Path) -> None:
    """One image's many near vectors must not crowd the others out: the fetch widens."""
    header, keep = way
    rng = np.random.default_rng(2)
    query = unit(rng, DIM)
    close = query + 0.01 * unit(rng, 4000, DIM)
    far = unit(rng, 199, DIM)
    vectors = np.concatenate([close / np.linalg.norm(close, axis=1, keepdims=True), far])
    offsets = np.concatenate([[0], 4000 + np.arange(200)])
    crowded = ImageEmbeddings(vectors, offsets, tuple(names(200)), np.zeros((len(vectors), 4), np.float32))
    index = Index.create(tmp_path / "s", header)
    keep(index, crowded)
    assert_same(index.search(query, 20), oracle(by_image(crowded, header), query, 20))


def test_an_empty_store_finds_nothing(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    query = unit(np.random.default_rng(0), DIM)
    assert index.search(query) == []
    assert index.search(query, where="width > 3") == []
    assert len(index) == 0
    assert index.verify() == []
    index.optimize()
    index.add(some(["a"]), files(["a"]))
    index.delete_ids(["a"])
    assert index.search(query) == []


def test_strange_ids(way: tuple[StoreHeader, Keep], tmp_path: Path) -> None:
    header, keep = way
    ids = ["straße 雪 🚲", "x" * 20_000, 'it\'s "quoted"; --', "", " ", "a\nb\tc", "..\\..\\%2e", "NULL"]
    embeddings = some(ids)
    index = Index.create(tmp_path / "s", header)
    keep(index, embeddings)
    query = unit(np.random.default_rng(5), DIM)
    assert_same(index.search(query), oracle(by_image(embeddings, header), query, 50))
    assert index.delete_ids(ids[:4]) == 4
    assert {r.image_id for r in index.search(query)} == set(ids[4:])


def test_wrong_questions_and_wrong_images_are_refused(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    index.add(some(["a"]), files(["a"]))
    query = unit(np.random.default_rng(0), DIM)
    with pytest.raises(ValueError, match=r"shape \(5,\).* 16 dimensions"):
        index.search(np.ones(5, np.float32))
    with pytest.raises(ValueError, match="length 2, not 1"):
        index.search(2 * query)
    with pytest.raises(ValueError, match="length nan"):
        index.search(np.full(DIM, np.nan, np.float32))
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        index.search(query, 0)
    with pytest.raises(ValueError, match="image 'a'"):
        index.add(some(["b", "a"]), files(["b", "a"]))
    with pytest.raises(ValueError, match="16 dimensions, not 8"):
        index.put(some(["c"], dim=8), files(["c"]))
    for bad in (np.zeros((1, DIM), np.float32), np.full((1, DIM), np.nan, np.float32)):
        with pytest.raises(ValueError, match="image 'z' has length"):
            index.add(ImageEmbeddings(bad, np.array([0, 1]), ("z",)), files(["z"]))
    with pytest.raises(ValueError, match=r"another model \('some model'"):
        Index.create(tmp_path / "s", StoreHeader("other", DIM, {}))
    with pytest.raises(ValueError, match="FAISS can't build 'nonsense'"):
        index.optimize(kind="nonsense")
    assert [r.image_id for r in index.search(query)] == ["a"]


@pytest.mark.parametrize("k", [5, 40, 1000])
def test_many_queries_are_answered_as_one_by_one(way: tuple[StoreHeader, Keep], k: int, tmp_path: Path) -> None:
    """To the last bit, near or far from each other, filtered or not."""
    header, keep = way
    index = Index.create(tmp_path / "s", header)
    keep(index, some(names(300)))
    rng = np.random.default_rng(1)
    near = unit(rng, DIM) + 0.1 * unit(rng, 3, DIM)
    queries = np.concatenate([unit(rng, 6, DIM), near / np.linalg.norm(near, axis=1, keepdims=True)])
    for where in (None, "id > 'image 00100'", "id < 'image 00010'", "id = 'nobody'"):
        assert index.search_many(queries, k, where) == [index.search(query, k, where) for query in queries]
    alone = [np.sort(index.scores(query)) for query in queries]
    np.testing.assert_allclose([np.sort(s) for s in index.scores_many(queries)], alone, atol=1e-6)
    assert index.search_many(queries[:0], k) == []
    with pytest.raises(ValueError, match="a query has length 2, not 1"):
        index.search_many(np.concatenate([queries, 2 * queries[:1]]), k)


def test_an_older_version_can_be_searched_on(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    _mixed(index, some(names(80)))
    query, before = unit(np.random.default_rng(1), 1, DIM), index.view()
    expected = list(index.rankings(query, 10, view=before)[0])
    index.delete_ids([r.image_id for r in expected])
    assert list(index.rankings(query, 10, view=before)[0]) == expected
    assert (index.count(view=before), index.count()) == (80, 70)
    assert index.count("id > 'image 00070'", before) == 9
    assert not {r.image_id for r in index.rankings(query, 10)[0]} & {r.image_id for r in expected}
    with pytest.raises(ValueError, match="camra"):
        index.count("camra = 3")


def test_the_spread_of_scores(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    embeddings = some(names(400))
    _mixed(index, embeddings)
    query = unit(np.random.default_rng(1), DIM)
    scores = np.sort(index.scores(query))
    expected = np.sort([s for _, s in oracle(by_image(embeddings), query, 400)])
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    sample = index.scores(query, sample=100)
    assert 60 < len(sample) < 140
    assert set(sample.tolist()) <= set(scores.tolist())


def test_a_sample_is_of_the_same_images_until_the_store_changes(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    embeddings = some(names(300))
    _mapped(index, embeddings)
    kept = by_image(embeddings)
    first, second = unit(np.random.default_rng(1), 2, DIM)
    # The scores for one query identify the images; another query's scores must be of the same images.
    of_first = dict(oracle(kept, first, 300))
    drawn = {nearest_of(of_first, score) for score in index.scores(first, sample=60)}
    expected = np.sort([score for image_id, score in oracle(kept, second, 300) if image_id in drawn])
    np.testing.assert_allclose(np.sort(index.scores(second, sample=60)), expected, atol=1e-6)
    index.delete_ids([min(drawn)])
    assert min(drawn) not in {nearest_of(of_first, score) for score in index.scores(first, sample=60)}
    index.delete("id IS NOT NULL")
    assert len(index.scores(first, sample=60)) == 0


def nearest_of(scores: dict[str, float], score: float) -> str:
    """The image with this score."""
    return min(scores, key=lambda image_id: abs(scores[image_id] - score))


def test_deleting_is_as_if_never_added(tmp_path: Path) -> None:
    embeddings, others = some(names(90)), some(names(40, "other"), seed=4)
    with_both, with_one = Index.create(tmp_path / "both", HEADER), Index.create(tmp_path / "one", HEADER)
    _mixed(with_both, embeddings)
    with_both.add(others, files(others.image_ids))
    write_all_segments(with_both)
    with_both.delete("id LIKE 'other%'")
    _fresh(with_one, embeddings)
    for query in unit(np.random.default_rng(3), 5, DIM):
        assert with_both.search(query, 70) == with_one.search(query, 70)
    with_both.compact()
    for query in unit(np.random.default_rng(3), 5, DIM):
        assert with_both.search(query, 70) == with_one.search(query, 70)


def test_a_damaged_segment_is_done_without(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    embeddings = some(names(60))
    _mapped(index, embeddings)
    query = unit(np.random.default_rng(3), DIM)
    expected = oracle(by_image(embeddings), query, 10)
    for file in sorted((tmp_path / "s" / "search").glob("*/*")):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        assert_same(Index(tmp_path / "s").search(query, 10), expected)
        file.write_bytes(whole)
    (segment,) = (tmp_path / "s" / "search").glob("*/vectors.faiss")
    content = bytearray(segment.read_bytes())
    content[-5] ^= 8  # one bit of one vector: the size is right
    segment.write_bytes(content)
    (problem,) = Index(tmp_path / "s").verify()
    assert "differs from the store's" in problem


def test_info_describes_the_store(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    embeddings = some(names(60))
    _indexed(index, embeddings)
    index.add(some(["one more"], seed=3), files(["one more"]), {"camera": ["front"]})
    info = index.info()
    assert (info["images"], info["columns"], info["precision"]) == (61, ["camera"], "fp16")
    on_disk, in_memory = info["parts"]
    assert (on_disk["images"], on_disk["index"], on_disk["place"]) == (60, "Flat", "mapped")
    assert on_disk["recall"] == 1
    assert (in_memory["images"], in_memory["index"], in_memory["place"]) == (1, "none", "memory")
    assert info["table_bytes"] > 0
    assert info["search_bytes"] > 0
