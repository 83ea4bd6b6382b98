"""Searches for several texts equal a loop over all images."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from forclip.calibration.model import Calibration
from forclip.index.image_index import Index
from forclip.search.combined import CombinedQuery, search_combined, text_scales
from forclip.types import Floats
from tests.index.made import DIM, HEADER, by_image, files, names, some, unit

CALIBRATION = Calibration(-3.0, 0.5, 1.5, 0.7, 0.9, 0.2, 0.05, 10, 200, {})
NONE = np.zeros((0, DIM), np.float32)


def random_vectors(count: int, seed: int = 3) -> Floats:
    return unit(np.random.default_rng(seed), count, DIM) if count else NONE


def split_texts(any_of: int, all_of: int, none_of: int) -> CombinedQuery:
    drawn = random_vectors(any_of + all_of + none_of)
    return CombinedQuery(drawn[:any_of], drawn[any_of : any_of + all_of], drawn[any_of + all_of :])


def create_index(folder: Path, count: int = 300) -> tuple[Index, dict[str, np.ndarray]]:
    embeddings = some(names(count))
    index = Index.create(folder, HEADER)
    index.add(embeddings, files(embeddings.image_ids))
    return index, by_image(embeddings)


def loop_search(
    stored: dict[str, np.ndarray], query: CombinedQuery, k: int, calibration: Calibration | None
) -> list[tuple[str, float]]:
    """Score every image in a loop; return ids and scores of the best `k`."""

    def normalised_score(text: Floats, image_id: str) -> float:
        scores = {i: max(float(v @ text.astype(np.float64)) for v in vectors) for i, vectors in stored.items()}
        gallery = np.array(list(scores.values()), np.float32).astype(np.float64)
        z = (scores[image_id] - gallery.mean()) / gallery.std()
        if calibration is None:
            return float(z)
        scaled = calibration.below * min(z, 1) + calibration.above * max(z - 1, 0)
        return float(calibration.intercept + scaled + calibration.raw * scores[image_id])

    ranking = []
    for image_id in stored:
        parts = []
        if len(query.any_of):
            parts.append(max(normalised_score(t, image_id) for t in query.any_of))
        parts += [normalised_score(t, image_id) for t in query.all_of]
        wanted = min(parts)
        limit = min(wanted, 2.0 if calibration is None else 0.0)
        if all(normalised_score(t, image_id) < limit for t in query.none_of):
            ranking.append((image_id, wanted))
    return sorted(ranking, key=lambda item: (-item[1], item[0]))[:k]


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
@pytest.mark.parametrize(("any_of", "all_of", "none_of"), [c for c in product((0, 1, 3), (0, 2), (0, 1)) if sum(c[:2])])
def test_results_equal_the_loop(
    any_of: int, all_of: int, none_of: int, calibration: Calibration | None, tmp_path: Path
) -> None:
    index, stored = create_index(tmp_path / "s", 120)
    query = split_texts(any_of, all_of, none_of)
    for k in (1, 5, 120):
        results = search_combined(index, query, k, calibration=calibration)
        expected = loop_search(stored, query, k, calibration)
        assert [r.image_id for r in results] == [i for i, _ in expected]
        assert [r.normalised_score for r in results] == pytest.approx([s for _, s in expected], abs=1e-5)
        assert [r.rank for r in results] == list(range(1, len(expected) + 1))


def test_one_text_equals_the_plain_search(tmp_path: Path) -> None:
    index, _ = create_index(tmp_path / "s")
    (text,) = random_vectors(1)
    for query in (CombinedQuery(text[None], NONE, NONE), CombinedQuery(NONE, text[None], NONE)):
        results = search_combined(index, query, 20)
        assert [(r.image_id, r.score, r.box) for r in results] == [
            (r.image_id, r.score, r.box) for r in index.search(text, 20)
        ]


def test_ties_are_ordered_by_id(tmp_path: Path) -> None:
    one = some(["a"])
    count = int(one.offsets[-1])
    twins = replace(
        one,
        vectors=np.tile(one.vectors, (60, 1)),
        offsets=np.arange(61) * count,
        image_ids=tuple(reversed(names(60))),
        boxes=None,
    )
    index = Index.create(tmp_path / "s", HEADER)
    index.add(twins, files(twins.image_ids))
    results = search_combined(index, split_texts(2, 1, 0), 3, calibration=CALIBRATION)
    assert [r.image_id for r in results] == names(3)


def test_a_filter_limits_images_and_normalisation(tmp_path: Path) -> None:
    index, stored = create_index(tmp_path / "s")
    index.store.annotate(names(300), {"half": [k % 2 for k in range(300)]})
    query = split_texts(2, 1, 1)
    odd = {i: v for k, (i, v) in enumerate(stored.items()) if k % 2}
    results = search_combined(index, query, 10, "half = 1")
    assert [r.image_id for r in results] == [i for i, _ in loop_search(odd, query, 10, None)]
    assert search_combined(index, query, 10, "half = 7") == []


def test_each_result_names_its_deciding_text(tmp_path: Path) -> None:
    index, _ = create_index(tmp_path / "s")
    query = split_texts(2, 1, 0)
    scales = text_scales(index, query.wanted, None, None)
    for result in search_combined(index, query, 20):
        text = query.wanted[result.decided_by]
        (alone,) = index.search_among([result.image_id], text)
        assert (alone.score, alone.box) == (result.score, result.box)
        assert scales[result.decided_by].normalised_score(np.array([result.score]))[0] == result.normalised_score


def test_a_small_gallery_ignores_the_calibration(tmp_path: Path) -> None:
    index, stored = create_index(tmp_path / "s", 20)
    query = split_texts(2, 0, 1)
    results = search_combined(index, query, 20, calibration=CALIBRATION)
    assert [r.image_id for r in results] == [i for i, _ in loop_search(stored, query, 20, None)]


def test_a_query_needs_a_wanted_text() -> None:
    with pytest.raises(ValueError, match="no text is wanted"):
        split_texts(0, 0, 2)
