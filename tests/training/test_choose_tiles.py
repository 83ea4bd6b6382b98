"""The choice `tiles: auto` of a training: by the size of the pictures, then by how labelled ones are ranked."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from forclip.config import ModelConfig, TrainConfig
from forclip.data.images.tiles import Tiles
from forclip.progress import untracked
from forclip.text.prompt_options import PromptOptions
from forclip.training import choose_tiles, supervision
from forclip.training.choose_tiles import resolve_tiles
from forclip.training.gains import Gain, Resampled
from forclip.types import Annotations, ClassSplit
from tests.tiny import TinyBackbone

SPLIT = ClassSplit(("cat", "dog", "cup"), ("owl",))


class RecordingBackbone(TinyBackbone):
    def __init__(self) -> None:
        super().__init__()
        self.pictures, self.texts = 0, set[str]()

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        self.pictures += len(pixels)
        return super().encode_tokens(pixels)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.texts |= set(texts)
        return super().encode_text(texts)


def resolve(
    folder: Path,
    size: tuple[int, int],
    tiles: str,
    backbone: RecordingBackbone,
    one_class: bool = False,
    fraction: float = 1.0,
) -> tuple[Tiles | None, str]:
    """20 pictures of noise, of this size; the model sees 6 x 6 pixels."""
    rng = np.random.default_rng(0)
    paths = tuple(folder / f"{k}.png" for k in range(20))
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)
    labels = rng.random((20, 4)) < 0.5
    labels[:, 0] |= ~labels[:, :3].any(1)
    if one_class:
        labels[:, 1:] = False
    images = Annotations(tuple(map(str, range(20))), paths, ("cat", "dog", "cup", "owl"), labels)
    console = Console(file=StringIO(), width=1000)
    options = (SPLIT, PromptOptions(["a {}"], []), 4, TrainConfig(labelled_fraction=fraction), untracked, console)
    found = resolve_tiles(ModelConfig("tiny", tiles=tiles), backbone, images, *options)
    return found, console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_small_pictures_need_no_tiles_and_nothing_is_encoded(tmp_path: Path) -> None:
    backbone = RecordingBackbone()
    tiles, said = resolve(tmp_path, (6, 5), "auto", backbone)
    assert tiles is None
    assert backbone.pictures == 0
    assert "6 x 5" in said


@pytest.mark.parametrize(("gain", "expected"), [(Gain(5, 1), Tiles(3, 3)), (Gain(-5, 1), None), (Gain(0, 0), None)])
def test_large_pictures_are_tried_with_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: Gain, expected: Tiles | None
) -> None:
    backbone = RecordingBackbone()
    monkeypatch.setattr(Resampled, "gain_over", lambda self, reference: gain)
    tiles, said = resolve(tmp_path, (60, 60), "auto", backbone)
    assert tiles == expected
    assert backbone.pictures == 20 * 10
    assert backbone.texts == {"a cat", "a dog", "a cup"}, "a novel name was used"
    assert said.startswith("tiles auto: " + ("none" if expected is None else "3x3"))


def test_only_the_images_whose_labels_are_used_are_tried(tmp_path: Path) -> None:
    backbone = RecordingBackbone()
    resolve(tmp_path, (60, 60), "auto", backbone, fraction=0.5)
    assert backbone.pictures == 10 * 10


def test_the_size_decides_where_labels_can_not_rank(tmp_path: Path) -> None:
    backbone = RecordingBackbone()
    tiles, said = resolve(tmp_path, (60, 60), "auto", backbone, one_class=True)
    assert tiles == Tiles(3, 3)
    assert backbone.pictures == 0
    assert "too few classes" in said


def test_tiles_are_chosen_by_which_scores_rank_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of the whole pictures are noise here; with tiles they are the labels."""

    def scores(head: object, pooled: object, parts: Tensor, rows: np.ndarray, texts: Tensor, shares: object) -> object:
        rng = np.random.default_rng(4)
        return {0.0: rng.random((len(rows), len(texts))) + (2 * shown[:, : len(texts)] if len(parts) > 1 else 0)}

    original = supervision.supervise
    shown = np.zeros((20, 3))

    def supervise(*given: object, **options: object) -> object:
        result = original(*given, **options)  # type: ignore[arg-type]  # passed on
        shown[:] = result.labels
        return result

    monkeypatch.setattr(choose_tiles, "supervise", supervise)
    monkeypatch.setattr(choose_tiles, "score_shares", scores)
    assert resolve(tmp_path, (60, 60), "auto", RecordingBackbone())[0] == Tiles(3, 3)
    assert torch.tensor(shown).any()


@pytest.mark.parametrize(("name", "expected"), [("none", None), ("2x2", Tiles(2, 2))])
def test_named_tiles_are_taken_as_they_are(tmp_path: Path, name: str, expected: Tiles | None) -> None:
    backbone = RecordingBackbone()
    assert resolve(tmp_path, (60, 60), name, backbone) == (expected, "")
    assert backbone.pictures == 0
