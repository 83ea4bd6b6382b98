"""Whatever a metadata file holds, the service answers, and so it does for the columns of older stores."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.parquet
import pytest

from forclip.data.metadata import read_metadata
from forclip.index.image_index import Index
from forclip.index.table import TABLE
from forclip.search.searcher import Searcher
from tests.server.conftest import client_of, search

ODD = {
    "": pa.array([0]),
    "a.b": pa.array([1], pa.uint8()),
    "large": pa.array([2**64 - 1], pa.uint64()),
    "nothing": pa.array([float("nan")]),
    "endless": pa.array([float("inf")]),
    "price": pa.array([Decimal("1.50")]),
    "clock": pa.array([dt.time(10, 15)]),
    "length": pa.array([dt.timedelta(seconds=2)]),
    "moment": pa.array([1], pa.timestamp("ns")),
    "zone": pa.array([dt.datetime(2026, 1, 2, tzinfo=dt.UTC)]),
    "far": pa.array([10**15], pa.timestamp("s")),
    "tags": pa.array([["a", "b"]]),
    "exif": pa.array([{"iso": 100}]),
    "kind": pa.array(["x"]).dictionary_encode(),
    "thumb": pa.array([b"\xff\xd8"]),
    "id": pa.array([5]),
    "_rowid": pa.array([6]),
}


def answers(served: Searcher, index: Index) -> None:
    """Search, show and export through the service."""
    client = client_of(Searcher(index, served.model))
    results = search(client, text="cat", k=60)["results"]
    assert len(results) == len(index)
    for path in ("/api/info", f"/api/images/{results[0]['key']}/details", "/"):
        assert client.get(path).status_code in (200, 404)
    exported = client.post("/api/export", json={"text": "cat", "format": "csv"})
    assert exported.status_code == 200


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_the_service_answers_after_any_metadata_file(served: Searcher, name: str, tmp_path: Path) -> None:
    index = Index(served.index.store.folder)
    files = index.store.files()
    first, *_ = files
    file = tmp_path / name
    if name == "m.csv":
        file.write_bytes(f'image,,Ort,wann,"a""b"\n{first},0,Köln,10:15,inf\n'.encode("cp1252"))
    else:
        pa.parquet.write_table(pa.table([pa.array([first]), *ODD.values()], ["image", *ODD]), file)
    metadata = read_metadata(file).match({i: f.uri for i, f in files.items()}, None, index.store.table().schema)
    index.store.annotate(list(metadata.row_of), metadata.values_for(list(metadata.row_of)))
    assert index.verify() == []
    answers(served, index)
    index.store.annotate([first], {"more": [1]})
    if name == "m.csv":
        assert len(index.store.keys("`Ort` = 'Köln'")) == 1


@pytest.mark.parametrize("repaired", [False, True])
def test_the_service_answers_for_columns_of_older_stores(served: Searcher, repaired: bool) -> None:
    index = Index(served.index.store.folder)
    first, *_ = index.store.ids()
    table = str(index.store.folder / TABLE)
    odd = {name: values for name, values in ODD.items() if "." not in name and name not in ("", "id", "_rowid", "kind")}
    lance.dataset(table).add_columns(pa.schema({name: values.type for name, values in odd.items()}))
    rows = pa.table({"id": [first], **odd})
    lance.dataset(table).merge_insert("id").when_matched_update_all().execute(rows)
    lance.dataset(table).add_columns(pa.schema({"": pa.string()}))
    if repaired:
        index.compact()
        assert index.verify() == []
    answers(served, index)
