"""The evaluation benchmark, at a thousandth of its size."""

import numpy as np

from benchmarks.evaluate_large import arguments, measure_in_fresh_process, random_labels, random_vectors

SMALL = ["--images", "60", "--vectors", "3", "--dim", "8", "--classes", "12"]


def test_blocks_are_unit_vectors() -> None:
    vectors = random_vectors(50, 8, "float16", np.random.default_rng(0), block=7)
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=1e-2)


def test_every_positive_label_is_verified() -> None:
    labels, verified = random_labels(700, 40, np.random.default_rng(0))
    assert verified[labels].all()
    assert labels.sum() < verified.sum() < labels.size


def test_measuring_in_a_fresh_process() -> None:
    result = measure_in_fresh_process(SMALL)
    assert result["protocol"] == "verified images"
    assert result["max_sim"]["peak_mib"] <= result["evaluate_scores"]["peak_mib"]
    assert result["wall_seconds"] > 0
    assert arguments(SMALL).images == 60
