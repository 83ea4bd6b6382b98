"""The look route returns an image's stored regions and the heatmap of the winning vector."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from forclip.config import ModelConfig
from forclip.data.images.decode import read_image
from forclip.embedding.ingest import index_images
from forclip.index.image_index import Index
from forclip.search.combined import CombinedQuery, search_combined
from forclip.search.searcher import Searcher, open_searcher
from forclip.server.gallery import Gallery
from forclip.toyworld.dataset import ToyWorld
from tests.server.conftest import client_of, search_keys


def look(client: TestClient, key: str, **request: Any) -> dict[str, Any]:
    response = client.post("/api/look", json={"key": key, **request})
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def test_regions_and_scores_are_those_of_the_stored_vectors(client: TestClient, served: Searcher) -> None:
    key = search_keys(client, 1)[0]
    content = look(client, key, text="snail")
    stored = served.index.vectors_of(int(key))
    assert stored is not None
    boxes = [list(region["box"].values()) for region in content["regions"]]
    np.testing.assert_allclose(boxes, stored[1], atol=1e-6)
    scores = [region["score"] for region in content["regions"]]
    np.testing.assert_allclose(scores, stored[0] @ served.encode_text("snail"), atol=1e-6)
    assert content["text"] == "snail"
    best = served.search("snail", 1)[0]
    assert scores[content["winner"]] == max(scores) == pytest.approx(best.score, abs=1e-6)
    assert boxes[content["winner"]] == pytest.approx(best.box)


def test_the_heatmap_is_the_models_for_the_winner(client: TestClient, served: Searcher) -> None:
    key = search_keys(client, 1)[0]
    content = look(client, key, text="snail")
    heat, model = content["heatmap"], served.model
    pixels = model.backbone.preprocess(read_image(Path(served.search("snail", 1)[0].uri)))
    with torch.inference_mode():
        # The store keeps 25 vectors, one per query token, in the same order.
        expected = model.head.position_weights(model.backbone.encode_tokens(pixels[None]))[0, content["winner"]].numpy()
    assert (heat["rows"], heat["columns"]) == model.head.grid
    np.testing.assert_allclose(heat["values"], expected / expected.max(), atol=1e-3)
    assert heat["frame"] == {"x0": 0, "y0": 0, "x1": 1, "y1": 1}
    assert heat["agreement"] == pytest.approx(1, abs=1e-3)
    row, column = divmod(int(np.argmax(heat["values"])), heat["columns"])
    box = content["regions"][content["winner"]]["box"]
    assert box["x0"] < (column + 0.5) / heat["columns"] < box["x1"]
    assert box["y0"] < (row + 0.5) / heat["rows"] < box["y1"]


def test_without_a_text_there_are_regions_without_scores(client: TestClient) -> None:
    content = look(client, search_keys(client, 1)[0])
    assert len(content["regions"]) == 25
    assert {region["score"] for region in content["regions"]} == {None}
    assert (content["text"], content["winner"], content["heatmap"]) == (None, None, None)


@pytest.mark.parametrize("kind", ["any_of", "all_of"])
def test_of_several_texts_the_deciding_one_is_shown(client: TestClient, served: Searcher, kind: str) -> None:
    texts = ["snail", "anchor"]
    vectors, none = np.stack([served.encode_text(t) for t in texts]), np.zeros((0, served.model.dim), np.float32)
    query = CombinedQuery(vectors, none, none) if kind == "any_of" else CombinedQuery(none, vectors, none)
    results = search_combined(served.index, query, 12)
    assert {r.decided_by for r in results} == {0, 1}
    keys = Gallery(served.index).keys_of_ids([r.image_id for r in results])
    for result in results:
        content = look(client, str(keys[result.image_id]), **{kind: texts})
        assert content["text"] == texts[result.decided_by]
        assert content["regions"][content["winner"]]["score"] == pytest.approx(result.score, abs=1e-6)


def test_a_merged_vector_is_shown_by_the_images_nearest_vector(
    model: Searcher, own_pictures: tuple[Searcher, Path], tmp_path: Path
) -> None:
    _, pictures = own_pictures
    index_images(str(pictures), tmp_path / "merged", model=ModelConfig("forclip-mini"), merge=0.9)
    merged = Searcher(Index(tmp_path / "merged"), model.model)
    client = client_of(merged)
    key = search_keys(client, 1)[0]
    content = look(client, key, text="snail")
    assert len(content["regions"]) < 25
    stored = merged.index.vectors_of(int(key))
    assert stored is not None
    pixels = model.model.backbone.preprocess(read_image(Path(merged.search("snail", 1)[0].uri)))
    with torch.inference_mode():
        tokens = model.model.backbone.encode_tokens(pixels[None])
        cosines = model.model.head(tokens)[0].numpy() @ stored[0][content["winner"]]
        expected = model.model.head.position_weights(tokens)[0, int(cosines.argmax())].numpy()
    assert content["heatmap"]["agreement"] == pytest.approx(float(cosines.max()), abs=1e-5)
    np.testing.assert_allclose(content["heatmap"]["values"], expected / expected.max(), atol=1e-3)


def test_a_letterboxed_heatmap_extends_beyond_the_image(small_world: ToyWorld, tmp_path: Path) -> None:
    """A square picture is as high as a wide input, and 9/16 as wide: 7/18 of its width are padding on either side."""
    for file in sorted(small_world.images.glob("gallery_*.jpg"))[:4]:
        shutil.copy(file, tmp_path)
    letterbox = ModelConfig("forclip-mini", image_size=(72, 128), resize_mode="letterbox")
    index_images(str(tmp_path), tmp_path / "store", model=letterbox)
    client = client_of(open_searcher(tmp_path / "store"))
    heat = look(client, search_keys(client, 1)[0], text="snail")["heatmap"]
    assert heat["frame"] == pytest.approx({"x0": -7 / 18, "y0": 0, "x1": 25 / 18, "y1": 1})
    assert (heat["rows"], heat["columns"], len(heat["values"])) == (9, 16, 9 * 16)


def test_a_second_look_does_not_run_the_model(client: TestClient, served: Searcher, monkeypatch: Any) -> None:
    key = search_keys(client, 1)[0]
    first = look(client, key, text="snail")
    monkeypatch.setattr(served, "heatmap", None)
    assert look(client, key, text="snail") == first


def test_a_missing_or_changed_image_is_refused(own_pictures: tuple[Searcher, Path]) -> None:
    searcher, pictures = own_pictures
    client = client_of(searcher)
    key = search_keys(client, 1)[0]
    file = Path(searcher.search("snail", 1)[0].uri)
    Image.new("RGB", (30, 30)).save(file)
    response = client.post("/api/look", json={"key": key, "text": "snail"})
    assert (response.status_code, list(response.json()), "/" in response.text) == (409, ["detail"], False)
    assert look(client, key)["regions"]  # regions need only the store
    file.unlink()
    assert client.post("/api/look", json={"key": key, "text": "snail"}).status_code == 404
    searcher.index.delete_ids([searcher.index.store.id_of(file)])
    for request in ({"key": key}, {"key": key, "text": "snail"}, {"key": "12", "text": "snail"}):
        assert client.post("/api/look", json=request).status_code == 404
        assert str(pictures) not in client.post("/api/look", json=request).text


def test_an_invalid_filter_or_too_many_texts_are_refused(client: TestClient, served: Searcher) -> None:
    key = search_keys(client, 1)[0]
    invalid = client.post("/api/look", json={"key": key, "any_of": ["snail", "anchor"], "where": "nonsense = 1"})
    assert invalid.status_code == 400
    assert "nonsense" in invalid.json()["detail"]
    assert str(served.index.store.folder) not in invalid.text
    many = client.post("/api/look", json={"key": key, "any_of": ["snail"] * 6, "all_of": ["anchor"] * 5})
    assert (many.status_code, "10 texts" in many.json()["detail"]) == (422, True)
    assert client.post("/api/look", json={"key": key, "text": "snail", "none_of": ["anchor"]}).status_code == 422
