"""What values the columns of a table have, read in blocks, against counting by hand."""

from collections import Counter
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pytest

from forclip.index.column_summary import ColumnSummary, summarise_columns


def summarise(values: pa.Array, block: int = 7) -> ColumnSummary:
    """Summarise one column in blocks."""
    table = pa.table({"c": values})
    blocks = [table.slice(start, block) for start in range(0, len(table) or 1, block)]
    found = summarise_columns(blocks)
    assert (found.images, found.complete) == (len(table), True)
    return found.columns[0]


def test_few_texts_are_choices_with_counts_over_all_blocks() -> None:
    rng = np.random.default_rng(0)
    texts = [None if n == 3 else ["front", "rear", "left", ""][n % 4] for n in rng.integers(0, 9, 100).tolist()]
    found = summarise(pa.array(texts))
    expected = Counter(texts)
    assert (found.kind, found.missing) == ("choice", expected.pop(None))
    assert found.counts == expected
    assert list(found.counts.values()) == sorted(expected.values(), reverse=True)


@pytest.mark.parametrize(
    "texts",
    [[f"note {n}" for n in range(300)], [f"note {n}" for n in range(40)], ["x" * 101, "y"]],
    ids=["many", "hardly any shared", "long"],
)
def test_other_texts_are_free_text_without_values(texts: list[str]) -> None:
    found = summarise(pa.array(texts))
    assert (found.kind, found.counts) == ("text", {})


def test_paths_are_never_listed() -> None:
    found = summarise_columns([pa.table({"uri": ["a/b.jpg", "a/b.jpg"]})]).columns[0]
    assert (found.kind, found.counts) == ("text", {})


def test_numbers_have_a_range_of_finite_values() -> None:
    found = summarise(pa.array([3.5, None, float("inf"), -2.25, float("nan"), 0.0]))
    assert (found.kind, found.lowest, found.highest) == ("number", -2.25, 3.5)
    assert found.counts == {}
    whole = summarise(pa.array([5, 5, 1, None]))
    assert (whole.kind, whole.lowest, whole.highest, whole.counts, whole.missing) == ("number", 1, 5, {5: 2, 1: 1}, 1)
    assert summarise(pa.array(range(50))).counts == {}


def test_dates_times_and_truths() -> None:
    days = [date(2024, 2, 29), date(1999, 12, 31), None]
    assert (summarise(pa.array(days)).lowest, summarise(pa.array(days)).highest) == (days[1], days[0])
    moments = [datetime(2024, 1, 1, 12), datetime(2024, 1, 1, 11)]
    found = summarise(pa.array(moments, pa.timestamp("us")), block=1)
    assert (found.kind, found.lowest, found.highest) == ("time", moments[1], moments[0])
    truths = summarise(pa.array([True, False, True, None]))
    assert (truths.kind, truths.counts, truths.missing) == ("choice", {True: 2, False: 1}, 1)


@pytest.mark.parametrize("type_", [pa.string(), pa.int64(), pa.float64(), pa.date32(), pa.bool_(), pa.null()])
def test_a_column_without_values(type_: pa.DataType) -> None:
    found = summarise(pa.array([None, None], type_))
    assert (found.counts, found.lowest, found.highest, found.missing) == ({}, None, None, 2)


def test_reading_ends_in_time_and_says_so() -> None:
    blocks = (pa.table({"c": [n]}) for n in range(100))
    found = summarise_columns(blocks, seconds=-1)
    assert (found.images, found.complete) == (1, False)
    assert summarise_columns([pa.table({"c": [1]})], seconds=-1).complete
