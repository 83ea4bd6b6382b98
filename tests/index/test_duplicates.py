"""Near duplicates against a loop that anyone can read."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from forclip.index.duplicates import (
    collapse_duplicates,
    find_duplicates,
    group_in_order,
    image_means,
    similarity,
)
from forclip.index.image_index import Index
from forclip.types import Floats, ImageEmbeddings
from tests.index.made import DIM, HEADER, by_image, files, names, some, unit, write_all_segments


def noisy(vectors: Floats, rng: np.random.Generator, size: float) -> Floats:
    moved = vectors + size * rng.standard_normal(vectors.shape).astype(np.float32)
    copied: Floats = (moved / np.linalg.norm(moved, axis=1, keepdims=True))[rng.permutation(len(moved))]
    return copied


@pytest.fixture
def embeddings() -> ImageEmbeddings:
    """400 images; each of the last 100 is a noisy copy of another one, with its vectors in another order."""
    rng = np.random.default_rng(3)
    first = some(names(300), most=5)
    sets = [first.vectors[s:e] for s, e in pairwise(first.offsets.tolist())]
    sets += [noisy(sets[int(rng.integers(40))], rng, size) for size in rng.choice([0, 0.02, 0.05, 0.12], 100)]
    offsets = np.cumsum([0, *map(len, sets)]).astype(np.int64)
    return ImageEmbeddings(np.concatenate(sets), offsets, tuple(names(400)))


@pytest.mark.parametrize("threshold", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("on_disk", [True, False])
def test_groups_are_those_of_a_plain_loop(
    embeddings: ImageEmbeddings, threshold: float, on_disk: bool, tmp_path: Path
) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    index.add(embeddings, files(embeddings.image_ids))
    if on_disk:
        write_all_segments(index)
    stored = by_image(embeddings)
    kept = {i: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for i, v in stored.items()}
    expected: dict[str, list[str]] = {}
    for image_id, vectors in kept.items():
        scores = {first: similarity(vectors, kept[first]) for first in expected}
        best = max(scores, key=lambda first: scores[first], default="")
        if best and scores[best] >= threshold - 1e-6:
            expected[best].append(image_id)
        else:
            expected[image_id] = []
    found = find_duplicates(index, threshold)
    groups = {group[0].image_id: [image.image_id for image in group[1:]] for group in found}
    assert groups == {first: others for first, others in expected.items() if others}
    assert [len(group) for group in found] == sorted(map(len, found), reverse=True)
    for group in found:
        for image in group[1:]:
            assert image.similarity == pytest.approx(
                similarity(kept[group[0].image_id], kept[image.image_id]), abs=1e-6
            )


def test_a_list_is_grouped_part_by_part_as_by_a_plain_loop(embeddings: ImageEmbeddings, tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    index.add(embeddings, files(embeddings.image_ids))
    ids = [result.image_id for result in index.search(unit(np.random.default_rng(1), DIM), 400)]
    stored = {i: v / np.linalg.norm(v, axis=1, keepdims=True) for i, v in by_image(embeddings).items()}
    expected: dict[str, str] = {}
    for image_id in ids:
        firsts = list(dict.fromkeys(expected.values()))
        scores = {first: similarity(stored[image_id], stored[first]) for first in firsts}
        best = max(scores, key=lambda first: scores[first], default="")
        expected[image_id] = best if best and scores[best] >= 0.95 else image_id
    assert len(set(expected.values())) < 400
    found: dict[str, str] = {}
    for start in range(0, 400, 150):
        firsts, part = list(dict.fromkeys(found.values())), ids[start : start + 150]
        wanted = [*firsts, *part]
        positions = group_in_order(index, wanted, image_means(index, wanted), len(firsts))
        found |= zip(part, [wanted[position] for position in positions], strict=True)
    assert found == expected


def test_an_image_that_was_deleted_is_in_no_group(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    vector = unit(np.random.default_rng(0), 1, DIM)
    index.add(ImageEmbeddings(np.repeat(vector, 3, 0), np.arange(4), tuple(names(3))), files(names(3)))
    wanted = ["gone", names(3)[0], "also gone", *names(3)[1:]]
    assert group_in_order(index, wanted, image_means(index, wanted)) == [0, 1, 2, 1, 1]
    assert group_in_order(index, wanted, image_means(index, wanted), 1, 0.1) == [1, 2, 1, 1]


def test_similarity_is_symmetric_and_needs_each_in_the_other() -> None:
    rng = np.random.default_rng(0)
    whole = unit(rng, 6, DIM)
    part = whole[:2]
    assert similarity(whole, noisy(whole, rng, 0)) == pytest.approx(1)
    assert similarity(whole, part) == similarity(part, whole) < 0.9


def test_a_slow_change_is_not_one_group(tmp_path: Path) -> None:
    angles = np.linspace(0, np.pi / 2, 40)
    vectors = np.zeros((40, DIM), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    index = Index.create(tmp_path / "s", HEADER)
    index.add(ImageEmbeddings(vectors, np.arange(41), tuple(names(40))), files(names(40)))
    assert len(find_duplicates(index, 0.95)) > 1


def test_a_filter_limits_the_images_and_bad_thresholds_are_refused(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    vector = unit(np.random.default_rng(0), 1, DIM)
    index.add(ImageEmbeddings(np.repeat(vector, 4, 0), np.arange(5), tuple(names(4))), files(names(4)))
    (group,) = find_duplicates(index, where="id <> 'image 00000'")
    assert [image.image_id for image in group] == names(4)[1:]
    assert find_duplicates(index, where="id = 'nothing'") == []
    for threshold in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=str(threshold)):
            find_duplicates(index, threshold)


def test_results_that_repeat_a_better_one_are_left_out(embeddings: ImageEmbeddings, tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    index.add(embeddings, files(embeddings.image_ids))
    kept = {i: v.astype(np.float32) for i, v in by_image(embeddings).items()}
    results = index.search(unit(np.random.default_rng(1), DIM), 400)
    expected: list[str] = []
    for result in results:
        own = kept[result.image_id]
        own = own / np.linalg.norm(own, axis=1, keepdims=True)
        others = [kept[i] / np.linalg.norm(kept[i], axis=1, keepdims=True) for i in expected]
        if all(similarity(own, other) < 0.95 for other in others):
            expected.append(result.image_id)
    collapsed = collapse_duplicates(index, results, 0.95)
    assert [result.image_id for result in collapsed] == expected
    assert len(expected) < 400
    assert [result.rank for result in collapsed] == sorted(result.rank for result in collapsed)
    assert collapse_duplicates(index, results, 0.95, 7) == collapsed[:7]
