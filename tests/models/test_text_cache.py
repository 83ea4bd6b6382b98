"""The cache of text vectors: bit-identical vectors, each encoded once, never another backbone's."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from forclip.config import DataConfig, ModelConfig, RunConfig, SourceConfig
from forclip.models.backbone import Backbone
from forclip.models.open_clip_backbone import OpenClipBackbone
from forclip.models.text_cache import cache_texts, read_texts, write_texts
from forclip.text.prompts import encode_classes
from forclip.training.runs import load_backbone
from tests.tiny import TinyBackbone


class Counting(TinyBackbone):
    """Records the texts of every call."""

    def __init__(self, fingerprint: str = "0" * 64) -> None:
        super().__init__(fingerprint=fingerprint)
        self.calls: list[list[str]] = []

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.calls.append(list(texts))
        return super().encode_text(texts)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_vectors_are_bit_identical_and_encoded_once(tmp_path: Path) -> None:
    texts = ["a cat", "a dog", "a cat", "", "Zürich", "a\ncat", "a dog"]
    first, second = Counting(), Counting()
    for cached in (cache_texts(first, tmp_path), cache_texts(second, tmp_path)):
        for _ in range(2):
            assert torch.equal(cached.encode_text(texts), TinyBackbone().encode_text(texts))
    assert first.calls == [["a cat", "a dog", "", "Zürich", "a\ncat"]]
    assert second.calls == []
    assert len(files(tmp_path)) == 1


def test_only_missing_texts_are_encoded(tmp_path: Path) -> None:
    cache_texts(Counting(), tmp_path).encode_text(["a", "b", "c"])
    backbone = Counting()
    cached = cache_texts(backbone, tmp_path)
    assert torch.equal(cached.encode_text(["d", "b", "e", "d"]), TinyBackbone().encode_text(["d", "b", "e", "d"]))
    assert backbone.calls == [["d", "e"]]
    assert torch.equal(cached.encode_text(list("edcba")), TinyBackbone().encode_text(list("edcba")))
    assert len(backbone.calls) == 1
    third = Counting()
    cache_texts(third, tmp_path).encode_text(list("abcde"))
    assert third.calls == []


def test_no_text_gives_no_rows_and_no_file(tmp_path: Path) -> None:
    backbone = Counting()
    assert cache_texts(backbone, tmp_path / "none").encode_text([]).shape == (0, 6)
    assert backbone.calls == []
    assert not (tmp_path / "none").exists()


def test_another_fingerprint_shares_nothing(tmp_path: Path) -> None:
    cache_texts(Counting("a"), tmp_path).encode_text(["cat"])
    other = Counting("b")
    cache_texts(other, tmp_path).encode_text(["cat"])
    assert other.calls == [["cat"]]
    assert len(files(tmp_path)) == 2


def test_a_file_under_another_fingerprints_name_is_not_used(tmp_path: Path) -> None:
    cache_texts(Counting("a"), tmp_path).encode_text(["cat"])
    (file,) = files(tmp_path)
    cache_texts(Counting("b"), tmp_path).encode_text(["dog"])
    (other,) = set(files(tmp_path)) - {file}
    file.replace(other)
    backbone = Counting("b")
    cache_texts(backbone, tmp_path).encode_text(["cat"])
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
def test_a_damaged_file_is_ignored_and_rewritten(tmp_path: Path, how: str) -> None:
    cache_texts(Counting(), tmp_path).encode_text(["a cat", "a dog"])
    damage(files(tmp_path)[0], how)
    backbone = Counting()
    cached = cache_texts(backbone, tmp_path)
    assert torch.equal(cached.encode_text(["a cat"]), TinyBackbone().encode_text(["a cat"]))
    assert backbone.calls == [["a cat"]]
    assert list(read_texts(files(tmp_path)[0], "0" * 64)) == ["a cat"]


def test_any_text_is_kept_and_another_version_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "texts.safetensors"
    write_texts(file, "a", {"cat": torch.ones(2)})
    assert list(read_texts(file, "a")) == ["cat"]
    write_texts(file, "a", {"broken \udc80": torch.ones(2)})
    assert list(read_texts(file, "a")) == ["broken \udc80"]
    monkeypatch.setattr("forclip.models.text_cache.FORMAT_VERSION", 2)
    assert read_texts(file, "a") == {}


def test_each_of_two_caches_keeps_what_the_other_wrote(tmp_path: Path) -> None:
    first, second = cache_texts(Counting(), tmp_path), cache_texts(Counting(), tmp_path)
    first.encode_text(["a"])
    second.encode_text(["b"])
    first.encode_text(["c"])
    assert list(read_texts(files(tmp_path)[0], "0" * 64)) == ["a", "b", "c"]


def write_many(folder: Path, letter: str) -> None:
    for k in range(30):
        cache_texts(TinyBackbone(), folder).encode_text([f"{letter}{k}"])


def test_concurrent_writers_never_leave_a_damaged_file(tmp_path: Path) -> None:
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
    (file,) = files(tmp_path)  # no temporary file is left
    for text, vector in read_texts(file, "0" * 64).items():
        assert torch.equal(vector, TinyBackbone().encode_text([text])[0])


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: "):
        cache_texts(TinyBackbone(), tmp_path / "file").encode_text(["cat"])


def test_everything_else_is_the_backbones(tmp_path: Path) -> None:
    inner = TinyBackbone("a name", "f" * 64)
    cached: Backbone = cache_texts(inner, tmp_path)
    assert (cached.name, cached.fingerprint, cached.device) == ("a name", "f" * 64, torch.device("cpu"))
    picture = Image.new("RGB", (9, 5), "red")
    pixels = cached.preprocess(picture)
    assert torch.equal(pixels, inner.preprocess(picture))
    assert torch.equal(cached.encode_tokens(pixels[None]), inner.encode_tokens(pixels[None]))
    assert type(cached.new_pool()) is type(inner.new_pool())


def test_class_vectors_are_equal_through_the_cache(tmp_path: Path) -> None:
    names, templates, synonyms = ["sofa", "cat"], ["a {}", "the {}"], [("couch",), ()]
    cached = encode_classes(cache_texts(TinyBackbone(), tmp_path), names, templates, synonyms)
    assert torch.equal(cached, encode_classes(TinyBackbone(), names, templates, synonyms))


def test_a_run_caches_texts_in_its_configured_folder(tmp_path: Path) -> None:
    data = DataConfig(SourceConfig(Path("zoo.json")))
    mini = ModelConfig("forclip-mini")
    assert isinstance(load_backbone(RunConfig(data, mini)), OpenClipBackbone)
    backbone = load_backbone(RunConfig(replace(data, cache=tmp_path), mini))
    backbone.encode_text(["a cat"])
    (file,) = files(tmp_path / "texts")
    assert list(read_texts(file, backbone.fingerprint)) == ["a cat"]


def test_cached_vectors_allow_gradients(tmp_path: Path) -> None:
    """Also if they were first encoded in inference mode."""
    cached = cache_texts(TinyBackbone(), tmp_path)
    with torch.inference_mode():
        cached.encode_text(["cat"])
    weights = torch.ones(6, requires_grad=True)
    (cached.encode_text(["cat"]) @ weights).sum().backward()
    assert weights.grad is not None
