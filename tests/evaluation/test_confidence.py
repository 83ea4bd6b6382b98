"""Calibration errors by hand and against scikit-learn, and calibrations in the file and on the page."""

import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from forclip.calibration.model import Calibration, estimate_probabilities
from forclip.evaluation.confidence import (
    NUM_BINS,
    ConfidenceReport,
    Reliability,
    brier,
    evaluate_confidence,
    evaluate_probabilities,
    reliability,
    summarise_confidence,
)
from forclip.evaluation.metrics_file import MethodRun, Metrics, summarise_runs
from forclip.evaluation.protocol import evaluate_scores
from forclip.evaluation.report import ReportPage, confidence_section, write_report
from forclip.evaluation.terminal import confidence_line, print_metrics
from forclip.types import ClassSplit

NAMES = tuple(f"class {k}" for k in range(40))
SPLIT = ClassSplit(NAMES[:25], NAMES[25:])
TRUE = Calibration(-3.5, 0.5, 2.0, 0.0, 1.0, 0.3, 0.05, 30, 600, {"top 50": 0.01})
ABSENT, RARE = 39, 38


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn with the probabilities that TRUE says; no image shows the last class."""
    random = np.random.default_rng(seed)
    scores = random.gamma(2.0, 1.0, (600, 40)) * random.uniform(0.01, 0.1, 40)
    z = (scores - scores.mean(0)) / scores.std(0)
    labels = random.random((600, 40)) < expit(-3.5 + 0.5 * np.minimum(z, 1) + 2.0 * np.maximum(z - 1, 0))
    labels[:, ABSENT] = False
    return scores, labels


def report(calibration: Calibration = TRUE, **other: object) -> ConfidenceReport:
    return evaluate_confidence(calibration, *world(), NAMES, SPLIT, **other)  # type: ignore[arg-type]


def test_a_perfect_calibration_has_small_errors() -> None:
    found = report()
    assert found["base"].classes == 25
    assert found["novel"].classes == 14  # one is shown by no image
    for group in found.values():
        for kind in ("top 50", "above 0.05", "all"):
            error = group.pairs[kind].reliability.error
            assert error is not None
            assert error < 0.05
        top = group.pairs["top 50"]
        assert top.brier is not None
        assert top.brier_of_rate is not None
        assert top.brier < 0.8 * top.brier_of_rate
        assert group.kept_classes == 1
        assert group.kept_precision is not None
        assert group.kept_precision > 0.5
        assert group.count_factor is not None
        assert 1 <= group.count_factor < 1.3


def test_a_useless_calibration_has_worse_values() -> None:
    bold = report(replace(TRUE, intercept=2.0))["novel"]
    error = bold.pairs["top 50"].reliability.error
    assert error is not None
    assert error > 0.3
    assert bold.count_factor is not None
    assert bold.count_factor > 3


def test_one_class_by_hand() -> None:
    """Of the novel classes only the rare one, whose 3 images are its best."""
    scores, labels = world()
    labels[:, RARE] = False
    best = np.argsort(-scores[:, RARE])
    labels[best[:3], RARE] = True
    group = evaluate_confidence(TRUE, scores, labels, NAMES, ClassSplit(NAMES[:1], (NAMES[RARE],)))["novel"]
    sure = estimate_probabilities(TRUE, scores[:, RARE], scores[:, RARE])
    ordered = sure[best]
    cutoff = int((np.cumsum(ordered) / np.arange(1, 601) >= 0.5).sum())
    assert cutoff > 3
    assert group.kept_precision == pytest.approx(3 / cutoff)
    assert group.kept_recall == 1
    assert group.count_factor == pytest.approx(sure.sum() / 3)
    assert group.count_factor_of_rate == pytest.approx(0.05 * 600 / 3)
    assert group.pairs["all"].reliability == reliability(sure, labels[:, RARE])
    assert group.false_alarms == float(ordered[:10].mean() < TRUE.absent_below)


def test_absence_is_evaluated_with_and_without_the_images() -> None:
    always = report(replace(TRUE, absent_below=1.0))["novel"]
    never = report(replace(TRUE, absent_below=0.0))["novel"]
    assert (always.false_alarms, always.caught, never.false_alarms, never.caught) == (1, 1, 0, 0)


def test_unverified_labels_count_nowhere() -> None:
    scores, labels = world()
    verified = np.random.default_rng(1).random(labels.shape) < 0.5
    one, other = (
        evaluate_confidence(TRUE, scores, known, NAMES, SPLIT, verified) for known in (labels, labels ^ ~verified)
    )
    assert one == other
    assert one["base"].pairs["all"].reliability.pairs == verified[:, :25].sum()
    assert one["base"].count_factor is None  # nobody knows how many there are


def test_distractors_can_be_removed_before_the_evaluation() -> None:
    scores, labels = world()
    labels[:200] = False
    shown = labels.any(1)
    assert evaluate_confidence(TRUE, scores, labels, NAMES, SPLIT, distractors=False) == evaluate_confidence(
        TRUE, scores[shown], labels[shown], NAMES, SPLIT
    )


def test_a_gallery_too_small_for_a_calibration_has_no_result() -> None:
    scores, labels = world()
    assert evaluate_confidence(TRUE, scores[:49], labels[:49], NAMES, SPLIT) == {}


def metrics(with_confidence: bool = True, seeds: int = 2) -> Metrics:
    runs = []
    for seed in range(seeds):
        scores, labels = world(seed)
        found = evaluate_confidence(TRUE, scores, labels, NAMES, SPLIT) if with_confidence else None
        runs.append(MethodRun("for", seed, evaluate_scores(scores, labels, NAMES, SPLIT), 25, 1.0, found))
    return summarise_runs("toy", runs)


def test_means_over_seeds_with_reliability_summed_up() -> None:
    one, other = (evaluate_confidence(TRUE, *world(seed), NAMES, SPLIT)["novel"] for seed in (0, 1))
    found = metrics()["methods"]["for"]["confidence"]["novel"]
    errors = [group.pairs["top 50"].reliability.error for group in (one, other)]
    assert found["pairs"]["top 50"]["ece"] == pytest.approx(np.mean(np.array(errors, float)))
    assert found["pairs"]["top 50"]["ece_std"] == pytest.approx(np.std(np.array(errors, float), ddof=1))
    assert found["kept_recall"] == pytest.approx((one.kept_recall + other.kept_recall) / 2)
    summed = Reliability(**found["pairs"]["all"]["reliability"])
    assert summed == one.pairs["all"].reliability + other.pairs["all"].reliability


def test_a_method_without_probabilities_has_no_section() -> None:
    without = metrics(with_confidence=False)
    assert "confidence" not in without["methods"]["for"]
    assert confidence_section(without) is None
    assert confidence_line(without) is None
    assert summarise_confidence([]) is summarise_confidence([{}]) is None


def test_the_section_and_the_line_show_the_errors() -> None:
    content = metrics(seeds=1)
    section, line = confidence_section(content), confidence_line(content)
    assert section is not None
    assert line is not None
    sides = content["methods"]["for"]["confidence"]
    assert section.sides == ("base", "novel")
    for column, side in enumerate(section.sides):
        error = f"{sides[side]['pairs']['top 50']['ece']:.3f}"
        assert section.rows[0][1][column] == error
        assert error in line
        title, drawn = section.charts[column]
        assert title == f"{side} classes"
        filled = sum(count > 0 for count in sides[side]["pairs"]["top 50"]["reliability"]["counts"])
        assert drawn.count("<title>predicted") == filled
    labels = [label for label, _ in section.rows]
    assert "classes with a list of at least 50 % expected precision" in labels


@pytest.mark.parametrize("with_confidence", [True, False])
def test_the_page_has_the_section_only_if_there_are_probabilities(tmp_path: Path, with_confidence: bool) -> None:
    file = tmp_path / "report.html"
    write_report(file, ReportPage("toy", "toy", metrics(with_confidence), (), (), {}))
    html = file.read_text()
    assert ("<h2>Probabilities</h2>" in html) is with_confidence
    assert html.count('class="lines reliability"') == 2 * with_confidence


def test_the_terminal_has_the_line() -> None:
    console = Console(record=True, width=200, file=StringIO())
    content = metrics()
    print_metrics(console, content)
    line = confidence_line(content)
    assert line is not None
    assert line in console.export_text()


PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def test_average_precision_worked_by_hand() -> None:
    """0.05 twice, one of them right: off by 0.45. 0.8 and 0.84, both right: off by 0.18. 1.0 and right: not off."""
    found = reliability(np.array([0.05, 0.05, 0.8, 0.84, 1.0]), np.array([True, False, True, True, True]))
    assert found.counts == [2, 0, 0, 0, 0, 0, 0, 0, 2, 1]
    assert found.observed == [1, 0, 0, 0, 0, 0, 0, 0, 2, 1]
    assert found.predicted[8] == pytest.approx(1.64)
    assert found.error == pytest.approx((2 * 0.45 + 2 * 0.18 + 0) / 5)
    assert brier(np.array([0.25, 1.0]), np.array([True, False])) == pytest.approx((0.5625 + 1) / 2)


def test_without_a_pair_there_is_no_error() -> None:
    empty = reliability(np.zeros(0), np.zeros(0, bool))
    assert (empty.pairs, empty.error) == (0, None)
    assert math.isnan(brier(np.zeros(0), np.zeros(0, bool)))


@given(PAIRS)
def test_bins_and_brier_are_scikit_learns(pairs: list[tuple[float, bool]]) -> None:
    # scikit-learn puts a bin's upper edge into it, we its lower one: keep off the edges.
    sure = np.clip(np.array([p for p, _ in pairs]), 0.001, 0.999)
    sure = np.where(np.isclose(sure * NUM_BINS % 1, 0, atol=1e-6) | np.isclose(sure * NUM_BINS % 1, 1), 0.05, sure)
    relevant = np.array([r for _, r in pairs])
    found = reliability(sure, relevant)
    share, mean = calibration_curve(relevant, sure, n_bins=NUM_BINS)
    filled = np.array(found.counts) > 0
    counts = np.array(found.counts)[filled]
    np.testing.assert_allclose(np.array(found.observed)[filled] / counts, share)
    np.testing.assert_allclose(np.array(found.predicted)[filled] / counts, mean)
    assert found.error == pytest.approx(float((np.abs(share - mean) * counts).sum() / len(sure)))
    assert brier(sure, relevant) == pytest.approx(brier_score_loss(relevant, sure))


@given(PAIRS, PAIRS)
def test_reliabilities_add_up(one: list[tuple[float, bool]], other: list[tuple[float, bool]]) -> None:
    def of(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
        return np.array([p for p, _ in pairs]), np.array([r for _, r in pairs])

    summed, both = reliability(*of(one)) + reliability(*of(other)), reliability(*of(one + other))
    assert (summed.counts, summed.observed) == (both.counts, both.observed)
    np.testing.assert_allclose(summed.predicted, both.predicted)


def test_right_probabilities_have_no_error_and_shifted_ones_have_the_shift() -> None:
    random = np.random.default_rng(0)
    sure = random.random(200_000) * 0.8
    relevant = random.random(200_000) < sure
    error, shifted = reliability(sure, relevant).error, reliability(sure + 0.2, relevant).error
    assert error is not None
    assert error < 0.005
    assert shifted == pytest.approx(0.2, abs=0.005)


def test_the_kinds_of_pairs() -> None:
    """60 images of one class, the first 50 of them its best; the second class is never sure and half unverified."""
    scores = np.stack([-np.arange(60.0), -np.arange(60.0)], 1)
    sure = np.stack([np.where(np.arange(60) < 55, 0.5, 0.01), np.full(60, 0.02)], 1)
    relevant = np.zeros((60, 2), bool)
    relevant[:25, 0] = True
    verified = np.ones((60, 2), bool)
    verified[:30, 1] = False
    found = evaluate_probabilities(sure, scores, relevant, verified)
    top, likely, everything = (found[kind].reliability for kind in ("top 50", "above 0.05", "all"))
    assert (top.pairs, likely.pairs, everything.pairs) == (50 + 30, 55, 60 + 30)
    assert top.error == pytest.approx(30 * 0.02 / 80)  # 25 of 50 said at 0.5 are right; 30 at 0.02 are wrong
    assert likely.error == pytest.approx(abs(25 - 27.5) / 55)
    rate = 25 / 80
    assert found["top 50"].brier_of_rate == pytest.approx(rate * (1 - rate))
    nothing = evaluate_probabilities(np.zeros((60, 1)), scores[:, :1], relevant[:, :1])["above 0.05"]
    assert (nothing.brier, nothing.brier_of_rate, nothing.reliability.error) == (None, None, None)


@given(st.integers(0, 10_000), st.integers(1, 70))
def test_the_top_is_the_best_verified_images(seed: int, images: int) -> None:
    random = np.random.default_rng(seed)
    scores, verified = random.random((images, 3)), random.random((images, 3)) < 0.7
    relevant = (random.random((images, 3)) < 0.4) & verified
    found = evaluate_probabilities(np.full((images, 3), 0.3), scores, relevant, verified)["top 50"].reliability
    naive = 0
    for c in range(3):
        rows = sorted(np.flatnonzero(verified[:, c]), key=lambda row: -scores[row, c])[:50]
        naive += int(relevant[rows, c].sum())
    assert sum(found.observed) == naive
