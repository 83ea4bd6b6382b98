"""The whole of FOR on a tiny random backbone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from forclip.config import HeadConfig, TrainConfig
from forclip.text.prompts import encode_classes
from forclip.training import trainer as training
from forclip.training.class_holdout import ALPHAS
from forclip.training.finetune import Finetuned, finetune
from forclip.training.supervision import Supervision
from forclip.training.weight_interpolation import interpolate
from tests.tiny import TinyBackbone
from tests.training.test_teachers import write_images

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
def images(views: int = 1) -> Tensor:
    """Inference tensors, as encode_views returns."""
    return torch.randn(views, 10, 9, 8, generator=torch.Generator().manual_seed(1)).half()


def finetuned(
    given: Supervision | None = None, head: HeadConfig = HEAD, config: TrainConfig = TRAIN, file: Path | None = None
) -> Finetuned:
    return finetune(TinyBackbone(), images(config.views or 1), None, given or supervision(), head, config, file)


def weights(result: Finetuned) -> list[Tensor]:
    return [*result.head.state_dict().values(), *result.class_vectors.state_dict().values()]


def assert_same(one: Finetuned, other: Finetuned) -> None:
    assert one.history == other.history
    assert one.choices == other.choices
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_every_objective_trains_on_inference_tensors_and_is_saved(tmp_path: Path) -> None:
    """Tokens, texts and teacher vectors are computed without gradients; the backward pass must accept them."""
    config = replace(TRAIN, random_text_weight=0.1, neighbour_weight=0.1, diversity_weight=0.1, views=2, ema_decay=0.5)
    done = finetuned(config=config, file=tmp_path / "state.safetensors")
    assert len(done.history) == 6
    assert_same(finetuned(config=config, file=tmp_path / "state.safetensors"), done)
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
    labels = supervision()
    verified = labels.verified.copy()
    verified[::2] = False
    labels = replace(labels, verified=verified, labels=labels.labels | ~verified)
    alone = finetuned(labels, config=replace(TRAIN, teacher="none"))
    assert [set(terms) for terms in alone.history] == [{"base_labels"}] * 4  # 5 images in batches of 4, twice
    assert alone.choices.teacher is None
    assert len(finetuned(labels).history) == 6


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="no objective has a weight"):
        finetuned(config=replace(TRAIN, base_weight=0, pseudo_weight=0, set_weight=0))
    labels = supervision()
    with pytest.raises(ValueError, match="no training image has a base label"):
        finetuned(replace(labels, verified=np.zeros_like(labels.verified)))
    with pytest.raises(ValueError, match="teacher 'zoom' needs"):
        finetuned(config=replace(TRAIN, teacher="zoom"))


def test_a_teacher_alone_needs_no_labels() -> None:
    labels = supervision()
    nothing = replace(labels, verified=np.zeros_like(labels.verified))
    done = finetuned(nothing, HeadConfig(num_query_tokens=3), replace(TRAIN, base_weight=0))
    assert set(done.history[0]) == TERMS - {"base_labels"}
    assert done.choices.labelled_images == len(done.class_vectors.texts) == 0
    # It has to be named: without labels none can be chosen.
    with pytest.raises(ValueError, match="or a teacher to follow"):
        finetuned(nothing, HeadConfig(num_query_tokens=3), replace(TRAIN, base_weight=0, teacher="auto"))


def test_a_finished_checkpoint_is_not_trained_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "state.safetensors"
    first = finetuned(file=checkpoint)
    monkeypatch.setattr(training, "train_step", None)  # would fail if it were called
    assert_same(finetuned(file=checkpoint), first)


def test_a_checkpoint_of_other_labels_or_settings_is_refused(tmp_path: Path) -> None:
    """Continuing with another split would give a model trained on labels of its novel classes."""
    checkpoint = tmp_path / "state.safetensors"
    finetuned(supervision(5), file=checkpoint)
    flipped = supervision(5).labels.copy()
    flipped[0, 0] = not flipped[0, 0]
    for other, config in (
        (replace(supervision(5), labels=flipped), TRAIN),
        (supervision(5), replace(TRAIN, learning_rate=0.5)),
    ):
        with pytest.raises(ValueError, match="a checkpoint of another configuration"):
            finetuned(other, config=config, file=checkpoint)
    finetuned(supervision(5), config=replace(TRAIN, checkpoint_every=7), file=checkpoint)  # it changes no result


def test_unverified_labels_make_no_difference() -> None:
    labels = supervision(5)
    verified = labels.verified.copy()
    verified[:4] = False
    head, config = HeadConfig(num_query_tokens=3), replace(TRAIN, held_back_folds=2, interpolation=None, teacher="auto")
    one = finetuned(replace(labels, verified=verified), head, config)
    flipped = replace(labels, verified=verified, labels=np.where(verified, labels.labels, ~labels.labels))
    assert_same(one, finetuned(flipped, head, config))
    assert one.choices.labelled_images == 6


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_the_configured_alpha_is_used(alpha: float) -> None:
    done = finetuned(config=replace(TRAIN, interpolation=alpha))
    between = interpolate(done.untuned, done.tuned, alpha)
    assert all(torch.equal(a, b) for a, b in zip(done.head.parameters(), between.parameters(), strict=True))
    assert done.choices.alpha == alpha
    assert bool(done.history) == (alpha > 0)


def test_choices_are_made_on_held_out_classes_and_recorded(tmp_path: Path) -> None:
    config = replace(TRAIN, held_back_folds=2, interpolation=None)
    file = tmp_path / "state.safetensors"
    done = finetuned(supervision(5), config=config, file=file)
    assert set(done.choices.alpha_gains) == set(ALPHAS)
    assert done.choices.alpha == max(ALPHAS, key=lambda alpha: done.choices.alpha_gains[alpha][1])
    assert done.choices.alpha_gains[0.0] == (0.0, 0.0)
    trials = {f"state_held_back_{k}.safetensors" for k in range(2)}
    assert {p.name for p in tmp_path.iterdir()} - {file.name} == trials
    # Each class was held out of exactly one trial.
    texts = supervision(5).texts
    trained = [load_file(tmp_path / name)["base_labels.texts"] for name in sorted(trials)]
    has_class = torch.stack([(texts @ trial.T > 0.999).any(1) for trial in trained])
    assert has_class.sum(0).tolist() == [1] * 5
    assert_same(finetuned(supervision(5), config=config, file=file), done)  # all from checkpoints
    content = json.loads(json.dumps(done.choices.to_json()))
    assert content["share_gains"]["0.0"] == [0.0, 0.0]
    assert content["labelled_images"] == 10
    too_few = finetuned(supervision(3), config=config)
    assert (too_few.choices.alpha, too_few.choices.alpha_gains) == (0.5, {})


def test_alignment_is_chosen_or_configured() -> None:
    on, off, auto = (finetuned(head=replace(HEAD, alignment=choice)) for choice in ("on", "off", "auto"))
    for done in (on, off, auto):
        assert done.choices.aligned == (done.head.pool.output is not None)
    assert (on.choices.aligned, off.choices.aligned) == (True, False)
    assert on.choices.alignment_gain is off.choices.alignment_gain is None
    assert auto.choices.alignment_gain is not None
    assert auto.choices.aligned == (auto.choices.alignment_gain > 0)
    expected = on if auto.choices.aligned else off
    assert all(torch.equal(a, b) for a, b in zip(weights(auto), weights(expected), strict=True))


def test_auto_tries_every_teacher(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 10)
    config = replace(TRAIN, teacher="auto")
    choices = finetune(TinyBackbone(), images(), paths, supervision(), HEAD, config).choices
    assert set(choices.teacher_gains) == {"cluster", "zoom"}
    best = max(choices.teacher_gains, key=lambda name: choices.teacher_gains[name][1])
    assert choices.teacher == (best if choices.teacher_gains[best][1] > 0 else None)
    zoom = finetune(TinyBackbone(), images(), paths, supervision(), HEAD, replace(config, teacher="zoom"))
    assert zoom.choices.teacher == "zoom"
    assert set(zoom.history[0]) == TERMS


def test_class_vectors_can_be_left_out() -> None:
    labels = supervision()
    assert len(finetuned(labels).class_vectors.texts) == 3
    still = finetuned(labels, config=replace(TRAIN, class_vectors=0)).class_vectors
    torch.testing.assert_close(still(labels.texts), labels.texts)


def test_the_labelled_fraction_is_used() -> None:
    assert finetuned(config=replace(TRAIN, labelled_fraction=0.35)).choices.labelled_images == 4
