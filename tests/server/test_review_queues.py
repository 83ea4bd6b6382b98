"""Review queues: which images they have, answers, undo, and the precision that follows, kept next to the index."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from forclip.search.searcher import Searcher
from forclip.server import limits
from forclip.server.gallery import Gallery
from tests.server.conftest import CALIBRATION, PICTURES, client_of, search, search_keys

PATH = "/api/reviewers/ana/queue"


def open_queue(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post(
        PATH, json={"search": "s", **({} if {"key", "keys"} & set(body) else {"text": "snail"}), **body}
    )
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def answer(client: TestClient, position: int, said: str, status: int = 200) -> dict[str, Any]:
    response = client.post(f"{PATH}/answer", json={"search": "s", "position": position, "answer": said})
    assert response.status_code == status, response.text
    content: dict[str, Any] = response.json()
    return content


def keys(queue: dict[str, Any], drawn: bool | None = None) -> list[str]:
    return [entry["image"]["key"] for entry in queue["entries"] if drawn in (None, entry["drawn"])]


@pytest.fixture
def calibrated(served: Searcher) -> TestClient:
    return client_of(Searcher(served.index, replace(served.model, calibration=CALIBRATION)))


def test_the_least_certain_come_first_and_every_second_is_drawn(calibrated: TestClient) -> None:
    results = search(calibrated, text="snail", k=PICTURES)["results"]
    distance = {r["key"]: abs(r["probability"] - 0.5) for r in results}
    queue = open_queue(calibrated, length=20)
    assert (queue["order"], queue["length"], queue["position"]) == ("probability", 20, 0)
    assert [entry["drawn"] for entry in queue["entries"]] == [False, True] * 10
    least = [distance[key] for key in keys(queue, drawn=False)]
    assert least == sorted(least)
    assert least[0] == min(distance.values())
    assert len(set(keys(queue))) == 20
    other = open_queue(calibrated, length=20, again=True)
    assert keys(other, drawn=True) != keys(queue, drawn=True), "drawn anew"
    shown = queue["entries"][0]["image"]
    result = next(r for r in results if r["key"] == shown["key"])
    assert shown["box"] == pytest.approx(result["box"], abs=1e-5)
    numbers = ("score", "probability")
    assert [shown[name] for name in numbers] == pytest.approx([result[name] for name in numbers], abs=1e-5)
    assert {**shown, **{name: result[name] for name in (*numbers, "box", "relevant")}} == result


def test_only_images_above_the_cutoff_are_reviewed(calibrated: TestClient, client: TestClient) -> None:
    results = search(calibrated, text="snail", k=PICTURES)["results"]
    likely = [r["key"] for r in results if r["probability"] >= 0.3]
    assert 0 < len(likely) < PICTURES
    assert set(keys(open_queue(calibrated, min_probability=0.3))) == set(likely)
    assert set(keys(open_queue(calibrated, k=7))) == {r["key"] for r in results[:7]}
    least = results[9]["score"]
    by_score = open_queue(client, min_score=least)
    assert by_score["order"] == "cutoff"
    assert by_score["precision"]["images"] == 10
    assert keys(by_score)[0] == results[9]["key"], "nearest to the cut-off"
    everything = open_queue(client)
    assert (everything["order"], everything["length"]) == ("median", PICTURES)
    middle = sorted(results, key=lambda r: abs(r["score"] - (results[29]["score"] + results[30]["score"]) / 2))
    assert keys(everything)[0] in {r["key"] for r in middle[:2]}


def test_answers_are_verdicts_and_are_undone(client: TestClient, served: Searcher) -> None:
    queue = open_queue(client, k=12)
    a, b = keys(queue)[:2]
    client.post("/api/reviewers/ana/verdicts", json={"search": "s", "wrong": [b]})  # while the queue is open
    assert answer(client, 0, "right")["position"] == 1
    assert answer(client, 1, "right")["right"] == 2
    state = answer(client, 2, "skip")
    assert (state["position"], state["right"], state["wrong"]) == (3, 2, 0)
    (given,) = client.get("/api/reviewers/ana").json()["searches"]
    assert ({i["key"] for i in given["right"]}, given["wrong"]) == ({a, b}, [])
    for position in (3, 2):
        undone = client.post(f"{PATH}/undo", json={"search": "s", "position": position}).json()
        assert undone["position"] == position - 1
    (given,) = client.get("/api/reviewers/ana").json()["searches"]
    assert [i["key"] for i in given["wrong"]] == [b], "the verdict that it had before"

    reopened = client_of(served)  # after a restart
    again = open_queue(reopened, k=12)
    assert (again["position"], keys(again)) == (1, keys(queue))
    assert [entry["verdict"] for entry in again["entries"][:3]] == ["right", "wrong", None]
    (listed,) = reopened.get("/api/reviewers/ana/queues").json()
    assert listed == {name: again[name] for name in listed}


def test_a_new_queue_leaves_out_what_has_a_verdict_and_counts_it(client: TestClient) -> None:
    first, second, third = search_keys(client, 3)
    client.post("/api/reviewers/ana/verdicts", json={"search": "s", "right": [first, second], "wrong": [third]})
    queue = open_queue(client, k=10)
    assert queue["length"] == 7
    assert {first, second, third}.isdisjoint(keys(queue))
    assert queue["precision"]["low"] == 0.2
    for position in range(7):
        state = answer(client, position, "right" if position < 4 else "wrong")
    assert state["precision"]["precision"] == state["precision"]["low"] == state["precision"]["high"] == 0.6
    assert state["precision"]["enough_data"]
    assert open_queue(client, k=10)["position"] == 7, "a finished queue stays"
    other = open_queue(client, k=10, again=True)
    assert (other["length"], other["precision"]["precision"]) == (0, 0.6)


def test_few_images_are_not_enough_data(client: TestClient) -> None:
    precision = open_queue(client)["precision"]
    assert (precision["precision"], precision["enough_data"], precision["images"]) == (None, False, PICTURES)
    for position in range(4):
        precision = answer(client, position, "right")["precision"]
    assert 1 <= precision["drawn"] <= 2
    assert precision["precision"] > 0
    assert not precision["enough_data"]


def test_images_like_one_and_a_region_are_reviewed(client: TestClient) -> None:
    key = search_keys(client, 1)[0]
    similar = client.post("/api/similar", json={"key": key, "k": PICTURES}).json()["results"]
    queue = open_queue(client, key=key)
    assert queue["length"] == PICTURES - 1 == len({*keys(queue)} - {key})
    assert queue["precision"]["images"] == len(similar)
    region = {"x0": 0, "y0": 0, "x1": 0.5, "y1": 0.5}
    assert open_queue(client, key=key, box=region, k=5)["length"] == 5
    some = search_keys(client, 3)
    several = client.post("/api/similar", json={"keys": some, "k": 4}).json()["results"]
    assert set(keys(open_queue(client, keys=some, k=4))) == {r["key"] for r in several}


def test_deleted_images_leave_a_gap(client: TestClient, served: Searcher) -> None:
    queue = open_queue(client, k=6)
    served.index.delete_ids(Gallery(served.index).ids_of_keys(keys(queue)[:1]))
    again = open_queue(client, k=6)
    assert [entry["image"] is None for entry in again["entries"]] == [True] + [False] * 5
    assert answer(client, 0, "skip")["position"] == 1


def test_what_does_not_fit_is_refused(client: TestClient, calibrated: TestClient) -> None:
    answer(client, 0, "right", 404)
    open_queue(client, k=2)
    assert "0 images" in answer(client, 1, "right", 409)["detail"]
    assert client.post(f"{PATH}/undo", json={"search": "s", "position": 0}).status_code == 409
    answer(client, 0, "right")
    answer(client, 1, "wrong")
    answer(client, 2, "wrong", 409)
    for body, status in (
        ({"text": "snail", "key": "1"}, 422),
        ({}, 422),
        ({"text": "snail", "box": {"x0": 0, "y0": 0, "x1": 1, "y1": 1}}, 422),
        ({"text": "snail", "k": 3, "min_score": 0.5}, 422),
        ({"text": "snail", "length": limits.QUEUED + 1}, 422),
        ({"text": "snail", "where": "(("}, 400),
        ({"text": "snail", "min_score": 1}, 404),
        ({"text": "snail", "min_probability": 0.5}, 400),  # without a calibration
        ({"key": "1"}, 404),
    ):
        response = client.post(PATH, json={"search": "s", **body})
        assert (response.status_code, list(response.json())) == (status, ["detail"]), (body, response.text)


def test_the_oldest_queue_goes_and_its_verdicts_stay(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUEUES", 2)
    for name in ("s", "t", "u"):
        open_queue(client, search=name, k=3)
        client.post(f"{PATH}/answer", json={"search": name, "position": 0, "answer": "right"})
    assert [queue["search"] for queue in client.get("/api/reviewers/ana/queues").json()] == ["t", "u"]
    assert len(client.get("/api/reviewers/ana").json()["searches"]) == 3


def test_reviews_of_earlier_versions_have_no_queue(client: TestClient, served: Searcher) -> None:
    folder = served.index.state_folder
    assert isinstance(folder, Path)
    (folder / "reviews.json").write_text('{"format_version": 1, "reviews": {"ana": {"verdicts": {}, "saved": []}}}')
    assert client.get("/api/reviewers/ana/queues").json() == []
    assert open_queue(client, k=3)["length"] == 3


def test_an_answer_for_an_earlier_queue_is_refused(client: TestClient) -> None:
    """Two windows review the same search with other cut-offs: position 0 is another image in each."""
    first = open_queue(client, k=10)
    second = open_queue(client, k=20)
    assert first["queue"] != second["queue"]
    said = {"search": "s", "position": 0}
    for part, fields in (("answer", {"answer": "right"}), ("undo", {})):
        response = client.post(f"{PATH}/{part}", json={**said, **fields, "queue": first["queue"]})
        assert response.status_code == 409, response.text
    assert client.get("/api/reviewers/ana").json()["searches"] == []
    response = client.post(f"{PATH}/answer", json={**said, "answer": "right", "queue": second["queue"]})
    assert response.json()["position"] == 1
    assert open_queue(client, k=20)["queue"] == second["queue"], "continued"
