"""What verdicts change in a training set."""

from pathlib import Path

import numpy as np
import pytest

from forclip.config import DataConfig, SourceConfig
from forclip.data.sources import load_sets
from forclip.data.verdicts import describe_verdicts, merge_verdicts, read_verdicts
from forclip.search.export import export, select_search
from forclip.search.request import SearchRequest
from forclip.search.searcher import Searcher
from forclip.toyworld.dataset import ToyWorld
from forclip.types import Annotations

ROOT = Path("/pictures")
CAT, DOG = 0, 1


def made(names: str, labels: list[list[int]], verified: list[list[int]] | None = None) -> Annotations:
    """Images by one-letter names, of a cat and a dog; a box for every label."""
    shown = np.array(labels, bool).reshape(len(names), 2)
    images, classes = np.nonzero(shown)
    return Annotations(
        tuple(names),
        tuple(ROOT / f"{n}.jpg" for n in names),
        ("cat", "dog"),
        shown,
        np.tile(np.array([[0, 0, 1, 1]], np.float32), (len(images), 1)),
        images,
        classes,
        None if verified is None else np.array(verified, bool),
    )


TRAIN = made("ab", [[1, 0], [0, 1]])
GALLERY = made("g", [[1, 1]])


def test_right_and_wrong_change_labels_and_verified() -> None:
    verdicts = {(ROOT / "a.jpg", "dog"): True, (ROOT / "b.jpg", "dog"): False}
    merged = merge_verdicts(TRAIN, GALLERY, verdicts)
    assert merged.labels.tolist() == [[True, True], [False, False]]
    assert merged.verified is None  # everything was known before, and still is
    assert (merged.box_images.tolist(), merged.box_classes.tolist()) == ([0], [CAT])  # the wrong dog's box is gone


def test_only_the_pair_with_a_verdict_becomes_verified() -> None:
    federated = made("ab", [[1, 0], [0, 0]], [[1, 0], [0, 0]])
    merged = merge_verdicts(federated, GALLERY, {(ROOT / "b.jpg", "cat"): False})
    assert merged.labels.tolist() == federated.labels.tolist()
    assert merged.verified_mask.tolist() == [[True, False], [True, False]]


def test_other_images_join_with_only_their_verdicts_verified() -> None:
    merged = merge_verdicts(TRAIN, GALLERY, {(ROOT / "new.jpg", "dog"): True, (ROOT / "also.jpg", "cat"): False})
    assert merged.image_ids == ("a", "b", "/pictures/also.jpg", "/pictures/new.jpg")
    assert merged.labels[2:].tolist() == [[False, False], [False, True]]
    assert merged.verified_mask.tolist() == [[True, True], [True, True], [True, False], [False, True]]


def test_a_new_class_is_verified_only_where_it_has_a_verdict() -> None:
    verdicts = {(ROOT / "a.jpg", "scooter"): True, (ROOT / "n.jpg", "scooter"): False, (ROOT / "b.jpg", "tram"): False}
    merged = merge_verdicts(TRAIN, GALLERY, verdicts)
    assert merged.class_names == ("cat", "dog", "scooter")  # no image shows a tram
    assert merged.labels[:, 2].tolist() == [True, False, False]
    assert merged.verified_mask[:, 2].tolist() == [True, False, True]
    assert merged.verified_mask[:2, :2].all()


def test_gallery_images_are_never_trained_on() -> None:
    verdicts = {(ROOT / "g.jpg", "cat"): False, (ROOT / "g.jpg", "scooter"): True, (ROOT / "a.jpg", "cat"): True}
    merged = merge_verdicts(TRAIN, GALLERY, verdicts)
    assert merged.image_ids == TRAIN.image_ids
    assert merged.class_names == TRAIN.class_names
    message = describe_verdicts(verdicts, TRAIN, GALLERY)
    assert message.startswith("1 verdicts join the labels: 1 right, 0 wrong; 2 on gallery images")


def test_rows_without_a_verdict_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "picks.csv"
    file.write_text("image,label,present,score\na.jpg,cat,1,.3\n/other/b.jpg,cat,0,.2\nc.jpg,cat,,.1\n")
    assert read_verdicts(file, ROOT) == {(ROOT / "a.jpg", "cat"): True, (Path("/other/b.jpg"), "cat"): False}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,label\na.jpg,cat\n", "no column present"),
        ("image,label,present\na.jpg,cat,perhaps\n", "line 2 has 'perhaps'"),
        ("image,label,present\na.jpg,cat,1\na.jpg,cat,0\n", "line 3 contradicts .*'cat' in 'a.jpg'"),
        ("image,label,present\n../a.jpg,cat,1\n", "line 2 .*outside the folder"),
        ("label,present\ncat,1\n", "needs a column image"),
    ],
)
def test_malformed_verdict_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "picks.csv"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_verdicts(file, ROOT)


def test_an_export_with_verdicts_joins_the_training_set(
    searcher: Searcher, small_world: ToyWorld, tmp_path: Path
) -> None:
    export(select_search(searcher, SearchRequest(text="cat", k=3), label="my cat"), "csv", tmp_path / "picks.csv")
    lines = (tmp_path / "picks.csv").read_text().splitlines()
    lines[1:3] = [lines[1].replace(",my cat,,", ",my cat,1,"), lines[2].replace(",my cat,,", ",my cat,0,")]
    (tmp_path / "picks.csv").write_text("\n".join(lines))
    data = DataConfig(SourceConfig(small_world.train_file, small_world.images), verdicts=tmp_path / "picks.csv")
    train, _ = load_sets(data)
    column = train.class_names.index("my cat")
    results = searcher.search("cat", 3)
    known = {
        str(train.paths[row]): bool(train.labels[row, column]) for row in np.flatnonzero(train.verified_mask[:, column])
    }
    assert known == {results[0].uri: True, results[1].uri: False}
