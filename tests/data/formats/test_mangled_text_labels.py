"""No entry of a mangled YOLO or VOC set is lost in silence, and none stops the set or changes another one."""

from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from forclip.data.formats.voc import load_voc
from forclip.data.formats.yolo import load_yolo
from forclip.types import Annotations

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
NUMBERS = st.sampled_from(
    ["0", "1", "1.0", "7", "-1", "0.5", "0,5", "1.004", "1.3", "nan", "inf", "1e400", "", "x", "\u00e9", "<"]
)


def rows(annotations: Annotations, without: str) -> dict[str, tuple[list[bool], list[list[float]]]]:
    """The labels and boxes of every image but one, by id."""
    return {
        image_id: (annotations.labels[row].tolist(), annotations.boxes[annotations.box_images == row].tolist())
        for row, image_id in enumerate(annotations.image_ids)
        if image_id != without
    }


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
        Image.new("L", (20, 10)).save(tmp_path / "images" / f"{name}.png")
        (tmp_path / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.4\n1 0.25 0.5 0.5 1\n")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: images\n")
    return tmp_path


LINES = st.lists(st.lists(NUMBERS, max_size=9).map(" ".join) | st.just("0 0.5 0.5 0.2 0.4"), max_size=6)


@SETTINGS
@given(LINES, ENCODINGS, LINE_ENDS)
def test_yolo_lines(yolo: Path, lines: list[str], encoding: str, line_end: str) -> None:
    (yolo / "labels" / "b.txt").write_text("0 0.5 0.5 0.2 0.4\n1 0.25 0.5 0.5 1\n")
    before = load_yolo(yolo / "data.yaml", "train")
    (yolo / "labels" / "b.txt").write_bytes(line_end.join(lines).encode(encoding))
    after = load_yolo(yolo / "data.yaml", "train")
    assert rows(after, without="images/b.png") == rows(before, without="images/b.png")
    used = int((after.box_images == 1).sum())  # labels without a box are in `skipped`
    by_line = [s for s in after.skipped if "b.txt: line " in s.entry]
    if len(by_line) == len(after.skipped):
        assert used + len(by_line) == sum(bool(line.strip()) for line in lines)
    else:  # the file as a whole
        assert (used, [s.entry for s in after.skipped]) == (0, [str(yolo / "labels" / "b.txt")])
        assert not after.verified_mask[1].any()


@SETTINGS
@given(
    st.lists(st.sampled_from(["a", "b", "c", "gone", "../a", "/etc/a", "C:\\x\\images\\b", ""]), min_size=1, max_size=6)
)
def test_yolo_lists(yolo: Path, stems: list[str]) -> None:
    names = [f"images/{stem}.png" if stem in ("a", "b", "c", "gone") else f"{stem}.png" for stem in stems]
    (yolo / "list.txt").write_text("\n".join([*names, "images/a.png"]))
    (yolo / "list.yaml").write_text("names: [cat, dog]\ntrain: list.txt\n")
    found = load_yolo(yolo / "list.yaml", "train")
    whole = load_yolo(yolo / "data.yaml", "train")
    listed = {"images/a.png"} | {f"images/{stem}.png" for stem in stems if stem in ("a", "b", "c", "gone")}
    listed |= {"images/b.png"} if "C:\\x\\images\\b" in stems else set()
    listed |= {".png"} if "" in stems else set()
    assert set(found.image_ids) == listed
    outside = [s for s in found.skipped if "list.txt: line" in s.entry]
    assert len(outside) == sum(stem in ("../a", "/etc/a") for stem in stems)
    for image_id, row in rows(whole, without="").items():
        assert rows(found, without="").get(image_id, row) == row


VOC_VALUES = st.sampled_from(["1", "5", "20", "-3", "7.5", "7,5", "nan", "inf", "1e400", "", "x", "\u00e9", "&"])
NAMES = st.sampled_from(["cat", "dog", "", " ", "K\u00e4tzchen", "<&>", None])
BOXES = st.none() | st.dictionaries(st.sampled_from(["xmin", "ymin", "xmax", "ymax"]), VOC_VALUES)
OBJECTS = st.lists(st.tuples(NAMES, BOXES), max_size=5)


def voc_xml(objects: list[tuple[str | None, dict[str, str] | None]]) -> str:
    def element(tag: str, content: str | None) -> str:
        return "" if content is None else f"<{tag}>{content}</{tag}>"

    parts = []
    for name, box in objects:
        sides = None if box is None else "".join(element(side, escape(value)) for side, value in box.items())
        parts.append(
            element("object", element("name", None if name is None else escape(name)) + element("bndbox", sides))
        )
    return element("annotation", "".join(parts))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    box = {"xmin": "1", "ymin": "2", "xmax": "9", "ymax": "8"}
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").touch()
        (tmp_path / f"{name}.xml").write_text(voc_xml([("cat", box), ("dog", box)]))
    return tmp_path


@SETTINGS
@given(OBJECTS, ENCODINGS, st.none() | st.integers(0, 200))
def test_voc_objects(
    voc: Path, objects: list[tuple[str | None, dict[str, str] | None]], encoding: str, cut: int | None
) -> None:
    content = voc_xml(objects).encode(encoding)
    (voc / "b.xml").write_bytes(content[:cut])
    after = load_voc(voc, None)
    expected = ([True, True], [[0, 1, 9, 8], [0, 1, 9, 8]])
    assert rows(after.with_classes(["cat", "dog"]), without="b") == {"a": expected, "c": expected}
    row = after.image_ids.index("b")
    used = int((after.box_images == row).sum())
    if any(s.entry == str(voc / "b.xml") for s in after.skipped):  # the file as a whole
        assert (len(after.skipped), used) == (1, 0)
        assert not after.verified_mask[row].any()
        return
    without_box = [name.strip() for name, box in objects if name and name.strip() and not box]
    assert used + len(without_box) + len(after.skipped) == len(objects)
    shown = {name.strip() for name, _ in objects if name and name.strip()}
    assert {name for name, label in zip(after.class_names, after.labels[row], strict=True) if label} == shown
    assert np.isfinite(after.boxes).all()
