"""The fitted pool, on generated photos of a coloured square in a meadow, and a model of a few hundred weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.salient_pool import (
    COPIED,
    EMBEDDING,
    WEIGHTS,
    FitConfig,
    Gallery,
    copy_model,
    fit_model,
    measure,
    pooled_vectors,
    salient_words,
    small_objects,
)
from examples.plug_in_backbone import PhotoClipBackbone
from forclip.data.images.tiles import Tiles
from forclip.embedding.embed import encode_batches
from forclip.types import Annotations, ClassSplit

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "meadow": (40, 160, 40)}
OBJECTS = ("red", "blue", "yellow")
SIDE, GRID, WIDTH, STRIDE = 24, 6, 8, 32

# The parts of a CLIP-like model that the example asks for: tokens are the mean colours of 6 x 6 patches of 4 pixels.
PHOTOCLIP = """
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

IMAGE_SIZE = 192


def preprocess(image):
    pixels = np.asarray(image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), 0), np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)


class Pool(nn.Module):
    num_heads = 2

    def __init__(self):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.zeros(1 + (IMAGE_SIZE // 32) ** 2, 8))
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = (nn.Linear(8, 8) for _ in range(4))


class Model(nn.Module):
    def __init__(self, text):
        super().__init__()
        self.trunk, self.attnpool, self.text = nn.Conv2d(3, 8, 32, 32), Pool(), text

    def encode_text(self, names):
        return torch.stack([self.text[n] for n in names])


def load_photoclip(folder):
    table = np.load(Path(folder) / "text_vectors.npz")
    model = Model(dict(zip(table["names"].tolist(), torch.from_numpy(table["vectors"]).float())))
    model.load_state_dict({k: v.float() for k, v in load_file(Path(folder) / "photoclip.safetensors").items()})
    return model.eval()
"""


def half(value: Tensor) -> Tensor:
    return value.half().contiguous()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose dense vectors are the colours themselves, and whose pooled embedding is close to their mean."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "photoclip.py").write_text(PHOTOCLIP)
    (folder / "photoclip.json").write_text("[]")
    texts = np.zeros((len(COLOURS), WIDTH), np.float32)
    texts[:, :3] = np.array(list(COLOURS.values())) / 127.5 - 1
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    np.savez(folder / "text_vectors.npz", names=np.array(list(COLOURS)), vectors=texts)
    generator = torch.Generator().manual_seed(0)
    eye, zero = torch.eye(WIDTH), torch.zeros(WIDTH)
    weights = {"trunk.weight": eye[:, :3, None, None].expand(WIDTH, 3, STRIDE, STRIDE) / STRIDE**2, "trunk.bias": zero}
    weights["attnpool.positional_embedding"] = torch.zeros(1 + GRID * GRID, WIDTH)
    for letter in "qkvc":
        near_zero = 0.05 * torch.randn(WIDTH, WIDTH, generator=generator)
        weights[f"attnpool.{letter}_proj.weight"] = near_zero if letter in "qk" else eye
        weights[f"attnpool.{letter}_proj.bias"] = zero
    save_file({name: half(value) for name, value in weights.items()}, folder / WEIGHTS)
    return folder


def write_photos(folder: Path, count: int, seed: int) -> tuple[list[Path], list[str], np.ndarray]:
    """Meadows with a square of a colour, 8 of 24 pixels wide. Returns files, colours, and boxes xyxy."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    files, colours, boxes = [], [], np.zeros((count, 4), np.float32)
    for number in range(count):
        pixels = np.array(COLOURS["meadow"]) + rng.integers(-30, 30, (SIDE, SIDE, 3))
        colour = OBJECTS[number % len(OBJECTS)]
        x, y = rng.integers(0, SIDE - 8, 2)
        pixels[y : y + 8, x : x + 8] = COLOURS[colour]
        files.append(folder / f"{number:03}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(files[-1])
        colours.append(colour)
        boxes[number] = x, y, x + 8, y + 8
    return files, colours, boxes


def tokens_of(backbone: PhotoClipBackbone, files: list[Path]) -> Tensor:
    return backbone.encode_tokens(torch.stack([backbone.preprocess(Image.open(file)) for file in files]))


def test_the_salient_word_is_that_of_the_object(model: Path, tmp_path: Path) -> None:
    """The meadow is in every photo, and so says nothing about one."""
    files, colours, _ = write_photos(tmp_path / "photos", 30, seed=0)
    backbone = PhotoClipBackbone(model)
    words = salient_words(
        backbone.new_pool(), tokens_of(backbone, files), backbone.encode_text(list(COLOURS)), window=2
    )
    assert [list(COLOURS)[word] for word in words] == colours


CONFIG = FitConfig(window=2, sharpness=1.0, epochs=20, batch_size=10, learning_rate=0.02)


def test_the_fitted_folder_loads_and_its_pooled_vectors_show_the_object(model: Path, tmp_path: Path) -> None:
    files, _, _ = write_photos(tmp_path / "photos", 30, seed=0)
    others, colours, _ = write_photos(tmp_path / "others", 12, seed=1)
    copy_model(model, tmp_path / "out", None)
    losses = fit_model(tmp_path / "out", files, CONFIG)
    assert losses[-1] < losses[0]
    before, after = PhotoClipBackbone(model), PhotoClipBackbone(tmp_path / "out")
    tokens, texts = tokens_of(before, others), before.encode_text(colours)
    similarity = [(pooled_vectors(b.new_pool(), tokens) * texts).sum(-1) for b in (before, after)]
    assert (similarity[1] > similarity[0] + 0.1).all()


def test_only_queries_and_keys_change(model: Path, tmp_path: Path) -> None:
    files, _, _ = write_photos(tmp_path / "photos", 12, seed=0)
    for out in ("one", "two"):
        copy_model(model, tmp_path / out, None)
        fit_model(tmp_path / out, files, CONFIG)
    assert (tmp_path / "one" / WEIGHTS).read_bytes() == (tmp_path / "two" / WEIGHTS).read_bytes()
    for name in COPIED:
        assert (tmp_path / "one" / name).read_bytes() == (model / name).read_bytes()
    before, after = load_file(model / WEIGHTS), load_file(tmp_path / "one" / WEIGHTS)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= {f"attnpool.{letter}_proj.{part}" for letter in "qk" for part in ("weight", "bias")}
    assert {f"attnpool.{letter}_proj.weight" for letter in "qk"} <= changed
    assert all(value.dtype == torch.float16 for value in after.values())


def test_a_copy_with_another_input_size_loads_and_fits(model: Path, tmp_path: Path) -> None:
    """Each position has the embedding of where it was before."""
    weights = load_file(model / WEIGHTS)
    rows = torch.arange(GRID).repeat_interleave(GRID).half()
    weights[EMBEDDING][1:] = rows[:, None]
    save_file(weights, model / WEIGHTS)
    copy_model(model, tmp_path / "out", image_size=96)
    files, _, _ = write_photos(tmp_path / "photos", 6, seed=0)
    backbone = PhotoClipBackbone(tmp_path / "out")
    assert tokens_of(backbone, files).shape == (6, 9, WIDTH)
    embedding = load_file(tmp_path / "out" / WEIGHTS)[EMBEDDING]
    assert embedding[1:, 0].tolist() == [0.5, 0.5, 0.5, 2.5, 2.5, 2.5, 4.5, 4.5, 4.5]
    fit_model(tmp_path / "out", files, CONFIG)
    assert PhotoClipBackbone(tmp_path / "out").new_pool().grid == (3, 3)
    with pytest.raises(ValueError, match="100"):
        copy_model(model, tmp_path / "other", image_size=100)


def photos_as_annotations(files: list[Path], colours: list[str], boxes: np.ndarray) -> Annotations:
    labels = np.array([[colour == name for name in OBJECTS] for colour in colours])
    count = len(files)
    columns = np.array([OBJECTS.index(colour) for colour in colours])
    sizes = np.full((count, 2), SIDE)
    ids = tuple(str(number) for number in range(count))
    return Annotations(ids, tuple(files), OBJECTS, labels, boxes, np.arange(count), columns, box_sizes=sizes)


def test_every_method_is_measured_with_both_models(model: Path, tmp_path: Path) -> None:
    files, colours, boxes = write_photos(tmp_path / "photos", 9, seed=0)
    copy_model(model, tmp_path / "out", None)
    fit_model(tmp_path / "out", files, CONFIG)
    models = {"plain": PhotoClipBackbone(model), "salient": PhotoClipBackbone(tmp_path / "out")}
    gallery = Gallery("meadows", photos_as_annotations(files, colours, boxes), ClassSplit(("red", "blue"), ("yellow",)))
    ids, views = gallery.images.image_ids, Tiles(2, 2).views()
    rows = measure(models, gallery, encode_batches(models["plain"], ids, files, views), min_relevant=3)
    values = {row["method"]: row for row in rows}
    assert list(values) == [
        *("dense", "cluster_5", "cluster_10", "cluster_25"),
        *("global, plain", "tiles, plain", "global, salient", "tiles, salient"),
    ]
    # A position inside a square is the colour itself.
    assert values["dense"]["base"] == values["dense"]["novel"] == 100
    # A ninth of the photo is no small object.
    assert values["dense"]["small base"] is None
    assert json.dumps(rows)


def test_small_objects_are_those_whose_largest_box_is_small(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 12, 12], [2, 2, 4, 4]], np.float32)
    images = Annotations(
        ("a", "b"),
        (Path("a"), Path("b")),
        ("cup", "dog"),
        np.array([[True, True], [True, False]]),
        boxes,
        np.array([0, 1, 1]),
        np.array([0, 0, 0]),
        box_sizes=np.full((2, 2), SIDE),
    )
    # In a, the cup is small and the dog has no box; in b, one of two cups is large, and there is no dog.
    assert small_objects(images, 0.05).verified_mask.tolist() == [[True, False], [False, True]]
