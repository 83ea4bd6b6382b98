"""Text vectors from disk: the same to the bit, encoded once, and never another model's."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from forclip.config import DataConfig, RunConfig, SourceConfig
from forclip.models.backbone import Backbone
from forclip.models.cached_texts import CachedTexts, read_texts, write_texts
from forclip.text.prompts import encode_classes
from forclip.training.runs import load_backbone
from tests.tiny import TinyBackbone


class Counting(TinyBackbone):
    """Notes every call for texts."""

    def __init__(self, fingerprint: str = "0" * 64) -> None:
        super().__init__(fingerprint=fingerprint)
        self.calls: list[list[str]] = []

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.calls.append(list(texts))
        return super().encode_text(texts)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_vectors_are_the_same_to_the_bit_and_encoded_once(tmp_path: Path) -> None:
    texts = ["a cat", "a dog", "a cat", "", "Zürich", "a\ncat", "a dog"]
    first, second = Counting(), Counting()
    for cached in (CachedTexts(first, tmp_path), CachedTexts(second, tmp_path)):
        for _ in range(2):
            assert torch.equal(cached.encode_text(texts), TinyBackbone().encode_text(texts))
    assert first.calls == [["a cat", "a dog", "", "Zürich", "a\ncat"]]
    assert second.calls == []
    assert len(files(tmp_path)) == 1


def test_only_what_is_missing_is_encoded(tmp_path: Path) -> None:
    CachedTexts(Counting(), tmp_path).encode_text(["a", "b", "c"])
    backbone = Counting()
    cached = CachedTexts(backbone, tmp_path)
    assert torch.equal(cached.encode_text(["d", "b", "e", "d"]), TinyBackbone().encode_text(["d", "b", "e", "d"]))
    assert backbone.calls == [["d", "e"]]
    assert torch.equal(cached.encode_text(list("edcba")), TinyBackbone().encode_text(list("edcba")))
    assert len(backbone.calls) == 1
    third = Counting()
    CachedTexts(third, tmp_path).encode_text(list("abcde"))
    assert third.calls == []


def test_no_text_at_all(tmp_path: Path) -> None:
    backbone = Counting()
    assert CachedTexts(backbone, tmp_path / "none").encode_text([]).shape == (0, 6)
    assert backbone.calls == []
    assert not (tmp_path / "none").exists()


def test_another_fingerprint_shares_nothing(tmp_path: Path) -> None:
    CachedTexts(Counting("a"), tmp_path).encode_text(["cat"])
    other = Counting("b")
    CachedTexts(other, tmp_path).encode_text(["cat"])
    assert other.calls == [["cat"]]
    assert len(files(tmp_path)) == 2


def test_not_even_under_the_name_of_the_others_file(tmp_path: Path) -> None:
    CachedTexts(Counting("a"), tmp_path).encode_text(["cat"])
    (file,) = files(tmp_path)
    CachedTexts(Counting("b"), tmp_path).encode_text(["dog"])
    (other,) = set(files(tmp_path)) - {file}
    file.replace(other)
    backbone = Counting("b")
    CachedTexts(backbone, tmp_path).encode_text(["cat"])
    assert backbone.calls == [["cat"]]
    assert list(read_texts(other, "b")) == ["cat"]
    assert read_texts(other, "a") == {}


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    match how:
        case "empty":
            content = bytearray()
        case "cut":
            del content[-3:]
        case "a bit":
            content[-1] ^= 1
        case "a text":
            at = content.index(b"a cat")
            content[at : at + 5] = b"a rat"
        case "no format":
            content = bytearray(b"not safetensors" * 10)
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["empty", "cut", "a bit", "a text", "no format"])
def test_a_damaged_file_is_ignored_and_written_anew(tmp_path: Path, how: str) -> None:
    CachedTexts(Counting(), tmp_path).encode_text(["a cat", "a dog"])
    damage(files(tmp_path)[0], how)
    backbone = Counting()
    cached = CachedTexts(backbone, tmp_path)
    assert torch.equal(cached.encode_text(["a cat"]), TinyBackbone().encode_text(["a cat"]))
    assert backbone.calls == [["a cat"]]
    assert list(read_texts(files(tmp_path)[0], "0" * 64)) == ["a cat"]


def test_any_text_is_kept_but_not_in_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "texts.safetensors"
    write_texts(file, "a", {"cat": torch.ones(2)})
    assert list(read_texts(file, "a")) == ["cat"]
    write_texts(file, "a", {"broken \udc80": torch.ones(2)})
    assert list(read_texts(file, "a")) == ["broken \udc80"]
    monkeypatch.setattr("forclip.models.cached_texts.FORMAT_VERSION", 2)
    assert read_texts(file, "a") == {}


def test_two_at_a_time_keep_what_the_other_wrote_before(tmp_path: Path) -> None:
    """Both are open from the start; each learns from the file before it writes."""
    first, second = CachedTexts(Counting(), tmp_path), CachedTexts(Counting(), tmp_path)
    first.encode_text(["a"])
    second.encode_text(["b"])
    first.encode_text(["c"])
    assert list(read_texts(files(tmp_path)[0], "0" * 64)) == ["a", "b", "c"]


def write_many(folder: Path, letter: str) -> None:
    for k in range(30):
        CachedTexts(TinyBackbone(), folder).encode_text([f"{letter}{k}"])


def test_processes_that_write_at_once_never_leave_a_damaged_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        for file in tmp_path.glob("*.safetensors"):
            assert read_texts(file, "0" * 64)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    (file,) = files(tmp_path)  # and no temporary one
    for text, vector in read_texts(file, "0" * 64).items():
        assert torch.equal(vector, TinyBackbone().encode_text([text])[0])


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: cannot write the cache of text vectors there"):
        CachedTexts(TinyBackbone(), tmp_path / "file").encode_text(["cat"])


def test_it_is_the_backbone_in_all_else(tmp_path: Path) -> None:
    inner = TinyBackbone("a name", "f" * 64)
    cached: Backbone = CachedTexts(inner, tmp_path)
    assert (cached.name, cached.fingerprint, cached.device) == ("a name", "f" * 64, torch.device("cpu"))
    picture = Image.new("RGB", (9, 5), "red")
    pixels = cached.preprocess(picture)
    assert torch.equal(pixels, inner.preprocess(picture))
    assert torch.equal(cached.encode_tokens(pixels[None]), inner.encode_tokens(pixels[None]))
    assert type(cached.new_pool()) is type(inner.new_pool())


def test_classes_through_the_cache(tmp_path: Path) -> None:
    names, templates, synonyms = ["sofa", "cat"], ["a {}", "the {}"], [("couch",), ()]
    cached = encode_classes(CachedTexts(TinyBackbone(), tmp_path), names, templates, synonyms)
    assert torch.equal(cached, encode_classes(TinyBackbone(), names, templates, synonyms))


def test_a_run_keeps_its_texts_where_its_configuration_says(tmp_path: Path) -> None:
    data = DataConfig(SourceConfig(Path("zoo.json")))
    assert not isinstance(load_backbone(RunConfig(data)), CachedTexts)
    backbone = load_backbone(RunConfig(replace(data, cache=tmp_path)))
    backbone.encode_text(["a cat"])
    (file,) = files(tmp_path / "texts")
    assert list(read_texts(file, backbone.fingerprint)) == ["a cat"]


def test_vectors_that_were_looked_up_can_be_trained_against(tmp_path: Path) -> None:
    """Even where they were first asked for in inference mode."""
    cached = CachedTexts(TinyBackbone(), tmp_path)
    with torch.inference_mode():
        cached.encode_text(["cat"])
    weights = torch.ones(6, requires_grad=True)
    (cached.encode_text(["cat"]) @ weights).sum().backward()
    assert weights.grad is not None
