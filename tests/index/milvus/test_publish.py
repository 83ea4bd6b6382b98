"""Publishing: only changes are sent, a stop at any moment loses and doubles nothing, and both sides can be compared."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forclip.embedding.merge import limit_vectors, make_reduce
from forclip.index.image_index import Index
from forclip.index.milvus import index, source
from forclip.index.milvus.columns import vectors_schema
from forclip.index.milvus.compare import compare_with_store, verify_published
from forclip.index.milvus.create import PublishOptions
from forclip.index.milvus.index import MilvusIndex
from forclip.index.milvus.publish import PublishSummary, publish
from forclip.index.milvus.server import MilvusServer
from forclip.index.milvus.settings import read_version
from forclip.index.milvus.vectors import from_field, pack_boxes, query_values, row_name, to_field, unpack_boxes
from forclip.index.schema import StoreHeader
from tests.index.killing import kill
from tests.index.made import DIM, HEADER, by_image, files, names, oracle, some, unit
from tests.milvus_server import new_name

QUERY = unit(np.random.default_rng(3), DIM)


@pytest.fixture
def local(tmp_path: Path) -> Index:
    """A store of 40 images."""
    made = Index.create(tmp_path / "store", HEADER)
    made.add(some(names(40)), files(names(40)), {"camera": ["front", "back"] * 20})
    return made


@pytest.fixture
def place(milvus_server: str) -> str:
    return f"{milvus_server}/{new_name()}"


def send(local: Index, place: str, **options: Any) -> PublishSummary:
    return publish(local.store, place, PublishOptions(**options), make_reduce)


def assert_equal(local: Index, place: str) -> None:
    searched = MilvusIndex(place)
    assert compare_with_store(searched, local.store, make_reduce) == []
    assert verify_published(searched) == []
    assert searched.search(QUERY, 100) == local.search(QUERY, 100)


def test_only_what_changed_is_sent(local: Index, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = send(local, place)
    assert (first.added, first.updated, first.deleted, first.unchanged) == (40, 0, 0, 0)
    assert first.vectors == local.info()["vectors"]
    number, written = read_version(MilvusIndex(place).server).number, list[int]()
    write = MilvusServer.write

    def noted(server: MilvusServer, collection: str, rows: list[dict[str, Any]], is_new: bool = False) -> None:
        written.extend(row["image"] for row in rows if "unused" in row and "image" in row)
        write(server, collection, rows, is_new)

    monkeypatch.setattr(MilvusServer, "write", noted)
    again = send(local, place)
    assert (again.added, again.updated, again.deleted, again.unchanged) == (0, 0, 0, 40)
    assert read_version(MilvusIndex(place).server).number == number
    local.delete_ids(names(40)[:3])
    local.put(some(names(40)[5:7], seed=5), files(names(40)[5:7]))
    local.add(some(["one more"], seed=6), files(["one more"]))
    changed = send(local, place)
    assert (changed.added, changed.updated, changed.deleted, changed.unchanged) == (1, 2, 3, 35)
    assert sorted(written) == sorted(local.keys_of_ids([*names(40)[5:7], "one more"]).values())
    assert_equal(local, place)


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


def change(local: Index, step: int) -> None:
    """Delete, replace and add images."""
    stored = sorted(local.store.ids())
    local.delete_ids(stored[:2])
    local.put(some(stored[4:7], seed=step), files(stored[4:7]))
    added = names(3, f"new {step}")
    local.add(some(added, seed=step + 1), files(added), {"camera": ["front"] * 3})
    local.store.annotate(stored[9:10], {"camera": [f"camera {step}"]})


def test_a_stop_at_any_request_leaves_nothing_twice_or_in_part(
    local: Index, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop before or after some request, change the store meanwhile, and go on."""
    monkeypatch.setattr(source, "_IMAGES_AT_ONCE", 16)  # several blocks
    requests, stop_at, after = count(), -1, False
    plain = {name: getattr(MilvusServer, name) for name in ("write", "delete")}

    def stopping(name: str) -> Any:
        def request(server: MilvusServer, *arguments: Any) -> None:
            number = next(requests)
            if number == stop_at and not after:
                raise Killed
            plain[name](server, *arguments)
            if number == stop_at:
                raise Killed

        return request

    for name in plain:
        monkeypatch.setattr(MilvusServer, name, stopping(name))
    stops, rng = 0, np.random.default_rng(0)
    for step in range(40):
        requests, stop_at, after = count(), int(rng.integers(0, 20)), bool(rng.integers(0, 2))
        try:
            send(local, place)
        except Killed:
            stops += 1
        if step % 2:
            change(local, step)
    assert stops > 20
    monkeypatch.undo()
    send(local, place)
    assert_equal(local, place)
    assert read_version(MilvusIndex(place).server).store_version == local.store.version


def test_killed_processes_leave_a_publication_that_the_next_one_finishes(place: str, tmp_path: Path) -> None:
    assert kill(tmp_path / "s", times=9, seed=1, place=place).total() == 9


def test_fewer_vectors_are_published_and_stay_fewer(local: Index, place: str) -> None:
    send(local, place, max_vectors=2)
    later = some(names(5, "later"), seed=8)
    local.add(later, files(later.image_ids))
    summary = send(local, place)
    assert summary.added == 5
    kept: dict[str, np.ndarray] = {}
    for embeddings in (some(names(40)), later):
        stored = HEADER.decode(HEADER.encode(embeddings.vectors)).astype(np.float32)
        stored /= np.linalg.norm(stored, axis=1, keepdims=True)
        kept |= by_image(limit_vectors(replace(embeddings, vectors=stored), 2))
    assert summary.vectors == sum(map(len, kept.values())) < local.info()["vectors"]
    searched = MilvusIndex(place)
    expected = oracle(kept, QUERY, 10)
    results = searched.search(QUERY, 10)
    assert [r.image_id for r in results] == [i for i, _ in expected]
    assert [r.score for r in results] == pytest.approx([s for _, s in expected], abs=1e-9)
    assert compare_with_store(searched, local.store, make_reduce) == []
    with pytest.raises(ValueError, match="max-vectors 2, not 3"):
        send(local, place, max_vectors=3)


def test_an_int8_store_is_published_with_its_own_codes(tmp_path: Path, place: str) -> None:
    local = Index.create(tmp_path / "s", StoreHeader("abc", DIM, {"name": "some model"}, "int8", 0.9))
    local.add(some(names(30)), files(names(30)))
    send(local, place)
    assert_equal(local, place)


def test_a_damaged_publication_is_found(local: Index, place: str) -> None:
    send(local, place)
    searched = MilvusIndex(place)
    server, keys = searched.server, local.keys_of_ids(names(40))
    lost, partial, other, unowned = (keys[name] for name in names(40)[:4])
    server.client.delete(server.images, ids=[lost])
    server.client.delete(server.vectors, ids=[row_name(partial, 0)])
    row = server.query(server.vectors, ["*"], ids=[row_name(other, 0)])[0]
    server.client.upsert(server.vectors, [{**row, "vector": unit(np.random.default_rng(1), DIM).tolist()}])
    own = verify_published(searched)
    assert any(names(40)[1] in problem and "lacks some" in problem for problem in own)
    assert any(str(lost) in problem and "have no image" in problem for problem in own)
    both = "\n".join(compare_with_store(searched, local.store, make_reduce))
    assert f"image {names(40)[0]!r} is not published" in both
    assert f"image {names(40)[1]!r} lacks some of its vectors" in both
    assert f"image {names(40)[2]!r} has other vectors than in the store" in both
    local.store.annotate(names(40)[3:4], {"camera": ["roof"]})
    local.delete_ids(names(40)[4:5])
    both = "\n".join(compare_with_store(searched, local.store, make_reduce))
    assert f"image {names(40)[3]!r} has other columns than in the store" in both
    assert f"image {names(40)[4]!r} is published and not in the store" in both
    assert unowned != lost


def test_another_store_or_model_is_refused_unless_it_replaces(local: Index, place: str, tmp_path: Path) -> None:
    send(local, place)
    another = Index.create(tmp_path / "another", HEADER)
    another.add(some(names(4, "x")), files(names(4, "x")), {"camera": ["front"] * 4})
    with pytest.raises(ValueError, match="none of the store's"):
        send(another, place)
    trained = Index.create(tmp_path / "trained", replace(HEADER, fingerprint="def"))
    trained.add(some(names(4)), files(names(4)))
    with pytest.raises(ValueError, match="another model"):
        send(trained, place)
    assert_equal(local, place)
    assert send(trained, place, replace=True).added == 4
    assert_equal(trained, place)


def test_a_store_indexed_anew_replaces_its_images(local: Index, place: str) -> None:
    send(local, place)
    local.put(some(names(40), seed=77), files(names(40)))
    assert send(local, place).updated == 40
    assert_equal(local, place)


def test_columns_are_chosen_and_new_ones_need_a_server_that_adds_them(local: Index, place: str) -> None:
    send(local, place, columns=["camera"])
    local.store.annotate(names(40)[:1], {"weather": ["rain"]})
    send(local, place)
    assert MilvusIndex(place).store.user_columns == ["camera"]
    send(local, place, replace=True)
    assert MilvusIndex(place).count("weather = 'rain'") == 1
    send(local, place, replace=True, columns=["weather", "camera", "weather"])
    assert send(local, place, columns=["camera", "weather"]).unchanged == 40  # in any order
    send(local, place, replace=True)
    local.store.annotate(names(40)[:1], {"city": ["Bonn"]})
    with pytest.raises(ValueError, match="can't add the column 'city'"):  # Milvus Lite can't
        send(local, place)
    with pytest.raises(ValueError, match="no column 'town'"):
        send(local, place, replace=True, columns=["town"])


def test_the_models_files_are_published(local: Index, place: str) -> None:
    folder = local.store.model_folder
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(150_000))  # several texts
    send(local, place)
    copied = MilvusIndex(place).store.model_folder
    assert copied != folder
    assert {f.name: f.read_bytes() for f in copied.iterdir()} == {f.name: f.read_bytes() for f in folder.iterdir()}


def test_long_lists_and_large_exact_searches_are_refused(
    local: Index, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(local, place, index="HNSW")
    searched = MilvusIndex(place)
    assert len(searched.search(QUERY, 16_384)) == 40
    with pytest.raises(ValueError, match="at most 16384 images, not 16385"):
        searched.search(QUERY, 16_385)
    monkeypatch.setattr(index, "_MOST_SCANNED", 10)
    with pytest.raises(ValueError, match="over the network"):
        searched.search(QUERY, 5, exact=True)


def test_a_new_publication_is_seen_after_some_seconds(
    local: Index, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(local, place)
    searched = MilvusIndex(place)
    view = searched.view()
    assert searched.view() is view
    local.delete_ids(names(40)[:1])
    send(local, place)
    monkeypatch.setattr(index, "_CHECK_SECONDS", 0.0)
    assert searched.view() is not view
    assert len(searched) == 39


def test_unknown_choices_are_refused_before_anything_is_made(local: Index, place: str) -> None:
    for options, message in (({"index": "B-TREE"}, "unknown index 'B-TREE'"), ({"precision": "fp16"}, "as fp32 only")):
        with pytest.raises(ValueError, match=message):
            send(local, place, **options)
    with pytest.raises(ValueError, match="no published store; forclip publish"):
        MilvusIndex(place)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_vectors_go_through_pymilvus_unchanged(precision: Any) -> None:
    """Milvus Lite has no fp16 and no int8: pymilvus packs them for a server, and unpacks what a server sends."""
    from pymilvus.client import entity_helper, field_data_extractors
    from pymilvus.grpc_gen import schema_pb2

    header = StoreHeader("abc", DIM, {}, "int8" if precision == "int8" else "fp16", 0.9 if precision == "int8" else 1)
    codes = header.encode(unit(np.random.default_rng(0), 5, DIM))
    (info,) = [f.to_dict() for f in vectors_schema([], DIM, precision).fields if f.name == "vector"]
    packed, cache = schema_pb2.FieldData(type=info["type"], field_name="vector"), dict[int, Any]()
    for value in to_field(codes, header, precision):
        entity_helper.pack_field_value_to_field_data(value, packed, info, cache)
    entity_helper.flush_vector_bytes(packed, cache)
    values = [field_data_extractors.decode_cell(packed, n) for n in range(5)]
    assert np.array_equal(from_field(values, header, precision), codes)
    queries = query_values(unit(np.random.default_rng(1), 2, DIM), precision)
    assert queries[0].dtype == {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}[precision]


def test_boxes_are_packed_exactly() -> None:
    boxes = np.random.default_rng(0).random((100, 4)).astype(np.float16)
    assert np.array_equal(unpack_boxes(pack_boxes(boxes)), boxes)
