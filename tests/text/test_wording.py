"""How a dataset's classes are put to a model: what the configuration says, and what training and search get of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from forclip.config import DataConfig, EvalConfig, SourceConfig
from forclip.embedding.embed import EncodedImages
from forclip.experiments.comparison import measure, new_task
from forclip.models.summary_head import window_seeded_head
from forclip.text.wording import Wording, read_wording
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


def test_the_defaults_are_one_template_and_no_other_word() -> None:
    assert read_wording(data(), annotations(), SPLIT) == Wording(("a photo of a {}",), (), "none", {})


def test_a_shipped_vocabulary_has_no_word_for_a_novel_class() -> None:
    """LVIS calls COCO's couch a sofa; the data's own synonyms count too."""
    wording = read_wording(data(vocabulary="lvis", templates="clip7"), annotations(), SPLIT)
    assert len(wording.templates) == 7
    assert "sofa" not in wording.vocabulary
    everything = read_wording(data(vocabulary="lvis"), annotations(), ClassSplit(NAMES, ()))
    assert len(everything.vocabulary) > 1190
    assert "sofa" in everything.vocabulary


def test_templates_of_ones_own_need_a_place_for_the_name() -> None:
    with pytest.raises(ValueError, match=r"'a photo' has no \{\}"):
        read_wording(data(templates=("a photo",)), annotations(), SPLIT)


def test_the_best_of_a_classs_names_counts_in_search_and_its_own_alone_in_training() -> None:
    tokens = torch.randn(4, 9, 8, generator=torch.Generator().manual_seed(0)).half()
    images = (annotations(), EncodedImages(tokens, np.arange(4), (), 0.0))
    backbone = TinyBackbone()
    task = new_task("t", backbone, images, images, SPLIT, Wording(["a {}"], [], "max"))
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
