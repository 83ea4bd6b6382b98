"""Each rule for what is novel, by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from forclip.config import DataConfig, NovelRule, SourceConfig
from forclip.data.formats.coco import load_lvis
from forclip.data.splits import COCO_BASE, COCO_NEITHER, COCO_NOVEL, choose_classes
from forclip.types import Annotations

NAMES = ("ant", "bee", "cow", "dog", "elk")


def annotations(names: tuple[str, ...] = NAMES, counts: tuple[int, ...] = (5, 1, 4, 2, 3)) -> Annotations:
    """Class k is in the first counts[k] of five images."""
    labels = np.arange(5)[:, None] < np.array(counts)
    none = np.zeros(0, np.int64)
    ids = tuple("abcde")
    paths = tuple(Path(f"{i}.jpg") for i in ids)
    common = tuple("frcfr") if names == NAMES else ()
    return Annotations(ids, paths, names, labels, np.zeros((0, 4), np.float32), none, none, frequencies=common)


def config(novel: NovelRule | tuple[str, ...], base: tuple[str, ...] | None = None) -> DataConfig:
    return DataConfig(SourceConfig(Path("zoo.json")), novel, base=base)


def chosen(rule: NovelRule) -> tuple[str, ...]:
    split = choose_classes(config(rule), annotations(), annotations())
    assert set(split.base) == set(NAMES) - set(split.novel)
    return split.novel


def test_rules() -> None:
    assert chosen(NovelRule(frequency="r")) == ("bee", "elk")
    assert chosen(NovelRule(below=3)) == ("bee", "dog")
    drawn = [chosen(NovelRule(fraction=0.4, seed=seed)) for seed in range(12)]
    assert {len(novel) for novel in drawn} == {2}
    assert len(set(drawn)) > 3
    assert chosen(NovelRule(fraction=0.4, seed=5)) == drawn[5]


def test_a_fraction_leaves_a_class_to_learn_from() -> None:
    two = annotations(("cat", "dog"), (1, 1))
    for fraction in (0.01, 0.9):
        split = choose_classes(config(NovelRule(fraction=fraction)), two, two)
        assert (len(split.base), len(split.novel)) == (1, 1)


def test_a_novel_class_may_be_in_either_set() -> None:
    """Nobody has labelled it, so the training file need not know it; and a gallery may not show it."""
    gallery = annotations(("ant", "bee", "cow", "dog", "yak"))
    split = choose_classes(config(("dog", "yak", "elk")), annotations(), gallery)
    assert (split.base, split.novel) == (("ant", "bee", "cow"), ("dog", "elk", "yak"))
    with pytest.raises(ValueError, match="'eel'"):
        choose_classes(config(("eel",)), annotations(), gallery)
    with pytest.raises(ValueError, match="'yak', to be base"):
        choose_classes(config((), ("yak",)), annotations(), gallery)


def test_base_names_may_be_given_with_a_rule() -> None:
    split = choose_classes(config(NovelRule(below=3), ("cow",)), annotations(), annotations())
    assert (split.base, split.novel) == (("cow",), ("bee", "dog"))


def test_the_published_coco_split_leaves_fifteen_classes_out() -> None:
    others = ("hot dog", "wine glass")
    names = tuple(sorted((*COCO_BASE, *COCO_NOVEL, *others)))
    images = annotations(names, (1,) * len(names))
    split = choose_classes(config(NovelRule(split="coco-48-17")), images, images)
    assert (len(split.base), len(split.novel)) == (48, 17)
    assert not set(others) & {*split.base, *split.novel}


def test_cocos_novel_classes_are_these_17() -> None:
    """As Bansal et al. list them, in COCO 2017's spelling; a class that moves would change every published number."""
    listed = """airplane, bus, cat, dog, cow, elephant, umbrella, tie, snowboard, skateboard, cup, knife, cake, couch,
        keyboard, sink, scissors"""
    assert set(COCO_NOVEL) == {name.strip() for name in listed.split(",")}
    assert (len(COCO_BASE), len(COCO_NOVEL), len(COCO_NEITHER)) == (48, 17, 15)


def test_all_80_of_cocos_classes() -> None:
    """The published 17 are novel, and the 15 that the published split leaves out are base."""
    names = tuple(sorted((*COCO_BASE, *COCO_NOVEL, *COCO_NEITHER)))
    images = annotations(names, (1,) * len(names))
    split = choose_classes(config(NovelRule(split="coco-63-17")), images, images)
    assert len({*split.base, *split.novel}) == 80
    assert split.novel == COCO_NOVEL
    assert set(COCO_NEITHER) < set(split.base)
    fewer = annotations(names[:-1], (1,) * 79)
    with pytest.raises(ValueError, match="the split coco-63-17 needs a class 'zebra'"):
        choose_classes(config(NovelRule(split="coco-63-17")), fewer, fewer)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (NovelRule(frequency="x"), "no class has frequency 'x', only: c, f, r"),
        (NovelRule(split="coco-48-17"), "the split coco-48-17 needs a class 'person'"),
    ],
)
def test_rules_that_do_not_fit_are_refused_by_file(rule: NovelRule, message: str) -> None:
    with pytest.raises(ValueError, match=f"zoo.json: {message}"):
        choose_classes(config(rule), annotations(), annotations())


def test_the_published_names_are_real_cocos(shared: Path) -> None:
    """LVIS's file is of COCO's pictures but not of its classes; the photos' file has COCO's own 80."""
    content = json.loads((shared / "photos" / "instances.json").read_text())
    assert {*COCO_BASE, *COCO_NOVEL, *COCO_NEITHER} == {category["name"] for category in content["categories"]}


def test_lviss_rare_classes_are_the_novel_ones(shared: Path) -> None:
    """Each class as the file's own categories say."""
    file = shared / "reference" / "lvis_val_100.json"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    images = load_lvis(file, Path("images"))
    split = choose_classes(config(NovelRule(frequency="r")), images, images)
    rare = {c["name"].replace("_", " ") for c in json.loads(file.read_text())["categories"] if c["frequency"] == "r"}
    assert set(split.novel) == rare
    assert len(rare) > 300
    assert set(split.base) == set(images.class_names) - rare


@pytest.mark.parametrize(
    "rule", [NovelRule(frequency="r"), NovelRule(below=3), *(NovelRule(fraction=0.4, seed=s) for s in range(6))]
)
def test_no_gallery_changes_what_is_trained(rule: NovelRule) -> None:
    """Or labels of a class would be learned from in training, and the class called novel in evaluation."""
    others = (("ant", "cow", "dog", "yak"), ("bee", "elk", "yak", "zebu"))
    galleries = [annotations(names, (1, 2, 3, 4)) for names in others]
    alone = choose_classes(config(rule), annotations(), annotations())
    for gallery in galleries:
        assert choose_classes(config(rule), annotations(), gallery) == alone


def test_a_set_without_labels_is_no_training_set() -> None:
    nothing = annotations().with_classes([])
    with pytest.raises(ValueError, match=r"zoo\.json: no image has a label"):
        choose_classes(config(()), nothing, annotations())
    with pytest.raises(ValueError, match="all 5 classes are novel"):
        choose_classes(config(NAMES), annotations(), annotations())
