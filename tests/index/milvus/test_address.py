"""Addresses of published stores, which never hold credentials."""

import sys

import pytest

from forclip.index.milvus.address import is_milvus, parse_address
from forclip.index.milvus.server import MilvusServer


def test_addresses_are_parsed() -> None:
    for text, uri, database, collection in (
        ("milvus://host/photos", "http://host:19530", "", "photos"),
        ("milvus://10.0.0.1:99/db/photos", "http://10.0.0.1:99", "db", "photos"),
        ("milvus+https://host/photos", "https://host:19530", "", "photos"),
        ("milvus://[::1]:1/photos", "http://[::1]:1", "", "photos"),
        ("milvus-lite:///data/try.db/photos", "/data/try.db", "", "photos"),
    ):
        address = parse_address(text)
        assert (address.uri, address.database, address.collection, str(address)) == (uri, database, collection, text)
        assert address.is_lite == text.startswith("milvus-lite")
        assert is_milvus(text)
    assert not is_milvus("photos.store")


@pytest.mark.parametrize(
    "text",
    [
        *("milvus://host", "milvus://host/", "milvus:///photos", "milvus://host/a/b/c", "milvus://host:0x1/photos"),
        *("milvus://host/my-photos", "milvus://host/photos?a=b", "milvus:host/photos", "milvus-lite://try/photos"),
    ],
)
def test_other_texts_are_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("?", ".").split(":")[0]):
        parse_address(text)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="FORCLIP_MILVUS_TOKEN") as error:
        parse_address("milvus://root:secret@host:19530/photos")
    assert "secret" not in str(error.value)


def test_a_missing_server_or_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forclip.index.milvus.server._CONNECT_SECONDS", 0.5)
    monkeypatch.setenv("FORCLIP_MILVUS_TOKEN", "root:secret")
    with pytest.raises(ValueError, match="milvus://127") as error:
        MilvusServer(parse_address("milvus://127.0.0.1:9/photos"))
    assert "secret" not in str(error.value)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ValueError, match=r"pip install 'forclip\[milvus\]'"):
        MilvusServer(parse_address("milvus://127.0.0.1:9/photos"))
