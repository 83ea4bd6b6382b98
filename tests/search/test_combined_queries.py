"""Several texts in one search, against a loop over all images."""

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


def texts(count: int, seed: int = 3) -> Floats:
    return unit(np.random.default_rng(seed), count, DIM) if count else NONE


def split_texts(any_of: int, all_of: int, none_of: int) -> CombinedQuery:
    drawn = texts(any_of + all_of + none_of)
    return CombinedQuery(drawn[:any_of], drawn[any_of : any_of + all_of], drawn[any_of + all_of :])


def made(folder: Path, count: int = 300) -> tuple[Index, dict[str, np.ndarray]]:
    embeddings = some(names(count))
    index = Index.create(folder, HEADER)
    index.add(embeddings, files(embeddings.image_ids))
    return index, by_image(embeddings)


def naive(
    kept: dict[str, np.ndarray], query: CombinedQuery, k: int, calibration: Calibration | None
) -> list[tuple[str, float]]:
    """Every image, one after the other."""

    def normalised_score(text: Floats, image_id: str) -> float:
        scores = {i: max(float(v @ text.astype(np.float64)) for v in vectors) for i, vectors in kept.items()}
        everywhere = np.array(list(scores.values()), np.float32).astype(np.float64)
        z = (scores[image_id] - everywhere.mean()) / everywhere.std()
        if calibration is None:
            return float(z)
        bent = calibration.below * min(z, 1) + calibration.above * max(z - 1, 0)
        return float(calibration.intercept + bent + calibration.raw * scores[image_id])

    listed = []
    for image_id in kept:
        parts = []
        if len(query.any_of):
            parts.append(max(normalised_score(t, image_id) for t in query.any_of))
        parts += [normalised_score(t, image_id) for t in query.all_of]
        wanted = min(parts)
        limit = min(wanted, 2.0 if calibration is None else 0.0)
        if all(normalised_score(t, image_id) < limit for t in query.none_of):
            listed.append((image_id, wanted))
    return sorted(listed, key=lambda found: (-found[1], found[0]))[:k]


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
@pytest.mark.parametrize(("any_of", "all_of", "none_of"), [c for c in product((0, 1, 3), (0, 2), (0, 1)) if sum(c[:2])])
def test_equals_the_loop(
    any_of: int, all_of: int, none_of: int, calibration: Calibration | None, tmp_path: Path
) -> None:
    index, kept = made(tmp_path / "s", 120)
    query = split_texts(any_of, all_of, none_of)
    for k in (1, 5, 120):
        found = search_combined(index, query, k, calibration=calibration)
        expected = naive(kept, query, k, calibration)
        assert [r.image_id for r in found] == [i for i, _ in expected]
        assert [r.normalised_score for r in found] == pytest.approx([s for _, s in expected], abs=1e-5)
        assert [r.rank for r in found] == list(range(1, len(expected) + 1))


def test_one_text_is_the_plain_search(tmp_path: Path) -> None:
    index, _ = made(tmp_path / "s")
    (text,) = texts(1)
    for query in (CombinedQuery(text[None], NONE, NONE), CombinedQuery(NONE, text[None], NONE)):
        found = search_combined(index, query, 20)
        assert [(r.image_id, r.score, r.box) for r in found] == [
            (r.image_id, r.score, r.box) for r in index.search(text, 20)
        ]


def test_ties_by_id(tmp_path: Path) -> None:
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
    found = search_combined(index, split_texts(2, 1, 0), 3, calibration=CALIBRATION)
    assert [r.image_id for r in found] == names(3)


def test_the_filter_holds_for_images_and_for_the_scale(tmp_path: Path) -> None:
    index, kept = made(tmp_path / "s")
    index.store.annotate(names(300), {"half": [k % 2 for k in range(300)]})
    query = split_texts(2, 1, 1)
    odd = {i: v for k, (i, v) in enumerate(kept.items()) if k % 2}
    found = search_combined(index, query, 10, "half = 1")
    assert [r.image_id for r in found] == [i for i, _ in naive(odd, query, 10, None)]
    assert search_combined(index, query, 10, "half = 7") == []


def test_the_text_that_decided_is_told(tmp_path: Path) -> None:
    index, _ = made(tmp_path / "s")
    query = split_texts(2, 1, 0)
    scales = text_scales(index, query.wanted, None, None)
    for result in search_combined(index, query, 20):
        text = query.wanted[result.decided_by]
        (alone,) = index.search_among([result.image_id], text)
        assert (alone.score, alone.box) == (result.score, result.box)
        assert scales[result.decided_by].normalised_score(np.array([result.score]))[0] == result.normalised_score


def test_a_small_gallery_does_without_the_calibration(tmp_path: Path) -> None:
    index, kept = made(tmp_path / "s", 20)
    query = split_texts(2, 0, 1)
    found = search_combined(index, query, 20, calibration=CALIBRATION)
    assert [r.image_id for r in found] == [i for i, _ in naive(kept, query, 20, None)]


def test_something_must_be_wanted() -> None:
    with pytest.raises(ValueError, match="no text is wanted"):
        split_texts(0, 0, 2)
