"""Class text vectors, computed by hand with a backbone that has a random vector for each text."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.evaluation.metrics import max_sim
from forclip.text.prompts import ClassTexts, class_scores, encode_class_names, encode_classes
from tests.tiny import TinyBackbone

SOFA = ClassTexts(("sofa", "cat"), (("sofa", "couch"), ()), ("a {}", "the {}"))


def mean_of(*texts: str) -> Tensor:
    return F.normalize(TinyBackbone().encode_text(texts).mean(0), dim=-1)


def test_one_name_through_templates() -> None:
    """Bit for bit the normalised mean over templates."""
    names, templates = ["cat", "dog", "cup"], ["a {}", "the {}", "{} art"]
    found = encode_classes(TinyBackbone(), names, templates)
    texts = [template.format(name) for name in names for template in templates]
    means = TinyBackbone().encode_text(texts).unflatten(0, (3, 3)).mean(1)
    assert torch.equal(found, F.normalize(means, dim=-1))
    assert found.dtype == torch.float32


def test_one_name_through_one_template_is_the_text_itself() -> None:
    found = encode_classes(TinyBackbone(), ["cat"], ["a {}"])
    torch.testing.assert_close(found, TinyBackbone().encode_text(["a cat"]))


def test_synonyms_are_averaged_each_once() -> None:
    found = encode_classes(TinyBackbone(), SOFA.names, SOFA.templates, SOFA.synonyms)
    expected = [mean_of("a sofa", "the sofa", "a couch", "the couch"), mean_of("a cat", "the cat")]
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_order_of_templates_and_synonyms_does_not_matter() -> None:
    templates, others = ("a {}", "the {}", "{}"), ("couch", "lounge", "settee")
    first = encode_classes(TinyBackbone(), ["sofa"], templates, [others])
    for order, words in zip(itertools.permutations(templates), itertools.permutations(others), strict=True):
        torch.testing.assert_close(encode_classes(TinyBackbone(), ["sofa"], order, [words]), first)


def test_the_order_of_classes_is_the_order_of_vectors() -> None:
    names, others = ["sofa", "cat", "cup"], [("couch",), (), ("mug", "glass")]
    straight = encode_classes(TinyBackbone(), names, ["a {}"], others)
    reverse = encode_classes(TinyBackbone(), names[::-1], ["a {}"], others[::-1])
    assert torch.equal(straight, reverse.flip(0))


def test_overrides_replace_the_templates_of_one_class() -> None:
    """A text without `{}` is a whole prompt; one with `{}` is a template for the class's names."""
    overrides = {"sofa": ("a soft seat", "my {}")}
    found = encode_classes(TinyBackbone(), SOFA.names, SOFA.templates, SOFA.synonyms, overrides)
    expected = [mean_of("a soft seat", "my sofa", "my couch"), mean_of("a cat", "the cat")]
    torch.testing.assert_close(found, torch.stack(expected))


def test_other_braces_stay() -> None:
    found = encode_classes(TinyBackbone(), ["{cat}"], ["a {} {0} {x}"])
    torch.testing.assert_close(found, TinyBackbone().encode_text(["a {cat} {0} {x}"]))


def test_mean_gives_a_vector_for_each_class() -> None:
    vectors, owners = encode_class_names(TinyBackbone(), SOFA)
    assert owners.tolist() == [0, 1]
    assert torch.equal(vectors, encode_classes(TinyBackbone(), SOFA.names, SOFA.templates, SOFA.synonyms))


def test_max_gives_a_vector_for_each_name_and_each_whole_prompt() -> None:
    names, overrides = ("sofa", "cat", "cup"), {"cat": ("purrs", "my {}", "meows")}
    texts = ClassTexts(names, (("couch",), ("kitty",), ()), ("a {}", "the {}"), "max", overrides)
    vectors, owners = encode_class_names(TinyBackbone(), texts)
    assert owners.tolist() == [0, 0, 1, 1, 1, 1, 2]
    sofa = [("a sofa", "the sofa"), ("a couch", "the couch")]
    cat = [("my cat",), ("my kitty",), ("purrs",), ("meows",)]
    expected = [mean_of(*prompts) for prompts in (*sofa, *cat, ("a cup", "the cup"))]
    torch.testing.assert_close(vectors, torch.stack(expected))


def test_class_scores_take_the_best_name() -> None:
    scores = np.array([[0.1, 0.5, 0.2, -1], [0.3, -0.5, -0.7, -0.2]], np.float32)
    expected = np.array([[0.5, 0.2, -1], [0.3, -0.7, -0.2]], np.float32)
    assert (class_scores(scores, np.array([0, 0, 1, 2]), 3) == expected).all()
    shuffled = class_scores(scores[:, [3, 1, 2, 0]], np.array([2, 0, 1, 0]), 3)
    assert (shuffled == expected).all()
    assert class_scores(scores[:0], np.array([0, 0, 1, 2]), 3).shape == (0, 3)


def test_class_scores_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 6)).astype(np.float32)
    texts, owners = encode_class_names(TinyBackbone(), ClassTexts(("a", "b"), (("c", "d"), ("e",)), ("{}",), "max"))
    offsets = np.arange(0, 21, 4)
    found = class_scores(max_sim(vectors, offsets, texts.numpy()), owners, 2)
    products = vectors @ texts.numpy().T
    for image, column in itertools.product(range(5), range(2)):
        best = max(products[4 * image + k, t] for k in range(4) for t in range(5) if owners[t] == column)
        assert found[image, column] == pytest.approx(best)


def test_a_class_without_a_text_is_named() -> None:
    with pytest.raises(ValueError, match="class 1 has no text"):
        class_scores(np.zeros((1, 2), np.float32), np.array([0, 2]), 3)


def test_invalid_prompts_are_refused() -> None:
    backbone = TinyBackbone()
    with pytest.raises(ValueError, match="'a photo'"):
        encode_classes(backbone, ["cat"], ["a {}", "a photo"])
    with pytest.raises(ValueError, match="no prompt template"):
        encode_classes(backbone, ["cat"], [])
    with pytest.raises(ValueError, match="no class name"):
        encode_classes(backbone, [], ["a {}"])
    with pytest.raises(ValueError, match="'dog'"):
        encode_classes(backbone, ["cat"], ["a {}"], overrides={"dog": ("a {}",)})
    with pytest.raises(ValueError, match="'cat'"):
        encode_classes(backbone, ["cat"], ["a {}"], overrides={"cat": ()})
