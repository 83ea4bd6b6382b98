import json
import os
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from forclip.evaluation.metrics import mean_interval
from forclip.evaluation.metrics_file import MethodRun, Metrics, read_metrics, summarise_runs, write_metrics
from forclip.evaluation.protocol import RetrievalReport, evaluate_scores
from forclip.evaluation.terminal import print_metrics
from forclip.types import ClassSplit

NAMES = ("dog", "cat")
SPLIT = ClassSplit(base=("dog",), novel=("cat",))
LABELS = np.array([[1, 0], [0, 1], [0, 0]], bool)


def report(dog_rank: int, cat_rank: int, k: int = 50) -> RetrievalReport:
    """One relevant image per class, found at these ranks: AP is 1 / rank."""
    scores = np.zeros((3, 2), np.float32)
    for column, rank in enumerate((dog_rank, cat_rank)):
        others = [row for row in range(3) if row != column]
        order = [*others[: rank - 1], column, *others[rank - 1 :]]
        scores[order, column] = [3, 2, 1]
    return evaluate_scores(scores, LABELS, NAMES, SPLIT, k=k)


def sample() -> Metrics:
    return summarise_runs(
        "pets",
        [
            MethodRun("global", 0, report(2, 2), 1, 4.0),
            MethodRun("for", 0, report(1, 1), 10, 5.0),
            MethodRun("for", 1, report(1, 2), 10, 7.0),
        ],
    )


def test_means_and_spread_over_seeds() -> None:
    metrics = sample()
    assert {key: metrics[key] for key in ("dataset", "metric", "seeds")} == {
        "dataset": "pets",
        "metric": "map_at_50/min(50,R)",
        "seeds": [0, 1],
    }
    found = metrics["methods"]["for"]
    assert (found["base"], found["novel"], found["all"]) == pytest.approx((100, 75, 87.5))
    assert (found["base_std"], found["novel_std"]) == pytest.approx((0, np.std([100, 50], ddof=1)))
    assert (found["vectors_per_image"], found["ms_per_image"], found["passes"]) == (10, 6, 1)
    assert metrics["methods"]["global"]["novel_std"] == 0
    assert found["other_denominators"]["map_at_50/hits"]["novel"] == pytest.approx(75)
    assert metrics["classes"]["cat"]["group"] == "novel"
    assert metrics["classes"]["cat"]["methods"]["for"]["average_precision"] == pytest.approx(75)


def federated_report(seed: int = 0) -> RetrievalReport:
    rng = np.random.default_rng(seed)
    labels, names = rng.random((60, 8)) < 0.3, tuple("abcdefgh")
    verified = labels | (rng.random((60, 8)) < 0.5)
    split = ClassSplit(names[:5], names[5:])
    return evaluate_scores(rng.random((60, 8)) + 0.4 * labels, labels, names, split, verified=verified)


def test_the_file_says_what_was_searched_and_how() -> None:
    metrics = summarise_runs("pets", [MethodRun("global", seed, federated_report(seed), 1, None) for seed in (0, 1)])
    reports = [federated_report(seed) for seed in (0, 1)]
    assert (metrics["protocol"], metrics["images"], metrics["distractors_kept"]) == ("verified images", 60, True)
    assert metrics["distractors"] == pytest.approx(np.mean([r.distractors for r in reports]))
    found = metrics["methods"]["global"]
    over_all = [r.other_protocols["all images"]["novel"] for r in reports]
    assert found["other_protocols"]["all images"]["novel"] == pytest.approx(np.mean(np.array(over_all, float)))
    recall = [r.curves.recall["novel"] for r in reports]
    assert found["curves"]["k"] == [1, 2, 5, 10, 20, 50]
    assert found["curves"]["recall"]["novel"] == pytest.approx(np.mean(np.array(recall, float), axis=0))


def test_intervals_are_over_the_classes_of_a_group() -> None:
    one = federated_report()
    found = summarise_runs("pets", [MethodRun("global", 0, one, 1, None)])["methods"]["global"]
    novel = np.array([[c.average_precision for c in one.classes if c.group == "novel"]])
    assert found["intervals"]["novel"] == list(mean_interval(novel) or ())
    for group in ("base", "novel", "all"):
        low, high = found["intervals"][group]
        assert low < found[group] < high
    # One class a group says nothing of other classes.
    few = sample()["methods"]["global"]["intervals"]
    assert (few["base"], few["novel"]) == (None, None)


def test_runs_of_several_protocols_are_refused() -> None:
    other = MethodRun("for", 1, federated_report(), 10, 5.0)
    with pytest.raises(ValueError, match=r"share one protocol, not \['all images', 'verified images'\]"):
        summarise_runs("pets", [MethodRun("for", 0, report(1, 1), 10, 5.0), other])
    with_, without = (
        evaluate_scores(np.ones((3, 2)), LABELS, NAMES, SPLIT, distractors=kept) for kept in (True, False)
    )
    with pytest.raises(ValueError, match="share one distractors_kept"):
        summarise_runs("pets", [MethodRun("for", seed, r, 1, None) for seed, r in enumerate((with_, without))])


def test_an_older_file_is_read(tmp_path: Path) -> None:
    """One without protocol, intervals, curves and the rest; its table is printed too."""
    metrics = json.loads(json.dumps(sample()))
    for key in ("protocol", "images", "distractors", "distractors_kept", "interval", "classes", "left_out"):
        del metrics[key]
    for values in metrics["methods"].values():
        for key in ("intervals", "curves", "other_protocols"):
            del values[key]
    write_metrics(tmp_path / "metrics.json", metrics)
    stream = StringIO()
    print_metrics(Console(file=stream, width=80), read_metrics(tmp_path / "metrics.json"))
    assert "FOR (finetuned)" in stream.getvalue()
    assert "interval" not in stream.getvalue()


def test_a_group_without_a_value_stays_null_and_says_why(tmp_path: Path) -> None:
    no_cat = evaluate_scores(np.ones((3, 2), np.float32), LABELS & [True, False], NAMES, SPLIT)
    write_metrics(tmp_path / "metrics.json", summarise_runs("pets", [MethodRun("global", 0, no_cat, 1, None)]))
    found = read_metrics(tmp_path / "metrics.json")
    assert found["methods"]["global"]["novel"] is None
    assert found["methods"]["global"]["novel_std"] is None
    assert found["left_out"]["groups"] == [
        {"name": "novel", "reason": "no novel class has 1 or more relevant images and an irrelevant one"}
    ]


def test_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.json"
    write_metrics(path, sample())
    assert read_metrics(path) == sample()
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_metrics(path, sample())
    with pytest.raises(ValueError, match="JSON compliant"):
        write_metrics(path, {"dataset": float("nan")})

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_metrics(path, {})
    assert read_metrics(path) == sample()
    assert len(list(tmp_path.iterdir())) == 1


def test_runs_that_do_not_belong_together_are_refused() -> None:
    one = MethodRun("for", 0, report(1, 1), 10, 5.0)
    with pytest.raises(ValueError, match="'for' has two runs with seed 0"):
        summarise_runs("pets", [one, one])
    with pytest.raises(ValueError, match=r"share one k, not \[10, 50\]"):
        summarise_runs("pets", [one, MethodRun("for", 1, report(1, 1, k=10), 10, 5.0)])
    with pytest.raises(ValueError, match="no run"):
        summarise_runs("pets", [])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "no JSON"),
        ("[]", "the file must be an object, not list"),
        ('{"dataset": "x", "metric": "m", "seeds": []}', "the file has no 'methods'"),
        ('{"dataset": "x", "metric": "m", "seeds": [], "methods": {"a": {"base": 1}}}', "method 'a' has no 'novel'"),
    ],
)
def test_another_file_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"other.json: {complaint}"):
        read_metrics(path)


def test_the_terminal_shows_the_table_and_the_gain() -> None:
    stream = StringIO()
    metrics = sample()
    del metrics["images"], metrics["classes"]  # too few for a gain
    print_metrics(Console(file=stream, width=80, force_terminal=True, color_system="standard"), metrics)
    shown = stream.getvalue()
    assert "CLIP (global)" in shown
    assert "FOR (finetuned)" in shown
    # The headings are bold too, but hold no number.
    assert re.findall(r"\x1b\[1m *([0-9.]+)\x1b", shown) == ["4.0", "100.0", "75.0", "87.5"]
    assert "± 35.4" in shown
    assert shown.splitlines()[-1].endswith("(CLIP (global)): base +50.0, novel +25.0, all +37.5")


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_widest_table_fits_a_terminal(seeds: int) -> None:
    runs = [MethodRun("tiles_3x3", 0, federated_report(), 9, 1543.2, passes=9)]
    runs += [MethodRun("cluster_25", 0, federated_report(1), 25, 171.3)]
    runs += [MethodRun("for", seed, federated_report(seed), 250, 1714.5, passes=10) for seed in range(seeds)]
    stream = StringIO()
    print_metrics(Console(file=stream, width=80), summarise_runs("pets", runs))
    shown = stream.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown  # nothing is cut
    assert re.search(r"Tiles of CLIP, 3 x 3 .* 9 +9 +1543$", shown, re.MULTILINE)
    assert re.search(r"FOR \(finetuned\) .* 250 +10 +17", shown)


def test_the_terminal_does_not_interpret_names_and_shows_missing_values() -> None:
    metrics = json.loads(json.dumps(sample()))
    metrics["methods"] = {"[red]odd[/]": {**metrics["methods"]["for"], "novel": None, "ms_per_image": None}}
    stream = StringIO()
    print_metrics(Console(file=stream, width=80), metrics)
    assert "[red]odd[/]" in stream.getvalue()
    assert "FOR over" not in stream.getvalue()


def test_the_terminal_shows_intervals_and_what_was_searched() -> None:
    metrics = summarise_runs("pets", [MethodRun("global", 0, federated_report(), 1, None)])
    low, high = metrics["methods"]["global"]["intervals"]["novel"]
    stream = StringIO()
    print_metrics(Console(file=stream, width=80), metrics)
    shown = stream.getvalue()
    assert f"({low:.0f}\N{EN DASH}{high:.0f})" in shown
    assert "95 % bootstrap interval over classes" in shown
    assert "ranked over the images verified for it" in shown
    assert max(map(len, shown.splitlines())) <= 80
