"""Teachers compared with the same computation by hand, and the choice between teachers of known quality."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.baselines import ClusterHead
from forclip.progress import Advance, silent, untracked
from forclip.training.supervision import Supervision
from forclip.training.teachers import ClusterTeacher, ZoomTeacher, choose_teacher
from tests.tiny import TinyBackbone, aligned, tiny_pool


def write_images(folder: Path, count: int) -> list[Path]:
    """Write images of 16 x 12 pixels of noise."""
    paths = [folder / f"{k}.png" for k in range(count)]
    for k, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (12, 16, 3), np.uint8)).save(path)
    return paths


@torch.no_grad()
def test_the_zoom_teacher_embeds_nine_windows_of_each_image(tmp_path: Path) -> None:
    paths, backbone = write_images(tmp_path, 9), TinyBackbone()
    progress: list[int] = []
    rows = [8, 0, 3, 4, 1, 2, 7, 6]  # more than one batch, not in order
    result = ZoomTeacher(backbone, tiny_pool((3, 3)), paths)(rows, progress.append)
    assert result.shape == (8, 9, 6)
    assert sum(progress) == 8
    pool = tiny_pool((3, 3))
    for vectors, row in zip(result, rows, strict=True):
        image = Image.open(paths[row])
        corners = [(x, y) for y in (0, 3, 6) for x in (0, 4, 8)]
        for vector, (x, y) in zip(vectors, corners, strict=True):
            pixels = backbone.preprocess(image.crop((x, y, x + 8, y + 6)))
            tokens = backbone.encode_tokens(pixels[None])
            by_hand = F.normalize(pool(tokens, pool.pretrained_query(tokens))[0, 0], dim=0)
            torch.testing.assert_close(vector, by_hand, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_zoom_teacher_uses_the_alignment_of_its_pool(tmp_path: Path) -> None:
    negate = nn.Linear(6, 6)
    nn.init.eye_(negate.weight)
    negate.weight.neg_()
    nn.init.zeros_(negate.bias)
    paths = write_images(tmp_path, 1)
    plain = ZoomTeacher(TinyBackbone(), tiny_pool((3, 3)), paths)([0])
    torch.testing.assert_close(ZoomTeacher(TinyBackbone(), aligned(tiny_pool((3, 3)), negate), paths)([0]), -plain)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 3)
    paths[1].write_bytes(b"\x89PNG no more")
    teacher = ZoomTeacher(TinyBackbone(), tiny_pool((3, 3)), paths)
    with pytest.raises(ValueError, match=r"1\.png"):
        teacher(range(3))
    assert teacher([0, 2]).shape == (2, 9, 6)


@torch.no_grad()
@pytest.mark.parametrize("num_clusters", [4, 50])
def test_the_cluster_teacher_is_cluster_clip(num_clusters: int) -> None:
    tokens = torch.randn(70, 9, 8, generator=torch.Generator().manual_seed(0)).half()
    progress: list[int] = []
    teacher = ClusterTeacher(tiny_pool((3, 3)), tokens, num_clusters, torch.device("cpu"))
    result = teacher(range(69, -1, -1), progress.append)
    expected = ClusterHead(tiny_pool((3, 3)), min(num_clusters, 9))(tokens.float())  # 9 positions
    torch.testing.assert_close(result, expected.flip(0))
    assert sum(progress) == 70
    assert not result.is_inference()


IMAGES, CLASSES = 90, 6
LABELS = np.random.default_rng(0).random((IMAGES, CLASSES)) < 0.3


class ScriptedTeacher:
    """Scores a share `right` of all pairs by their label (negative: by its opposite), the others at random."""

    def __init__(self, name: str, right: float) -> None:
        rng = np.random.default_rng(len(name))
        truth = np.where(LABELS, 1.0, 0.0) * np.sign(right)
        scores = np.where(rng.random(LABELS.shape) < abs(right), truth, 0.0) + 0.5 * rng.random(LABELS.shape)
        self.rows_run = 0
        self.vectors = F.normalize(torch.from_numpy(np.c_[scores, np.ones(IMAGES)]).float(), dim=-1)[:, None]

    def __call__(self, rows: Sequence[int], advance: Advance = silent) -> Tensor:
        self.rows_run += len(rows)
        return self.vectors[list(rows)]


class Head:
    """A student with the scores of a scripted teacher."""

    grid = (1, 1)

    def __init__(self, like: ScriptedTeacher) -> None:
        self.like = like

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.like.vectors[tokens[:, 0, 0].long()]

    def position_weights(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError


TOKENS = torch.arange(IMAGES, dtype=torch.float32)[:, None, None]


def supervision(labelled: int = IMAGES) -> Supervision:
    verified = np.zeros_like(LABELS)
    verified[:labelled] = True
    return Supervision(LABELS, verified, torch.eye(CLASSES + 1)[:CLASSES], torch.zeros(0, CLASSES + 1))


def test_the_best_teacher_is_chosen_if_it_beats_the_student() -> None:
    good, fair = ScriptedTeacher("good", 0.9), ScriptedTeacher("fair", 0.6)
    teachers = {"fair": fair, "good": good}
    best, gains = choose_teacher(teachers, Head(ScriptedTeacher("student", 0.2)), TOKENS, supervision(), untracked)
    assert best == "good"
    assert gains["good"][0] > gains["good"][1] > gains["fair"][1] > 0
    none, gains = choose_teacher(teachers, Head(ScriptedTeacher("master", 1.0)), TOKENS, supervision(), untracked)
    assert none is None
    assert set(gains) == {"good", "fair"}


def test_a_clearly_worse_teacher_runs_on_a_third_of_the_images() -> None:
    hopeless, good = ScriptedTeacher("hopeless", -0.9), ScriptedTeacher("good", 0.9)
    teachers = {"hopeless": hopeless, "good": good}
    best, gains = choose_teacher(teachers, Head(ScriptedTeacher("student", 0.3)), TOKENS, supervision(), untracked)
    assert best == "good"
    assert (hopeless.rows_run, good.rows_run) == (30, 90)
    assert gains["hopeless"][0] < 0


@pytest.mark.parametrize("labelled", [0, 1, 2, 4])
def test_too_few_labels_choose_no_teacher(labelled: int) -> None:
    good = ScriptedTeacher("good", 0.9)
    student = Head(ScriptedTeacher("master", 1.0))
    best, _ = choose_teacher({"good": good}, student, TOKENS, supervision(labelled), untracked)
    assert best is None
    assert good.rows_run == labelled
