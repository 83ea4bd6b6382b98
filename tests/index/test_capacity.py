"""Estimated sizes: by hand, and against stores that were written."""

import json
from datetime import timedelta
from pathlib import Path

import lance
import numpy as np
import pytest

from forclip.index.capacity import (
    MEASURED_MERGES,
    MEASURED_VECTORS,
    Stored,
    count_segments,
    index_bytes,
    merged_share,
    milvus_bytes,
    need,
    parse_count,
    search_memory,
    segment_bytes,
    table_bytes,
)
from forclip.index.image_index import Index
from forclip.index.milvus.recall import choose_index
from forclip.index.milvus.settings import VectorIndex
from forclip.index.schema import Precision, StoreHeader
from forclip.index.segment_folder import FOLDER
from forclip.index.store import ImageFile
from forclip.index.table import TABLE
from forclip.types import ImageEmbeddings
from tests.index.made import unit

ROOT = Path(__file__).parents[2]
MILLION = Stored(1_000_000, 25, 512, "fp16")


def test_counts_are_read_strictly() -> None:
    counts = {"50M": 50_000_000, "100k": 100_000, "1.5M": 1_500_000, "2000000": 2_000_000, "1B": 10**9, " 7 ": 7}
    counts |= {"50,000,000": 50_000_000, "2_000_000": 2_000_000}
    assert {text: parse_count(text) for text in counts} == counts
    for text in (
        "",
        "0",
        "-5",
        "5 0",
        "50 M",
        "50MB",
        "1e6",
        "0.5",
        "1.0000001M",
        "nan",
        "10000G",
        "½",
        "1,5",
        "1,00",
        "1,,000",
    ):
        with pytest.raises(ValueError, match="number of images") as error:
            parse_count(text)
        assert repr(text) in str(error.value)


def test_sizes_by_hand() -> None:
    """A million images of 25 vectors: 1,024 bytes of numbers and 8 of a box each; 150 and 133 bytes an image."""
    assert table_bytes(MILLION) == 25_000_000 * 1032 + 150_000_000
    assert segment_bytes(MILLION) == 25_000_000 * 1032 + 133_000_000
    # 16 GB build 16e9 / 2 / 1.5 / 520 = 10,256,410 vectors: three segments of 8,192 lists with a centre of 1,024 bytes.
    assert count_segments(MILLION) == 3
    assert index_bytes(MILLION) == 25_000_000 * 520 + 3 * 8192 * 1032
    assert search_memory(MILLION) == (250_000_000 + 5_000_000 + index_bytes(MILLION), 255_000_000)
    eight_bits = Stored(1_000_000, 25, 512, "int8")
    assert table_bytes(MILLION) - table_bytes(eight_bits) == 25_000_000 * 512
    assert index_bytes(MILLION) == index_bytes(eight_bits)


def test_a_bucket_takes_over_what_is_not_for_search() -> None:
    local, bucket, milvus = (need(place, MILLION) for place in ("local", "bucket", "milvus"))
    assert (local.disk, local.bucket) == (bucket.disk + bucket.bucket, 0)
    assert bucket.bucket == table_bytes(MILLION)
    assert local.per_month == pytest.approx(local.disk / 1e9 * 0.08)
    assert bucket.per_month == pytest.approx(bucket.disk / 1e9 * 0.08 + bucket.bucket / 1e9 * 0.023)
    assert (milvus.disk, milvus.segments) == (0, 0)
    assert milvus.memory == milvus_bytes(MILLION, choose_index(25_000_000, None))[0]
    assert need("bucket", MILLION, bucket_price=1, disk_price=0).per_month == pytest.approx(bucket.bucket / 1e9)


def test_milvus_by_hand() -> None:
    stored = Stored(1, 1, 512, "int8")
    columns = 180 + 330
    assert milvus_bytes(stored, VectorIndex("FLAT")) == (512 + columns, 2 * 512 + columns)
    links = 211  # 1.1 * 2 * 24 * 4
    hnsw = VectorIndex("HNSW", {"M": 24})
    assert milvus_bytes(stored, hnsw) == pytest.approx((512 + links + columns, 2 * 512 + links + columns), abs=1)
    assert milvus_bytes(stored, VectorIndex("DISKANN"))[0] == 256 + columns
    with pytest.raises(ValueError, match="AUTOINDEX"):
        milvus_bytes(stored, VectorIndex("AUTOINDEX"))


def test_merging_leaves_what_was_measured() -> None:
    measured = json.loads((ROOT / "docs/results/compactness.json").read_text())["mean"]
    for merge, left in MEASURED_MERGES.items():
        assert left == pytest.approx(measured[f"fp16, merged from {merge:g}"]["vectors_per_image"], abs=0.001)
        assert merged_share(merge) * MEASURED_VECTORS == pytest.approx(left)
    assert merged_share(1) == 1
    assert merged_share(0.9) < merged_share(0.92) < merged_share(0.95)
    for merge in (0.79, 1.01, float("nan")):
        with pytest.raises(ValueError, match="--vectors-per-image"):
            merged_share(merge)


@pytest.mark.parametrize(("precision", "dim", "vectors"), [("fp16", 64, 4), ("int8", 48, 6)])
def test_estimates_are_near_the_files_of_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, dim: int, vectors: int
) -> None:
    for name in ("optimize.MIN_INDEXED_VECTORS", "capacity.MIN_INDEXED_VECTORS"):
        monkeypatch.setattr(f"forclip.index.{name}", 5_000)
    for name in ("optimize.MIN_SEGMENT_VECTORS", "capacity.MIN_SEGMENT_VECTORS", "upkeep.MIN_UNINDEXED"):
        monkeypatch.setattr(f"forclip.index.{name}", 1_000)
    images, rng = 5_000, np.random.default_rng(0)
    index = Index.create(tmp_path / "store", StoreHeader("abc", dim, {"name": "some model"}, precision=precision))
    ids = [f"photos/{number:028d}.jpg" for number in rng.choice(10**12, images, replace=False).tolist()]
    near = unit(rng, 50, dim)[rng.integers(0, 50, images * vectors)] + 0.05 * rng.standard_normal(
        (images * vectors, dim)
    )
    corners = np.sort(rng.random((len(near), 2, 2)), 1).reshape(-1, 4).astype(np.float32)
    made = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    index.put(
        ImageEmbeddings(made, np.arange(0, len(made) + 1, vectors), tuple(ids), corners),
        [ImageFile(f"root/{i}", 640, 480, rng.bytes(16).hex(), k, 10**15 + k, "root", 2) for k, i in enumerate(ids)],
    )
    index.compact()
    table = tmp_path / "store" / TABLE
    lance.dataset(str(table)).cleanup_old_versions(timedelta(0), delete_unverified=True)
    stored = Stored(images, vectors, dim, precision)
    names = {file: file.name for file in (tmp_path / "store" / FOLDER).rglob("*") if file.is_file()}
    of_index = sum(file.stat().st_size for file, name in names.items() if name.startswith("ann-"))
    of_segment = sum(file.stat().st_size for file in names) - of_index
    assert index.info()["parts"][0]["index"].startswith("IVF")
    assert _bytes(table) == pytest.approx(table_bytes(stored), rel=0.15)
    assert of_segment == pytest.approx(segment_bytes(stored), rel=0.15)
    assert of_index == pytest.approx(index_bytes(stored), rel=0.15)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_formulas_of_the_page_are_these() -> None:
    """What docs/scale.md says of 50 million images, merged from 0.9, in int8."""
    page = (ROOT / "docs" / "scale.md").read_text()
    stored = Stored(50_000_000, 25 * merged_share(0.9), 512, "int8")
    local, milvus = need("local", stored), need("milvus", stored)
    for place, needed in (("local", local.disk), ("milvus", milvus.memory)):
        (line,) = (line for line in page.splitlines() if line.strip().startswith("int8, merged") and place in line)
        assert f"{needed / 1e9:.3g} GB" in line
    v = stored.vectors / stored.images
    assert local.disk == pytest.approx(50e6 * (2 * v * (512 + 8) + 150 + 133) + index_bytes(stored), rel=1e-6)
    assert milvus.memory == pytest.approx(50e6 * (v * (512 + 8.8 * 16 + 180) + 330), rel=1e-6)
