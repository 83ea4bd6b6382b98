"""What training is told: nothing of novel classes, and nothing of what was held back."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.embedding.embed import EncodedImages
from forclip.experiments.comparison import new_task
from forclip.text.prompt_options import PromptOptions
from forclip.text.prompts import encode_classes
from forclip.training.supervision import Supervision, all_synonyms, supervise
from forclip.types import Annotations, ClassSplit
from tests.tiny import TinyBackbone

NAMES = ("cat", "Zebra", "dog", "unicorn", "cup")
SPLIT = ClassSplit(base=("cat", "dog", "cup"), novel=("Zebra", "unicorn"))
LABELS = np.array([[1, 0, 0, 1, 0], [0, 1, 1, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]], bool)


class Listening(TinyBackbone):
    """Notes every text that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.heard += texts
        return super().encode_text(texts)


def annotations(labels: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = LABELS) -> Annotations:
    none = np.zeros(0, np.int64)
    ids = tuple(map(str, range(len(labels))))
    paths = tuple(Path(f"{i}.jpg") for i in ids)
    return Annotations(ids, paths, NAMES, labels, np.zeros((0, 4), np.float32), none, none)


def words(*names: str) -> Tensor:
    return encode_classes(TinyBackbone(), names, ["a {}"])


def known() -> Supervision:
    return supervise(TinyBackbone(), annotations(), SPLIT, PromptOptions(["a {}"], ["dog", "bird", "fish"]))


def test_novel_names_never_get_in() -> None:
    backbone = Listening()
    listed = ["bird", "zebra", "ZEBRA", "Unicorn", "dog", "unicorn", "fish", "bird"]
    found = supervise(backbone, annotations(), SPLIT, PromptOptions(["a {}"], listed))
    assert {text.lower() for text in backbone.heard} == {"a cat", "a dog", "a cup", "a bird", "a fish"}
    torch.testing.assert_close(found.texts, words("cat", "dog", "cup"))
    torch.testing.assert_close(found.vocabulary, words("cat", "dog", "cup", "bird", "fish"))
    assert (found.labels == LABELS[:, [0, 2, 4]]).all()
    assert found.verified.all()
    assert found.labelled.tolist() == [0, 1, 2, 3]


SYNONYMS = (("cat", "kitty"), ("Plains_zebra",), ("hound", "unicorn"), ("pony (horned)",), ("mug", "Hound"))


def with_synonyms() -> Annotations:
    return replace(annotations(), synonyms=SYNONYMS)


def test_the_synonyms_of_novel_classes_never_get_in_either() -> None:
    """Nor in another case or spelling, nor where LVIS's parentheses make the difference."""
    listed = ["plains zebra", "PLAINS_ZEBRA", "pony", "zebra (animal)", "zebra crossing", "pony (pet)", "kitty"]
    for synonyms in ("none", "mean"):
        backbone = Listening()
        found = supervise(backbone, with_synonyms(), SPLIT, PromptOptions(["a {}"], listed, synonyms=synonyms))
        heard = {text.lower() for text in backbone.heard}
        assert {"a zebra crossing", "a pony (pet)", "a kitty"} <= heard
        told = [text for text in heard if "zebra" in text or "pony" in text or "unicorn" in text]
        assert sorted(told) == ["a pony (pet)", "a zebra crossing"]
        assert len(found.vocabulary) == (5 if synonyms == "mean" else 6)


def test_without_being_asked_for_synonyms_change_no_text() -> None:
    plain = supervise(TinyBackbone(), annotations(), SPLIT, PromptOptions(["a {}"], ["bird", "kitty"]))
    found = supervise(TinyBackbone(), with_synonyms(), SPLIT, PromptOptions(["a {}"], ["bird", "kitty"]))
    assert torch.equal(found.texts, plain.texts)
    assert torch.equal(found.vocabulary, plain.vocabulary)


def test_base_classes_are_asked_by_their_synonyms_but_not_by_those_of_a_novel_class() -> None:
    """The dog's "unicorn" is novel. "kitty" is the cat's, and so no word of its own; so is "HOUND"."""
    found = supervise(
        TinyBackbone(), with_synonyms(), SPLIT, PromptOptions(["a {}"], ["HOUND", "kitty", "bird"], synonyms="mean")
    )
    cat, dog, cup = (words(*names).mean(0) for names in (("cat", "kitty"), ("dog", "hound"), ("cup", "mug", "Hound")))
    expected = F.normalize(torch.stack([cat, dog, cup]), dim=-1)
    torch.testing.assert_close(found.texts, expected)
    torch.testing.assert_close(found.vocabulary, torch.cat([expected, words("bird")]))
    assert len(found.keep_classes(np.array([0, 2])).vocabulary) == 3  # the dog takes its word along


def test_all_synonyms_are_those_that_base_classes_are_trained_with() -> None:
    of_base = (("cat", "kitty"), ("hound",), ("mug", "Hound"))
    assert all_synonyms(with_synonyms(), SPLIT) == (*of_base, ("Plains_zebra",), ("pony (horned)",))
    assert all_synonyms(annotations(), SPLIT) == ((),) * 5


def test_prompts_of_base_classes_alone_are_heard() -> None:
    backbone = Listening()
    overrides = {"dog": ("the dog of {}", "a hound"), "Zebra": ("stripes",), "cup": ("{}",)}
    found = supervise(backbone, annotations(), SPLIT, PromptOptions(["a {}"], ["bird"], overrides=overrides))
    assert set(backbone.heard) == {"a cat", "the dog of dog", "a hound", "cup", "a bird"}
    assert torch.equal(found.texts, found.vocabulary[:3])


def test_what_is_searched_by_is_what_was_trained_and_for_novel_classes_all_that_is_known() -> None:
    """With every word that may be used: synonyms for all but the novel zebra, which has a prompt of its own."""
    images = EncodedImages(torch.zeros(4, 9, 8, dtype=torch.float16), np.arange(4), (), 0.0)
    data = (with_synonyms(), images)
    overrides = {"Zebra": ("stripes",), "cup": ("the {}",)}
    task = new_task(
        "t", TinyBackbone(), data, data, SPLIT, PromptOptions(["a {}"], [], synonyms="mean", overrides=overrides)
    )
    assert torch.equal(task.texts[:3], task.supervision.texts)
    stripes, pony = TinyBackbone().encode_text(["stripes"])[0], words("unicorn", "pony (horned)").mean(0)
    torch.testing.assert_close(task.texts[3:], F.normalize(torch.stack([stripes, pony]), dim=-1))


def test_prompts_of_no_class_are_named() -> None:
    with pytest.raises(ValueError, match="prompts are given for 'bird', which is no class"):
        supervise(
            TinyBackbone(), annotations(), SPLIT, PromptOptions(["a {}"], ["bird"], overrides={"bird": ("a {}",)})
        )


def test_a_base_class_in_no_image_is_named_or_left_out() -> None:
    unseen = LABELS.copy()
    unseen[:, 2] = False
    with pytest.raises(ValueError, match="no training image shows base class 'dog'"):
        supervise(TinyBackbone(), annotations(unseen), SPLIT, PromptOptions(["a {}"], []))
    found = supervise(
        TinyBackbone(), annotations(unseen), SPLIT, PromptOptions(["a {}"], []), allow_unlabelled_base=True
    )
    torch.testing.assert_close(found.texts, words("cat", "cup"))
    assert found.labels.shape == (4, 2)
    torch.testing.assert_close(found.vocabulary, words("cat", "dog", "cup"))  # its name is no secret


def test_a_held_back_class_takes_its_word_along() -> None:
    kept = known().keep_classes(np.array([0, 2]))
    torch.testing.assert_close(kept.texts, words("cat", "cup"))
    torch.testing.assert_close(kept.vocabulary, words("cat", "cup", "bird", "fish"))
    assert (kept.labels == LABELS[:, [0, 4]]).all()
    assert kept.verified.shape == (4, 2)


def test_keeping_all_classes_changes_nothing() -> None:
    kept = known().keep_classes(np.arange(3))
    assert torch.equal(kept.texts, known().texts)
    assert torch.equal(kept.vocabulary, known().vocabulary)
    assert (kept.labels == known().labels).all()


def test_a_fraction_of_the_labels() -> None:
    """The third image shows the most, a cat and a cup; dogs are unheard of then, but not as a word."""
    some = known().labelled_fraction(0.25, seed=0)
    assert some.labelled.tolist() == [2]
    torch.testing.assert_close(some.texts, words("cat", "cup"))
    assert some.labels.shape == some.verified.shape == (4, 2)
    assert some.verified.tolist() == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]
    assert torch.equal(some.vocabulary, known().vocabulary)
    more = known().labelled_fraction(0.5, seed=0)
    assert more.labelled.tolist() == [1, 2]
    torch.testing.assert_close(more.texts, words("cat", "dog", "cup"))


def test_the_whole_fraction_is_all() -> None:
    whole = known().labelled_fraction(1.0, seed=0)
    assert (whole.labels == known().labels).all()
    assert whole.verified.all()
    assert torch.equal(whole.texts, known().texts)


def test_only_verified_labels_are_known() -> None:
    verified = np.ones_like(LABELS)
    verified[~LABELS[:, 2], 2] = False
    found = supervise(TinyBackbone(), replace(annotations(), verified=verified), SPLIT, PromptOptions(["a {}"], []))
    assert (found.verified == verified[:, [0, 2, 4]]).all()
    verified[:, 2] = False
    with pytest.raises(ValueError, match="no training image shows base class 'dog'"):
        supervise(TinyBackbone(), replace(annotations(), verified=verified), SPLIT, PromptOptions(["a {}"], []))
