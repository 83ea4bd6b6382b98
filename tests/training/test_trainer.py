"""Training a tiny head: resuming, which parameters train, and which checkpoints are refused."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from forclip.config import TrainConfig
from forclip.models.summary_head import window_seeded_head
from forclip.training import trainer
from forclip.training.objectives import BaseLabels, Batch, Objective, PseudoLabels, TeacherSet
from forclip.training.trainer import TrainingSet, TrainingState, learning_rate, new_state, total_steps, train
from tests.child import run_in_child
from tests.tiny import tiny_pool

# 22 images in batches of 3 are 8 steps an epoch, the last of one image; 5 epochs are 40 steps, and 20 is mid-epoch.
CONFIG = TrainConfig(epochs=5, batch_size=3, learning_rate=0.01, checkpoint_every=20)


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def training_set() -> TrainingSet:
    generator = torch.Generator().manual_seed(0)
    return TrainingSet(
        tokens=torch.randn(1, 22, 9, 8, generator=generator).half(),
        rows=torch.arange(22),
        targets=torch.rand(1, 22, 4, generator=generator) < 0.3,
        verified=torch.rand(1, 22, 4, generator=generator) < 0.8,
        teacher=unit(generator, 1, 22, 3, 6),
        untuned=unit(generator, 1, 22, 4, 6),
    )


def fresh_state(config: TrainConfig, num_query_tokens: int = 4, trainable: str = "all") -> TrainingState:
    generator = torch.Generator().manual_seed(1)
    objectives: list[Objective] = [
        BaseLabels(unit(generator, 4, 6), "binary", 1.0),
        PseudoLabels(unit(generator, 7, 6), 0.1, 0.5, 0),
        TeacherSet(2.0),
    ]
    return new_state(window_seeded_head(tiny_pool((3, 3)), num_query_tokens), objectives, config, trainable)


def ignore_step(step: int, terms: dict[str, float]) -> None:
    pass


def trained(config: TrainConfig, trainable: str = "all") -> TrainingState:
    state = fresh_state(config, trainable=trainable)
    train(state, training_set(), config, None, ignore_step)
    return state


def assert_bit_identical(one: TrainingState, other: TrainingState) -> None:
    left, right = one.tensors(), other.tensors()
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    assert one.history == other.history


def train_until_killed(checkpoint: str) -> None:
    """Train in the next test's subprocess, which kills itself between two checkpoints."""

    def die(step: int, terms: dict[str, float]) -> None:
        if step == 23:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    train(fresh_state(CONFIG), training_set(), CONFIG, Path(checkpoint), die)


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    checkpoint = tmp_path / "state.safetensors"
    killed = run_in_child(train_until_killed, checkpoint)
    assert killed.returncode == -signal.SIGKILL
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        straight, resumed = trained(CONFIG), fresh_state(CONFIG)
        resumed.load(checkpoint)
        assert resumed.step == 20
        train(resumed, training_set(), CONFIG, checkpoint, ignore_step)
    finally:
        torch.set_num_threads(threads)
    assert len(straight.history) == 40
    assert_bit_identical(resumed, straight)
    last = fresh_state(CONFIG)
    last.load(checkpoint)
    assert_bit_identical(last, straight)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("stop", [1, 8, 13])
def test_a_run_resumes_from_any_step(tmp_path: Path, stop: int, ema_decay: float) -> None:
    """After one step, at the end of an epoch, and within one; with and without averaged weights."""
    config, checkpoint = replace(CONFIG, epochs=2, checkpoint_every=1, ema_decay=ema_decay), tmp_path / "state"

    def fail(step: int, terms: dict[str, float]) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fresh_state(config), training_set(), config, checkpoint, fail)
    resumed, steps = fresh_state(config), []
    resumed.load(checkpoint)
    train(resumed, training_set(), config, checkpoint, lambda step, terms: steps.append(step))
    assert steps == list(range(stop + 1, 17))
    assert_bit_identical(resumed, trained(config))


def test_every_image_is_seen_once_an_epoch() -> None:
    seen: list[Tensor] = []

    class Recorder(TeacherSet):
        def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
            seen.append(batch.teacher)
            return super().forward(vectors, batch)

    config = replace(CONFIG, epochs=2)
    state = new_state(fresh_state(config).head, [Recorder(1.0)], config)
    data = training_set()
    assert isinstance(data.teacher, Tensor)
    train(state, data, config, None, ignore_step)
    assert [len(s) for s in seen] == ([3] * 7 + [1]) * 2
    orders = [
        [int((data.teacher[0] == t).all((1, 2)).nonzero()) for t in torch.cat(epoch)] for epoch in (seen[:8], seen[8:])
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(22))
    assert orders[0] != orders[1]


def test_reading_the_tensors_of_a_state_does_not_change_it() -> None:
    config = replace(CONFIG, epochs=1)
    state = fresh_state(config)
    state.tensors()
    train(state, training_set(), config, None, ignore_step)
    assert_bit_identical(state, trained(config))


def test_training_lowers_the_loss() -> None:
    history = trained(replace(CONFIG, epochs=15)).history
    totals = [h["base_labels"] + 0.5 * h["pseudo_labels"] + 2 * h["teacher_set"] for h in history]
    assert sum(totals[-8:]) < 0.8 * sum(totals[:8])


def test_the_loss_is_the_weighted_sum_of_objectives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step's gradient is that of the sum of weight x objective."""
    monkeypatch.setattr(trainer, "multiplies_bfloat16", lambda device: False)
    config = replace(CONFIG, epochs=1, batch_size=22)
    state, data = fresh_state(config), training_set()
    assert isinstance(data.tokens, Tensor)
    assert isinstance(data.teacher, Tensor)
    vectors = state.head(data.tokens[0].float())
    batch = Batch(data.targets[0], data.verified[0], data.teacher[0], data.untuned[0])
    base, pseudo, teacher = (objective(vectors, batch) for objective in state.objectives)
    total = base + 0.5 * pseudo + 2 * teacher
    trained_weights = [p for p in state.head.parameters() if p.requires_grad]
    expected = torch.autograd.grad(total, trained_weights)
    train(state, data, config, None, ignore_step)
    assert state.history[0] == pytest.approx(
        {"base_labels": base.item(), "pseudo_labels": pseudo.item(), "teacher_set": teacher.item()}, rel=1e-5
    )
    # AdamW's first moment after one step is (1 - 0.9) of the gradient, clipped to norm 1 over all parameters.
    moments = [state.optimizer.state[p]["exp_avg"].flatten() for p in trained_weights]
    moment, gradient = torch.cat(moments), torch.cat([g.flatten() for g in expected])
    assert F.cosine_similarity(moment, gradient, 0).item() == pytest.approx(1, abs=1e-5)
    assert moment.norm() <= 0.1 + 1e-6


QUERIES = {"offsets", "bias"}
QUERY_KEY = QUERIES | {"pool.q_proj.weight", "pool.q_proj.bias", "pool.k_proj.weight"}
ALL = QUERY_KEY | {*("pool.v_proj.weight", "pool.v_proj.bias", "pool.c_proj.weight", "pool.c_proj.bias")}


@pytest.mark.parametrize(("trainable", "expected"), [("queries", QUERIES), ("query_key", QUERY_KEY), ("all", ALL)])
def test_exactly_the_trainable_parameters_change(
    trainable: Literal["queries", "query_key", "all"], expected: set[str]
) -> None:
    config = replace(CONFIG, epochs=1)
    before = {name: value.clone() for name, value in fresh_state(config).head.state_dict().items()}
    after = trained(config, trainable).head.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # The keys' bias shifts all logits of a query equally, which a softmax ignores: rounding alone may move it.
    undecided = {"pool.k_proj.bias"} if trainable != "queries" else set()
    assert changed - undecided == expected


@pytest.mark.parametrize("trainable", ["queries", "all"])
def test_parameters_of_objectives_always_train(trainable: Literal["queries", "all"]) -> None:
    config = replace(CONFIG, epochs=1)
    before, after = fresh_state(config).tensors(), trained(config, trainable).tensors()
    for name in ("base_labels.log_scale", "base_labels.bias"):
        assert not torch.equal(before[name], after[name])
    for name in ("base_labels.texts", "pseudo_labels.texts"):
        assert torch.equal(before[name], after[name])


def test_weight_decay_applies_to_matrices_only() -> None:
    """Neither to the attention bias over positions nor to any vector."""
    state = fresh_state(replace(CONFIG, weight_decay=0.3))
    decayed, kept = state.optimizer.param_groups
    names = {parameter: name for name, parameter in state.head.named_parameters()}
    assert {names[p] for p in decayed["params"]} == {"offsets"} | {
        f"pool.{projection}_proj.weight" for projection in "qkvc"
    }
    assert decayed["weight_decay"] == 0.3
    assert kept["weight_decay"] == 0
    assert state.head.bias in set(kept["params"])


def test_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    config = TrainConfig(learning_rate=2.0, warmup_share=0.2)
    rates = [learning_rate(step, 20, config) for step in range(20)]
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[8] == pytest.approx(1 + 0.5**0.5)  # a quarter of the cosine
    assert rates[12] == pytest.approx(1.0)  # half
    assert rates[16] == pytest.approx(1 - 0.5**0.5)
    assert 0 < rates[19] < 0.02
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(20, 20, config) == pytest.approx(0)


def test_a_run_of_one_step_has_the_full_learning_rate() -> None:
    assert learning_rate(0, 1, TrainConfig(learning_rate=2.0)) == 2.0


def test_the_optimizer_uses_the_learning_rate_of_each_step() -> None:
    config, rates = replace(CONFIG, epochs=1), []
    state = fresh_state(config)
    record = lambda step, terms: rates.append({g["lr"] for g in state.optimizer.param_groups})  # noqa: E731  # one line
    train(state, training_set(), config, None, record)
    assert total_steps(22, config) == 8
    assert rates == [{learning_rate(step, 8, config)} for step in range(8)]


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    fresh_state(CONFIG, num_query_tokens=4).save(file)
    with pytest.raises(ValueError, match=r"state.safetensors: .* has shape \(4, .*, not \(5, "):
        fresh_state(CONFIG, num_query_tokens=5).load(file)


def test_a_checkpoint_of_forclip_0_1_resumes(tmp_path: Path) -> None:
    """There an aligned pool held the plain one as `inner`."""
    file = tmp_path / "state.safetensors"
    done = trained(CONFIG)
    done.save(file)
    with safe_open(file, framework="pt") as stored:
        metadata, tensors = stored.metadata(), {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    old = {name.replace("pool.", "pool.inner."): tensor for name, tensor in tensors.items()}
    assert old.keys() != tensors.keys()
    save_file(old, file, metadata)
    resumed = fresh_state(CONFIG)
    resumed.load(file)
    assert_bit_identical(resumed, done)


@pytest.mark.parametrize("change", [{"trainable": "queries"}, {"objectives": 1}])
def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "state.safetensors"
    fresh_state(CONFIG).save(file)
    other = fresh_state(CONFIG)
    if "objectives" in change:
        other = new_state(other.head, other.objectives[:1], CONFIG)
    else:
        other = fresh_state(CONFIG, **change)
    with pytest.raises(ValueError, match=r"state.safetensors: .*another configuration"):
        other.load(file)


def test_saving_leaves_no_partial_file(tmp_path: Path) -> None:
    train(fresh_state(CONFIG), training_set(), replace(CONFIG, epochs=1), tmp_path / "state.safetensors", ignore_step)
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


class NanAtTheThirdStep(Objective):
    name, calls = "broken", 0

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        self.calls += 1
        return vectors.sum() * (float("nan") if self.calls == 3 else 1.0)


def test_a_loss_that_is_not_finite_stops_training_and_names_the_step(tmp_path: Path) -> None:
    config = replace(CONFIG, checkpoint_every=1)
    state, checkpoint = new_state(fresh_state(config).head, [NanAtTheThirdStep(1.0)], config), tmp_path / "s"
    with pytest.raises(ValueError, match="nan at step 2"):
        train(state, training_set(), config, checkpoint, ignore_step)
    assert all(torch.isfinite(p).all() for p in state.head.parameters())


def test_the_seed_alone_decides_the_result() -> None:
    config = replace(CONFIG, epochs=1)
    torch.manual_seed(5)
    one = trained(config)
    torch.manual_seed(6)  # the global generator is not used
    assert_bit_identical(one, trained(config))
    other = trained(replace(config, seed=1))
    assert not torch.equal(one.head.offsets, other.head.offsets)
    assert one.history != other.history


def test_averaged_weights_agree_with_a_naive_loop() -> None:
    config = replace(CONFIG, epochs=3, ema_decay=0.7)
    state = fresh_state(config)
    expected = [p.detach().clone() for p in state.head.parameters()]

    def follow(step: int, terms: dict[str, float]) -> None:
        decay = min(0.7, step / (step + 9))
        for average, current in zip(expected, state.head.parameters(), strict=True):
            average.copy_(decay * average + (1 - decay) * current.detach())

    train(state, training_set(), config, None, follow)
    assert state.step == 24  # from step 21 on, the decay is the configured one
    assert state.result is state.average
    for average, by_hand in zip(state.result.parameters(), expected, strict=True):
        torch.testing.assert_close(average, by_hand, rtol=1e-5, atol=1e-6)
    assert not torch.equal(state.result.offsets, state.head.offsets)


def test_averaging_does_not_change_training() -> None:
    config = replace(CONFIG, epochs=1)
    one, other = trained(config), trained(replace(config, ema_decay=0.9))
    assert one.history == other.history
    assert torch.equal(one.head.offsets, other.head.offsets)
    assert one.result is one.head


class LabelRecorder(TeacherSet):
    """Records which images of each batch are labelled."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.seen: list[list[bool]] = []

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        self.seen.append(batch.verified.any(1).tolist())
        return super().forward(vectors, batch)


@pytest.mark.parametrize(("labelled", "at_least"), [([4, 9, 17], 2), ([], 0)])
def test_half_of_each_batch_is_labelled_if_labels_are_scarce(labelled: list[int], at_least: int) -> None:
    config, data, recorder = replace(CONFIG, epochs=4, batch_size=4), training_set(), LabelRecorder()
    verified = torch.zeros_like(data.verified)
    verified[:, labelled] = True
    train(
        new_state(fresh_state(config).head, [recorder], config),
        replace(data, verified=verified),
        config,
        None,
        ignore_step,
    )
    assert [len(batch) for batch in recorder.seen] == [4, 4, 4, 4, 4, 2] * 4
    for batch in recorder.seen:
        assert sum(batch) >= at_least * len(batch) // 4
        assert all(batch[len(batch) // 2 :]) == bool(labelled)
    unlabelled = sum(not is_labelled for batch in recorder.seen for is_labelled in batch)
    assert unlabelled > 0.3 * 4 * 22


def test_views_are_drawn_at_random_but_reproducibly() -> None:
    """Every token of view v of image i is v + i / 32, so the head's input shows its view and image."""
    config, data = replace(CONFIG, epochs=3), training_set()
    numbers = torch.arange(3)[:, None] + torch.arange(22) / 32
    data = replace(data, tokens=numbers[..., None, None].expand(3, 22, 9, 8).half())

    def seen(seed: int) -> list[Tensor]:
        state, given = fresh_state(config), []
        state.head.register_forward_pre_hook(lambda head, inputs: given.append(inputs[0][:, 0, 0].clone()))
        train(state, data, replace(config, seed=seed), None, ignore_step)
        return given

    one = seen(0)
    views, images = torch.cat(one).floor(), torch.cat(one).frac() * 32
    for epoch in range(3):
        assert images[22 * epoch : 22 * epoch + 22].sort().values.tolist() == list(range(22))
        assert set(views[22 * epoch : 22 * epoch + 22].tolist()) == {0, 1, 2}
    by_image = [views[22 * epoch :][:22][images[22 * epoch :][:22].argsort()] for epoch in range(3)]
    assert not torch.equal(by_image[0], by_image[1])
    assert all(torch.equal(a, b) for a, b in zip(one, seen(0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, seen(1), strict=True))


def test_each_view_has_its_own_labels_and_teacher_vectors() -> None:
    """Tokens of view v of image i are v + i / 32. A teacher that shows all views the same has one for all."""
    numbers = torch.arange(3)[:, None] + torch.arange(22) / 32
    targets = torch.rand(3, 22, 4, generator=torch.Generator().manual_seed(3)) < 0.5
    teacher = unit(torch.Generator().manual_seed(4), 3, 22, 3, 6)
    data = replace(
        training_set(),
        tokens=numbers[..., None, None].expand(3, 22, 9, 8).half(),
        targets=targets,
        verified=targets | True,
        teacher=teacher,
    )
    batch = data.batch(torch.tensor([2, 0, 1]), torch.tensor([5, 5, 21]), torch.device("cpu"))
    assert torch.equal(batch.targets, torch.stack([targets[2, 5], targets[0, 5], targets[1, 21]]))
    assert torch.equal(batch.teacher, torch.stack([teacher[2, 5], teacher[0, 5], teacher[1, 21]]))
    assert torch.equal(batch.untuned, data.untuned[0, [5, 5, 21]])
    seen: list[Batch] = []

    class Recorder(TeacherSet):
        def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
            seen.append(batch)
            return super().forward(vectors, batch)

    config = replace(CONFIG, epochs=1)
    state, given = new_state(fresh_state(config).head, [Recorder(1.0)], config), list[Tensor]()
    state.head.register_forward_pre_hook(lambda head, inputs: given.append(inputs[0][:, 0, 0].clone()))
    train(state, data, config, None, ignore_step)
    assert len({int(value) for tokens in given for value in tokens}) == 3
    for tokens, batch in zip(given, seen, strict=True):
        views, images = tokens.long(), (tokens.frac() * 32).round().long()
        assert torch.equal(batch.targets, targets[views, images])
        assert torch.equal(batch.teacher, teacher[views, images])


def test_only_the_given_rows_are_trained_on() -> None:
    """Everything but the tokens belongs to the rows, not to all images."""
    rows, whole = torch.tensor([3, 4, 11, 20]), training_set()
    assert isinstance(whole.tokens, Tensor)
    assert isinstance(whole.teacher, Tensor)
    data = TrainingSet(
        whole.tokens, rows, *(x[:, rows] for x in (whole.targets, whole.verified, whole.teacher, whole.untuned))
    )
    alone = replace(data, tokens=whole.tokens[:, rows], rows=torch.arange(4))
    states = [fresh_state(CONFIG), fresh_state(CONFIG)]
    for state, given in zip(states, (data, alone), strict=True):
        train(state, given, replace(CONFIG, epochs=2), None, ignore_step)
    assert_bit_identical(*states)


def test_plain_clips_share_is_not_trained() -> None:
    config = replace(CONFIG, epochs=1)
    head = window_seeded_head(tiny_pool((3, 3)), 4).with_share(0.5)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    state = new_state(head, fresh_state(config).objectives, config)
    train(state, training_set(), config, None, ignore_step)
    changed = {name for name, value in head.state_dict().items() if not torch.equal(before[name], value)}
    assert not any(name.startswith("pooled") for name in changed)
    assert "pool.v_proj.weight" in changed
