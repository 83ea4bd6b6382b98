"""A store written in one number format takes images of another, if vectors agree."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forclip.config import ModelConfig
from forclip.embedding.ingest import IndexSummary, index_images
from forclip.embedding.run_options import RunOptions
from forclip.index.image_index import Index
from forclip.index.schema import HEADER_KEY, StoreHeader, read_header
from forclip.models.tower_backbone import TowerBackbone
from forclip.search.searcher import open_searcher
from forclip.toyworld.dataset import ToyWorld

MINI = ModelConfig("forclip-mini")


@pytest.fixture
def pictures(small_world: ToyWorld) -> list[Path]:
    return sorted(small_world.images.glob("gallery_*.jpg"))


def index(to: Path, pictures: list[Path], **options: Any) -> IndexSummary:
    folder = to.parent / "photos"
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        shutil.copy(picture, folder)
    return index_images(str(folder), to, model=None if to.exists() else MINI, **({"num_query_tokens": 4} | options))


def vectors(store: Path) -> dict[str, Any]:
    rows = Index(store).store.table().to_table(columns=["id", "vectors"]).to_pylist()
    return {row["id"]: np.array(row["vectors"], np.float32) for row in rows}


def test_formats_that_agree_are_mixed_and_recorded(tmp_path: Path, pictures: list[Path]) -> None:
    to = tmp_path / "s"
    index(to, pictures[:4], compute="bf16")
    assert Index(to).store.header.compute == ["bf16"]
    assert index(to, pictures[:4], compute="float32").unchanged == 4
    assert Index(to).store.header.compute == ["bf16"]  # nothing was written
    index(to, pictures[:8], compute="float32", run=RunOptions(images_per_commit=2))
    assert Index(to).store.header.compute == ["bf16", "float32"]
    index(to, pictures[:10], compute="bf16")
    assert Index(to).store.header.compute == ["bf16", "float32"]
    assert Index(to).info()["compute"] == ["bf16", "float32"]
    assert Index(to).verify() == []


def test_which_images_are_found_does_not_depend_on_format_batch_or_decoding(
    tmp_path: Path, pictures: list[Path]
) -> None:
    """Vectors have a cosine of at least 0.999 with those of one process in float32."""
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "bf16": {"compute": "bf16"},
        "batch": {"batch_size": 3},
        "processes": {"processes": 2, "batch_size": 7},
    }
    for name, options in ways.items():
        (tmp_path / name).mkdir()
        index(tmp_path / name / "s", pictures[:24], **options)
    expected = vectors(tmp_path / "plain" / "s")
    searchers = {name: open_searcher(str(tmp_path / name / "s")) for name in ways}
    for name, searcher in searchers.items():
        found = vectors(tmp_path / name / "s")
        assert found.keys() == expected.keys()
        cosines = [(found[i] * expected[i]).sum(1) / np.linalg.norm(expected[i], axis=1) for i in found]
        assert np.min(cosines) > 0.999, name
        for text in ("a star", "a red boat"):
            best, wanted = (
                {result.image_id: result.score for result in one.index.search(one.encode_text(text), 24)}
                for one in (searcher, searchers["plain"])
            )
            assert best.keys() == wanted.keys()
            np.testing.assert_allclose([best[i] for i in wanted], list(wanted.values()), rtol=0, atol=5e-3)


def test_formats_that_differ_are_refused_and_nothing_is_written(
    tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "s"
    index(to, pictures[:4])
    before = vectors(to)
    encode = TowerBackbone.encode_tokens

    def broken(self: TowerBackbone, pixels: torch.Tensor) -> torch.Tensor:
        tokens = encode(self, pixels)
        return tokens if self.compute == "float32" else tokens.roll(1, -1)

    monkeypatch.setattr(TowerBackbone, "encode_tokens", broken)
    with pytest.raises(ValueError, match=r"written in float32; vectors in bf16 .*--compute float32"):
        index(to, pictures[:8], compute="bf16")
    assert vectors(to).keys() == before.keys()
    assert Index(to).store.header.compute == ["float32"]
    assert index(to, pictures[:8], compute="float32").added == 4


def test_images_to_be_added_are_compared_if_those_of_the_store_are_gone(tmp_path: Path, pictures: list[Path]) -> None:
    to = tmp_path / "s"
    index(to, pictures[:3])
    for picture in (tmp_path / "photos").iterdir():
        picture.unlink()
    index(to, pictures[3:6], compute="bf16")
    assert Index(to).store.header.compute == ["float32", "bf16"]


def test_a_store_of_an_earlier_version_counts_as_float32() -> None:
    header = StoreHeader("abc", 4, {"name": "some model"}, compute=["bf16"])
    schema = header.schema()
    assert read_header(schema, "s").compute == ["bf16"]
    text = header.to_json().replace(', "compute": ["bf16"]', "")
    assert "compute" not in text
    assert read_header(schema.with_metadata({HEADER_KEY: text}), "s") == replace(header, compute=["float32"])
