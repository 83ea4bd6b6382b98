"""Prompt options from a configuration, their use in training and search, and the template sets."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from forclip.config import DataConfig, EvalConfig, SourceConfig
from forclip.embedding.embed import EncodedImages
from forclip.experiments.comparison import measure, new_task
from forclip.models.summary_head import window_seeded_head
from forclip.text.prompt_options import TEMPLATE_SETS, PromptOptions, read_prompt_options, resolve_templates
from forclip.types import Annotations, ClassSplit
from tests.tiny import TinyBackbone

NAMES = ("cat", "cup", "couch")
SPLIT = ClassSplit(("cat", "cup"), ("couch",))
SYNONYMS = (("kitty",), (), ("sofa", "settee"))


def annotations() -> Annotations:
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], bool)
    none, ids = np.zeros(0, np.int64), tuple("abcd")
    paths = tuple(Path(f"{i}.jpg") for i in ids)
    boxes = np.zeros((0, 4), np.float32)
    return Annotations(ids, paths, NAMES, labels, boxes, none, none, synonyms=SYNONYMS)


def data(**changes: object) -> DataConfig:
    return replace(DataConfig(SourceConfig(Path("zoo.json"))), **changes)  # type: ignore[arg-type]  # as YAML would


def test_the_defaults_are_one_template_and_no_vocabulary() -> None:
    assert read_prompt_options(data(), annotations(), SPLIT) == PromptOptions(("a photo of a {}",), (), "none", {})


def test_a_shipped_vocabulary_has_no_word_for_a_novel_class() -> None:
    """LVIS calls COCO's couch a sofa; the data's own synonyms count too."""
    options = read_prompt_options(data(vocabulary="lvis", templates="clip7"), annotations(), SPLIT)
    assert len(options.templates) == 7
    assert "sofa" not in options.vocabulary
    everything = read_prompt_options(data(vocabulary="lvis"), annotations(), ClassSplit(NAMES, ()))
    assert len(everything.vocabulary) > 1190
    assert "sofa" in everything.vocabulary


def test_a_configured_template_needs_braces_for_the_name() -> None:
    with pytest.raises(ValueError, match="'a photo'"):
        read_prompt_options(data(templates=("a photo",)), annotations(), SPLIT)


def test_max_searches_with_all_names_and_trains_with_the_first() -> None:
    tokens = torch.randn(4, 9, 8, generator=torch.Generator().manual_seed(0)).half()
    images = (annotations(), EncodedImages(tokens, np.arange(4), (), 0.0))
    backbone = TinyBackbone()
    task = new_task("t", backbone, images, images, SPLIT, PromptOptions(["a {}"], [], "max"))
    assert task.text_owners.tolist() == [0, 0, 1, 2, 2, 2]
    torch.testing.assert_close(task.supervision.texts, backbone.encode_text(["a cat", "a cup"]))

    head = window_seeded_head(backbone.new_pool(), 3).eval()
    with torch.no_grad():
        found = measure(task, "sum", head, 0, EvalConfig())
        texts = backbone.encode_text(["a couch", "a sofa", "a settee"])
        scores = (head(tokens.float()) @ texts.T).amax((1, 2))
    relevant = annotations().labels[:, 2]
    order = relevant[np.argsort(-scores.numpy(), kind="stable")]
    expected = 100 / (1 + int(np.argmax(order)))  # one relevant image: AP is the inverse of its rank
    couch = next(c for c in found.run.report.classes if c.name == "couch")
    assert couch.average_precision == pytest.approx(expected)


def test_the_template_sets() -> None:
    sets = {name: resolve_templates([name]) for name in TEMPLATE_SETS}
    assert {name: len(templates) for name, templates in sets.items()} == {"single": 1, "clip7": 7, "clip80": 80}
    for templates in sets.values():
        assert len(set(templates)) == len(templates)
        assert all(template.count("{}") == 1 for template in templates)
    assert sets["clip7"] == (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    )
    assert set(sets["clip7"]) < set(sets["clip80"])
    assert sets["clip80"][0] == "a bad photo of a {}."


def test_other_templates_are_returned_unchanged() -> None:
    assert resolve_templates(["a {}", "{} art"]) == ("a {}", "{} art")


def test_invalid_templates_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'clip8'.*single, clip7, clip80"):
        resolve_templates(["clip8"])
    with pytest.raises(ValueError, match="'clip7'"):
        resolve_templates(["a {}", "clip7"])
    with pytest.raises(ValueError, match="no prompt template"):
        resolve_templates([])


def test_given_templates_do_not_import_torch() -> None:
    code = (
        "import sys; from forclip.text.prompt_options import resolve_templates;"
        "resolve_templates(['a {}']); resolve_templates(['single']);"
        "print([m for m in ('torch', 'open_clip') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout.strip() == "[]"
