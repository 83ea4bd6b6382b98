"""The confidence in a ranked list: worked by hand, by properties, and from a sample of the gallery."""

import json
import tempfile
from dataclasses import replace
from math import exp
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forclip.calibration.model import (
    MIN_SAMPLE,
    TEXT_SPREAD,
    Calibration,
    Confidence,
    estimate_confidence,
    estimate_probabilities,
    read_calibration,
    update_with_verdicts,
    write_calibration,
)

PLAIN = Calibration(
    intercept=-3.0,
    below=0.5,
    above=2.0,
    raw=0.0,
    ceiling=1.0,
    absent_below=0.0,
    rate=0.04,
    classes=10,
    images=100,
    held_out_errors={"top 50": 0.01, "above 0.05": None},
)
SLOPES = st.floats(0, 5)
CALIBRATIONS = st.builds(
    Calibration,
    intercept=st.floats(-8, 2),
    below=SLOPES,
    above=SLOPES,
    raw=SLOPES,
    ceiling=st.floats(0, 1),
    absent_below=st.floats(0, 1),
    rate=st.floats(0, 1),
    classes=st.just(10),
    images=st.just(100),
    held_out_errors=st.just({}),
)


def gallery(seed: int, images: int) -> np.ndarray:
    """Return scores, best first."""
    return -np.sort(-np.random.default_rng(seed).normal(0.2, 0.05, images))


def confidence_in(calibration: Calibration, scores: np.ndarray, k: int = 50, **other: float) -> Confidence:
    confidence = estimate_confidence(calibration, scores[:k], scores, len(scores), **other)
    assert confidence is not None
    return confidence


def test_probabilities_worked_by_hand() -> None:
    """Scores of mean 0 and standard deviation 1: z is the score."""
    sample = np.array([-1.0, 1.0] * 50)
    probabilities = estimate_probabilities(PLAIN, np.array([-2.0, 0.0, 1.0, 3.0]), sample)
    np.testing.assert_allclose(
        probabilities, [1 / (1 + exp(4)), 1 / (1 + exp(3)), 1 / (1 + exp(2.5)), 1 / (1 + exp(-1.5))]
    )
    with_raw = estimate_probabilities(replace(PLAIN, raw=0.25), np.array([2.0]), sample)
    np.testing.assert_allclose(with_raw, [1 / (1 + exp(3 - 0.5 - 2.0 - 0.5))])
    assert estimate_probabilities(replace(PLAIN, ceiling=0.6), np.array([3.0]), sample) == [0.6]


def test_confidence_worked_by_hand() -> None:
    """The three best of 1,000 images; the sample says that the others score -1 or 1."""
    sample = np.array([-1.0, 1.0] * 50)
    found = estimate_confidence(PLAIN, np.array([3.0, 2.0, 1.5]), sample, 1000)
    assert found is not None
    expected = [1 / (1 + exp(-1.5)), 1 / (1 + exp(0.5)), 1 / (1 + exp(1.5))]
    np.testing.assert_allclose(found.probabilities, expected)
    np.testing.assert_allclose(found.expected_precision, [expected[0], sum(expected[:2]) / 2, sum(expected) / 3])
    assert found.cutoff == 2  # 0.82, 0.60, 0.46
    rest = (1 / (1 + exp(3.5)) + 1 / (1 + exp(2.5))) / 2
    assert found.expected_images == pytest.approx(sum(expected) + 997 * rest)
    strict, lax = (estimate_confidence(PLAIN, np.array([3.0, 2.0, 1.5]), sample, 1000, wanted) for wanted in (0.9, 0.1))
    assert strict is not None
    assert lax is not None
    assert (strict.cutoff, lax.cutoff) == (0, 3)
    weak, strong = (confidence_in(replace(PLAIN, absent_below=limit), sample[::-1], 1) for limit in (0.1, 0.0))
    assert (weak.nothing_here, strong.nothing_here) == (True, False)


@given(CALIBRATIONS, st.integers(0, 1000), st.integers(MIN_SAMPLE, 200), st.integers(0, 60))
def test_properties_of_any_list(calibration: Calibration, seed: int, images: int, k: int) -> None:
    scores = gallery(seed, images)
    k = min(k, images)
    found = confidence_in(calibration, scores, k)
    assert found.probabilities.shape == found.expected_precision.shape == (k,)
    assert (found.probabilities >= 0).all()
    assert (found.probabilities <= calibration.ceiling).all()
    assert (np.diff(found.probabilities) <= 0).all()
    assert (np.diff(found.expected_precision) <= 1e-12).all()
    assert 0 <= found.cutoff <= k
    assert (found.expected_precision[: found.cutoff] >= 0.5).all()
    assert (found.expected_precision[found.cutoff :] < 0.5).all()
    # If the sample is the whole gallery, the expected number is the sum over all images for any k.
    everything = estimate_probabilities(calibration, scores, scores).sum()
    assert found.expected_images == pytest.approx(everything)
    assert found.probabilities.sum() - 1e-9 <= found.expected_images <= images


@given(CALIBRATIONS, st.integers(0, 1000), st.floats(0.1, 10), st.floats(-1, 1))
def test_scale_and_offset_of_a_text_make_no_difference(
    calibration: Calibration, seed: int, by: float, to: float
) -> None:
    scores = gallery(seed, 80)
    without = replace(calibration, raw=0.0)
    one, other = confidence_in(without, scores), confidence_in(without, scores * by + to)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
    assert one.expected_images == pytest.approx(other.expected_images, rel=1e-6)


def test_a_sample_approximates_the_whole_gallery() -> None:
    random = np.random.default_rng(0)
    scores = np.concatenate([random.normal(0.2, 0.05, 99_000), random.normal(0.35, 0.05, 1000)])
    top = -np.sort(-scores)[:50]
    whole = estimate_confidence(PLAIN, top, scores, len(scores))
    part = estimate_confidence(PLAIN, top, random.choice(scores, 2000, replace=False), len(scores))
    assert whole is not None
    assert part is not None
    np.testing.assert_allclose(part.probabilities, whole.probabilities, atol=0.01)
    assert part.expected_images == pytest.approx(whole.expected_images, rel=0.1)
    assert part.cutoff == whole.cutoff


@given(CALIBRATIONS, st.lists(st.booleans(), max_size=20))
def test_verdicts_move_the_intercept_to_the_maximum_of_the_posterior(
    calibration: Calibration, right: list[bool]
) -> None:
    scores = gallery(0, 80)
    looked_at, verdicts = scores[: len(right)], np.array(right, bool)
    unbounded = replace(calibration, ceiling=1.0)
    moved = update_with_verdicts(unbounded, looked_at, verdicts, scores)
    assert replace(moved, intercept=calibration.intercept) == unbounded

    def loss(shift: float) -> float:
        of_right = estimate_probabilities(
            replace(unbounded, intercept=calibration.intercept + shift), looked_at, scores
        )
        of_right = np.clip(of_right, 1e-300, 1 - 1e-16)
        return -float(np.log(np.where(verdicts, of_right, 1 - of_right)).sum()) + shift**2 / (2 * TEXT_SPREAD**2)

    shift = moved.intercept - calibration.intercept
    assert all(loss(shift) <= loss(shift + step) + 1e-6 for step in (-0.1, -0.01, 0.01, 0.1))


def test_right_verdicts_raise_the_expected_images_and_wrong_ones_lower_them() -> None:
    scores = gallery(1, 300)
    kinds = (np.ones(10, bool), np.zeros(0, bool), np.zeros(10, bool))
    raised, same, lowered = (
        confidence_in(update_with_verdicts(PLAIN, scores[: len(v)], v, scores), scores).expected_images for v in kinds
    )
    assert raised > same > lowered
    assert same == pytest.approx(confidence_in(PLAIN, scores).expected_images)


def test_too_small_or_constant_samples_give_no_confidence() -> None:
    few = gallery(0, MIN_SAMPLE - 1)
    assert estimate_confidence(PLAIN, few[:5], few, len(few)) is None
    assert estimate_confidence(PLAIN, np.full(3, 0.5), np.full(100, 0.5), 100) is None


def test_absence_is_decided_at_rank_ten_or_in_proportion_to_the_gallery() -> None:
    """Precision falls with each rank, so the threshold that sets off the alarm shows which rank decides."""
    scores = gallery(0, 60)
    steep = replace(PLAIN, intercept=0.0)

    def deciding_ranks(gallery_size: int, fitted_images: int, k: int = 50) -> list[int]:
        ranks = []
        for rank in range(k):
            limit = float(confidence_in(steep, scores, k).expected_precision[rank]) + 1e-9
            alarmed = replace(steep, absent_below=limit, images=fitted_images)
            again = estimate_confidence(alarmed, scores[:k], scores, gallery_size)
            assert again is not None
            if again.nothing_here:
                ranks.append(rank + 1)
        return ranks

    assert max(deciding_ranks(100, 100)) == 10
    assert max(deciding_ranks(10_000, 100)) == 10
    assert max(deciding_ranks(60, 100)) == 6
    assert max(deciding_ranks(60, 60, k=3)) == 3
    assert deciding_ranks(60, 121) == []


def test_an_empty_list_has_no_cutoff_and_no_alarm() -> None:
    found = confidence_in(replace(PLAIN, absent_below=1.0), gallery(0, 80), 0)
    assert (found.cutoff, found.nothing_here, len(found.probabilities)) == (0, False, 0)


@pytest.mark.parametrize(
    ("top", "sample", "size", "wanted", "message"),
    [
        ([0.1, 0.2], [0.1] * 60, 100, 0.5, "not best first"),
        ([np.nan], [0.1] * 60, 100, 0.5, "not finite"),
        ([0.2], [np.inf] * 60, 100, 0.5, "not finite"),
        ([0.2], [0.1] * 60, 59, 0.5, "60 sampled .* 59 images"),
        ([0.2, 0.2], [], 1, 0.5, "2 top .* 1 images"),
        ([0.2], [0.1] * 60, 100, 1.5, r"wanted_precision must be within 0\.\.1, not 1\.5"),
    ],
)
def test_inconsistent_scores_are_refused(
    top: list[float], sample: list[float], size: int, wanted: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_confidence(PLAIN, np.array(top), np.array(sample), size, wanted)


@given(CALIBRATIONS)
def test_a_file_keeps_every_value(calibration: Calibration) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "calibration.json"
        write_calibration(file, calibration)
        assert read_calibration(file) == calibration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"below": -1.0}, r"below: .*-1\.0"),
        ({"ceiling": 1.5}, r"ceiling: .*1\.5"),
        ({"intercept": float("nan")}, "intercept: .*nan"),
        ({"intercept": "high"}, "not readable as a calibration"),
        ({"surprise": 1}, "surprise"),
        ({"format_version": 9}, "format version 9"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = tmp_path / "calibration.json"
    write_calibration(file, PLAIN)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        read_calibration(file)
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"calibration\.json"):
        read_calibration(file)
