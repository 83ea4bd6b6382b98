"""Teachers against what they stand for, done by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from forclip.data.images.views import NUM_CROPS, zoomed_crops
from forclip.models.baselines import ClusterHead
from forclip.training.teachers import ClusterTeacher, ZoomTeacher
from tests.tiny import TinyBackbone, aligned, tiny_pool


def pictures(folder: Path, count: int) -> list[Path]:
    """16 x 12 pixels of noise each."""
    paths = [folder / f"{k}.png" for k in range(count)]
    for k, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (12, 16, 3), np.uint8)).save(path)
    return paths


@torch.no_grad()
def test_the_zoom_teacher_embeds_nine_windows(tmp_path: Path) -> None:
    paths, backbone = pictures(tmp_path, 9), TinyBackbone()
    told: list[int] = []
    rows = [8, 0, 3, 4, 1, 2, 7, 6]  # more than one batch, in an order of their own
    found = ZoomTeacher(backbone, tiny_pool((3, 3)), paths)(rows, told.append)
    assert found.shape == (8, 9, 6)
    assert sum(told) == 8
    pool = tiny_pool((3, 3))
    for vectors, row in zip(found, rows, strict=True):
        picture = Image.open(paths[row])
        corners = [(x, y) for y in (0, 3, 6) for x in (0, 4, 8)]
        for vector, (x, y) in zip(vectors, corners, strict=True):
            pixels = backbone.preprocess(picture.crop((x, y, x + 8, y + 6)))
            tokens = backbone.encode_tokens(pixels[None])
            by_hand = F.normalize(pool(tokens, pool.pretrained_query(tokens))[0, 0], dim=0)
            torch.testing.assert_close(vector, by_hand, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_aligned_pool_aligns_the_zoom_teacher_too(tmp_path: Path) -> None:
    turned = nn.Linear(6, 6)
    nn.init.eye_(turned.weight)
    turned.weight.neg_()
    nn.init.zeros_(turned.bias)
    paths = pictures(tmp_path, 1)
    plain = ZoomTeacher(TinyBackbone(), tiny_pool((3, 3)), paths)([0])
    torch.testing.assert_close(ZoomTeacher(TinyBackbone(), aligned(tiny_pool((3, 3)), turned), paths)([0]), -plain)


def test_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 3)
    paths[1].write_bytes(b"\x89PNG no more")
    teacher = ZoomTeacher(TinyBackbone(), tiny_pool((3, 3)), paths)
    with pytest.raises(ValueError, match=r"a training picture can no longer be read: .*1\.png"):
        teacher(range(3))
    assert teacher([0, 2]).shape == (2, 9, 6)


@pytest.mark.parametrize("size", [(16, 12), (13, 9), (2, 2), (1, 1), (3, 100)])
def test_windows_lie_within_the_picture_and_cover_it(size: tuple[int, int]) -> None:
    numbers = np.arange(size[0] * size[1], dtype=np.int32).reshape(size[1], size[0])
    crops = [np.asarray(crop) for crop in zoomed_crops(Image.fromarray(numbers))]
    assert len(crops) == NUM_CROPS == 9
    assert {crop.shape for crop in crops} == {(max(1, size[1] // 2), max(1, size[0] // 2))}
    seen = np.isin(numbers, np.concatenate([crop.ravel() for crop in crops]))
    # Of an odd number of pixels, half rounded down may leave the last row and column out.
    assert seen[: size[1] // 2 * 2, : size[0] // 2 * 2].all()


@torch.no_grad()
@pytest.mark.parametrize("asked", [4, 50])
def test_the_cluster_teacher_is_cluster_clip(asked: int) -> None:
    tokens = torch.randn(70, 9, 8, generator=torch.Generator().manual_seed(0)).half()
    told: list[int] = []
    found = ClusterTeacher(tiny_pool((3, 3)), tokens, asked, torch.device("cpu"))(range(69, -1, -1), told.append)
    expected = ClusterHead(tiny_pool((3, 3)), min(asked, 9))(tokens.float())  # no more clusters than positions
    torch.testing.assert_close(found, expected.flip(0))
    assert sum(told) == 70
    assert not found.is_inference()
