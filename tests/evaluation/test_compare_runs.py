"""Comparison of runs: pairing, intervals, and files that are refused."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from forclip.cli import app
from forclip.evaluation.compare_runs import class_precisions, compare_runs, group_interval, markdown, print_comparison
from forclip.evaluation.metrics import mean_interval
from forclip.evaluation.metrics_file import MethodRun, Metrics, summarise_runs, write_metrics
from forclip.evaluation.protocol import evaluate_scores
from forclip.types import Bools, ClassSplit

NAMES = tuple(f"class {k}" for k in range(24))
SPLIT = ClassSplit(NAMES[:14], NAMES[14:])
LABELS = np.random.default_rng(0).random((80, 24)) < 0.2


def metrics_of(strengths: dict[str, float], split: ClassSplit = SPLIT, verified: Bools | None = None) -> Metrics:
    """Scores that separate relevant images from others by this much, with the same noise for all methods."""
    noise = np.random.default_rng(1).standard_normal(LABELS.shape)
    runs = []
    for method, strength in strengths.items():
        report = evaluate_scores(strength * LABELS + noise, LABELS, NAMES, split, verified=verified)
        runs.append(MethodRun(method, 0, report, 1, None))
    return summarise_runs("random", runs)


def write_run(folder: Path, metrics: Metrics, **changes: Any) -> Path:
    write_metrics(folder / "metrics.json", {**metrics, **changes})
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    first = write_run(tmp_path / "first", metrics_of({"global": 0.5, "dense": 0.7, "for": 1.0}))
    second = write_run(tmp_path / "second", metrics_of({"global": 0.5, "for": 2.5}))
    return [first, second]


def test_differences_are_paired_by_class(runs: list[Path]) -> None:
    comparison = compare_runs(runs)
    found = {(d.of.method, d.group): d for d in comparison.between}
    assert set(found) == {(m, g) for m in ("global", "for") for g in ("base", "novel", "all")}
    novel = found["for", "novel"]
    ours, theirs = (class_precisions(r.metrics, "for", "novel") for r in reversed(comparison.runs))
    gains = np.array([ours[name] - theirs[name] for name in SPLIT.novel])
    assert (novel.of.run, novel.over.run, novel.classes) == ("second", "first", 10)
    assert novel.mean == pytest.approx(gains.mean())
    assert novel.interval == mean_interval(gains[None])
    assert (novel.better, novel.worse) == ((gains > 0).sum(), (gains < 0).sum())
    assert novel.excludes_zero
    same = found["global", "all"]
    assert (same.mean, same.interval, same.excludes_zero) == (0, (0, 0), False)


def test_pairing_sees_what_the_two_intervals_hide(runs: list[Path]) -> None:
    """Each interval is wide, as classes differ much; the same small gain on each class is seen nevertheless."""
    first = json.loads((runs[0] / "metrics.json").read_text())
    for entry in first["classes"].values():
        entry["methods"]["for"]["average_precision"] += 0.5
    write_run(runs[1], first)
    novel = next(d for d in compare_runs(runs).between if (d.of.method, d.group) == ("for", "novel"))
    assert novel.mean == pytest.approx(0.5)
    assert novel.interval == pytest.approx((0.5, 0.5))
    assert novel.excludes_zero


def test_each_run_reports_fors_gain_over_its_best_baseline(runs: list[Path]) -> None:
    within = compare_runs(runs).within
    assert {(d.of.run, d.of.method, d.over.method) for d in within} == {
        ("first", "for", "dense"),
        ("second", "for", "global"),
    }
    assert [d.group for d in compare_runs(runs[:1]).within] == ["base", "novel", "all"]
    assert compare_runs(runs[:1]).between == ()


def test_a_class_counts_in_the_group_that_both_runs_put_it_in(tmp_path: Path, runs: list[Path]) -> None:
    other = write_run(tmp_path / "other", metrics_of({"for": 1.0}, ClassSplit(NAMES[:20], NAMES[20:])))
    found = {d.group: d.classes for d in compare_runs([runs[0], other]).between}
    assert found == {"base": 14, "novel": 4, "all": 24}


def test_a_class_that_changes_its_group_between_seeds_has_a_value_in_each() -> None:
    rng = np.random.default_rng(5)
    splits = ClassSplit(NAMES[:14], NAMES[14:]), ClassSplit(NAMES[10:], NAMES[:10])
    reports = [evaluate_scores(rng.random(LABELS.shape), LABELS, NAMES, split) for split in splits]
    metrics = summarise_runs("random", [MethodRun("for", seed, r, 1, None) for seed, r in enumerate(reports)])
    by_seed = [{c.name: c.average_precision for c in r.classes} for r in reports]
    assert class_precisions(metrics, "for", "base")[NAMES[0]] == pytest.approx(by_seed[0][NAMES[0]])
    assert class_precisions(metrics, "for", "novel")[NAMES[0]] == pytest.approx(by_seed[1][NAMES[0]])
    both = np.mean([of_seed[NAMES[0]] for of_seed in by_seed])
    assert class_precisions(metrics, "for", "all")[NAMES[0]] == pytest.approx(both)
    assert len(class_precisions(metrics, "for", "novel")) == 20


def test_intervals_of_an_older_file_come_from_its_classes(runs: list[Path]) -> None:
    metrics = json.loads((runs[0] / "metrics.json").read_text())
    stored = group_interval(metrics, "for", "novel")
    for key in ("protocol", "images", "distractors", "distractors_kept", "interval"):
        del metrics[key]
    for values in metrics["methods"].values():
        del values["intervals"], values["curves"]
    assert group_interval(metrics, "for", "novel") == pytest.approx(stored)
    write_run(runs[0], metrics)
    assert len(compare_runs(runs).between) == 6


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dataset": "coco"}, "its dataset is 'coco', but that of .*first.metrics.json is 'random'"),
        ({"metric": "map_at_10/min(10,R)"}, "its metric is 'map_at_10"),
        ({"protocol": "verified images"}, "its protocol is 'verified images'"),
        ({"distractors_kept": False}, "its distractors_kept is False"),
        ({"images": 7}, "its images is 7"),
        ({"classes": {}}, "has no values by class"),
    ],
)
def test_runs_that_can_not_be_compared_are_refused_by_name(
    runs: list[Path], changes: dict[str, Any], complaint: str
) -> None:
    write_run(runs[1], json.loads((runs[1] / "metrics.json").read_text()), **changes)
    with pytest.raises(ValueError, match=f"second/metrics.json: {complaint}"):
        compare_runs(runs)


def test_another_gallery_is_refused_without_printing_its_digest(runs: list[Path]) -> None:
    for run, digest in zip(runs, ("aa00", "bb11"), strict=True):
        write_run(run, json.loads((run / "metrics.json").read_text()), gallery=digest)
    with pytest.raises(ValueError, match=r"second/metrics\.json: its gallery has other images, classes or labels than"):
        compare_runs(runs)


def test_a_missing_or_repeated_run_is_refused_by_name(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone: no such file"):
        compare_runs([runs[0], tmp_path / "gone"])
    with pytest.raises(ValueError, match="was given twice"):
        compare_runs([runs[0], runs[0] / "metrics.json"])


def test_runs_whose_folders_share_a_name_are_named_by_their_paths(tmp_path: Path) -> None:
    places = [write_run(tmp_path / part / "eval", metrics_of({"for": 1.0})) for part in ("a", "b")]
    assert [run.name for run in compare_runs(places).runs] == [str(place / "metrics.json") for place in places]


def test_federated_runs_compare_among_themselves(tmp_path: Path) -> None:
    verified = LABELS | (np.random.default_rng(2).random(LABELS.shape) < 0.3)
    places = [
        write_run(tmp_path / name, metrics_of({"for": strength}, verified=verified))
        for name, strength in (("weak", 0.5), ("strong", 3.0))
    ]
    comparison = compare_runs(places)
    assert comparison.to_json()["protocol"] == "verified images"
    assert "each class over its verified images" in markdown(comparison)


def test_the_terminal_and_the_page_say_the_same(runs: list[Path]) -> None:
    comparison = compare_runs(runs)
    stream = StringIO()
    print_comparison(Console(file=stream, width=130), comparison)
    novel = next(d for d in comparison.between if (d.of.method, d.group) == ("for", "novel"))
    for text in (stream.getvalue(), markdown(comparison)):
        assert f"{novel.mean:+.1f}" in text
        assert "Equal in second and first: CLIP (global)." in text
        assert "FOR (finetuned): second - first" in text


def test_for_that_equals_its_baseline_is_reported(tmp_path: Path) -> None:
    """Where training did not pay, FOR keeps the untrained head."""
    place = write_run(tmp_path / "run", metrics_of({"sum_untrained": 1.0, "for": 1.0}))
    text = markdown(compare_runs([place]))
    assert "Equal in run: FOR (finetuned) and SUM-CLIP, untrained, on base, novel, all." in text


def test_names_cannot_break_the_tables(tmp_path: Path) -> None:
    metrics = metrics_of({"a | [red]b[/]\\": 1.0})
    comparison = compare_runs([write_run(tmp_path / "odd | name", metrics), write_run(tmp_path / "two", metrics)])
    stream = StringIO()
    print_comparison(Console(file=stream, width=120), comparison)
    assert "[red]b[/]" in stream.getvalue()
    rows = [line for line in markdown(comparison).splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {8}


def test_the_command(runs: list[Path], tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> Any:
        return CliRunner().invoke(app, ["compare", *map(str, arguments)])

    out = tmp_path / "compared"
    printed = run(*runs, "--out", out, "--json")
    assert printed.exit_code == 0, printed.output
    content = json.loads((out / "compare.json").read_text())
    assert json.loads(printed.stdout) == content
    assert [r["name"] for r in content["runs"]] == ["first", "second"]
    assert {"of", "over", "group", "classes", "mean", "interval", "excludes_zero", "better", "worse"} == set(
        content["between_runs"][0]
    )
    assert (out / "compare.md").read_text().startswith("# random: mAP@50 in percent")
    assert "excludes 0" in run(*runs).stdout
    refused = run(runs[0], tmp_path / "gone")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("forclip: ")
