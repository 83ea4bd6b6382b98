"""Search requests: validation, cut-offs, confidence, and comparison with labels."""

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from forclip.calibration.model import Calibration
from forclip.cli import app
from forclip.config import SourceConfig
from forclip.search.combined import CombinedQuery, CombinedResult, search_combined
from forclip.search.labels import StoreLabels, evaluate_list, load_store_labels
from forclip.search.output import answer_json, answer_table, describe_confidence
from forclip.search.request import (
    Cutoff,
    SearchError,
    SearchRequest,
    labelled_class,
    most_distinct_vector,
    parse_cutoff,
    run_search,
    run_searches,
)
from forclip.search.searcher import Searcher
from forclip.toyworld.dataset import ToyWorld
from tests.index.made import DIM, unit

CALIBRATION = Calibration(-3.0, 0.5, 1.5, 0.0, 0.9, 0.2, 0.05, 10, 60, {})


@pytest.fixture(scope="module")
def calibrated(searcher: Searcher) -> Searcher:
    return Searcher(searcher.index, replace(searcher.model, calibration=CALIBRATION))


@pytest.fixture(scope="module")
def labels(searcher: Searcher, small_world: ToyWorld) -> StoreLabels:
    loaded = load_store_labels(searcher.index, SourceConfig(small_world.gallery_file, small_world.images))
    return StoreLabels(loaded.images, {"snail": "novel"})


@pytest.mark.parametrize(
    ("text", "cutoff"),
    [
        ("auto", Cutoff("precision", 0.5)),
        ("80%", Cutoff("precision", 0.8)),
        ("0.31", Cutoff("score", 0.31)),
        (".3", Cutoff("score", 0.3)),
        ("-0.1", Cutoff("score", -0.1)),
    ],
)
def test_a_cutoff_is_parsed(text: str, cutoff: Cutoff) -> None:
    assert parse_cutoff(text) == cutoff


@pytest.mark.parametrize("text", ["", "much", "31", "120%", "-5%", "nan", "0.3.1"])
def test_an_invalid_cutoff_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="cut-off") as error:
        parse_cutoff(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"text": "cat", "like": Path("a.jpg")}, "'cat' and like a.jpg"),
        ({"none_of": ("cat",)}, "nothing"),
        ({"text": "cat", "any_of": ("dog",), "cutoff": Cutoff("score", 0.3)}, "any_of"),
        ({"text": "cat", "any_of": ("dog",), "min_score": 0.2}, "any_of"),
        ({"text": "cat", "all_of": ("dog",), "right": ("a",)}, "verdicts"),
        ({"text": "cat", "right": ("a", "b"), "wrong": ("b",)}, "'b'"),
        ({"text": "cat", "right": ("a",), "cutoff": Cutoff("precision", 0.5)}, "verdicts"),
        ({"like": Path("a.jpg"), "cutoff": Cutoff("precision", 0.5)}, "picture"),
        ({"text": "cat", "only": "missed", "wrong": ("a",)}, "missed"),
    ],
)
def test_contradictory_options_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SearchError, match=named):
        SearchRequest(**options)


def test_the_label_combines_all_texts() -> None:
    request = SearchRequest(text="cat", any_of=("dog",), all_of=("ball", "tree"), none_of=("car",))
    assert request.label == "cat or dog and ball and tree not car"
    assert SearchRequest(all_of=("ball",)).label == "ball"
    assert SearchRequest(like=Path("x/cat.jpg")).label == "like cat.jpg"


def test_one_text_returns_the_searchers_results(searcher: Searcher) -> None:
    answer = run_search(searcher, SearchRequest(text="cat", k=7))
    assert answer.results == searcher.search("cat", 7)
    assert [answer.probability(r) for r in answer.results] == [None] * 7
    assert answer_json(answer) == [{**vars(r), "box_frame": "upright"} for r in answer.results]
    assert run_search(searcher, SearchRequest(text="cat", k=3, offset=4)).results == answer.results[4:]


def test_requests_run_together_equal_requests_run_alone(calibrated: Searcher) -> None:
    requests = [
        SearchRequest(text="cat", k=5),
        SearchRequest(text="dog", k=5),
        SearchRequest(text="cat", k=9, cutoff=parse_cutoff("20%")),
        SearchRequest(text="cat", any_of=("dog",), k=4),
        SearchRequest(text="dog", k=5, where="half = 1"),
    ]
    together = run_searches(calibrated, requests)
    for request, answer in zip(requests, together, strict=True):
        alone = run_search(calibrated, request)
        assert [r.image_id for r in answer.results] == [r.image_id for r in alone.results]
        # Texts encoded together differ by rounding.
        assert [r.score for r in answer.results] == pytest.approx([r.score for r in alone.results], abs=1e-6)
        probabilities = [answer.probability(r) for r in answer.results]
        assert probabilities == pytest.approx([alone.probability(r) for r in alone.results], abs=1e-5)


def test_a_picture_finds_itself(searcher: Searcher) -> None:
    path = Path(searcher.search("cat", 30)[-1].uri)
    assert run_search(searcher, SearchRequest(like=path, k=3)).results[0].uri == str(path)
    with pytest.raises(ValueError, match="nothing"):
        run_search(searcher, SearchRequest(like=Path("nothing.jpg")))


def test_several_texts_are_combined(searcher: Searcher) -> None:
    cat, dog, car = (searcher.encode_text(text)[None] for text in ("cat", "dog", "car"))
    answer = run_search(searcher, SearchRequest(text="cat", any_of=("dog",), none_of=("car",), k=9))
    no_text = np.zeros((0, searcher.model.dim), np.float32)
    expected = search_combined(searcher.index, CombinedQuery(np.concatenate([cat, dog]), no_text, car), 9)
    assert [(r.image_id, r.rank) for r in answer.results] == [(r.image_id, r.rank) for r in expected]
    rows, first = answer_json(answer), answer.results[0]
    assert isinstance(rows, list)
    assert isinstance(first, CombinedResult)
    assert rows[0]["decided_by"] == ("cat", "dog")[first.decided_by]
    assert json.loads(json.dumps(rows))[0]["normalised_score"] == first.normalised_score
    assert answer_table(answer).row_count == len(expected)


def test_a_cutoff_by_precision_ends_the_list(calibrated: Searcher) -> None:
    never_absent = replace(calibrated.model, calibration=replace(CALIBRATION, absent_below=0.0))
    request = SearchRequest(text="cat", k=20, cutoff=parse_cutoff("20%"))
    answer = run_search(Searcher(calibrated.index, never_absent), request)
    confidence = answer.confidence
    assert confidence is not None
    assert len(answer.results) == confidence.cutoff
    assert 0 < confidence.cutoff < 20
    content = answer_json(answer)
    assert isinstance(content, dict)
    assert (content["images"], content["wanted_precision"]) == (60, 0.2)
    assert content["recommended_cutoff"] == confidence.cutoff
    assert [r["probability"] for r in content["results"]] == confidence.probabilities[: confidence.cutoff].tolist()
    sentence = describe_confidence(answer)
    assert f"rank {confidence.cutoff} " in sentence
    assert f"{confidence.expected_images:.0f} of 60" in sentence


def test_a_cutoff_by_score_keeps_the_probabilities(calibrated: Searcher) -> None:
    results = calibrated.search("cat", 20)
    request = SearchRequest(text="cat", k=20, cutoff=Cutoff("score", results[4].score))
    answer = run_search(calibrated, request)
    assert answer.results == results[:5]
    assert None not in [answer.probability(r) for r in answer.results]


def test_a_list_without_likely_results_is_empty(calibrated: Searcher) -> None:
    unsure = replace(calibrated.model, calibration=replace(CALIBRATION, ceiling=0.1))
    answer = run_search(Searcher(calibrated.index, unsure), SearchRequest(text="cat", cutoff=parse_cutoff("auto")))
    assert answer.results == []
    assert "50%" in describe_confidence(answer)
    content = answer_json(answer)
    assert isinstance(content, dict)
    assert content["nothing_here"] is True


def test_confidence_is_about_the_filtered_images(calibrated: Searcher) -> None:
    request = SearchRequest(text="cat", where="half = 1", cutoff=parse_cutoff("auto"))
    answer = run_search(calibrated, request)
    assert (answer.num_searched, answer.confidence, len(answer.results)) == (30, None, 30)
    assert "30 images" in describe_confidence(answer)


def test_without_a_calibration_only_a_cutoff_by_score_works(searcher: Searcher) -> None:
    with pytest.raises(SearchError, match="forclip-mini"):
        run_search(searcher, SearchRequest(text="cat", cutoff=parse_cutoff("auto")))
    answer = run_search(searcher, SearchRequest(text="cat", cutoff=Cutoff("score", -1)))
    assert "no calibration" in describe_confidence(answer)


def test_labels_give_each_result_a_verdict(searcher: Searcher, labels: StoreLabels) -> None:
    answer = run_search(searcher, SearchRequest(text="Snail", k=20), labels)
    column = labels.images.class_names.index("snail")
    labelled = answer.labels
    assert labelled is not None
    assert (labelled.class_name, labelled.group) == ("snail", "novel")
    assert list(labelled.relevant) == [labels.shows(r.image_id, column) for r in answer.results]
    assert run_search(searcher, SearchRequest(text="a text that is no class"), labels).labels is None


@pytest.mark.parametrize("only", ["wrong", "missed"])
def test_only_keeps_the_mistakes_of_a_labelled_list(searcher: Searcher, labels: StoreLabels, only: Any) -> None:
    present = only == "missed"
    answer = run_search(searcher, SearchRequest(text="snail", k=60, only=only), labels)
    column = labels.class_of("snail")
    assert column is not None
    whole = run_search(searcher, SearchRequest(text="snail", k=60)).results
    mistakes = [r for r in whole if labels.shows(r.image_id, column) is present and (not present or r.rank > 50)]
    assert answer.results == mistakes
    with pytest.raises(SearchError, match="no such class"):
        run_search(searcher, SearchRequest(text="no such class", only=only), labels)


def run_command(searcher: Searcher, world: ToyWorld, *arguments: str) -> Any:
    options = ["--annotations", str(world.gallery_file), "--images", str(world.images), *arguments]
    return CliRunner().invoke(app, ["search", str(searcher.index.store.folder), *options])


def test_the_command_reports_verdicts_and_metrics(
    searcher: Searcher, labels: StoreLabels, small_world: ToyWorld
) -> None:
    column = labelled_class(SearchRequest(text="snail"), labels)
    expected = evaluate_list(searcher.index, labels, column, searcher.encode_text("snail"))
    done = run_command(searcher, small_world, "snail", "-k", "5", "--json")
    assert done.exit_code == 0, done.output
    assert "60 of the store's 60" in done.stderr
    content = json.loads(done.stdout)
    verdicts = [labels.shows(r["image_id"], column) for r in content["results"]]
    assert [r["relevant"] for r in content["results"]] == verdicts
    assert content["labels"]["average_precision"] == pytest.approx(expected.average_precision)
    assert content["labels"]["precision_at_10"] == pytest.approx(expected.precision_at_10)
    assert content["labels"]["missed"] == list(expected.missed)
    table = " ".join(run_command(searcher, small_world, "snail", "-k", "5").stdout.split())
    assert expected.images == 1
    measured = table.partition("Labels: ")[2]
    assert "only 1 image shows 'snail'" in measured
    assert "%" not in measured, "one image is too few for a percentage"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["snial"], "'snail'"),
        (["snail", "--any", "anchor"], "'snail or anchor'"),
        (["snail", "--split", "coco-17"], "coco-17"),
        (["snail", "--subset", "val"], "subset"),
    ],
)
def test_a_search_that_does_not_fit_the_labels_is_refused(
    searcher: Searcher, small_world: ToyWorld, arguments: list[str], named: str
) -> None:
    done = run_command(searcher, small_world, *arguments)
    assert done.exit_code == 2
    assert named in done.stderr


def test_label_options_need_annotations(searcher: Searcher, small_world: ToyWorld) -> None:
    for command in ("search", "serve"):
        arguments = [command, str(searcher.index.store.folder), *(["snail"] if command == "search" else [])]
        done = CliRunner().invoke(app, [*arguments, "--images", str(small_world.images)])
        assert (done.exit_code, "--annotations" in done.stderr) == (2, True)


def test_serving_with_labels_of_other_images_is_refused(searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("image,label\nx.jpg,snail\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    store = str(searcher.index.store.folder)
    done = CliRunner().invoke(app, ["serve", store, "--annotations", str(tmp_path / "other.csv"), "--port", port])
    assert done.exit_code == 2
    assert "x.jpg" in done.stderr


def test_the_most_distinct_vector_is_least_like_the_others() -> None:
    shared = unit(np.random.default_rng(0), DIM)
    alike = [shared, shared, -shared]
    assert (most_distinct_vector(np.stack(alike)) == -shared).all()
