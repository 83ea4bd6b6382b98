import numpy as np
import pytest
from PIL import Image

from forclip.data.images.tiles import Tiles, describe_tiles, parse_tiles, tiles_for_size, views_of


def boxes(tiles: Tiles, width: int, height: int) -> list[tuple[int, int, int, int]]:
    return [view.window(0, (width, height)).box for view in tiles.views()]


def test_three_by_three_are_the_whole_picture_and_nine_halves_row_by_row() -> None:
    halves = [(x, y, x + 8, y + 6) for y in (0, 3, 6) for x in (0, 4, 8)]
    assert boxes(Tiles(3, 3), 16, 12) == [(0, 0, 16, 12), *halves]
    assert len(Tiles(3, 3)) == len(Tiles(3, 3).tile_views()) == 9


def test_tiles_that_do_not_overlap_cut_the_picture() -> None:
    assert boxes(Tiles(1, 2, overlap=0), 10, 4)[1:] == [(0, 0, 5, 4), (5, 0, 10, 4)]
    assert boxes(Tiles(2, 1, overlap=0.5), 10, 6)[1:] == [(0, 0, 10, 4), (0, 2, 10, 6)]


@pytest.mark.parametrize("size", [(16, 12), (13, 9), (2, 2), (1, 1), (1, 700), (3, 100), (641, 479)])
@pytest.mark.parametrize(
    "tiles", [Tiles(3, 3), Tiles(2, 2), Tiles(2, 3, overlap=0), Tiles(5, 1, overlap=0.9), Tiles(8, 8, overlap=0.2)]
)
def test_tiles_have_one_size_and_cover_every_pixel(tiles: Tiles, size: tuple[int, int]) -> None:
    pixels = np.arange(size[0] * size[1], dtype=np.int32).reshape(size[1], size[0])
    shown = [np.asarray(view(0, Image.fromarray(pixels))) for view in tiles.tile_views()]
    assert len({tile.shape for tile in shown}) == 1
    assert min(shown[0].shape) >= 1
    assert set(np.concatenate([tile.ravel() for tile in shown])) == set(pixels.ravel())


def test_equal_views_and_only_they_have_equal_names() -> None:
    grids = [Tiles(3, 3), Tiles(2, 2), Tiles(3, 3, overlap=0.25)]
    names = [view.name for tiles in grids for view in tiles.tile_views()]
    assert len(set(names)) == len(names)
    assert [v.name for v in Tiles(3, 3).views()] == [v.name for v in Tiles(3, 3).views()]


def test_the_names_of_grids() -> None:
    assert parse_tiles("none") is None
    assert parse_tiles("3x3") == Tiles(3, 3)
    assert parse_tiles("2x5", overlap=0.25) == Tiles(2, 5, 0.25)
    assert Tiles(2, 5).name == "2x5"
    assert [view.name for view in views_of(None)] == ["plain"]
    assert len(views_of(Tiles(2, 2))) == 5


@pytest.mark.parametrize("name", ["0x3", "1x1", "9x9", "3", "3x", "-1x2", "3X3", "auto", "", "3x3x3"])
def test_nonsense_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"not {name!r}|'{name}'"):
        parse_tiles(name)


@pytest.mark.parametrize("overlap", [-0.1, 0.95, float("nan")])
def test_an_impossible_overlap_is_refused(overlap: float) -> None:
    with pytest.raises(ValueError, match=str(overlap)):
        Tiles(2, 2, overlap)


@pytest.mark.parametrize(
    ("picture", "model_input", "expected"),
    [
        ((224, 224), (224, 224), None),
        ((300, 300), (224, 224), None),
        ((336, 336), (224, 224), Tiles(2, 2)),
        ((448, 448), (224, 224), Tiles(3, 3)),
        ((1600, 900), (224, 224), Tiles(3, 3)),
        ((1600, 900), (1024, 576), Tiles(2, 2)),
        ((900, 224), (224, 224), Tiles(3, 3)),
        ((1, 1), (224, 224), None),
    ],
)
def test_tiles_by_size_fill_the_models_input(
    picture: tuple[int, int], model_input: tuple[int, int], expected: Tiles | None
) -> None:
    assert tiles_for_size(picture, model_input) == expected


def test_tiles_without_overlap_are_smaller_so_they_need_larger_pictures() -> None:
    assert tiles_for_size((448, 448), (224, 224), overlap=0) == Tiles(2, 2, 0)
    assert tiles_for_size((672, 672), (224, 224), overlap=0) == Tiles(3, 3, 0)


def test_readers_see_the_overlap_where_it_is_unusual() -> None:
    assert [describe_tiles(t) for t in (None, Tiles(3, 3), Tiles(3, 3, 0.25))] == [
        "none",
        "3x3",
        "3x3 overlapping by 0.25",
    ]
