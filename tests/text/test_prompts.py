"""What classes are asked by, worked by hand with a backbone that looks a random vector up for each text."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.evaluation.metrics import max_sim
from forclip.text.prompts import ClassTexts, class_scores, encode_class_names, encode_classes
from forclip.text.templates import TEMPLATE_SETS, resolve_templates
from tests.tiny import TinyBackbone

SOFA = ClassTexts(("sofa", "cat"), (("sofa", "couch"), ()), ("a {}", "the {}"))


def mean_of(*texts: str) -> Tensor:
    return F.normalize(TinyBackbone().encode_text(texts).mean(0), dim=-1)


def test_one_name_through_templates() -> None:
    """To the bit: the mean over templates, of unit length."""
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
    for told, words in zip(itertools.permutations(templates), itertools.permutations(others), strict=True):
        torch.testing.assert_close(encode_classes(TinyBackbone(), ["sofa"], told, [words]), first)


def test_the_order_of_classes_is_the_order_of_vectors() -> None:
    names, others = ["sofa", "cat", "cup"], [("couch",), (), ("mug", "glass")]
    straight = encode_classes(TinyBackbone(), names, ["a {}"], others)
    reverse = encode_classes(TinyBackbone(), names[::-1], ["a {}"], others[::-1])
    assert torch.equal(straight, reverse.flip(0))


def test_a_class_may_have_prompts_of_its_own() -> None:
    """Without braces a whole prompt; with them a template for its names. The templates are for the others."""
    told = {"sofa": ("a soft seat", "my {}")}
    found = encode_classes(TinyBackbone(), SOFA.names, SOFA.templates, SOFA.synonyms, told)
    expected = [mean_of("a soft seat", "my sofa", "my couch"), mean_of("a cat", "the cat")]
    torch.testing.assert_close(found, torch.stack(expected))


def test_other_braces_are_left_alone() -> None:
    found = encode_classes(TinyBackbone(), ["{cat}"], ["a {} {0} {x}"])
    torch.testing.assert_close(found, TinyBackbone().encode_text(["a {cat} {0} {x}"]))


def test_the_mean_is_a_vector_for_each_class() -> None:
    vectors, owners = encode_class_names(TinyBackbone(), SOFA)
    assert owners.tolist() == [0, 1]
    assert torch.equal(vectors, encode_classes(TinyBackbone(), SOFA.names, SOFA.templates, SOFA.synonyms))


def test_max_is_a_vector_for_each_name_and_for_each_whole_prompt() -> None:
    names, told = ("sofa", "cat", "cup"), {"cat": ("purrs", "my {}", "meows")}
    texts = ClassTexts(names, (("couch",), ("kitty",), ()), ("a {}", "the {}"), "max", told)
    vectors, owners = encode_class_names(TinyBackbone(), texts)
    assert owners.tolist() == [0, 0, 1, 1, 1, 1, 2]
    sofa = [("a sofa", "the sofa"), ("a couch", "the couch")]
    cat = [("my cat",), ("my kitty",), ("purrs",), ("meows",)]
    expected = [mean_of(*prompts) for prompts in (*sofa, *cat, ("a cup", "the cup"))]
    torch.testing.assert_close(vectors, torch.stack(expected))


def test_the_best_name_of_a_class_counts() -> None:
    scores = np.array([[0.1, 0.5, 0.2, -1], [0.3, -0.5, -0.7, -0.2]], np.float32)
    expected = np.array([[0.5, 0.2, -1], [0.3, -0.7, -0.2]], np.float32)
    assert (class_scores(scores, np.array([0, 0, 1, 2]), 3) == expected).all()
    shuffled = class_scores(scores[:, [3, 1, 2, 0]], np.array([2, 0, 1, 0]), 3)
    assert (shuffled == expected).all()
    assert class_scores(scores[:0], np.array([0, 0, 1, 2]), 3).shape == (0, 3)


def test_the_best_name_against_a_loop() -> None:
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
    with pytest.raises(ValueError, match="no text is of the class of column 1"):
        class_scores(np.zeros((1, 2), np.float32), np.array([0, 2]), 3)


def test_what_cannot_be_asked_is_named() -> None:
    backbone = TinyBackbone()
    with pytest.raises(ValueError, match=r"prompt template 'a photo' has no \{\} for the class name"):
        encode_classes(backbone, ["cat"], ["a {}", "a photo"])
    with pytest.raises(ValueError, match="there is no prompt template"):
        encode_classes(backbone, ["cat"], [])
    with pytest.raises(ValueError, match="there is no class name to encode"):
        encode_classes(backbone, [], ["a {}"])
    with pytest.raises(ValueError, match="prompts are given for 'dog', which is no class"):
        encode_classes(backbone, ["cat"], ["a {}"], overrides={"dog": ("a {}",)})
    with pytest.raises(ValueError, match="the list of prompts for class 'cat' is empty"):
        encode_classes(backbone, ["cat"], ["a {}"], overrides={"cat": ()})


def test_the_sets_of_templates() -> None:
    assert {name: len(templates) for name, templates in TEMPLATE_SETS.items()} == {
        "single": 1,
        "clip7": 7,
        "clip80": 80,
    }
    for templates in TEMPLATE_SETS.values():
        assert len(set(templates)) == len(templates)
        assert all(template.count("{}") == 1 for template in templates)
    assert TEMPLATE_SETS["clip7"] == (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    )
    assert set(TEMPLATE_SETS["clip7"]) < set(TEMPLATE_SETS["clip80"])
    assert TEMPLATE_SETS["clip80"][0] == "a bad photo of a {}."
    assert "clip8" not in TEMPLATE_SETS


@pytest.mark.parametrize("name", ["single", "clip7", "clip80"])
def test_a_set_by_its_name(name: str) -> None:
    assert resolve_templates([name]) == TEMPLATE_SETS[name]


def test_templates_of_ones_own_stay_as_they_are() -> None:
    assert resolve_templates(["a {}", "{} art"]) == ("a {}", "{} art")


def test_what_is_neither_a_template_nor_a_set_is_named() -> None:
    with pytest.raises(ValueError, match=r"prompt template 'clip8' has no \{\}.*sets: single, clip7, clip80"):
        resolve_templates(["clip8"])
    with pytest.raises(ValueError, match="the set of prompt templates 'clip7' stands alone"):
        resolve_templates(["a {}", "clip7"])
    with pytest.raises(ValueError, match="there is no prompt template"):
        resolve_templates([])


def test_templates_of_ones_own_cost_no_torch() -> None:
    code = (
        "import sys; from forclip.text.templates import resolve_templates, TEMPLATE_SETS;"
        "resolve_templates(['a {}']); resolve_templates(['single']); list(TEMPLATE_SETS);"
        "print([m for m in ('torch', 'open_clip') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout.strip() == "[]"
