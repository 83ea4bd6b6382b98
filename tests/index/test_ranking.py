"""A ranked list in columns is the list of its results, whichever part of it is looked at."""

from pathlib import Path

import numpy as np
import pytest

from forclip.index.image_index import Index
from forclip.index.ranking import Ranking
from forclip.types import SearchResult
from tests.index.made import DIM, HEADER, files, names, some, unit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Ranking]:
    """Of images in a segment and of others in memory."""
    index = Index.create(tmp_path_factory.mktemp("rankings") / "s", HEADER)
    for part, prefix in enumerate(("image", "later")):
        embeddings = some(names(60, prefix), seed=part)
        index.add(embeddings, files(embeddings.image_ids))
        if part == 0:
            index.optimize(kind="Flat")
    return index, index.rankings(unit(np.random.default_rng(1), 1, DIM), 40)[0]


def test_parts_of_a_ranking_have_the_ranks_of_the_whole(made: tuple[Index, Ranking]) -> None:
    _, ranking = made
    whole = list(ranking)
    assert [r.rank for r in whole] == list(range(1, 41))
    assert {r.image_id.split()[0] for r in whole} == {"image", "later"}, "of both segments"
    assert (ranking[0], ranking[-1], ranking[7]) == (whole[0], whole[-1], whole[7])
    for part in (slice(5, 9), slice(None, 3), slice(38, 60), slice(-2, None), slice(9, 5)):
        assert list(ranking[part]) == whole[part]
    assert list(ranking[10:30][5:8]) == whole[15:18]
    assert ranking[10:30][5] == whole[15]
    assert ranking.scores.tolist() == [r.score for r in whole]
    with pytest.raises(IndexError):
        ranking[40]
    with pytest.raises(ValueError, match="skip by 2"):
        ranking[::2]


def test_a_result_has_the_key_of_its_image(made: tuple[Index, Ranking]) -> None:
    index, ranking = made
    for result in ranking[:5]:
        (row,) = index.store.table().to_table(["number"], filter=f"id = '{result.image_id}'")["number"].to_pylist()
        assert result.key == row


def test_ties_go_by_id_across_segments(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    one = some(["b", "d"], most=1)
    vectors = np.repeat(unit(np.random.default_rng(0), 1, DIM), 2, axis=0)
    for ids in (("b", "d"), ("c", "a")):
        same = type(one)(vectors, np.arange(3), ids, one.boxes)
        index.add(same, files(ids))
        if ids[0] == "b":
            index.optimize(kind="Flat")
    for k in (1, 2, 3, 4, 9):
        assert [r.image_id for r in index.search(vectors[0], k)] == ["a", "b", "c", "d"][:k]


def test_results_are_equal_whatever_their_key() -> None:
    one, other = (SearchResult(1, "a", "/a", 0.5, None, key) for key in (3, 4))
    assert one == other
