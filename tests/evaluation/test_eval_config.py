from dataclasses import replace
from typing import Any

import pytest

from forclip.config import EvalConfig


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"clusters": (5, 0)}, "clusters must be at least 1 each, not 0"), ({"min_relevant": 0}, "at least 1, not 0")],
)
def test_values_that_measure_nothing_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(EvalConfig(), **changes)


def test_distractors_stay_by_default() -> None:
    assert EvalConfig().distractors
