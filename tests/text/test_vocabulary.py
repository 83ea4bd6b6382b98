"""The shipped vocabulary, files of names, and which spellings are one word."""

from pathlib import Path

import pytest

from forclip.data.splits import COCO_NOVEL
from forclip.text.vocabulary import SHIPPED, WordSet, load_vocabulary, normalise_word

FOLDER = Path(load_vocabulary.__code__.co_filename).parent / "vocabularies"


@pytest.mark.parametrize("given", ["lvis", Path("lvis")])
def test_lvis_is_shipped(given: str | Path) -> None:
    names = load_vocabulary(given)
    assert len(names) == len(set(names)) == 1203
    assert names[:3] == ("aerosol can", "air conditioner", "airplane")
    assert names[-1] == "zucchini"
    assert "bat (animal)" in names
    assert not [n for n in names if "_" in n or "\t" in n or n != n.strip()]


def test_every_shipped_list_has_a_licence_note() -> None:
    for name in SHIPPED:
        note = (FOLDER / f"LICENSE-{name}.txt").read_text()
        assert f"{name}.txt" in note
        assert "Redistributions in binary form must reproduce the above copyright notice" in note


def test_synonyms_belong_to_listed_names() -> None:
    names = set(load_vocabulary("lvis"))
    lines = [line.split("\t") for line in (FOLDER / "lvis_synonyms.txt").read_text().splitlines()]
    assert all(len(line) > 1 and line[0] in names for line in lines)
    assert ["sofa", "couch", "lounge"] in lines


def test_lvis_leaves_out_all_names_of_novel_classes() -> None:
    """By hand: LVIS lists each of COCO's 17 novel classes under one name, four of them under another one."""
    left_out = set(load_vocabulary("lvis")) - set(load_vocabulary("lvis", COCO_NOVEL))
    renamed = {"bus": "bus (vehicle)", "tie": "necktie", "couch": "sofa", "keyboard": "computer keyboard"}
    assert left_out == {renamed.get(name, name) for name in COCO_NOVEL}


def test_a_file_of_names_is_read_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("sofa\n\n  tea pot \n")
    assert load_vocabulary(file) == load_vocabulary(str(file)) == ("sofa", "tea pot")
    assert load_vocabulary(file, ["couch"]) == ("sofa", "tea pot")
    assert load_vocabulary(None) == ()


def test_a_path_to_a_file_named_like_a_shipped_list_is_read(tmp_path: Path) -> None:
    (tmp_path / "lvis").write_text("one\n")
    assert load_vocabulary(tmp_path / "lvis") == ("one",)


@pytest.mark.parametrize("given", ["lvsi", Path("lvsi")])
def test_an_unknown_vocabulary_is_refused(given: str | Path) -> None:
    with pytest.raises(ValueError, match=r"lvsi: .*shipped: lvis"):
        load_vocabulary(given)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    with pytest.raises(ValueError, match=r"words\.txt"):
        load_vocabulary(file)


@pytest.mark.parametrize(
    ("listed", "word", "same"),
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
def test_which_spellings_are_one_word(listed: str, word: str, same: bool) -> None:
    assert (word in WordSet([listed])) is same
    assert (listed in WordSet([word])) is same


def test_words_are_normalised() -> None:
    assert normalise_word("Plains_Zebra ") == "plains zebra"
    assert "" not in WordSet([])
