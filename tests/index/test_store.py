"""The store: what is added is there, whole, and nothing else gets in."""

import json
from pathlib import Path

import numpy as np
import pytest

from forclip.index.store import Store, StoreHeader, create_store
from forclip.types import ImageEmbeddings

HEADER = StoreHeader("abc", 4, {"name": "some model"})


def some(ids: tuple[str, ...], seed: int = 0) -> ImageEmbeddings:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((2 * len(ids), 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    boxes = np.sort(rng.random((2 * len(ids), 4)).astype(np.float32))
    return ImageEmbeddings(vectors, np.arange(len(ids) + 1) * 2, ids, boxes)


def test_what_is_added_comes_back(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store", HEADER)
    first, second = some(("a", "b")), some(("straße 雪", "x" * 5000), seed=1)
    store.add(first, ("/a", "/b"))
    store.add(second, ("/s", "/x"))
    loaded = Store(tmp_path / "store").load()
    assert loaded.embeddings.image_ids == (*first.image_ids, *second.image_ids)
    assert loaded.uris == ("/a", "/b", "/s", "/x")
    assert loaded.embeddings.offsets.tolist() == [0, 2, 4, 6, 8]
    np.testing.assert_allclose(loaded.embeddings.vectors, np.concatenate([first.vectors, second.vectors]), atol=1e-3)
    assert first.boxes is not None
    assert loaded.embeddings.boxes is not None
    np.testing.assert_allclose(loaded.embeddings.boxes[:4], first.boxes, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(loaded.embeddings.vectors, axis=1), 1, atol=1e-6)


def test_a_part_that_was_not_finished_does_not_count(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store", HEADER)
    store.add(some(("a",)), ("/a",))
    (tmp_path / "store" / "part-000001.partial").write_bytes(b"half of it")
    assert store.image_ids() == {"a"}
    store.add(some(("b",)), ("/b",))
    assert Store(tmp_path / "store").load().embeddings.image_ids == ("a", "b")


def test_refusals(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store", HEADER)
    with pytest.raises(ValueError, match="empty"):
        store.load()
    store.add(some(("a",)), ("/a",))
    with pytest.raises(ValueError, match="'a' is there already"):
        store.add(some(("b", "a")), ("/b", "/a"))
    assert store.image_ids() == {"a"}
    wide = ImageEmbeddings(np.eye(5, dtype=np.float32), np.array([0, 5]), ("w",))
    with pytest.raises(ValueError, match="4 dimensions, not 5"):
        store.add(wide, ("/w",))
    with pytest.raises(ValueError, match=r"another model \('some model'"):
        create_store(tmp_path / "store", StoreHeader("other", 4, {}))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.jpg").touch()
    with pytest.raises(ValueError, match="no forclip store"):
        create_store(tmp_path / "pictures", HEADER)
    with pytest.raises(ValueError, match="no forclip store there"):
        Store(tmp_path / "pictures")


def test_a_newer_or_damaged_store_is_refused(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store", HEADER)
    store.add(some(("a",)), ("/a",))
    header = tmp_path / "store" / "store.json"
    content = json.loads(header.read_text())
    header.write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(ValueError, match="format version 99"):
        Store(tmp_path / "store")
    header.write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        Store(tmp_path / "store")
    header.write_text(json.dumps(content))
    part = tmp_path / "store" / "part-000000.safetensors"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"part-000000.*damaged"):
        Store(tmp_path / "store").load()
