"""Ids are found where they stand, also those that share a hash."""

import numpy as np
import pyarrow as pa
import pytest

from forclip.index import segment as id_lookup
from forclip.index.segment import IdLookup


def test_ids_are_found_where_a_loop_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_lookup, "_IDS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    ids = [f"image {n}" for n in rng.integers(0, 40, 60)]
    places = IdLookup(pa.array(ids))
    for wanted in (["image 3"], [f"image {n}" for n in range(30, 60)], [], ["", "nothing"], ["image 5", "image 5"]):
        assert places.find(wanted).tolist() == [n for n, i in enumerate(ids) if i in wanted]
    assert IdLookup(pa.array([], pa.string())).find(["a"]).tolist() == []


def test_another_id_with_the_same_hash_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_lookup, "_hashes", lambda ids: np.array([len(i) for i in ids], np.int64))
    places = IdLookup(pa.array(["aa", "b", "cc", "aa"]))
    assert places.find(["aa"]).tolist() == [0, 3]
    assert places.find(["dd"]).tolist() == []
