"""The plan of a training against what it then reports."""

from dataclasses import replace

import pytest

from forclip.progress import Advance
from forclip.training.expected_stages import expected_stages
from forclip.training.finetune import finetune
from tests.tiny import TinyBackbone
from tests.training.test_finetune import HEAD, TRAIN, images, supervision


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": "auto", "interpolation": None},
        {"teacher": "start", "interpolation": None, "epochs": 3},
        {"teacher": "none", "interpolation": 0.5, "batch_size": 3},
        {"teacher": "auto", "held_back_folds": 1},
        {"teacher": "auto", "interpolation": None, "labelled_fraction": 0.6},
        {"teacher": "none", "self_training": True, "labelled_fraction": 0.6},
    ],
)
def test_the_stages_are_those_that_come(changes: dict[str, object]) -> None:
    config = replace(TRAIN, **changes)  # type: ignore[arg-type]
    reported: list[tuple[str, int]] = []

    def track(description: str, total: int) -> Advance:
        reported.append((description, total))
        return lambda count: None

    given = supervision()
    finetune(TinyBackbone(), images(), None, given, HEAD, config, track=track)
    kept = given.keep_labelled_fraction(config.labelled_fraction, config.seed)
    plan = expected_stages(config, 10, len(kept.labelled), len(kept.texts))
    planned = [(stage.name, stage.total) for stage in plan]
    # What is chosen on the way may need another teacher, or no training: the plan can't know.
    assert all(stage in planned for stage in reported if not stage[0].startswith("running teacher"))
    names = [name for name, _ in planned]
    assert [name for name, _ in reported if name in names] == [n for n in names if n in dict(reported)]
    assert all(stage.cost > 0 and stage.total > 0 for stage in plan)
