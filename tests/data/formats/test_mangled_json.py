"""Property: whatever happens to single entries of a file, every entry is used or listed, and the others are used."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forclip.data.formats.coco import load_coco, load_lvis
from forclip.data.formats.nuimages import load_nuimages
from forclip.types import Annotations

Entry = Any
Content = dict[str, list[Entry]]
Place = tuple[str, int]  # the list and the position of an entry

ODD: tuple[Any, ...] = (
    None,
    "",
    " ",
    "word",
    [],
    [1, "x"],
    {},
    {"x": 1},
    True,
    -1.5,
    float("nan"),
    float("inf"),
    10**400,
    "\udcff",
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252")
SETTINGS = settings(max_examples=60, deadline=None)
NO_ENTRIES: tuple[Any, ...] = (None, 7, "word", [], {})


@st.composite
def mangled(draw: st.DrawFn, content: Content) -> tuple[Content, set[Place]]:
    """Some entries with a field dropped or changed, doubled, or replaced. Also returns the places of these."""
    content = deepcopy(content)
    touched: set[Place] = set()
    copies: list[tuple[Place, Place]] = []
    for _ in range(draw(st.integers(0, 4))):
        key = draw(st.sampled_from(sorted(content)))
        position = draw(st.integers(0, len(content[key]) - 1))
        entry = content[key][position]
        match draw(st.sampled_from(("drop", "change", "change", "double", "replace"))):
            case "double":
                content[key].append(deepcopy(entry))
                copies.append(((key, position), (key, len(content[key]) - 1)))
            case "replace":
                content[key][position] = draw(st.sampled_from(NO_ENTRIES))
                touched.add((key, position))
            case what if isinstance(entry, dict) and entry:
                field = draw(st.sampled_from(sorted(entry)))
                if what == "drop":
                    del entry[field]
                else:
                    entry[field] = draw(st.sampled_from(ODD))
                touched.add((key, position))
    for pair in copies * len(copies):  # of two that differ, the first counts
        if not touched.isdisjoint(pair):
            touched.update(pair)
    return content, touched


def write(file: Path, content: object, encoding: str) -> None:
    try:
        file.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    except UnicodeEncodeError:  # half a surrogate pair
        file.write_text(json.dumps(content))


def listed(found: Annotations) -> dict[Place, list[bool]]:
    """For each entry that is listed, whether it is used in part."""
    places: dict[Place, list[bool]] = {}
    for skipped in found.skipped:
        key, position = re.findall(r"\((\w+)\[(\d+)\]\)$", skipped.entry)[0]
        assert skipped.reason
        places.setdefault((key, int(position)), []).append(skipped.used_in_part)
    return places


def as_text(value: object) -> str | None:
    """An id as text; None for what is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def is_box(value: object) -> bool:
    """Whether a value of the file has a box in it."""
    return value not in (None, [])


def has_box(found: Annotations, row: int, column: int, corners: list[float]) -> bool:
    mine = found.boxes[(found.box_images == row) & (found.box_classes == column)]
    return any(np.allclose(box, corners) for box in mine)


COCO: Content = {
    "images": [{"id": k, "file_name": f"käse{k}.jpg", "width": 640, "height": 480} for k in (4, 2, 3, 1)],
    "categories": [{"id": k, "name": f"Maß {k}", "supercategory": "all"} for k in (12, 10, 11)],
    "annotations": [
        {"id": k, "image_id": image, "category_id": 10 + k % 3, "bbox": [k, 2 * k, 3, 4.5], "iscrowd": k % 4 // 3}
        for k, image in enumerate((1, 1, 2, 2, 3, 4, 4, 4))
    ],
}
LVIS: Content = {
    "images": [
        {"id": k, "coco_url": f"http://host/train2017/{k}.jpg", "neg_category_ids": [10 + k % 3]} for k in (4, 2, 3, 1)
    ],
    "categories": [
        {"id": k, "name": f"thing_{k}_(big)", "synonyms": [f"thing_{k}", "it"], "frequency": "r"} for k in (12, 10, 11)
    ],
    "annotations": COCO["annotations"],
}


def check_coco(
    content: Content, touched: set[Place], found: Annotations, readable: Callable[[str], str]
) -> dict[str | None, str]:
    """Also returns the class name of each category by its id."""
    places = listed(found)
    left_out = {place for place, parts in places.items() if not all(parts)}
    used = {key: [e for k, e in enumerate(content[key]) if (key, k) not in left_out] for key in content}
    assert {as_text(image["id"]) for image in used["images"]} == set(found.image_ids)
    name_of = {as_text(c["id"]): readable(as_text(c["name"]) or str(c["name"])) for c in used["categories"]}
    assert set(name_of.values()) == set(found.class_names)
    justified = set()
    for k, a in enumerate(content["annotations"]):
        if ("annotations", k) in left_out:
            continue
        row = found.image_ids.index(as_text(a["image_id"]) or "")
        column = found.class_names.index(name_of[as_text(a["category_id"])])
        assert found.labels[row, column]
        justified.add((row, column))
        if is_box(a.get("bbox")) and a.get("iscrowd") not in (1, True) and ("annotations", k) not in places:
            x, y, width, height = map(float, a["bbox"])
            assert has_box(found, row, column, [x, y, x + width, y + height])
    assert {tuple(place) for place in np.argwhere(found.labels).tolist()} == justified
    # What nobody touched is used, unless what it names was touched.
    lost_ids = {(key, as_text(COCO[key][k]["id"])) for key, k in touched if key != "annotations" and k < len(COCO[key])}
    for key, entries in content.items():
        for k, entry in enumerate(entries):
            if (key, k) in touched:
                continue
            names_lost = key == "annotations" and (
                ("images", as_text(entry["image_id"])) in lost_ids
                or ("categories", as_text(entry["category_id"])) in lost_ids
            )
            if not names_lost:
                assert (key, k) not in left_out
    return name_of


def load_or_none_usable(
    load: Callable[[Path, Path], Annotations], file: Path, images: list[Entry]
) -> Annotations | None:
    """Loaded annotations, or None where the file has no image that can be used."""
    try:
        return load(file, Path("pictures"))
    except ValueError as error:
        if f"none of its {len(images)} images can be used" not in str(error):
            raise
        return None


@SETTINGS
@given(data=st.data(), encoding=st.sampled_from(ENCODINGS))
def test_coco(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, encoding: str) -> None:
    content, touched = data.draw(mangled(COCO))
    file = tmp_path_factory.getbasetemp() / "coco.json"
    write(file, content, encoding)
    found = load_or_none_usable(load_coco, file, content["images"])
    if found is not None:
        check_coco(content, touched, found, readable=str)


@SETTINGS
@given(data=st.data(), encoding=st.sampled_from(ENCODINGS))
def test_lvis(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, encoding: str) -> None:
    content, touched = data.draw(mangled(LVIS))
    file = tmp_path_factory.getbasetemp() / "lvis.json"
    write(file, content, encoding)
    found = load_or_none_usable(load_lvis, file, content["images"])
    if found is None:
        return
    name_of = check_coco(content, touched, found, readable=lambda name: name.replace("_", " ").strip())
    told = {
        as_text(content["images"][k].get("id"))
        for key, k in listed(found)
        if key == "images" and isinstance(content["images"][k], dict)
    }
    verified = found.labels.copy()
    for image in content["images"]:
        if not isinstance(image, dict) or (image_id := as_text(image.get("id"))) in told:
            continue
        for category_id in map(as_text, image["neg_category_ids"]):
            verified[found.image_ids.index(image_id or ""), found.class_names.index(name_of[category_id])] = True
    rows = [r for r, image_id in enumerate(found.image_ids) if image_id not in told]
    np.testing.assert_array_equal(found.verified_mask[rows], verified[rows])


NUIMAGES: Content = {
    "category": [{"token": f"c{k}", "name": f"vehicle.kind{k}"} for k in (2, 0, 1)],
    "sample": [{"token": f"s{k}", "timestamp": k, "key_camera_token": f"d{k}"} for k in (3, 1, 2)],
    "sample_data": [
        row
        for k in (2, 3, 1)
        for row in (
            {"token": f"d{k}", "sample_token": f"s{k}", "filename": f"samples/{k}.jpg", "is_key_frame": True},
            {"token": f"l{k}", "sample_token": f"s{k}", "filename": f"samples/{k}.pcd.bin", "is_key_frame": True},
            {"token": f"w{k}", "sample_token": f"s{k}", "filename": f"sweeps/{k}.jpg", "is_key_frame": False},
        )
    ],
    "object_ann": [
        {"token": f"a{k}", "sample_data_token": f"d{image}", "category_token": f"c{k % 3}", "bbox": [k, k, 2 * k, 9]}
        for k, image in enumerate((1, 1, 2, 3, 3, 3))
    ],
}


@SETTINGS
@given(data=st.data(), encoding=st.sampled_from(ENCODINGS))
def test_nuimages(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, encoding: str) -> None:
    tables, touched = data.draw(mangled(NUIMAGES))
    folder = tmp_path_factory.getbasetemp()
    for name, rows in tables.items():
        write(folder / f"{name}.json", rows, encoding)
    try:
        found = load_nuimages(folder, Path("pictures"))
    except ValueError as error:
        if "keyframe images can be used" not in str(error):
            raise
        return
    places = listed(found)
    left_out = {place for place, parts in places.items() if not all(parts)}
    name_of = {}
    for k, category in enumerate(tables["category"]):
        if ("category", k) not in left_out:
            name_of[as_text(category["token"])] = (
                (as_text(category["name"]) or str(category["name"])).replace("_", " ").split(".")[-1]
            )
    assert set(name_of.values()) == set(found.class_names)
    justified = set()
    for k, a in enumerate(tables["object_ann"]):
        if ("object_ann", k) in left_out:
            continue
        row = found.image_ids.index(as_text(a["sample_data_token"]) or "")
        column = found.class_names.index(name_of[as_text(a["category_token"])])
        justified.add((row, column))
        if is_box(a.get("bbox")) and ("object_ann", k) not in places:
            assert has_box(found, row, column, list(map(float, a["bbox"])))
    assert {tuple(place) for place in np.argwhere(found.labels).tolist()} == justified
    # What nobody touched is used, unless what it names was touched.
    lost = {NUIMAGES[table][k]["token"] for table, k in touched if k < len(NUIMAGES[table])}
    for k, frame in enumerate(tables["sample_data"]):
        if ("sample_data", k) not in touched:
            assert ("sample_data", k) not in places
            if frame["sample_token"] not in lost and f"d{frame['sample_token'][1:]}" not in lost:
                assert (frame["token"] in found.image_ids) == frame["token"].startswith("d")
            elif frame["token"].startswith("d"):  # its sample was touched, but it says itself that it is a keyframe
                assert frame["token"] in found.image_ids
    for k, a in enumerate(tables["object_ann"]):
        if ("object_ann", k) not in touched and {a["sample_data_token"], a["category_token"]}.isdisjoint(lost):
            assert ("object_ann", k) not in places
