"""The heatmap belongs to the part of the image that the nearest vector comes from, and lies where that part is."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from forclip.data.images.tiles import Tiles
from forclip.embedding.regions import Heatmap, compute_heatmap
from forclip.models.retrieval_model import RetrievalModel
from forclip.models.summary_head import window_seeded_head
from forclip.types import Floats
from tests.embedding.test_embed import Letterbox
from tests.tiny import TinyEyes, tiny_pool

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8))


def model(eyes: TinyEyes, tiles: Tiles | None = None) -> RetrievalModel:
    return RetrievalModel("tiny", eyes, window_seeded_head(tiny_pool((3, 3)), 4), "").with_tiles(tiles)


def in_picture(heatmap: Heatmap) -> Floats:
    """Return the map at every pixel of the picture, 0 where it does not reach."""
    rows, columns = heatmap.values.shape
    x0, y0, x1, y1 = heatmap.frame
    x, y = (np.arange(80) + 0.5) / 80, (np.arange(40) + 0.5) / 40
    column, row = (
        np.floor((x - x0) / (x1 - x0) * columns).astype(int),
        np.floor((y - y0) / (y1 - y0) * rows).astype(int),
    )
    inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))
    shown = heatmap.values[row.clip(0, rows - 1)[:, None], column.clip(0, columns - 1)]
    return np.where(inside, shown, 0).astype(np.float32)


@pytest.mark.parametrize("part", range(5))
def test_a_tiles_heatmap_is_the_one_of_the_tile_alone(part: int) -> None:
    tiles = Tiles(2, 2, overlap=0)
    view, tiled = tiles.views()[part], model(TinyEyes(), tiles)
    vectors = tiled.encode_image(PICTURE).numpy()
    wanted = vectors[4 * part + 2]
    found = compute_heatmap(tiled, PICTURE, wanted)
    alone = compute_heatmap(model(TinyEyes()), view(0, PICTURE), wanted)
    assert found.agreement == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.values, alone.values, atol=1e-5)
    x0, y0, x1, y1 = view.window(0, PICTURE.size).box
    assert found.frame == pytest.approx((x0 / 80, y0 / 40, x1 / 80, y1 / 40))


def test_a_letterboxed_tile_does_not_heat_its_neighbours() -> None:
    """The map of a letterboxed whole image reaches beyond it; that of a tile ends with the tile."""
    tiles = Tiles(2, 2, overlap=0)
    tiled = model(Letterbox(), tiles)
    vectors = tiled.encode_image(PICTURE).numpy()
    assert compute_heatmap(tiled, PICTURE, vectors[0]).frame == (0.0, -0.5, 1.0, 1.5)
    for part, view in enumerate(tiles.views()[1:], start=1):
        found = compute_heatmap(tiled, PICTURE, vectors[4 * part])
        assert found.values.shape == (3, 3)
        assert found.values.max() == 1
        x0, y0, x1, y1 = view.window(0, PICTURE.size).box
        heated = in_picture(found)
        heated[y0:y1, x0:x1] = 0
        assert heated.max() == 0


class Ramp:
    """A head whose one vector attends to position k with weight k + 1. It agrees with what it sees second."""

    grid, calls = (3, 3), 0

    def __call__(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        return torch.eye(6)[None, :1] * (1 if self.calls == 2 else -1)

    def position_weights(self, tokens: Tensor) -> Tensor:
        return torch.arange(1.0, 10).expand(len(tokens), 1, 9)


def test_a_map_is_cut_to_its_tile_as_it_is_drawn() -> None:
    """Between the centres of rows with 2, 5 and 8 in the middle column, the tile's own rows have 3.5, 5 and 6.5."""
    tiled = RetrievalModel("tiny", Letterbox(), Ramp(), "", tiles=Tiles(1, 2, overlap=0))
    found = compute_heatmap(tiled, PICTURE, np.eye(6, dtype=np.float32)[0])
    assert found.frame == (0, 0, 0.5, 1)
    np.testing.assert_allclose(found.values, np.array([[2.5, 3.5, 4.5], [4, 5, 6], [5.5, 6.5, 7.5]]) / 7.5, atol=1e-6)
