"""Teachers compared with the same computation by hand, and the choice between teachers of known quality."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.baselines import ClusterHead
from forclip.models.summary_head import SummaryHead, noise_seeded_head
from forclip.progress import Advance, silent
from forclip.training import teachers
from forclip.training.losses import max_sim
from forclip.training.supervision import Supervision
from forclip.training.teachers import HeadTeacher, ZoomTeacher, measure_teacher
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
    assert result.shape == (1, 8, 9, 6)
    assert sum(progress) == 8
    pool = tiny_pool((3, 3))
    for vectors, row in zip(result[0], rows, strict=True):
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
    assert teacher([0, 2]).shape == (1, 2, 9, 6)


@torch.no_grad()
@pytest.mark.parametrize("views", [1, 3])
def test_a_head_teaches_each_view_what_it_sees_of_it(views: int) -> None:
    tokens = torch.randn(views, 70, 9, 8, generator=torch.Generator().manual_seed(0)).half()
    progress: list[int] = []
    head = ClusterHead(tiny_pool((3, 3)), 4)
    result = HeadTeacher(head, tokens, torch.device("cpu"))([69, 0, 33, 1], progress.append)
    assert result.shape == (views, 4, 4, 6)
    for view, vectors in zip(tokens, result, strict=True):
        torch.testing.assert_close(vectors.float(), head(view[[69, 0, 33, 1]].float()), rtol=0, atol=2e-3)
    assert sum(progress) == 4
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
        return self.vectors[None, list(rows)]


TOKENS = torch.randn(1, IMAGES, 9, 8, generator=torch.Generator().manual_seed(3)).half()


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> Callable[[ScriptedTeacher], SummaryHead]:
    """Give a head the scores of a scripted teacher."""

    def head(like: ScriptedTeacher) -> SummaryHead:
        def scores(_: object, plain: object, tokens: Tensor, rows: Any, texts: Tensor, shares: Any) -> dict[float, Any]:
            return {share: max_sim(like.vectors[rows], texts).numpy() for share in shares}

        monkeypatch.setattr(teachers, "score_shares", scores)
        return noise_seeded_head(tiny_pool((3, 3)), 2, 1.0, 0)

    return head


def supervision(labelled: int = IMAGES) -> Supervision:
    verified = np.zeros_like(LABELS)
    verified[:labelled] = True
    return Supervision(LABELS, verified, torch.eye(CLASSES + 1)[:CLASSES], torch.zeros(0, CLASSES + 1))


Student = Callable[[ScriptedTeacher], SummaryHead]


def test_a_teachers_gain_is_over_the_student(student: Student) -> None:
    good, fair = ScriptedTeacher("good", 0.9), ScriptedTeacher("fair", 0.6)
    weak = student(ScriptedTeacher("student", 0.2))
    of_good, of_fair = (measure_teacher(teacher, weak, TOKENS, supervision(), 0) for teacher in (good, fair))
    assert of_good.mean > of_fair.mean > of_fair.shrunk > 0
    master = student(ScriptedTeacher("master", 1.0))
    assert measure_teacher(good, master, TOKENS, supervision(), 0).shrunk < 0


def test_a_clearly_worse_teacher_runs_on_a_third_of_the_images(student: Student) -> None:
    hopeless, good = ScriptedTeacher("hopeless", -0.9), ScriptedTeacher("good", 0.9)
    head = student(ScriptedTeacher("student", 0.3))
    gains = [measure_teacher(teacher, head, TOKENS, supervision(), 0) for teacher in (hopeless, good)]
    assert (hopeless.rows_run, good.rows_run) == (30, 90)
    assert gains[0].mean < 0 < gains[1].mean


@pytest.mark.parametrize("labelled", [0, 1, 2, 4])
def test_only_labelled_images_measure_a_teacher(student: Student, labelled: int) -> None:
    good, head = ScriptedTeacher("good", 0.9), student(ScriptedTeacher("master", 1.0))
    assert measure_teacher(good, head, TOKENS, supervision(labelled), 0).shrunk <= 0
    assert good.rows_run <= labelled
