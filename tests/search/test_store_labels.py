"""Labels of a store's images: matching, class names, verdicts, and base and novel groups."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forclip.config import SourceConfig
from forclip.data.images.content import content_digest
from forclip.data.splits import read_split, write_split
from forclip.data.training_images import count_training_images, write_training_images
from forclip.index.image_index import Index
from forclip.index.store import ImageFile
from forclip.search.labels import StoreLabels, describe_matches, load_store_labels
from forclip.search.searcher import Searcher
from forclip.toyworld.dataset import ToyWorld
from forclip.types import Annotations, ClassSplit
from tests.index.made import HEADER, some


def annotations(names: tuple[str, ...], synonyms: tuple[tuple[str, ...], ...] = ()) -> Annotations:
    """Annotations of two images, the first of which shows every class."""
    labels = np.zeros((2, len(names)), bool)
    labels[0] = True
    boxes, none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    return Annotations(("a", "b"), (Path("a"), Path("b")), names, labels, boxes, none, none, None, synonyms)


def test_the_gallerys_labels_match_by_path(searcher: Searcher, small_world: ToyWorld) -> None:
    source = SourceConfig(small_world.gallery_file, small_world.images)
    labels = load_store_labels(searcher.index, source)
    assert set(labels.images.image_ids) == searcher.index.store.ids()
    assert labels.groups == {}
    count = len(labels.images.class_names)
    description = describe_matches(labels, searcher.index)
    assert "60 of the store's 60" in description
    assert f"{count} classes" in description


def test_training_images_in_a_gallery_are_counted_by_content(small_world: ToyWorld, tmp_path: Path) -> None:
    source = SourceConfig(small_world.gallery_file, small_world.images)
    paths = sorted(small_world.images.glob("gallery_*.jpg"))
    index = Index.create(tmp_path / "s", HEADER)
    stored = [ImageFile(str(path), content_hash=content_digest(path) or "") for path in paths]
    index.add(some([file.uri for file in stored]), stored)
    run = index.store.model_folder
    assert load_store_labels(index, source).num_training is None  # the model's run does not say
    assert count_training_images(run, paths) is None
    write_training_images(run, [*paths[:3], small_world.images / "gone.jpg"])
    labels = load_store_labels(index, source)
    assert set(labels.training or ()) == {str(path) for path in paths[:3]}
    assert "3 images of this gallery" in describe_matches(labels, index)
    assert count_training_images(run, paths) == 3
    write_training_images(run, [small_world.images / "gone.jpg"])
    labels = load_store_labels(index, source)
    assert labels.num_training == 0
    assert "of this gallery" not in describe_matches(labels, index)


def test_labels_may_match_some_images_but_not_none(searcher: Searcher, small_world: ToyWorld, tmp_path: Path) -> None:
    names = sorted(p.name for p in small_world.images.glob("gallery_*.jpg"))[:4]
    file = tmp_path / "some.csv"
    file.write_text("image,label\n" + "\n".join(f"{name},snail" for name in [*names, "unknown.jpg"]) + "\n")
    labels = load_store_labels(searcher.index, SourceConfig(file, small_world.images))
    description = describe_matches(labels, searcher.index)
    assert "4 of the store's 60" in description
    assert "5 are annotated. 1 class" in description
    with pytest.raises(ValueError, match=r"some\.csv.* 5 images .*gallery"):
        load_store_labels(searcher.index, SourceConfig(file, tmp_path))
    with pytest.raises(ValueError, match="any label"):
        load_store_labels(searcher.index, SourceConfig(small_world.images))


def test_a_picture_under_two_ids_is_one_image(searcher: Searcher, small_world: ToyWorld, tmp_path: Path) -> None:
    content = json.loads(small_world.gallery_file.read_text())
    first = content["images"][0]
    content["images"].append({**first, "id": 10**6})
    missing = next(
        c["id"]
        for c in content["categories"]
        if not any(a["image_id"] == first["id"] and a["category_id"] == c["id"] for a in content["annotations"])
    )
    content["annotations"].append({"id": 10**6, "image_id": 10**6, "category_id": missing, "bbox": [1, 2, 3, 4]})
    (tmp_path / "twice.json").write_text(json.dumps(content))
    once = load_store_labels(searcher.index, SourceConfig(small_world.gallery_file, small_world.images)).images
    twice = load_store_labels(searcher.index, SourceConfig(tmp_path / "twice.json", small_world.images)).images
    assert sorted(twice.image_ids) == sorted(once.image_ids)
    assert twice.labels.sum() == once.labels.sum() + 1
    assert len(twice.boxes) == len(once.boxes) + 1


def test_images_match_by_id_if_the_annotations_have_ids(searcher: Searcher, tmp_path: Path) -> None:
    image_id = min(searcher.index.store.ids())
    (tmp_path / "ids.csv").write_text(f"image,id,label\nelsewhere.jpg,{image_id},snail\n")
    assert load_store_labels(searcher.index, SourceConfig(tmp_path / "ids.csv")).images.image_ids == (image_id,)


def test_a_text_names_a_class_by_its_name_or_an_unambiguous_synonym() -> None:
    synonyms = (("sofa", "seat"), ("seat", "armchair"), ("couch",))
    labels = StoreLabels(annotations(("couch", "dining_chair", "bow (weapon)"), synonyms), {})
    texts = ("couch", " Couch ", "sofa", "dining chair", "armchair", "seat", "bow", "Bow  (weapon)", "a couch")
    assert [labels.class_of(text) for text in texts] == [0, 0, 0, 1, 1, None, None, 2, None]


def test_only_verified_labels_give_verdicts() -> None:
    verified = np.array([[True, True], [True, False]])
    labels = StoreLabels(replace(annotations(("cat", "dog")), verified=verified), {})
    assert [labels.checked(column) for column in (0, 1)] == [["a", "b"], ["a"]]
    assert [labels.checked(column, shows) for column in (0, 1) for shows in (True, False)] == [["a"], ["b"], ["a"], []]
    assert [labels.shows(i, 1) for i in ("a", "b", "unlabelled")] == [True, None, None]
    assert labels.shows("b", 0) is False


def test_groups_come_from_a_runs_folder_or_a_named_split(
    searcher: Searcher, small_world: ToyWorld, tmp_path: Path
) -> None:
    source = SourceConfig(small_world.gallery_file, small_world.images)
    names = load_store_labels(searcher.index, source).images.class_names
    write_split(tmp_path, ClassSplit((names[1], "not annotated"), (names[0],)))
    assert read_split(tmp_path) == ClassSplit((names[1], "not annotated"), (names[0],))
    groups = load_store_labels(searcher.index, source, str(tmp_path)).groups
    assert groups == {names[0]: "novel", names[1]: "base"}
    with pytest.raises(ValueError, match=r"coco-48-17 needs a class '"):
        load_store_labels(searcher.index, source, "coco-48-17")
    with pytest.raises(ValueError, match=r"coco-17: .*coco-48-17"):
        load_store_labels(searcher.index, source, "coco-17")
    (tmp_path / "split.json").write_text(json.dumps({"base": ["x"]}))
    with pytest.raises(ValueError, match=r"split\.json"):
        read_split(tmp_path)
