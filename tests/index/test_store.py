"""The store: what is added is there, whole, and nothing else gets in."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from forclip.index.create_store import create_store
from forclip.index.schema import FORMAT_VERSION, StoreHeader
from forclip.index.store import Store
from forclip.index.table import matching_addresses, read_keys, read_vectors
from tests.child import limit_file_size, run_in_child
from tests.index.made import DIM, HEADER, by_image, files, names, some


def kept_in(store: Store) -> dict[str, np.ndarray]:
    found = {}
    for part in read_vectors(store.table(), store.header.dim):
        spans = zip(part.offsets[:-1], part.offsets[1:], strict=True)
        for image_id, (start, end) in zip(part.images["id"].to_pylist(), spans, strict=True):
            assert image_id not in found
            found[image_id] = store.header.decode(part.codes[start:end])
    return found


@pytest.mark.parametrize("header", [HEADER, StoreHeader("abc", DIM, {}, "int8", 0.8)], ids=["fp16", "int8"])
def test_what_is_added_comes_back(header: StoreHeader, tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", header)
    first, second = some(names(70)), some(["straße 雪", "x" * 5000], seed=1)
    store.add(first, files(first.image_ids))
    store.add(second, files(second.image_ids))
    again = Store(tmp_path / "s")
    assert again.header == header
    expected = by_image(first, header) | by_image(second, header)
    found = kept_in(again)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[i], expected[i]) for i in expected)
    assert again.files()["image 00003"] == files(["image 00003"])[0]
    (part,) = read_vectors(again.table(), DIM, matching_addresses(again.table(), "id = 'image 00003'"))
    assert first.boxes is not None
    np.testing.assert_allclose(part.boxes, first.boxes[first.offsets[3] : first.offsets[4]], atol=1e-3)


def test_int8_loses_little(tmp_path: Path) -> None:
    """A code is at most half a step away; what is outside the range is cut off."""
    header = StoreHeader("abc", DIM, {}, "int8", 0.9)
    vectors = some(names(50)).vectors
    error = np.abs(header.decode(header.encode(vectors)) - vectors.clip(-0.9, 0.9))
    assert error.max() <= 0.9 / 127 / 2 + 1e-6


def test_keys_are_never_used_again(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", HEADER)
    seen: set[int] = set()
    for _ in range(5):
        store.add(some(["a", "b"]), files(["a", "b"]))
        keys = set(store.keys().tolist())
        assert len(keys) == 2
        assert not keys & seen
        seen |= keys
        store.put(some(["b"], seed=3), files(["b"]))
        (renewed,) = store.keys("id = 'b'").tolist()
        assert renewed not in seen
        seen.add(renewed)
        assert store.delete_ids(["a", "b"]) == 2


def test_metadata_columns(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", HEADER)
    store.add(some(["a"]), files(["a"]))
    store.add(some(["b", "c"]), files(["b", "c"]), {"camera": ["front", None], "speed": [3, 4]})
    assert store.user_columns == ["camera", "speed"]
    rows = store.table().to_table(["id", "camera", "speed"]).to_pylist()
    assert sorted(rows, key=lambda r: r["id"]) == [
        {"id": "a", "camera": None, "speed": None},
        {"id": "b", "camera": "front", "speed": 3},
        {"id": "c", "camera": None, "speed": 4},
    ]
    before = store.keys().tolist()
    store.annotate(["a", "c"], {"camera": ["left", "right"]})
    assert store.keys("camera = 'left'").tolist() == store.keys("id = 'a'").tolist()
    assert sorted(store.keys().tolist()) == sorted(before)  # their vectors are the same
    with pytest.raises(ValueError, match="can't be named 'uri'"):
        store.add(some(["d"]), files(["d"]), {"uri": ["x"]})
    with pytest.raises(ValueError, match="1 images need as many values of 'camera', not 2"):
        store.add(some(["d"]), files(["d"]), {"camera": ["x", "y"]})
    with pytest.raises(ValueError, match="'speed' holds whole numbers, not text"):
        store.add(some(["d"]), files(["d"]), {"speed": ["fast"]})
    assert "d" not in store.ids()


def test_refusals(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", HEADER)
    store.add(some(["a"]), files(["a"]))
    with pytest.raises(ValueError, match="image 'a'"):
        store.add(some(["b", "a"]), files(["b", "a"]))
    assert store.ids() == {"a"}
    with pytest.raises(ValueError, match="16 dimensions, not 5"):
        store.add(some(["w"], dim=5), files(["w"]))
    with pytest.raises(ValueError, match=r"another model \('some model'"):
        create_store(tmp_path / "s", StoreHeader("other", DIM, {}))
    with pytest.raises(ValueError, match="fp16 or int8, not 'fp8'"):
        StoreHeader("abc", DIM, {}, "fp8")  # type: ignore[arg-type]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.jpg").touch()
    with pytest.raises(ValueError, match="pictures"):
        create_store(tmp_path / "pictures", HEADER)
    with pytest.raises(ValueError, match="pictures"):
        Store(tmp_path / "pictures")
    with pytest.raises(ValueError, match="nowhere"):
        Store(tmp_path / "nowhere")
    lance.write_dataset(pa.table({"x": [1]}), str(tmp_path / "foreign" / "images.lance"))
    with pytest.raises(ValueError, match="a Lance table, but no forclip store"):
        Store(tmp_path / "foreign")


def test_a_newer_older_or_damaged_store_is_refused(tmp_path: Path) -> None:
    for name, header in {
        "newer": json.dumps({**json.loads(HEADER.to_json()), "format_version": FORMAT_VERSION + 1}),
        "strange": json.dumps({"format_version": FORMAT_VERSION, "colour": "red"}),
        "broken": "{",
    }.items():
        schema = HEADER.schema().with_metadata({b"forclip": header.encode()})
        lance.write_dataset(schema.empty_table(), str(tmp_path / name / "images.lance"))
    with pytest.raises(ValueError, match=rf"newer: format version {FORMAT_VERSION + 1}; this forclip reads"):
        Store(tmp_path / "newer")
    for name in ("strange", "broken"):
        with pytest.raises(ValueError, match=f"{name}: the store's header is damaged"):
            Store(tmp_path / name)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "store.json").write_text('{"format_version": 1}')
    with pytest.raises(ValueError, match=r"format version 1; .* index the images again"):
        Store(tmp_path / "old")
    store = create_store(tmp_path / "cut", HEADER)
    store.add(some(["a"]), files(["a"]))
    for manifest in (tmp_path / "cut" / "images.lance" / "_versions").iterdir():
        manifest.write_bytes(manifest.read_bytes()[:20])
    with pytest.raises(ValueError, match="cut: damaged: "):
        Store(tmp_path / "cut")


def test_a_killed_creation_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "s" / "images.lance" / "data").mkdir(parents=True)
    create_store(tmp_path / "s", HEADER).add(some(["a"]), files(["a"]))
    assert Store(tmp_path / "s").ids() == {"a"}


def test_compacting_changes_nothing_but_room(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", HEADER)
    for part in range(6):
        ids = names(20, f"part {part}")
        store.add(some(ids, seed=part), files(ids))
    store.delete("id LIKE 'part 3%'")
    before, keys = kept_in(store), sorted(store.keys().tolist())
    size = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    store.compact(keep=timedelta(0))
    assert sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()) < size
    after = kept_in(Store(tmp_path / "s"))
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[i], before[i]) for i in before)
    assert sorted(store.keys().tolist()) == keys


def test_a_reader_continues_while_another_process_compacts(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", HEADER)
    for part in range(3):
        store.add(some([f"{part}"], seed=part), files([f"{part}"]))
    reader = Store(tmp_path / "s").table()
    store.delete_ids(["1"])
    store.compact()
    assert len(read_keys(reader)) == 3
    assert len(list(read_vectors(reader, DIM))) > 0


def test_a_damaged_vector_file_is_reported(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", HEADER)
    store.add(some(names(30)), files(names(30)))
    (data,) = (tmp_path / "s" / "images.lance" / "data").iterdir()
    data.write_bytes(data.read_bytes()[:500])
    fresh = Store(tmp_path / "s")
    for read in (fresh.ids, fresh.files, fresh.keys, lambda: list(read_vectors(fresh.table(), DIM))):
        with pytest.raises(ValueError, match=r"damaged: "):
            read()


def test_two_writers_take_turns(tmp_path: Path) -> None:
    create_store(tmp_path / "s", HEADER)
    failures: list[BaseException] = []

    def add(prefix: str) -> None:
        try:
            for k in range(8):
                Store(tmp_path / "s").add(some([f"{prefix}{k}"], seed=k), files([f"{prefix}{k}"]))
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=add, args=(prefix,)) for prefix in "ab"]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert failures == []
    store = Store(tmp_path / "s")
    assert len(store.ids()) == 16
    assert len(set(store.keys().tolist())) == 16


def add_on_a_full_disk(folder: str) -> None:
    """What the child of the next test runs: it adds until the disk is full, and tells what was acknowledged."""
    store = Store(Path(folder))
    limit_file_size(60_000)
    for count in (20, 50, 3000):
        store.add(some(names(count, f"{count}"), seed=count), files(names(count, f"{count}")))
        print(count, flush=True)


def test_a_full_disk_is_reported_and_loses_nothing(tmp_path: Path) -> None:
    create_store(tmp_path / "s", HEADER)
    failed = run_in_child(add_on_a_full_disk, tmp_path / "s")
    message = failed.stderr.strip().splitlines()[-1]
    assert message.startswith(f"ValueError: {tmp_path / 's'}: nothing was changed: "), failed.stderr
    acknowledged = [int(line) for line in failed.stdout.split()]
    assert acknowledged == [20, 50]
    store = Store(tmp_path / "s")
    assert store.ids() == {i for count in acknowledged for i in names(count, f"{count}")}
    store.add(some(["after"]), files(["after"]))


def test_opening_says_nothing_on_the_terminal(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from forclip.index.create_store import create_store; "
        "from tests.index.made import HEADER; "
        f"create_store(Path({str(tmp_path / 's')!r}), HEADER)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""


def test_a_change_is_seen_though_the_folder_s_time_is_the_same(tmp_path: Path) -> None:
    """As on a file system whose clock ticks slowly."""
    reader = create_store(tmp_path / "s", HEADER)
    writer = Store(tmp_path / "s")
    versions = tmp_path / "s" / "images.lance" / "_versions"
    now = time.time_ns()
    for k in range(3):
        writer.add(some([f"{k}"]), files([f"{k}"]))
        os.utime(versions, ns=(now, now))
        assert reader.ids() == {str(n) for n in range(k + 1)}


def test_a_folder_that_did_not_change_for_long_is_not_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = create_store(tmp_path / "s", HEADER)
    long_ago = time.time_ns() - 10**11
    os.utime(tmp_path / "s" / "images.lance" / "_versions", ns=(long_ago, long_ago))
    version = store.version
    looks: list[int] = []

    def look(_: object) -> int:
        looks.append(version)
        return version

    monkeypatch.setattr(type(store._table), "latest_version", property(look))
    assert [store.version for _ in range(3)] == [version] * 3
    assert looks == []
    os.utime(tmp_path / "s" / "images.lance" / "_versions")
    assert store.version == version
    assert len(looks) == 1


def test_segments_of_earlier_versions_keep_their_identity() -> None:
    """Segments on disk are found by it; a limit of vectors makes another one."""
    header = StoreHeader("abc", 2, {}, "int8", 0.5, 0.9)
    assert header.identity() == '["abc", 2, "int8", 0.5, 0.9]'
    assert replace(header, max_vectors=7).identity() != replace(header, max_vectors=8).identity() != header.identity()
