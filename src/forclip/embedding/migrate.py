"""Convert stores of format version 2, whose images and model are absolute paths, to the current format."""

import glob
import json
import os
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig
from forclip.embedding.skipped_list import OLD_SKIPPED_FILE
from forclip.index.column_changes import repair_columns
from forclip.index.create_store import copy_run
from forclip.index.roots import Roots, common_folder, source_reference, to_json
from forclip.index.schema import HEADER_KEY, MIGRATED_VERSION, StoreHeader
from forclip.index.segment_folder import FOLDER as SEARCH_FOLDER
from forclip.index.store import OLD_DECODING
from forclip.index.table import TABLE, writers_lock
from forclip.models.references import reference_to_json, written_reference
from forclip.models.retrieval_model import describe_model, is_trained_run, load_model
from forclip.path_text import text_to_path

_STARTED = "migration.json"  # holds the table's version before the migration
_REPLACED = ("id", "uri", "source")
_NEW = "migrated "  # prefix of the columns that replace others


def needs_migration(folder: Path) -> bool:
    """Whether a folder is a store of format version 2."""
    if not (folder / TABLE / "_versions").is_dir():
        return False
    header = (lance.dataset(str(folder / TABLE)).schema.metadata or {}).get(HEADER_KEY.encode())
    return header is not None and _version(header) == MIGRATED_VERSION  # written last


def migrate_store(folder: Path, model: ModelConfig | None = None, device: str = "cpu") -> int:
    """Convert a store of format version 2 in place, without reading its vectors, and return the number of its images.

    Images and skipped images become relative to roots, one for each folder that was indexed; the store gets a copy of
    the trained run that wrote it. Vectors, keys and metadata stay. A conversion that was stopped starts again.

    model: where the model is now, if it has moved. Raises ValueError if it is missing or did not write the store; then
    nothing is changed.
    """
    with writers_lock(folder):
        table = lance.dataset(str(folder / TABLE))
        if (folder / _STARTED).exists():
            version = json.loads((folder / _STARTED).read_text())["version"]
            table = lance.dataset(str(folder / TABLE), version=version)
            table.restore()
        repair_columns(folder / TABLE)
        table = lance.dataset(str(folder / TABLE))
        old = json.loads(table.schema.metadata[HEADER_KEY.encode()])
        header, run = _new_header(folder, old, model, device)
        images = table.to_table(["id", "uri", "source"])
        roots = _find_roots(images)
        write_text_atomically(folder / _STARTED, json.dumps({"version": table.version}))
        schema = pa.schema([*((_NEW + name, pa.string()) for name in _REPLACED), ("decoding", pa.int8())])

        def convert(batch: pa.RecordBatch) -> pa.RecordBatch:
            rows = [_convert(roots, row) for row in batch.select(_REPLACED).to_pylist()]
            columns = [pa.array([row[name] for row in rows], pa.string()) for name in _REPLACED]
            return pa.RecordBatch.from_arrays(
                [*columns, pa.array([OLD_DECODING] * len(rows), pa.int8())], schema=schema
            )

        table.add_columns(lance.batch_udf(output_schema=schema)(convert), read_columns=list(_REPLACED))
        table.drop_columns(list(_REPLACED))
        table.alter_columns(*({"path": _NEW + name, "name": name} for name in _REPLACED))
        if (folder / OLD_SKIPPED_FILE).exists():
            _convert_skipped(folder / OLD_SKIPPED_FILE, roots)
        shutil.rmtree(folder / SEARCH_FOLDER, ignore_errors=True)  # segments hold ids
        if run is not None:
            copy_run(run, folder)
        table.update_schema_metadata({HEADER_KEY: replace(header, roots=to_json(roots, folder)).to_json()})
        (folder / _STARTED).unlink()
    return len(images)


def _version(header: bytes) -> Any:
    try:
        return json.loads(header)["format_version"]
    except (ValueError, KeyError, TypeError):
        return None


def _new_header(
    folder: Path, old: dict[str, Any], model: ModelConfig | None, device: str
) -> tuple[StoreHeader, Path | None]:
    """Return the new header, and the folder of the trained run that wrote the store, or None."""
    content = {name: value for name, value in old.items() if name != "format_version"}
    stored = dict(content["model"])
    head, count = stored.pop("head"), stored.pop("num_query_tokens")
    config = model or written_reference(stored)
    if not is_trained_run(config.name):
        if model is None and os.path.isabs(config.name):
            raise ValueError(f"{folder}: its model {config.name} is missing; --model says where it is now")
        if model is None:  # its weights may be missing: nothing of them is needed
            return StoreHeader(**content | {"model": {**content["model"], **reference_to_json(config)}}), None
    chosen = (None, None) if is_trained_run(config.name) else (head, count)
    loaded = load_model(config, device, *chosen)
    if loaded.fingerprint != content["fingerprint"]:
        raise ValueError(f"{folder}: was written by another model than {config.name}, or other weights of that name")
    content["model"] = describe_model(loaded, config, *chosen)
    return StoreHeader(**content), Path(config.name) if is_trained_run(config.name) else None


def _find_roots(images: pa.Table) -> Roots:
    """Return a root for each source: its folder, the fixed part of its pattern, or the folder of its pictures."""
    by_source: dict[str, list[str]] = defaultdict(list)
    for row in images.to_pylist():
        if os.path.isabs(row["uri"]) and row["source"]:
            by_source[row["source"]].append(row["uri"])
    folders = []
    for source, uris in by_source.items():
        inside = os.path.join(source, "")
        if all(uri.startswith(inside) for uri in uris):
            folders.append(source)
        elif glob.has_magic(source) and not os.path.exists(source):
            parts = Path(source).parts
            folders.append(str(Path(*parts[: next(k for k, part in enumerate(parts) if glob.has_magic(part))])))
        else:
            folders.append(common_folder(map(text_to_path, uris)))
    roots = Roots()
    for folder in sorted(folders, key=len):
        roots = roots.with_folder(folder)
    return roots


def _convert(roots: Roots, row: dict[str, str]) -> dict[str, str]:
    """Return id, location and source of an image in a root; those of other images stay."""
    if not os.path.isabs(row["uri"]) or (uri := roots.reference(row["uri"])) is None:
        return row
    source = source_reference(roots, uri.partition("/")[0], row["source"]) if row["source"] else ""
    return {"id": uri if row["id"] == row["uri"] else row["id"], "uri": uri, "source": source}


def _convert_skipped(file: Path, roots: Roots) -> None:
    skipped = {}
    for image_id, image in json.loads(file.read_text()).items():
        uri = roots.reference(image["uri"]) or image["uri"]
        skipped[uri if image_id == image["uri"] else image_id] = {**image, "uri": uri}
    write_text_atomically(file, json.dumps(skipped, indent=1))
