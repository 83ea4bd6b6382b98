"""What every index must do, wherever its images are: a store's own, exact and approximate, and Milvus over gRPC."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from forclip.index.column_summary import summarise_columns
from forclip.index.image_index import Index
from forclip.index.milvus.create import PublishOptions
from forclip.index.milvus.index import MilvusIndex
from forclip.index.milvus.publish import publish
from forclip.index.protocol import SearchIndex
from forclip.types import Floats, ImageEmbeddings
from tests.index.made import DIM, HEADER, by_image, files, names, oracle, some, unit
from tests.milvus_server import new_name

COUNT = 240
FRONT = "camera = 'front' AND frame < 200"
WAYS = ("exact", "approximate", "milvus FLAT", "milvus HNSW")
QUERIES = unit(np.random.default_rng(5), 6, DIM)


@dataclass
class Kept:
    """A store, and the index that searches its images. kept: vectors by image; sync: makes changes reach the index."""

    local: Index
    searched: SearchIndex
    sync: Callable[[], None]
    kept: dict[str, np.ndarray] = field(default_factory=dict)


def metadata(ids: tuple[str, ...]) -> dict[str, list[object]]:
    rows = range(len(ids))
    return {"camera": [("front", "back", None)[n % 3] for n in rows], "frame": list(rows)}


def make(way: str, folder: Path, server: str, embeddings: ImageEmbeddings) -> Kept:
    local = Index.create(folder / "store", HEADER)
    if len(embeddings):
        local.add(embeddings, files(embeddings.image_ids), metadata(embeddings.image_ids))
    if not way.startswith("milvus"):

        def optimize() -> None:
            if way == "approximate" and len(local):
                local.optimize(kind="Flat")

        optimize()
        return Kept(local, local, optimize, by_image(embeddings))
    place, options = f"{server}/{new_name()}", PublishOptions(index=way.split()[1])
    publish(local.store, place, options, lambda merge, most: None)
    searched = MilvusIndex(place)

    def send() -> None:
        publish(local.store, place, PublishOptions(), lambda merge, most: None)
        searched.refresh()

    return Kept(local, searched, send, by_image(embeddings))


@pytest.fixture(scope="module", params=WAYS)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, milvus_server: str) -> Kept:
    """A store of 240 images that no test changes."""
    return make(request.param, tmp_path_factory.mktemp("kept"), milvus_server, some(names(COUNT)))


@pytest.fixture(params=WAYS)
def small(request: pytest.FixtureRequest, tmp_path: Path, milvus_server: str) -> Kept:
    """A store of 30 images that a test may change."""
    return make(request.param, tmp_path, milvus_server, some(names(30)))


def test_means_of_all_images_or_of_a_sample(kept: Kept) -> None:
    keys, means = kept.searched.mean_vectors(10 * COUNT)
    ids = {key: image_id for image_id, key in kept.searched.keys_of_ids(list(kept.kept)).items()}
    assert sorted(keys.tolist()) == sorted(ids)
    for key, mean in zip(keys.tolist(), means, strict=True):
        vectors = kept.kept[ids[key]]
        expected = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(0)
        assert mean == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)
    some_keys, some_means = kept.searched.mean_vectors(COUNT // 4)
    assert 0 < len(some_keys) == len(some_means) < COUNT // 2
    assert set(some_keys.tolist()) < set(keys.tolist())


def assert_best(kept: Kept, query: Floats, k: int = 20) -> None:
    expected = oracle(kept.kept, query, k)
    results = kept.searched.search(query, k)
    assert [(r.rank, r.image_id) for r in results] == [(n, i) for n, (i, _) in enumerate(expected, start=1)]
    assert [r.score for r in results] == pytest.approx([score for _, score in expected], abs=1e-9)


def test_a_search_gives_what_a_loop_gives(kept: Kept) -> None:
    for query in QUERIES:
        assert_best(kept, query)
    assert_best(kept, QUERIES[0], COUNT + 10)


def test_results_are_those_of_the_store(kept: Kept) -> None:
    """Ids, locations, scores, boxes and ranks are equal, and the key names the same image."""
    expected = kept.local.search_many(QUERIES, 15, exact=True)
    for ours, theirs in zip(kept.searched.search_many(QUERIES, 15), expected, strict=True):
        assert ours == theirs
        assert [r.key for r in ours] == [r.key for r in theirs]
    exactly = kept.searched.search(QUERIES[0], 15, exact=True)
    assert exactly == kept.local.search(QUERIES[0], 15, exact=True)


def test_a_filter_limits_a_search(kept: Kept) -> None:
    chosen = {i: v for n, (i, v) in enumerate(kept.kept.items()) if n % 3 == 0 and n < 200}
    results = kept.searched.search(QUERIES[1], 100, FRONT)
    assert [r.image_id for r in results] == [i for i, _ in oracle(chosen, QUERIES[1], 100)]
    assert kept.searched.count(FRONT) == len(chosen) == 67
    assert kept.searched.search(QUERIES[1], 5, "camera = 'nowhere'") == []
    assert kept.searched.count("camera IS NULL") == COUNT // 3
    with pytest.raises(ValueError, match="colour"):
        kept.searched.search(QUERIES[1], 5, "colour = 'red'")


def test_columns_are_read_in_blocks_for_filters(kept: Kept) -> None:
    found = {column.name: column for column in summarise_columns(kept.searched.column_blocks()).columns}
    assert list(found)[:2] == ["camera", "frame"]
    assert (found["camera"].counts, found["camera"].missing) == ({"front": 80, "back": 80}, 80)
    assert (found["frame"].lowest, found["frame"].highest) == (0, COUNT - 1)
    assert {"width", "height", "size", "added"} <= set(found)


def test_search_among_some_images(kept: Kept) -> None:
    ids = [*names(COUNT)[10:40], "unknown"]
    expected = oracle({i: kept.kept[i] for i in ids[:-1]}, QUERIES[2], 12)
    assert [r.image_id for r in kept.searched.search_among(ids, QUERIES[2], 12)] == [i for i, _ in expected]
    assert len(kept.searched.search_among(ids, QUERIES[2])) == 30
    assert kept.searched.search_among(ids, QUERIES[2], where=FRONT) == kept.local.search_among(
        ids, QUERIES[2], where=FRONT
    )
    assert kept.searched.search_among([], QUERIES[2]) == []


def test_search_for_all_vectors_of_a_picture(kept: Kept) -> None:
    results = kept.searched.search_picture(QUERIES[:3], 10)
    mean = {
        i: np.mean([max(float(v @ q.astype(np.float64)) for v in own) for q in QUERIES[:3]])
        for i, own in kept.kept.items()
    }
    assert results[0].image_id == max(mean, key=lambda i: mean[i])
    assert [r.score for r in results] == pytest.approx([mean[r.image_id] for r in results], abs=1e-9)
    assert kept.searched.search_picture(QUERIES[:3], 10, exact=True) == kept.local.search_picture(
        QUERIES[:3], 10, exact=True
    )


def test_vectors_of_images(kept: Kept) -> None:
    ids = names(COUNT)[:7]
    keys = kept.searched.keys_of_ids([*ids, "unknown"])
    assert keys == kept.local.keys_of_ids(ids)
    for image_id, key in keys.items():
        ours, theirs = kept.searched.vectors_of(key), kept.local.vectors_of(key)
        assert ours is not None
        assert theirs is not None
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert np.array_equal(ours[0], kept.kept[image_id].astype(np.float32))
    assert kept.searched.vectors_of(12345) is None
    ours_by_id, theirs_by_id = kept.searched.image_vectors(ids), kept.local.image_vectors(ids)
    assert set(ours_by_id) == set(ids)
    assert all(np.array_equal(ours_by_id[i], theirs_by_id[i]) for i in ids)
    best, expected = kept.searched.best_vectors(ids, QUERIES[0]), kept.local.best_vectors(ids, QUERIES[0])
    assert all(np.array_equal(best[i], expected[i]) for i in ids)
    blocks = list(kept.searched.read_images(ids))
    assert sorted(i for block in blocks for i in block.images["id"].to_pylist()) == ids


def test_scores_of_all_images_and_of_a_sample(kept: Kept) -> None:
    everything = np.sort(kept.searched.scores(QUERIES[0]))
    assert everything == pytest.approx(np.sort(kept.local.scores(QUERIES[0])), abs=1e-5)
    sample = kept.searched.scores_many(QUERIES[:2], 100, where="frame >= 40")
    assert 60 < len(sample[0]) == len(sample[1]) < 140
    assert np.array_equal(sample[0], kept.searched.scores(QUERIES[0], 100, "frame >= 40"))
    assert set(np.round(sample[0], 4)) <= set(np.round(everything, 4))


def test_rows_and_files_of_images(kept: Kept) -> None:
    ids = names(COUNT)[3:6]
    assert kept.searched.store.files(ids) == kept.local.store.files(ids)
    assert kept.searched.store.known_ids([*ids, "unknown"]) == set(ids)
    assert kept.searched.store.user_columns == ["camera", "frame"]
    assert kept.searched.store.column_types == {"camera": "string", "frame": "int64"}
    keys = [*kept.local.keys_of_ids(ids).values()]
    ours, theirs = kept.searched.row_reader().read([*keys, 7]), kept.local.row_reader().read(keys)
    assert {key: {n: row[n] for n in theirs[key] if n != "number"} for key, row in ours.items()} == theirs


def test_bad_requests_are_refused(kept: Kept) -> None:
    for query, k in ((QUERIES[0], 0), (QUERIES[0] * 2, 5), (QUERIES[0][:4], 5)):
        with pytest.raises(ValueError, match=r"k must|length|shape"):
            kept.searched.search(query, k)


def test_ties_are_ordered_by_id(tmp_path: Path, milvus_server: str) -> None:
    """Forty images of one vector, some better and worse ones: the list ends in the middle of the equal ones."""
    base = unit(np.random.default_rng(0), DIM)
    others = unit(np.random.default_rng(1), 20, DIM)
    vectors = np.concatenate([np.tile(base, (40, 1)), others])
    ids = tuple(np.random.default_rng(2).permutation(names(60)).tolist())
    embeddings = ImageEmbeddings(vectors, np.arange(61), ids)
    for way in ("exact", "milvus FLAT"):
        kept = make(way, tmp_path / way, milvus_server, embeddings)
        assert_best(kept, base, 25)


def test_deletes_replacements_and_additions_reach_the_index(small: Kept) -> None:
    first, second = names(30)[:5], names(30)[5:12]
    small.local.delete_ids(first)
    changed = some(second, seed=7)
    small.local.put(changed, files(second))
    added = some(names(8, "new"), seed=9)
    small.local.add(added, files(added.image_ids))
    small.local.store.annotate(names(30)[20:22], {"camera": ["roof", "roof"]})
    small.sync()
    small.kept = {i: v for i, v in small.kept.items() if i not in first} | by_image(changed) | by_image(added)
    assert len(small.searched) == len(small.kept) == 33
    for query in QUERIES:
        assert_best(small, query, 40)
    assert small.searched.keys_of_ids(second) == small.local.keys_of_ids(second)
    assert {r.image_id for r in small.searched.search(QUERIES[0], 9, "camera = 'roof'")} == set(names(30)[20:22])


@pytest.fixture(params=WAYS)
def empty(request: pytest.FixtureRequest, tmp_path: Path, milvus_server: str) -> Kept:
    none = ImageEmbeddings(np.empty((0, DIM), np.float32), np.zeros(1, np.int64), ())
    return make(request.param, tmp_path, milvus_server, none)


def test_an_empty_store_is_searched(empty: Kept) -> None:
    assert len(empty.searched) == empty.searched.count("width > 3") == 0
    assert empty.searched.search(QUERIES[0]) == []
    assert empty.searched.search_picture(QUERIES[:2]) == []
    assert len(empty.searched.scores(QUERIES[0], 10)) == 0
    assert empty.searched.info()["images"] == 0
    later = some(names(3))
    empty.local.add(later, files(later.image_ids))
    empty.sync()
    empty.kept = by_image(later)
    assert_best(empty, QUERIES[0])
