from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forclip.types import Annotations, Floats, ImageEmbeddings

VECTORS = np.eye(3, dtype=np.float32)
NO_NUMBER = float("nan")


def embeddings(**changes: Any) -> ImageEmbeddings:
    """Images a (vector 0) and b (vectors 1 and 2)."""
    parts: dict[str, Any] = {"vectors": VECTORS, "offsets": np.array([0, 1, 3]), "image_ids": ("a", "b")}
    return ImageEmbeddings(**(parts | changes))


def with_vector_2(*values: float) -> Floats:
    return np.vstack([VECTORS[:2], np.array([values], np.float32)])


def test_good_embeddings_are_accepted() -> None:
    whole = embeddings(boxes=np.zeros((3, 4), np.float32))
    assert (len(whole), whole.dim) == (2, 3)
    half_precision = with_vector_2(0.6, 0.8, 0).astype(np.float16).astype(np.float32)
    assert len(embeddings(vectors=half_precision)) == 2
    assert len(ImageEmbeddings(np.zeros((0, 3), np.float32), np.array([0]), ())) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.array([0, 3, 3])}, "image 'b' has no vector"),
        ({"offsets": np.array([0, 0, 3])}, "image 'a' has no vector"),
        ({"offsets": np.array([0, 5, 3])}, "image 'b' has no vector"),
        ({"vectors": with_vector_2(NO_NUMBER, 0, 0)}, "a vector of image 'b' has length nan, not 1"),
        ({"vectors": with_vector_2(float("inf"), 0, 0)}, "a vector of image 'b' has length inf, not 1"),
        ({"vectors": with_vector_2(0, 0, 0)}, "a vector of image 'b' has length 0, not 1"),
        ({"vectors": with_vector_2(1, 1, 0)}, "a vector of image 'b' has length 1.41, not 1"),
        ({"vectors": VECTORS * np.array([[0.5], [1], [1]], np.float32)}, "a vector of image 'a' has length 0.5, not 1"),
        ({"image_ids": ("a", "a")}, "the image id 'a' occurs twice"),
        ({"offsets": np.array([0, 3])}, "2 image ids need one more offset than that, not 2"),
        ({"offsets": np.array([1, 2, 3])}, "offsets must run from 0 to 3, not 1 to 3"),
        ({"offsets": np.array([0, 1, 2])}, "offsets must run from 0 to 3, not 0 to 2"),
        ({"boxes": np.zeros((2, 4), np.float32)}, "3 vectors need as many boxes, not (2, 4)"),
    ],
)
def test_bad_embeddings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the whole message is compared below
        embeddings(**changes)
    assert str(raised.value) == message


def annotations() -> Annotations:
    """a: a cat and two dogs; b: nothing; c: a cup and, without a box, a cat."""
    return Annotations(
        image_ids=("a", "b", "c"),
        paths=(Path("a.jpg"), Path("b.jpg"), Path("c.jpg")),
        class_names=("cat", "cup", "dog"),
        labels=np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0]], bool),
        boxes=np.arange(16, dtype=np.float32).reshape(4, 4),
        box_images=np.array([0, 0, 2, 0]),
        box_classes=np.array([2, 0, 1, 2]),
    )


def test_take_keeps_labels_and_boxes_with_their_images() -> None:
    taken = annotations().take(np.array([2, 0]))
    assert taken.image_ids == ("c", "a")
    assert taken.paths == (Path("c.jpg"), Path("a.jpg"))
    assert taken.labels.tolist() == [[True, True, False], [True, False, True]]
    assert taken.boxes[:, 0].tolist() == [0, 4, 8, 12]
    assert taken.box_images.tolist() == [1, 1, 0, 1]
    assert taken.box_classes.tolist() == [2, 0, 1, 2]


def test_take_drops_the_boxes_of_images_left_out() -> None:
    taken = annotations().take(np.array([1, 2]))
    assert taken.boxes.tolist() == [[8, 9, 10, 11]]
    assert taken.box_images.tolist() == [1]
    assert taken.class_names == ("cat", "cup", "dog")
    nothing = annotations().take(np.array([], np.int64))
    assert (len(nothing), nothing.labels.shape, nothing.boxes.shape) == (0, (0, 3), (0, 4))


def test_take_refuses_a_row_twice() -> None:
    with pytest.raises(ValueError, match="the image id 'c' occurs twice"):
        annotations().take(np.array([2, 0, 2]))


def test_with_classes_remaps_columns_and_boxes() -> None:
    fewer = annotations().with_classes(["dog", "cat"])
    assert fewer.class_names == ("dog", "cat")
    assert fewer.image_ids == ("a", "b", "c")
    assert fewer.labels.tolist() == [[True, True], [False, False], [False, True]]
    assert fewer.boxes[:, 0].tolist() == [0, 4, 12]
    assert fewer.box_images.tolist() == [0, 0, 0]
    assert fewer.box_classes.tolist() == [0, 1, 0]


def test_with_classes_refuses_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="no class is named 'cow'"):
        annotations().with_classes(["cat", "cow"])


@pytest.mark.parametrize(
    ("ids", "names", "message"),
    [
        (("a", "b", "a"), ("cat", "cup", "dog"), "the image id 'a' occurs twice"),
        (("a", "b", "c"), ("cat", "cup", "cat"), "the class name 'cat' occurs twice"),
    ],
)
def test_repeated_ids_and_names_are_refused(ids: tuple[str, ...], names: tuple[str, ...], message: str) -> None:
    good = annotations()
    with pytest.raises(ValueError, match=message):
        Annotations(ids, good.paths, names, good.labels, good.boxes, good.box_images, good.box_classes)


def test_verified_labels_and_names_follow_their_images_and_classes() -> None:
    verified = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 1]], bool)
    names, common = (("kitty",), (), ("hound", "pup")), ("f", "r", "c")
    full = replace(annotations(), verified=verified, synonyms=names, frequencies=common)
    part = full.take(np.array([2, 0])).with_classes(["dog", "cat"])
    assert part.verified_mask.tolist() == [[True, True], [False, True]]
    assert part.synonyms == (("hound", "pup"), ("kitty",))
    assert part.frequencies == ("c", "f")
    assert annotations().verified_mask.all()
    assert annotations().take(np.array([1])).verified is None


def test_with_classes_can_add_classes_that_no_image_shows() -> None:
    wider = replace(annotations(), verified=np.ones((3, 3), bool)).with_classes(["dog", "yak", "cat"], add_missing=True)
    assert wider.class_names == ("dog", "yak", "cat")
    assert wider.labels.tolist() == [[True, False, True], [False, False, False], [False, False, True]]
    assert wider.verified_mask[:, 1].tolist() == [False] * 3
    assert wider.box_classes.tolist() == [0, 2, 0]
    assert annotations().with_classes(["cup"], add_missing=True).verified is None
