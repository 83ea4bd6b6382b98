"""Columns of a store change whole or not at all, and stores that older versions damaged are repaired."""

import datetime as dt
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from forclip.index.column_changes import column_problems, make_columns
from forclip.index.columns import OLD_SUFFIX, usable_name
from forclip.index.create_store import create_store
from forclip.index.image_index import Index
from forclip.index.schema import StoreHeader
from forclip.index.store import ImageFile, Store
from forclip.index.table import TABLE
from forclip.types import ImageEmbeddings

HEADER = StoreHeader("abc", 4, {"name": "some model"})


def store_of(folder: Path, **metadata: list[Any]) -> Store:
    store = create_store(folder / "s", HEADER)
    put(store, "abc", **metadata)
    return store


def put(store: Store, ids: str, **metadata: list[Any]) -> None:
    vectors = np.eye(4, dtype=np.float32)[np.arange(len(ids)) % 4]
    embeddings = ImageEmbeddings(vectors, np.arange(len(ids) + 1), tuple(ids))
    store.put(embeddings, [ImageFile(f"/{name}.jpg") for name in ids], metadata)


def values(store: Store, name: str) -> dict[str, Any]:
    rows = store.table().to_table(["id", name]).to_pylist()
    return {row["id"]: row[name] for row in rows}


def test_whole_numbers_that_meet_fractions_become_numbers(tmp_path: Path) -> None:
    store = store_of(tmp_path, speed=[0, 1, None], camera=["x", "y", "z"])
    store.annotate(["b", "c"], {"speed": [1.5, 2.5]})
    assert values(store, "speed") == {"a": 0.0, "b": 1.5, "c": 2.5}
    assert store.keys("speed > 1").tolist() == store.keys("id <> 'a'").tolist()
    put(store, "d", speed=[4])
    assert values(store, "speed")["d"] == 4.0
    assert sorted(store.user_columns) == ["camera", "speed"]
    assert values(store, "camera") == {"a": "x", "b": "y", "c": "z", "d": None}
    assert Index(tmp_path / "s").verify() == []


def test_dates_that_meet_times_become_times(tmp_path: Path) -> None:
    store = store_of(tmp_path, day=[dt.date(2026, 1, 1)] * 3)
    store.annotate(["a"], {"day": [dt.datetime(2026, 5, 1, 12)]})
    assert values(store, "day") == {
        "a": dt.datetime(2026, 5, 1, 12),
        "b": dt.datetime(2026, 1, 1),
        "c": dt.datetime(2026, 1, 1),
    }


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 2, 3], ["x"], "'c' holds whole numbers, not text"),
        ([2**53 + 1, 2, 3], [0.5], "'c' holds whole numbers.*9007199254740993"),
        ([0.5, 2, 3], [2**53 + 1], "can't be stored as numbers.*9007199254740993"),
        ([True, False, None], [2], "'c' holds true and false, not whole numbers"),
        ([dt.datetime(2026, 1, 1)] * 3, [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)], "time zone"),
        (["x", "y", "z"], [b"\xff"], "'c': holds binary"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    first: list[Any], second: list[Any], message: str, tmp_path: Path
) -> None:
    store = store_of(tmp_path, c=first)
    before = store.table().schema
    with pytest.raises(ValueError, match=message):
        store.annotate(["a"], {"c": second})
    with pytest.raises(ValueError, match=message):
        put(store, "d", c=second)
    assert store.table().schema == before
    assert values(store, "c") == dict(zip("abc", first, strict=True))


@pytest.mark.parametrize("name", ["", "a`b", "*", "_rowid", "a.b", "Camera", "ID"])
def test_a_name_that_would_break_the_store_is_refused_before_it_changes(name: str, tmp_path: Path) -> None:
    store = store_of(tmp_path, camera=["x", "y", "z"])
    version = store.version
    with pytest.raises(ValueError, match="can't be named"):
        store.annotate(["a"], {"fine": [1], name: ["x"]})
    assert store.version == version
    put(store, "d")
    assert len(store) == 4


def test_a_replaced_image_keeps_the_values_that_are_not_given(tmp_path: Path) -> None:
    store = store_of(tmp_path, camera=["x", "y", "z"], speed=[1, 2, 3])
    put(store, "ad")
    put(store, "be", speed=[None, 5])
    assert values(store, "camera") == {"a": "x", "b": "y", "c": "z", "d": None, "e": None}
    assert values(store, "speed") == {"a": 1, "b": 2, "c": 3, "d": None, "e": 5}


def test_a_column_without_values_is_not_made(tmp_path: Path) -> None:
    store = store_of(tmp_path, empty=[None, None, None])
    assert store.user_columns == []
    put(store, "d", empty=[3])
    assert values(store, "empty") == {"a": None, "b": None, "c": None, "d": 3}


def damage(folder: Path, columns: dict[str, pa.DataType]) -> None:
    """Add columns as older versions of forclip did."""
    lance.dataset(str(folder / TABLE)).add_columns(pa.schema(columns))


@pytest.mark.parametrize("name", ["", "a`b", "_rowid"])
def test_a_column_that_can_not_be_read_is_reported_and_repaired(name: str, tmp_path: Path) -> None:
    store = store_of(tmp_path, camera=["x", "y", "z"])
    damage(tmp_path / "s", {name: pa.string(), "speed": pa.int64()})
    index = Index(tmp_path / "s")
    assert any(repr(name) in problem for problem in index.verify())
    with pytest.raises(ValueError, match="forclip compact"):
        put(store, "d")
    index.compact()
    assert index.verify() == []
    assert index.store.user_columns == ["camera", "speed"]
    assert index.store.header == HEADER
    put(store, "d", speed=[5])
    assert values(store, "camera") == {"a": "x", "b": "y", "c": "z", "d": None}
    assert values(store, "speed") == {"a": None, "b": None, "c": None, "d": 5}


def test_a_column_is_repaired_after_others_were_dropped(tmp_path: Path) -> None:
    store = store_of(tmp_path, speed=[1, 2, 3])
    store.annotate(["a"], {"speed": [0.5]})  # replaces the column
    damage(tmp_path / "s", {"": pa.string(), "camera": pa.string()})
    store.compact()
    assert store.user_columns == ["speed", "camera"]
    assert store.header == HEADER
    assert values(store, "speed") == {"a": 0.5, "b": 2.0, "c": 3.0}
    put(store, "d", camera=["front"])
    assert Index(tmp_path / "s").verify() == []


def test_types_that_can_not_be_shown_are_reported_and_converted(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    old = {
        "text": pa.array([b"v\xf6gel"], pa.binary()),
        "small": pa.array([7], pa.int8()),
        "clock": pa.array([dt.time(10, 15)], pa.time32("s")),
        "tags": pa.array([["a", "b"]]),
    }
    damage(tmp_path / "s", {name: array.type for name, array in old.items()})
    rows = pa.table({"id": ["b"], **old})
    lance.dataset(str(tmp_path / "s" / TABLE)).merge_insert("id").when_matched_update_all().execute(rows)
    index = Index(tmp_path / "s")
    assert len(index.verify()) == 4
    index.compact()
    assert index.verify() == []
    for name, value in {"text": "vögel", "small": 7, "clock": "10:15:00", "tags": '["a", "b"]'}.items():
        assert values(store, name) == {"a": None, "b": value, "c": None}


def test_a_killed_change_leaves_nothing(tmp_path: Path) -> None:
    store = store_of(tmp_path, speed=[1, 2, 3])
    damage(tmp_path / "s", {"speed" + OLD_SUFFIX: pa.int64()})
    assert store.user_columns == ["speed"]
    put(store, "d", speed=[4])
    assert store.table().schema.names[-1] == "speed"


def test_problems_name_only_the_users_columns(tmp_path: Path) -> None:
    table = tmp_path / "t"
    lance.write_dataset(HEADER.schema().empty_table(), str(table))
    assert column_problems(lance.dataset(str(table)).schema) == []
    make_columns(table, {usable_name("", []): pa.string()})
    assert column_problems(lance.dataset(str(table)).schema) == []
