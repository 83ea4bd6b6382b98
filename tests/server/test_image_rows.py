"""Image rows come from the newest version of the store, from memory or from the table."""

from pathlib import Path

import pytest

from forclip.index.create_store import create_store
from forclip.index.image_index import Index
from forclip.index.image_rows import ImageRows
from forclip.index.store import Store
from tests.index.made import HEADER, files, names, some


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = create_store(tmp_path / "s", HEADER)
    for k in range(3):
        ids = names(5, f"part {k}")
        store.add(some(ids, seed=k), files(ids), {"speed": list(range(5))})
    return store


@pytest.mark.parametrize("most_images", [1000, 1])
def test_rows_equal_the_tables_rows(store: Store, most_images: int) -> None:
    rows = ImageRows(Index(store.folder).view, most_images)
    assert rows.read([]) == {}
    expected = {row["number"]: row for row in store.table().to_table(["number", "id", "uri", "speed"]).to_pylist()}
    keys = store.keys().tolist()[::-2]
    read = rows.read([*keys, 7])
    assert list(read) == keys
    for key in keys:
        assert {name: read[key][name] for name in ("id", "uri", "speed")} == {
            name: value for name, value in expected[key].items() if name != "number"
        }
    assert (rows._newest().rows is None) == (most_images == 1)


@pytest.mark.parametrize("most_images", [1000, 1])
def test_rows_follow_changes_of_the_store(store: Store, most_images: int) -> None:
    rows = ImageRows(Index(store.folder).view, most_images)
    keys = store.keys().tolist()
    assert rows.read(keys[:1])[keys[0]]["speed"] == 0
    store.annotate(["part 0 00000"], {"speed": [99]})
    assert rows.read(keys[:1])[keys[0]]["speed"] == 99
    store.delete_ids(["part 0 00000"])
    assert list(rows.read(keys)) == keys[1:]
    store.delete("id IS NOT NULL")
    assert rows.read(keys) == {}
