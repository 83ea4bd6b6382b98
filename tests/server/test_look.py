"""A closer look through the API: the stored places, and a heatmap that lies where the answering vector came from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from forclip.data.images.decode import read_image
from forclip.embedding.ingest import index_images
from forclip.index.image_index import Index
from forclip.search.combined import CombinedQuery, search_combined
from forclip.search.searcher import Searcher
from forclip.server.gallery import Gallery
from tests.server.conftest import client_of

Own = tuple[Searcher, Path]


def looked(client: TestClient, key: str, **request: Any) -> dict[str, Any]:
    answer = client.post("/api/look", json={"key": key, **request})
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def first_key(client: TestClient, text: str) -> str:
    found = client.post("/api/search", json={"text": text, "k": 1}).json()
    return str(found["results"][0]["key"])


def test_places_and_scores_are_the_stored_vectors(client: TestClient, served: Searcher) -> None:
    key = first_key(client, "snail")
    found = looked(client, key, text="snail")
    stored = served.index.vectors_of(int(key))
    assert stored is not None
    boxes = [list(place["box"].values()) for place in found["regions"]]
    np.testing.assert_allclose(boxes, stored[1], atol=1e-6)
    scores = [place["score"] for place in found["regions"]]
    np.testing.assert_allclose(scores, stored[0] @ served.encode_text("snail"), atol=1e-6)
    assert found["text"] == "snail"
    best = served.search("snail", 1)[0]
    assert scores[found["winner"]] == max(scores) == pytest.approx(best.score, abs=1e-6)
    assert boxes[found["winner"]] == pytest.approx(best.box)


def test_the_heatmap_is_what_the_model_says_of_the_winner(client: TestClient, served: Searcher) -> None:
    key = first_key(client, "snail")
    found = looked(client, key, text="snail")
    heat, model = found["heatmap"], served.model
    pixels = model.backbone.preprocess(read_image(Path(served.search("snail", 1)[0].uri)))
    with torch.inference_mode():
        # 25 vectors were stored, one for each query token, in their order.
        expected = model.head.position_weights(model.backbone.encode_tokens(pixels[None]))[0, found["winner"]].numpy()
    assert (heat["rows"], heat["columns"]) == model.head.grid
    np.testing.assert_allclose(heat["values"], expected / expected.max(), atol=1e-3)
    assert heat["frame"] == {"x0": 0, "y0": 0, "x1": 1, "y1": 1}
    assert heat["agreement"] == pytest.approx(1, abs=1e-3)
    row, column = divmod(int(np.argmax(heat["values"])), heat["columns"])
    box = found["regions"][found["winner"]]["box"]
    assert box["x0"] < (column + 0.5) / heat["columns"] < box["x1"]
    assert box["y0"] < (row + 0.5) / heat["rows"] < box["y1"]


def test_without_a_text_there_are_places_alone(client: TestClient) -> None:
    found = looked(client, first_key(client, "snail"))
    assert len(found["regions"]) == 25
    assert {place["score"] for place in found["regions"]} == {None}
    assert (found["text"], found["winner"], found["heatmap"]) == (None, None, None)


@pytest.mark.parametrize("kind", ["any_of", "all_of"])
def test_of_several_texts_the_one_that_decided_in_the_list_decides(
    client: TestClient, served: Searcher, kind: str
) -> None:
    texts = ["snail", "anchor"]
    vectors, none = np.stack([served.encode_text(t) for t in texts]), np.zeros((0, served.model.dim), np.float32)
    query = CombinedQuery(vectors, none, none) if kind == "any_of" else CombinedQuery(none, vectors, none)
    results = search_combined(served.index, query, 12)
    assert {r.decided_by for r in results} == {0, 1}
    keys = Gallery(served.index).keys_of_ids([r.image_id for r in results])
    for result in results:
        found = looked(client, str(keys[result.image_id]), **{kind: texts})
        assert found["text"] == texts[result.decided_by]
        assert found["regions"][found["winner"]]["score"] == pytest.approx(result.score, abs=1e-6)


def test_a_merged_vector_is_shown_by_the_nearest_of_the_picture(
    model: Searcher, own_pictures: Own, tmp_path: Path
) -> None:
    _, pictures = own_pictures
    index_images(str(pictures), tmp_path / "merged", merge=0.9)
    merged = Searcher(Index(tmp_path / "merged"), model.model)
    client = client_of(merged)
    key = first_key(client, "snail")
    found = looked(client, key, text="snail")
    assert len(found["regions"]) < 25
    stored = merged.index.vectors_of(int(key))
    assert stored is not None
    pixels = model.model.backbone.preprocess(read_image(Path(merged.search("snail", 1)[0].uri)))
    with torch.inference_mode():
        tokens = model.model.backbone.encode_tokens(pixels[None])
        cosines = model.model.head(tokens)[0].numpy() @ stored[0][found["winner"]]
        expected = model.model.head.position_weights(tokens)[0, int(cosines.argmax())].numpy()
    assert found["heatmap"]["agreement"] == pytest.approx(float(cosines.max()), abs=1e-5)
    np.testing.assert_allclose(found["heatmap"]["values"], expected / expected.max(), atol=1e-3)


def test_a_letterboxed_heatmap_reaches_beyond_the_picture(model: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the frame differs: what is sent is what the model says of it."""
    monkeypatch.setattr(model.model.backbone, "frame", lambda width, height: (0.0, -0.5, 1.0, 1.5))
    client = client_of(model)
    found = looked(client, first_key(client, "snail"), text="snail")
    assert found["heatmap"]["frame"] == {"x0": 0, "y0": -0.5, "x1": 1, "y1": 1.5}


def test_a_second_look_asks_the_model_nothing(client: TestClient, served: Searcher, monkeypatch: Any) -> None:
    key = first_key(client, "snail")
    first = looked(client, key, text="snail")
    monkeypatch.setattr(served, "heatmap", None)
    assert looked(client, key, text="snail") == first


def test_what_is_not_there_or_has_changed_is_refused(own_pictures: Own) -> None:
    searcher, pictures = own_pictures
    client = client_of(searcher)
    key = first_key(client, "snail")
    file = Path(searcher.search("snail", 1)[0].uri)
    Image.new("RGB", (30, 30)).save(file)
    answer = client.post("/api/look", json={"key": key, "text": "snail"})
    assert (answer.status_code, answer.json()) == (409, {"detail": "the picture has changed since it was indexed"})
    assert looked(client, key)["regions"]  # these are the store's own
    file.unlink()
    assert client.post("/api/look", json={"key": key, "text": "snail"}).status_code == 404
    searcher.index.delete_ids([str(file)])
    for request in ({"key": key}, {"key": key, "text": "snail"}, {"key": "12", "text": "snail"}):
        assert client.post("/api/look", json=request).status_code == 404
        assert str(pictures) not in client.post("/api/look", json=request).text


def test_a_wrong_filter_and_too_many_texts_are_refused(client: TestClient, served: Searcher) -> None:
    key = first_key(client, "snail")
    wrong = client.post("/api/look", json={"key": key, "any_of": ["snail", "anchor"], "where": "nonsense = 1"})
    assert wrong.status_code == 400
    assert "nonsense" in wrong.json()["detail"]
    assert str(served.index.store.folder) not in wrong.text
    many = client.post("/api/look", json={"key": key, "any_of": ["snail"] * 6, "all_of": ["anchor"] * 5})
    assert (many.status_code, many.json()["detail"]) == (422, "at most 10 texts in one look")
    assert client.post("/api/look", json={"key": key, "text": "snail", "none_of": ["anchor"]}).status_code == 422
