from pathlib import Path

from forclip.data.formats.common import UnusableEntry, annotations_of_objects


def test_labels_of_unknown_images_are_unverified() -> None:
    paths = [Path(name) for name in "abc"]
    found = annotations_of_objects("abc", paths, [(0, "cat", None), (2, "dog", (0, 0, 1, 1))], unknown_rows=[1, 2])
    assert found.labels.tolist() == [[True, False], [False, False], [False, True]]
    assert found.verified_mask.tolist() == [[True, True], [False, False], [False, True]]
    assert found.boxes.tolist() == [[0, 0, 1, 1]]


def test_a_long_value_is_shortened() -> None:
    skipped = UnusableEntry("too long", "x" * 1000).at("a.txt: line 1")
    assert (skipped.entry, skipped.reason, skipped.used_in_part) == ("a.txt: line 1", "too long", False)
    assert len(skipped.value) < 100
