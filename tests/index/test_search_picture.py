"""Search by all vectors of a picture, compared with a naive loop."""

from pathlib import Path

import numpy as np
import pytest

from forclip.index import picture_search
from forclip.index.exact_search import ScoredImages
from forclip.index.image_index import Index
from forclip.index.segment import Segment
from forclip.types import Floats, Ints
from tests.index.made import DIM, HEADER, by_image, files, names, some, unit


def naive(kept: dict[str, np.ndarray], queries: Floats, k: int) -> list[tuple[str, float]]:
    scores = {i: float(np.mean([max(v @ q.astype(np.float64) for v in vs) for q in queries])) for i, vs in kept.items()}
    return sorted(scores.items(), key=lambda s: (-round(s[1], 12), s[0]))[:k]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, dict[str, np.ndarray]]:
    """300 images in a segment, 40 more in memory; one of the segment's is deleted."""
    index = Index.create(tmp_path_factory.mktemp("pictures") / "s", HEADER)
    first, later = some(names(300), most=6), some(names(40, "later"), seed=1)
    index.add(first, files(first.image_ids), {"odd": [k % 2 for k in range(300)]})
    index.optimize(kind="Flat")
    index.add(later, files(later.image_ids))
    index.delete_ids(["image 00007"])
    kept = {**by_image(first), **by_image(later)}
    del kept["image 00007"]
    return index, kept


@pytest.mark.parametrize("k", [1, 20, 1000])
def test_exact_search_equals_a_loop(made: tuple[Index, dict[str, np.ndarray]], k: int) -> None:
    index, kept = made
    queries = unit(np.random.default_rng(4), 5, DIM)
    found = index.search_picture(queries, k, exact=True)
    expected = naive(kept, queries, k)
    assert [r.image_id for r in found] == [i for i, _ in expected]
    assert [r.score for r in found] == pytest.approx([s for _, s in expected])
    assert [r.rank for r in found] == list(range(1, len(found) + 1))


def test_images_near_one_vector_are_scored_by_all(made: tuple[Index, dict[str, np.ndarray]]) -> None:
    index, kept = made
    queries = kept["image 00011"].astype(np.float32)
    (first, *_) = index.search_picture(queries, 3)
    assert first.image_id == "image 00011"
    assert first.score == pytest.approx(1, abs=2e-3)
    exact = {r.image_id: r.score for r in index.search_picture(queries, 1000, exact=True)}
    assert all(exact[r.image_id] == pytest.approx(r.score) for r in index.search_picture(queries, 30))


def test_the_box_is_of_the_vector_nearest_to_any_query(made: tuple[Index, dict[str, np.ndarray]]) -> None:
    index, kept = made
    wanted = next(i for i, vectors in kept.items() if len(vectors) >= 3 and i < "image 00300")
    alone = index.search(kept[wanted][2].astype(np.float32), 1)[0]
    queries = np.stack([unit(np.random.default_rng(5), DIM), kept[wanted][2].astype(np.float32)])
    together = {r.image_id: r for r in index.search_picture(queries, 1000, exact=True)}
    assert alone.image_id == wanted
    assert together[wanted].box == alone.box


def test_filters_apply(made: tuple[Index, dict[str, np.ndarray]]) -> None:
    index, kept = made
    queries = unit(np.random.default_rng(4), 3, DIM)
    odd = {i: v for i, v in kept.items() if i.startswith("image") and int(i[-5:]) % 2}
    for exact in (True, False):
        found = index.search_picture(queries, 10, where="odd = 1", exact=exact)
        assert {r.image_id for r in found} <= set(odd)
        assert len(found) == 10
    assert [r.image_id for r in index.search_picture(queries, 5, "odd = 1", True)] == [
        i for i, _ in naive(odd, queries, 5)
    ]
    assert index.search_picture(queries, 5, where="odd = 7") == []


def test_scoring_in_small_blocks_equals_a_loop(
    made: tuple[Index, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, kept = made
    queries = unit(np.random.default_rng(8), 5, DIM)
    monkeypatch.setattr(picture_search, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr(picture_search, "_EXACTLY_AT_ONCE", 11)
    for k in (1, 30, 500):
        found = index.search_picture(queries, k, exact=True)
        expected = naive(kept, queries, k)
        assert [r.image_id for r in found] == [i for i, _ in expected]
        assert [r.score for r in found] == pytest.approx([s for _, s in expected])


@pytest.mark.parametrize("comparisons", [200, 1])
def test_candidates_are_few_and_their_scores_exact(
    made: tuple[Index, dict[str, np.ndarray]], comparisons: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, kept = made
    for name, value in {
        "MIN_WANTED": 4,
        "_FETCH_EXTRA": 0,
        "_SCORED_PER_IMAGE": 3,
        "_COMPARISONS": comparisons,
    }.items():
        monkeypatch.setattr(picture_search, name, value)
    scored: list[int] = []
    rank_by_all = picture_search.rank_by_all

    def record(segment: Segment, queries: Floats, k: int, images: Ints) -> ScoredImages:
        scored.append(len(images))
        return rank_by_all(segment, queries, k, images)

    monkeypatch.setattr(picture_search, "rank_by_all", record)
    for image in ("image 00011", "image 00200", "later 00030"):
        queries = kept[image].astype(np.float32)
        exact = {r.image_id: (r.rank, r.score, r.box) for r in index.search_picture(queries, 1000, exact=True)}
        scored.clear()
        found = index.search_picture(queries, 3, where="odd = 1 or odd = 0 or odd is null")
        assert len(found) == 3
        assert found[0].image_id == image
        assert [exact[r.image_id][1] for r in found] == pytest.approx([r.score for r in found])
        assert [exact[r.image_id][2] for r in found] == [r.box for r in found]
        assert max(scored) < 60, "of 299 images in the segment"


def test_votes_prefer_images_of_many_lists_and_their_starts() -> None:
    lists = [np.array([5, 1, 2, 3]), np.array([9, 1, 2]), np.empty(0, np.int64)]
    assert picture_search.most_voted(lists, 2).tolist() == [1, 2]
    assert picture_search.most_voted(lists, 3).tolist() in ([1, 2, 5], [1, 2, 9])
    assert picture_search.most_voted(lists, 10).tolist() == [1, 2, 3, 5, 9]
    assert picture_search.most_voted([], 3).tolist() == []


def test_a_wrong_query_length_is_refused(made: tuple[Index, dict[str, np.ndarray]]) -> None:
    with pytest.raises(ValueError, match="length 2"):
        made[0].search_picture(np.stack([unit(np.random.default_rng(0), DIM), 2 * unit(np.random.default_rng(0), DIM)]))


def test_an_empty_store_has_no_results(tmp_path: Path) -> None:
    assert Index.create(tmp_path / "s", HEADER).search_picture(unit(np.random.default_rng(0), 2, DIM)) == []
