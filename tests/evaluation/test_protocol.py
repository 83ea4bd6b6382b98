import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from forclip.data.splits import split_classes
from forclip.evaluation import metrics
from forclip.evaluation.metrics import DENOMINATORS
from forclip.evaluation.protocol import LeftOut, evaluate_scores, metric_name
from forclip.types import ClassSplit

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
    with pytest.raises(ValueError, match="'dog' occurs twice"):
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
    assert report.empty_groups == (
        LeftOut("novel", "no novel class has 2 or more relevant images and an irrelevant one"),
    )
    assert [c.name for c in report.left_out] == ["cat", "tie"]
    assert report.means["min(k,R)"]["novel"] is None
    none_novel = evaluate_scores(SCORES[:, :3], LABELS[:, :3], NAMES[:3], split_classes(NAMES[:3], []))
    assert none_novel.empty_groups == (LeftOut("novel", "the split has no novel class"),)


def test_a_class_of_neither_group_does_not_count() -> None:
    report = evaluate_scores(SCORES, LABELS, NAMES, ClassSplit(base=("dog",), novel=("cat",)))
    assert LeftOut("cup", "neither base nor novel") in report.left_out
    assert report.means["min(k,R)"]["all"] == pytest.approx(50 * (5 / 6 + 1 / 4))


def test_names_of_the_metric_name_the_denominator() -> None:
    assert [metric_name(50, d) for d in DENOMINATORS] == ["map_at_50/min(50,R)", "map_at_50/R", "map_at_50/hits"]


def test_bad_input_is_refused_by_name() -> None:
    with_nan = SCORES.copy()
    with_nan[2, 1] = np.nan
    with pytest.raises(ValueError, match="row 2 for class 'cat' is NaN"):
        evaluate_scores(with_nan, LABELS, NAMES, SPLIT)
    with pytest.raises(ValueError, match="class 'cow' of the split has no scores"):
        evaluate_scores(SCORES, LABELS, NAMES, ClassSplit(base=("dog",), novel=("cow",)))
    with pytest.raises(ValueError, match="min_relevant must be at least 1, not 0"):
        evaluate_scores(SCORES, LABELS, NAMES, SPLIT, min_relevant=0)


# Six images. cup is verified for rows 0, 1, 3 and 5, tie for all of them.
FEW = ("cup", "tie")
FEW_LABELS = np.array([[0, 1], [1, 0], [0, 0], [0, 0], [1, 0], [1, 0]], bool)
FEW_VERIFIED = np.array([[1, 1], [1, 1], [0, 1], [1, 1], [0, 1], [1, 1]], bool)
# cup ranks rows 2 0 1 4 3 5, of which 0 1 3 5 are verified: hits at 2 and 4 of four.
FEW_SCORES = np.array([[5, 9], [4, 8], [6, 7], [2, 6], [3, 5], [1, 4]], np.float32)


def test_federated_worked_by_hand() -> None:
    split = ClassSplit(base=("cup",), novel=("tie",))
    report = evaluate_scores(FEW_SCORES, FEW_LABELS, FEW, split, verified=FEW_VERIFIED)
    cup = report.classes[0]
    assert (cup.num_images, cup.num_relevant) == (4, 2)
    assert cup.average_precision == pytest.approx(100 * (1 / 2 + 2 / 4) / 2)
    assert report.protocol == "verified images"
    # Over all images: hits at 3 and 6; row 4 shows a cup by a label that nobody verified, and is a miss.
    assert report.other_protocols == {"all images": pytest.approx({"base": 100 / 3, "novel": 100, "all": 200 / 3})}
    assert report.means["min(k,R)"] == pytest.approx({"base": 50, "novel": 100, "all": 75})
    assert (report.images, report.distractors, report.distractors_kept) == (6, 3, True)
    assert report.curves.k == [1, 2, 5]
    assert report.curves.recall["base"] == pytest.approx((0, 50, 100))
    assert report.curves.precision["base"] == pytest.approx((0, 50, 40))


def test_labels_that_are_all_verified_are_the_usual_protocol() -> None:
    plain = evaluate_scores(SCORES, LABELS, NAMES, SPLIT)
    assert evaluate_scores(SCORES, LABELS, NAMES, SPLIT, verified=np.ones_like(LABELS)) == plain
    assert (plain.protocol, plain.other_protocols) == ("all images", {})


def test_a_class_without_an_irrelevant_image_is_left_out_with_the_reason() -> None:
    labels, verified = FEW_LABELS.copy(), FEW_VERIFIED.copy()
    verified[:, 0] = labels[:, 0]
    report = evaluate_scores(FEW_SCORES, labels, FEW, ClassSplit(FEW, ()), verified=verified)
    assert report.left_out == (LeftOut("cup", "all 3 verified images show it, so that any ranking of them is perfect"),)
    labels[:, 1] = True
    report = evaluate_scores(FEW_SCORES, labels, FEW, ClassSplit(FEW, ()))
    assert report.left_out == (LeftOut("tie", "all 6 images show it, so that any ranking of them is perfect"),)
    verified[:, 0] = False
    report = evaluate_scores(FEW_SCORES, labels, FEW, ClassSplit(FEW, ()), verified=verified)
    assert report.left_out[0] == LeftOut("cup", "0 relevant images, fewer than 1")


def test_distractors_can_be_removed() -> None:
    """Row 3 shows no class; so does row 1 once cup is of neither group."""
    split = ClassSplit(base=("dog",), novel=("cat",))
    with_them = evaluate_scores(SCORES, LABELS, NAMES, split)
    without = evaluate_scores(SCORES, LABELS, NAMES, split, distractors=False)
    assert (with_them.images, with_them.distractors, with_them.distractors_kept) == (4, 2, True)
    assert (without.images, without.distractors, without.distractors_kept) == (2, 2, False)
    # cat is in row 0, which it ranks last: of four images, then of the two that are left.
    assert with_them.means["min(k,R)"]["novel"] == pytest.approx(25)
    assert without.means["min(k,R)"]["novel"] == pytest.approx(50)
    assert without.left_out[0] == LeftOut("dog", "all 2 images show it, so that any ranking of them is perfect")
    nothing = evaluate_scores(SCORES, np.zeros_like(LABELS), NAMES, split, distractors=False)
    assert (nothing.images, nothing.curves.k, nothing.classes) == (0, [], ())


def naive_precision(scores: list[float], labels: list[bool], verified: list[bool], k: int) -> float | None:
    """AP@k over min(k, R) of the verified images, by definition; None where it says nothing."""
    rows = sorted((row for row in range(len(scores)) if verified[row]), key=lambda row: (-scores[row], row))
    total = sum(labels[row] for row in rows)
    if total in (0, len(rows)):
        return None
    gained, hits = 0.0, 0
    for rank, row in enumerate(rows[:k], start=1):
        if labels[row]:
            hits += 1
            gained += hits / rank
    return 100 * gained / min(k, total)


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_federated_equals_a_naive_loop(num_images: int, num_classes: int, k: int, seed: int) -> None:
    """Few different scores, so that there are ties."""
    rng = np.random.default_rng(seed)
    shape = num_images, num_classes
    scores = rng.integers(0, 6, shape).astype(np.float32)
    labels, verified = rng.random(shape) < 0.4, rng.random(shape) < rng.random()
    names = tuple(f"class {c}" for c in range(num_classes))
    report = evaluate_scores(scores, labels, names, ClassSplit(names, ()), k=k, verified=verified)
    expected = {
        name: naive_precision(scores[:, c].tolist(), labels[:, c].tolist(), verified[:, c].tolist(), k)
        for c, name in enumerate(names)
    }
    found = {result.name: result.average_precision for result in report.classes}
    assert found == pytest.approx({name: value for name, value in expected.items() if value is not None})
    assert {c.name for c in report.left_out} == {name for name, value in expected.items() if value is None}


@pytest.mark.parametrize("seed", range(4))
def test_federated_agrees_with_scikit_learn_on_the_verified_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(300).reshape(100, 3).astype(np.float32)
    labels, verified = rng.random((100, 3)) < 0.3, rng.random((100, 3)) < 0.5
    report = evaluate_scores(scores, labels, NAMES[:3], ClassSplit(NAMES[:3], ()), k=100, verified=verified)
    for column, result in enumerate(report.classes):
        rows = verified[:, column]
        peer = average_precision_score(labels[rows, column], scores[rows, column])
        assert result.average_precision == pytest.approx(100 * peer)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_sorting_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(metrics, "_BLOCK_SCORES", block)
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, (40, 6)).astype(np.float32)
    found = dict(metrics.column_rankings(scores, [4, 0, 5]))
    assert list(found) == [4, 0, 5]
    for column, order in found.items():
        assert order.tolist() == metrics.ranking(scores[:, column]).tolist()
