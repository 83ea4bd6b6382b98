"""What is tried: the teachers' own weights, unless the configuration sets them."""

from typing import Any, get_args

import pytest

from forclip.config import TrainConfig
from forclip.training.candidates import AUTOMATIC, TeacherName, candidates_of

EVERY: tuple[TeacherName, ...] = get_args(TeacherName)


def test_auto_tries_the_given_teachers_in_their_order() -> None:
    assert [c.teacher for c in candidates_of(TrainConfig(), EVERY)] == list(EVERY)
    assert "none" in AUTOMATIC, "training without a teacher is tried too"


@pytest.mark.parametrize("name", EVERY)
def test_a_configured_teacher_is_the_only_candidate(name: Any) -> None:
    assert [c.teacher for c in candidates_of(TrainConfig(teacher=name), AUTOMATIC)] == [name]


SETTINGS: dict[str, Any] = {
    "pseudo_weight": 0.7,
    "set_weight": 0.3,
    "base_loss": "binary",
    "trainable": "query_key",
    "step_size": 0.02,
}


@pytest.mark.parametrize("key", SETTINGS)
def test_what_the_configuration_sets_is_kept_and_the_rest_proposed(key: str) -> None:
    proposed = candidates_of(TrainConfig(), EVERY)
    for candidate, usual in zip(candidates_of(TrainConfig(**{key: SETTINGS[key]}), EVERY), proposed, strict=True):
        weightless = candidate.teacher == "none" and key.endswith("weight")
        assert getattr(candidate, key) == (0 if weightless else SETTINGS[key])
        assert all(getattr(candidate, other) == getattr(usual, other) for other in SETTINGS if other != key)


def test_candidates_that_come_out_equal_are_tried_once() -> None:
    """Without weights no teacher is followed, so they differ only in what they propose besides."""
    config = TrainConfig(pseudo_weight=0.0, set_weight=0.0, base_loss="softmax", trainable="all")
    (only,) = candidates_of(config, EVERY)
    assert only.teacher == "none"


def test_only_labels_alone_take_large_steps_and_not_with_tiles() -> None:
    steps = {c.teacher: c.step_size for c in candidates_of(TrainConfig(), EVERY)}
    assert steps.pop("none") == 2 * max(steps.values())
    with_tiles = {c.teacher: c.step_size for c in candidates_of(TrainConfig(), EVERY, tiles=True)}
    assert with_tiles.pop("none") == max(steps.values())
    assert with_tiles == steps


def test_mixtures_of_words_need_a_teacher() -> None:
    config = TrainConfig(teacher="cluster", pseudo_weight=0.0, set_weight=0.0, random_text_weight=0.5)
    assert [c.teacher for c in candidates_of(config, AUTOMATIC)] == ["cluster"]


@pytest.mark.parametrize(
    ("teachers", "expected"),
    [
        (AUTOMATIC, [("start", False), ("cluster", False), ("none", False), ("none", True)]),
        ((*AUTOMATIC, "zoom"), [("start", False), ("cluster", False), ("none", True)]),
    ],
)
def test_guessed_labels_are_tried_where_images_have_none(teachers: Any, expected: list[tuple[str, bool]]) -> None:
    assert not any(c.self_training for c in candidates_of(TrainConfig(), teachers))
    tried = candidates_of(TrainConfig(), teachers, some_unlabelled=True)
    assert [(c.teacher, c.self_training) for c in tried] == expected


@pytest.mark.parametrize("wanted", [True, False])
def test_a_configuration_decides_on_guessed_labels(wanted: bool) -> None:
    config = TrainConfig(self_training=wanted, teacher="cluster")
    assert [c.self_training for c in candidates_of(config, EVERY, some_unlabelled=True)] == [wanted]
    assert not candidates_of(config, EVERY)[0].self_training
