import json

import numpy as np
import pytest

from forclip.evaluation.protocol import ClassSplit, evaluate_scores, split_classes
from forclip.evaluation.result import LeftOut

NAMES = ("dog", "cat", "cup", "tie")
SPLIT = ClassSplit(base=("dog", "cup"), novel=("cat", "tie"))
LABELS = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
# dog: rows 0 1 2 3 -> hits at 1 and 3; cat: 3 2 1 0 -> a hit at 4; cup: 1 2 0 3 -> hits at 1 and 2.
SCORES = np.array([[4, 1, 2, 1], [3, 2, 4, 2], [2, 3, 3, 3], [1, 4, 1, 4]], np.float32)


def test_split_keeps_the_order_of_the_classes() -> None:
    assert split_classes(NAMES, ["tie", "cat"]) == ClassSplit(base=("dog", "cup"), novel=("cat", "tie"))
    assert split_classes(NAMES, []).novel == ()


def test_a_bad_split_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'cat' is both base and novel"):
        ClassSplit(base=("dog", "cat"), novel=("cat",))
    with pytest.raises(ValueError, match="at least one base class"):
        split_classes(NAMES, NAMES)
    with pytest.raises(ValueError, match="'dog' is in the split twice"):
        ClassSplit(base=("dog", "dog"), novel=())
    with pytest.raises(ValueError, match="no class is named 'cats', to be novel; did you mean 'cat'"):
        split_classes(NAMES, ["cats"])


def test_means_by_group_and_denominator() -> None:
    report = evaluate_scores(SCORES, LABELS, NAMES, SPLIT)
    dog, cat, cup = 5 / 6, 1 / 4, 1.0
    assert report.means["min(k,R)"] == pytest.approx(
        {"base": 50 * (dog + cup), "novel": 100 * cat, "all": 100 * (dog + cat + cup) / 3}
    )
    assert report.left_out == (LeftOut("tie", "0 relevant images, fewer than 1"),)
    assert report.empty_groups == ()
    dog_result = report.classes[0]
    assert (dog_result.name, dog_result.group, dog_result.num_relevant) == ("dog", "base", 2)
    assert (dog_result.precision_at_10, dog_result.recall_at_50) == pytest.approx((20, 100))


def test_k_applies_to_every_denominator() -> None:
    means = evaluate_scores(SCORES, LABELS, NAMES, SPLIT, k=1).means
    assert [means[d]["base"] for d in means] == pytest.approx([100, 50, 100])


def test_a_group_without_an_evaluated_class_has_no_value_but_a_reason() -> None:
    report = evaluate_scores(SCORES, LABELS, NAMES, SPLIT, min_relevant=2)
    assert report.means["R"]["novel"] is None
    assert report.empty_groups == (LeftOut("novel", "no novel class has 2 or more relevant images"),)
    assert [c.name for c in report.left_out] == ["cat", "tie"]
    assert json.loads(json.dumps(report.to_json()))["novel"] is None
    none_novel = evaluate_scores(SCORES[:, :3], LABELS[:, :3], NAMES[:3], split_classes(NAMES[:3], []))
    assert none_novel.empty_groups == (LeftOut("novel", "the split has no novel class"),)


def test_a_class_of_neither_group_does_not_count() -> None:
    report = evaluate_scores(SCORES, LABELS, NAMES, ClassSplit(base=("dog",), novel=("cat",)))
    assert LeftOut("cup", "neither base nor novel") in report.left_out
    assert report.means["min(k,R)"]["all"] == pytest.approx(50 * (5 / 6 + 1 / 4))


def test_json_names_every_variant() -> None:
    written = evaluate_scores(SCORES, LABELS, NAMES, SPLIT).to_json()
    assert written["metric"] == "map_at_50/min(50,R)"
    assert set(written["other_denominators"]) == {"map_at_50/R", "map_at_50/hits"}


def test_bad_input_is_refused_by_name() -> None:
    with_nan = SCORES.copy()
    with_nan[2, 1] = np.nan
    with pytest.raises(ValueError, match="row 2 for class 'cat' is NaN"):
        evaluate_scores(with_nan, LABELS, NAMES, SPLIT)
    with pytest.raises(ValueError, match="class 'cow' of the split has no scores"):
        evaluate_scores(SCORES, LABELS, NAMES, ClassSplit(base=("dog",), novel=("cow",)))
    with pytest.raises(ValueError, match="min_relevant must be at least 1, not 0"):
        evaluate_scores(SCORES, LABELS, NAMES, SPLIT, min_relevant=0)
