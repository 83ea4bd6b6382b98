"""`measure` evaluates on verified labels, with or without distractors."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from forclip.config import EvalConfig
from forclip.data.images.tiles import Tiles
from forclip.embedding.embed import EncodedImages, embed_images, encode_images
from forclip.embedding.row_shards import read_rows
from forclip.experiments.comparison import MethodResult, Task, measure, measure_tiles
from forclip.experiments.report import vector_box
from forclip.location import local_path
from forclip.models.baselines import training_free_head
from forclip.models.retrieval_model import RetrievalModel
from forclip.types import Annotations, Bools, ClassSplit
from tests.tiny import TinyBackbone

NAMES = ("a", "b", "c")
LABELS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 0, 0]], bool)
VERIFIED = LABELS | np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]], bool)


def new_task(verified: Bools | None) -> Task:
    """Return a task of six random images, without training images."""
    backbone = TinyBackbone()
    pixels = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    ids = tuple("123456")
    none = np.zeros(0, np.int64)
    gallery = Annotations(
        ids, tuple(map(Path, ids)), NAMES, LABELS, np.zeros((0, 4), np.float32), none, none, verified=verified
    )
    parts: dict[str, Any] = {
        **{field.name: None for field in fields(Task)},
        "name": "t",
        "backbone": backbone,
        "gallery": gallery,
        "gallery_images": EncodedImages(backbone.encode_tokens(pixels).half(), np.arange(6), (), 0.0),
        "split": ClassSplit(NAMES[:2], NAMES[2:]),
        "texts": backbone.encode_text(NAMES),
        "text_owners": np.arange(3),
    }
    return Task(**parts)


def measure_global(task: Task, config: EvalConfig) -> MethodResult:
    return measure(task, "global", training_free_head(task.backbone, "global"), 0, config)


def test_a_class_is_ranked_over_the_images_verified_for_it() -> None:
    report = measure_global(new_task(VERIFIED), EvalConfig()).run.report
    assert report.protocol == "verified images"
    assert [c.num_images for c in report.classes] == VERIFIED.sum(0).tolist()
    everything = measure_global(new_task(None), EvalConfig()).run.report
    assert everything.protocol == "all images"
    assert report.other_protocols["all images"] == pytest.approx(everything.means["min(k,R)"])


def test_distractors_are_embedded_and_ranked_if_configured() -> None:
    task = new_task(None)
    for distractors, images in ((True, 6), (False, 4)):
        result = measure_global(task, EvalConfig(distractors=distractors))
        report = result.run.report
        assert (report.images, report.distractors, report.distractors_kept) == (images, 2, distractors)
        assert len(result.embeddings) == 6
    removed = replace(task, gallery=task.gallery.take(np.array([0, 1, 2, 4])))
    tokens = read_rows(task.gallery_images.tokens, torch.tensor([0, 1, 2, 4]))
    removed = replace(removed, gallery_images=EncodedImages(tokens, np.arange(4), (), 0.0))
    assert measure_global(removed, EvalConfig()).run.report.means == report.means


@pytest.fixture
def on_disk(tmp_path: Path) -> Task:
    """The six images as files of noise."""
    task, paths = new_task(None), tuple(tmp_path / f"{k}.png" for k in range(6))
    for k, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    gallery = replace(task.gallery, paths=paths)
    return replace(task, gallery=gallery, gallery_images=encode_images(task.backbone, gallery.image_ids, paths))


def test_the_tiles_baseline_is_plain_clip_on_saved_tiles(on_disk: Task, tmp_path: Path) -> None:
    result = measure_tiles(on_disk, Tiles(3, 3), EvalConfig(), 7)
    run = result.run
    assert (run.method, run.seed, run.vectors_per_image, run.passes) == ("tiles_3x3", 7, 9, 9)
    assert run.ms_per_image is not None
    for path in on_disk.gallery.paths:
        with Image.open(local_path(path)) as image:
            for k, (x, y) in enumerate((x, y) for y in (0, 8, 15) for x in (0, 10, 20)):
                image.crop((x, y, x + 20, y + 15)).save(tmp_path / f"{local_path(path).stem}-{k}.tile.png")
    tiles = sorted(tmp_path.glob("*.tile.png"))
    alone = RetrievalModel("tiny", on_disk.backbone, training_free_head(on_disk.backbone, "global"), "")
    np.testing.assert_allclose(result.embeddings.vectors, embed_images(alone, tiles)[0].vectors, atol=2e-3)


def test_a_head_with_tiles_searches_the_vectors_of_its_model(on_disk: Task) -> None:
    head = training_free_head(on_disk.backbone, "dense")
    progress: list[int] = []
    result = measure(on_disk, "for", head, 0, EvalConfig(), tiles=Tiles(2, 2), advance=progress.append)
    assert (result.run.passes, result.run.vectors_per_image, sum(progress)) == (5, 45, 6)
    model = RetrievalModel("tiny", on_disk.backbone, head, "").with_tiles(Tiles(2, 2))
    expected = embed_images(model, on_disk.gallery.paths)[0]
    assert result.embeddings.offsets.tolist() == expected.offsets.tolist()
    np.testing.assert_allclose(result.embeddings.vectors, expected.vectors, atol=2e-3)


def test_vectors_of_the_tiles_baseline_are_cached(
    on_disk: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure_tiles(on_disk, Tiles(2, 2), EvalConfig(), 0, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*/tokens.npy")
    assert np.load(file, mmap_mode="r").shape == (4, 6, 1, 6)  # vectors, not tokens
    monkeypatch.setattr(TinyBackbone, "encode_tokens", None)
    again = measure_tiles(on_disk, Tiles(2, 2), EvalConfig(), 0, cache=tmp_path / "cache")
    np.testing.assert_array_equal(again.embeddings.vectors, first.embeddings.vectors)


def test_an_image_that_is_gone_is_named(on_disk: Task) -> None:
    local_path(on_disk.gallery.paths[2]).unlink()
    with pytest.raises(ValueError, match=r"2\.png"):
        measure_tiles(on_disk, Tiles(2, 2), EvalConfig(), 0)


def test_boxes_in_the_report_are_those_of_the_stored_vectors(on_disk: Task) -> None:
    """Of a tile that plain CLIP saw the whole tile; of a head with tiles the region in the tile, as a store has it."""
    tiles = measure_tiles(on_disk, Tiles(2, 2), EvalConfig(), 0)
    head = training_free_head(on_disk.backbone, "dense")
    tiled = measure(on_disk, "for", head, 0, EvalConfig(), tiles=Tiles(2, 2))
    model = RetrievalModel("tiny", on_disk.backbone, head, "").with_tiles(Tiles(2, 2))
    stored = embed_images(model, on_disk.gallery.paths)[0].boxes
    assert stored is not None
    for row in (0, 3):
        for vector in (0, 10, 44):
            box = vector_box(on_disk, tiled, row, vector)
            assert box is not None
            np.testing.assert_allclose(box, stored[45 * row + vector], atol=1e-5)
        assert vector_box(on_disk, tiles, row, 3) == (13 / 40, 10 / 30, 1, 1)
