"""Shards for tests: tars as webdataset writes them, and tables as Hugging Face's `datasets` does."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(seed: int) -> bytes:
    """A PNG of 12 x 10 pixels, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (10, 12, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(file: Path, members: Mapping[str, bytes], mode: str = "w") -> bytes:
    """Write a tar of members by name, in order, and return its bytes."""
    with tarfile.open(file, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.read_bytes()


def table(pictures: list[bytes | None]) -> pa.Table:
    """A table with Hugging Face's columns `image` and `label`, and its note of their types."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [None if p is None else {"bytes": p, "path": f"{k}.png"} for k, p in enumerate(pictures)]
    columns = {"image": pa.array(rows, kind), "label": pa.array([k % 2 for k in range(len(rows))], pa.int64())}
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(file: Path, pictures: list[bytes | None], rows_a_group: int = 3) -> bytes:
    """Write a table as Parquet, and return its bytes."""
    pq.write_table(table(pictures), file, row_group_size=rows_a_group)
    return file.read_bytes()


def write_saved_dataset(folder: Path, pictures: list[bytes | None]) -> None:
    """Write a folder as `Dataset.save_to_disk` does: Arrow streams beside two JSON files."""
    folder.mkdir(parents=True)
    rows = table(pictures)
    name = "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (folder / "dataset_info.json").write_text("{}")
