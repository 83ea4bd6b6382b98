"""A store's table stays in few fragments and indexed, whatever is done to it, and holds what it should."""

import threading
from dataclasses import replace
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from forclip.index import upkeep
from forclip.index.create_store import create_store
from forclip.index.schema import PRIMARY_KEY
from forclip.index.store import ImageFile, Store
from forclip.index.table import TABLE, read_rows
from tests.index.made import HEADER, files, names, some

INDEXED = {"id", "uri", "content_hash", "source", "decoding"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make twenty images a large store."""
    monkeypatch.setattr(upkeep, "MIN_UNINDEXED", 20)
    monkeypatch.setattr(upkeep, "FRAGMENT_ROWS", (8, 40))
    monkeypatch.setattr(upkeep, "MAX_SMALL_FRAGMENTS", 6)


def put(store: Store, ids: list[str], seed: int = 0) -> None:
    store.put(some(ids, seed=seed), [replace(f, content_hash=f"{seed}") for f in files(ids)])


def uses_index(table: lance.LanceDataset, where: str) -> bool:
    return "ScalarIndexQuery" in table.scanner(["number"], filter=where).explain_plan()


@pytest.mark.usefixtures("small")
def test_many_small_changes_leave_few_fragments_and_an_index(tmp_path: Path) -> None:
    store, seed_of = create_store(tmp_path / "s", HEADER), dict[str, int]()
    for step in range(40):
        ids = [f"image {(3 * step + k) % 70}" for k in range(5)]
        put(store, ids, step)
        seed_of |= dict.fromkeys(ids, step)
        if step % 10 == 9:
            gone = [f"image {k}" for k in range(step, step + 7)]
            assert store.delete_ids([*gone, "nothing"]) == len(seed_of.keys() & set(gone))
            seed_of = {i: s for i, s in seed_of.items() if i not in gone}
        table = store.table()
        assert len(table.get_fragments()) <= 2 * 6 + len(seed_of) // 40 + 1
        assert {i: int(f.content_hash) for i, f in store.files().items()} == seed_of
        some_ids = [f"image {k}" for k in range(0, 100, 7)]
        assert store.known_ids(some_ids) == seed_of.keys() & set(some_ids)
    assert {index["fields"][0] for index in table.list_indices()} == INDEXED
    for where in ("id = 'image 3'", "uri >= 'a' AND uri < 'b'", "content_hash = '7'", "source = 'x'"):
        assert uses_index(table, where)
    store.compact()
    table = store.table()
    assert len(table.list_indices()) == len(INDEXED)
    assert {i: int(f.content_hash) for i, f in store.files(list(seed_of)).items()} == seed_of
    every = set(range(len(table.get_fragments())))
    assert all(len(index["fragment_ids"]) == len(every) for index in table.list_indices())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("scanned", [1, 10**9], ids=["looked up", "scanned"])
def test_ids_are_looked_up_or_scanned_alike(scanned: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forclip.index.table._SCANNED_PER_VALUE", scanned)
    monkeypatch.setattr("forclip.index.table._VALUES_AT_ONCE", 3)
    store = create_store(tmp_path / "s", HEADER)
    for part in range(8):
        put(store, [f"it's {part} {k}" for k in range(6)])
    wanted = ["it's 3 4", "it's 3 4", "it's 9 1", *(f"it's {part} 0" for part in range(8)), 'it"s']
    rows = read_rows(store.table(), "id", wanted, ["uri"])
    assert rows["uri"].to_pylist() == [f"/pictures/{i}" for i in rows["id"].to_pylist()]
    assert sorted(rows["id"].to_pylist()) == sorted({"it's 3 4", *(f"it's {part} 0" for part in range(8))})
    assert read_rows(store.table(), "id", [], ["uri"]).column_names == ["id", "uri", "_rowaddr"]


def test_new_rows_join_the_parts_that_are_not_much_larger() -> None:
    assert upkeep.parts_to_merge([], 10) == 0
    assert upkeep.parts_to_merge([1000, 15, 10], 10) == 2
    assert upkeep.parts_to_merge([1000, 500], 10) == 0
    parts: list[int] = []
    written = 0
    for _ in range(500):
        joined = upkeep.parts_to_merge(parts, 1)
        together = 1 + sum(parts[len(parts) - joined :])
        parts = [*parts[: len(parts) - joined], together]
        written += together
    assert sum(parts) == 500
    assert len(parts) <= 9
    assert written <= 500 * 10


@pytest.mark.usefixtures("small")
def test_a_store_of_an_earlier_version_gets_its_key_and_index_with_the_next_change(tmp_path: Path) -> None:
    create_store(tmp_path / "new", HEADER).add(some(names(30)), files(names(30)))
    rows = lance.dataset(str(tmp_path / "new" / TABLE)).to_table()
    schema = rows.schema.set(rows.schema.get_field_index("id"), pa.field("id", pa.string()))
    lance.write_dataset(rows.cast(schema), str(tmp_path / "old" / TABLE), schema=schema)
    store = Store(tmp_path / "old")
    assert len(store.files()) == 30
    put(store, ["image 00001", "another"], seed=5)
    field = store.table().schema.field("id")
    assert not field.nullable
    assert {k.encode(): v.encode() for k, v in PRIMARY_KEY.items()}.items() <= field.metadata.items()
    assert {index["fields"][0] for index in store.table().list_indices()} == INDEXED
    assert len(store) == 31
    assert store.files(["image 00001"])["image 00001"].content_hash == "5"


def test_threads_that_write_the_same_images_store_each_once(tmp_path: Path) -> None:
    create_store(tmp_path / "s", HEADER)
    failures: list[BaseException] = []

    def write(seed: int) -> None:
        try:
            for part in range(4):
                put(Store(tmp_path / "s"), [f"image {k}" for k in range(part * 10, part * 10 + 20)], seed)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    stored = Store(tmp_path / "s").table().to_table(["id", "number"])
    assert sorted(stored["id"].to_pylist()) == sorted(f"image {k}" for k in range(50))
    assert len(set(stored["number"].to_pylist())) == 50


@pytest.mark.usefixtures("small")
def test_images_move_in_one_version(tmp_path: Path) -> None:
    """Also onto each other's ids, and from a fragment of which nothing is left."""
    store = create_store(tmp_path / "s", HEADER)
    store.add(some(["a", "b"]), files(["a", "b"]), {"speed": [1, 2]})
    store.add(some(["c"], seed=1), files(["c"]), {"speed": [3]})
    before, keys = store.version, set(store.keys().tolist())
    moves = {"a": "b", "b": "a", "c": "d"}
    store.move({old: (new, ImageFile(f"root/{new}", size=7)) for old, new in moves.items()})
    assert store.version == before + 1
    rows = store.table().to_table(["id", "speed", "uri", "size", "number"]).to_pylist()
    assert {r["id"]: r["speed"] for r in rows} == {"b": 1, "a": 2, "d": 3}
    assert all(r["uri"] == f"root/{r['id']}" and r["size"] == 7 and r["number"] not in keys for r in rows)
