"""On a CPU each core computes some images at a time; how many is measured, and changes nothing but the last bits."""

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from forclip.config import ModelConfig
from forclip.models import cpu_parts
from forclip.models.cpu_parts import CpuParts
from forclip.models.encoder import Encoder
from forclip.models.mini_clip import MINI_NAME
from forclip.models.retrieval_model import load_model
from forclip.search.searcher import torch_threads


class Named:
    name = "some model"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FORCLIP_IMAGES_AT_ONCE", raising=False)
    monkeypatch.setattr(cpu_parts, "_known", {})
    return tmp_path / "cache"


def numbered(count: int) -> Tensor:
    return torch.arange(count).float().reshape(count, 1, 1, 1)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("count", "size"), [(1, 4), (2, 4), (10, 4), (64, 8), (7, 1), (3, 100)])
def test_every_input_is_computed_once_in_order(threads: int, count: int, size: int) -> None:
    sizes = list[int]()

    def double(part: Tensor) -> Tensor:
        assert torch.is_inference_mode_enabled() or count < threads
        sizes.append(len(part))
        return 2 * part

    with torch_threads(threads):
        results = CpuParts(Named(), size).run(double, numbered(count))
    assert torch.equal(torch.cat(results), 2 * numbered(count))
    if count >= threads:
        assert max(sizes) <= size
        assert len(sizes) % threads == 0 or len(sizes) == count
        assert max(sizes) - min(sizes) <= 1


def test_nothing_is_computed_of_nothing() -> None:
    assert [len(part) for part in CpuParts(Named()).run(lambda part: part, numbered(0))] == [0]


def test_each_thread_computes_alone_and_others_keep_their_number() -> None:
    seen = set()

    def note(part: Tensor) -> None:
        seen.add((threading.current_thread() is threading.main_thread(), torch.get_num_threads()))

    with torch_threads(3):
        CpuParts(Named(), 2).run(note, numbered(12))
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as new:
            assert new.submit(torch.get_num_threads).result() == 3
    assert seen == {(False, 1)}


def test_an_error_of_a_part_is_raised() -> None:
    def fail(part: Tensor) -> None:
        if part[0] > 3:
            raise RuntimeError("no such layer")

    with torch_threads(2), pytest.raises(RuntimeError, match="no such layer"):
        CpuParts(Named(), 2).run(fail, numbered(8))


def run_job(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], batches: int = 6) -> list[int]:
    """Embed batches of 64 with a clock that gives a part of each size its seconds an image. Returns the last sizes."""
    clock, sizes = itertools.count(), list[int]()
    time = [0.0]
    monkeypatch.setattr("time.thread_time", lambda: (next(clock), time[0])[1])

    def work(part: Tensor) -> None:
        sizes.append(len(part))
        time[0] += len(part) * seconds[len(part)]

    parts = CpuParts(Named())
    with torch_threads(1):
        for _ in range(batches):
            sizes.clear()
            parts.run(work, numbered(64), may_measure=True)
    return sizes


def test_the_fastest_size_is_measured_once_per_model_and_machine(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_is_fast = {1: 1.0, 2: 1.02, 4: 2.0, 8: 3.0, 16: 4.0}
    assert set(run_job(monkeypatch, small_is_fast)) == {1}
    (file,) = cache.rglob("*.json")
    assert json.loads(file.read_text())["images_at_once"] == 1
    # A later job starts with it, and does not measure.
    monkeypatch.setattr(cpu_parts, "_known", {})
    assert run_job(monkeypatch, {1: 1.0}, batches=6) == [1] * 64
    # What is damaged, or of another machine, is measured again.
    for content in ("{", json.dumps({"images_at_once": 3, "machine": "another"})):
        file.write_text(content)
        monkeypatch.setattr(cpu_parts, "_known", {})
        assert set(run_job(monkeypatch, {1: 3.0, 2: 3.0, 4: 1.0, 8: 2.0, 16: 2.0})) == {4}


def test_sizes_that_are_as_fast_give_small_parts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(run_job(monkeypatch, {1: 2.0, 2: 1.5, 4: 1.03, 8: 1.02, 16: 1.0})) == {4}


def test_short_jobs_and_encoding_do_not_measure(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_job(monkeypatch, {8: 1.0}, batches=4) == [8] * 8
    parts = CpuParts(Named())
    for _ in range(6):
        parts.run(lambda part: None, numbered(64))
    assert not list(cache.rglob("*.json"))


def test_a_cache_that_cannot_be_written_stops_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("a file in its place")
    assert set(run_job(monkeypatch, {1: 1.0, 2: 2.0, 4: 2.0, 8: 3.0, 16: 4.0})) == {1}


def test_the_size_can_be_set_by_hand(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCLIP_IMAGES_AT_ONCE", "4")
    assert CpuParts(Named()).size == 4
    assert CpuParts(Named(), 2).size == 2
    monkeypatch.setenv("FORCLIP_IMAGES_AT_ONCE", "many")
    with pytest.raises(ValueError, match="FORCLIP_IMAGES_AT_ONCE must be a number of images, not 'many'"):
        CpuParts(Named())


def test_vectors_do_not_depend_on_parts_and_threads() -> None:
    model = load_model(ModelConfig(name=MINI_NAME))
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((96, 96)) for _ in range(13)]
    pixels = torch.stack([model.backbone.preprocess(picture) for picture in pictures])
    (expected,) = Encoder(model.backbone, 13).embed(model.head, pixels).wait()
    for threads, size in itertools.product((1, 2, 3), (1, 4)):
        with torch_threads(threads):
            vectors, weights = Encoder(model.backbone, size).embed(model.head, pixels, with_weights=True).wait()
            (tokens,) = Encoder(model.backbone, size).encode(pixels).wait()
            (of_tokens,) = Encoder(model.backbone, size).embed_tokens(model.head, tokens).wait()
        torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(of_tokens, expected, rtol=0, atol=2e-3)
        assert len(weights) == 13
