import warnings
from pathlib import Path

import pytest

from forclip.data.left_out import LeftOutWarning, count_reasons, describe_left_out, warn_left_out
from forclip.types import SkippedEntry

SKIPPED = [
    SkippedEntry("a.json: annotation 1", "unknown image_id", "9"),
    SkippedEntry("a.json: annotation 2", "the box is not finite", "nan", used_in_part=True),
    *(SkippedEntry(f"a.json: annotation {k}", "unknown category_id", "7") for k in range(3, 1503)),
]


def test_reasons_are_counted_the_most_frequent_first() -> None:
    assert count_reasons(SKIPPED) == "1,500 unknown category_id, 1 unknown image_id, 1 the box is not finite"


def test_one_line_tells_what_is_left_out_and_what_is_used_in_part() -> None:
    line = describe_left_out(Path("a.json"), SKIPPED)
    assert line == (
        "a.json: 1,501 entries left out: 1,500 unknown category_id, 1 unknown image_id; "
        "1 entry used in part: 1 the box is not finite"
    )
    assert describe_left_out(Path("a.json"), []) == ""


def test_a_warning_names_the_file() -> None:
    with pytest.warns(LeftOutWarning, match=r"^a\.json: 1,501 entries left out"):
        warn_left_out(Path("a.json"), SKIPPED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_left_out(Path("a.json"), [])
