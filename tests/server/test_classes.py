"""The service with labels: its classes, measured beside the searches, and what labels say of a list."""

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
from forclip.server.app import create_app
from forclip.toyworld.dataset import ToyWorld
from tests.server.conftest import PICTURES


@pytest.fixture(scope="session")
def labels(model: Searcher, made_store: Path, small_world: ToyWorld) -> StoreLabels:
    """Of the pictures in the store: the small world's gallery, without the one with another name. Half of the classes
    are novel; every second class was checked in the first forty images alone."""
    found = load_store_labels(model.index, SourceConfig(small_world.gallery_file, made_store / "pictures"))
    verified = found.images.verified_mask
    verified[40:, ::2] = False
    groups: dict[str, Any] = {n: ("base", "novel")[k % 2] for k, n in enumerate(found.images.class_names)}
    return StoreLabels(replace(found.images, verified=verified), groups)


@pytest.fixture
def client(served: Searcher, labels: StoreLabels) -> Iterator[TestClient]:
    with TestClient(create_app(served, labels=labels), base_url="http://127.0.0.1:8000") as made:
        yield made


def measured(client: TestClient) -> dict[str, Any]:
    for _ in range(600):
        answer: dict[str, Any] = client.get("/api/classes").json()
        if answer["state"] != "measuring":
            return answer
        time.sleep(0.05)
    raise AssertionError(answer)


def asked(client: TestClient, **request: Any) -> dict[str, Any]:
    answer = client.post("/api/search", json=request)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def test_classes_are_measured_from_the_start(client: TestClient, served: Searcher, labels: StoreLabels) -> None:
    answer = measured(client)
    assert (answer["state"], answer["images"]) == ("measured", PICTURES - 1)
    store, names = served.index.store, labels.images.class_names
    texts = np.stack([served.encode_text(name) for name in names])
    expected = evaluate_classes(store.table(), store.header, labels, texts)
    assert answer["means"] == pytest.approx(expected.means(labels.groups))
    assert [c["name"] for c in answer["classes"]] == list(names)
    assert [c["images"] for c in answer["classes"]] == expected.relevant.tolist()
    by_name = {c.name: c for c in expected.classes}
    for told in answer["classes"]:
        assert told["group"] == labels.groups[told["name"]]
        if told["name"] in by_name:
            assert told["average_precision"] == pytest.approx(by_name[told["name"]].average_precision)
            assert told["precision_at_10"] == pytest.approx(by_name[told["name"]].precision_at_10)
            assert told["left_out"] is None
        else:
            assert told["average_precision"] is None
            assert told["left_out"]


def test_searches_are_answered_while_classes_are_measured(
    client: TestClient, served: Searcher, labels: StoreLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measuring is held up at its very end, and begun anew for a store that has changed."""
    measured(client)
    go_on, evaluate = Event(), evaluate_classes

    def held_up(*given: Any) -> Any:
        assert go_on.wait(30)
        return evaluate(*given)

    monkeypatch.setattr(class_table, "evaluate_classes", held_up)
    served.index.delete_ids([labels.images.image_ids[5]])
    answer = client.get("/api/classes").json()
    assert answer["state"] == "measuring"
    assert answer["images"] == PICTURES - 1, "the numbers known are told meanwhile"
    assert asked(client, text="snail")["labels"]["class_name"] == "snail"
    assert 0 <= client.get("/api/classes").json()["progress"] < 1
    go_on.set()
    assert measured(client)["images"] == PICTURES - 2


def test_what_fails_is_told_and_searching_goes_on(
    client: TestClient, served: Searcher, labels: StoreLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(client)
    monkeypatch.setattr(class_table, "evaluate_classes", lambda *_: 1 / 0)
    served.index.delete_ids([labels.images.image_ids[5]])
    assert measured(client)["state"] == "failed"
    assert asked(client, text="snail")["results"]


def test_a_class_is_judged_image_by_image(client: TestClient, served: Searcher, labels: StoreLabels) -> None:
    snail = labels.images.class_names.index("snail")
    for column in (snail, snail + 1):  # one of them was checked everywhere, the other one not
        name = labels.images.class_names[column]
        # One text for all: of another that means the same the vector may be another by a rounding.
        text = f" {name.upper()} "
        answer = asked(client, text=text, k=60)
        ids = [r.image_id for r in served.search(name, 60)]
        assert [r["relevant"] for r in answer["results"]] == [labels.shows(i, column) for i in ids]
        expected = evaluate_list(served.index, labels, column, served.encode_text(name))
        assert answer["labels"] == {
            "class_name": name,
            "group": labels.groups[name],
            "images": expected.relevant,
            "precision_at_10": pytest.approx(expected.precision_at_10),
            "average_precision": pytest.approx(expected.average_precision),
            "missed": len(expected.missed),
        }
        whole = {r["name"]: r for r in answer["results"]}
        wrong = asked(client, text=text, k=60, only="wrong")["results"]
        assert wrong == [r for r in whole.values() if r["relevant"] is False]
        assert asked(client, text=text, k=3, offset=2, only="wrong")["results"] == wrong[2:5]
        missed = asked(client, text=text, k=60, only="missed")["results"]
        assert missed == [r for r in whole.values() if r["relevant"] and r["rank"] > 50]
        table = next(c for c in measured(client)["classes"] if c["name"] == name)
        assert table["average_precision"] == pytest.approx(expected.average_precision)
        front = asked(client, text=text, k=60, where="camera = 'front'", only="wrong")["results"]
        assert [r["name"] for r in front] == [r["name"] for r in wrong if r["metadata"]["camera"] == "front"]


def test_some_class_misses_images(client: TestClient) -> None:
    """Else the test above would show little."""
    found = measured(client)["classes"]
    assert any(asked(client, text=c["name"])["labels"]["missed"] for c in found)


def test_of_any_other_text_nothing_is_said(client: TestClient) -> None:
    for request in ({"text": "a snail on a leaf"}, {"any_of": ["snail", "anchor"]}):
        answer = asked(client, **request)
        assert answer["labels"] is None
        assert {r["relevant"] for r in answer["results"]} == {None}
    refused = client.post("/api/search", json={"text": "a snail on a leaf", "only": "wrong"})
    assert (refused.status_code, "names no class" in refused.json()["detail"]) == (400, True)
    for more in ({"any_of": ["anchor"]}, {"cutoff": "auto"}):
        assert client.post("/api/search", json={"text": "snail", "only": "wrong"} | more).status_code == 422
    bad = client.post("/api/search", json={"text": "snail", "only": "missed", "where": "no such thing"})
    assert bad.status_code == 400


def test_without_labels_there_are_no_classes(served: Searcher) -> None:
    with TestClient(create_app(served), base_url="http://127.0.0.1:8000") as client:
        answer = client.get("/api/classes").json()
        assert (answer["state"], answer["classes"]) == ("no labels", [])
        assert asked(client, text="snail")["labels"] is None
        assert client.post("/api/search", json={"text": "snail", "only": "wrong"}).status_code == 400


def test_the_service_can_be_stopped_while_it_measures(
    served: Searcher, labels: StoreLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    encode = served.encode_texts

    def slow(texts: Sequence[str]) -> Any:
        counted.extend(text for text in texts if text in labels.images.class_names)
        time.sleep(0.05)
        return encode(texts)

    monkeypatch.setattr(served, "encode_texts", slow)
    with TestClient(create_app(served, labels=labels), base_url="http://127.0.0.1:8000"):
        while not counted:
            time.sleep(0.01)
    assert len(counted) < len(labels.images.class_names)
