"""The search benchmark at a tiny size, with the installed engines, against a naive loop."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.search import _row, arguments, compare, prepare, ratios
from benchmarks.search_data import (
    Vectors,
    concepts_for,
    describe,
    exact_scores,
    make_queries,
    make_world,
    recall,
    write_vectors,
)
from benchmarks.search_engines.protocol import ENGINES, doubling, fetches, first_distinct
from benchmarks.search_measure import Job, JobError, choose, disk_bytes, is_level, run_job
from benchmarks.search_modes import scan_seconds
from forclip.types import Floats

K = 10
EXACT = [name for name in ENGINES if name.endswith(("exact", "flat", "duckdb"))]
SMALL = ["--images", "100", "--per-image", "4", "--dim", "16", "--num-queries", "12", "--seconds", "1"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """100 images with 4 vectors each, with exact scores from a naive loop."""
    folder = tmp_path_factory.mktemp("search")
    world = make_world(12, 16, seed=3)
    vectors = write_vectors(folder / "vectors.npy", world, 100, 4)
    queries = make_queries(world, 12, 100)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "scores.npy", naive_scores(vectors, queries))
    return Job("", vectors, folder / "queries.npy", folder / "scores.npy", folder, K, 0.9, 1.0)


def naive_scores(vectors: Vectors, queries: Floats) -> Floats:
    """Max-sim scores, [queries, images], by a loop over single cosines."""
    rows = vectors.load().astype(np.float64)
    scores = np.full((len(queries), vectors.images), -np.inf)
    for q, query in enumerate(queries):
        for row, vector in enumerate(rows):
            scores[q, row // vectors.per_image] = max(scores[q, row // vectors.per_image], vector @ query)
    return scores.astype(np.float32)


@pytest.mark.parametrize("name", ENGINES)
def test_every_installed_engine_reaches_the_recall(name: str, job: Job, tmp_path: Path) -> None:
    row = _row(replace(job, engine=name, folder=tmp_path / name), build_seconds=200)
    if "not installed" in row.get("left_out", ""):
        pytest.skip(row["left_out"])
    assert row["reached"], row
    assert row["queries"] == 12
    assert 0 < row["p50_ms"] <= row["p95_ms"]
    assert row["disk_bytes"] > 0
    assert row["memory"]["imported_mib"] <= row["memory"]["peak_mib"]
    if name in EXACT:
        assert row["recall"] == row["least_recall"] == 1


def test_exact_scores_equal_a_naive_loop(job: Job) -> None:
    scores = exact_scores(job.vectors, np.load(job.queries))
    np.testing.assert_allclose(scores, np.load(job.scores), atol=1e-6)


def test_recall_counts_distinct_images_and_ties() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.7, 0.1], np.float32)
    assert recall(np.array([0, 1, 2]), scores, 3) == 1
    assert recall(np.array([3, 1, 0]), scores, 3) == 1
    assert recall(np.array([0, 0, 4]), scores, 3) == pytest.approx(1 / 3)
    assert recall(np.array([4, 3, 2, 1, 0]), scores, 50) == 1


def test_a_gallery_starts_with_the_images_of_a_smaller_one(tmp_path: Path) -> None:
    world = make_world(40, 16, seed=0)
    small = write_vectors(tmp_path / "small.npy", world, 300, 3).load()
    large = write_vectors(tmp_path / "large.npy", world, 1100, 3).load()
    np.testing.assert_array_equal(large[: len(small)], small)
    np.testing.assert_allclose(np.linalg.norm(large.astype(np.float32), axis=1), 1, atol=1e-2)


def test_the_nearest_images_of_a_query_stand_out(tmp_path: Path) -> None:
    """The best 50 images are clearly nearer than the average, unlike noise."""
    world = make_world(concepts_for(1000), 128, seed=0)
    vectors = write_vectors(tmp_path / "vectors.npy", world, 1000, 10)
    spread = describe(exact_scores(vectors, make_queries(world, 30, 1000)))
    noise = spread["all_images"]["std"]
    assert spread["rank_1"]["mean"] > spread["rank_50"]["mean"] > spread["all_images"]["mean"] + noise


def test_the_fastest_setting_that_reaches_the_recall_is_chosen() -> None:
    tried = [{"recall": r, "p50_ms": ms} for r, ms in [(0.5, 1.0), (0.99, 4.0), (1.0, 3.0), (0.98, 2.0)]]
    assert [t["p50_ms"] for t in choose(tried, 0.99)] == [3.0, 4.0]
    assert choose(tried[:1] + tried[3:], 0.99) == [{"recall": 0.98, "p50_ms": 2.0}]


def test_a_ladder_ends_when_recall_stops_rising() -> None:
    assert not is_level([0.5, 0.5])
    assert not is_level([0.5, 0.5, 0.6])
    assert is_level([0.5, 0.6, 0.6, 0.6])


def test_ladders_end_with_a_value_that_always_suffices(job: Job) -> None:
    assert doubling(4, 30) == [4, 8, 16, 30]
    assert fetches(job.vectors, K)[-1] == (K - 1) * 4 + 1
    assert first_distinct([3, 3, 1, 3, 2], 2) == [3, 1]


def test_an_error_in_an_engines_process_is_reported(job: Job, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    with pytest.raises(JobError, match=r"index\.faiss"):
        run_job("final", replace(job, engine="faiss-ivf-sq8", folder=tmp_path))


def test_ratios_compare_only_engines_that_reached_the_recall() -> None:
    rows: list[dict[str, Any]] = [
        {"engine": "forclip", "reached": True, "p50_ms": 2.0},
        {"engine": "faiss-ivf-sq8", "reached": True, "p50_ms": 1.0},
        {"engine": "faiss-pq4-refine", "reached": False, "p50_ms": 0.1},
        {"engine": "duckdb", "reached": True, "p50_ms": 60.0},
        {"engine": "lancedb-rows-pq", "left_out": "not installed"},
    ]
    assert ratios(rows) == {"forclip_over_raw_faiss": 2.0, "best_other_over_forclip": 30.0}


def test_given_vectors_are_not_changed(job: Job, tmp_path: Path) -> None:
    words = ["--vectors", str(job.vectors.file), "--queries", str(job.queries), "--per-image", "4", "-k", "10"]
    own, description = prepare(arguments(words), tmp_path)
    assert own.vectors == job.vectors
    assert description["queries"] == 12
    np.testing.assert_allclose(np.load(own.scores), np.load(job.scores), atol=1e-6)
    assert own == Job.from_json(own.to_json())


def test_a_comparison_can_be_written_as_json(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    from rich.console import Console

    job, _ = prepare(arguments([*SMALL, "-k", "5"]), tmp_path)
    result = json.loads(json.dumps(compare(job, ["faiss-pq4-refine"], 200, Console(quiet=True))))
    assert result["rows"][0]["reached"]
    assert not (job.folder / "faiss-pq4-refine").exists()


def test_scan_seconds_and_disk_bytes(tmp_path: Path) -> None:
    assert scan_seconds(np.ones((100, 8), np.float16), 2) > 0
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    assert disk_bytes(tmp_path) >= 10_000
