"""FOR put together, on a backbone of a few random matrices."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from forclip.config import HeadConfig, TrainConfig
from forclip.text.prompts import encode_classes
from forclip.training import trainer as training
from forclip.training.finetune import SHARES, Finetuned, TrainingImages, finetune
from forclip.training.supervision import Supervision
from forclip.training.weight_interpolation import interpolate
from tests.tiny import TinyBackbone

HEAD = HeadConfig(num_query_tokens=3, alignment="off")
TRAIN = TrainConfig(
    epochs=2, batch_size=4, learning_rate=0.1, teacher="cluster", teacher_clusters=2, held_back_folds=0, interpolation=1
)
TERMS = {"base_labels", "pseudo_labels", "teacher_set"}


def supervision(num_classes: int = 3) -> Supervision:
    labels = np.random.default_rng(0).random((10, num_classes)) < 0.4
    names = ["cat", "dog", "cup", "car", "oak"][:num_classes]
    texts = encode_classes(TinyBackbone(), names, ["a {}"])
    vocabulary = encode_classes(TinyBackbone(), ["red", "green", "blue", "cyan"], ["a {}", "the {}"])
    return Supervision(labels, np.ones_like(labels), texts, torch.cat([texts, vocabulary]))


@torch.inference_mode()
def images(views: int = 1) -> TrainingImages:
    """As encode_images makes them."""
    return TrainingImages(torch.randn(views, 10, 9, 8, generator=torch.Generator().manual_seed(1)).half())


def finetuned(
    known: Supervision | None = None, head: HeadConfig = HEAD, config: TrainConfig = TRAIN, file: Path | None = None
) -> Finetuned:
    return finetune(TinyBackbone(), images(config.views or 1), known or supervision(), head, config, file)


def weights(done: Finetuned) -> list[Tensor]:
    return [*done.head.state_dict().values(), *done.class_vectors.state_dict().values()]


def assert_same(one: Finetuned, other: Finetuned) -> None:
    assert one.history == other.history
    assert one.choices == other.choices
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_every_objective_trains_on_what_the_towers_made() -> None:
    """Tokens, texts and teacher come from code without gradients; training must be able to go back through them."""
    config = replace(TRAIN, random_text_weight=0.1, neighbour_weight=0.1, diversity_weight=0.1, views=2, ema_decay=0.5)
    done = finetuned(config=config)
    assert len(done.history) == 6
    assert set(done.history[0]) == TERMS | {"random_texts", "neighbour_words", "query_diversity"}
    assert not torch.equal(done.head.offsets, done.untuned.offsets)
    assert torch.equal(done.head.offsets, done.tuned.offsets)
    assert not any(p.requires_grad for p in done.tuned.parameters())


@pytest.mark.parametrize("left_out", sorted(TERMS))
def test_a_weight_of_zero_leaves_an_objective_out(left_out: str) -> None:
    names = {"base_labels": "base_weight", "pseudo_labels": "pseudo_weight", "teacher_set": "set_weight"}
    config = replace(TRAIN, **{names[left_out]: 0.0})  # type: ignore[arg-type]  # a weight
    assert set(finetuned(config=config).history[0]) == TERMS - {left_out}


def test_without_a_teacher_only_labelled_images_train() -> None:
    known = supervision()
    verified = known.verified.copy()
    verified[::2] = False
    known = replace(known, verified=verified, labels=known.labels | ~verified)
    alone = finetuned(known, config=replace(TRAIN, teacher="none"))
    assert [set(terms) for terms in alone.history] == [{"base_labels"}] * 4  # 5 images in batches of 4, twice
    assert alone.choices.teacher is None
    assert len(finetuned(known).history) == 6


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no objective has a weight"):
        finetuned(config=replace(TRAIN, base_weight=0, pseudo_weight=0, set_weight=0))
    known = supervision()
    with pytest.raises(ValueError, match="no training image has a base label"):
        finetuned(replace(known, verified=np.zeros_like(known.verified)))
    with pytest.raises(ValueError, match="teacher 'zoom' needs the training pictures"):
        finetuned(config=replace(TRAIN, teacher="zoom"))


def test_a_teacher_alone_needs_no_labels() -> None:
    known = supervision()
    nothing = replace(known, verified=np.zeros_like(known.verified))
    done = finetuned(nothing, HeadConfig(num_query_tokens=3), replace(TRAIN, base_weight=0))
    assert set(done.history[0]) == TERMS - {"base_labels"}
    assert done.choices.labelled_images == len(done.class_vectors.texts) == 0
    # But it has to be named: there is no evidence for any.
    with pytest.raises(ValueError, match="or a teacher to follow"):
        finetuned(nothing, HeadConfig(num_query_tokens=3), replace(TRAIN, base_weight=0, teacher="auto"))


def test_a_finished_checkpoint_is_not_trained_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "state.safetensors"
    first = finetuned(file=checkpoint)
    monkeypatch.setattr(training, "train_one_epoch", None)  # would fail if it were called
    assert_same(finetuned(file=checkpoint), first)


def test_a_checkpoint_of_other_labels_or_settings_is_refused(tmp_path: Path) -> None:
    """Going on with another split would give a model that has learned from labels of its novel classes."""
    checkpoint = tmp_path / "state.safetensors"
    finetuned(supervision(5), file=checkpoint)
    flipped = supervision(5).labels.copy()
    flipped[0, 0] = not flipped[0, 0]
    for known, config in (
        (replace(supervision(5), labels=flipped), TRAIN),
        (supervision(5), replace(TRAIN, learning_rate=0.5)),
    ):
        with pytest.raises(ValueError, match="a checkpoint of another configuration"):
            finetuned(known, config=config, file=checkpoint)
    finetuned(supervision(5), config=replace(TRAIN, checkpoint_every=7), file=checkpoint)  # it changes no number


def test_what_is_not_verified_makes_no_difference() -> None:
    known = supervision(5)
    verified = known.verified.copy()
    verified[:4] = False
    head, config = HeadConfig(num_query_tokens=3), replace(TRAIN, held_back_folds=2, interpolation=None, teacher="auto")
    one = finetuned(replace(known, verified=verified), head, config)
    flipped = replace(known, verified=verified, labels=np.where(verified, known.labels, ~known.labels))
    assert_same(one, finetuned(flipped, head, config))
    assert one.choices.labelled_images == 6


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_the_way_is_kept(share: float) -> None:
    done = finetuned(config=replace(TRAIN, interpolation=share))
    between = interpolate(done.untuned, done.tuned, share)
    assert all(torch.equal(a, b) for a, b in zip(done.head.parameters(), between.parameters(), strict=True))
    assert done.choices.share == share
    assert bool(done.history) == (share > 0)


def test_choices_are_made_on_held_back_classes_and_told(tmp_path: Path) -> None:
    config = replace(TRAIN, held_back_folds=2, interpolation=None)
    file = tmp_path / "state.safetensors"
    done = finetuned(supervision(5), config=config, file=file)
    assert set(done.choices.share_gains) == set(SHARES)
    assert done.choices.share == max(SHARES, key=lambda share: done.choices.share_gains[share][1])
    assert done.choices.share_gains[0.0] == (0.0, 0.0)
    trials = {f"state_held_back_{k}.safetensors" for k in range(2)}
    assert {p.name for p in tmp_path.iterdir()} - {file.name} == trials
    # Each trial was trained without the classes that it is judged on, and each class was held back once.
    texts = supervision(5).texts
    seen = [load_file(tmp_path / name)["base_labels.texts"] for name in sorted(trials)]
    shares_class = torch.stack([(texts @ trial.T > 0.999).any(1) for trial in seen])
    assert shares_class.sum(0).tolist() == [1] * 5
    assert_same(finetuned(supervision(5), config=config, file=file), done)  # each part from its checkpoint
    told = json.loads(json.dumps(done.choices.to_json()))
    assert told["share_gains"]["0.0"] == [0.0, 0.0]
    assert told["labelled_images"] == 10
    too_few = finetuned(supervision(3), config=config)
    assert (too_few.choices.share, too_few.choices.share_gains) == (0.5, {})


def test_alignment_is_chosen_or_told() -> None:
    on, off, auto = (finetuned(head=replace(HEAD, alignment=choice)) for choice in ("on", "off", "auto"))
    for done in (on, off, auto):
        assert done.choices.aligned == (done.head.pool.output is not None)
    assert (on.choices.aligned, off.choices.aligned) == (True, False)
    assert on.choices.alignment_gain is off.choices.alignment_gain is None
    assert auto.choices.alignment_gain is not None
    assert auto.choices.aligned == (auto.choices.alignment_gain > 0)
    assert_like = on if auto.choices.aligned else off
    assert all(torch.equal(a, b) for a, b in zip(weights(auto), weights(assert_like), strict=True))


def test_auto_tries_every_teacher_there_is(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.png" for k in range(10)]
    for k, path in enumerate(paths):
        pixels = np.random.default_rng(k).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    given = TrainingImages(images().tokens, paths)
    config = replace(TRAIN, teacher="auto")
    choices = finetune(TinyBackbone(), given, supervision(), HEAD, config).choices
    assert set(choices.teacher_gains) == {"cluster", "zoom"}
    best = max(choices.teacher_gains, key=lambda name: choices.teacher_gains[name][1])
    assert choices.teacher == (best if choices.teacher_gains[best][1] > 0 else None)
    told = finetune(TinyBackbone(), given, supervision(), HEAD, replace(config, teacher="zoom"))
    assert told.choices.teacher == "zoom"
    assert set(told.history[0]) == TERMS


def test_class_vectors_can_be_left_out() -> None:
    known = supervision()
    assert len(finetuned(known).class_vectors.texts) == 3
    still = finetuned(known, config=replace(TRAIN, class_vectors=0)).class_vectors
    torch.testing.assert_close(still(known.texts), known.texts)


def test_a_fraction_of_the_labels_is_counted() -> None:
    assert finetuned(config=replace(TRAIN, labelled_fraction=0.35)).choices.labelled_images == 4
