"""The generated dataset and its scenes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from forclip.data.formats.coco import load_coco
from forclip.location import local_path
from forclip.toyworld import pictographs, scenes
from forclip.toyworld.dataset import ToyWorld, novel_names, write_toyworld

BACKGROUND, COLOUR = (255, 0, 255), (0, 200, 0)  # far from each other and from ink, light and shade


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ToyWorld:
    return write_toyworld(tmp_path_factory.mktemp("world"), 10, 5, seed=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_bytes(world: ToyWorld, tmp_path: Path) -> None:
    progress: list[int] = []
    again = write_toyworld(tmp_path, 10, 5, seed=3, advance=progress.append)
    assert contents(world.folder) == contents(tmp_path)
    assert set(contents(tmp_path)) == {"train.json", "gallery.json", "novel.txt"} | {
        f"images/{split}_{k:05d}.jpg" for split, count in (("train", 10), ("gallery", 5)) for k in range(count)
    }
    assert again.novel == world.novel
    assert sum(progress) == 15


def test_another_seed_gives_another_world(world: ToyWorld, tmp_path: Path) -> None:
    other = write_toyworld(tmp_path, 10, 5, seed=4)
    mine, others = contents(world.folder), contents(tmp_path)
    assert [name for name in mine if mine[name] == others[name]] == []
    assert other.novel != world.novel


def test_a_scene_does_not_depend_on_the_number_of_scenes(world: ToyWorld, tmp_path: Path) -> None:
    write_toyworld(tmp_path, 3, 1, seed=3)
    assert {k: v for k, v in contents(world.folder).items() if k in contents(tmp_path / "images") or "00000" in k} == {
        f"images/{k}": v for k, v in contents(tmp_path / "images").items() if "00000" in k
    }


def test_train_and_gallery_show_different_scenes(world: ToyWorld) -> None:
    pictures = list(contents(world.images).values())
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("seed", range(5))
def test_three_of_ten_classes_are_novel(seed: int) -> None:
    names = novel_names(seed)
    assert len(set(names)) == len(names) == round(0.3 * len(pictographs.NAMES))
    assert set(names) < set(pictographs.NAMES)
    assert names != novel_names(seed + 1)


def test_novel_names_are_written(world: ToyWorld) -> None:
    assert tuple((world.folder / "novel.txt").read_text().splitlines()) == world.novel


def test_files_load_as_coco(world: ToyWorld) -> None:
    for file, count in ((world.train_file, 10), (world.gallery_file, 5)):
        annotations, reference = load_coco(file, world.images), COCO(str(file))
        assert annotations.class_names == pictographs.NAMES
        assert len(annotations) == len(reference.imgs) == count
        assert len(annotations.boxes) == len(reference.anns) == annotations.labels.sum()
        assert {len(reference.getAnnIds(imgIds=[i])) for i in reference.imgs} <= {4, 5, 6, 7, 8}
        assert all(local_path(p).is_file() for p in annotations.paths)
        for path, entry in zip(annotations.paths, reference.dataset["images"], strict=True):
            assert Image.open(local_path(path)).size == (entry["width"], entry["height"])
        assert (annotations.boxes[:, :2] >= 0).all()
        assert (annotations.boxes[:, 2:] <= 224).all()
        assert (annotations.boxes[:, 2:] - annotations.boxes[:, :2] > 8).all()


def test_areas_are_width_times_height(world: ToyWorld) -> None:
    for annotation in json.loads(world.train_file.read_text())["annotations"]:
        assert annotation["area"] == annotation["bbox"][2] * annotation["bbox"][3]


def pasted(
    name: str, size: float, centre: tuple[float, float], degrees: float, side: int = 160
) -> tuple[np.ndarray, ...]:
    """The box that _paste returns, and the distance of each pixel from the flat background, 0..255."""
    canvas = Image.new("RGB", (side, side), BACKGROUND)
    box = scenes._paste(canvas, name, COLOUR, size, np.array(centre), degrees, shadow=0)
    difference = np.abs(np.asarray(canvas).astype(int) - BACKGROUND).max(2)
    return np.array(box), difference


def bounds(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("name", pictographs.NAMES[::12])
@pytest.mark.parametrize(
    ("size", "centre", "degrees"),
    [
        (0.5, (0.5, 0.5), 0),
        (0.3, (0.6, 0.35), 25),
        (0.2, (0.3, 0.7), -28),
        (0.3, (0.05, 0.95), 10),
        (0.4, (0.95, 0.1), -5),
    ],
)
def test_a_box_encloses_the_visible_pixels(name: str, size: float, centre: tuple[float, float], degrees: float) -> None:
    """The box lies between those of the clearly visible and of the faintly visible pixels, and inside the image."""
    box, difference = pasted(name, size, centre, degrees)
    clear, faint = bounds(difference > 112), bounds(difference > 72)
    assert (box[:2] <= clear[:2]).all()
    assert (box[2:] >= clear[2:]).all()
    assert (box[:2] >= faint[:2]).all()
    assert (box[2:] <= faint[2:]).all()
    assert box.min() >= 0
    assert box.max() <= 160


def test_size_and_centre_are_fractions_of_the_side() -> None:
    (x0, y0, x1, y1), _ = pasted("lemon", 0.5, (0.5, 0.25), 0)
    assert max(x1 - x0, y1 - y0) == pytest.approx(80, abs=2)
    assert (x0 + x1) / 2 == pytest.approx(80, abs=2)
    assert (y0 + y1) / 2 == pytest.approx(40, abs=2)


def test_clutter_draws_every_object_it_lists() -> None:
    """At least a fifth of each box differs from the same background without objects."""
    names = pictographs.NAMES[:7]
    scene = scenes.clutter(np.random.default_rng(5), names, 224)
    background = np.asarray(scenes._busy_background(np.random.default_rng(5), 224)).astype(int)
    difference = np.abs(np.asarray(scene.image).astype(int) - background).max(2) > 30
    assert tuple(o.name for o in scene.objects) == names
    for thing in scene.objects:
        x0, y0, x1, y1 = (int(v) for v in thing.box)
        assert difference[y0:y1, x0:x1].mean() > 0.2, thing
    assert difference.mean() < 0.5


def test_the_first_object_of_a_postcard_is_the_largest_and_near_the_centre() -> None:
    sizes = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        names = tuple(rng.choice(pictographs.NAMES, 4, replace=False).tolist())
        scene = scenes.postcard(rng, names, 128)
        assert tuple(o.name for o in scene.objects) == names
        boxes = np.array([o.box for o in scene.objects])
        longest = (boxes[:, 2:] - boxes[:, :2]).max(1)
        # A rotation by 16 degrees enlarges the box of a square by 1.24.
        assert longest[0] > longest[1:].max() / 1.24
        sizes.append(longest[0] > longest[1:].max())
        centre = (boxes[0, :2] + boxes[0, 2:]) / 2 / 128
        assert (np.abs(centre - 0.5) < 0.2).all()
    assert np.mean(sizes) > 0.9
