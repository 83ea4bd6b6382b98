from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from forclip.data.formats.csv_labels import load_csv
from forclip.data.images.box_frames import upright_boxes
from forclip.types import Annotations

IMAGES = Path("pictures")


def load(folder: Path, content: str | bytes) -> Annotations:
    file = folder / "labels.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_csv(file, IMAGES)


LONG = "image,label\nb.jpg,dog\nsub/a.jpg,cup\nb.jpg,cat\nc.jpg,\n"


def test_long_form(tmp_path: Path) -> None:
    """One row a pair; c.jpg shows nothing; what is not listed is an absence that someone has checked."""
    found = load(tmp_path, LONG)
    assert found.image_ids == ("b.jpg", "c.jpg", "sub/a.jpg")
    assert found.paths == (IMAGES / "b.jpg", IMAGES / "c.jpg", IMAGES / "sub" / "a.jpg")
    assert found.class_names == ("cat", "cup", "dog")
    assert found.labels.tolist() == [[True, False, True], [False, False, False], [False, True, False]]
    assert found.boxes.shape == (0, 4)
    assert found.verified is None
    assert found.verified_mask.all()


@pytest.mark.parametrize(
    "content",
    [
        "image,labels\nb.jpg,dog|cat\nsub/a.jpg,cup\nc.jpg,\n",
        "image,labels\r\nb.jpg,dog;cat\r\nc.jpg,\r\nsub/a.jpg, cup ;\r\n",
        "labels,note,image\ncup,,sub/a.jpg\n\n,,c.jpg\n,,\ncat,seen twice,b.jpg\ndog,,b.jpg",
        "\ufeffImage, Label \nb.jpg,dog\n./sub/a.jpg,cup\nb.jpg,cat\nc.jpg,\nb.jpg,dog\n",
    ],
    ids=["bars", "semicolons, CRLF", "other columns, blank rows", "byte order mark, capitals, a pair twice"],
)
def test_other_spellings_of_the_same_table(tmp_path: Path, content: str) -> None:
    found, expected = load(tmp_path, content), load(tmp_path, LONG)
    assert found.image_ids == expected.image_ids
    assert found.paths == expected.paths
    assert found.class_names == expected.class_names
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.verified is None


def test_with_present_the_labels_are_federated(tmp_path: Path) -> None:
    """Only the pairs that are listed are verified; owl was looked for and never seen, and is a class all the same."""
    rows = ["a.jpg,cat,1", "a.jpg,dog,FALSE", "b.jpg,cat,0", "b.jpg,owl,0", "c.jpg,,", "d.jpg,dog,true"]
    found = load(tmp_path, "image,label,present\n" + "\n".join(rows))
    assert found.class_names == ("cat", "dog", "owl")
    assert found.labels.tolist() == [[True, False, False], [False] * 3, [False] * 3, [False, True, False]]
    assert found.verified is not None
    assert found.verified.tolist() == [[True, True, False], [True, False, True], [False] * 3, [False, True, False]]


def test_ids_may_be_given(tmp_path: Path) -> None:
    found = load(tmp_path, "id,image,label\n7,z.jpg,cat\n10,a.jpg,cat\n7,z.jpg,dog\n")
    assert found.image_ids == ("10", "7")
    assert found.paths == (IMAGES / "a.jpg", IMAGES / "z.jpg")
    assert found.labels.tolist() == [[True, False], [True, True]]


def test_a_cell_may_hold_what_separates_lines_elsewhere(tmp_path: Path) -> None:
    found = load(tmp_path, 'image,label\n"a,b.jpg","red\ncup"\nc.jpg,"blue\u2028cup"\n')
    assert found.image_ids == ("a,b.jpg", "c.jpg")
    assert found.class_names == ("blue\u2028cup", "red\ncup")


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "line 1, the header, needs a column image and one of label or labels, but has: nothing"),
    "no header": ("a.jpg,cat\n", r"line 1, the header, needs .*: a\.jpg, cat"),
    "other columns": ("image,score\na.jpg,0.5\n", "line 1, the header, needs .*: image, score"),
    "label and labels": ("image,label,labels\na.jpg,cat,dog\n", "line 1, the header, needs"),
    "column twice": ("image,label,image\na.jpg,cat,b.jpg\n", "line 1, the header, has the column image twice"),
    "no rows": ("image,label\n", "no row can be used"),
    "no good rows": ("image,label\n,cat\n/etc/passwd,cat\n", "no row can be used; the first: line 2: no file name"),
    "a JPEG": (b"\xff\xd8\xff\xe0 JFIF", "is a picture"),
    "a workbook": (b"PK\x03\x04", "is a workbook"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_can_not_be_understood_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"labels\.csv: {message}"):
        load(tmp_path, content)


BAD_ROWS: dict[str, tuple[str, str, list[int], str]] = {
    "short row": ("image,label", "b.jpg", [3], ""),
    "long row": ("image,label", "b.jpg,dog,bird", [3], ""),
    "no image": ("image,label", ",dog", [3], ""),
    "no id": ("image,label,id", "b.jpg,cat, ", [3], "b.jpg"),
    "id of another image": ("image,label,id", "b.jpg,cat,1", [3], "1"),
    "another id": ("image,label,id", "a.jpg,dog,3", [3], "3"),
    "present is a word": ("image,label,present", "b.jpg,cat,maybe", [3], "maybe"),
    "present is empty": ("image,label,present", "b.jpg,cat,", [3], "cat"),
    "both present and absent": ("image,label,present", "a.jpg,cat,0", [2, 3], "cat"),
    "path traversal": ("image,label", "../../etc/passwd,cat", [3], "../../etc/passwd"),
    "absolute path": ("image,label", "/etc/passwd,cat", [3], "/etc/passwd"),
    "open quotes": ("image,label", 'b.jpg,"cat', [3], ""),
    "a cell too large": ("image,label", "b.jpg," + "x" * 200_000, [3], ""),
}


@pytest.mark.parametrize(("header", "bad", "lines", "value"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_left_out_and_listed(header: str, bad: str, lines: list[int], value: str, tmp_path: Path) -> None:
    good = {"id": ["a.jpg,cat,1", "c.jpg,cup,5"], "present": ["a.jpg,cat,1", "c.jpg,cup,1"]}
    first, last = good.get(header.rpartition(",")[2], ["a.jpg,cat", "c.jpg,cup"])
    found = load(tmp_path, "\n".join([header, first, bad, last]))
    assert [entry.entry.rpartition(" ")[2] for entry in found.skipped] == list(map(str, lines))
    assert all(value in entry.value for entry in found.skipped)
    assert {IMAGES / "a.jpg", IMAGES / "c.jpg"} <= set(found.paths)
    assert found.labels[:, found.class_names.index("cup")].tolist() == [False] * (len(found) - 1) + [True]
    if len(lines) == 2:  # nobody knows which row is right
        assert not found.verified_mask[0, found.class_names.index("cat")]


def test_the_line_is_the_files_own(tmp_path: Path) -> None:
    """Blank lines count, and so do the lines inside a quoted cell."""
    found = load(tmp_path, 'image,label\n\na.jpg,"red\ncup"\n\n,dog\n')
    assert [entry.entry for entry in found.skipped] == [f"{tmp_path / 'labels.csv'}: line 6"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.csv: no such file"):
        load_csv(tmp_path / "nowhere.csv", IMAGES)
    with pytest.raises(ValueError, match=f"{tmp_path.name}: not readable"):
        load_csv(tmp_path, IMAGES)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_other_encodings_and_separators(encoding: str, tmp_path: Path) -> None:
    found = load(tmp_path, "image;label\r\nb.jpg;Vögel\r\na.jpg;cat\r\n".encode(encoding))
    assert found.class_names == ("Vögel", "cat")
    assert [entry.value for entry in found.skipped if entry.used_in_part] == ["cp1252"] * (encoding == "cp1252")


@pytest.mark.parametrize(
    "content",
    [
        'image,labels\na.jpg,"cat, dog"\nb.jpg,dog\n',
        "image;labels\na.jpg;cat, dog\nb.jpg;dog\n",
        'image,label\na.jpg,"[""cat"", ""dog""]"\nb.jpg,dog\n',
        "image,label\na.jpg,\"['cat', 'dog']\"\nb.jpg,dog\n",
        "image,label\na.jpg,cat|dog\nb.jpg,dog\n",
        'image,tags\na.jpg,"cat\ndog"\nb.jpg,dog\n',
    ],
)
def test_several_labels_in_a_cell_are_split_where_the_file_says_so(content: str, tmp_path: Path) -> None:
    found = load(tmp_path, content)
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [[True, True], [False, True]]
    assert found.skipped == ()


def test_labels_with_commas_are_pointed_out(tmp_path: Path) -> None:
    found = load(tmp_path, 'image,label\na.jpg,"cat, dog"\nb.jpg,dog\nc.jpg,cat\nd.jpg,"cup, red"\ne.jpg,owl\n')
    assert "cat, dog" in found.class_names
    assert [(e.value, e.used_in_part) for e in found.skipped] == [("cat, dog", True)]
    names = load(tmp_path, 'image,labels\na.jpg,"cup, red|dog"\nb.jpg,dog\n').class_names
    assert names == ("cup, red", "dog")


def test_labels_with_blanks_between_them_are_pointed_out(tmp_path: Path) -> None:
    found = load(tmp_path, "image,labels\na.jpg,cat dog\nb.jpg,cat\nc.jpg,traffic light\n")
    assert found.class_names == ("cat", "cat dog", "traffic light")
    assert [entry.value for entry in found.skipped] == ["cat dog"]


def test_what_programs_write_for_no_value_is_no_class(tmp_path: Path) -> None:
    found = load(tmp_path, "image,label\na.jpg,cat\nb.jpg,NaN\nc.jpg,None\n")
    assert (len(found), found.class_names) == (3, ("cat",))
    assert [entry.value for entry in found.skipped] == ["NaN", "None"]


def test_json_without_known_labels_is_reported(tmp_path: Path) -> None:
    found = load(tmp_path, 'image,label\na.jpg,cat\nb.jpg,"{""objects"": [{""title"": ""dog""}]}"\n')
    assert (found.class_names, [entry.entry[-6:] for entry in found.skipped]) == (("cat",), ["line 3"])


def test_rows_of_automl_have_as_many_cells_as_labels(tmp_path: Path) -> None:
    found = load(tmp_path, "gs://b/a.jpg,cat\ngs://b/b.jpg,cat,dog\n".replace("gs://b/", "TRAIN,"))
    assert found.labels.tolist() == [[True, False], [True, True]]
    assert found.skipped == ()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (200, 100)).save(folder / name)
    return folder


VIA = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
RECT = '"{""name"":""rect"",""x"":20,""y"":10,""width"":80,""height"":40}"'
STUDIO = (
    '"[{""x"":10,""y"":10,""width"":40,""height"":40,""rotation"":0,""rectanglelabels"":[""cat""],'
    '""original_width"":200,""original_height"":100}]"'
)
BOXED = {
    "TensorFlow and Roboflow": (
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,200,100,cat,20,10,100,50\nb.jpg,200,100,,,,,\n"
    ),
    "VoTT": "image,xmin,ymin,xmax,ymax,label\na.jpg,20.0,10.0,100.0,50.0,cat\nb.jpg,,,,,\n",
    "Make Sense": "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name\ncat,20,10,80,40,a.jpg\n,,,,,b.jpg\n",
    "Kaggle": 'image_id,class,bbox\na,cat,"[20.0, 10.0, 80.0, 40.0]"\nb,,\n',
    "Open Images": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\na,x,cat,1,0.1,0.5,0.1,0.5\nb,x,,1,,,,\n",
    "VIA": f'#{VIA}\na.jpg,9,"{{}}",1,0,{RECT},"{{""class"":""cat""}}"\nb.jpg,9,"{{}}",0,0,"{{}}","{{}}"\n',
    "AutoML": "TRAIN,gs://bucket/set/a.jpg,cat,0.1,0.1,,,0.5,0.5,,\nTEST,gs://bucket/set/b.jpg,,,,,,,,,\n",
    "keras-retinanet": "a.jpg,20,10,100,50,cat\nb.jpg,,,,,\n",
    "Label Studio": (
        f"annotator,id,image,label\n1,7,/data/upload/1/ab12cd34-a.jpg,{STUDIO}\n1,8,/data/upload/1/ab12cd35-b.jpg,\n"
    ),
}


@pytest.mark.parametrize("content", BOXED.values(), ids=BOXED.keys())
def test_boxes_of_other_tools(content: str, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(content)
    found = load_csv(tmp_path / "labels.csv", pictures)
    assert found.skipped == ()
    assert found.paths == (pictures / "a.jpg", pictures / "b.jpg")
    assert found.class_names == ("cat",)
    assert found.labels.tolist() == [[True], [False]]
    assert found.verified is None
    np.testing.assert_allclose(found.boxes, [[20, 10, 100, 50]], atol=1e-4)
    assert (found.box_images.tolist(), found.box_classes.tolist()) == ([0], [0])


def test_the_size_in_the_file_tells_whether_boxes_are_of_the_turned_picture(pictures: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a viewer shows 100 x 200 pixels
    Image.new("RGB", (200, 100)).save(pictures / "a.jpg", exif=exif)
    for size, expected in (("200,100", [50, 20, 90, 100]), ("100,200", [20, 10, 100, 50])):
        (tmp_path / "labels.csv").write_text(
            f"filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,{size},cat,20,10,100,50\n"
        )
        assert upright_boxes(load_csv(tmp_path / "labels.csv", pictures)).boxes.tolist() == [expected]


def test_open_images_verified_labels_have_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "class-descriptions.csv").write_text("/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    rows = "a,verification,/m/01yrx,1\na,verification,/m/0bt9lr,0\nb,verification,/m/0bt9lr,1\n"
    found = load(tmp_path, "ImageID,Source,LabelName,Confidence\n" + rows)
    assert found.class_names == ("Cat", "Dog")
    assert found.labels.tolist() == [[True, False], [False, True]]
    assert found.verified_mask.tolist() == [[True, True], [False, True]]


def test_a_column_for_each_class(tmp_path: Path) -> None:
    found = load(tmp_path, "filename, cat, dog, size\na.jpg,1,0,12\nb.jpg,0.0,1.0,7\n")
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [[True, False], [False, True]]
    assert found.verified is None
    unsure = load(tmp_path, "Path,cat,dog\na.jpg,1,-1\nb.jpg,,1\n")
    assert unsure.labels.tolist() == [[True, False], [False, True]]
    assert unsure.verified_mask.tolist() == [[True, False], [False, True]]
    rows = "".join(f"{k}.jpg,1,0\n" for k in range(12))
    bad = load(tmp_path, f"filename,cat,dog\n{rows}x.jpg,perhaps,1\n")
    assert [(entry.entry[-7:], entry.value) for entry in bad.skipped] == [("line 14", "cat: perhaps")]
    assert bad.labels[-1].tolist() == [False, True]
    assert bad.verified_mask[-1].tolist() == [False, True]
    few = load(tmp_path, "filename,cat,dog,age\na.jpg,1,0,1\nb.jpg,2,1,7\nc.jpg,1,1,9\n")
    assert few.class_names == ("cat", "dog")
    assert [entry.value for entry in few.skipped] == ["age, such as 7", "cat: 2"]


@pytest.mark.parametrize(
    ("rows", "value"),
    [
        ("TRAIN,a.jpg,cat,0.1,0.1,,,0.5,0.5,,\nTEST,b.jpg,dog,0.1,0.1,,,nan,0.5,,\n", "0.1,0.1,,,nan,0.5"),
        ("a.jpg,1,2,3,4,cat\nb.jpg,1,2,x,4,dog\n", "1,2,x,4"),
        ('image,label,bbox\na.jpg,cat,"[1,2,3,4]"\nb.jpg,dog,"[1,2,3]"\n', "[1,2,3]"),
    ],
)
def test_a_bad_box_of_another_layout_leaves_its_label(pictures: Path, tmp_path: Path, rows: str, value: str) -> None:
    (tmp_path / "labels.csv").write_text(rows)
    found = load_csv(tmp_path / "labels.csv", pictures)
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [[True, False], [False, True]]
    assert (len(found.boxes), [entry.value for entry in found.skipped]) == (1, [value])


def test_numbers_of_a_spreadsheet(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image;label;xmin;ymin;xmax;ymax\na.jpg;cat;1.234,5;2;1.300,25;40\n")
    assert load_csv(tmp_path / "labels.csv", pictures).boxes.tolist() == [[1234.5, 2, 1300.25, 40]]


def test_make_sense_without_a_header(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("cat,1,2,3,4,a.jpg,20,10\ndog,1,2,3,4,b.jpg,20,10\n")
    found = load_csv(tmp_path / "labels.csv", pictures)
    assert found.class_names == ("cat", "dog")
    assert found.boxes.tolist() == [[1, 2, 4, 6]] * 2


def test_damaged_cells_of_label_studio_are_no_class(tmp_path: Path) -> None:
    good = '"[{""x"":1,""y"":2,""width"":3,""height"":4,""rectanglelabels"":[""cat""]},{""x"":1,""y"":2}]"'
    found = load(tmp_path, f'image,label\na.jpg,{good}\nb.jpg,"[{{""x"":1,""y"":2,""wid"\n')
    assert found.class_names == ("cat",)
    assert [entry.entry[-6:] for entry in found.skipped] == ["line 3", "line 2"]


def test_a_bad_box_leaves_its_label(pictures: Path, tmp_path: Path) -> None:
    bad = ["nan,0,10,10", "10,0,5,10", "0,0,inf,10", "x,0,10,10", "0,0,1e12,10"]
    rows = "".join(f"a.jpg,cat{k},{box}\n" for k, box in enumerate(bad))
    (tmp_path / "labels.csv").write_text(f"image,label,xmin,ymin,xmax,ymax\n{rows}b.jpg,dog,1,2,3,4\n")
    found = load_csv(tmp_path / "labels.csv", pictures)
    assert found.labels.sum() == 6
    assert found.boxes.tolist() == [[1, 2, 3, 4]]
    assert [entry.entry[-6:] for entry in found.skipped] == [f"line {k}" for k in range(2, 7)]
    assert all(entry.used_in_part for entry in found.skipped)


MANGLED = [
    "a.jpg,cat",
    "b.jpg,vögel",
    "b.jpg",
    "a.jpg,cat,x",
    ",dog",
    "../x.jpg,dog",
    '"',
    'c.jpg,"dog',
    "d.jpg,",
    "\0,x",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(MANGLED), max_size=8),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    st.sampled_from(["image,label", "label,image", "image,labels", "filename,class"]),
)
def test_no_row_of_a_mangled_file_is_lost_and_none_stops_the_set(
    tmp_path: Path, rows: list[str], separator: str, encoding: str, header: str
) -> None:
    """Every line is used, reported, or part of a quoted cell that is."""
    text = "\n".join([header, "z.jpg,owl", "owl,z.jpg", *rows]).replace(",", separator)
    found = load(tmp_path, text.encode(encoding))
    reported = {int(entry.entry.rpartition(" ")[2]) for entry in found.skipped if "line" in entry.entry}
    names = {*found.image_ids}
    for number, line in enumerate(text.split("\n")[1:], start=2):
        cells = [cell.strip('"') for cell in line.split(separator)]
        quoted = any('"' in other for other in text.split("\n")[:number])
        assert number in reported or names & set(cells) or quoted or not any(cells), line
