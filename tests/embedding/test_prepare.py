"""Pictures that are decoded at a reduced size have the vectors, sizes and regions of those decoded in full."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageDraw

from forclip.config import ModelConfig
from forclip.data.images import stream
from forclip.data.images.decode import read_image, read_picture
from forclip.data.images.picture import ChooseReduction, Picture
from forclip.data.images.tiles import Tiles
from forclip.data.images.views import make_views
from forclip.embedding.embed import embed_images, encode_batches
from forclip.embedding.prepare import PrepareViews
from forclip.models.mini_clip import MINI_NAME
from forclip.models.retrieval_model import RetrievalModel, load_model
from tests.tiny import TinyEyes

TOLERANCE = 0.999  # cosine


@pytest.fixture(scope="module")
def model() -> RetrievalModel:
    return load_model(ModelConfig(name=MINI_NAME))


def write_scene(path: Path, size: tuple[int, int], seed: int, orientation: int = 1) -> Path:
    """Objects of many sizes on a structured ground, with fine noise, as cameras have it."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 256, (size[1] // 40, size[0] // 40, 3), np.uint8)
    image = Image.fromarray(ground).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, side = (int(rng.integers(low, high)) for low, high in ((0, size[0]), (0, size[1]), (10, 250)))
        colour = tuple(rng.integers(0, 256, 3).tolist())
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((x, y, x + side, y + side), fill=colour)
    noisy = np.asarray(image, np.float32) + rng.normal(0, 6, (size[1], size[0], 1))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=90, exif=exif)
    return path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    kinds = [((1300, 1000), 1), ((987, 1291), 6), ((1283, 651), 3), ((400, 300), 1)]
    return [write_scene(folder / f"{k}.jpg", size, k, turn) for k, (size, turn) in enumerate(kinds)]


@pytest.mark.parametrize(("tiles", "expected"), [(None, [1, 4, 4, 4]), (Tiles(2, 2), [1, 2, 4, 4])])
def test_vectors_and_regions_are_those_of_full_pictures(
    model: RetrievalModel,
    scenes: list[Path],
    tiles: Tiles | None,
    expected: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model.with_tiles(tiles)
    reductions = []

    def noted(path: Path, choose: ChooseReduction) -> Picture:
        picture = read_picture(path, choose)
        reductions.append(picture.reduction)
        return picture

    monkeypatch.setattr(stream, "read_picture", noted)
    embedded, _ = embed_images(model, scenes)
    assert sorted(reductions) == expected
    for path, vectors in zip(scenes, np.split(embedded.vectors, embedded.offsets[1:-1]), strict=True):
        full = model.encode_image(read_image(path)).numpy()
        assert (vectors * full).sum(1).min() > TOLERANCE
    monkeypatch.setattr(PrepareViews, "reduction", lambda prepare, row, size: 1)
    full_pictures, _ = embed_images(model, scenes)
    assert embedded.boxes is not None
    assert full_pictures.boxes is not None
    assert np.abs(embedded.boxes - full_pictures.boxes).max() < 0.02


def test_mirrored_and_cropped_views_too(model: RetrievalModel, scenes: list[Path]) -> None:
    views = make_views(4, seed=1)
    (batch,) = encode_batches(model.backbone, [str(p) for p in scenes], scenes, views)
    for row, path in enumerate(scenes):
        image = read_image(path)
        assert batch.sizes[row] == image.size
        pixels = torch.stack([model.backbone.preprocess(view(row, image)) for view in views])
        full = model.backbone.encode_tokens(pixels)
        cosines = torch.cosine_similarity(batch.tokens[:, row].float(), full, dim=-1)
        assert cosines.mean() > TOLERANCE


def test_a_letterbox_is_reduced_by_its_longer_side(scenes: list[Path]) -> None:
    model = load_model(ModelConfig(name=MINI_NAME, resize_mode="letterbox"))
    assert PrepareViews(model.backbone, model.views).reduction(0, (1300, 400)) == 8
    assert PrepareViews(load_model(ModelConfig(name=MINI_NAME)).backbone, model.views).reduction(0, (1300, 400)) == 2
    embedded, _ = embed_images(model, scenes)
    for path, vectors in zip(scenes, np.split(embedded.vectors, embedded.offsets[1:-1]), strict=True):
        assert (vectors * model.encode_image(read_image(path)).numpy()).sum(1).min() > TOLERANCE


def test_a_backbone_that_was_plugged_in_gets_all_pixels(tmp_path: Path) -> None:
    seen = []

    class Eyes(TinyEyes):
        def preprocess(self, image: Image.Image) -> torch.Tensor:
            seen.append(image.size)
            return super().preprocess(image)

    path = write_scene(tmp_path / "a.jpg", (600, 400), 0)
    list(encode_batches(Eyes(), ["a"], [path], make_views(1, 0)))
    assert max(seen) == (600, 400)
