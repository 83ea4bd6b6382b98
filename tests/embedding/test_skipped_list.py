"""The list of unreadable images is a log: what was appended counts, whatever cut it short."""

import json
import random
from pathlib import Path

import pytest

from forclip.embedding import skipped_list
from forclip.embedding.changes import UnreadableImage
from forclip.embedding.skipped_list import (
    OLD_SKIPPED_FILE,
    SKIPPED_FILE,
    read_unreadable,
    shorten_unreadable,
    write_unreadable,
)


def unreadable(number: int, reason: str = "cut short") -> UnreadableImage:
    return UnreadableImage(f"photos/straße {number}", number, 5, reason)


def test_later_lines_replace_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skipped_list, "_MIN_OUTDATED", 10)
    rng, expected = random.Random(0), dict[str, UnreadableImage]()
    for step in range(60):
        listed = {f"{n}": unreadable(n, f"{step}") for n in rng.sample(range(12), 3)}
        removed = [i for i in rng.sample(sorted(expected), min(2, len(expected))) if i not in listed]
        write_unreadable(tmp_path, listed, removed)
        expected = {i: image for i, image in (expected | listed).items() if i not in removed}
        assert read_unreadable(tmp_path) == expected
        if step % 7 == 0:
            shorten_unreadable(tmp_path)
            assert read_unreadable(tmp_path) == expected
    shorten_unreadable(tmp_path)
    assert len((tmp_path / SKIPPED_FILE).read_text().splitlines()) <= 2 * len(expected) + 10


def test_a_torn_line_is_ignored_and_the_next_job_goes_on(tmp_path: Path) -> None:
    write_unreadable(tmp_path, {"a": unreadable(1)})
    whole = (tmp_path / SKIPPED_FILE).read_bytes()
    write_unreadable(tmp_path, {"b": unreadable(2)})
    content = (tmp_path / SKIPPED_FILE).read_bytes()
    for cut in range(len(whole), len(content) - 1):
        (tmp_path / SKIPPED_FILE).write_bytes(content[:cut])
        assert read_unreadable(tmp_path).keys() - {"b"} == {"a"}
        write_unreadable(tmp_path, {"c": unreadable(3)})
        assert read_unreadable(tmp_path) | {"b": unreadable(2)} == {
            "a": unreadable(1),
            "b": unreadable(2),
            "c": unreadable(3),
        }


def test_the_list_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / OLD_SKIPPED_FILE).write_text(json.dumps({"a": vars(unreadable(1)), "b": vars(unreadable(2))}))
    assert read_unreadable(tmp_path) == {"a": unreadable(1), "b": unreadable(2)}
    write_unreadable(tmp_path, {}, ["a"])
    assert read_unreadable(tmp_path) == {"b": unreadable(2)}
    assert not (tmp_path / OLD_SKIPPED_FILE).exists()


@pytest.mark.parametrize("content", ["[", "nothing\n", '{"id": "a", "colour": 1}\n', '{"uri": "a"}\n'])
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / SKIPPED_FILE).write_text(content)
    with pytest.raises(ValueError, match=rf"{SKIPPED_FILE}: damaged"):
        read_unreadable(tmp_path)
