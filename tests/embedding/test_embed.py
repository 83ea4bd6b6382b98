"""Boxes of embedded images are fractions of the image, whatever the preprocessing; tiles are images of their own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from forclip.data.images.tiles import Tiles
from forclip.embedding.embed import embed_images, encode_batches
from forclip.models.retrieval_model import RetrievalModel
from forclip.models.summary_head import SummaryHead, window_seeded_head
from tests.tiny import TinyEyes, tiny_pool


class Letterbox(TinyEyes):
    """For images twice as wide as high: pads a quarter of grey above and below."""

    def preprocess(self, image: Image.Image) -> Tensor:
        padded = Image.new("RGB", (image.width, 2 * image.height), "grey")
        padded.paste(image, (0, image.height // 2))
        return super().preprocess(padded)

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        return 0.0, -0.5, 1.0, 1.5


def looking_at(position: int) -> SummaryHead:
    """One query token that attends to one of 3 x 3 positions."""
    bias = torch.zeros(1, 10)
    bias[0, 1 + position] = 50.0
    return SummaryHead(tiny_pool((3, 3)), torch.zeros(1, 8), bias)


def test_a_box_in_a_letterbox_is_relative_to_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    squashed, boxed = (
        embed_images(RetrievalModel("tiny", eyes, looking_at(4), ""), [tmp_path / "a.png"])[0].boxes
        for eyes in (TinyEyes(), Letterbox())
    )
    assert squashed is not None
    assert boxed is not None
    reach = 0.9 / 3  # from the middle's centre to where the weight falls to a tenth
    np.testing.assert_allclose(squashed, [[0.5 - reach, 0.5 - reach, 0.5 + reach, 0.5 + reach]], atol=1e-3)
    np.testing.assert_allclose(boxed, [[0.5 - reach, 0, 0.5 + reach, 1]], atol=1e-3)


@pytest.mark.parametrize("position", [0, 8])
def test_a_box_in_the_padding_is_clipped_to_the_image(tmp_path: Path, position: int) -> None:
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    found = embed_images(RetrievalModel("tiny", Letterbox(), looking_at(position), ""), [tmp_path / "a.png"])[0].boxes
    assert found is not None
    assert ((found >= 0) & (found <= 1)).all()
    assert found[0, 1] == 0 if position == 0 else found[0, 3] == 1


def noise(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    paths = [folder / f"{k}.png" for k in range(len(sizes))]
    for k, (path, (width, height)) in enumerate(zip(paths, sizes, strict=True)):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("eyes", [TinyEyes(), Letterbox()])
def test_a_tile_is_embedded_as_if_it_were_an_image(tmp_path: Path, eyes: TinyEyes) -> None:
    """Vectors are those of the saved crops, part by part; boxes are the crops' boxes, moved to where the crop was."""
    tiles, paths = Tiles(2, 3, overlap=0.25), noise(tmp_path, (40, 20), (64, 32), (41, 19))
    model = RetrievalModel("tiny", eyes, window_seeded_head(tiny_pool((3, 3)), 4), "")
    found, _ = embed_images(model.with_tiles(tiles), paths)
    assert found.offsets.tolist() == [0, 28, 56, 84]
    assert found.boxes is not None
    for row, path in enumerate(paths):
        with Image.open(path) as image:
            boxes = [view.window(0, image.size).box for view in tiles.views()]
            crops = [tmp_path / f"crop-{part}.png" for part in range(7)]
            for crop, box in zip(crops, boxes, strict=True):
                image.crop(box).save(crop)
        alone, _ = embed_images(model, crops)
        assert alone.boxes is not None
        part = slice(28 * row, 28 * row + 28)
        np.testing.assert_allclose(found.vectors[part], alone.vectors, atol=1e-5)
        corner = np.repeat([[x0, y0, x0, y0] for x0, y0, _, _ in boxes], 4, 0)
        sides = np.repeat([[x1 - x0, y1 - y0] * 2 for x0, y0, x1, y1 in boxes], 4, 0)
        pixels = corner + alone.boxes * sides
        np.testing.assert_allclose(found.boxes[part], pixels / np.tile(image.size, 2), atol=1e-5)
    bare, _ = embed_images(model.with_tiles(tiles), paths, with_boxes=False)
    np.testing.assert_array_equal(bare.vectors, found.vectors)
    assert bare.boxes is None


def test_a_box_in_a_tiles_padding_ends_with_the_tile(tmp_path: Path) -> None:
    """The upper row of positions of a letterboxed tile is padding; below the tile is its neighbour, not padding."""
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    model = RetrievalModel("tiny", Letterbox(), looking_at(7), "").with_tiles(Tiles(2, 2, overlap=0))
    found, _ = embed_images(model, [tmp_path / "a.png"])
    assert found.boxes is not None
    np.testing.assert_allclose(found.boxes[1:, 3], [0.5, 0.5, 1, 1])
    np.testing.assert_allclose(found.boxes[1:, [0, 2]].mean(1), [0.25, 0.75, 0.25, 0.75], atol=1e-3)


def test_many_views_of_many_images_are_encoded_in_smaller_batches(tmp_path: Path) -> None:
    """The memory for pixels does not grow with the number of tiles, and no image is lost."""
    paths = noise(tmp_path, *[(12, 10)] * 30)
    model = RetrievalModel("tiny", TinyEyes(), looking_at(4), "").with_tiles(Tiles(5, 5))
    sizes = [len(batch.rows) for batch in encode_batches(model.backbone, list("a" * 30), paths, model.views)]
    assert sum(sizes) == 30
    assert max(sizes) < 30
    found, _ = embed_images(model, paths)
    whole, _ = embed_images(model.with_tiles(None), paths)
    np.testing.assert_allclose(found.vectors[::26], whole.vectors, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (3, 2)])
def test_tiny_pictures_have_tiles(tmp_path: Path, size: tuple[int, int]) -> None:
    (path,) = noise(tmp_path, size)
    model = RetrievalModel("tiny", TinyEyes(), looking_at(4), "").with_tiles(Tiles(3, 3))
    found, skipped = embed_images(model, [path])
    assert not skipped
    assert found.offsets.tolist() == [0, 10]
    assert found.boxes is not None
    assert np.isfinite(found.boxes).all()


def test_a_query_picture_has_the_vectors_of_a_stored_one(tmp_path: Path) -> None:
    (path,) = noise(tmp_path, (50, 30))
    model = RetrievalModel("tiny", TinyEyes(), window_seeded_head(tiny_pool((3, 3)), 4), "").with_tiles(Tiles(2, 2))
    with Image.open(path) as image:
        query = model.encode_image(image.convert("RGB"))
    np.testing.assert_allclose(query, embed_images(model, [path])[0].vectors, atol=2e-3)  # tokens in half precision
