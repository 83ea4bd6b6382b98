"""The service with labels: class metrics computed in the background, and verdicts on search results."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from forclip.config import SourceConfig
from forclip.search.labels import StoreLabels, evaluate_classes, evaluate_list, load_store_labels
from forclip.search.searcher import Searcher
from forclip.server import class_table
from forclip.toyworld.dataset import ToyWorld
from tests.server.conftest import PICTURES, client_of, search


@pytest.fixture(scope="session")
def labels(model: Searcher, store_folder: Path, small_world: ToyWorld) -> StoreLabels:
    """Labels of all images but the renamed one. Every second class is novel; every second class is verified only in
    the first forty images."""
    loaded = load_store_labels(model.index, SourceConfig(small_world.gallery_file, store_folder / "pictures"))
    verified = loaded.images.verified_mask
    verified[40:, ::2] = False
    groups: dict[str, Any] = {n: ("base", "novel")[k % 2] for k, n in enumerate(loaded.images.class_names)}
    return StoreLabels(replace(loaded.images, verified=verified), groups)


@pytest.fixture
def client(served: Searcher, labels: StoreLabels) -> Iterator[TestClient]:
    with client_of(served, labels=labels) as client:
        yield client


def wait_for_classes(client: TestClient) -> dict[str, Any]:
    for _ in range(600):
        answer: dict[str, Any] = client.get("/api/classes").json()
        if answer["state"] != "measuring":
            return answer
        time.sleep(0.05)
    raise AssertionError(answer)


def test_classes_are_measured_after_the_start(client: TestClient, served: Searcher, labels: StoreLabels) -> None:
    answer = wait_for_classes(client)
    assert (answer["state"], answer["images"]) == ("measured", PICTURES - 1)
    names = labels.images.class_names
    texts = np.stack([served.encode_text(name) for name in names])
    expected = evaluate_classes(served.index, labels, texts)
    assert answer["means"] == pytest.approx(expected.means(labels.groups))
    assert [c["name"] for c in answer["classes"]] == list(names)
    assert [c["images"] for c in answer["classes"]] == expected.relevant.tolist()
    by_name = {c.name: c for c in expected.classes}
    for row in answer["classes"]:
        assert row["group"] == labels.groups[row["name"]]
        if row["name"] in by_name:
            assert row["average_precision"] == pytest.approx(by_name[row["name"]].average_precision)
            assert row["precision_at_10"] == pytest.approx(by_name[row["name"]].precision_at_10)
            assert row["left_out"] is None
        else:
            assert row["average_precision"] is None
            assert row["left_out"]


def test_searches_are_answered_while_classes_are_measured(
    client: TestClient, served: Searcher, labels: StoreLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed store starts a new measurement, which this test blocks at its end."""
    wait_for_classes(client)
    release, evaluate = Event(), evaluate_classes

    def blocked(*args: Any) -> Any:
        assert release.wait(30)
        return evaluate(*args)

    monkeypatch.setattr(class_table, "evaluate_classes", blocked)
    served.index.delete_ids([labels.images.image_ids[5]])
    answer = client.get("/api/classes").json()
    assert answer["state"] == "measuring"
    assert answer["images"] == PICTURES - 1, "the earlier metrics are shown meanwhile"
    assert search(client, text="snail")["labels"]["class_name"] == "snail"
    assert 0 <= client.get("/api/classes").json()["progress"] < 1
    release.set()
    assert wait_for_classes(client)["images"] == PICTURES - 2


def test_a_failed_measurement_is_reported_and_search_still_works(
    client: TestClient, served: Searcher, labels: StoreLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_classes(client)
    monkeypatch.setattr(class_table, "evaluate_classes", lambda *_: 1 / 0)
    served.index.delete_ids([labels.images.image_ids[5]])
    assert wait_for_classes(client)["state"] == "failed"
    assert search(client, text="snail")["results"]


def test_a_search_for_a_class_has_verdicts_metrics_and_mistakes(
    client: TestClient, served: Searcher, labels: StoreLabels
) -> None:
    snail = labels.images.class_names.index("snail")
    for column in (snail, snail + 1):  # one is verified in all images, the other is not
        name = labels.images.class_names[column]
        # The same text in every request: the vectors of equivalent texts may differ by rounding.
        text = f" {name.upper()} "
        answer = search(client, text=text, k=60)
        ids = [r.image_id for r in served.search(name, 60)]
        assert [r["relevant"] for r in answer["results"]] == [labels.shows(i, column) for i in ids]
        expected = evaluate_list(served.index, labels, column, served.encode_text(name))
        assert answer["labels"] == {
            "training_images": None,
            "class_name": name,
            "group": labels.groups[name],
            "images": expected.images,
            "enough_data": expected.images >= 5,
            "precision_at_10": pytest.approx(expected.precision_at_10),
            "average_precision": pytest.approx(expected.average_precision),
            "missed": len(expected.missed),
        }
        wrong = search(client, text=text, k=60, only="wrong")["results"]
        assert wrong == [r for r in answer["results"] if r["relevant"] is False]
        assert search(client, text=text, k=3, offset=2, only="wrong")["results"] == wrong[2:5]
        missed = search(client, text=text, k=60, only="missed")["results"]
        assert missed == [r for r in answer["results"] if r["relevant"] and r["rank"] > 50]
        table = next(c for c in wait_for_classes(client)["classes"] if c["name"] == name)
        assert table["average_precision"] == pytest.approx(expected.average_precision)
        front = search(client, text=text, k=60, where="camera = 'front'", only="wrong")["results"]
        assert [r["name"] for r in front] == [r["name"] for r in wrong if r["metadata"]["camera"] == "front"]


def test_some_class_has_missed_images(client: TestClient) -> None:
    """Check that the data can make the test above fail."""
    assert any(search(client, text=c["name"])["labels"]["missed"] for c in wait_for_classes(client)["classes"])


def test_a_text_that_names_no_class_has_no_verdicts(client: TestClient) -> None:
    for request in ({"text": "a snail on a leaf"}, {"any_of": ["snail", "anchor"]}):
        answer = search(client, **request)
        assert answer["labels"] is None
        assert {r["relevant"] for r in answer["results"]} == {None}
    refused = client.post("/api/search", json={"text": "a snail on a leaf", "only": "wrong"})
    assert (refused.status_code, "a snail on a leaf" in refused.json()["detail"]) == (400, True)
    for more in ({"any_of": ["anchor"]}, {"cutoff": "auto"}):
        assert client.post("/api/search", json={"text": "snail", "only": "wrong"} | more).status_code == 422
    bad = client.post("/api/search", json={"text": "snail", "only": "missed", "where": "no such thing"})
    assert bad.status_code == 400


def test_without_labels_there_are_no_classes(served: Searcher) -> None:
    with client_of(served) as client:
        answer = client.get("/api/classes").json()
        assert (answer["state"], answer["classes"]) == ("no labels", [])
        assert search(client, text="snail")["labels"] is None
        assert client.post("/api/search", json={"text": "snail", "only": "wrong"}).status_code == 400


def test_the_service_stops_during_a_measurement(
    served: Searcher, labels: StoreLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = served.encode_texts

    def slow(texts: Sequence[str]) -> Any:
        encoded.extend(text for text in texts if text in labels.images.class_names)
        time.sleep(0.05)
        return encode(texts)

    monkeypatch.setattr(served, "encode_texts", slow)
    with client_of(served, labels=labels):
        while not encoded:
            time.sleep(0.01)
    assert len(encoded) < len(labels.images.class_names)
