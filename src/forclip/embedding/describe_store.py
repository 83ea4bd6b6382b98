"""Describe a store: its images, sources, model, sizes and search index. Needs no model and no PyTorch."""

import os
from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from forclip.bucket_path import StorePath
from forclip.data.images.tiles import describe_tiles, parse_tiles
from forclip.embedding.skipped_list import SKIPPED_FILE, read_unreadable
from forclip.facts import Fact, count, size_text
from forclip.image_size import describe_image_size
from forclip.index.advice import Setting, recommended, smaller_settings
from forclip.index.capacity import Stored
from forclip.index.image_index import Index
from forclip.index.index_kinds import codes_of
from forclip.location import is_url, without_range

_MOST_COUNTED = 2_000_000  # images whose sources are counted; more would take long to read
_MOST_LISTED = 5  # sources, roots and reasons
_SMALL = 1e9  # bytes of a store that need not become smaller
_UNREADABLE = "could not be read"


def describe_store(index: Index) -> dict[str, Any]:
    """Describe a store as JSON values. `sources`: images by what was indexed, None where they are too many to count."""
    contents = index.info()
    described = {f"model {key}": value for key, value in index.store.header.model.items()}
    skipped = read_unreadable(index.store.folder)
    return {
        "kind": "store",
        **contents,
        _UNREADABLE: len(skipped),
        **described,
        "sources": _count_sources(index),
        "last_added": _last_added(index),
        "smaller": [asdict(setting) for setting in _smaller(contents)],
        "skipped": [{"image": image_id, "reason": image.reason} for image_id, image in skipped.items()][:_MOST_LISTED],
    }


def store_facts(folder: StorePath, contents: dict[str, Any]) -> list[Fact]:
    """What a person wants to know of a store. contents: as `describe_store` returns them."""
    return [
        Fact("images", _images(contents)),
        *_sources(contents),
        Fact("model", _model(contents)),
        Fact("vectors", _vectors(contents)),
        Fact("size", _size(contents)),
        *_advice(contents),
        Fact("search", _search(contents)),
        Fact("columns", ", ".join(contents["columns"]) or "none of your own; `forclip index --metadata` adds some"),
        *_skipped(folder, contents),
        *(Fact(key, str(contents[key]), internal=True) for key in ("fingerprint", "format_version", "version")),
        *(Fact("part", _part(part), internal=True) for part in contents["parts"]),
    ]


def _count_sources(index: Index) -> dict[str, int] | None:
    if len(index) > _MOST_COUNTED:
        return None
    counts: Counter[str] = Counter()
    for batch in index.store.table().scanner(["source"]).to_batches():
        for pair in pc.value_counts(batch["source"]).to_pylist():
            counts[pair["values"] or ""] += pair["counts"]
    roots = index.store.roots
    return {_place(roots.resolve(source)) if source else "": number for source, number in counts.most_common()}


def _place(source: str) -> str:
    return source if is_url(source) else os.path.normpath(source)


def _last_added(index: Index) -> str | None:
    """The time of the last change of the images, in ISO format."""
    versions = index.store.table().versions()
    last = max((version["timestamp"] for version in versions), default=None)
    return None if last is None else last.astimezone().isoformat(timespec="seconds")


def _images(contents: dict[str, Any]) -> str:
    last = contents["last_added"]
    changed = "" if last is None else f", last change {datetime.fromisoformat(last):%Y-%m-%d %H:%M}"
    return f"{contents['images']:,}{changed}"


def _sources(contents: dict[str, Any]) -> list[Fact]:
    sources, roots = contents["sources"], contents["roots"]
    facts = []
    if sources is not None:
        lines = [f"{source or 'unknown'}: {count(number, 'image')}" for source, number in sources.items()]
        facts.append(Fact("sources", _first(lines)))
    lines = [f"{name} = {folder}" for name, folder in roots.items()]
    return [*facts, Fact("roots", _first(lines), internal=sources is not None)]


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_LISTED
    return [*lines[:_MOST_LISTED], f"and {more} more"] if more > 0 else lines


def _model(contents: dict[str, Any]) -> str:
    named = {key.removeprefix("model "): value for key, value in contents.items() if key.startswith("model ")}
    run, weights = named.get("run"), named.get("pretrained")
    text = str(named["name"]) + (f" ({weights})" if weights else "")
    text += f", finetuned: run {run}" if run else f", head {named.get('head')}, not finetuned"
    size = named.get("image_size")
    if size is not None:
        text += f", image size {describe_image_size(tuple(size) if isinstance(size, list) else size)}"
    return text


def _vectors(contents: dict[str, Any]) -> str:
    images, tiles = contents["images"], contents.get("model tiles", "none")
    mean = f"{contents['vectors'] / images:.1f} an image, " if images else ""
    text = f"{contents['vectors']:,}: {mean}{contents['dim']} numbers each, {contents['precision']}"
    text += "" if contents["merge"] is None else f", merged from {contents['merge']:g}"
    text += "" if contents["max_vectors"] is None else f", at most {contents['max_vectors']} an image"
    if (formats := contents.get("compute", ["float32"])) != ["float32"]:
        text += f", computed in {' and '.join(formats)}"
    if tiles != "none":
        text += f", tiles {describe_tiles(parse_tiles(tiles, contents.get('model tile_overlap', 0.5)))}"
    return text


def _size(contents: dict[str, Any]) -> str:
    table, search = contents["table_bytes"], contents["search_bytes"]
    each = f" ({(table + search) / contents['images'] / 1e3:.1f} kB an image)" if contents["images"] else ""
    return f"{size_text(table + search)}{each}: images {size_text(table)}, search index {size_text(search)}"


def _smaller(contents: dict[str, Any]) -> list[Setting]:
    images, indexed = contents["images"], [part for part in contents["parts"] if part["index"] != "none"]
    kind = max(indexed, key=lambda part: part["vectors"])["index"] if indexed else ""
    stored = Stored(images, contents["vectors"] / max(1, images), contents["dim"], contents["precision"])
    return smaller_settings(stored, codes_of(kind), contents["merge"])


def _advice(contents: dict[str, Any]) -> list[Fact]:
    """Say which settings make the store smaller, the recommended one first."""
    settings = [Setting(**setting) for setting in contents["smaller"]]
    best = recommended(settings)
    lines = []
    for setting in sorted(settings, key=lambda setting: setting != best):
        command = "a new store, index" if setting.new else "compact"
        cost = f"{setting.change:+.1f} mAP" if setting.change <= -0.05 else "the same mAP"
        lines.append(
            f"{setting.bytes_per_image / 1e3:.1f} kB an image: {command} {setting.options} ({cost} on the toy world)"
        )
    is_small = contents["table_bytes"] + contents["search_bytes"] < _SMALL
    return [Fact("smaller", lines, internal=is_small)] if lines else []


def _search(contents: dict[str, Any]) -> list[str]:
    indexed = [part for part in contents["parts"] if part["index"] != "none"]
    exact = sum(part["images"] for part in contents["parts"] if part["index"] == "none")
    lines = []
    if indexed:
        kinds = ", ".join(dict.fromkeys(part["index"] for part in indexed))
        images = count(sum(part["images"] for part in indexed), "image")
        recalls = [part["recall"] for part in indexed if part.get("recall") is not None]
        measured = f", finds {100 * min(recalls):.1f} % of the best" if recalls else ""
        lines.append(f"approximate: {images} in {count(len(indexed), 'index', 'indexes')} ({kinds}){measured}")
    if exact or not indexed:
        waiting = "; `forclip compact` adds them to the index" if indexed else ""
        lines.append(f"exact: {count(exact, 'image')}, of which every vector is compared{waiting}")
    return lines


def _skipped(folder: StorePath, contents: dict[str, Any]) -> list[Fact]:
    facts = []
    if number := contents[_UNREADABLE]:
        lines = [f"{count(number, 'image')} could not be read: {folder / SKIPPED_FILE}; `index --retry` tries again"]
        lines += [f"  {without_range(entry['reason'])}" for entry in contents["skipped"]]
        facts.append(Fact("skipped", lines))
    else:
        facts.append(Fact("skipped", "nothing"))
    if outdated := contents["to_index_again"]:
        facts.append(Fact("outdated", f"{count(outdated, 'image')} indexed without EXIF orientation: index them again"))
    return facts


def _part(part: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in part.items())
