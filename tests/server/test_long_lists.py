"""Lists of thousands of images: streamed by a running service, equal to the library's list, and exported."""

import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from forclip.cli import app
from forclip.config import ModelConfig
from forclip.index.image_index import Index
from forclip.index.store import ImageFile
from forclip.models.retrieval_model import store_header
from forclip.search.searcher import Searcher
from forclip.server import answers, limits
from forclip.server.app import create_app
from forclip.server.gallery import Gallery
from forclip.types import ImageEmbeddings
from tests.server.conftest import serving

IMAGES = 3_000
LINES = {"Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def long_searcher(model: Searcher, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Searcher over images that have two random vectors each, and no pictures."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2 * IMAGES, model.model.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = tuple(f"/photos/{n:05d}.jpg" for n in range(IMAGES))
    header = store_header(model.model, ModelConfig("forclip-mini"), "sum", 25)
    index = Index.create(tmp_path_factory.mktemp("long") / "store", header)
    embeddings = ImageEmbeddings(vectors, np.arange(0, 2 * IMAGES + 1, 2), ids)
    index.add(embeddings, [ImageFile(i, 640, 480) for i in ids], {"odd": [n % 2 for n in range(IMAGES)]})
    return Searcher(index, model.model)


@pytest.fixture(scope="module")
def long_address(long_searcher: Searcher) -> Iterator[str]:
    with serving(create_app(long_searcher)) as address:
        yield address


def post(address: str, path: str = "api/search", **options: Any) -> httpx.Response:
    response = httpx.post(f"{address}{path}", timeout=60, **options)
    assert response.status_code == 200, response.text
    return response


def test_a_long_list_is_the_library_s_list_in_one_document(long_address: str, long_searcher: Searcher) -> None:
    response = post(long_address, json={"text": "snail", "k": limits.K})
    assert response.headers["transfer-encoding"] == "chunked"
    content = response.json()
    expected = long_searcher.search("snail", IMAGES)
    assert [r["name"] for r in content["results"]] == [Path(r.uri).name for r in expected]
    assert [r["score"] for r in content["results"]] == pytest.approx([r.score for r in expected])
    assert [r["rank"] for r in content["results"]] == list(range(1, IMAGES + 1))
    assert content["images"] == IMAGES
    assert content["confidence"] is content["labels"] is None


def test_a_long_document_has_the_form_of_a_short_one(long_address: str) -> None:
    short = post(long_address, json={"text": "snail", "k": 5})
    long = post(long_address, json={"text": "snail", "k": limits.WHOLE_ANSWER + 1}).json()
    assert "transfer-encoding" not in short.headers
    assert list(long) == list(short.json())
    assert long["results"][:5] == short.json()["results"]


def test_lines_hold_the_results_of_the_document(long_address: str) -> None:
    for k in (3, 1_200):
        body = {"text": "snail", "k": k, "where": "odd = 1", "offset": 2}
        response = post(long_address, json=body, headers=LINES)
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in response.text.splitlines()]
        assert lines == post(long_address, json=body).json()["results"]
        assert len(lines) == k
    assert post(long_address, json={"text": "snail", "min_score": 1.0}, headers=LINES).text == ""


def test_similar_images_and_uploads_are_streamed_too(long_address: str, store_folder: Path) -> None:
    first = post(long_address, json={"text": "snail", "k": 1}).json()["results"][0]
    similar = post(long_address, "api/similar", json={"key": first["key"], "k": limits.K}).json()["results"]
    assert len({r["key"] for r in similar} | {first["key"]}) == IMAGES
    picture = next((store_folder / "pictures").glob("*.jpg")).read_bytes()
    form: dict[str, Any] = {"files": {"picture": ("a.jpg", picture)}, "data": {"k": str(limits.K)}}
    lines = post(long_address, "api/similar/upload", headers=LINES, **form).text.splitlines()
    assert len(lines) == IMAGES


def test_a_minimum_score_ends_a_long_list(long_address: str, long_searcher: Searcher) -> None:
    bound = long_searcher.search("snail", 2_000)[-1].score - 1e-9
    content = post(long_address, json={"text": "snail", "k": limits.K, "min_score": bound}).json()
    assert len(content["results"]) == 2_000


def test_images_deleted_while_an_answer_is_sent_are_left_out(
    long_searcher: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_BLOCK", 2)
    monkeypatch.setattr(limits, "WHOLE_ANSWER", 3)
    with serving(create_app(long_searcher)) as address:
        whole = post(address, json={"text": "snail", "k": 6}).json()["results"]
        gone = {whole[n]["key"] for n in (0, 1, 3)}
        by_key = Gallery.by_key
        monkeypatch.setattr(
            Gallery, "by_key", lambda gallery, keys: by_key(gallery, [k for k in keys if str(k) not in gone])
        )
        left = post(address, json={"text": "snail", "k": 6}).json()["results"]
        assert left == [r for r in whole if r["key"] not in gone]
        gone |= {r["key"] for r in whole}
        assert post(address, json={"text": "snail", "k": 6}).json()["results"] == []


def test_a_broken_stream_is_no_complete_answer(long_searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client must not take the first half of a list for all of it."""
    with serving(create_app(long_searcher)) as address:
        by_key, calls = Gallery.by_key, iter(range(10))

        def fail_later(gallery: Gallery, keys: Any) -> Any:
            if next(calls):
                raise OSError("the disk is gone")
            return by_key(gallery, keys)

        monkeypatch.setattr(Gallery, "by_key", fail_later)
        for headers in ({}, LINES):
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.post(f"{address}api/search", json={"text": "snail", "k": 2_000}, headers=headers, timeout=60)
            calls = iter(range(10))


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"k": limits.K + 1}, ["k:", str(limits.K), str(limits.K + 1)]),
        ({"k": 0}, ["k:", "not 0"]),
        ({"offset": -4}, ["offset:", "not -4"]),
        ({"k": 20_000, "collapse": 0.95}, [str(limits.COLLAPSED), "20000"]),
    ],
)
def test_a_list_that_is_too_long_is_refused_by_a_sentence_with_both_numbers(
    long_address: str, body: dict[str, Any], named: list[str]
) -> None:
    response = httpx.post(f"{long_address}api/search", json={"text": "snail", **body}, timeout=60)
    assert response.status_code == 422
    for part in named:
        assert part in response.json()["detail"]


@pytest.mark.parametrize("format", ["coco", "csv", "files"])
def test_a_long_list_is_exported_whole(long_address: str, format: str) -> None:
    response = post(long_address, "api/export", json={"text": "snail", "k": limits.K, "format": format})
    assert int(response.headers["content-length"]) == len(response.content)
    if format == "coco":
        assert len(response.json()["annotations"]) == IMAGES
    else:
        rows = list(csv.reader(StringIO(response.text)))
        assert len(rows) == IMAGES + (format == "csv")


def test_lists_like_a_picture_are_exported_whole(long_address: str, store_folder: Path) -> None:
    key = post(long_address, json={"text": "snail", "k": 1}).json()["results"][0]["key"]
    similar = post(long_address, "api/export/similar", json={"key": key, "k": limits.K, "format": "files"})
    assert len(similar.text.splitlines()) == IMAGES - 1
    picture = next((store_folder / "pictures").glob("*.jpg")).read_bytes()
    form: dict[str, Any] = {"files": {"picture": ("a.jpg", picture)}, "data": {"k": str(limits.K), "format": "coco"}}
    assert len(post(long_address, "api/export/upload", **form).json()["images"]) == IMAGES


def test_commands_take_a_long_limit(long_searcher: Searcher, tmp_path: Path) -> None:
    store = str(long_searcher.index.store.folder)
    found = CliRunner().invoke(app, ["search", store, "snail", "--limit", "20000", "--json"])
    assert [r["image_id"] for r in json.loads(found.stdout)] == [
        r.image_id for r in long_searcher.search("snail", IMAGES)
    ]
    to = tmp_path / "list.txt"
    exported = CliRunner().invoke(app, ["export", store, "snail", "-k", "20000", "--format", "files", "--to", str(to)])
    assert exported.exit_code == 0, exported.output
    assert len(to.read_text().splitlines()) == IMAGES
