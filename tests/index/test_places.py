"""Where images are: rows are claimed once, and found again after fragments were joined."""

from pathlib import Path

import numpy as np
import pytest

from forclip.index import upkeep
from forclip.index.image_index import Index
from forclip.index.places import NOWHERE, LiveRows, Places
from forclip.index.view import Part
from tests.index.made import DIM, HEADER, by_image, files, names, oracle, some, unit, write_all_segments

NAMES = {3: (3, "c"), 7: (7, "g"), 8: (8, "h")}


def address(fragment: int, offset: int) -> int:
    return fragment << 32 | offset


def test_images_that_are_nowhere_belong_to_the_run_before_them() -> None:
    addresses = np.array(
        [NOWHERE, address(7, 4), NOWHERE, address(7, 5), address(3, 0), NOWHERE, address(7, 1)], np.uint64
    )
    places = Places.of(addresses, NAMES)
    assert [(r.fragment[0], r.start, r.end) for r in places.runs] == [(7, 0, 4), (3, 4, 6), (7, 6, 7)]
    assert places.addresses(NAMES.values()).tolist() == addresses.tolist()
    assert places.addresses([(3, "c")]).tolist() == [NOWHERE] * 4 + [address(3, 0), NOWHERE, NOWHERE]
    assert places.are_complete(NAMES.values())
    assert not places.are_complete([(7, "g")])
    wanted = np.array([address(3, 9), address(7, 1), address(7, 5), address(8, 0)], np.uint64)
    assert places.contained_in(wanted).tolist() == [False, False, False, True, False, False, True]
    assert places.positions((7, "g"), 6).tolist() == [-1, 6, -1, -1, 1, 3]
    nowhere = Places.of(np.full(3, NOWHERE), NAMES)
    assert nowhere.runs == ()
    assert not nowhere.contained_in(wanted).any()


def test_a_row_is_claimed_once(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    for part in range(3):
        ids = names(6, f"{part}")
        index.add(some(ids, seed=part), files(ids))
    index.delete("id LIKE '1 0000[0-2]' OR id IN ('1 00000', '1 00001', '2 00005')")
    rows = LiveRows(index.store.table())
    every = rows.unclaimed()
    assert len(every) == 15
    places = Places.of(every[::2], rows.names)
    assert rows.claim(places).all()
    assert not rows.claim(places).any()
    assert sorted(rows.unclaimed().tolist()) == sorted(every[1::2].tolist())
    again = LiveRows(index.store.table(), rows)
    assert again.unclaimed().tolist() == every.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_a_view_equals_the_store_after_whatever_was_done(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other readers are open all the while; fragments are joined often."""
    monkeypatch.setattr(upkeep, "MIN_UNINDEXED", 20)
    monkeypatch.setattr(upkeep, "FRAGMENT_ROWS", (8, 40))
    monkeypatch.setattr(upkeep, "MAX_SMALL_FRAGMENTS", 4)
    rng = np.random.default_rng(seed)
    index, kept = Index.create(tmp_path / "s", HEADER), dict[str, np.ndarray]()
    reader = Index(tmp_path / "s")
    for step in range(40):
        match rng.integers(6):
            case 0 | 1 | 2:
                ids = [f"image {n}" for n in rng.choice(60, rng.integers(1, 8), replace=False)]
                embeddings = some(ids, seed=step)
                index.put(embeddings, files(ids))
                kept |= by_image(embeddings)
            case 3:
                ids = [f"image {n}" for n in rng.choice(60, 5, replace=False)]
                index.delete_ids(ids)
                kept = {i: v for i, v in kept.items() if i not in ids}
            case 4:
                write_all_segments(index)
            case 5:
                index.compact(None if step % 2 else "none")
        query = unit(np.random.default_rng(step), DIM)
        expected = [i for i, _ in oracle(kept, query, 100)]
        for opened in (reader, Index(tmp_path / "s")) if step % 4 == 3 else (reader,):
            assert [r.image_id for r in opened.search(query, 100, exact=True)] == expected
            view = opened.view()
            assert len(view) == len(kept) == opened.info()["images"]
            some_ids = [f"image {n}" for n in range(0, 60, 7)]
            keys = opened.keys_of_ids(some_ids)
            assert keys.keys() == kept.keys() & set(some_ids)
            rows = opened.row_reader().read([*keys.values(), 17])
            assert {row["id"]: key for key, row in rows.items()} == keys
            assert opened.count("id < 'image 3'") == sum(i < "image 3" for i in kept)
            selected = opened.search(query, 100, "id < 'image 3'", exact=True)
            assert [r.image_id for r in selected] == [i for i in expected if i < "image 3"]
    assert index.verify() == reader.verify() == []


def test_fragments_that_were_joined_are_found_by_key_without_reading_vectors(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    for part in range(4):
        ids = names(10, f"{part}")
        index.add(some(ids, seed=part), files(ids))
    write_all_segments(index)
    index.delete("id IN ('1 00003', '2 00007')")
    before = index.view().table.version
    index.store.compact()
    opened = Index(tmp_path / "s")
    cover = opened._views.cover()
    assert cover.table.version > before
    assert len(cover.rest) == 0
    assert [part.num_images for part in cover.parts] == [38]
    assert len(cover.parts[0].places.runs) == 1
    opened.optimize()  # writes where they are now
    (name,) = opened.segments.names()
    assert opened.segments.open(name[0]).places.are_complete(Index(tmp_path / "s")._views.cover().rows.fragments)
    assert opened.verify() == []


def test_verify_names_what_is_wrong(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    given = some(names(30))
    index.add(given, files(given.image_ids))
    write_all_segments(index)
    (folder,) = [f for f in index.segments.folder.iterdir() if f.is_dir()]
    vectors = folder / "vectors.faiss"
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 0x40
    vectors.write_bytes(content)
    last = int(Index(tmp_path / "s").view().parts[0].segment.keys[-1])
    assert Index(tmp_path / "s").verify() == [f"{folder}: image key {last} differs from the store's"]


def test_segments_are_limited_by_memory(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    for part in range(6):
        ids = names(20, f"{part}")
        index.add(some(ids, seed=part, most=1), files(ids))
    index.optimize("SQ8", memory=2 * 40 * 36)  # 40 vectors of 24 bytes, in lists that are half empty
    sizes = sorted(part.num_vectors for part in index.view().parts)
    assert sum(sizes) == 120
    assert max(sizes) <= 60
    assert len(sizes) >= 2
    query = unit(np.random.default_rng(0), DIM)
    kept = {i: v for part in range(6) for i, v in by_image(some(names(20, f"{part}"), seed=part, most=1)).items()}
    assert [r.image_id for r in index.search(query, 10)] == [i for i, _ in oracle(kept, query, 10)]


@pytest.mark.parametrize("most", [3, 600])
def test_deleted_rows_are_not_claimed(most: int, tmp_path: Path) -> None:
    """Lance writes few deletions of a fragment as an array, many as a bitmap."""
    index, ids = Index.create(tmp_path / "s", HEADER), names(5_000)
    index.add(some(ids, most=1), files(ids))
    write_all_segments(index)
    (stored,) = [index.segments.open(name) for name, _ in index.segments.names()]
    assert [run.ordered for run in stored.places.runs] == [True]
    gone = np.sort(np.random.default_rng(0).choice(5_000, most, replace=False))
    assert index.delete_ids([ids[position] for position in gone]) == most
    index.add(some(["new"]), files(["new"]))
    rows = LiveRows(index.store.table())
    live = rows.claim(stored.places)
    assert np.flatnonzero(~live).tolist() == gone.tolist()
    assert not rows.claim(stored.places).any()
    assert rows.count_unclaimed() == len(rows.unclaimed()) == 1


def test_changes_find_images_by_their_segments_but_believe_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, ids = Index.create(tmp_path / "s", HEADER), names(40)
    index.add(some(ids), files(ids))
    write_all_segments(index)
    index.add(some(["late"]), files(["late"]))
    table = index.store.table()
    addresses, others = index._views.locate(table, [*ids[:3], "late", "unknown"])
    assert (len(addresses), others) == (3, ["late", "unknown"])
    wrong = np.roll(index._views.cover().parts[0].addresses(np.arange(40)), 1)
    monkeypatch.setattr(Part, "addresses", lambda part, positions: wrong[positions])  # a damaged file
    assert index._views.locate(table, ids[:3])[1] == ids[:3]
    assert index.delete_ids([*ids[:3], "unknown"]) == 3
    index.put(some(["late", ids[5]], seed=1), files(["late", ids[5]]))
    assert index.store.ids() == {*ids[3:], "late"}
    assert len(index) == 38
