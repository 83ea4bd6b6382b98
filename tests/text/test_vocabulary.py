"""The shipped list and one's own, and which names are one word."""

from pathlib import Path

import pytest

from forclip.data.splits import COCO_NOVEL
from forclip.text.vocabulary import SHIPPED, SameWords, load_vocabulary, spelling

FOLDER = Path(load_vocabulary.__code__.co_filename).parent / "vocabularies"


@pytest.mark.parametrize("given", ["lvis", Path("lvis")])
def test_lvis_is_shipped(given: str | Path) -> None:
    names = load_vocabulary(given)
    assert len(names) == len(set(names)) == 1203
    assert names[:3] == ("aerosol can", "air conditioner", "airplane")
    assert names[-1] == "zucchini"
    assert "bat (animal)" in names
    assert not [n for n in names if "_" in n or "\t" in n or n != n.strip()]


def test_every_shipped_list_says_where_it_comes_from() -> None:
    for name in SHIPPED:
        note = (FOLDER / f"LICENSE-{name}.txt").read_text()
        assert f"{name}.txt" in note
        assert "Redistributions in binary form must reproduce the above copyright notice" in note


def test_synonyms_are_of_names_that_are_listed() -> None:
    names = set(load_vocabulary("lvis"))
    lines = [line.split("\t") for line in (FOLDER / "lvis_synonyms.txt").read_text().splitlines()]
    assert all(len(line) > 1 and line[0] in names for line in lines)
    assert ["sofa", "couch", "lounge"] in lines


def test_lvis_leaves_out_what_means_a_novel_class() -> None:
    """Found by hand in LVIS's list: each of COCO's 17 novel classes is there under one name, four not under its own."""
    left_out = set(load_vocabulary("lvis")) - set(load_vocabulary("lvis", COCO_NOVEL))
    renamed = {"bus": "bus (vehicle)", "tie": "necktie", "couch": "sofa", "keyboard": "computer keyboard"}
    assert left_out == {renamed.get(name, name) for name in COCO_NOVEL}


def test_names_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("sofa\n\n  tea pot \n")
    assert load_vocabulary(file) == load_vocabulary(str(file)) == ("sofa", "tea pot")
    assert load_vocabulary(file, ["couch"]) == ("sofa", "tea pot")
    assert load_vocabulary(None) == ()


def test_a_file_of_a_shipped_name_is_read_where_its_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "lvis").write_text("one\n")
    assert load_vocabulary(tmp_path / "lvis") == ("one",)


@pytest.mark.parametrize("given", ["lvsi", Path("lvsi")])
def test_what_is_neither_a_list_nor_a_file_is_named(given: str | Path) -> None:
    with pytest.raises(ValueError, match="lvsi: no such file of names, and no shipped vocabulary; shipped: lvis"):
        load_vocabulary(given)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"words\.txt: not readable as a list of names"):
        load_vocabulary(file)


@pytest.mark.parametrize(
    ("kept_out", "word", "same"),
    [
        ("bus", "Bus", True),
        ("tea_pot", " tea  Pot", True),
        ("bus", "bus_(vehicle)", True),
        ("bus (vehicle)", "bus", True),
        ("bow (weapon)", "bow (decorative ribbons)", False),
        ("bus", "buses", False),
        ("bus", "bus stop", False),
        ("(other)", "(another)", False),
    ],
)
def test_when_two_names_are_one_word(kept_out: str, word: str, same: bool) -> None:
    assert (word in SameWords([kept_out])) is same
    assert (kept_out in SameWords([word])) is same


def test_spelling() -> None:
    assert spelling("Plains_Zebra ") == "plains zebra"
    assert "" not in SameWords([])
