"""The whole of FOR on a tiny random backbone."""

import json
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from forclip.config import HeadConfig, TrainConfig
from forclip.models.baselines import training_free_head
from forclip.models.summary_head import SummaryHead
from forclip.progress import Advance, Notice, silent
from forclip.text.prompts import encode_classes
from forclip.training import finetune as finetune_module
from forclip.training import trainer as training
from forclip.training.candidates import AUTOMATIC
from forclip.training.class_holdout import (
    ALPHAS,
    HeldOut,
    Measured,
    Setting,
    best_choice,
    best_setting,
    choose_setting,
)
from forclip.training.class_vectors import choose_strength
from forclip.training.expected_stages import expected_stages
from forclip.training.finetune import Finetuned, finetune
from forclip.training.gains import Gain
from forclip.training.score_images import SHARES
from forclip.training.supervision import Supervision
from forclip.training.trainer import new_state
from forclip.training.weight_interpolation import interpolate
from tests.tiny import TinyBackbone
from tests.training.test_teachers import write_images

HEAD = HeadConfig(num_query_tokens=3, alignment="off", pooled_share=0.0)
TRAIN = TrainConfig(
    epochs=2,
    batch_size=4,
    learning_rate=0.1,
    teacher="cluster",
    teacher_clusters=2,
    held_back_folds=0,
    interpolation=1,
    pseudo_weight=0.1,
    set_weight=0.1,
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


def test_few_labels_get_smaller_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float | None] = []

    def note(head: SummaryHead, terms: list[Any], config: TrainConfig, trainable: str) -> Any:
        rates.append(config.learning_rate)
        return new_state(head, terms, config, trainable)

    monkeypatch.setattr("forclip.training.train_heads.new_state", note)
    labels, config = supervision(), replace(TRAIN, learning_rate=None)
    finetuned(labels, config=config)
    verified = labels.verified.copy()
    verified[len(verified) // 4 :] = False
    finetuned(replace(labels, verified=verified), config=config)
    labelled = int(verified.any(1).sum())
    assert rates[0] is not None
    assert rates[1] == pytest.approx(rates[0] * (2 * labelled / len(verified)) ** 0.5)


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
    # Without labels none can be chosen, so it is the one that only holds what the head knows.
    held = finetuned(nothing, HeadConfig(num_query_tokens=3), replace(TRAIN, base_weight=0, teacher="auto"))
    assert held.choices.teacher == "start"
    with pytest.raises(ValueError, match="or a teacher to follow"):
        finetuned(nothing, HeadConfig(num_query_tokens=3), replace(TRAIN, base_weight=0, teacher="none"))


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
    other = replace(supervision(5), texts=supervision(5).texts.flip(0))
    with pytest.raises(ValueError, match="a checkpoint of another configuration"):
        finetuned(other, file=checkpoint)
    finetuned(supervision(5), config=replace(TRAIN, checkpoint_every=7), file=checkpoint)  # it changes no result


def test_a_checkpoint_of_a_machine_that_rounds_otherwise_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, the measured learning rate and the vectors of texts differ a little."""
    checkpoint, config = tmp_path / "state.safetensors", replace(TRAIN, learning_rate=None)
    first = finetuned(supervision(5), config=config, file=checkpoint)
    monkeypatch.setattr("forclip.training.train_heads.learning_rate_for", lambda *_: 1.2345e-4)
    given = supervision(5)
    rounded = replace(given, texts=F.normalize(given.texts + 1e-5 * torch.randn(given.texts.shape), dim=-1))
    again = finetuned(rounded, config=config, file=checkpoint)
    assert again.history == first.history


def test_classes_that_lose_their_labels_are_announced() -> None:
    labels = supervision(5)
    shown = np.zeros_like(labels.labels)
    shown[np.arange(10), np.arange(10) % 5] = True
    with pytest.warns(Notice, match=r"labelled_fraction 0\.3: .*\(3\) show 3 of 5 base classes"):
        finetuned(replace(labels, labels=shown), config=replace(TRAIN, labelled_fraction=0.3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        finetuned(replace(labels, labels=shown))


def test_more_folds_than_the_classes_fill_are_announced() -> None:
    config = replace(TRAIN, held_back_folds=3, interpolation=None)
    with pytest.warns(Notice, match="held_back_folds 3 is more than half of 5 base classes"):
        done = finetuned(supervision(5), config=config)
    assert done.choices.alpha == 0.5


def test_unverified_labels_make_no_difference() -> None:
    labels = supervision(5)
    verified = labels.verified.copy()
    verified[:4] = False
    head, config = HeadConfig(num_query_tokens=3), replace(TRAIN, held_back_folds=2, interpolation=None, teacher="auto")
    one = finetuned(replace(labels, verified=verified), head, config)
    flipped = replace(labels, verified=verified, labels=np.where(verified, labels.labels, ~labels.labels))
    assert_same(one, finetuned(flipped, head, config))
    assert len(one.choices.candidates) > 1
    assert one.choices.labelled_images == 6


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_the_configured_alpha_is_used(alpha: float) -> None:
    done = finetuned(config=replace(TRAIN, interpolation=alpha))
    between = interpolate(done.untuned, done.tuned, alpha)
    assert all(torch.equal(a, b) for a, b in zip(done.head.parameters(), between.parameters(), strict=True))
    assert done.choices.alpha == alpha
    assert bool(done.history) == (alpha > 0)


def test_a_head_of_plain_clip_alone_is_not_trained() -> None:
    done = finetuned(supervision(5), replace(HEAD, pooled_share=1.0), replace(TRAIN, learning_rate=None))
    assert (done.choices.alpha, done.history) == (0.0, [])
    assert done.choices.class_vector_gains, "class vectors are measured with the start"
    tokens = images()[0].float()
    plain = training_free_head(TinyBackbone(), "global")(tokens)
    torch.testing.assert_close(done.head(tokens), plain.expand(-1, 3, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_images_leave_valid_choices(count: int) -> None:
    given = supervision(5)
    given = replace(given, labels=given.labels[:count].copy(), verified=given.verified[:count])
    given.labels[0] = True  # so that every class is kept, and there are trials
    config = replace(TRAIN, held_back_folds=2, interpolation=None, teacher="auto", learning_rate=None)
    done = finetune(TinyBackbone(), images()[:, :count], None, given, HEAD, config)
    assert all(tensor.isfinite().all() for tensor in weights(done))
    assert bool(done.choices.class_vector_gains) == (count > 1), "one image can't be divided in halves"


def test_trials_measure_shares_of_plain_clip_unless_one_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forclip.training.class_holdout.FEWEST_MEASURED", 5)
    config = replace(TRAIN, held_back_folds=2, interpolation=None)
    for share, expected in ((0.5, {0.5}), (None, {*SHARES, 1.0})):
        done = finetuned(supervision(5), replace(HEAD, pooled_share=share), config)
        assert {setting.share for setting in done.choices.evidence} == expected
        assert done.choices.share in expected


@pytest.mark.parametrize("teacher", ["cluster", "auto"])
def test_choices_are_made_on_held_out_classes_and_recorded(tmp_path: Path, teacher: Literal["cluster", "auto"]) -> None:
    config = replace(TRAIN, held_back_folds=2, interpolation=None, teacher=teacher)
    file = tmp_path / "state.safetensors"
    done = finetuned(supervision(5), config=config, file=file)
    choices = done.choices
    start = next(iter(choices.evidence))
    assert (start.alpha, start.share) == (0.0, choices.pooled_share)
    assert choices.evidence[start] == Measured(Gain(0.0, 0.0), 0.0)
    assert {setting.alpha for setting in choices.evidence} == set(ALPHAS)
    assert best_setting(choices.evidence, choices.pooled_share) == Setting(choices.alpha, choices.share)
    if teacher == "auto":
        assert {candidate.teacher for candidate in choices.candidates} == set(AUTOMATIC)
        every = {(c, s): m for c, found in choices.candidates.items() for s, m in found.items()}
        assert best_choice(every)[0] == choices.candidate
    else:
        assert choices.candidates == {}
    trials = {f"state_held_back_{k}.safetensors" for k in range(2)}
    finished = {file.name} if choices.alpha > 0 else set()
    assert {p.name for p in tmp_path.iterdir()} == trials | finished
    # Each class was held out of exactly one trial.
    texts = supervision(5).texts
    trained = [load_file(tmp_path / name)["base_labels.texts"] for name in sorted(trials)]
    has_class = torch.stack([(texts @ trial.T > 0.999).any(1) for trial in trained])
    assert has_class.sum(0).tolist() == [1] * 5
    assert_same(finetuned(supervision(5), config=config, file=file), done)  # all from checkpoints
    content = json.loads(json.dumps(choices.to_json(), allow_nan=False))
    assert content["settings"][0]["unseen"] == {"mean": 0.0, "deviation": 0.0, "shrunk": 0.0}
    assert (content["share"], content["pooled_share"], content["labelled_images"]) == (choices.alpha, choices.share, 10)
    too_few = finetuned(supervision(3), config=config)
    assert (too_few.choices.alpha, too_few.choices.evidence) == (0.5, {})


def test_finalists_have_trials_of_their_own_that_leave_out_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forclip.training.class_holdout.FEWEST_TO_LEAVE_OUT", 10)
    monkeypatch.setattr("forclip.training.class_holdout.best_choice", lambda measured: next(iter(measured)))
    config, file = replace(TRAIN, interpolation=None, teacher="auto", held_back_folds=None), tmp_path / "s.safetensors"
    stages: list[str] = []

    def track(description: str, total: int) -> Advance:
        stages.append(description)
        return silent

    arguments = TinyBackbone(), images(), None, supervision(5), HEAD, config, file
    done = finetune(*arguments, track=track)
    assert [candidate.teacher for candidate in done.choices.finalists] == ["start", "none"]
    assert len(list(tmp_path.glob("s_held_back_*"))) == 4
    assert [stage for stage in stages if stage.startswith("trial")] == [f"trial {k} of 4" for k in range(1, 5)]
    planned = [stage.name for stage in expected_stages(config, 10, 10, 5)]
    assert [name for name in planned if name.startswith("trial")] == [f"trial {k} of 4" for k in range(1, 5)]
    assert len(json.loads(json.dumps(done.choices.to_json()))["finalists"]) == 2
    assert_same(finetune(*arguments), done)  # all from checkpoints


def test_labels_that_tell_no_seen_class_apart_leave_valid_choices() -> None:
    """Every image shows every class."""
    labels = supervision(5)
    done = finetuned(
        replace(labels, labels=labels.verified), config=replace(TRAIN, held_back_folds=2, interpolation=None)
    )
    json.dumps(done.choices.to_json(), allow_nan=False)


def test_a_run_that_stops_within_a_trial_continues_bit_identically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every choice still to be made; the vocabulary is larger than the words of a step."""
    words = F.normalize(torch.randn(600, 6, generator=torch.Generator().manual_seed(1)), dim=-1)
    given = replace(supervision(5), vocabulary=torch.cat([supervision(5).texts, words]))
    config = replace(TRAIN, held_back_folds=2, interpolation=None, teacher="auto", checkpoint_every=1)
    straight = finetuned(given, config=config)
    step, calls = training.train_step, [0]

    def stop(*parts: Any) -> None:
        calls[0] += 1
        if calls[0] == stop_at:
            raise KeyboardInterrupt
        step(*parts)

    short_steps = 2 * 3 * len(AUTOMATIC)  # of the trials that compare candidates: one epoch of up to three steps
    stop_at = short_steps + 2
    monkeypatch.setattr(training, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        finetuned(given, config=config, file=tmp_path / "state.safetensors")
    assert (tmp_path / "state_held_back_0.safetensors").exists()
    assert_same(finetuned(given, config=config, file=tmp_path / "state.safetensors"), straight)


def test_alignment_and_share_are_chosen_or_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for alignment, share in product(("on", "off"), (0.0, 0.5)):
        done = finetuned(head=replace(HEAD, alignment=alignment, pooled_share=share))  # type: ignore[arg-type]  # a name
        assert done.choices.aligned == (alignment == "on") == (done.head.pool.output is not None)
        assert done.choices.pooled_share == done.choices.share == share
        assert done.choices.start_gains == {}
        assert float(done.head.pooled_share) == share
    auto = finetuned(head=replace(HEAD, alignment="auto", pooled_share=None))
    assert (auto.choices.start_gains, auto.choices.aligned, auto.choices.pooled_share) == ({}, False, 0)  # too few
    monkeypatch.setattr("forclip.training.initialisation.FEWEST_MEASURED", 5)
    auto = finetuned(head=replace(HEAD, alignment="auto", pooled_share=None))
    gains = auto.choices.start_gains
    assert len(gains) == 2 * len(SHARES)
    assert gains["alignment off, share 0"] == Gain(0.0, 0.0)
    best = max(gains, key=lambda name: gains[name].shrunk)
    aligned = "on" if auto.choices.aligned else "off"
    assert best == f"alignment {aligned}, share {auto.choices.pooled_share:g}"


def test_the_chosen_share_is_in_the_final_head_and_in_the_heads_that_class_vectors_are_chosen_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[float] = []

    def choose(*arguments: Any) -> Any:
        candidate, _, evidence, trials = choose_setting(*arguments)
        return candidate, Setting(0.5, 0.75), evidence, trials

    def record(heads: Any, *others: Any) -> Any:
        tried.extend(float(head.pooled_share) for _, head in heads)
        return choose_strength(heads, *others)

    monkeypatch.setattr(finetune_module, "choose_setting", choose)
    monkeypatch.setattr(finetune_module, "choose_strength", record)
    done = finetuned(supervision(5), config=replace(TRAIN, held_back_folds=2, interpolation=None))
    assert float(done.untuned.pooled_share) != 0.75
    assert float(done.head.pooled_share) == 0.75
    assert tried == [0.75, 0.75]


@pytest.mark.parametrize(("teacher", "expected"), [("none", 0.0), ("start", 0.5)])
def test_a_head_trains_with_plain_clips_share_only_to_stay_like_the_start(
    teacher: Literal["none", "start"], expected: float
) -> None:
    done = finetuned(supervision(5), replace(HEAD, pooled_share=0.5), replace(TRAIN, teacher=teacher))
    assert float(done.tuned.pooled_share) == expected


def test_a_training_takes_the_steps_of_its_candidate() -> None:
    config = replace(TRAIN, teacher="none", learning_rate=None)
    usual, same, smaller = (weights(finetuned(config=replace(config, step_size=step))) for step in (None, 0.08, 0.04))
    assert all(a.equal(b) for a, b in zip(usual, same, strict=True))
    assert not all(a.equal(b) for a, b in zip(usual, smaller, strict=True))


def test_the_zoom_teacher_is_tried_with_files_of_images_that_lack_labels(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 10)
    config = replace(TRAIN, teacher="auto", held_back_folds=2, self_training=False)
    choices = finetune(TinyBackbone(), images(), paths, supervision(5), HEAD, config).choices
    assert choices.zoom_gain is None
    assert {candidate.teacher for candidate in choices.candidates} == set(AUTOMATIC)
    half = replace(config, labelled_fraction=0.5)
    choices = finetune(TinyBackbone(), images(), paths, supervision(5), HEAD, half).choices
    assert choices.zoom_gain is not None
    tried = {candidate.teacher for candidate in choices.candidates}
    assert tried == {*AUTOMATIC, *(["zoom"] if choices.zoom_gain.shrunk > 0 else [])}
    zoom = finetune(TinyBackbone(), images(), paths, supervision(), HEAD, replace(config, teacher="zoom"))
    assert zoom.choices.teacher == "zoom"
    assert set(zoom.history[0]) == TERMS


def test_with_tiles_everything_is_measured_on_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts: the whole image and four tiles. One more view is only trained on."""
    seen: list[int] = []
    for name in ("choose_initial_head", "choose_finalists", "choose_setting", "calibrate"):
        original = getattr(finetune_module, name)

        def record(*parts: Any, original: Any = original) -> Any:
            seen.extend(len(part) for part in parts if isinstance(part, Tensor))
            seen.extend(len(part.tokens) for part in parts if isinstance(part, HeldOut))
            return original(*parts)

        monkeypatch.setattr(finetune_module, name, record)
    config = replace(TRAIN, views=6, held_back_folds=2, interpolation=None, teacher="auto", class_vectors=0.5)
    done = finetune(TinyBackbone(), images(6), None, supervision(5), HEAD, config, num_parts=5)
    assert seen == [5] * 4
    assert done.choices.zoom_gain is None
    assert len(done.class_vectors.texts) == 5
    whole = finetune(TinyBackbone(), images(6), None, supervision(5), HEAD, config)
    assert whole.choices.evidence != done.choices.evidence
    with pytest.raises(ValueError, match="without tiles"):
        finetune(TinyBackbone(), images(6), [], supervision(5), HEAD, replace(config, teacher="zoom"), num_parts=5)


def test_class_vectors_can_be_left_out() -> None:
    labels = supervision()
    assert len(finetuned(labels).class_vectors.texts) == 3
    still = finetuned(labels, config=replace(TRAIN, class_vectors=0)).class_vectors
    torch.testing.assert_close(still(labels.texts), labels.texts)


def test_the_labelled_fraction_is_used() -> None:
    assert finetuned(config=replace(TRAIN, labelled_fraction=0.35)).choices.labelled_images == 4
