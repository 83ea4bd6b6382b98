"""What verdicts change in a training set."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forclip.config import DataConfig, SourceConfig
from forclip.data.sources import load_sets
from forclip.data.verdicts import describe_verdicts, merge_verdicts, read_verdicts
from forclip.location import local_path
from forclip.search.export import export
from forclip.search.request import SearchRequest
from forclip.search.searcher import Searcher
from forclip.search.selection import select_search
from forclip.toyworld.dataset import ToyWorld
from forclip.types import Annotations

ROOT: Any = Path("/pictures")
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "sub").mkdir(parents=True)
    for name in ("pictures/a.jpg", "pictures/sub/b.jpg", "pictures/c.jpg", "other.jpg"):
        (tmp_path / name).touch()
    return tmp_path / "pictures"


def picks(folder: Path, content: str | bytes) -> tuple[dict[tuple[str, str], bool], list[tuple[int, str]]]:
    """The verdicts by name, and the lines and values of the rows that are left out."""
    file = folder.parent / "picks.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    verdicts, skipped = read_verdicts(file, folder)
    by_name = {
        (os.path.relpath(local_path(path), folder), label): present for (path, label), present in verdicts.items()
    }
    return by_name, [(int(entry.entry.rpartition(" ")[2]), entry.value) for entry in skipped]


def test_rows_without_a_verdict_are_skipped(folder: Path) -> None:
    other = folder.parent / "other.jpg"
    content = f"image,label,present,score\na.jpg,cat,1,.3\n{other},cat,0,.2\nc.jpg,cat,,.1\nsub\\b.jpg,cat,0,.1\n"
    assert picks(folder, content) == (
        {("a.jpg", "cat"): True, ("../other.jpg", "cat"): False, ("sub/b.jpg", "cat"): False},
        [],
    )


@pytest.mark.parametrize("yes", ["1", "1.0", "1.", "1,0", "true", "TRUE", "True", "yes", "Ja", "WAHR", " 1 "])
@pytest.mark.parametrize("no", ["0", "0.0", "false", "No", "nein", "FALSCH"])
def test_yes_and_no_as_programs_write_them(yes: str, no: str, folder: Path) -> None:
    expected = {("a.jpg", "cat"): True, ("c.jpg", "cat"): False}
    text = f"image;label;present\na.jpg;cat;{yes}\nc.jpg;cat;{no}\nsub/b.jpg;cat;\n"
    for content in (text, text.replace("\n", "\r\n").encode("utf-16"), f"sep=;\n{text}", text.replace(";", "\t")):
        assert picks(folder, content) == (expected, [])


@pytest.mark.parametrize("value", ["perhaps", "2", "-1", "0.5", "x", "?", "10"])
def test_another_value_is_reported_and_never_guessed(value: str, folder: Path) -> None:
    found, skipped = picks(folder, f"image,label,present\na.jpg,cat,{value}\nc.jpg,cat,1\n")
    assert (found, skipped) == ({("c.jpg", "cat"): True}, [(2, value)])


def test_rows_that_can_not_be_used_are_reported(folder: Path) -> None:
    rows = ["a.jpg,cat,1", "gone.jpg,cat,1", "../other.jpg,cat,1", "c.jpg,dog,1", "c.jpg,dog,0", "a.jpg", "c.jpg,cat,0"]
    found, skipped = picks(folder, "\n".join(["image,label,present", *rows]))
    assert found == {("a.jpg", "cat"): True, ("c.jpg", "cat"): False}
    assert sorted(line for line, _ in skipped) == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,label\na.jpg,cat\n", "no column present"),
        ("label,present\ncat,1\n", "needs a column image"),
    ],
)
def test_files_without_the_columns_are_refused(content: str, message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        picks(folder, content)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["a.jpg,cat,1.0", "c.jpg,cat,0", "c.jpg,vögel,ja", "x.jpg,cat,1", "a.jpg,cat", "a.jpg,cat,?"])
    ),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
)
def test_no_row_of_a_mangled_file_is_lost(folder: Path, rows: list[str], separator: str, encoding: str) -> None:
    text = "\n".join(["image,label,present", "c.jpg,dog,true", "sub/b.jpg,dog,0", *rows]).replace(",", separator)
    (folder.parent / "picks.csv").write_bytes(text.encode(encoding))
    verdicts, skipped = read_verdicts(folder.parent / "picks.csv", folder)
    used = {("a.jpg", "cat"), ("c.jpg", "cat"), ("c.jpg", "vögel"), ("c.jpg", "dog"), ("b.jpg", "dog")}
    lines = {int(entry.entry.rpartition(" ")[2]) for entry in skipped if not entry.used_in_part}
    bad = {n for n, row in enumerate(rows, start=4) if row in ("x.jpg,cat,1", "a.jpg,cat", "a.jpg,cat,?")}
    assert lines == bad
    assert {(path.name, label) for path, label in verdicts} <= used
    assert len(verdicts) == 2 + len({row for row in rows if row.endswith(("1.0", "0", "ja"))})


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
